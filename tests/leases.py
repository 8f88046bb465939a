"""Leases of trainers on several machines."""

from pathlib import Path

from app.jobs.lease import FileLease, PostgresLease


def new_lease(url: str, folder: Path, name: str, machine: str = "machine") -> PostgresLease:
    """Return a lease for the trainer of this name. On one machine, those of a name share a lock file in the folder."""
    state = folder / machine
    file = FileLease(
        name,
        lambda trainer: state / f"{trainer}.lock",
        inherited=False,
        capabilities=state / "trainer.json",
        seen=state / "seen",
    )
    return PostgresLease(url, name, file)


def die(lease: PostgresLease) -> None:
    """End a trainer's part in its lease as its death does: nothing is renewed, and the kernel frees the lock file."""
    lease.stop_renewing()
    lease._file._lock.close()
    lease._engine.dispose()
