"""Every setting: its unit, default and meaning. Read by the doors alone and handed down."""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, PostgresDsn, UrlConstraints, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from app.registry.names import MODEL_NAME

MEBIBYTE = 1 << 20
GIBIBYTE = 1 << 30
MIN_TRAINER_MEMORY = 512 * MEBIBYTE
MIN_WORKER_MEMORY = 64 * MEBIBYTE
PREFIX = "LINSERVE_"
# What Kubernetes tells every pod beside a Service that is called linserve.
KUBERNETES_OWN = re.compile("LINSERVE_(SERVICE_(HOST|PORT.*)|PORT(_.*)?)")
TRAINER_NAME = "[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}"  # a part of file names
PARENT = "LINSERVE_PARENT"  # no setting: tells an embedded trainer whose it is


class _Postgres(PostgresDsn):
    _constraints = UrlConstraints(allowed_schemes=["postgresql", "postgresql+psycopg"])


def _job_database(url: str) -> str:
    if url.startswith("sqlite:///"):
        # Neither a database of one process alone, nor SQLite's own parameters.
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


def _enough(memory: int) -> int:
    if 0 < memory < MIN_TRAINER_MEMORY:
        raise ValueError(f"the trainer alone takes up to {MIN_TRAINER_MEMORY}; 0 is no limit")
    return memory


class Settings(BaseSettings):
    """Each is read from the environment under its name in capitals with LINSERVE_ before it."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, allow_inf_nan=False)

    models_dir: Path = Field(Path("models"), description="Folder of the versioned models.")
    state_dir: Path = Field(
        Path(".linserve"), description="Folder of the job database, spooled uploads and checkpoints."
    )
    default_model: str = Field("crop-yield", pattern=f"^{MODEL_NAME}$", description="The model of /predict and /train.")
    database_url: Annotated[str, AfterValidator(_job_database)] | None = Field(
        None, description="Job database; SQLite in the state folder unless given."
    )
    api_keys_file: Path | None = Field(
        None, description="File of API keys. Without one, only clients on this machine can change anything."
    )
    trainer_mode: Literal["embedded", "external"] = Field(
        "embedded", description="`embedded`: the service starts the trainer. `external`: run `python -m app.trainer`."
    )
    trainer_name: str = Field(
        "local",
        pattern=f"^{TRAINER_NAME}$",
        description="Name of this trainer. Only one trainer per name runs; a second one waits.",
    )
    trainer_threads: int = Field(0, ge=0, description="Threads a training uses; 0: as many as there are cores.")
    trainer_memory: Annotated[int, AfterValidator(_enough)] | None = Field(
        None,
        ge=0,
        description="Bytes that the trainer may allocate; 0: no limit; three quarters of the memory unless given.",
    )
    worker_memory: int = Field(
        512 * MEBIBYTE,
        ge=MIN_WORKER_MEMORY,
        description="Bytes for the requests of one web worker and its cached versions, in addition to the idle "
        "worker's memory. Requests for which nothing is left are refused.",
    )
    log_predictions: bool = Field(
        False, description="Whether successful predictions are logged; the metrics count all predictions."
    )
    max_json_bytes: int = Field(16 * MEBIBYTE, ge=1, description="Longest JSON body.")
    max_upload_bytes: int = Field(4096 * MEBIBYTE, ge=1, description="Longest uploaded file.")
    max_instances: int = Field(100_000, ge=1, description="Most rows in one JSON prediction.")
    max_queued_jobs: int = Field(100, ge=1, description="Most training jobs waiting; more are refused with 429.")
    max_job_seconds: float = Field(0, ge=0, description="Seconds after which a running training fails; 0: no limit.")
    max_retained_jobs: int = Field(10_000, ge=1, description="Most ended jobs that can still be read.")
    max_spool_bytes: int = Field(
        16 * GIBIBYTE,
        ge=1,
        description="Most bytes of uploaded rows stored at once; more are refused with 507. Rows and answers of long "
        "predictions may take half as much in addition.",
    )
    max_wait_seconds: float = Field(60, ge=0, description="Longest wait that `Prefer: wait` can ask for, in seconds.")
    max_connections: int = Field(
        4096, ge=1, description="Most connections to one web worker; requests on more are refused with 503."
    )
    drain_seconds: float = Field(
        0, ge=0, description="Seconds after SIGTERM or SIGHUP during which a worker accepts requests and is not ready."
    )
    header_timeout: float = Field(10, gt=0, description="Seconds within which a request's headers have to arrive.")
    transfer_grace: float = Field(
        20, gt=0, description="Grace period for slow transfers: seconds that they may fall behind 10 kB/s."
    )

    @property
    def job_database_url(self) -> str:
        return self.database_url or f"sqlite:///{self.state_dir.resolve() / 'jobs.sqlite'}"

    @property
    def spool(self) -> Path:
        return self.state_dir / "spool"

    @property
    def scratch(self) -> Path:
        return self.state_dir / "scratch"

    @property
    def checkpoints(self) -> Path:
        return self.state_dir / "checkpoints"

    @property
    def capabilities(self) -> Path:
        return self.state_dir / "trainer.json"

    @property
    def traffic(self) -> Path:
        return self.state_dir / "traffic"

    @property
    def trainer_seen(self) -> Path:
        return self.state_dir / "trainer.seen"

    @property
    def queue_lock(self) -> Path:
        return self.state_dir / "queue.lock"

    @property
    def attempt(self) -> Path:
        return self.state_dir / f"attempt.{self.trainer_name}"

    @property
    def trainer_lock(self) -> Path:
        return self.lock_of(self.trainer_name)

    def lock_of(self, trainer_name: str) -> Path:
        """What the trainer of this name holds for as long as it lives."""
        return self.state_dir / f"trainer.{trainer_name}.lock"


def load() -> Settings:
    """The settings in the environment.

    Raises ValueError, in a sentence for the operator, for a value that does not fit or a variable that is none of ours.
    """
    known = {f"{PREFIX}{name.upper()}" for name in Settings.model_fields}
    given = [name for name in os.environ if name.upper().startswith(PREFIX) and not KUBERNETES_OWN.fullmatch(name)]
    if small := sorted(name for name in given if name != name.upper()):
        raise ValueError(f"{', '.join(small)}: names of settings are written in capitals.")
    unknown = sorted(name for name in given if name not in known and name != PARENT)
    if unknown:
        raise ValueError(
            f"{', '.join(unknown)}: there is no such setting; there are {', '.join(sorted(known))}. "
            "Host, port and number of workers are uvicorn's: UVICORN_HOST, UVICORN_PORT, UVICORN_WORKERS."
        )
    if empty := [name for name in known if os.environ.get(name) == ""]:
        raise ValueError(f"{', '.join(sorted(empty))}: it is empty; without it, the default holds.")
    try:
        return Settings()
    except ValidationError as error:
        raise ValueError(" ".join(_sentence(fault) for fault in error.errors())) from None


def _sentence(fault: Mapping[str, Any]) -> str:
    return f"{PREFIX}{str(fault['loc'][0]).upper()}: {str(fault['msg']).removeprefix('Value error, ')}."
