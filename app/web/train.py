"""POST /train: rows in, a durable job out."""

import hashlib
import re
import uuid
from collections.abc import Sequence
from typing import Annotated, Any, TypeAlias

import numpy as np
from fastapi import APIRouter, Header, Request
from numpy.typing import NDArray
from pydantic import Field, WithJsonSchema
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from app.data.csv_rows import read_header
from app.data.json_rows import are_objects, to_column, to_matrix
from app.data.names import check_names
from app.data.training_rows import write_matrix
from app.errors import Detail, InvalidInput, ModelNotFound, NotFound
from app.jobs.capabilities import check_device
from app.jobs.job import Job
from app.jobs.training_request import TrainingRequest
from app.registry.version_file import Version
from app.regression.solvers import GradientDescent, Solver, Start
from app.regression.terms import parse_terms
from app.web import bodies
from app.web.errors import problems
from app.web.jobs import JobView, view, wait_for
from app.web.parameters import Rows
from app.web.services import Services, services
from app.web.training_options import ExactOptions, FileOptions, TrainingOptions, from_query, query_parameters

router = APIRouter(tags=["Train"])

_KEYS = uuid.UUID("6b1d6a5e-7d0a-5b0e-9a53-0c0f5f3c7a11")  # namespace of the job ids made from Idempotency-Keys


# Names of features, terms and targets.
Columns: TypeAlias = tuple[Sequence[str], Sequence[str], Sequence[str]]


class TrainRequest(TrainingOptions):
    """Rows with their targets, two lists of the same length, each all objects or all arrays."""

    instances: Rows = Field(min_length=1)
    targets: Rows = Field(min_length=1)
    feature_names: list[str] | None = Field(
        None, description="Names for rows that are arrays. Default: those of the model's current version."
    )
    target_names: list[str] | None = Field(None, description="Likewise.")
    sample_weights: Annotated[
        list[Any] | None, WithJsonSchema({"type": "array", "items": {"type": "number", "minimum": 0}})
    ] = Field(None, description="One for each row: a row of weight 2 counts like two.")


NOTEBOOK_INPUTS = [
    [73, 67, 43], [91, 88, 64], [87, 134, 58], [102, 43, 37], [69, 96, 70],
    [74, 66, 43], [91, 87, 65], [88, 134, 59], [101, 44, 37], [68, 96, 71],
    [73, 66, 44], [92, 87, 64], [87, 135, 57], [103, 43, 36], [68, 97, 70],
]  # fmt: skip
NOTEBOOK_TARGETS = [
    [56, 70], [81, 101], [119, 133], [22, 37], [103, 119],
    [57, 69], [80, 102], [118, 132], [21, 38], [104, 118],
    [57, 69], [82, 100], [118, 134], [20, 38], [102, 120],
]  # fmt: skip

EXAMPLES: dict[str, Any] = {
    "The notebook's rows, exactly": {"instances": NOTEBOOK_INPUTS, "targets": NOTEBOOK_TARGETS},
    "The notebook's rows, by gradient descent": {
        "instances": NOTEBOOK_INPUTS,
        "targets": NOTEBOOK_TARGETS,
        "solver": {"kind": "gradient_descent", "epochs": 100, "learning_rate": 1e-5, "batch_size": 5},
        "promote": "never",
    },
    "A new model from objects": {
        "model": "boiling-point",
        "instances": [{"altitude": 0}, {"altitude": 1000}, {"altitude": 2000}],
        "targets": [{"celsius": 100.0}, {"celsius": 96.7}, {"celsius": 93.3}],
    },
}
CSV_EXAMPLE = "temp,rainfall,humidity,apples,oranges\n" + "".join(
    ",".join(map(str, x + y)) + "\n" for x, y in zip(NOTEBOOK_INPUTS, NOTEBOOK_TARGETS, strict=True)
)


@router.post(
    "/train",
    name="train",
    summary="Train a new version",
    description=(
        "Records a training job and answers at once; with `Prefer: wait=10` it waits for the job to end, for so many "
        "seconds at most. Once answered, the job survives any crash. Rows come as JSON, or as a CSV file with a header."
    ),
    status_code=202,
    response_model=JobView,
    openapi_extra={
        **bodies.documented(TrainRequest, EXAMPLES, text_csv=CSV_EXAMPLE),
        "parameters": query_parameters(),
    },
    responses={
        200: {"model": JobView, "description": "The job ended while the request waited for it."},
        **problems(400, 404, 413, 415, 422, 429, 503),
    },
)
async def train(
    request: Request,
    prefer: Annotated[str | None, Header(description="`wait=10` waits up to 10 s.", examples=["wait=10"])] = None,
    idempotency_key: Annotated[
        str | None,
        Header(
            description="The same key with the same request names the same job.",
            min_length=1,
            max_length=255,
            pattern=r"^[\x21-\x7e]+$",
        ),
    ] = None,
) -> Response:
    found = services(request)
    kind = bodies.content_type(request, bodies.JSON, bodies.CSV)
    job_id = str(uuid.uuid5(_KEYS, idempotency_key) if idempotency_key else uuid.uuid4())
    if kind == bodies.JSON:
        if request.query_params:
            raise InvalidInput("Beside a JSON body, options stand in the body and not in the query.")
        body = await bodies.read(request, found.limits.json_bytes)
        job = await run_in_threadpool(_train_from_json, found, body, job_id)
    else:
        job = await _train_from_csv(found, request, job_id)
    wait = _seconds_to_wait(prefer, found.limits.wait_seconds)
    job = await wait_for(found, job, wait or 0)
    headers = {"location": f"/jobs/{job.id}"}
    if wait is not None:
        headers["preference-applied"] = f"wait={wait:g}"
    return bodies.json_response(view(job), 200 if wait is not None and job.status.ended else 202, headers)


