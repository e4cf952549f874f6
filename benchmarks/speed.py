"""Measure the speed of emoreg, as ratios to the usual recipe and to the plain backbone: a table, and JSON.

    python benchmarks/speed.py
    python benchmarks/speed.py --parts training --backbones resnet20 --rounds 15
    python benchmarks/speed.py --json speed.json

Arms take turns, round by round; a ratio is the median of the ratios of all rounds, with quartiles. Run nothing else at
the same time: it makes the figures worthless. About 25 minutes on two cores.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import ours
import usual
from turns import Arm, Figures, take_turns

from emoreg.config.training import TrainingSettings
from emoreg.runs.provenance import environment
from emoreg.runtime.cores import usable_cores
from emoreg.training.fabric import resolve_precision


@dataclass(frozen=True)
class Line:
    """One ratio of the table."""

    what: str
    figure: float  # per second; seconds in the part "start"
    against: str
    ratio: tuple[float, float, float]  # median, lower and upper quartile
    limit: str


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--backbones", nargs="+", default=["resnet20", "resnet18"])
    parser.add_argument(
        "--augmentations",
        nargs="+",
        choices=ours.AUGMENTATIONS,
        default=["deit", "everything"],
        help="measured on top of crop and flip",
    )
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=11, help="at least 2")
    parser.add_argument("--seconds", type=float, default=1.5, help="about how long a round of an arm takes")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--json", metavar="FILE", type=Path, help="also write figures and environment to FILE")
    options = parser.parse_args()
    if options.rounds < 2:
        parser.error("--rounds must be at least 2, for quartiles")

    print(f"{'':44}{'images/s':>10}   {'ratio':>6} {'quartiles':>15}  {'limit':>7}  against")
    lines, facts = [], environment()
    for part in options.parts:
        for line in PARTS[part](options):
            lines.append(line)
            middle, lower, upper = line.ratio
            quartiles = f"{lower:.2f} to {upper:.2f}"
            print(
                f"{line.what:44}{line.figure:10,.2f}   {middle:6.2f} {quartiles:>15}  {line.limit:>7}  {line.against}"
            )
        if options.json:  # after each part, so that a run that is stopped keeps those that are done
            record = {"lines": [asdict(line) for line in lines], "command": sys.argv, **facts}
            options.json.write_text(json.dumps(record, indent=2, default=str), encoding="utf-8")


def measure_start(options: argparse.Namespace) -> list[Line]:
    """Measure the seconds until the help is printed, compared with an empty interpreter."""

    def seconds(*arguments: str) -> float:
        started = time.perf_counter()
        subprocess.run([sys.executable, *arguments], check=True, capture_output=True)
        return time.perf_counter() - started

    runs = {"help": ("-m", "emoreg", "--help"), "import": ("-c", "import emoreg"), "python": ("-c", "pass")}
    rounds = [{name: seconds(*arguments) for name, arguments in runs.items()} for _ in range(options.rounds)]
    figures = Figures({name: [found[name] for found in rounds] for name in runs})
    return [
        Line(what, figures.median(name), "an empty interpreter", figures.ratio(name, "python"), "0.5 s")
        for name, what in (("help", "emoreg --help, seconds"), ("import", "import emoreg, seconds"))
    ]


def measure_data(options: argparse.Namespace) -> list[Line]:
    size, steps = options.batch_size, 40
    arms: dict[str, Arm] = {
        "usual, 0 workers": (usual.data, (size, 0, steps)),
        "usual, 2 workers": (usual.data, (size, 2, steps)),
        "batches alone": (ours.data, (size, 8 * steps, options.device)),
    }
    figures = take_turns(arms, options.rounds)
    best = max(("usual, 0 workers", "usual, 2 workers"), key=figures.median)
    return [Line("batches alone", figures.median("batches alone"), best, figures.ratio("batches alone", best), ">= 20")]


def measure_augmentation(options: argparse.Namespace) -> list[Line]:
    """Measure batches alone, and training, with further augmentation, compared with crop and flip only."""
    lines = []
    size, device = options.batch_size, options.device
    arms: dict[str, Arm] = {"crop and flip": (ours.data, (size, 40, device))}
    arms |= {name: (ours.data, (size, 40, device, ours.AUGMENTATIONS[name])) for name in options.augmentations}
    figures = take_turns(arms, options.rounds)
    for name in options.augmentations:
        ratio = figures.ratio(name, "crop and flip")
        lines.append(Line(f"batches alone: {name}", figures.median(name), "crop and flip", ratio, ""))
    for backbone in options.backbones:
        steps = steps_of(backbone, options)
        settings = {"crop and flip": ours.AUGMENT} | {name: ours.AUGMENTATIONS[name] for name in options.augmentations}
        arms = {
            name: (ours.training, (ours.make_recipe(backbone, size, device, augment=augment), steps))
            for name, augment in settings.items()
        }
        figures = take_turns(arms, options.rounds)
        for name in options.augmentations:
            ratio = figures.ratio(name, "crop and flip")
            lines.append(Line(f"{backbone}, {name}", figures.median(name), "crop and flip", ratio, ">= 0.85"))
    return lines


def measure_training(options: argparse.Namespace) -> list[Line]:
    lines = []
    for name in options.backbones:
        size, device = options.batch_size, options.device
        steps = steps_of(name, options)
        recipe = ours.make_recipe(name, size, device)
        growing = ours.make_recipe(name, size, device, initial_scale=0.5)
        arms: dict[str, Arm] = {
            f"usual, {workers} workers": (usual.training, (name, size, workers, steps, device_of(device)))
            for workers in (0, min(usable_cores(), 8))
        }
        peers, limit = tuple(arms), ">= 2.5"
        arms |= {
            "emoreg": (ours.training, (recipe, steps)),
            "emoreg, initial_scale 0.5": (ours.training, (growing, max(steps, 15))),
        }
        if device_of(device) == "cuda":
            fast: dict[str, dict[str, Any]] = {
                "compiled": {"compile": True},
                "captured": {"cuda_graphs": True},
                "compiled and captured": {"compile": True, "cuda_graphs": True},
            }
            for what, settings in fast.items():
                arms[f"emoreg, {what}"] = ours.training, (ours.make_recipe(name, size, device, **settings), steps)
            limit = ">= 5"
        figures = take_turns(arms, options.rounds)
        best = max(peers, key=figures.median)
        for arm in [arm for arm in arms if arm not in peers]:
            aim = "" if "initial_scale" in arm else limit  # it changes the training
            lines.append(Line(f"{name}, {arm}", figures.median(arm), best, figures.ratio(arm, best), aim))
    return lines


def measure_precision(options: argparse.Namespace) -> list[Line]:
    """Measure what `training.precision: auto` gains over float32, on a CPU that computes in bfloat16.

    By the processor time of one thread, which other processes do not add to.
    """
    if device_of(options.device) != "cpu" or resolve_precision(TrainingSettings(), "cpu") == "32-true":
        return []
    lines = []
    for name in options.backbones:
        for arm, what in (("Backbone", "plain"), ("trained", "regulated")):
            steps, arms = steps_of(name, options), dict[str, Arm]()
            for precision in ("auto", "32-true"):
                recipe = ours.make_recipe(name, options.batch_size, "cpu", arm, precision=precision)
                arms[precision] = ours.training, (recipe, steps, 1, time.process_time)
            figures = take_turns(arms, options.rounds)
            ratio = figures.ratio("auto", "32-true")
            lines.append(Line(f"{name}, {what}, bf16", figures.median("auto"), "float32", ratio, ">= 1"))
    return lines


def measure_regulated(options: argparse.Namespace) -> list[Line]:
    """Measure the time of a regulated step in steps of the backbone, so the ratio of speeds is inverted."""
    lines = []
    limits = {"frozen": "<= 1.25", "views": "<= 1.05", "trained": "<= 1.95"}
    for name in options.backbones:
        steps = steps_of(name, options)
        arms: dict[str, Arm] = {
            arm: (ours.training, (ours.make_recipe(name, options.batch_size, options.device, arm), steps))
            for arm in ("Backbone", *limits)
        }
        figures = take_turns(arms, options.rounds, warm_up=2)
        for arm, limit in limits.items():
            what = f"{name}, step with encoder: {arm}"
            lines.append(Line(what, figures.median(arm), "Backbone", figures.ratio("Backbone", arm), limit))
    return lines


def measure_jobs(options: argparse.Namespace) -> list[Line]:
    """Measure runs at the same time, as `emoreg study --jobs` does, compared with the same runs in sequence."""
    lines = []
    cores = usable_cores()
    is_cpu = device_of(options.device) == "cpu"
    for name in ("resnet8", *options.backbones[:1]):
        steps = steps_of(name, options)
        recipe = ours.make_recipe(name, options.batch_size, options.device, cuda_graphs=not is_cpu)
        for runs in (2,) if is_cpu else (4, 8):
            arms: dict[str, Arm] = {
                "in turn": (ours.training, (recipe, runs * steps)),
                "at once": (ours.at_once, (recipe, steps, runs, max(cores // runs, 1))),
            }
            figures = take_turns(arms, options.rounds)
            what, limit = f"{name}, {runs} runs at once", ">= 1" if is_cpu else ">= 3"
            lines.append(Line(what, figures.median("at once"), "in turn", figures.ratio("at once", "in turn"), limit))
    return lines


def measure_study(options: argparse.Namespace) -> list[Line]:
    """Measure a whole `emoreg study`, compared with its training steps alone, in images through a branch per second.

    Studies of one and of three epochs differ only in two epochs of training, so the rest of the time is start-up:
    imports, decoding, building, compiling, testing, tables and the report.
    """
    lines = []
    is_cpu = device_of(options.device) == "cpu"
    settings: dict[str, dict[str, Any]] = {"": {}}
    if not is_cpu:
        settings |= {", captured": {"cuda_graphs": True}}
    for name in options.backbones:
        for what, fast in settings.items():
            # Enough images that noise in the start-up time does not matter.
            seeds, steps = 2 if is_cpu else 4, max(steps_of(name, options), math.ceil(256 / options.batch_size))
            plain, regulated = (
                ours.make_recipe(name, options.batch_size, options.device, arm, **fast)
                for arm in ("Backbone", "trained")
            )
            images = steps * options.batch_size
            arms: dict[str, Arm] = {
                "one epoch": (ours.studying, (plain, seeds, images, 1)),
                "three epochs": (ours.studying, (plain, seeds, images, 3)),
                # Long, because a process that has waited for the studies is slow at first.
                "Backbone": (ours.training, (plain, 8 * steps)),
                "regulated": (ours.training, (regulated, 8 * steps)),
            }
            rounds = take_turns(arms, min(options.rounds, 5)).rounds
            trained: list[float] = []
            startups: list[float] = []
            ratios: list[float] = []
            for one, three, backbone, both in zip(*(rounds[arm] for arm in arms), strict=True):
                epoch = (1 / three - 1 / one) / 2  # seconds for all runs
                trained.append(3 * seeds * images / epoch)
                startups.append((1 / one - epoch) / (2 * seeds))
                ratios.append(seeds * images * (1 / backbone + 1 / both) / epoch)
            against, runs = "its steps alone", 2 * seeds
            lower, middle, upper = statistics.quantiles(ratios, n=4, method="inclusive")
            line = f"{name}, study of {runs} runs{what}"
            lines.append(Line(line, statistics.median(trained), against, (middle, lower, upper), ">= 0.85"))
            start = statistics.median(startups)
            lines.append(Line(f"{line}: start-up, s a run", start, "itself", (1.0, 1.0, 1.0), ""))
    return lines


def measure_decoding(options: argparse.Namespace) -> list[Line]:
    lines = []
    for what, width, height, size, count in (
        ("photographs 1024x768 to 224 pixels", 1024, 768, 224, 160),
        ("tiny files 32x32", 32, 32, 32, 6000),
    ):
        arms: dict[str, Arm] = {
            decoder: (ours.decoding, (decoder, width, height, size, count))
            for decoder in ("emoreg", "Pillow", "torchvision")
        }
        figures = take_turns(arms, options.rounds)
        for other in ("Pillow", "torchvision"):
            lines.append(Line(what, figures.median("emoreg"), other, figures.ratio("emoreg", other), ""))
    return lines


def measure_predict(options: argparse.Namespace) -> list[Line]:
    """Measure predictions from files, compared with the forward pass of the backbone. "Felt" has three networks."""
    lines = []
    for name in options.backbones:
        plain, regulated = (ours.make_recipe(name, 64, options.device, arm) for arm in ("Backbone", "trained"))
        # A forward pass is about three times as fast as a step.
        count = 3 * steps_of(name, options) * options.batch_size
        arms: dict[str, Arm] = {
            "predict": (ours.predicting, (plain, count)),
            "predict, regulated and felt": (ours.predicting, (regulated, count)),
            "the backbone alone": (ours.forward, (plain, count)),
        }
        figures = take_turns(arms, options.rounds)
        for arm, limit in (("predict", ">= 0.9"), ("predict, regulated and felt", "")):
            ratio = figures.ratio(arm, "the backbone alone")
            lines.append(Line(f"{name}, {arm}", figures.median(arm), "the backbone alone", ratio, limit))
    return lines


def steps_of(name: str, options: argparse.Namespace) -> int:
    """Number of steps that take about `options.seconds` on two cores; a GPU is taken to be 100 times faster."""
    per_second = {"resnet8": 900, "resnet20": 300, "speednet": 200, "resnet18": 30}.get(name, 50)
    faster = 1 if device_of(options.device) == "cpu" else 100
    return max(round(options.seconds * per_second * faster / options.batch_size), 1)


def device_of(device: str) -> str:
    import torch

    return ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device


PARTS = {
    "start": measure_start,
    "data": measure_data,
    "augmentation": measure_augmentation,
    "training": measure_training,
    "precision": measure_precision,
    "regulated": measure_regulated,
    "jobs": measure_jobs,
    "study": measure_study,
    "decoding": measure_decoding,
    "predict": measure_predict,
}


if __name__ == "__main__":
    main()
