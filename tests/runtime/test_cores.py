from __future__ import annotations

import json
import os
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import pytest

from emoreg.runtime import cores
from emoreg.runtime.cores import allowed_cores, take_part, usable_cores, usable_memory


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with 64 cores that this process may use."""
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(64)), raising=False)
    monkeypatch.setattr(cores, "_part", Fraction(1))


def write(root: Path, files: dict[str, str]) -> Path:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content)
    return root


V1 = "4:memory:/docker/1\n3:cpuset:/\n1:cpu,cpuacct:/docker/1\n0::/\n"


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, 64),
        ({"proc/self/cgroup": "0::/\n"}, 64),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "max 100000\n"}, 64),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "150000 100000\n"}, 2),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "10000 100000\n"}, 1),
        (
            {
                "proc/self/cgroup": "0::/a/b\n",
                "sys/fs/cgroup/a/cpu.max": "300000 100000",
                "sys/fs/cgroup/a/b/cpu.max": "max 100000",
            },
            3,
        ),
        ({"proc/self/cgroup": "0::/of/the/host\n", "sys/fs/cgroup/cpu.max": "400000 100000"}, 4),
        (
            {
                "proc/self/cgroup": V1,
                "sys/fs/cgroup/cpu,cpuacct/docker/1/cpu.cfs_quota_us": "200000",
                "sys/fs/cgroup/cpu,cpuacct/docker/1/cpu.cfs_period_us": "100000",
                "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "-1",
                "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000",
            },
            2,
        ),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "nonsense"}, 64),
    ],
)
def test_a_cgroup_limits_the_cores(files: dict[str, str], expected: int, tmp_path: Path) -> None:
    assert allowed_cores(write(tmp_path, files)) == usable_cores(tmp_path) == expected


@pytest.mark.parametrize(("asked", "expected"), [("3", 3), ("4,2", 4), ("128", 64), ("", 64), ("many", 64), ("0", 64)])
def test_omp_num_threads_limits_the_threads(
    asked: str, expected: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", asked)
    assert usable_cores(tmp_path) == expected and allowed_cores(tmp_path) == 64


def test_a_process_that_shares_the_machine_uses_only_its_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = usable_memory(tmp_path)
    take_part(Fraction(1, 4))
    assert usable_cores(tmp_path) == 16 and usable_memory(tmp_path) == whole / 4
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    assert usable_cores(tmp_path) == 4, "the limit is one for each process"
    take_part(Fraction(1, 100))
    assert usable_cores(tmp_path) == 1


@pytest.mark.parametrize(
    "files",
    [
        {"proc/self/cgroup": "0::/a\n", "sys/fs/cgroup/a/memory.max": "1048576\n"},
        {
            "proc/self/cgroup": "0::/a/b\n",
            "sys/fs/cgroup/a/memory.max": "1048576\n",
            "sys/fs/cgroup/a/b/memory.max": "max\n",
        },
        {"proc/self/cgroup": V1, "sys/fs/cgroup/memory/memory.limit_in_bytes": "1048576\n"},
    ],
)
def test_a_cgroup_limits_the_memory(files: dict[str, str], tmp_path: Path) -> None:
    assert usable_memory(write(tmp_path, files)) == 2**20


def test_without_a_limit_the_memory_is_that_of_the_machine(tmp_path: Path) -> None:
    without = {"proc/self/cgroup": V1, "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712"}
    assert 2**28 < usable_memory(write(tmp_path, without)) < 2**60


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no affinity here")
def test_affinity_limits_the_cores_of_a_process() -> None:
    asks = (
        "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); os.cpu_count = lambda: 64;"
        "from emoreg.runtime.cores import usable_cores; print(usable_cores())"
    )
    told = subprocess.run([sys.executable, "-c", asks], capture_output=True, text=True, check=True)
    assert json.loads(told.stdout) == 1