def _train_from_json(found: Services, body: bytes, job_id: str) -> Job:
    fingerprint = hashlib.sha256(body).hexdigest()
    if job := found.jobs.repeated(job_id, fingerprint):
        return job
    found.jobs.check_room()
    asked = bodies.decode(TrainRequest, body)
    current = _current(found, asked)
    if len(asked.instances) != len(asked.targets):
        raise InvalidInput.at("/targets", f"{len(asked.targets)} rows of targets for {len(asked.instances)} instances.")
    known = current.card if current else None
    features = _names(asked.instances, asked.feature_names, known.features if known else None, "feature")
    targets = _names(asked.targets, asked.target_names, known.targets if known else None, "target")
    check_names(features, targets)
    terms = _terms(asked, current, features)
    _check_mode(asked, current, (features, terms, targets))
    columns = [to_matrix(asked.instances, features, "/instances"), to_matrix(asked.targets, targets, "/targets")]
    if asked.sample_weights is not None:
        columns.append(_weights(asked))
    request = TrainingRequest(
        model=asked.model or found.default_model,
        upload=found.jobs.spool.new(),
        format="matrix",
        features=tuple(features),
        targets=tuple(targets),
        solver=_solver(found, asked, current, (features, terms, targets)),
        promote=asked.promote,
        fingerprint=fingerprint,
        mode=asked.mode,
        decay=asked.decay,
        folds=asked.folds,
        choose_l2=asked.chooses_l2,
        terms=tuple(terms),
        weight=None if asked.sample_weights is None else "sample_weights",
    )
    with found.jobs.spool.writing(request.upload) as file:
        write_matrix(file, *columns)
        found.jobs.spool.seal(file)
    return found.jobs.submit(request, job_id)


async def _train_from_csv(found: Services, request: Request, job_id: str) -> Job:
    options = from_query(request.query_params)
    await run_in_threadpool(found.jobs.check_room)
    digest = hashlib.sha256(str(sorted(request.query_params.multi_items())).encode())
    upload = found.jobs.spool.new()
    with found.jobs.spool.writing(upload) as file:
        async for chunk in bodies.stream(request, found.limits.upload_bytes):
            digest.update(chunk)
            # A page-cache copy of some kB; a thread would cost more than it saves.
            file.write(chunk)
        await run_in_threadpool(found.jobs.spool.seal, file)
    return await run_in_threadpool(_train_from_upload, found, upload, options, job_id, digest.hexdigest())


def _train_from_upload(found: Services, upload: str, options: FileOptions, job_id: str, fingerprint: str) -> Job:
    with found.jobs.spool.kept(upload):
        if job := found.jobs.repeated(job_id, fingerprint):
            found.jobs.spool.remove(upload)
            return job
        current = _current(found, options)
        features, targets = _columns(read_header(found.jobs.spool.path(upload)), options, current)
        check_names(features, targets)
        terms = _terms(options, current, features)
        _check_mode(options, current, (features, terms, targets))
        _check_weighted(options, weighted=options.weight is not None)
        request = TrainingRequest(
            model=options.model or found.default_model,
            upload=upload,
            format="csv",
            features=tuple(features),
            targets=tuple(targets),
            solver=_solver(found, options, current, (features, terms, targets)),
            promote=options.promote,
            fingerprint=fingerprint,
            mode=options.mode,
            decay=options.decay,
            folds=options.folds,
            choose_l2=options.chooses_l2,
            terms=tuple(terms),
            weight=options.weight,
        )
    return found.jobs.submit(request, job_id)


def _current(found: Services, options: TrainingOptions) -> Version | None:
    """The current version of the model that is to be trained, if it has one."""
    try:
        return found.registry.current(options.model or found.default_model)
    except ModelNotFound:
        return None


