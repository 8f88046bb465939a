import os
import resource
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest
from service import ROOT

from app.errors import MemoryExceeded
from app.jobs.memory import SHARE, within_memory


def in_a_process_of(limit: str, code: str) -> str:
    """What the code prints, run where so much memory may be allocated."""
    begin = f"from app.jobs.memory import limit_memory\nlimit_memory({limit})\n"
    command = [sys.executable, "-c", begin + textwrap.dedent(code)]
    return subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True, timeout=60).stdout.strip()


@pytest.fixture
def small_container() -> Iterator[Path]:
    """The control group of a container with 300 MB, of whichever version this machine has."""
    for folder, file in (("/sys/fs/cgroup/memory", "memory.limit_in_bytes"), ("/sys/fs/cgroup", "memory.max")):
        group = Path(folder) / f"linserve-test-{os.getpid()}"
        try:
            group.mkdir()
            (group / file).write_text(str(300 << 20))
        except OSError:
            continue
        yield group
        group.rmdir()
        return
    pytest.skip("control groups cannot be made here")


def test_in_a_small_container_the_trainer_has_room_beside_its_libraries_and_more_is_refused(
    small_container: Path,
) -> None:
    code = """
import app.jobs.engine
from app.jobs.memory import limit_memory
limit_memory(None)
bytearray(64 << 20)
try:
    bytearray(400 << 20)
except MemoryError:
    print("refused")
"""
    join = f'echo $$ >"{small_container}/cgroup.procs" && exec "$@"'
    command = ["sh", "-c", join, "sh", sys.executable, "-c", code]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True, timeout=60)
    assert done.stdout == "refused\n"


@pytest.mark.parametrize(
    "too_much",
    [
        "import numpy; numpy.ones(1 << 27)",
        "import pyarrow; pyarrow.allocate_buffer(1 << 30)",
        "import torch; torch.ones(1 << 27, dtype=torch.float64)",
        "bytes(1 << 30)",
    ],
    ids=["numpy", "pyarrow", "torch", "python"],
)
def test_more_memory_than_there_may_be_is_an_error_of_ours_and_what_fits_is_still_to_be_had(too_much: str) -> None:
    said = in_a_process_of(
        "900 << 20",
        f"""
        from app.errors import MemoryExceeded
        from app.jobs.memory import within_memory
        try:
            with within_memory():
                {too_much}
        except MemoryExceeded as error:
            print(error.message)
        import numpy
        numpy.ones(1 << 20)
        """,
    )
    assert said == "The training needs more memory than the trainer may have (LINSERVE_TRAINER_MEMORY)."


def test_other_errors_stay_what_they_are() -> None:
    with pytest.raises(RuntimeError, match="shape"), within_memory():
        raise RuntimeError("a shape that does not fit")


def test_the_rows_that_were_too_many_are_let_go_though_the_error_is_kept() -> None:
    kept: list[int] = []

    class Rows(list[int]):
        def __del__(self) -> None:
            kept.remove(id(self))

    def gather() -> None:
        rows = Rows()
        kept.append(id(rows))
        raise MemoryError

    with pytest.raises(MemoryExceeded) as raised, within_memory():
        gather()
    assert kept == []
    assert raised.value.message


def test_by_default_a_share_of_the_memory_is_the_limit_and_0_is_none() -> None:
    code = "import resource; print(resource.getrlimit(resource.RLIMIT_DATA)[0])"
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert 0 < int(in_a_process_of("None", code)) <= SHARE * machine
    assert int(in_a_process_of("0", code)) == resource.getrlimit(resource.RLIMIT_DATA)[0]
