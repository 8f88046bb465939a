"""The methods of the client, against a running service."""

import asyncio
import contextlib
import datetime as dt
import gzip
import inspect
import io
import json
import re
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from service import INPUTS, JOB_SECONDS, ROOT, TARGETS, Service

import linserve
from linserve import AsyncClient, Client
from linserve._options import TrainingOptions

YIELDS = ROOT / "models/crop-yield/yields.csv"
ROWS = [
    dict(zip(("temp", "rainfall", "humidity", "apples", "oranges"), (*x, *y), strict=True))
    for x, y in zip(INPUTS, TARGETS, strict=True)
]
BOTH = ["apples", "oranges"]
ENDLESS: TrainingOptions = {"solver": "gradient_descent", "epochs": 100_000_000, "learning_rate": 1e-5}
APPLES, ORANGES = 53.79556783791256, 66.80653442744479


@pytest.fixture(scope="module")
def client(publishing: Service) -> Iterator[Client]:
    with Client(publishing.url) as made:
        yield made


def trained(client: Client, model: str, **options: Any) -> linserve.Job:
    return client.train(ROWS, model=model, targets=BOTH, wait=60, **options).wait(timeout=JOB_SECONDS)


def endless(client: Client, model: str) -> linserve.Job:
    """Start a training that takes longer than any test."""
    return client.train(YIELDS, model=model, targets=BOTH, **ENDLESS)


@contextlib.contextmanager
def held(client: Client, model: str) -> Iterator[None]:
    """Let no training of the model begin in the block. Otherwise, the response to one may have its end already."""
    first = endless(client, model)
    try:
        yield
    finally:
        first.cancel()


def test_rows_get_a_list_with_the_rest_of_the_response(client: Client) -> None:
    row = {"temp": 75, "rainfall": 63, "humidity": 44}

    found = client.predict([row], interval=0.95, confidence=0.9, explain=True, extrapolation=True)

    assert found[0] == pytest.approx({"apples": APPLES, "oranges": ORANGES})
    assert (found.model, found.version, len(found)) == ("crop-yield", 1, 1)
    assert found.intervals is not None
    assert found.intervals[0]["apples"] == pytest.approx([50.91098999912596, 56.680145676699155])
    assert found.contributions is not None
    assert found.baseline["apples"] + sum(found.contributions[0]["apples"].values()) == pytest.approx(APPLES)
    assert found.extrapolation == [{"leverage": pytest.approx(0.231, abs=1e-3), "outside": [], "flag": False}]


@pytest.mark.parametrize(
    "rows", [[[75, 63, 44]], [(75, 63, 44)], np.array([[75.0, 63.0, 44.0]]), [np.array([75, 63, 44])]]
)
def test_lists_and_arrays_get_lists(client: Client, rows: Any) -> None:
    assert client.predict(rows) == [[pytest.approx(APPLES), pytest.approx(ORANGES)]]


def test_a_gap_in_a_row_is_null_in_every_spelling(client: Client) -> None:
    gaps = [None, float("nan"), np.nan, pd.NA, pd.NaT, np.float32("nan"), Decimal("nan")]
    rows = [[75, gap, 44] for gap in gaps]

    assert client.predict(rows, missing="null") == [[None, None]] * len(gaps)
    with pytest.raises(linserve.InvalidInput, match="/instances/0"):
        client.predict(rows)


def test_values_of_python_and_numpy_are_sent_as_json_has_them(client: Client) -> None:
    days = [dt.date(2026, 3, 1) + dt.timedelta(days=number) for number in range(8)]
    rows = [
        {"day": day, "x": np.float32(number % 3), "yes": np.bool_(number % 5 == 0), "y": Decimal(number)}
        for number, day in enumerate(days)
    ]

    job = client.train(rows, model="values", targets="y", features=["day", "x", "yes"], wait=60).wait()

    card = client.card("values", job.version)
    assert {column["name"]: column["kind"] for column in card["table"]["features"]} == {
        "day": "date",
        "x": "number",
        "yes": "boolean",
    }
    with pytest.raises(linserve.UnreadableRows, match="type complex"):
        client.predict([[1j]])
    with pytest.raises(linserve.UnreadableRows, match="infinite"):
        client.predict([[float("inf"), 1, 1]])


def test_files_get_files(client: Client, tmp_path: Path) -> None:
    content = YIELDS.read_bytes()
    packed = tmp_path / "yields.csv.gz"
    packed.write_bytes(gzip.compress(content))
    expected = client.predict(YIELDS)

    assert expected.splitlines()[0] == b"apples,oranges"
    assert client.predict(str(YIELDS)) == client.predict(content) == client.predict(io.BytesIO(content)) == expected
    assert client.predict(packed) == expected
    with YIELDS.open("rb") as file:
        assert client.predict(file) == expected
    assert json.loads(client.predict(YIELDS, output_format="ndjson").splitlines()[0])["apples"] == pytest.approx(
        57.3231
    )


