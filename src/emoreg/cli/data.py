"""The commands `emoreg data`, for image sets."""

from __future__ import annotations

import dataclasses
from json import dumps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from emoreg.cli.parser import File, Folder, Group, Quiet, Shown
from emoreg.config.schema import Fit, LabelChoice, StimuliSettings
from emoreg.data.tools.diffusion.settings import MODEL, DiffuseSettings
from emoreg.errors import UserError, nearest
from emoreg.runtime.progress import Progress
from emoreg.runtime.safe_io import make_folder, write_atomically, writing

if TYPE_CHECKING:
    from emoreg.data.tools.catalogue import Entry

SetName = Annotated[str, Shown("SET", "name of a stimulus set or target, see emoreg data list")]
SetRoot = Annotated[str, Shown("DIR", "folder, zip or pack of the set. Default: its place in the folder data")]
AsStimuli = Annotated[bool, Shown(help="read a set of the Hugging Face Hub (hf:) for its emotions, not its classes")]
DATA_FOLDER = Path("data")


def list_sets(*, root: Folder = DATA_FOLDER, json: bool = False) -> None:
    """List every set: what it is, where to get it, and whether it is available.

    Args:
        root: folder to search
        json: print JSON

    Examples:
        emoreg data list
        emoreg data list --root /data/affect --json
    """
    if root != DATA_FOLDER and not root.is_dir():
        raise UserError(f"--root: {root} is not a folder")

    from emoreg.data.tools.catalogue import catalogue

    entries = catalogue(root)
    if json:
        print(dumps([_entry_json(entry) for entry in entries], indent=2, ensure_ascii=False))
        return
    from emoreg.data.tools.tables import catalogue_list
    from emoreg.runtime.terminal import show as show_parts

    show_parts(catalogue_list(entries, root))


def verify(
    name: SetName,
    *,
    root: SetRoot | None = None,
    stimuli: AsStimuli = False,
    show: int = 20,
    json: bool = False,
    quiet: Quiet = False,
) -> int:
    """Check a whole set for unreadable images, wrong labels, and duplicates across splits.

    The exit code is 0 for a clean set, 1 if there are problems.

    Args:
        show: print at most this many of each kind of problem
        json: print JSON, with all problems

    Examples:
        emoreg data verify oasis --root oasis.zip
        emoreg data verify folder --root my-photos/ --json
    """
    if show < 0:
        raise UserError(f"--show is {show}; it must not be negative")

    from emoreg.data.tools.catalogue import find, kind_of
    from emoreg.data.tools.verify import verify as verify_set

    kind = kind_of(name, stimuli)
    findings = verify_set(name, find(name, root), Progress(quiet=quiet), kind)
    if json:
        print(dumps({"clean": findings.is_clean, **dataclasses.asdict(findings)}, indent=2))
    else:
        from emoreg.data.tools.tables import findings_tables
        from emoreg.runtime.terminal import show as show_parts

        show_parts(findings_tables(findings, show))
    return 0 if findings.is_clean else 1


def show(
    name: SetName,
    *,
    root: SetRoot | None = None,
    stimuli: AsStimuli = False,
    out: File | None = None,
    count: int = 32,
    seed: int = 0,
    quiet: Quiet = False,
) -> None:
    """Draw a contact sheet of images with their labels, and the distribution of all labels.

    The images are spread over the classes, or over valence and arousal.

    Args:
        out: the PNG to write. Default: <set>.png
        count: number of images
        seed: seed of the choice of images

    Examples:
        emoreg data show oasis --root oasis.zip
        emoreg data show cifar10 --root data --out cifar.png --count 48 --seed 1
    """
    out = out or Path(f"{name.lower().replace(':', '-').replace('/', '-')}.png")
    if not 1 <= count <= 400:
        raise UserError(f"--count is {count}; it must lie between 1 and 400")
    if seed < 0:
        raise UserError(f"--seed is {seed}; it must not be negative")
    if out.suffix.lower() != ".png":
        raise UserError(f"--out: {out} must end in .png")

    from emoreg.data.tools.catalogue import find, kind_of, read_set
    from emoreg.data.tools.contact_sheet import draw_sheet
    from emoreg.runtime.fonts import lacking_note

    kind = kind_of(name, stimuli)
    collection = read_set(name, find(name, root), count=1000, image_size=96, kind=kind)
    progress = Progress(quiet=quiet)
    progress.report_notes(collection.notes, collection.left_out)
    picture = draw_sheet(collection, count, seed)
    make_folder(out.parent)
    with writing(out):
        write_atomically(out, picture)
    if note := lacking_note("".join((collection.name, *collection.labels[0].names))):
        progress.say(note)
    print(out)


