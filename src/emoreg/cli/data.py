"""The command `emoreg data`: looking after image sets. Here is only the parsing and the printing."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from emoreg.cli.parser import command_parser
from emoreg.config.schema import LabelChoice, StimuliSettings
from emoreg.errors import UserError, nearest, printable
from emoreg.runtime.progress import Progress

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from emoreg.data.tools.catalogue import Entry
    from emoreg.data.tools.diffusion.diffuse import Diffused
    from emoreg.data.tools.verify import Findings

OVERVIEW = """\
Look after image sets: the affective stimuli of stage 1 and the targets of stage 2.

commands:
  list      every set: what it is, where to get it, whether it is here
  verify    read a whole set: unreadable images, wrong labels, duplicates across splits
  show      a contact sheet with labels, and how they are distributed
  pack      decode and resize a set once, into files that are opened in milliseconds
  diffuse   make a set like Diffused-EMOd from another, by image-to-image diffusion
"""
EXAMPLES = """\
examples:
  emoreg data list
  emoreg data verify oasis --root oasis.zip
  emoreg data show oasis --root oasis.zip --out oasis.png
  emoreg data pack cifar10 --root cifar10.zip --image-size 32
  emoreg data COMMAND --help
"""
SHOWN = 20  # of each kind of problem, if --show says nothing else
MAX_CLASSES = 30  # with a line each


def data(arguments: Sequence[str]) -> int:
    """Run a subcommand; returns the exit code: 0, or 1 for problems found."""
    commands: dict[str, Callable[[Sequence[str]], int]] = {
        "list": _list,
        "verify": _verify,
        "show": _show,
        "pack": _pack,
        "diffuse": _diffuse,
    }
    warnings.filterwarnings("ignore", module="PIL")  # of odd metadata in single files
    if arguments and not arguments[0].startswith("-"):
        if arguments[0] not in commands:
            raise UserError(f"no command 'data {arguments[0]}'{nearest(arguments[0], commands)}")
        try:
            return commands[arguments[0]](arguments[1:])
        except BrokenPipeError:  # of `| head`; so that Python does not fail again when it flushes at its end
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 0
    parser = command_parser("emoreg data", OVERVIEW, EXAMPLES, usage="emoreg data COMMAND ...")
    parser.parse_args(arguments)
    parser.print_help()
    return 0


def _list(arguments: Sequence[str]) -> int:
    parser = command_parser(
        "emoreg data list",
        "Every stimulus set and target: what it is, where to get it, and whether it is here.",
        "examples:\n  emoreg data list\n  emoreg data list --root /data/affect --json",
    )
    parser.add_argument("--root", metavar="DIR", type=Path, default=Path("data"), help="where to look (%(default)s)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args(arguments)
    if options.root != Path("data") and not options.root.is_dir():
        raise UserError(f"--root: {options.root} is not a folder")

    from emoreg.data.tools.catalogue import catalogue

    entries = catalogue(options.root)
    if options.json:
        print(json.dumps([_entry_json(entry) for entry in entries], indent=2, ensure_ascii=False))
    else:
        _print_entries(entries, options.root)
    return 0


def _verify(arguments: Sequence[str]) -> int:
    parser = _set_parser(
        "verify",
        "Read a whole set: every image and every label. The exit code is 0 for a clean set, 1 if there are problems.",
        "examples:\n  emoreg data verify oasis --root oasis.zip\n  emoreg data verify folder --root my-photos/ --json",
    )
    parser.add_argument(
        "--show", metavar="N", type=int, default=SHOWN, help="name at most N of each kind of problem (%(default)s)"
    )
    parser.add_argument("--json", action="store_true", help="print JSON, with all problems")
    options = parser.parse_args(arguments)
    if options.show < 0:
        raise UserError(f"--show is {options.show}; it must not be negative")

    from emoreg.data.tools.catalogue import find
    from emoreg.data.tools.verify import verify

    findings = verify(options.set, find(options.set, options.root), Progress(quiet=options.quiet))
    if options.json:
        content = {"clean": findings.is_clean, **dataclasses.asdict(findings)}
        print(json.dumps(content, indent=2))
    else:
        _print_findings(findings, options.show)
    return 0 if findings.is_clean else 1


def _show(arguments: Sequence[str]) -> int:
    parser = _set_parser(
        "show",
        "Draw a contact sheet (PNG): images with their labels, spread over the classes or over valence and\n"
        "arousal, and the distribution of all labels.",
        "examples:\n  emoreg data show oasis --root oasis.zip\n"
        "  emoreg data show cifar10 --root data --out cifar.png --count 48 --seed 1",
    )
    parser.add_argument("--out", metavar="FILE", type=Path, help="the PNG; default: <set>.png")
    parser.add_argument("--count", metavar="N", type=int, default=32, help="images to show (%(default)s)")
    parser.add_argument("--seed", metavar="N", type=int, default=0, help="of their choice (%(default)s)")
    options = parser.parse_args(arguments)
    out = options.out or Path(f"{options.set.lower().replace(':', '-').replace('/', '-')}.png")
    if not 1 <= options.count <= 400:
        raise UserError(f"--count is {options.count}; it must lie between 1 and 400")
    if options.seed < 0:
        raise UserError(f"--seed is {options.seed}; it must not be negative")
    if out.suffix.lower() != ".png":
        raise UserError(f"--out: {out} must end in .png")

    from emoreg.data.tools.catalogue import find, read_set
    from emoreg.data.tools.contact_sheet import draw_sheet
    from emoreg.runtime.safe_io import write_atomically

    collection = read_set(options.set, find(options.set, options.root), count=1000, image_size=96)
    picture = draw_sheet(collection, options.count, options.seed)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(out, picture)
    except OSError as error:
        raise UserError(f"cannot write {out}: {error.strerror}") from None
    print(out)
    return 0


def _pack(arguments: Sequence[str]) -> int:
    parser = _set_parser(
        "pack",
        "Decode and resize a set once. The folder that is made is then given as stimuli.root or target.root, and\n"
        "is opened in milliseconds; a pack that was stopped goes on where it was.",
        "examples:\n  emoreg data pack emoset --root EmoSet-118K/ --image-size 224 --skip-unreadable\n"
        "  emoreg data pack cifar10 --root cifar10.zip --image-size 32 --out data/cifar10-32px\n"
        "  emoreg train recipes/cifar10/resnet20.yaml --target.root data/cifar10-32px",
    )
    parser.add_argument("--image-size", metavar="S", type=int, required=True, help="side of the squares, in pixels")
    parser.add_argument("--out", metavar="DIR", type=Path, help="folder of the pack; default: data/<set>-<S>px")
    parser.add_argument("--skip-unreadable", action="store_true", help="leave out what cannot be decoded, and say so")
    options = parser.parse_args(arguments)

    from emoreg.data.tools.catalogue import find, kind_of
    from emoreg.data.tools.pack import pack

    root = find(options.set, options.root, packs=False)
    made = pack(
        options.set, root, options.image_size, options.out, options.skip_unreadable, Progress(quiet=options.quiet)
    )
    size = f"{made.images:,} images of {options.image_size}x{options.image_size} pixels, {_bytes(made.bytes)}"
    if made.seconds is None:
        print(f"{made.folder} was packed before: {size}")
    else:
        print(f"{made.folder}: {size}")
        rate = f"{made.decoded / made.seconds:,.0f} images/s, {made.source_bytes / made.seconds / 1e6:,.1f} MB/s"
        print(f"{made.decoded:,} images ({_bytes(made.source_bytes)}) in {made.seconds:.1f} s: {rate} of source")
    if made.left_out:
        print(f"left out {len(made.left_out):,} unreadable; the first: {made.left_out[0]['reason']}")
    command, key = ("pretrain", "stimuli") if kind_of(options.set) == "stimuli" else ("train", "target")
    print(f"use it: emoreg {command} RECIPE --{key}.root {made.folder}")
    return 0


def _diffuse(arguments: Sequence[str]) -> int:
    parser = command_parser(
        "emoreg data diffuse",
        "Make a set like Diffused-EMOd: every image of a set made anew, several times, by image-to-image diffusion;\n"
        "labels and splits travel along. Needs the extra: pip install 'emoreg[diffusion]'. The same command goes on\n"
        "where it was stopped.",
        "examples:\n  emoreg data diffuse --from emod --root data/emod --out data/diffused-emod\n"
        "  emoreg data diffuse --from abstract --labels majority --prompt 'a painting that evokes {emotion}'\n"
        "  emoreg pretrain RECIPE --stimuli.name diffused_emod --stimuli.root data/diffused-emod",
    )

    def option(name: str, kind: Callable[[str], Any], metavar: str, text: str) -> None:
        parser.add_argument(name, type=kind, metavar=metavar, default=argparse.SUPPRESS, help=text)

    parser.add_argument("--from", dest="set", metavar="SET", required=True, help="stimulus set, see emoreg data list")
    parser.add_argument("--root", metavar="DIR", help="folder or zip that holds it; default: its place in data")
    parser.add_argument("--out", metavar="DIR", type=Path, help="folder of what is made; default: data/diffused-<set>")
    parser.add_argument("--model", help="folder, or name on the Hugging Face Hub; default: Stable Diffusion 1.5")
    parser.add_argument(
        "--labels", default="published", choices=get_args(LabelChoice), help="(%(default)s: all it has)"
    )
    option("--strength", float, "S", "how much of an image turns to noise, above 0 and up to 1 (0.5)")
    option("--per-image", int, "N", "variants of each image (4); may be raised later")
    option("--prompt", str, "TEXT", "what the model is told; {emotion} stands for the category (nothing)")
    option("--guidance", float, "G", "how hard the prompt pulls; up to 1 is not at all (7.5 with a prompt, else 1)")
    option("--steps", int, "N", "denoising steps from pure noise, of which strength * steps are done (50)")
    option("--size", int, "PIXELS", "side of the square images, a multiple of 16 (512)")
    option("--seed", int, "N", "of the noise (0)")
    option("--limit", int, "N", "use at most so many images, drawn by seed (all); may be raised later")
    option("--revision", str, "REV", "branch, tag or commit of the model on the Hub (the newest)")
    option("--batch-size", int, "B", "images at once on an accelerator (4)")
    parser.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda", "mps"], help="(%(default)s)")
    parser.add_argument("--skip-unreadable", action="store_true", help="leave out what cannot be decoded, and say so")
    parser.add_argument("--quiet", action="store_true", help="no progress")
    given = vars(parser.parse_args(arguments))
    name, root, out, model, labels, quiet = (given.pop(k) for k in ("set", "root", "out", "model", "labels", "quiet"))

    from emoreg.data.stimuli import SETS, read_stimuli
    from emoreg.data.tools.catalogue import find, kind_of
    from emoreg.data.tools.diffusion.diffuse import diffuse, with_labels
    from emoreg.data.tools.diffusion.settings import MODEL, DiffuseSettings

    if kind_of(name) != "stimuli":
        raise UserError(f"--from: no stimulus set '{name}'{nearest(name, SETS)}")
    settings = DiffuseSettings(**given)
    root, skip = find(name, root, packs=False), settings.skip_unreadable
    of = StimuliSettings(name=name, root=root, image_size=settings.size, skip_unreadable=skip)
    stimuli = with_labels(read_stimuli(of, settings.seed), labels)
    made = diffuse(stimuli, model or MODEL, settings, out or Path(f"data/diffused-{name}"), Progress(quiet=quiet))
    _print_diffused(made)
    return 0


def _print_diffused(made: Diffused) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table("images", "number", title=Text(printable(f"{made.manifest.parent}")), title_justify="left")
    table.columns[1].justify = "right"
    table.add_row("made", f"{made.made:,}")
    table.add_row("there before", f"{made.kept:,}")
    table.add_row("left out: flagged by the model's safety checker", f"{made.flagged:,}")
    table.add_row("left out: sources that cannot be decoded", f"{made.unreadable:,}")
    if made.made:
        table.add_row("seconds an image", f"{made.seconds:,.2f}")
    _console().print(table)
    print(f"use it: emoreg pretrain RECIPE --stimuli.name diffused_emod --stimuli.root {made.manifest.parent}")


def _set_parser(name: str, description: str, examples: str) -> argparse.ArgumentParser:
    parser = command_parser(f"emoreg data {name}", description, examples)
    parser.add_argument("set", metavar="SET", help="name of a stimulus set or target, see emoreg data list")
    parser.add_argument(
        "--root", metavar="DIR", help="folder, zip or pack that holds it; default: its place in the folder data"
    )
    parser.add_argument("--quiet", action="store_true", help="no progress")
    return parser


def _bytes(count: int) -> str:
    for unit, size in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count} bytes"


def _entry_json(entry: Entry) -> dict[str, Any]:
    here = [{"root": str(place.root), "pack_of_pixels": place.pack_of} for place in entry.places]
    about = dataclasses.asdict(entry.about)
    return {"name": entry.name, "kind": entry.kind, **about, "needs_files": not entry.needs_no_files, "here": here}


def _print_entries(entries: Sequence[Entry], root: Path) -> None:
    from rich.padding import Padding
    from rich.table import Table
    from rich.text import Text

    console = _console()
    for kind, title in (("stimuli", "Stimuli of stage 1"), ("target", "Targets of stage 2")):
        console.print(Text(f"{title}\n", style="bold underline"))
        for entry in entries:
            if entry.kind != kind:
                continue
            about, here = entry.about, ", ".join(_place(place) for place in entry.places)
            console.print(Text.assemble((entry.name, "bold"), "  ", about.title))
            facts = Table.grid("key", "text", padding=(0, 2, 0, 0))
            facts.columns[1].overflow = "fold"  # a long path is broken, not shortened
            facts.add_row("images", Text(about.size))
            facts.add_row("labels", Text(about.labels))
            facts.add_row("from", Text(about.source))
            facts.add_row("licence", Text(about.licence))
            if entry.needs_no_files:
                facts.add_row("here", Text("yes, it needs no files", "green"))
            else:
                facts.add_row("layout", Text(about.layout))
                if here or entry.can_be_found:
                    facts.add_row("here", Text(here, "green") if here else Text(f"no, not in {root}", "dim"))
            console.print(Padding(facts, (0, 0, 1, 4)))


def _place(place: Any) -> str:
    return f"{place.root}" + (f" (a pack of {place.pack_of} pixels)" if place.pack_of else "")


def _print_findings(findings: Findings, shown: int) -> None:
    from rich.table import Table
    from rich.text import Text

    leaks = [" = ".join(f"{printable(name)} ({split})" for name, split in group) for group in findings.leaks]
    repeats = [" = ".join(printable(name) for name, _ in group) for group in findings.repeats]
    problems: dict[str, list[str]] = {
        "labels that cannot be read": [] if findings.error is None else [findings.error],
        "unreadable images": [reason for _, reason in findings.unreadable],
        "rows whose image is missing": findings.missing,
        "images that no row names": [printable(name) for name in findings.unnamed],
        "same pixels in several splits (a leak)": leaks,
        "same pixels twice in a split": repeats,
    }
    console = _console()
    if findings.error is None:
        console.print(_counts(findings))
    table = Table("check", "found")
    table.columns[1].justify = "right"
    for problem, found in problems.items():
        table.add_row(problem, Text(f"{len(found):,}", "bold red") if found else Text("0", "green"))
    console.print(table)
    for problem, found in problems.items():
        if found:
            console.print(Text(f"{problem}:", "bold"))
        for line in found[:shown]:
            console.print(Text(f"  {line}"), soft_wrap=True)
        if len(found) > shown:
            console.print(Text(f"  and {len(found) - shown:,} more (--show N, or --json for all)"))


def _counts(findings: Findings) -> Table:
    """Images by class and split, or the ranges of valence, arousal, ... by split."""
    from rich.table import Table
    from rich.text import Text

    of_labels: dict[str, Any] = {**findings.counts, **findings.ranges}  # one of them is empty
    splits = list(next(iter(of_labels.values()), ()))
    columns = [f"{split}: lowest, mean, highest" for split in splits] if findings.ranges else splits
    title = Text(printable(f"{findings.name}: {findings.images:,} images"))
    table = Table("dimension" if findings.ranges else "class", *columns, title=title, title_justify="left")
    for column in table.columns[1:]:
        column.justify = "right"
    for name, ranges in findings.ranges.items():
        table.add_row(name, *("  ".join(f"{number:+.2f}" for number in ranges[split]) for split in splits))
    if findings.counts:
        is_long = len(findings.counts) > MAX_CLASSES
        for name, of_split in findings.counts.items():
            if not is_long:
                table.add_row(Text(printable(name)), *(f"{of_split[split]:,}" for split in splits))
        numbers = [[of_split[split] for of_split in findings.counts.values()] for split in splits]
        if is_long:
            each = (f"{min(column):,} to {max(column):,}" for column in numbers)
            table.add_row(f"{len(findings.counts)} classes, each", *each)
        table.add_section()
        table.add_row("all", *(f"{sum(column):,}" for column in numbers))
    return table


def _console() -> Console:
    from rich.console import Console

    return Console(highlight=False)
