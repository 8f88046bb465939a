"""The planted bugs, each with the phase that must notice it and a pattern of the phase's message."""

from dataclasses import dataclass
from functools import partial

from chaos import phases
from chaos.flood import flood
from chaos.phases import Phase
from chaos.planted import answers, durability, jobs, versions
from chaos.planting import Plant
from chaos.trainers import three_trainers


@dataclass(frozen=True)
class Bug:
    name: str
    message: str  # pattern of the violation's message; if the phase fails with another message, it missed the bug
    phase: Phase
    plant: Plant
    seconds: float = 4.0


_fitted = partial(phases.failpoints, steps=("fitted",))
_written = partial(phases.failpoints, steps=("temp_written",))
_linked = partial(phases.failpoints, steps=("linked",))
_checkpoint = partial(phases.failpoints, steps=("checkpoint_opened",))

BUGS = [
    Bug(
        "no fsync of a version's file",
        "named before it was fsynced",
        phases.durability,
        durability.no_fsync_of_a_version,
    ),
    Bug(
        "no fsync of the models folder",
        "a name in .* was not fsynced",
        phases.durability,
        durability.no_fsync_of_the_folder_of_a_version,
    ),
    Bug(
        "no fsync of the models folder after a promotion",
        "a name in .* was not fsynced",
        phases.durability,
        durability.no_fsync_of_a_promotion,
    ),
    Bug(
        "no fsync of uploaded rows",
        "never fsynced",
        phases.durability,
        durability.no_fsync_of_an_upload,
    ),
    Bug(
        "no fsync of the folder of uploaded rows",
        "never fsynced",
        phases.durability,
        durability.no_fsync_of_the_folder_of_an_upload,
    ),
    Bug(
        "no fsync of a checkpoint",
        "a file in checkpoints was named before it was fsynced",
        phases.durability,
        durability.no_fsync_of_a_checkpoint,
    ),
    Bug("versions are written in place", "corrupt version", _linked, versions.written_in_place),
    Bug(
        "a rename overwrites a number that is taken",
        "was published by job",
        phases.two_services,
        versions.numbered_by_rename,
    ),
    Bug("an upload is published twice", "published twice", _linked, versions.published_twice),
    Bug(
        "a promotion removes the pointer before it writes the new one",
        "predictions failed.*404",
        phases.promotions,
        versions.promoted_by_removing,
    ),
    Bug(
        "the pointer to the current version is read once",
        "was promoted, and .* answers",
        phases.promotions,
        versions.pointer_not_read,
    ),
    Bug(
        "the fast path keeps its first version",
        "was promoted, and .* answers",
        phases.promotions,
        answers.fast_path_keeps_its_version,
    ),
    Bug(
        "a response names the parent of the version that predicted",
        "mislabelled",
        phases.promotions,
        answers.parent_stated,
    ),
    Bug(
        "checksums are not verified",
        "a damaged version was promoted|mislabelled",
        phases.damage,
        versions.checksums_not_verified,
        seconds=15.0,
    ),
    Bug(
        "a job is acknowledged before it is recorded",
        "is lost",
        phases.kills,
        jobs.acknowledged_before_recorded,
        seconds=20.0,
    ),
    Bug(
        "rows are removed before their job has ended",
        "failed, and should have succeeded",
        _written,
        jobs.rows_removed_before_the_end,
    ),
    Bug(
        "checkpoints are written in place",
        "a descent began again",
        _checkpoint,
        jobs.checkpoints_written_in_place,
    ),
    Bug(
        "a restarted trainer does not continue its own jobs",
        "has not ended",
        _fitted,
        jobs.trainer_forgets_its_name,
    ),
    Bug("the trainer's lock is not held", "trainers at once", phases.kills, jobs.lock_not_held),
    Bug(
        "a failed training is reported as succeeded",
        "succeeded, and should have failed",
        phases.pauses,
        jobs.failure_reported_as_success,
        seconds=15.0,
    ),
    Bug(
        "the error of a promotion that cannot be written is ignored",
        "promoted",
        phases.read_only_models,
        versions.failed_promotion_swallowed,
    ),
    Bug(
        "a full disk is an internal error",
        "on a full disk /train answers 500",
        phases.full_disk,
        jobs.full_disk_is_an_internal_error,
    ),
    Bug(
        "a stopping worker drops the requests in progress",
        "in progress was dropped",
        phases.stops,
        answers.requests_under_way_dropped,
    ),
    Bug(
        "a stopping worker closes idle connections at once",
        "connections cut",
        phases.hangups,
        answers.idle_connections_closed_at_once,
    ),
    Bug(
        "the time of day decides when the pointer is read again",
        "was promoted, and .* answers",
        phases.clock_jumps,
        versions.pointer_believed_by_the_time_of_day,
    ),
    Bug(
        "a version is published without comparing the parent",
        "rows, but .* were trained on",
        three_trainers,
        versions.parent_not_compared,
        seconds=20.0,
    ),
    Bug("the memory budget is not enforced", "more in a flood", flood, answers.budget_not_enforced),
]