def test_results_are_written_to_a_path_or_a_file(client: Client, tmp_path: Path) -> None:
    expected = client.predict(YIELDS)
    file = io.BytesIO()

    written = client.predict(YIELDS, output=tmp_path / "out.csv")
    client.predict(YIELDS, output=file)
    client.predict(YIELDS, output=tmp_path / "out.parquet")

    assert written == linserve.TablePrediction("crop-yield", 1, 0)
    assert (tmp_path / "out.csv").read_bytes() == file.getvalue() == expected
    assert list(pd.read_parquet(tmp_path / "out.parquet").columns) == BOTH


def test_a_failed_prediction_leaves_the_old_file(client: Client, tmp_path: Path) -> None:
    (tmp_path / "out.csv").write_text("old")

    with pytest.raises(linserve.InvalidInput) as caught:
        client.predict(b"temp,rainfall,humidity\n75,wet,44\n", output=tmp_path / "out.csv")

    assert [(detail.row, detail.column) for detail in caught.value.details] == [(2, "rainfall")]
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"out.csv": "old"}


def test_a_fault_has_the_same_row_and_column_in_rows_and_in_a_frame(client: Client) -> None:
    rows: list[dict[str, Any]] = [dict(zip(("temp", "rainfall", "humidity"), row, strict=True)) for row in INPUTS]
    rows[3]["rainfall"] = "wet"
    training = [{**row, "apples": 1.0} for row in rows]
    calls: list[Callable[[], object]] = [
        lambda: client.predict(rows),
        lambda: client.predict(pd.DataFrame(rows), explain=True),
        lambda: client.evaluate([{**row, "oranges": 1.0} for row in training], "crop-yield"),
        lambda: client.train(training, model="faulty", targets="apples"),
    ]

    for call in calls:
        with pytest.raises(linserve.InvalidInput) as caught:
            call()
        assert [(detail.row, detail.column) for detail in caught.value.details] == [(4, "rainfall")]
    frame = pd.DataFrame(rows).assign(rainfall=[float("inf") if row["rainfall"] == "wet" else 1.0 for row in rows])
    with pytest.raises(linserve.InvalidInput) as caught:
        client.predict(frame)
    assert [(detail.row, detail.column) for detail in caught.value.details] == [(4, "rainfall")]


def test_standard_input_is_a_file(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(YIELDS.read_bytes())))

    assert client.predict("-") == client.predict(YIELDS)


def test_a_version_and_an_alias_can_be_chosen(client: Client) -> None:
    trained(client, "chosen")
    trained(client, "chosen", features=["temp"])
    client.request("PUT", "/models/chosen/aliases/first", json={"version": 1})

    assert client.predict([[75, 63, 44]], model="chosen", version=1).version == 1
    assert client.predict([[75, 63, 44]], model="chosen", alias="first").version == 1
    assert client.predict([[75]], model="chosen").version == 2
    with pytest.raises(ValueError, match="either `version` or `alias`"):
        client.predict([[75]], model="chosen", version=1, alias="first")
    with pytest.raises(ValueError, match="Give `model` too"):
        client.predict([[75]], version=1)


def test_a_job_is_waited_for_and_reports_its_progress(client: Client) -> None:
    seen: list[str] = []
    with held(client, "descent"):
        job = client.train(
            YIELDS, model="descent", targets=BOTH, solver="gradient_descent", epochs=2000, learning_rate=1e-5
        )

    assert job.wait(lambda job: seen.append(job.status), timeout=JOB_SECONDS) is job
    assert (job.status, job.version, job.model, job.error) == ("succeeded", 1, "descent", None)
    assert seen[-1] == "succeeded"
    assert job.loss_curve[0][0] == 0
    assert job.loss_curve[-1][1] < job.loss_curve[0][1]
    assert client.job(job.id).raw == job.raw
    assert client.job().id == client.jobs(limit=1)[0].id == job.id


def test_a_job_that_fails_raises_its_problem(client: Client) -> None:
    job = client.train(YIELDS, model="failed", targets=BOTH, solver="gradient_descent", epochs=500, learning_rate=10.0)

    with pytest.raises(linserve.JobFailed, match="diverged") as caught:
        job.wait(timeout=JOB_SECONDS)
    assert (caught.value.job, caught.value.problem.kind) == (job.id, "diverged")
    assert isinstance(caught.value.__cause__, linserve.errors.Diverged)


