"""Measure how long a recipe takes to reach an accuracy: `emoreg train` for one seed after another.

    python benchmarks/time_to_accuracy.py recipes/cifar10/resnet18-fast.yaml --aim 94 --training 20 --whole 30
    python benchmarks/time_to_accuracy.py RECIPE --seeds 3 --json time.json --target.root CIFAR --training.compile true

Unknown options are passed to `emoreg train`. *Training* is the time of all epochs; *whole* is the time of the process,
with imports, decoding, capturing or compiling, and testing. The exit code is 1 if the mean accuracy misses its aim, or
a median time exceeds its limit.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from emoreg.report.statistics import interval
from emoreg.runs.provenance import environment
from emoreg.runs.run import Run


@dataclass(frozen=True)
class Timed:
    """One training: `accuracy` on the test images in percent, the two times in seconds."""

    seed: int
    accuracy: float
    training: float
    whole: float


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("recipe", metavar="RECIPE")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--aim", type=float, default=0.0, help="minimum mean test accuracy, in percent")
    parser.add_argument("--training", type=float, metavar="SECONDS", default=float("inf"), help="limit of the median")
    parser.add_argument("--whole", type=float, metavar="SECONDS", default=float("inf"), help="limit of the median")
    parser.add_argument("--json", metavar="FILE", type=Path, help="also write figures and environment to FILE")
    options, settings = parser.parse_known_args()

    runs = []
    for seed in range(options.seeds):
        runs.append(run := timed(options.recipe, seed, settings))
        print(f"seed {seed}: {run.accuracy:.2f} %, {run.training:.1f} s, whole {run.whole:.1f} s", flush=True)
    accuracy = interval([run.accuracy for run in runs], 0.0, 100.0)
    training = statistics.median(run.training for run in runs)
    whole = statistics.median(run.whole for run in runs)
    print(f"mean test accuracy {accuracy.mean:.2f} % [{accuracy.low:.2f}, {accuracy.high:.2f}], n = {accuracy.n}")
    print(f"median time {training:.1f} s, whole {whole:.1f} s")
    if options.json:
        record = {"runs": [asdict(run) for run in runs], "command": sys.argv, **environment()}
        options.json.write_text(json.dumps(record, indent=2, default=str), encoding="utf-8")
    return int(accuracy.mean < options.aim or training > options.training or whole > options.whole)


def timed(recipe: str, seed: int, settings: list[str]) -> Timed:
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        started = time.perf_counter()
        command = ["train", recipe, "--seed", str(seed), "--out", str(out), "--quiet", *settings]
        subprocess.run([sys.executable, "-m", "emoreg", *command], check=True, stdout=subprocess.DEVNULL)
        whole = time.perf_counter() - started
        run = Run(out)
        return Timed(seed, 100 * run.final["test"]["accuracy"], float(run.metrics["seconds"].sum()), whole)


if __name__ == "__main__":
    sys.exit(main())