def _names(rows: Sequence[Any], given: Sequence[str] | None, known: Sequence[str] | None, kind: str) -> Sequence[str]:
    """The columns' names: as given, or the model's, or of a new model those of the first object."""
    if given is not None:
        return given
    if known is None and are_objects(rows):
        return list(rows[0])
    if known is None:
        raise InvalidInput.at(f"/{kind}_names", f"A new model from arrays needs {kind}_names.")
    return known


def _columns(
    header: Sequence[str], options: FileOptions, current: Version | None
) -> tuple[Sequence[str], Sequence[str]]:
    """Features and targets among the columns of a file."""
    targets = options.targets or (current.card.targets if current else None)
    if not targets:
        raise InvalidInput(
            "Which columns are the targets? Say so with ?targets=...",
            [Detail("A new model needs `targets` in the query.")],
        )
    weight = [options.weight] if options.weight is not None else []
    features = options.features or [name for name in header if name not in (*targets, *weight)]
    missing = [name for name in (*targets, *features, *weight) if name not in header]
    if missing:
        hint = " Only one column was found: is the separator a comma?" if len(header) == 1 else ""
        details = [_missing_column(name, header) for name in missing if name.isprintable()]
        raise InvalidInput(f"Columns are missing from the file.{hint}", details[:20])
    return features, targets


def _terms(options: TrainingOptions, current: Version | None, features: Sequence[str]) -> Sequence[str]:
    if options.terms is None:
        return current.card.terms if current and options.mode != "replace" else []
    parse_terms(options.terms, features)
    return options.terms


def _same_columns(version: Version, columns: Columns) -> bool:
    card = version.card
    return [list(names) for names in columns] == [list(card.features), list(card.terms), list(card.targets)]


def _check_mode(options: TrainingOptions, current: Version | None, columns: Columns) -> None:
    """An update, its reverse and a comparison need a version of the same columns to begin with."""
    if options.mode == "replace" and (options.promote != "if_better" or current is None):
        return
    if current is None:
        raise InvalidInput.at("/mode", f"The model has no current version to {options.mode}.")
    if not _same_columns(current, columns):
        option = "/mode" if options.mode != "replace" else "/promote"
        raise InvalidInput.at(option, "The current version has other features, terms or targets than these rows.")


def _weights(asked: TrainRequest) -> NDArray[np.float64]:
    given = asked.sample_weights or []
    _check_weighted(asked, weighted=True)
    if len(given) != len(asked.instances):
        raise InvalidInput.at("/sample_weights", f"{len(given)} weights for {len(asked.instances)} instances.")
    weights = to_column(given, "/sample_weights")
    if (weights < 0).any():
        raise InvalidInput.at(f"/sample_weights/{int(np.argmax(weights < 0))}", "A weight cannot be negative.")
    return weights


def _check_weighted(options: TrainingOptions, *, weighted: bool) -> None:
    if weighted and not isinstance(options.solver, ExactOptions):
        raise InvalidInput.at("/solver/kind", "Weights need the exact solver.")


def _missing_column(name: str, header: Sequence[str]) -> Detail:
    spaced = any(name == column.strip() for column in header)
    hint = " There is one of that name with spaces around it." if spaced else ""
    return Detail(f'There is no column "{name}".{hint}', row=1)


def _solver(found: Services, options: TrainingOptions, current: Version | None, columns: Columns) -> Solver:
    """The solver as it is recorded, once its device and its start are known to exist and fit."""
    model = options.model or found.default_model
    solver = options.solver.solver(current.card.version if current else None)
    if not isinstance(solver, GradientDescent):
        return solver
    check_device(found.capabilities, solver.device)
    start = solver.start
    if isinstance(start, Start) and start.version is not None:
        try:
            version = found.registry.version(model, start.version)
        except NotFound as error:
            raise InvalidInput.at("/solver/start/version", error.message) from None
        if not _same_columns(version, columns):
            raise InvalidInput.at(
                "/solver/start", f"Version {start.version} has other features, terms or targets than these rows."
            )
    elif isinstance(start, Start):
        assert start.weights is not None
        assert start.intercept is not None
        features, targets = columns[1] or columns[0], columns[2]
        if len(start.weights) != len(targets) or any(len(row) != len(features) for row in start.weights):
            raise InvalidInput.at("/solver/start/weights", f"Expected {len(targets)} rows of {len(features)} weights.")
        if len(start.intercept) != len(targets):
            raise InvalidInput.at("/solver/start/intercept", f"Expected {len(targets)} values.")
    return solver


def _seconds_to_wait(prefer: str | None, most: float) -> float | None:
    """What `Prefer: wait=N` asks for (RFC 7240), within the service's limit; None where it does not ask."""
    match = re.search(r"(?:^|[,;\s])wait\s*=\s*\"?(\d{1,9})\"?", prefer or "", re.IGNORECASE)
    return min(float(match[1]), most) if match else None
