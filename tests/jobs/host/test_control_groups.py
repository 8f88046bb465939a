"""The memory limits of a container, in both versions of control groups and as container runtimes mount them."""

from pathlib import Path

import pytest

from app.jobs.host.control_groups import memory_limits

UNLIMITED = "9223372036854771712"  # Version 1 shows this if there is no limit.
LIMIT = 300 << 20

V1 = "memory.limit_in_bytes"
V2 = "memory.max"
# Name, lines of /proc/self/cgroup, lines of /proc/self/mountinfo (type, options, root, mount point), files, and the
# smallest limit. Mount points are in a folder of the test.
LAYOUTS = {
    "version 2, a namespace of its own": (
        ["0::/"],
        [("cgroup2", "rw", "/", "unified")],
        {f"unified/{V2}": str(LIMIT)},
        LIMIT,
    ),
    "version 2, on a host, limited above": (
        ["0::/system.slice/linserve.service"],
        [("cgroup2", "rw", "/", "unified")],
        {
            f"unified/system.slice/{V2}": str(LIMIT),
            f"unified/system.slice/linserve.service/{V2}": "max",
        },
        LIMIT,
    ),
    "version 2, no limit": (["0::/a"], [("cgroup2", "rw", "/", "unified")], {f"unified/a/{V2}": "max"}, None),
    "version 2, the path is outside the mounted folder": (
        ["0::/../.."],
        [("cgroup2", "rw", "/", "unified")],
        {f"unified/{V2}": str(LIMIT)},
        LIMIT,
    ),
    "version 1, the path as the host sees it": (
        ["9:cpu,cpuacct:/docker/1f", "4:memory:/docker/1f", "1:name=systemd:/docker/1f", "0::/docker/1f"],
        [("cgroup", "rw,cpu,cpuacct", "/docker/1f", "cpu"), ("cgroup", "rw,memory", "/docker/1f", "memory")],
        {f"memory/{V1}": str(LIMIT)},
        LIMIT,
    ),
    "version 1, limited in the middle": (
        ["4:memory:/kubepods/pod2/3c"],
        [("cgroup", "rw,memory", "/", "memory")],
        {
            f"memory/{V1}": UNLIMITED,
            f"memory/kubepods/{V1}": str(2 * LIMIT),
            f"memory/kubepods/pod2/{V1}": str(LIMIT),
            f"memory/kubepods/pod2/3c/{V1}": UNLIMITED,
        },
        LIMIT,
    ),
    "both, version 1 has the memory": (
        ["4:memory:/a", "0::/a"],
        [("cgroup2", "rw", "/", "unified"), ("cgroup", "rw,memory", "/", "memory with a space")],
        {f"memory with a space/a/{V1}": str(LIMIT), "unified/a/cgroup.procs": ""},
        LIMIT,
    ),
    "nothing is mounted": (["4:memory:/a", "0::/a"], [], {}, None),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_the_smallest_limit_from_the_group_up_to_the_mounted_root_is_found(tmp_path: Path, name: str) -> None:
    groups, mounts, files, smallest = LAYOUTS[name]
    (tmp_path / "cgroup").write_text("".join(f"{line}\n" for line in groups))
    mounted = "".join(
        f"{number} 1 0:{number} {root} {str(tmp_path / place).replace(' ', chr(92) + '040')} rw shared:{number} "
        f"- {kind} none {options}\n"
        for number, (kind, options, root, place) in enumerate(mounts)
    )
    (tmp_path / "mountinfo").write_text(f"20 1 8:1 / / rw - ext4 /dev/vda rw\n{mounted}")
    for file, text in files.items():
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text(f"{text}\n")

    limits = memory_limits(tmp_path)

    if smallest is None:
        assert limits == []
    else:
        assert min(limits) == smallest


def test_without_proc_there_is_no_limit(tmp_path: Path) -> None:
    assert memory_limits(tmp_path / "none") == []
