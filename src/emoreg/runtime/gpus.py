"""How several processes share the GPUs of this machine."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from emoreg.runtime.progress import Progress

VISIBLE = "CUDA_VISIBLE_DEVICES"
PIPES, LOGS = "CUDA_MPS_PIPE_DIRECTORY", "CUDA_MPS_LOG_DIRECTORY"
CONTROL = "nvidia-cuda-mps-control"
USUAL_PIPES = Path("/tmp/nvidia-mps")  # where programs look for a service without PIPES

# The service ends when standard input does, and so with this process, even if that is killed.
SERVICE = """
"$1" -d >"$2/started" 2>&1; echo $?
cat >/dev/null
echo quit | "$1" >/dev/null 2>&1
rm -r "$2"
"""
FIRST_USE = "import torch; torch.ones(1, device='cuda').sum().item()"
PATIENCE = 120.0  # seconds for a first use of a GPU


@contextlib.contextmanager
def shared_gpus(processes: int, progress: Progress) -> Iterator[list[Mapping[str, str]]]:
    """Within, several processes share the GPUs that this one may use: each uses one of them, a single one all.

    Where they are more than the GPUs, their kernels run at the same time by NVIDIA's Multi-Process Service, if it is
    there and works; otherwise a GPU does a little of one process after the other, as it does by itself.

    Args:
        processes: how many.
        progress: is told whether the service is used.

    Yields:
        What each of them is to have in its environment before it uses a GPU; nothing where there is none to share.
    """
    gpus = _visible_gpus() if processes > 1 else []
    with contextlib.ExitStack() as stack:
        service: Mapping[str, str] = {}
        if gpus and processes > len(gpus):
            service = stack.enter_context(_multi_process_service(processes, len(gpus), progress))
        if service:
            gpus = [str(number) for number in range(len(gpus))]  # the service counts those that are visible to it
        yield [{VISIBLE: gpus[number % len(gpus)], **service} if gpus else {} for number in range(processes)]


def _visible_gpus() -> list[str]:
    """Their names or numbers, as `VISIBLE` lists them."""
    import torch

    count, listed = torch.cuda.device_count(), os.environ.get(VISIBLE)
    return listed.split(",")[:count] if listed else [str(number) for number in range(count)]


@contextlib.contextmanager
def _multi_process_service(processes: int, gpus: int, progress: Progress) -> Iterator[Mapping[str, str]]:
    """The service, for what has this in its environment; nothing where it cannot be used, or where one runs already."""
    control, sharing = shutil.which(CONTROL), f"{processes} runs at a time share {gpus} GPU{'s' if gpus > 1 else ''}"
    if PIPES in os.environ or (USUAL_PIPES / "control").exists():
        yield {}
        return
    if control is None:
        progress.say(f"{sharing} and take turns: {CONTROL}, by which they would run at the same time, is not installed")
        yield {}
        return
    folder = tempfile.mkdtemp(prefix="emoreg-mps-")  # short, as names of sockets have to be
    environment = {PIPES: folder, LOGS: folder}
    everything = os.environ | environment
    service = subprocess.Popen(
        ["/bin/sh", "-c", SERVICE, "sh", control, folder],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=everything,
        start_new_session=True,  # Ctrl-C is for this process, which ends it when the runs have been saved
    )
    try:
        assert service.stdout is not None
        code = service.stdout.readline().strip()
        started = Path(folder, "started").read_text(encoding="utf-8", errors="replace")
        error = _error_of_first_use(everything) if code == "0" else started
        if error is None:
            progress.say(f"{sharing} by NVIDIA's Multi-Process Service")
        else:
            progress.say(f"{sharing} and take turns: {CONTROL} cannot be used here: {_last_line(error)}")
        yield environment if error is None else {}
    finally:
        with contextlib.suppress(subprocess.TimeoutExpired):
            service.communicate(timeout=PATIENCE)


def _error_of_first_use(environment: Mapping[str, str]) -> str | None:
    """What goes wrong when a process uses a GPU; None if nothing does."""
    command = [sys.executable, "-c", FIRST_USE]
    try:
        tried = subprocess.run(command, check=False, env=environment, capture_output=True, text=True, timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        return "no answer"
    return tried.stderr if tried.returncode else None


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "no reason is given"
