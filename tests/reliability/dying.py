"""The emoreg command, which kills its own process group in the middle of a write.

    EMOREG_DIES="checkpoint.pt,half written,3" python tests/reliability/dying.py train recipe.yaml

dies when the checkpoint is written for the third time. The moment is "half written" (half of its bytes are on disk),
"written" (all bytes are, under the temporary name) or "in place" (it has just been renamed). Without the variable it
is the plain command. The worker processes of a study import this file too, so writes in them can also be fatal.
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
NOTED_EVERY_BYTES = 4096  # how often packing notes its progress: even a tiny pack gets several notes
GROWS = "pixels.npy"  # never cut in half when half written: it grows, and its earlier content is already noted


def die_at(file: str, when: str, number: int) -> None:
    """From now on, kill the process group when a file of this name is written for the `number`-th time."""
    fsync, replace = os.fsync, os.replace
    times = 0

    def is_due(path: str | os.PathLike[str], moment: str) -> bool:
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
        if is_due(path, HALF):
            if file != GROWS:
                os.ftruncate(fd, os.fstat(fd).st_size // 2)
            die()
        fsync(fd)
        if is_due(path, WRITTEN):
            die()

    def dying_replace(source: Any, target: Any, **options: Any) -> None:
        replace(source, target, **options)
        if is_due(target, IN_PLACE):
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
