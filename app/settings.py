"""Every setting with its unit, default and meaning.

Only the entry points read settings. They pass the values on, so no other module depends on the environment.
"""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, PostgresDsn, UrlConstraints, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from app.registry.names import MODEL_NAME
from app.training.source_url import AllowedSources

MEBIBYTE = 1 << 20
GIBIBYTE = 1 << 30
MIN_TRAINER_MEMORY = 512 * MEBIBYTE
MIN_WORKER_MEMORY = 64 * MEBIBYTE
PREFIX = "LINSERVE_"
# Variables of the client, which a user may have set in the same shell.
OF_CLIENT = {f"{PREFIX}URL", f"{PREFIX}API_KEY"}
# Variables that Kubernetes sets in every pod if a Service is called linserve.
KUBERNETES_OWN = re.compile("LINSERVE_(SERVICE_(HOST|PORT.*)|PORT(_.*)?)")
# Names of trainers, which are parts of file names.
TRAINER_NAME = "[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}"
# Not a setting: the process id that the service passes to its embedded trainer.
PARENT = "LINSERVE_PARENT"


class _Postgres(PostgresDsn):
    _constraints = UrlConstraints(allowed_schemes=["postgresql", "postgresql+psycopg"])


def _check_database_url(url: str) -> str:
    if url.startswith("sqlite:///"):
        # A database in memory belongs to one process, and SQLite's parameters are not supported.
        if not re.fullmatch(r"sqlite:///(?!:memory:|file:)[^?]+", url):
            raise ValueError("expected a file after sqlite:///, which the service and its trainers share")
    else:
        try:
            _Postgres(url)
        except ValidationError:
            raise ValueError(
                "expected sqlite:///FILE or postgresql://USER:PASSWORD@HOST/NAME, "  # pragma: allowlist secret
                "with %40 for an @ in the password"
            ) from None
    return url


def _check_storage_url(url: str) -> str:
    if not re.fullmatch(r"(s3|gs|az)://[^/?#@]{3,}(/[^?#]*)?|file:///[^?#]+", url):
        raise ValueError("expected s3://BUCKET/PREFIX, gs://BUCKET/PREFIX, az://CONTAINER/PREFIX or file:///FOLDER")
    return url


def _check_origins(origins: str) -> str:
    for origin in _split(origins):
        # As browsers write them: in small letters, without a path, and without the usual port.
        if not re.fullmatch(r"https?://([a-z0-9-]+(\.[a-z0-9-]+)*|\[[0-9a-f:]+\])(:[0-9]{1,5})?", origin) or re.search(
            r"^http:.*:80$|^https:.*:443$", origin
        ):
            raise ValueError(
                f"{origin} is not an origin as browsers send it, such as https://app.example.org or "
                "http://localhost:3000; there are no wildcards"
            )
    return origins


def _split(origins: str) -> list[str]:
    return [origin.strip() for origin in origins.split(",")]


def _check_sources(prefixes: str) -> str:
    AllowedSources.parse(prefixes)
    return prefixes


def _check_trainer_memory(memory: int) -> int:
    if 0 < memory < MIN_TRAINER_MEMORY:
        raise ValueError(f"the trainer itself takes up to {MIN_TRAINER_MEMORY} bytes; 0 means no limit")
    return memory


