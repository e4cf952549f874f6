"""Kill commands with kill -9 at random moments, resume them, and compare the results.

    python tests/reliability/kill.py [--kills 50] [--seed 0] [--cases "stage 2,pack"]

Each kill ends the whole process group of a real command, after a random time or in the middle of a write (see
dying.py). Its folder is copied, and the same command is run to its end in the copy. Except for times, the result must
equal that of an uninterrupted command bit for bit: metrics, λ, weights, the table of a study, the files of a pack, and
no other files. The killed command itself is also resumed and killed again, so that it dies up to three times. This
takes about half an hour on two CPU cores.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

DYING = Path(__file__).with_name("dying.py")
HALF, WRITTEN, IN_PLACE = "half written", "written", "in place"
CLOCKS = ("seconds", "images_per_second")
CHAIN = 3  # kills of one command at most
TIMEOUT = 600.0  # seconds

EXPERIENCE = """\
stimuli: {name: procedural, count: 120, image_size: 16, validation: 0.2}
backbone: {name: resnet8}
optimizer: {name: adamw, lr: 0.001}
training: {epochs: 5, batch_size: 16, device: cpu, precision: 32-true}
edition: 2
"""
CLASSIFIER = """\
target: {name: digits, image_size: 8, limit: 128}
backbone: {name: resnet8}
regulation: {mode: random_learned, granularity: per_class}
optimizer: {name: sgd, lr: 0.05, momentum: 0.9, ema: 0.9}
augment: {crop_padding: 1, flip: false}
training: {epochs: 6, batch_size: 16, device: cpu, precision: 32-true}
edition: 2
"""
STUDY = """\
edition: 2
experiences: [affect]
references: [backbone]
seeds: 1
pretraining:
  stimuli: {name: procedural, count: 40}
  training: {epochs: 2, batch_size: 16, device: cpu, precision: 32-true}
classifier:
  target: {name: digits, image_size: 8, limit: 64}
  backbone: {name: resnet8}
  optimizer: {lr: 0.05}
  training: {epochs: 2, batch_size: 16, device: cpu, precision: 32-true}