def test_a_wait_ends_at_its_time_limit_and_the_job_goes_on_until_it_is_cancelled(client: Client) -> None:
    job = endless(client, "long")
    with pytest.raises(linserve.WaitTimeout, match="It continues"):
        job.wait(timeout=0.3)

    assert client.job(job.id).ended is False
    job.cancel()
    with pytest.raises(linserve.JobCancelled):
        job.wait(timeout=JOB_SECONDS)


def test_an_interrupt_ends_the_wait_and_not_the_job(client: Client) -> None:
    def interrupt(_: linserve.Job) -> None:
        raise KeyboardInterrupt

    with held(client, "interrupted"):
        job = client.train(ROWS, model="interrupted", targets=BOTH)
    with pytest.raises(KeyboardInterrupt):
        job.wait(interrupt)

    assert client.job(job.id).wait(timeout=JOB_SECONDS).version == 1


def test_options_of_every_kind_reach_the_training(client: Client) -> None:
    rows = [
        {"a,b": "x:y" if number % 2 else "z", "c": number, "day": f"0{number % 9 + 1}/04/2026", "y": number % 5}
        for number in range(12)
    ]

    job = client.train(
        rows,
        model="options",
        targets=["y"],
        features=["a,b", "c"],
        reference={"a,b": "z"},
        columns={"c": {"missing": "refuse"}},
        terms=["a,b", "c", "c^2"],
        folds=3,
        fold_seed=5,
        l2=0.5,
        fit_intercept=True,
        na=["-"],
        wait=60,
    ).wait()

    card = client.card("options", job.version)
    assert card["terms"] == ["a,b", "c", "c^2"]
    assert card["table"]["features"][0]["reference"] == "z"
    assert card["table"]["features"][1]["missing"] == "refuse"
    assert card["solver"]["l2"] == 0.5
    assert card["validation"]["folds"] == 3


def test_options_that_are_too_long_for_a_query_go_into_a_form(client: Client) -> None:
    names = [f"a rather long name of a column, number {number:04d}" for number in range(40)]
    table = pd.DataFrame(np.random.default_rng(1).normal(size=(100, 41)), columns=[*names, "y"])

    job = client.train(table, model="wide", targets="y", features=names, wait=60).wait()
    again = client.train(
        table.to_dict("records"), model="wide", targets="y", features=names, promote="never", wait=60
    ).wait()

    coefficients = client.card("wide", again.version)["coefficients"]["y"]
    assert coefficients == pytest.approx(client.card("wide", job.version)["coefficients"]["y"])
    inspected = client.inspect(table, targets="y", features=names)
    assert inspected["rows"] == 100


def test_the_same_key_is_the_same_job(client: Client) -> None:
    jobs = [client.train(ROWS, model="keyed", targets=BOTH, idempotency_key="key-1") for _ in range(2)]

    assert jobs[0].id == jobs[1].id
    with pytest.raises(linserve.errors.KeyReused):
        client.train(ROWS[:-1], model="keyed", targets=BOTH, idempotency_key="key-1")


def test_rows_are_added_removed_and_merged(client: Client, tmp_path: Path) -> None:
    client.train(ROWS[:10], model="grown", targets=BOTH, wait=60).wait()
    client.update(ROWS[10:], model="grown", wait=60).wait()
    assert client.card("grown")["rows"] == 15
    client.forget(pd.DataFrame(ROWS[10:]), model="grown", wait=60).wait()
    assert client.card("grown")["rows"] == 10

    files = []
    for site in (1, 2, 3):
        many = [{**row, "temp": row["temp"] + site * number} for number in range(3) for row in ROWS]
        client.train(many, model=f"site-{site}", targets=BOTH, wait=60).wait()
        files.append(client.export(f"site-{site}", format="linserve").write(tmp_path))
    client.merge("joined", files[0], files[1].read_bytes(), wait=60).wait()
    client.merge("joined", files[2], wait=60).wait()
    assert client.card("joined")["rows"] == 3 * 45
    client.merge("joined", files[0], mode="forget", wait=60).wait()
    assert client.card("joined")["rows"] == 2 * 45


def test_versions_are_listed_promoted_rolled_back_and_deleted(client: Client) -> None:
    for _ in range(3):
        trained(client, "rolled")

    assert client.versions("rolled") == [1, 2, 3]
    assert client.rollback("rolled")["version"] == 2
    assert client.rollback("rolled")["version"] == 1
    with pytest.raises(ValueError, match="no version before version 1"):
        client.rollback("rolled")
    assert client.promote("rolled", 3)["version"] == 3
    client.delete("rolled", 2)
    assert next(model for model in client.models() if model["model"] == "rolled")["versions"] == [1, 3]
    with pytest.raises(linserve.Conflict):
        client.delete("rolled", 3)
    client.delete("rolled")
    with pytest.raises(linserve.errors.ModelNotFound):
        client.card("rolled")
    with pytest.raises(linserve.Conflict, match="default model"):
        client.delete("crop-yield")


