"""The command line. A command is a typed function of the library; here is only the parsing and the printing."""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emoreg import __version__
from emoreg.cli.parser import command_parser
from emoreg.errors import UserError, nearest, printable
from emoreg.runtime import launch_env
from emoreg.runtime.progress import Progress
from emoreg.runtime.signals import Stopped, heed_requests, ignore_requests

if TYPE_CHECKING:
    from emoreg.runs.run import Run

OVERVIEW = """\
Emotional Regulation for image classification (arXiv:2606.13081): give a network an emotional experience,
train regulated classifiers, and find out whether the emotion does it.

commands:
  quickstart   the whole method on embedded data, in minutes: a table and a page
  pretrain     stage 1: train an emotional encoder on affective images
  train        stage 2: train a classifier, regulated or plain
  evaluate     score a trained classifier on its test split or on your images
  predict      what a trained classifier answers to images, and what it feels
  explain      look inside one: where it looks, what it leans on; a page
  export       write a trained classifier for others: Hugging Face Hub, ONNX, torch.export, timm
  demo         a page where people try one with their own images
  study        many runs: arms, controls, seeds, targets, backbones; then the report
  report       write a study's report: a page, Markdown, LaTeX
  results      print, filter and export the table of a study's runs
  power        how many seeds a study needs
  data         image sets: list, verify, show, pack, diffuse
"""
OVERVIEW_EXAMPLES = """\
examples:
  emoreg quickstart
  emoreg pretrain recipes/experience/oasis-resnet20.yaml --stimuli.root oasis.zip
  emoreg train recipes/cifar10/resnet20-learn-e-reg.yaml
  emoreg evaluate runs/cifar10-resnet20-learn-e-reg-seed0
  emoreg predict runs/cifar10-resnet20-learn-e-reg-seed0 cat.jpg
  emoreg export runs/cifar10-resnet20-learn-e-reg-seed0 --to my-model --format hub
  emoreg study recipes/studies/cifar10-pilot.yaml --dry-run
  emoreg report runs/cifar10-pilot
  emoreg data list
  emoreg COMMAND --help
"""
PRETRAIN_EXAMPLES = """\
examples:
  emoreg pretrain recipes/experience/procedural-resnet20.yaml
  emoreg pretrain recipes/experience/oasis-resnet20.yaml --stimuli.root oasis.zip --seed 1
  emoreg pretrain recipes/experience/oasis-resnet20.yaml --print-config
"""
TRAIN_EXAMPLES = """\
examples:
  emoreg train recipes/cifar10/resnet20.yaml
  emoreg train recipes/cifar10/resnet20-learn-e-reg.yaml --regulation.granularity per_class
  emoreg train recipes/cifar10/resnet20.yaml --target.name folder --target.root my-photos/
  emoreg train recipes/cifar100/resnet18.yaml --smoke
"""
EVALUATE_EXAMPLES = """\
examples:
  emoreg evaluate runs/cifar10-resnet20-seed0
  emoreg evaluate runs/cifar10-resnet20-seed0 --data my-photos/ --json
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    Returns:
        The exit code: 0, 1 for problems found in data or failed runs, 2 for bad input, 130 when interrupted, 141 for a
        closed pipe, 143 when stopped by SIGTERM or SIGUSR1.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    if arguments is None:
        heed_requests()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal without λ shows "?" for it
    try:
        try:
            return _run(given)
        finally:
            if arguments is None:
                ignore_requests()
            sys.stdout.flush()  # so that a pipe that is closed shows here, and not when Python ends
    except UserError as error:
        print(f"emoreg{f' (process {launch_env.rank()})' if launch_env.rank() else ''}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as error:
        goes_on = given[:1] not in (["evaluate"], ["predict"], ["explain"], ["export"], ["demo"]) and given[:2] not in (
            ["data", "verify"],
            ["data", "show"],
        )
        hint = "; the same command goes on where it stopped" if goes_on else ""
        asked = isinstance(error, Stopped)
        print(f"emoreg: {'stopped by a signal' if asked else 'interrupted'}{hint}", file=sys.stderr)
        return 143 if asked else 130
    except BrokenPipeError:  # whoever read our output, such as head, has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except OSError as error:  # a disk that is full or read-only, wherever it was met
        where = f": {error.filename}" if error.filename else ""
        print(printable(f"emoreg: {error.strerror or error}{where}"), file=sys.stderr)
        return 2


def _run(given: Sequence[str]) -> int:
    commands: dict[str, Callable[[Sequence[str]], int | None]] = {
        "quickstart": _quickstart,
        "pretrain": _pretrain,
        "train": _train,
        "evaluate": _evaluate,
        "predict": _predict,
        "explain": _explain,
        "export": _export,
        "demo": _demo,
        "study": _study,
        "report": _report,
        "results": _results,
        "power": _power,
        "data": _data,
    }
    if given and not given[0].startswith("-"):
        if given[0] not in commands:
            raise UserError(f"no command '{given[0]}'{nearest(given[0], commands)}")
        return commands[given[0]](given[1:]) or 0
    parser = command_parser("emoreg", OVERVIEW, OVERVIEW_EXAMPLES, usage="emoreg COMMAND ...")
    parser.add_argument("--version", action="version", version=f"emoreg {__version__}")
    parser.parse_args(given)
    parser.print_help()
    return 0


def _quickstart(arguments: Sequence[str]) -> None:
    parser = command_parser(
        "emoreg quickstart",
        "The method from end to end on embedded data, without a network: stage 1 on procedural affective images,\n"
        "then five regulation modes and the control random_encoder on handwritten digits.",
        "examples:\n  emoreg quickstart\n  emoreg quickstart --seeds 5 --out runs/my-quickstart",
    )
    parser.add_argument("--out", type=Path, default=Path("runs/quickstart"), help="folder of the runs (%(default)s)")
    parser.add_argument("--seeds", type=int, default=3, help="runs of each arm (%(default)s)")
    parser.add_argument("--quiet", action="store_true", help="no progress")
    options = parser.parse_args(arguments)
    if options.seeds < 1:
        raise UserError(f"--seeds is {options.seeds}; it must be at least 1")

    from emoreg.cli.quickstart import quickstart

    quickstart(options.out, options.seeds, Progress(quiet=options.quiet, details=False))


def _pretrain(arguments: Sequence[str]) -> None:
    from emoreg.config.schema import PretrainRecipe

    recipe, out, progress = _recipe_command(
        PretrainRecipe,
        "pretrain",
        "Stage 1: train an emotional encoder on affective images.",
        PRETRAIN_EXAMPLES,
        arguments,
    )
    if out is not None:
        from emoreg.stages.pretrain import pretrain

        run = pretrain(recipe, out, progress=progress)
        _print_metrics("experience", run.final.get("validation") or run.final.get("train") or {}, run)


def _train(arguments: Sequence[str]) -> None:
    from emoreg.config.schema import TrainRecipe

    recipe, out, progress = _recipe_command(
        TrainRecipe, "train", "Stage 2: train a classifier, regulated or plain.", TRAIN_EXAMPLES, arguments
    )
    if out is not None:
        from emoreg.stages.classify import train

        run = train(recipe, out, progress=progress)
        _print_metrics("test split", run.final["test"] or {}, run)


def _evaluate(arguments: Sequence[str]) -> None:
    parser = command_parser("emoreg evaluate", "Score a trained classifier on labelled images.", EVALUATE_EXAMPLES)
    parser.add_argument("run", metavar="RUN", type=Path, help="folder of a finished run of stage 2")
    parser.add_argument(
        "--data",
        help="a target's name (cifar10), or a folder or zip of [test/]<class>/*.jpg|png; "
        "left out, the run's own test split",
    )
    parser.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda", "mps"], help="(%(default)s)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--quiet", action="store_true", help="no progress")
    options = parser.parse_args(arguments)

    from emoreg.stages.classify import evaluate

    metrics = evaluate(options.run, options.data, options.device, progress=Progress(quiet=options.quiet))
    if options.json:
        import json

        print(json.dumps(metrics, indent=2))
    else:
        _print_metrics(options.data or "test split", metrics)


def _predict(arguments: Sequence[str]) -> int:
    from emoreg.cli.inference import predict

    return predict(arguments)


def _explain(arguments: Sequence[str]) -> None:
    from emoreg.cli.inference import explain

    explain(arguments)


def _export(arguments: Sequence[str]) -> None:
    from emoreg.cli.export import export

    export(arguments)


def _demo(arguments: Sequence[str]) -> None:
    from emoreg.cli.export import demo

    demo(arguments)


def _data(arguments: Sequence[str]) -> int:
    from emoreg.cli.data import data

    return data(arguments)


def _study(arguments: Sequence[str]) -> int:
    from emoreg.cli.study import study

    return study(arguments)


def _report(arguments: Sequence[str]) -> None:
    from emoreg.cli.study import report

    report(arguments)


def _results(arguments: Sequence[str]) -> None:
    from emoreg.cli.study import results

    results(arguments)


def _power(arguments: Sequence[str]) -> None:
    from emoreg.cli.study import power

    power(arguments)


def _recipe_command(
    kind: type[Any], name: str, description: str, examples: str, arguments: Sequence[str]
) -> tuple[Any, Path | None, Progress]:
    """The recipe, the run folder (None if the recipe was only to be printed), and the progress."""
    from emoreg.config.recipe import SMOKE, SMOKE_LISTS, parse_options, read_recipe, recipe_parser, recipe_yaml

    parser = recipe_parser(
        kind,
        prog=f"emoreg {name}",
        usage=f"emoreg {name} RECIPE [--out DIR] [--print-config] [--smoke] [--SETTING VALUE ...]",
        description=f"{description} Every setting of the recipe can be given here too.",
        epilog=examples,
        formatter_class=_help_formatter(),
    )
    parser.add_argument("recipe", metavar="RECIPE", nargs="?", help="a YAML file, see recipes/")
    parser.add_argument("--out", metavar="DIR", type=str, help="run folder; default: runs/<folder>-<recipe>-seed<seed>")
    parser.add_argument("--print-config", action="store_true", help="print the whole recipe and stop")
    parser.add_argument("--smoke", action="store_true", help="one epoch over few images: does the recipe run?")
    parser.add_argument("--quiet", action="store_true", help="no progress")
    given = parse_options(parser, kind, arguments, ("out", "print-config", "smoke", "quiet"))
    file = given.pop("recipe", None)
    if file is None:
        raise UserError(f"which recipe? A YAML file, such as those in recipes/ (see {parser.prog} --help)")
    path = Path(file)
    out, smoke = given.pop("out", None), given.pop("smoke", False)
    print_config, quiet = given.pop("print_config", False), given.pop("quiet", False)
    recipe = read_recipe(kind, path, {**(SMOKE[kind] | SMOKE_LISTS[kind] if smoke else {}), **given})
    if print_config:
        print(recipe_yaml(recipe), end="")
        return recipe, None, Progress(quiet=quiet)
    set_name = path.resolve().parent.name  # the same from wherever the recipe is named
    name = f"{set_name}-{path.stem}{'-smoke' * smoke}-seed{recipe.seed}".lstrip("-")
    return recipe, Path(out) if out else Path("runs") / name, Progress(quiet=quiet)


def _help_formatter() -> type[argparse.HelpFormatter]:
    import jsonargparse

    class Formatter(jsonargparse.DefaultHelpFormatter, argparse.RawDescriptionHelpFormatter):
        """Help of settings from their docstrings; the examples' lines as they are."""

    return Formatter


def _print_metrics(title: str, metrics: dict[str, Any], run: Run | None = None) -> None:
    if launch_env.rank() > 0:
        return  # the first process prints
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table("metric", "value", title=Text(printable(title)))
    table.columns[1].justify = "right"
    for key, value in metrics.items():
        if isinstance(value, int | float):  # lists, such as each class's accuracy, are for files
            table.add_row(key, f"{value:,.4f}" if isinstance(value, float) else f"{value:,}")
    console = Console()
    console.print(table)
    if run is not None:
        console.print(f"run folder: {run.folder}", highlight=False, markup=False, soft_wrap=True)