"""
PACKING = ("--skip-unreadable", "--quiet")
RUN_FILES = {"recipe.yaml": 1, "inputs.json": 1, "environment.json": 1, "model.safetensors": 1, "final.json": 1}


@dataclass(frozen=True)
class Moment:
    """When a command is killed: `seconds` after its work starts, or when `file` is written for the `number`-th time."""

    seconds: float = 0.0
    file: str | None = None
    when: str = ""
    number: int = 1

    def __str__(self) -> str:
        return "by the clock" if self.file is None else f"{self.file} {self.when}"


@dataclass(frozen=True)
class Case:
    """A command and what must come out of it.

    Args:
        command: arguments of emoreg.
        prepare: function that writes the command's input files into its working folder.
        output: folder that the command writes, in the working folder.
        writes: files, and how often an uninterrupted command writes each.
        outcome: function that reads from the output folder everything that must be equal, by name.
    """

    command: tuple[str, ...]
    prepare: Callable[[Path], object]
    output: str
    writes: Mapping[str, int]
    outcome: Callable[[Path], dict[str, object]]


def _images(folder: Path) -> None:
    """Five classes of 48 small images, a few of them broken."""
    draw = np.random.default_rng(0)
    for number in range(240):
        path = folder / "images" / f"class{number % 5}" / f"{number:04}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        if number % 60 == 7:
            path.write_bytes(b"broken")
        else:
            Image.fromarray(draw.integers(0, 256, (20, 24, 3), np.uint8)).save(path)


def run_outcome(folder: Path) -> dict[str, object]:
    final = json.loads((folder / "final.json").read_text())
    return {
        "metrics": pd.read_csv(folder / "metrics.csv", dtype=str).drop(columns=list(CLOCKS)).to_csv(),
        "final": {key: value for key, value in final.items() if key not in CLOCKS},
        "λ": final.get("lambda"),
        "weights": (folder / "model.safetensors").read_bytes(),
        "recipe": (folder / "recipe.yaml").read_bytes(),
        "files": _files(folder),
    }


def study_outcome(folder: Path) -> dict[str, object]:
    table = pd.read_parquet(folder / "results.parquet")
    clocks = [*CLOCKS, *(f"epochs.{clock}" for clock in CLOCKS), "env.started", "env.sessions"]
    outcome: dict[str, object] = {"table": table.drop(columns=clocks).to_csv(), "files": _files(folder)}
    for run in sorted((folder / "runs").iterdir()):
        outcome |= {f"{run.name}: {key}": value for key, value in run_outcome(run).items()}
    return outcome


def pack_outcome(folder: Path) -> dict[str, object]:
    arrays: dict[str, object] = {path.name: path.read_bytes() for path in folder.glob("*.npy")}
    about = json.loads((folder / "pack.json").read_text())
    del about["made"], about["identity"]["files"]  # times: of the pack, and of its images
    return arrays | {"files": _files(folder), "about": about}


def _files(folder: Path) -> list[str]:
    """The names of all files except the lock: shows leftovers of interrupted writes."""
    return sorted(path.name for path in folder.iterdir() if path.name != ".lock")


def _text(name: str, content: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_text(content)


CASES = {
    "stage 1": Case(
        ("pretrain", "recipe.yaml", "--out", "run", "--quiet"),
        _text("recipe.yaml", EXPERIENCE),
        "run",
        {**RUN_FILES, "checkpoint.pt": 5, "metrics.csv": 5},
        run_outcome,
    ),
    "stage 2": Case(
        ("train", "recipe.yaml", "--out", "run", "--quiet"),
        _text("recipe.yaml", CLASSIFIER),
        "run",
        {**RUN_FILES, "checkpoint.pt": 6, "metrics.csv": 6},
        run_outcome,
    ),
    "study": Case(
        ("study", "study.yaml", "--out", "study", "--jobs", "2", "--quiet"),
        _text("study.yaml", STUDY),
        "study",
        {"results.parquet": 1, "study.yaml": 1, "report.html": 1, "checkpoint.pt": 3, "final.json": 2},
        study_outcome,
    ),
    "pack": Case(
        ("data", "pack", "folder", "--root", "images", "--image-size", "16", "--out", "pack", *PACKING),
        _images,
        "pack",
        {"unfinished.json": 15, "pixels.npy": 15, "names.npy": 1, "labels-class.npy": 1, "pack.json": 1},
        pack_outcome,
    ),
}


def run(case: Case, folder: Path, moment: Moment | None = None) -> bool:
    """Run a case's command in `folder`.

    Args:
        case: the case.
        folder: working folder; a command that was killed there is resumed.
        moment: when to kill the command; None for never.

    Returns:
        True if it was killed, False if it ended before the moment came.
    """
    if not folder.exists():
        folder.mkdir()
        case.prepare(folder)
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(DYING.parents[2] / "src")}
    if moment is not None and moment.file is not None:
        environment["EMOREG_DIES"] = f"{moment.file},{moment.when},{moment.number}"
    holder = folder / case.output / ".holder.json"
    holder.unlink(missing_ok=True)  # it appears when the work starts, after the imports
    log = folder.with_suffix(".log")
    with log.open("w") as stream:
        process = subprocess.Popen(
            [sys.executable, str(DYING), *case.command],
            cwd=folder,
            env=environment,
            stdout=stream,
            stderr=stream,
            start_new_session=True,
        )
        try:
            if moment is not None and moment.file is None:
                while process.poll() is None and not holder.exists():
                    time.sleep(0.002)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(moment.seconds)
                _kill(process)
            code = process.wait(TIMEOUT)
        finally:
            _kill(process)
    if code not in (0, -signal.SIGKILL):
        raise RuntimeError(f"{' '.join(case.command)} ended with {code} in {folder}: {log.read_text()[-2000:]}")
    return code != 0


def _kill(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def differences(case: Case, folder: Path, whole: Mapping[str, object]) -> list[str]:
    """The names of outcomes that differ from those of the uninterrupted command."""
    outcome = case.outcome(folder / case.output)
    return sorted(key for key in outcome.keys() | whole.keys() if outcome.get(key) != whole.get(key))


def kills(case: Case, folder: Path, draw: random.Random) -> Iterator[tuple[Moment, list[str]]]:
    """Kill one case again and again, endlessly. Yield each moment and the names of the outcomes that then differed.

    Args:
        case: the case.
        folder: folder to create, for the uninterrupted command and the killed ones.
        draw: source of the random moments.
    """
    folder.mkdir()
    run(case, folder / "whole")
    seconds = time.time() - (folder / "whole" / case.output / ".lock").stat().st_mtime  # without the imports
    whole = case.outcome(folder / "whole" / case.output)
    while True:
        for path in folder.glob("killed*"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        for _ in range(CHAIN):
            moment = _draw_moment(case, seconds, draw)
            if not run(case, folder / "killed", moment):
                break
            shutil.copytree(folder / "killed", folder / "copy")
            run(case, folder / "copy")
            yield moment, differences(case, folder / "copy", whole)
            shutil.rmtree(folder / "copy")


def _draw_moment(case: Case, seconds: float, draw: random.Random) -> Moment:
    if draw.random() < 0.4:
        return Moment(seconds=draw.uniform(0, seconds))
    file = draw.choice(list(case.writes))
    is_renamed = not file.endswith(".npy")  # arrays are written under their final name
    when = draw.choice([HALF, WRITTEN, IN_PLACE] if is_renamed else [HALF, WRITTEN])
    return Moment(file=file, when=when, number=draw.randint(1, case.writes[file]))


def main(arguments: list[str] | None = None) -> int:
    """Kill, compare and print. Return 1 if anything differed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cases", default=",".join(CASES), help="default: %(default)s")
    options = parser.parse_args(arguments)
    names = options.cases.split(",")
    killed: Counter[tuple[str, str]] = Counter()
    equal: Counter[tuple[str, str]] = Counter()
    with tempfile.TemporaryDirectory() as home:
        running = {
            name: kills(CASES[name], Path(home) / name, random.Random(f"{options.seed} {name}")) for name in names
        }
        for number in range(options.kills):
            name = names[number % len(names)]
            moment, differing = next(running[name])
            key = name, str(moment)
            killed[key] += 1
            equal[key] += not differing
            verdict = "equal" if not differing else f"DIFFERS: {', '.join(differing)}"
            at = f"{moment.seconds:.2f} s" if moment.file is None else f"time {moment.number}"
            print(f"{number + 1:3} {name}: {moment} ({at}): {verdict}", flush=True)
    _print_table(killed, equal)
    return 0 if killed == equal else 1


def _print_table(killed: Counter[tuple[str, str]], equal: Counter[tuple[str, str]]) -> None:
    print(f"\n{'case':9} {'killed':36} {'kills':>5}  equal")
    for key in sorted(killed, key=lambda key: (list(CASES).index(key[0]), key[1])):
        print(f"{key[0]:9} {key[1]:36} {killed[key]:5}  {'yes' if equal[key] == killed[key] else 'NO'}")
    print(f"{equal.total()} of {killed.total()} equal")


if __name__ == "__main__":
    sys.exit(main())
