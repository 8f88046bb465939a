"""The planted bugs: what each changes in the service, and the phase that must notice."""

from dataclasses import dataclass
from functools import partial

from chaos import phases
from chaos.phases import Phase


@dataclass(frozen=True)
class Bug:
    name: str
    says: str  # pattern of what the harness must say: to stumble over something else is not to catch it
    phase: Phase
    changes: dict[str, list[tuple[str, str]]]  # by file in app/: what stands there once, and what is put in its place
    seconds: float = 4.0


_fitted = partial(phases.failpoints, steps=("fitted",))
_written = partial(phases.failpoints, steps=("temp_written",))
_linked = partial(phases.failpoints, steps=("linked",))
_checkpoint = partial(phases.failpoints, steps=("checkpoint_opened",))

_REGISTRY = "registry/registry.py"
_LANE = "web/predict_lane.py"

BUGS = [
    Bug(
        "no fsync of a version's file",
        "given its name before it was on disk",
        phases.durability,
        {_REGISTRY: [("        file.flush()\n        os.fsync(file.fileno())\n", "        file.flush()\n")]},
    ),
    Bug(
        "no fsync of the models folder",
        "a name in .* was not brought to disk",
        phases.durability,
        {
            _REGISTRY: [
                ('            reach("linked")\n            _sync_folder(folder)\n', '            reach("linked")\n')
            ]
        },
    ),
    Bug(
        "no fsync of the models folder after a promotion",
        "a name in .* was not brought to disk",
        phases.durability,
        {
            _REGISTRY: [
                (
                    "                os.fsync(descriptor)\n            finally",
                    "                pass\n            finally",
                )
            ]
        },
    ),
    Bug(
        "no fsync of uploaded rows",
        "never brought to disk",
        phases.durability,
        {"jobs/spool.py": [("        file.flush()\n        os.fsync(file.fileno())\n", "        file.flush()\n")]},
    ),
    Bug(
        "no fsync of the folder of uploaded rows",
        "never brought to disk",
        phases.durability,
        {"jobs/spool.py": [("            os.fsync(folder)\n", "            pass\n")]},
    ),
    Bug(
        "no fsync of a checkpoint",
        "a file in checkpoints was given its name before it was on disk",
        phases.durability,
        {"jobs/checkpoint.py": [("                os.fsync(file.fileno())\n", "")]},
    ),
    Bug(
        "versions are written in place",
        "corrupt version",
        _written,
        {
            _REGISTRY: [
                ("            _write_durably(temporary, encode(numbered, model, folds))\n", ""),
                (
                    "os.link(temporary, self._path(card.model, number))",
                    "_write_durably(self._path(card.model, number), encode(numbered, model, folds))",
                ),
            ]
        },
    ),
    Bug(
        "a number is taken by a rename, which does not notice that it is taken",
        "is another's",
        phases.two_services,
        {
            _REGISTRY: [
                (
                    "os.link(temporary, self._path(card.model, number))",
                    "temporary.rename(self._path(card.model, number))",
                )
            ]
        },
    ),
    Bug(
        "an upload is published twice",
        "published twice",
        _linked,
        {
            _REGISTRY: [("if card.upload is not None and (published", "if card.upload is None and (published")],
            "jobs/training.py": [
                (
                    "    if published := workshop.registry.find(request.model, request.upload):\n        return published.card\n",
                    "",
                )
            ],
        },
    ),
    Bug(
        "promoted by removing the pointer and making it anew",
        "predictions failed.*404",
        phases.promotions,
        {
            _REGISTRY: [
                (
                    'temporary.rename(folder / "current")',
                    '(folder / "current").unlink(missing_ok=True)\n                temporary.rename(folder / "current")',
                )
            ]
        },
    ),
    Bug(
        "the current version is kept without a look at the pointer",
        "was promoted, and .* answers",
        phases.promotions,
        {
            _REGISTRY: [
                (
                    "        if cached.link == link and not cached.damaged:",
                    "        if cached:",
                )
            ]
        },
    ),
    Bug(
        "the lane keeps the version that it saw first",
        "was promoted, and .* answers",
        phases.promotions,
        {
            _LANE: [
                (
                    "    def _look_again(self) -> None:\n        self._is_current = False",
                    "    def _look_again(self) -> None:\n        self._is_current = True",
                )
            ]
        },
    ),
    Bug(
        "an answer states the parent of the version that predicted",
        "mislabelled",
        phases.promotions,
        {_LANE: [('"version": version.card.version}', '"version": version.card.parent or version.card.version}')]},
    ),
    Bug(
        "checksums are not verified",
        "a damaged version was promoted|mislabelled",
        phases.damage,
        {
            "registry/version_file.py": [
                ('if metadata.get("sha256") != _checksum(text, tensors):', 'if metadata.get("sha256") is None:')
            ]
        },
        seconds=15.0,
    ),
    Bug(
        "a job is acknowledged before it is recorded",
        "is lost",
        phases.kills,
        {
            "web/train.py": [
                (
                    "        found.jobs.spool.seal(file)\n    return found.jobs.submit(request, job_id)\n",
                    "        found.jobs.spool.seal(file)\n    import threading\n    from datetime import UTC, datetime\n    from app.jobs.job import Status\n    threading.Timer(0.3, found.jobs.submit, (request, job_id)).start()\n    return Job(job_id, Status.QUEUED, request.model, None, datetime.now(UTC), None, None, None, None, None, (), None)\n",
                )
            ]
        },
        seconds=20.0,
    ),
    Bug(
        "rows are removed before their job has ended",
        "failed, and should have succeeded",
        _fitted,
        {
            "jobs/training.py": [
                ('    reach("fitted")\n', '    workshop.spool.remove(request.upload)\n    reach("fitted")\n')
            ]
        },
    ),
    Bug(
        "checkpoints are written in place",
        "a descent began again",
        _checkpoint,
        {"jobs/checkpoint.py": [('self._path.with_suffix(".tmp")', "self._path")]},
    ),
    Bug(
        "a trainer that comes back does not know its own jobs",
        "has not ended",
        _fitted,
        {
            "jobs/engine.py": [
                ('"executor_id": executor,', '"executor_id": f"{executor}-{time.time_ns()}",'),
                ("import threading\n", "import threading\nimport time\n"),
            ]
        },
    ),
    Bug(
        "the trainer's lock is not held",
        "trainers at once",
        phases.kills,
        {
            "jobs/supervisor.py": [
                (
                    "            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)\n",
                    "            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)\n",
                )
            ]
        },
    ),
    Bug(
        "a failed training is reported as succeeded",
        "succeeded, and should have failed",
        phases.pauses,
        {
            "jobs/engine.py": [
                (
                    "        raise _failed(job, error) from None\n    else:",
                    '        return {"version": 1, "promote": False, "metrics": {}, "warnings": []}\n    else:',
                )
            ]
        },
        seconds=15.0,
    ),
    Bug(
        "what keeps a promotion from being written is swallowed",
        "promoted",
        phases.read_only_models,
        {
            _REGISTRY: [
                (
                    '        raise Unavailable(f"The models folder cannot be written: {error.strerror}.") from error\n',
                    "        _log.error(str(error))\n",
                )
            ]
        },
    ),
    Bug(
        "a full disk is an internal error",
        "on a full disk /train answers 500",
        phases.full_disk,
        {
            "jobs/spool.py": [
                ("            if not has_room(self._folder, more):", "            if more < 0:"),  # that hides it
                (
                    "        yield\n    except OSError as error:\n        raise not_stored",
                    "        yield\n    except FileExistsError as error:\n        raise not_stored",
                ),
            ]
        },
    ),
    Bug(
        "a stopping worker drops the requests under way",
        "under way was dropped",
        phases.stops,
        {
            "web/connection.py": [
                (
                    "            self._hand_on()\n        if self._is_answering():\n            super().shutdown()",
                    "            self.transport.close()\n        if self._is_answering():\n            super().shutdown()",
                )
            ]
        },
    ),
    Bug(
        "a stopping worker closes idle connections at once",
        "connections cut",
        phases.hangups,
        {
            "web/connection.py": [
                ("call_later(LAST_SECONDS,", "call_later(0,"),
                ("(self._stopping.is_set() or self.expect_100_continue)", "self.expect_100_continue"),
                ("            and not self._stopping.is_set()\n", ""),
            ]
        },
    ),
    Bug(
        "the time of day measures how long a promotion is believed",
        "was promoted, and .* answers",
        phases.clock_jumps,
        {
            _REGISTRY: [
                (
                    "        if cached is None:\n            return None\n",
                    "        if cached is None:\n            return None\n        if time.time() < self._believed.get(model, 0.0):\n            return cached.version\n        self._believed[model] = time.time() + 0.001\n",
                ),
                (
                    "        self._current: dict[str, _Current] = {}\n",
                    "        self._current: dict[str, _Current] = {}\n        self._believed: dict[str, float] = {}\n",
                ),
            ]
        },
    ),
]