def test_evaluations_of_frames_rows_and_files_are_equal(client: Client) -> None:
    expected = client.evaluate(YIELDS, "crop-yield", level=0.9)

    assert expected["versions"][0]["rows"] == 15
    assert client.evaluate(ROWS, "crop-yield", version=1, level=0.9) == expected
    assert client.evaluate(pd.DataFrame(ROWS), "crop-yield", versions=[1], level=0.9) == expected


def test_an_export_has_a_name_and_can_be_imported_again(client: Client, tmp_path: Path) -> None:
    trained(client, "moved")

    exported = client.export("moved", format="json")
    written = client.export("moved", 1, format="linserve", output=tmp_path / "moved.safetensors")
    imported = client.import_model(json.loads(exported.content), "moved-json")
    client.import_model(tmp_path / "moved.safetensors", "moved-file", promote="always")

    assert exported.file_name.startswith("moved")
    assert exported.media_type.startswith("application/json")
    assert written.content == b""
    assert imported["version"] == 1
    rows = [[75, 63, 44]]
    assert list(client.predict(rows, model="moved-json")) == list(client.predict(rows, model="moved"))
    assert list(client.predict(rows, model="moved-file")) == list(client.predict(rows, model="moved"))


def test_an_export_lists_losses_of_its_format(client: Client) -> None:
    exported = client.export("crop-yield", format="sql", dialect="sqlite")

    assert any("interval" in sentence.lower() for sentence in exported.not_carried)
    assert "SELECT" in exported.text.upper() or "temp" in exported.text


def test_names_in_paths_are_quoted(client: Client) -> None:
    for name in ("../jobs", ".", ".."):
        with pytest.raises(linserve.NotFound):
            client.card(name)
    with pytest.raises(ValueError, match="does not begin with a slash"):
        client.request("GET", "@example.org/models")


def test_a_missing_file_is_named_before_anything_is_sent(client: Client) -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere\.csv"):
        client.predict("nowhere.csv")
    with pytest.raises(TypeError, match='mode "rb"'):
        client.predict(io.StringIO("temp"))  # type: ignore[arg-type]


@pytest.mark.slow
def test_the_key_is_sent(tmp_path: Path) -> None:
    from hashlib import sha256

    (tmp_path / "keys").write_text(f"reader predict {sha256(b'secret').hexdigest()}\n")
    service = Service(tmp_path, trainer_mode="external", api_keys_file=str(tmp_path / "keys")).start()
    try:
        with Client(service.url, "secret") as client:
            assert client.predict([[75, 63, 44]]).version == 1
            with pytest.raises(linserve.Forbidden):
                client.promote("crop-yield", 1)
        with Client(service.url, "wrong") as client, pytest.raises(linserve.Unauthenticated):
            client.models()
    finally:
        service.stop()


def test_the_asynchronous_client_has_the_same_methods() -> None:
    def methods(made: type) -> dict[str, str]:
        return {
            name: re.sub(r"Async|async_", "", str(inspect.signature(method)))
            for name, method in vars(made).items()
            if callable(method) and not name.startswith("_")
        }

    assert methods(AsyncClient) == methods(Client)


def test_the_asynchronous_client_trains_and_predicts(publishing: Service, tmp_path: Path) -> None:
    async def work() -> None:
        async with AsyncClient(publishing.url) as client:
            first, second = await asyncio.gather(
                client.predict([[75, 63, 44]]), client.predict(pd.DataFrame(ROWS), interval=0.9)
            )
            assert first.version == 1
            assert list(second.columns)[:2] == BOTH
            seen: list[str] = []
            before = await client.train(YIELDS, model="loop", targets=BOTH, **ENDLESS)
            job = await client.train(YIELDS, model="loop", targets=BOTH)
            await before.cancel()
            await job.wait(lambda job: seen.append(job.status), timeout=JOB_SECONDS)
            assert seen[-1] == "succeeded"
            assert (await job.refresh()).version == 1
            await client.predict(YIELDS, model="loop", output=tmp_path / "out.csv")
            assert await client.versions("loop") == [1]
            assert [job.model for job in await client.jobs(model="loop")] == ["loop", "loop"]
            await client.delete("loop")
            with pytest.raises(linserve.NotFound):
                await client.card("loop")

    asyncio.run(work())
    assert (tmp_path / "out.csv").read_text().startswith("apples,oranges")
