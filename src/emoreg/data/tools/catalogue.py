"""All stimulus sets and targets: facts about them, their locations on this machine, and reading one by name."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from emoreg.config.schema import Fit, StimuliSettings, TargetSettings, Task
from emoreg.data.images.files import File
from emoreg.data.images.hugging_face import PREFIX
from emoreg.data.images.layout import LAYOUT
from emoreg.data.images.packed import PACK, LabelKind, PackedImages, PackedLabels, is_pack, read_about
from emoreg.data.images.table import About, Images, Item, joined
from emoreg.data.stimuli import PUBLISHED, SETS, read_stimuli
from emoreg.data.stimuli.published import Published
from emoreg.data.stimuli.stimulus_set import Stimuli
from emoreg.errors import UserError, nearest, printable

if TYPE_CHECKING:  # imports torch
    from emoreg.data.targets.target import Target

Kind = Literal["stimuli", "target"]
ALL = "all"  # name of the split for sets without splits

PROCEDURAL = About(
    title="Procedural compositions",
    size="any",
    labels="valence and arousal, computed from colour and form (Valdez & Mehrabian 1994 and others)",
    licence="yours",
    source="drawn when needed",
    layout="none",
)
TARGETS: Mapping[str, About] = {
    "digits": About(
        title="Handwritten digits (Alpaydin & Kaynak 1998)",
        size="1,797",
        labels="10 classes; no published split, 1/4 is the test split",
        licence="CC BY 4.0 (UCI)",
        source="comes with scikit-learn",
        layout="none",
    ),
    **{
        f"cifar{classes}": About(
            title=f"CIFAR-{classes} (Krizhevsky 2009)",
            size="60,000",
            labels=f"{classes} classes",
            licence="none stated; used for research",
            source="downloaded when needed (www.cs.toronto.edu/~kriz/cifar.html)",
            layout=f"cifar-{classes}-python.tar.gz, or {LAYOUT}",
        )
        for classes in (10, 100)
    },
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
        source="downloaded when needed, if torchvision can; the name is that of its class, in lower case",
        layout="torchvision's own",
    ),
    "hf:OWNER/NAME[/CONFIG]": About(
        title="Any image classification set of the Hugging Face Hub",
        size="see its page",
        labels="classes; or emotions, as stimuli of stage 1",
        licence="each set's own",
        source="downloaded when needed (huggingface.co/datasets; pip install 'emoreg[hub]')",
        layout="any that Hugging Face's datasets can load",
    ),
}
ARCHIVES = {"cifar10": "cifar-10-", "cifar100": "cifar-100-"}  # prefix of the files that torchvision downloads
USERS_OWN = ("folder", "emotion_folder", "manifest")  # sets whose files have no name to look for
FOUND_BY_NAME = tuple(name for name in (*SETS, *ARCHIVES) if name not in USERS_OWN)


@dataclass(frozen=True)
class Place:
    """Location of a set: its root, and the size of its images in pixels if it is a pack."""

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
        """Whether the set is embedded or drawn."""
        return self.about.layout == "none"

    @property
    def can_be_found(self) -> bool:
        """Whether files of the set have a name to look for."""
        return self.name in FOUND_BY_NAME


def catalogue(root: Path | str = "data") -> list[Entry]:
    """List every set, stimuli first, with its places in the folder `root`."""
    names: list[tuple[Kind, str, About]] = [("stimuli", "procedural", PROCEDURAL)]
    names += [("stimuli", name, about) for name, (about, _) in SETS.items()]
    names += [("target", name, about) for name, about in TARGETS.items()]
    return [Entry(name, kind, about, places(name, root), PUBLISHED.get(name)) for kind, name, about in names]


def places(name: str, root: Path | str = "data") -> tuple[Place, ...]:
    """The places in the folder `root` where a set is, packs last.

    These are packs of the set with any name; folders and zips called `<name>` or `<name>-<anything>`, ignoring case and
    whether "-" or "_" is used; and for CIFAR `root` itself if it holds the published archive. Of torchvision's other
    sets only packs: a folder of that name is the one that torchvision makes in its root.
    """
    try:
        children = sorted(path for path in Path(root).iterdir() if not path.name.startswith("."))
    except OSError:
        return ()
    found, packs = [], []
    wanted = name.lower().replace("_", "-")
    for path in children:
        if (path / PACK).is_file():
            packs += _packs(name, path)
        elif name in ARCHIVES and path.name.startswith(ARCHIVES[name]):
            found.append(Place(Path(root)))
        elif name in FOUND_BY_NAME and (path.is_dir() or path.suffix.lower() == ".zip"):
            stem = (path.name if path.is_dir() else path.stem).lower().replace("_", "-")
            if stem == wanted or stem.startswith((f"{wanted}-", f"{wanted}.")):
                found.append(Place(path))
    return (*dict.fromkeys(found), *packs)


def _packs(name: str, folder: Path) -> list[Place]:
    """The pack in `folder`, or nothing if it is damaged or of another set than `name`."""
    try:
        about = read_about(folder)
        return [Place(folder, int(about["image_size"]))] if about["set"] == name else []
    except (UserError, KeyError, ValueError, TypeError):
        return []


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
        splits: split of each image (N,), as text; None for a set without splits.
        missing: places of rows whose image is missing.
        notes: lines that say how columns, splits and labels were interpreted.
        left_out: lines that say which images are not used, and why.
        checksum: identifies images that exist in memory only; empty for files and for images of a library.
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
    checksum: str = ""

    def split_masks(self) -> dict[str, NDArray[np.bool_]]:
        """Mask (N,) of the images of each split that has any; a set without splits has one called "all"."""
        if self.splits is None:
            return {ALL: np.ones(len(self.images), bool)}
        return {split: self.splits == split for split in ("train", "validation", "test") if split in self.splits}

    def name_of(self, row: int) -> str:
        """Name of one image relative to the root; for images without names, the set, the split and a number.

        Stimuli without names are numbered as in their table, which has the images of all splits.
        """
        if isinstance(self.images, PackedImages):
            return self.images.name(row)
        image = self.images[row]
        if isinstance(image, File):
            return image.name
        if isinstance(image, Item):
            return str(image)
        if self.splits is None or self.kind == "stimuli":
            return f"{self.name}[{row}]"
        split = self.splits[row]
        return f"{self.name}/{split}[{row - self._first_rows[split]}]"

    @cached_property
    def _first_rows(self) -> dict[str, int]:
        """First row of each split of a target."""
        if self.splits is None:
            return {}
        splits, rows = np.unique(self.splits, return_index=True)
        return dict(zip(splits.tolist(), rows.tolist(), strict=True))


def kind_of(name: str, as_stimuli: bool = False) -> Kind:
    """The kind of a set. Unknown names count as targets.

    Args:
        name: name of the set.
        as_stimuli: read a set of the Hugging Face Hub for its emotions instead of its classes.

    Raises:
        UserError: `as_stimuli` for a set that is not from the Hub.
    """
    if as_stimuli and not name.lower().startswith(PREFIX):
        raise UserError(f"--stimuli is for sets of the Hugging Face Hub, hf:OWNER/NAME; leave it out for {name}")
    return "stimuli" if as_stimuli or name in SETS or name == "procedural" else "target"


def find(name: str, root: Path | str | None, packs: bool = True) -> str | None:
    """The root of a set: `root` if given, or else its place in the folder `data`, which may be a pack only if `packs`.

    None for a set that needs no root, or whose reader finds or downloads it.

    Raises:
        UserError: `root` does not exist; or the set is not in `data`, or there several times.
    """
    if root is not None:
        if not Path(root).exists():
            raise UserError(f"--root: {printable(str(root))} does not exist")
        return str(root)
    found = [place.root for place in places(name) if packs or place.pack_of is None]
    if len(found) > 1:
        raise UserError(f"{name} is in several places, {' and '.join(map(str, found))}: choose one with --root")
    if found:
        return str(found[0])
    if name not in SETS and name != "folder":
        return None
    about = SETS[name][0] if name in SETS else TARGETS[name]
    raise UserError(
        f"{name} is not in the folder data: give --root (get it from: {about.source}; licence: {about.licence}; it "
        f"must hold: {about.layout})"
    )


def read_set(
    name: str, root: str | None, count: int = 2000, image_size: int = 32, kind: Kind | None = None
) -> Collection:
    """Read a whole set. Rows whose image is missing are skipped.

    Args:
        name: name of a stimulus set or target.
        root: see `find`.
        count: number of images to draw (procedural only).
        image_size: side of the images in pixels (procedural only).
        kind: kind of the set; None for `kind_of(name)`.

    Raises:
        UserError: the set is unknown, or cannot be read.
    """
    about = read_about(root) if root is not None and is_pack(root) else {}
    image_size, fit = int(about.get("image_size", image_size)), about.get("fit", "crop")
    if (kind or kind_of(name)) == "target":
        return _read_target(name, root, image_size, fit, about)
    settings = StimuliSettings(name=name, root=root, count=count, image_size=image_size, fit=fit, skip_unreadable=True)
    return collection_of_stimuli(name, root, read_stimuli(settings, seed=0))


def collection_of_stimuli(name: str, root: str | None, stimuli: Stimuli) -> Collection:
    """The collection of a stimulus set that was read from `root` by its name."""
    labels = tuple(PackedLabels(each.space.kind, each.space.names, each.values) for each in stimuli.labels)
    if stimuli.neutral is not None:
        labels += (PackedLabels("neutral", stimuli.neutral.space.names, stimuli.neutral.values),)
    splits = None if stimuli.splits is None else np.array(stimuli.splits)
    return Collection(
        name,
        "stimuli",
        stimuli.name,
        root,
        stimuli.images,
        labels,
        splits,
        stimuli.missing,
        stimuli.notes,
        stimuli.left_out,
    )


def _read_target(name: str, root: str | None, image_size: int, fit: Fit, about: Mapping[str, Any]) -> Collection:
    """Read a target; `about` is the description of a pack, empty for other roots."""
    # Imports torch, which `catalogue` does not need.
    from emoreg.data.targets import is_known, labels_of_pack, read_target

    if "," in name or name.startswith("hf:OWNER"):
        raise UserError(f"'{name}' stands for many sets: name one of them, such as svhn or hf:uoft-cs/cifar10")
    if not is_known(name) and not about:
        raise UserError(f"no set '{name}'{nearest(name, ['procedural', *SETS, *TARGETS])}")
    settings = TargetSettings(name=name, root=root, image_size=image_size, fit=fit, skip_unreadable=True)
    if about:
        settings = dataclasses.replace(settings, labels=labels_of_pack(about))
    return collection_of_target(name, root, read_target(settings))


def collection_of_target(name: str, root: str | None, target: Target) -> Collection:
    """The collection of a target that was read from `root` by its name."""
    tables = {"train": target.train, "validation": target.validation, "test": target.test}
    parts = {split: table for split, table in tables.items() if table is not None}
    kinds: Mapping[Task, LabelKind] = {"multilabel": "multilabel", "regression": "dimensions"}
    values = np.concatenate([part.labels for part in parts.values()])
    labels = PackedLabels(kinds.get(target.task, "class"), target.classes, values)
    splits = np.repeat(list(parts), [len(part) for part in parts.values()])
    images: Any
    if isinstance(target.train.images, PackedImages):
        images = joined(list(parts.values())).images
    else:
        images = [image for part in parts.values() for image in part.images]  # arrays may differ in size
    return Collection(
        name, "target", target.train.name, root, images, (labels,), splits, (), target.notes, target.left_out
    )