class Settings(BaseSettings):
    """The settings. The variable of each is its name in capitals after LINSERVE_."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, allow_inf_nan=False)

    models_dir: Path = Field(Path("models"), description="Folder of the versioned models.")
    state_dir: Path = Field(Path(".linserve"), description="Folder of the job database, uploaded rows and checkpoints.")
    storage: Annotated[str, AfterValidator(_check_storage_url)] | None = Field(
        None,
        description="URL of the store that replicas and trainers share: s3://BUCKET/PREFIX, gs://, az:// or file:///. "
        "By default, the models folder and the state folder.",
    )
    cache_dir: Path | None = Field(
        None, description="Folder of copies of versions, from which a start without the store serves."
    )
    sources: Annotated[str, AfterValidator(_check_sources)] | None = Field(
        None, description="URL prefixes, separated by commas, under which `source` of a training may name files."
    )
    ray_address: str | None = Field(
        None,
        description="Address of a Ray cluster for trainings from `source`: `local`, `auto` or ray://HOST:PORT. By "
        "default, processes of the trainer.",
    )
    min_merge_rows: int = Field(
        20, ge=1, description="Least number of rows of a version that is exported for, or accepted by, a merge."
    )
    actuals_days: float = Field(
        30, gt=0, le=3650, description="Days for which predictions with a `prediction_id` wait for their outcomes."
    )
    max_actuals_bytes: int = Field(
        GIBIBYTE,
        ge=MEBIBYTE,
        description="Greatest size of the recorded predictions, in bytes. The oldest are removed.",
    )
    default_model: str = Field("crop-yield", pattern=f"^{MODEL_NAME}$", description="The model of /predict and /train.")
    database_url: Annotated[str, AfterValidator(_check_database_url)] | None = Field(
        None, description="URL of the job database. By default, SQLite in the state folder."
    )
    api_keys_file: str | None = Field(
        None,
        description="File of API keys, or its URL in a store, such as s3://BUCKET/PREFIX/keys. Without one, only "
        "clients on this machine can train, promote or delete.",
    )
    cors_origins: Annotated[str, AfterValidator(_check_origins)] | None = Field(
        None,
        description="Origins, separated by commas, whose pages may read responses, such as https://app.example.org. "
        "By default, only pages of this service may.",
    )
    trainer_mode: Literal["embedded", "external"] = Field(
        "embedded", description="`embedded`: the service starts the trainer. `external`: run `python -m app.trainer`."
    )
    trainer_name: str = Field(
        "local",
        pattern=f"^{TRAINER_NAME}$",
        description="Name of this trainer. Only one trainer per name runs; a second one waits. With Postgres, the "
        "default is made of the names of the machine and the state folder.",
    )
    trainer_threads: int = Field(0, ge=0, description="Threads of a training. 0: one per core.")
    trainer_memory: Annotated[int, AfterValidator(_check_trainer_memory)] | None = Field(
        None,
        ge=0,
        description="Bytes that the trainer may allocate. 0: no limit. By default, three quarters of the memory.",
    )
    worker_memory: int = Field(
        512 * MEBIBYTE,
        ge=MIN_WORKER_MEMORY,
        description="Bytes for the requests and cached versions of one web worker, in addition to the memory of the "
        "idle worker. Requests that exceed it are rejected.",
    )
    log_predictions: bool = Field(
        False, description="Log successful predictions too. The metrics count them in any case."
    )
    max_json_bytes: int = Field(16 * MEBIBYTE, ge=1, description="Greatest length of a JSON body, in bytes.")
    max_upload_bytes: int = Field(4096 * MEBIBYTE, ge=1, description="Greatest length of an uploaded file, in bytes.")
    max_instances: int = Field(100_000, ge=1, description="Greatest number of rows in one JSON prediction.")
    max_queued_jobs: int = Field(
        100, ge=1, description="Greatest number of waiting training jobs. More are rejected with 429."
    )
    max_job_seconds: float = Field(0, ge=0, description="Seconds after which a running training fails. 0: no limit.")
    max_retained_jobs: int = Field(10_000, ge=1, description="Number of ended jobs that are kept.")
    max_spool_bytes: int = Field(
        16 * GIBIBYTE,
        ge=1,
        description="Bytes of uploaded rows stored at a time. More are rejected with 507. The rows and responses of "
        "long predictions may take half of that in addition.",
    )
    max_wait_seconds: float = Field(60, ge=0, description="Longest wait that `Prefer: wait` can request, in seconds.")
    max_connections: int = Field(
        4096, ge=1, description="Connections to one web worker. Requests on further connections are rejected with 503."
    )
    drain_seconds: float = Field(
        0,
        ge=0,
        description="Seconds after SIGTERM or SIGHUP in which a worker is not ready but still accepts requests.",
    )
    header_timeout: float = Field(10, gt=0, description="Seconds within which the headers of a request have to arrive.")
    transfer_grace: float = Field(
        20,
        gt=0,
        description="Grace period for slow transfers, in seconds. A request or response that falls this far behind "
        "10 kB/s is aborted.",
    )

    @property
    def allowed_sources(self) -> AllowedSources:
        return AllowedSources.parse(self.sources)

    @property
    def allowed_origins(self) -> frozenset[str]:
        return frozenset(_split(self.cors_origins)) if self.cors_origins else frozenset()

    @property
    def job_database_url(self) -> str:
        return self.database_url or f"sqlite:///{self.state_dir.resolve() / 'jobs.sqlite'}"

    @property
    def spool(self) -> Path:
        return self.state_dir / "spool"

    @property
    def checkpoints(self) -> Path:
        return self.state_dir / "checkpoints"

    @property
    def capabilities(self) -> Path:
        return self.state_dir / "trainer.json"

    @property
    def monitoring(self) -> Path:
        return self.state_dir / "monitoring"

    @property
    def outcomes_url(self) -> str:
        """The database of recorded predictions: that of the jobs if replicas share it, else a file of its own."""
        if self.database_url and not self.database_url.startswith("sqlite"):
            return self.database_url
        return f"sqlite:///{self.state_dir.resolve() / 'outcomes.sqlite'}"

    @property
    def traffic(self) -> Path:
        return self.state_dir / "traffic"

    @property
    def trainer_seen(self) -> Path:
        return self.state_dir / "trainer.seen"

    @property
    def trainer_lock(self) -> Path:
        return self.lock_of(self.trainer_name)

    def lock_of(self, trainer_name: str) -> Path:
        """Return the lock file that the trainer of this name holds while it lives."""
        return self.state_dir / f"trainer.{trainer_name}.lock"


def load() -> Settings:
    """Return the settings in the environment.

    Raises ValueError, in a sentence for the operator, if a value is not valid or a LINSERVE_ variable is unknown.
    """
    known = {f"{PREFIX}{name.upper()}" for name in Settings.model_fields}
    given = [name for name in os.environ if name.upper().startswith(PREFIX) and not KUBERNETES_OWN.fullmatch(name)]
    if lower := sorted(name for name in given if name != name.upper()):
        raise ValueError(f"{', '.join(lower)}: names of settings are written in capitals.")
    unknown = sorted(name for name in given if name not in {*known, PARENT, *OF_CLIENT})
    if unknown:
        raise ValueError(
            f"{', '.join(unknown)}: there is no such setting. The settings are {', '.join(sorted(known))}. "
            "For the host, the port and the number of workers, set UVICORN_HOST, UVICORN_PORT and UVICORN_WORKERS."
        )
    if empty := [name for name in known if os.environ.get(name) == ""]:
        raise ValueError(f"{', '.join(sorted(empty))}: it is empty. Unset it to use the default.")
    try:
        return Settings()
    except ValidationError as error:
        raise ValueError(" ".join(_sentence(fault) for fault in error.errors())) from None


def _sentence(fault: Mapping[str, Any]) -> str:
    return f"{PREFIX}{str(fault['loc'][0]).upper()}: {str(fault['msg']).removeprefix('Value error, ')}."
