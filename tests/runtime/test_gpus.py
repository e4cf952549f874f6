from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from emoreg.runtime import gpus
from emoreg.runtime.gpus import FIRST_USE, LOGS, PIPES, VISIBLE, shared_gpus
from listening import Listening

SOURCE = Path(__file__).parents[2] / "src"
# Like NVIDIA's program: with -d it starts a service and ends, otherwise it reads commands.
CONTROL = """#!/bin/sh
log={log}
if [ "$1" = -d ]; then
    echo "start in $CUDA_MPS_PIPE_DIRECTORY" >>"$log"
    {start}
else
    read -r line
    echo "$line in $CUDA_MPS_PIPE_DIRECTORY" >>"$log"
    [ "$line" = quit ] || {list}
fi
"""


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[int], None]:
    """Return a function that sets the number of GPUs; no service is running or installed."""
    for name in (VISIBLE, PIPES, LOGS):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(gpus, "USUAL_PIPES", str(tmp_path / "usual"))
    monkeypatch.setattr(
        gpus, "FIRST_USE", f"import os; assert os.environ[{VISIBLE!r}] == '0' and os.environ[{PIPES!r}]"
    )
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    return lambda count: monkeypatch.setattr(torch.cuda, "device_count", lambda: count)


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The log of requests to a service that can be started."""
    return install(monkeypatch, tmp_path)


def install(monkeypatch: pytest.MonkeyPatch, folder: Path, start: str = "exit 0", listing: str = "echo 12") -> Path:
    path, log = folder / "bin" / gpus.CONTROL, folder / "log"
    path.parent.mkdir()
    path.write_text(CONTROL.format(log=log, start=start, list=listing))
    path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{path.parent}:/usr/bin:/bin")
    return log


def test_without_a_gpu_processes_get_nothing(machine: Callable[[int], None], log: Path) -> None:
    machine(0)
    with shared_gpus(4, listening := Listening()) as environments:
        assert environments == [{}] * 4
    assert not listening.lines and not log.exists()


def test_a_single_process_uses_all_gpus(machine: Callable[[int], None], log: Path) -> None:
    machine(4)
    with shared_gpus(1, Listening()) as environments:
        assert environments == [{}]
    assert not log.exists()


def test_processes_are_spread_over_the_gpus_that_are_visible(
    machine: Callable[[int], None], log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine(2)
    with shared_gpus(2, listening := Listening()) as environments:
        assert environments == [{VISIBLE: "0"}, {VISIBLE: "1"}]
    monkeypatch.setenv(VISIBLE, "3,GPU-5ac0,-1,2")  # the third hides those after it
    with shared_gpus(2, listening) as environments:
        assert environments == [{VISIBLE: "3"}, {VISIBLE: "GPU-5ac0"}]
    assert not listening.lines and not log.exists()


def test_processes_share_a_gpu_through_the_service_until_the_end(
    machine: Callable[[int], None], log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine(2)
    monkeypatch.setenv(VISIBLE, "3,5")
    with shared_gpus(3, listening := Listening()) as environments:
        assert [environment[VISIBLE] for environment in environments] == ["0", "1", "0"]  # as the service numbers them
        (folder,) = {environment[PIPES] for environment in environments}
        assert asked(log) == ["start", "get_server_list"] and Path(folder).is_dir()
    assert asked(log) == ["start", "get_server_list", "quit"] and not Path(folder).exists()
    assert listening.lines == ["3 runs at a time share 2 GPUs by NVIDIA's Multi-Process Service"]


@pytest.mark.parametrize(
    ("start", "first_use", "listing", "reason"),
    [
        ("echo 'no permission'; exit 1", "pass", "echo 12", "no permission"),
        ("exit 1", "pass", "echo 12", "no reason is given"),
        ("exit 0", "raise SystemExit('MPS client failed to connect')", "echo 12", "MPS client failed to connect"),
        ("exit 0", "pass", "exit 3", "exit code 3"),
        ("exit 0", "pass", "exit 0", "it serves no process"),  # CUDA worked without it
        ("exit 0", "import time; time.sleep(60)", "echo 12", "no answer in 3 s"),
    ],
)
def test_if_the_service_does_not_work_it_ends_and_processes_take_turns_with_a_message(
    start: str,
    first_use: str,
    listing: str,
    reason: str,
    machine: Callable[[int], None],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    machine(1)
    monkeypatch.setattr(gpus, "FIRST_USE", first_use)
    monkeypatch.setattr(gpus, "PATIENCE", 3.0 if reason == "no answer in 3 s" else 60.0)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    log = install(monkeypatch, tmp_path, start, listing)
    with shared_gpus(2, listening := Listening()) as environments:
        assert environments == [{VISIBLE: "0"}] * 2
        assert asked(log)[-1] == "quit" and not list(tmp_path.glob("emoreg-mps-*"))
    (line,) = listening.lines
    told = "2 runs at a time share 1 GPU and take turns: nvidia-cuda-mps-control cannot be used here: "
    assert line.startswith(told) and line.endswith(reason)


def test_the_reason_is_what_pytorch_says_first(
    machine: Callable[[int], None], log: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    machine(1)
    error = "CUDA error: MPS client failed to connect\\nFor debugging consider passing CUDA_LAUNCH_BLOCKING=1"
    (tmp_path / "torch.py").write_text(f"def ones(*_, **__): raise RuntimeError('{error}')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(gpus, "FIRST_USE", FIRST_USE)
    with shared_gpus(2, listening := Listening()):
        pass
    assert listening.lines[0].endswith(f"{gpus.CONTROL} cannot be used here: CUDA error: MPS client failed to connect")


def test_if_no_folder_can_be_created_processes_take_turns(
    machine: Callable[[int], None], log: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    machine(1)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "none"))
    with shared_gpus(2, listening := Listening()) as environments:
        assert environments == [{VISIBLE: "0"}] * 2
    assert "cannot be used here: [Errno 2]" in listening.lines[0] and not log.exists()


def asked(log: Path) -> list[str]:
    return [line.partition(" in ")[0] for line in log.read_text().splitlines()]


def test_a_service_that_is_not_installed_is_reported(machine: Callable[[int], None]) -> None:
    machine(1)
    with shared_gpus(2, listening := Listening()) as environments:
        assert environments == [{VISIBLE: "0"}] * 2
    (line,) = listening.lines
    assert line.endswith("is not installed")


@pytest.mark.parametrize("where", ["environment", "usual place"])
def test_a_running_service_is_used_as_it_is(
    where: str, machine: Callable[[int], None], log: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    machine(1)
    if where == "environment":
        monkeypatch.setenv(PIPES, str(tmp_path / "theirs"))
    else:
        (tmp_path / "usual").mkdir()
        (tmp_path / "usual" / "control").touch()
    with shared_gpus(2, listening := Listening()) as environments:
        assert environments == [{VISIBLE: "0"}] * 2
    (line,) = listening.lines
    assert line.endswith("if the one that was started earlier works") and not log.exists()


def test_the_service_ends_with_a_process_that_is_killed(log: Path) -> None:
    code = """
import sys, torch
torch.cuda.device_count = lambda: 1
from emoreg.runtime import gpus
from emoreg.runtime.progress import Progress
gpus.FIRST_USE, gpus.USUAL_PIPES = "pass", "nowhere"
with gpus.shared_gpus(2, Progress(quiet=True)):
    print("started", flush=True)
    sys.stdin.read()
"""
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": str(SOURCE)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None and process.stdout.readline() == "started\n"
    process.send_signal(signal.SIGKILL)
    process.communicate()
    deadline = time.monotonic() + 30
    while "quit" not in log.read_text() and time.monotonic() < deadline:
        time.sleep(0.02)
    started, *_, ended = log.read_text().splitlines()
    folder = Path(started.removeprefix("start in "))
    assert ended == f"quit in {folder}"
    while folder.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not folder.exists()
