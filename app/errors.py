"""The errors a caller can cause or meet. What status each becomes over HTTP is the web room's table.

LinserveError
├── Unauthenticated        no valid key
├── Forbidden              a key without the right, or none and another machine
├── MalformedBody          the bytes are not what the content type says
├── UnsupportedMediaType   a content type that nothing here reads
├── NotAcceptable          an answer in a content type that nothing here writes
├── BodyTooLarge
├── InvalidInput           understood, but wrong: the details say where
│   ├── PredictionTooLarge a prediction that leaves the range of 64-bit numbers
│   ├── ColumnOutOfRange   a column whose unit is too small or too large for 64-bit numbers
│   │   ├── ValuesTooLarge
│   │   └── ValuesTooSmall
│   └── KeyReused          an Idempotency-Key that came before with another request
├── NotFound
│   ├── ModelNotFound
│   │   └── NoCurrentVersion   it has versions, of which none is current
│   ├── VersionNotFound
│   └── JobNotFound
├── Conflict               right by itself, but not in the present state
├── PreconditionFailed     what the caller knows is no longer so
├── PreconditionRequired   the caller has to say what it knows
├── QueueFull
├── Unavailable            nothing the caller did; later it may work
│   ├── ModelFileInvalid   a version's file is truncated, altered or foreign
│   ├── PromotionFailed    a version is published, and `current` could not be changed
│   ├── WorkerBusy         other requests have the memory or the turns of this worker
│   └── SpoolFull          there is no room to store what was sent, or the answer to it
└── TrainingFailed
    ├── Diverged           gradient descent ran away
    ├── DeviceUnavailable
    ├── MemoryExceeded     the training needs more memory than the trainer may have
    ├── TimeExceeded       it needs more time than a job may take
    └── TrainerCrashed     the training process died under the job, again and again
"""

import errno
from collections.abc import Sequence
from dataclasses import dataclass

from app.permissions import why_denied


@dataclass(frozen=True)
class FieldError:
    """One fault and its place: a JSON pointer into the body, a parameter, or a row and column of a file.

    Rows count from 1 as a spreadsheet shows them: the header is row 1.
    """

    message: str
    pointer: str | None = None
    row: int | None = None
    column: str | None = None
    parameter: str | None = None


class LinserveError(Exception):
    """Root of the tree. The message is for the caller: no input or traceback belongs in it, and no path except that of
    a folder of the service that it may not write.
    """

    def __init__(self, message: str, details: Sequence[FieldError] = ()) -> None:
        super().__init__(message)
        self.message = message
        self.details = tuple(details)


class Unauthenticated(LinserveError):
    pass


class Forbidden(LinserveError):
    pass


class MalformedBody(LinserveError):
    pass


class UnsupportedMediaType(LinserveError):
    pass


class NotAcceptable(LinserveError):
    pass


class BodyTooLarge(LinserveError):
    pass


class InvalidInput(LinserveError):
    @classmethod
    def at(cls, pointer: str, message: str) -> "InvalidInput":
        """An error with one place: the message, and the pointer to the field."""
        return cls(message, [FieldError(message, pointer=pointer)])

    @classmethod
    def of_parameter(cls, parameter: str, message: str) -> "InvalidInput":
        """An error with one place: the message, and the parameter of the query."""
        return cls(message, [FieldError(message, parameter=parameter)])


class PredictionTooLarge(InvalidInput):
    """`row` is that of the first such prediction, from 0."""

    def __init__(self, row: int) -> None:
        message = "The prediction for this instance, or an interval of it, is beyond the range of 64-bit numbers."
        super().__init__(message, [FieldError(message, pointer=f"/instances/{row}")])
        self.row = row


class ColumnOutOfRange(InvalidInput):
    pass


class ValuesTooLarge(ColumnOutOfRange):
    pass


class ValuesTooSmall(ColumnOutOfRange):
    pass


class NotFound(LinserveError):
    pass


class ModelNotFound(NotFound):
    pass


class NoCurrentVersion(ModelNotFound):
    pass


class VersionNotFound(NotFound):
    pass


class JobNotFound(NotFound):
    pass


class KeyReused(InvalidInput):
    pass


class Conflict(LinserveError):
    pass


class PreconditionFailed(LinserveError):
    pass


class PreconditionRequired(LinserveError):
    pass


class QueueFull(LinserveError):
    pass


class Unavailable(LinserveError):
    pass


class ModelFileInvalid(Unavailable):
    pass


class PromotionFailed(Unavailable):
    """`version` is the number of the version, which stays published."""

    def __init__(self, version: int, reason: str | None) -> None:
        super().__init__(f"The models folder cannot be written: {reason}.")
        self.version = version


class WorkerBusy(Unavailable):
    pass


class SpoolFull(Unavailable):
    pass


def not_stored(what: str, error: OSError) -> Unavailable:
    """Map a failed write to SpoolFull if the disk is full, otherwise to Unavailable."""
    kind = SpoolFull if error.errno in (errno.ENOSPC, errno.EDQUOT) else Unavailable
    return kind(why_denied(error) or f"{what} cannot be stored: {error.strerror}.")


class TrainingFailed(LinserveError):
    pass


class Diverged(TrainingFailed):
    pass


class DeviceUnavailable(TrainingFailed):
    pass


class MemoryExceeded(TrainingFailed):
    pass


class TimeExceeded(TrainingFailed):
    pass


class TrainerCrashed(TrainingFailed):
    pass
