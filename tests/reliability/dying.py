"""The command emoreg, that kills itself and its whole process group in the middle of a write.

    EMOREG_DIES="checkpoint.pt,half written,3" python tests/reliability/dying.py train recipe.yaml

It dies at the third time that a checkpoint is written: "half written" (half of its bytes are on the disk), "written"
(all are, under the temporary name) or "in place" (it has just been renamed). Without the variable it is emoreg. The
worker processes of a study import this file too, and die as well.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

VARIABLE = "EMOREG_DIES"
HALF, WRITTEN, IN_PLACE = "half written", "written", "in place"
NOTED_EVERY_BYTES = 4096  # of a pack, so that a tiny one too has moments between two notes
GROWS = "pixels.npy"  # a file that grows: its earlier content is recorded, and cutting off half would lose that


def die_at(file: str, when: str, number: int) -> None:
    """From here on the n-th writing of files of this name kills the process group."""
    fsync, replace = os.fsync, os.replace
    times = 0

    def is_met(path: str | os.PathLike[str], moment: str) -> bool:
        nonlocal times
        name = Path(path).name
        if moment != when or not (name == file or name.startswith(f".{file}.")):
            return False
        times += 1
        return times == number

    def die() -> None:
        os.killpg(0, signal.SIGKILL)
        time.sleep(60)

    def dying_fsync(fd: int) -> None:
        path = os.readlink(f"/proc/self/fd/{fd}")  # noqa: PTH115 (gives the name of an open file)
        if is_met(path, HALF):
            if file != GROWS:
                os.ftruncate(fd, os.fstat(fd).st_size // 2)
            die()
        fsync(fd)
        if is_met(path, WRITTEN):
            die()

    def dying_replace(source: Any, target: Any, **given: Any) -> None:
        replace(source, target, **given)
        if is_met(target, IN_PLACE):
            die()

    os.fsync, os.replace = dying_fsync, dying_replace  # type: ignore[assignment]


if os.environ.get(VARIABLE):
    FILE, WHEN, NUMBER = os.environ[VARIABLE].split(",")
    die_at(FILE, WHEN, int(NUMBER))

if __name__ == "__main__":
    if sys.argv[1:3] == ["data", "pack"]:
        from emoreg.data.tools import pack

        pack.NOTED_EVERY_BYTES = NOTED_EVERY_BYTES
    from emoreg.cli.main import main

    sys.exit(main())
