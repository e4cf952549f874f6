"""All stimulus sets and targets: facts, locations on this machine, and reading one by its name."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from emoreg.config.schema import Fit, StimuliSettings, TargetSettings
from emoreg.data.images.files import File
from emoreg.data.images.hugging_face import PREFIX
from emoreg.data.images.layout import LAYOUT
from emoreg.data.images.packed import PACK, PackedImages, PackedLabels, is_pack, read_about
from emoreg.data.images.table import About, Images, Item, joined
from emoreg.data.stimuli import PUBLISHED, SETS, read_stimuli
from emoreg.data.stimuli.published import Published
from emoreg.errors import UserError, nearest, printable

Kind = Literal["stimuli", "target"]

PROCEDURAL = About(
    title="Procedural compositions",
    size="as many as you ask for",
    labels="valence and arousal, computed from colour and form (Valdez & Mehrabian 1994 and others)",
    licence="yours",
    source="drawn here when they are needed",
    layout="none",
)
TARGETS: Mapping[str, About] = {
    "digits": About(
        title="Handwritten digits (Alpaydin & Kaynak 1998)",
        size="1,797",
        labels="10 classes; no published split, 1/4 for the test",
        licence="CC BY 4.0 (UCI)",
        source="comes with scikit-learn",
        layout="none",
    ),
    "cifar10": About(
        title="CIFAR-10 (Krizhevsky 2009)",
        size="60,000",
        labels="10 classes",
        licence="none stated; used for research",
        source="downloaded when it is needed (www.cs.toronto.edu/~kriz/cifar.html)",
        layout=f"cifar-10-python.tar.gz, or {LAYOUT}",
    ),
    "cifar100": About(
        title="CIFAR-100 (Krizhevsky 2009)",
        size="60,000",
        labels="100 classes",
        licence="none stated; used for research",
        source="downloaded when it is needed (www.cs.toronto.edu/~kriz/cifar.html)",
        layout=f"cifar-100-python.tar.gz, or {LAYOUT}",
    ),
    "folder": About(
        title="Your images, a folder per class",
        size="any",
        labels="the folders' names",
        licence="yours to know",
        source="your own",
        layout=LAYOUT,
    ),
    "svhn, stl10, flowers102, food101, ...": About(
        title="Any classification set of torchvision",
        size="see torchvision's documentation",
        labels="classes",
        licence="each set's own",
        source="downloaded when it is needed, where torchvision can; name: its class's, in lower case",
        layout="as torchvision keeps it",
    ),
    "hf:OWNER/NAME[/CONFIG]": About(
        title="Any image classification set of the Hugging Face Hub",
        size="see its page",
        labels="classes; or emotions, as stimuli of stage 1",
        licence="each set's own",
        source="downloaded when it is needed (huggingface.co/datasets; pip install 'emoreg[hub]')",
        layout="what Hugging Face's datasets loads",
    ),
}
ARCHIVES = {"cifar10": "cifar-10-", "cifar100": "cifar-100-"}  # how what torchvision keeps begins
FROM_ELSEWHERE = ("folder", "emotion_folder", "manifest")  # no name to look for


@dataclass(frozen=True)
class Place:
    """Where a set lies: what to give as its root, and the size in pixels if it is a pack."""

    root: Path
    pack_of: int | None = None


@dataclass(frozen=True)
class Entry:
    """One set of the catalogue."""

    name: str
    kind: Kind
    about: About
    places: tuple[Place, ...]
    published: Published | None = None

    @property
    def needs_no_files(self) -> bool:
        """Whether it is embedded or drawn."""
        return self.about.layout == "none"

    @property
    def can_be_found(self) -> bool:
        """Whether files of the set have a name to look for."""
        return self.name in (*SETS, "cifar10", "cifar100") and self.name not in FROM_ELSEWHERE


def catalogue(root: Path | str = "data") -> list[Entry]:
    """Every set, stimuli first, with its places in the folder `root`."""
    names: list[tuple[Kind, str, About]] = [("stimuli", "procedural", PROCEDURAL)]
    names += [("stimuli", name, about) for name, (about, _) in SETS.items()]
    names += [("target", name, about) for name, about in TARGETS.items()]
    return [Entry(name, kind, about, places(name, root), PUBLISHED.get(name)) for kind, name, about in names]


def places(name: str, root: Path | str = "data") -> tuple[Place, ...]:
    """Where in the folder `root` a set lies, packs last.

    `<name>` or `<name>-<anything>`, as a folder or a zip, whatever the case; packs of it, whatever their name;
    for CIFAR the published archive too.
    """
    try:
        children = sorted(path for path in Path(root).iterdir() if not path.name.startswith("."))
    except OSError:
        return ()
    found, packs = [], []
    pattern = re.compile(re.escape(name.lower()) + r"([-.].*)?")
    for path in children:
        if (path / PACK).is_file():
            packs += _pack_of(name, path)
        elif name in ARCHIVES and path.name.startswith(ARCHIVES[name]):
            found.append(Place(Path(root)))
        elif name not in FROM_ELSEWHERE and (path.is_dir() or path.suffix.lower() == ".zip"):
            stem = path.name if path.is_dir() else path.stem
            if any(pattern.fullmatch(stem.lower().replace(*change)) for change in ("--", "-_", "_-")):
                found.append(Place(path))
    return (*dict.fromkeys(found), *packs)


def _pack_of(name: str, folder: Path) -> list[Place]:
    try:
        about = read_about(folder)
        return [Place(folder, int(about["image_size"]))] if about["set"] == name else []
    except (UserError, KeyError, ValueError, TypeError):
        return []  # a damaged pack is none; opening it says so


@dataclass(frozen=True)
class Collection:
    """A whole set of either kind, not yet decoded.

    Args:
        name: name of the set.
        kind: stimuli or target.
        title: name of its tables.
        root: its location; None for sets that need no files.
        images: N images.
        labels: all labels of the set, the default first.
        splits: text (N,), or None for a set without.
        missing: places of rows whose image is missing.
        notes: lines that say what was taken for what.
        left_out: lines that say which images are not used, and why.
    """

    name: str
    kind: Kind
    title: str
    root: str | None
    images: Images | Sequence[Any]
    labels: tuple[PackedLabels, ...]
    splits: NDArray[np.str_] | None
    missing: Sequence[str] = ()
    notes: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()

    def name_of(self, row: int) -> str:
        """One image's, below the root; its number where it has no name."""
        if isinstance(self.images, PackedImages):
            return self.images.name(row)
        image = self.images[row]
        if isinstance(image, File):
            return image.name
        if isinstance(image, Item):
            return str(image)
        if self.splits is None:
            return f"{self.name}[{row}]"
        split = self.splits[row]
        return f"{self.name}/{split}[{row - int(np.argmax(self.splits == split))}]"