def pack(
    name: SetName,
    *,
    root: SetRoot | None = None,
    stimuli: AsStimuli = False,
    image_size: int,
    fit: Fit = "crop",
    out: Folder | None = None,
    skip_unreadable: bool = False,
    quiet: Quiet = False,
) -> None:
    """Decode and resize a set once, into files that open in milliseconds.

    The folder that it writes can be used as stimuli.root or target.root. Run the same command again to resume.

    Args:
        image_size: side of the square images in pixels
        fit: how images are made square: crop keeps the central square, pad the whole image between grey bars
        out: folder of the pack. Default: data/<set>-<image size>px
        skip_unreadable: skip and report images that cannot be decoded

    Examples:
        emoreg data pack emoset --root EmoSet-118K/ --image-size 224 --skip-unreadable
        emoreg data pack cifar10 --root cifar10.zip --image-size 32 --out data/cifar10-32
        emoreg train recipes/cifar10/resnet20.yaml --target.root data/cifar10-32
    """
    from emoreg.data.tools.catalogue import find, kind_of
    from emoreg.data.tools.pack import pack as pack_set

    kind = kind_of(name, stimuli)
    source = find(name, root, packs=False)
    packed = pack_set(name, source, image_size, out, skip_unreadable, Progress(quiet=quiet), kind, fit)
    size = f"{packed.images:,} images of {image_size}x{image_size} pixels, {_bytes(packed.bytes)}"
    if packed.seconds is None:
        print(f"{packed.folder} was packed before: {size}")
    else:
        print(f"{packed.folder}: {size}")
        rate = (
            f"{packed.decoded / packed.seconds:,.0f} images/s, {packed.source_bytes / packed.seconds / 1e6:,.1f} MB/s"
        )
        print(f"{packed.decoded:,} images ({_bytes(packed.source_bytes)}) in {packed.seconds:.1f} s: {rate} of source")
    if packed.left_out:
        print(f"skipped {len(packed.left_out):,} unreadable; the first: {packed.left_out[0]['reason']}")
    command = "pretrain RECIPE --stimuli.root" if kind == "stimuli" else "train RECIPE --target.root"
    print(f"use it: emoreg {command} {packed.folder}")


def diffuse(
    *,
    from_: Annotated[str, Shown("SET")],
    root: SetRoot | None = None,
    out: Folder | None = None,
    model: str = MODEL,
    labels: LabelChoice = "published",
    settings: DiffuseSettings,
    quiet: Quiet = False,
) -> None:
    """Make a set like Diffused-EMOd from another, by image-to-image diffusion.

    Generates several variants of every image, with the label and the split of their source. Needs the extra: pip
    install 'emoreg[diffusion]'. Run the same command again to resume.

    Args:
        from_: stimulus set, see emoreg data list
        out: folder to write. Default: data/diffused-<set>
        model: folder, or name on the Hugging Face Hub
        labels: labels of the source to keep; published keeps all

    Examples:
        emoreg data diffuse --from emod --root data/emod --out data/diffused-emod
        emoreg data diffuse --from abstract --labels majority --prompt 'a painting that evokes {emotion}'
        emoreg pretrain RECIPE --stimuli.name diffused_emod --stimuli.root data/diffused-emod
    """
    from emoreg.data.stimuli import SETS, read_stimuli
    from emoreg.data.tools.catalogue import find, kind_of
    from emoreg.data.tools.diffusion.diffuse import diffuse as diffuse_set
    from emoreg.data.tools.diffusion.diffuse import with_labels
    from emoreg.runtime.terminal import show, two_columns

    if kind_of(from_) != "stimuli":
        raise UserError(f"--from: no stimulus set '{from_}'{nearest(from_, SETS)}")
    source = StimuliSettings(
        name=from_,
        root=find(from_, root, packs=False),
        image_size=settings.size,
        skip_unreadable=settings.skip_unreadable,
    )
    progress = Progress(quiet=quiet)
    stimuli = read_stimuli(source, settings.seed)
    progress.report_notes(stimuli.notes, stimuli.left_out)
    out = out or Path(f"data/diffused-{from_}")
    diffused = diffuse_set(with_labels(stimuli, labels), model, settings, out, progress)
    rows = [
        ("made", f"{diffused.made:,}"),
        ("made before", f"{diffused.kept:,}"),
        ("skipped: flagged by the model's safety checker", f"{diffused.flagged:,}"),
        ("skipped: sources that cannot be decoded", f"{diffused.unreadable:,}"),
    ]
    if diffused.made:
        rows.append(("seconds per image", f"{diffused.seconds:,.2f}"))
    show(two_columns("images", "number", rows, title=str(out)))
    print(f"use it: emoreg pretrain RECIPE --stimuli.name diffused_emod --stimuli.root {out}")


DATA = Group(
    "Manage image sets: list, verify, show, pack, diffuse.\n\n"
    "Sets are the affective stimuli of stage 1 and the targets of stage 2.",
    {"list": list_sets, "verify": verify, "show": show, "pack": pack, "diffuse": diffuse},
    (
        "emoreg data list",
        "emoreg data verify oasis --root oasis.zip",
        "emoreg data show oasis --root oasis.zip --out oasis.png",
        "emoreg data pack cifar10 --root cifar10.zip --image-size 32",
        "emoreg data COMMAND --help",
    ),
)


def _bytes(count: int) -> str:
    for unit, size in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count} bytes"


def _entry_json(entry: Entry) -> dict[str, Any]:
    here = [{"root": str(place.root), "pack_of_pixels": place.pack_of} for place in entry.places]
    about = dataclasses.asdict(entry.about)
    published = None if entry.published is None else dataclasses.asdict(entry.published)
    facts = {"name": entry.name, "kind": entry.kind, **about, "published": published}
    return {**facts, "needs_files": not entry.needs_no_files, "here": here}
