import errno
import os
import resource
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest
from service import NOTEBOOK, ROOT, Service, python_path
from trainers import in_group, trainer, wait_until_ready

from app.data.batch import Columns
from app.data.formats.csv import CSV
from app.errors import InvalidInput, MemoryExceeded
from app.jobs.host.memory_limit import SHARE, within_memory


def in_a_process_of(limit: str, code: str) -> str:
    """Return the output of code that runs in a process with this memory limit."""
    begin = "from app.jobs.host.memory_limit import limit_memory\nfrom app.training.dataset import warm_up\n"
    begin += f"limit_memory({limit}, warm_up)\n"
    command = [sys.executable, "-c", begin + textwrap.dedent(code)]
    environment = os.environ | {"PYTHONPATH": python_path()}
    return subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def small_container() -> Iterator[Path]:
    """Create a control group with 300 MB, in the version that this machine has."""
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


@pytest.mark.slow
def test_in_a_small_container_the_trainer_has_memory_besides_its_libraries_up_to_the_limit(
    small_container: Path,
) -> None:
    code = """
import app.jobs.dbos_worker, app.jobs.worker
from app.jobs.host.memory_limit import limit_memory
from app.training.dataset import warm_up
limit_memory(None, warm_up)
bytearray(64 << 20)
try:
    bytearray(400 << 20)
except MemoryError:
    print("refused")
"""
    command = in_group(small_container, [sys.executable, "-c", code])
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    assert done.stdout == "refused\n"


def test_allocating_too_much_raises_memory_exceeded_and_smaller_allocations_still_succeed() -> None:
    said = in_a_process_of(
        "900 << 20",
        """
        import numpy, pyarrow, torch
        from app.errors import MemoryExceeded
        from app.jobs.host.memory_limit import within_memory
        allocations = {
            "numpy": lambda: numpy.ones(1 << 27),
            "pyarrow": lambda: pyarrow.allocate_buffer(1 << 30),
            "torch": lambda: torch.ones(1 << 27, dtype=torch.float64),
            "python": lambda: bytes(1 << 30),
        }
        for name, allocate in allocations.items():
            try:
                with within_memory():
                    allocate()
            except MemoryExceeded as error:
                print(name, error.message)
            numpy.ones(1 << 20)
        """,
    )
    expected = "The training needs more memory than the trainer may have. Raise LINSERVE_TRAINER_MEMORY"
    messages = dict(line.split(" ", 1) for line in said.splitlines())
    assert messages.keys() == {"numpy", "pyarrow", "torch", "python"}
    assert all(message.startswith(expected) for message in messages.values())


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("can't start new thread"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory"),
        ImportError("libtorch_cpu.so: failed to map segment from shared object"),
        OSError("libtorch_cpu.so: cannot allocate memory in static TLS block"),
        OSError(errno.ENOMEM, os.strerror(errno.ENOMEM)),
    ],
    ids=["thread", "torch", "import", "library", "system call"],
)
def test_the_errors_of_libraries_without_memory_become_memory_exceeded(error: Exception) -> None:
    with pytest.raises(MemoryExceeded, match="LINSERVE_TRAINER_MEMORY"), within_memory():
        raise error


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("a shape that does not fit"),
        OSError(errno.ENOSPC, "disk full"),
        BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN)),
    ],
)
def test_other_errors_are_not_changed(error: Exception) -> None:
    with pytest.raises(type(error)) as raised, within_memory():
        raise error
    assert raised.value is error


def test_a_file_is_not_blamed_if_there_is_no_memory_to_read_it(tmp_path: Path) -> None:
    file = tmp_path / "rows.csv"
    file.write_bytes(b'"x"\n"1"\n2\n')
    said = in_a_process_of(
        "0",
        f"""
        import os
        os.environ["ARROW_DEFAULT_MEMORY_POOL"] = "system"
        import resource
        from pathlib import Path
        from app.data.formats.csv import CSV
        from app.data.batch import Columns
        from app.jobs.host.memory_limit import within_memory

        warm_up()  # as under a small limit, because pyarrow aborts if its first thread has no memory
        taken = Path("/proc/self/status").read_text().partition("VmData:")[2].split()[0]
        resource.setrlimit(resource.RLIMIT_DATA, (int(taken) << 10, -1))
        try:
            with within_memory():
                print(list(CSV.batches(Path({str(file)!r}), Columns(["x"]))))
        except Exception as error:
            print(type(error).__name__)
        """,
    )
    assert said == "MemoryExceeded"


def test_a_cell_that_quotes_a_memory_error_is_a_faulty_cell(tmp_path: Path) -> None:
    file = tmp_path / "rows.csv"
    file.write_bytes(b"x\nFailed to launch worker thread: cannot allocate memory\n")
    with pytest.raises(InvalidInput, match="Expected a number"), within_memory():
        list(CSV.batches(file, Columns(["x"])))


def test_torch_is_not_loaded_without_enough_memory() -> None:
    said = in_a_process_of(
        "225 << 20",
        """
        import sys
        from app.errors import MemoryExceeded
        from app.jobs.host.memory_limit import check_memory_for_torch
        taken = bytearray(160 << 20)
        try:
            check_memory_for_torch()
        except MemoryExceeded as error:
            print(error.message, "torch" in sys.modules)
        """,
    )
    assert "which takes 192 MiB" in said
    assert "LINSERVE_TRAINER_MEMORY" in said
    assert said.endswith("False")


@pytest.mark.parametrize("limit", ["0", "1 << 30"])
def test_torch_is_loaded_with_enough_memory(limit: str) -> None:
    assert (
        in_a_process_of(limit, "from app.jobs.host.memory_limit import *; check_memory_for_torch(); print('room')")
        == "room"
    )


@pytest.mark.slow
def test_in_a_small_container_small_trainings_succeed_and_a_descent_fails_for_memory(
    small_container: Path, tmp_path: Path
) -> None:
    rows = (ROOT / "models" / "crop-yield" / "yields.csv").read_bytes()
    headers = {"content-type": "text/csv", "prefer": "wait=60"}
    descent = NOTEBOOK | {"solver": {"kind": "gradient_descent"}}
    service = Service(tmp_path, trainer_mode="external").start()
    try:
        with trainer(service, "small", group=small_container) as process:
            wait_until_ready(service, "small")
            for _ in range(2):
                answer = service.client.post("/train?targets=apples,oranges", content=rows, headers=headers)
                solved = service.ended_job(answer)
                assert solved["status"] == "succeeded", solved
                failed = service.train(**descent)
                assert failed["error"]["type"] == "urn:linserve:problem:memory-exceeded"
                assert "LINSERVE_TRAINER_MEMORY" in failed["error"]["detail"]
            assert process.poll() is None  # the trainer did not crash
            score, worker = (Path(f"/proc/{pid}/oom_score_adj").read_text() for pid in (process.pid, service.pid))
            assert int(score) > int(worker)  # the kernel kills the trainer first
    finally:
        service.stop()


def test_rows_that_filled_the_memory_are_released_while_the_error_is_kept() -> None:
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


def test_the_default_limit_is_a_share_of_the_memory_and_0_means_no_limit() -> None:
    code = "import resource; print(resource.getrlimit(resource.RLIMIT_DATA)[0])"
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert 0 < int(in_a_process_of("None", code)) <= SHARE * machine
    assert int(in_a_process_of("0", code)) == resource.getrlimit(resource.RLIMIT_DATA)[0]