def kind_of(name: str, as_stimuli: bool = False) -> Kind:
    """Kind of a set; unknown names count as targets.

    Args:
        name: of the set.
        as_stimuli: a set of the Hugging Face Hub is read for its emotions, and not for its classes.

    Raises:
        UserError: as stimuli, another set than one of the Hub.
    """
    if as_stimuli and not name.lower().startswith(PREFIX):
        raise UserError(f"--stimuli is for sets of the Hugging Face Hub, hf:OWNER/NAME; leave it out for {name}")
    return "stimuli" if as_stimuli or name in SETS or name == "procedural" else "target"


def find(name: str, root: Path | str | None, packs: bool = True) -> str | None:
    """The root of a set: the one that is given, or else its place in the folder data.

    None where a target's reader knows what to do, or none is needed.

    Raises:
        UserError: nothing there, or several places.
    """
    if root is not None:
        if not Path(root).exists():
            raise UserError(f"--root: {printable(str(root))} does not exist")
        return str(root)
    kind = kind_of(name)
    found = [place.root for place in places(name) if packs or place.pack_of is None]
    if len(found) > 1:
        raise UserError(f"{name} is in several places, {' and '.join(map(str, found))}: choose one with --root")
    if found:
        return str(found[0])
    if name == "procedural" or (kind == "target" and name != "folder"):
        return None
    raise UserError(f"{name} is not in the folder data: give --root ({what_it_needs(name)})")


def what_it_needs(name: str) -> str:
    """What a set that is not here needs: where it is got, and what its folder or zip must hold; "" for none such."""
    about = SETS[name][0] if name in SETS else TARGETS.get(name)
    if about is None or about.layout == "none":
        return ""
    return f"get it from: {about.source}; licence: {about.licence}; it must hold: {about.layout}"


def read_set(
    name: str, root: str | None, count: int = 2000, image_size: int = 32, kind: Kind | None = None
) -> Collection:
    """A whole set; rows whose image is missing are skipped.

    Args:
        name: of a stimulus set or a target.
        root: see `find`.
        count: how many images to draw (procedural only).
        image_size: at which (procedural only).
        kind: of the set; None for that of its name.

    Raises:
        UserError: no such set, or it cannot be read.
    """
    kind = kind or kind_of(name)
    fit: Fit = "crop"
    if root is not None and is_pack(root):
        about = read_about(root)
        image_size, fit = int(about.get("image_size", 0)), about.get("fit", fit)
    if kind == "target":
        return _read_target(name, root, image_size, fit)
    settings = StimuliSettings(name=name, root=root, count=count, image_size=image_size, fit=fit, skip_unreadable=True)
    stimuli = read_stimuli(settings, seed=0)
    labels = tuple(PackedLabels(each.space.kind, each.space.names, each.values) for each in stimuli.labels)
    if stimuli.neutral is not None:
        labels += (PackedLabels("neutral", stimuli.neutral.space.names, stimuli.neutral.values),)
    splits = None if stimuli.splits is None else np.array(stimuli.splits)
    told = stimuli.notes, stimuli.left_out
    return Collection(name, kind, stimuli.name, root, stimuli.images, labels, splits, stimuli.missing, *told)


def _read_target(name: str, root: str | None, image_size: int, fit: Fit) -> Collection:
    from emoreg.data.targets import is_known, read_target  # needs torch, which `catalogue` does without

    if "," in name or name.startswith("hf:OWNER"):
        raise UserError(f"'{name}' stands for many sets: name one of them, e.g. svhn or hf:uoft-cs/cifar10")
    if not is_known(name) and not is_pack(root):
        raise UserError(f"no set '{name}'{nearest(name, ['procedural', *SETS, *TARGETS])}")
    target = read_target(TargetSettings(name=name, root=root, image_size=image_size, fit=fit, skip_unreadable=True))
    tables = {"train": target.train, "validation": target.validation, "test": target.test}
    parts = {split: table for split, table in tables.items() if table is not None}
    labels = PackedLabels("class", target.classes, np.concatenate([part.labels for part in parts.values()]))
    splits = np.repeat(list(parts), [len(part) for part in parts.values()])
    images: Any
    if isinstance(target.train.images, PackedImages):
        images = joined(list(parts.values())).images
    else:
        images = [image for part in parts.values() for image in part.images]  # pixels may be of several sizes
    told = target.notes, target.left_out
    return Collection(name, "target", target.train.name, root, images, (labels,), splits, (), *told)
