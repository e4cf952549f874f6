"""Find out which folders of an image set are its splits, and which its classes.

The class of an image is the name of the folder directly below the root or the split, as in torchvision's ImageFolder,
however deep the image lies. Folders that only wrap others are skipped. Splits are recognised by their names: `train`,
`val`, `test` and their variants, see `split_name`.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from emoreg.data.images.files import File, count_not_read, guessed_names, is_image, list_files, list_folders, not_read
from emoreg.data.images.names import SPLITS, Split, composed
from emoreg.errors import UserError, printable, shortened

FILLERS = ("set", "sets", "data", "dataset", "image", "images", "split", "folder")  # train_set, Test Data, valimages
_WITH_FILLER = re.compile(f"^({'|'.join(SPLITS)})({'|'.join(FILLERS)})$")
ANNOTATIONS = "_annotations.txt"  # Tiny-ImageNet's val_annotations.txt: file, tab, class, tab, a box
LAYOUT = "[<split>/]<class>/*.jpg|png"
_LeftOut = dict[str, list[File]]  # images that are in no part, by the end of the line about them, which says why


@dataclass(frozen=True)
class Part:
    """The images of one split, or of a set without splits.

    Args:
        folder: path below the root of the folder that holds the class folders; "" for the root itself.
        images: images sorted by name, at least one.
        classes: class of each image.
        is_annotated: whether classes come from a text file in the folder instead of from its folders.
    """

    folder: str
    images: tuple[File, ...]
    classes: tuple[str, ...]
    is_annotated: bool = False


@dataclass(frozen=True)
class Layout:
    """The splits and classes of a set.

    Args:
        root: folder or zip.
        parts: the labelled splits, in the order train, validation, test; all images of a set without splits, by None.
        empty: split and class folders without images, below the root.
        notes: lines about guessed names.
        left_out: lines that say which files are in no part, and why.
    """

    root: Path
    parts: Mapping[Split | None, Part]
    empty: tuple[str, ...]
    notes: tuple[str, ...]
    left_out: tuple[str, ...]

    @property
    def classes(self) -> tuple[str, ...]:
        """All classes, sorted, in Unicode's composed form (NFC), in which all names are compared."""
        return tuple(sorted({name for part in self.parts.values() for name in part.classes}))

    def describe(
        self, parts: Mapping[Split | None, Part] | Mapping[str, Part], what: str = "classes", more: str = ""
    ) -> str:
        """A line that reports the images and classes that were found.

        Args:
            parts: images by purpose, such as the split's name; None for all images.
            what: what the classes are, such as "emotions".
            more: remark to append to the counts.
        """
        counts = ", ".join(
            f"{name or ''} {len(part.images):,} images".strip() + (f" from '{part.folder}'" if part.folder else "")
            for name, part in parts.items()
        )
        classes = sorted({name for part in parts.values() for name in part.classes})
        names = shortened(", ".join(classes))
        return printable(f"{self.root.name}: {counts}{more}; {len(classes):,} {what}: {names}")

    def refuse_empty_folders(self) -> None:
        """Raise UserError if a split or class folder holds no images."""
        if self.empty:
            raise UserError(f"{File(self.empty[0], self.root)} holds no images; put some there, or remove it")


def split_name(folder: str) -> tuple[Split, str] | None:
    """The split that a folder's name stands for, and the other words in the name; None if it names no split.

    Case, separators and words such as "set" are ignored: `train`, `Training Data`, `test-images`, `valset`. Other
    words, such as "seg" in `seg_train`, must be the same for all splits of a set.
    """
    words = re.findall(r"[^\W\d_]+|\d+", composed(folder).lower())
    words = [part for word in words for part in _WITH_FILLER.sub(r"\1 \2", word).split()]
    named = [word for word in words if word in SPLITS]
    if len(named) != 1:
        return None
    return SPLITS[named[0]], " ".join(word for word in words if word not in (*FILLERS, named[0]))


def find_layout(root: Path | str, known: Collection[str] = ()) -> Layout:
    """Find the splits and classes of a folder or zip.

    Args:
        root: folder or zip.
        known: expected classes; a single folder with such a name is a class, not a wrapper.

    Raises:
        UserError: nothing at `root`, no images in folders, ambiguous names of splits, or an unreadable annotation file
            (as in Tiny-ImageNet).
    """
    root, files = Path(root), list_files(root)
    images = [file for file in files if is_image(file.name)]
    others = [file for file in files if not file.name.endswith(ANNOTATIONS)]
    if not any("/" in image.name for image in images):
        counted = count_not_read(others)
        hint = f" ({counted})" if counted else ""
        raise UserError(f"{printable(str(root))} holds no images as {LAYOUT}{hint}")
    level, splits = _find_splits(_tree(root, images), known)
    parts, left_out = _read_splits(level, splits, files, known) if splits else ({None: _read_folders(level)}, {})
    accounted = set[File]().union(*(part.images for part in parts.values()), *left_out.values())
    stray = [image for image in images if image not in accounted]
    if stray:
        left_out[f"that lie in no class folder, e.g. '{stray[0].name}'"] = stray
    class_folders = {part.folder for part in parts.values() if not part.is_annotated}
    return Layout(
        root,
        parts,
        tuple(_empty_folders(root, images, class_folders, level.path if splits else None)),
        guessed_names(root),
        (*_lines_on(left_out, root), *not_read(root, others)),
    )


def _lines_on(left_out: _LeftOut, root: Path) -> Iterator[str]:
    for why, images in left_out.items():
        yield f"{printable(root.name)}: left out {len(images):,} images {printable(why)}"


@dataclass
class _Folder:
    """A folder with images somewhere below it."""

    root: Path  # of the set
    path: str  # below the root; "" for the root
    images: list[File] = field(default_factory=list)  # directly in this folder
    folders: dict[str, _Folder] = field(default_factory=dict)  # by name

    def __str__(self) -> str:
        return printable(str(self.root / self.path))

    @property
    def name(self) -> str:
        return self.path.rpartition("/")[2]

    @property
    def only(self) -> _Folder | None:
        """The single subfolder, which this folder may merely wrap; None if there are several or none."""
        return next(iter(self.folders.values())) if len(self.folders) == 1 else None

    def all_images(self) -> Iterator[File]:
        yield from self.images
        for folder in self.folders.values():
            yield from folder.all_images()


def _tree(root: Path, images: list[File]) -> _Folder:
    top = _Folder(root, "")
    for image in images:
        folder = top
        for name in image.name.split("/")[:-1]:
            folder = folder.folders.setdefault(name, _Folder(root, f"{folder.path}/{name}".removeprefix("/")))
        folder.images.append(image)
    return top


def _part(folder: _Folder, labelled: list[tuple[File, str]], is_annotated: bool = False) -> Part:
    labelled = sorted(labelled, key=lambda pair: pair[0].name)
    return Part(folder.path, tuple(image for image, _ in labelled), tuple(name for _, name in labelled), is_annotated)


def _quoted(names: Collection[str]) -> str:
    return shortened(" and ".join(f"'{printable(name)}'" for name in names))


def _find_splits(folder: _Folder, known: Collection[str]) -> tuple[_Folder, dict[Split, _Folder]]:
    """The folder that holds the splits, and the splits; or the folder that holds the classes, and no splits."""
    while True:
        splits = _splits_in(folder)
        only = folder.only
        if splits or only is None or not only.folders or composed(only.name) in known:
            return folder, splits
        folder = only


def _splits_in(folder: _Folder) -> dict[Split, _Folder]:
    """The splits among a folder's subfolders, in order; empty if these are classes, or the only one wraps classes."""
    named = {name: parsed for name in folder.folders if (parsed := split_name(name)) is not None}
    if not any(folder.folders[name].folders for name in named):  # these are classes, one of which may be called "train"
        if len(named) == len(folder.folders) > 1 and len({split for split, _ in named.values()}) > 1:
            raise UserError(
                f"{folder}: {_quoted(named)} hold images, but no class folders: put each image into <split>/<class>/"
            )
        return {}
    if folder.only is not None:
        ((split, rest),) = named.values()
        return {} if rest else {split: folder.only}  # a single `train` is a split, a single `train_photos` a wrapper
    groups: dict[str, dict[Split, list[_Folder]]] = {}  # folders whose names differ only in the split, as seg_train
    for name, (split, rest) in named.items():
        groups.setdefault(rest, {}).setdefault(split, []).append(folder.folders[name])
    candidates = [group for group in groups.values() if len(group) > 1]
    if len(candidates) != 1 or any(len(folders) > 1 for folders in candidates[0].values()):
        unnamed = [name for name in folder.folders if name not in named]
        beside = f" beside {_quoted(unnamed)}" if unnamed else ""
        raise UserError(
            f"{folder}: it is not clear which folders are the splits: {_quoted(named)}{beside}; name them train, val "
            "and test, and keep other folders elsewhere"
        )
    (splits,) = candidates
    return {split: splits[split][0] for split in ("train", "validation", "test") if split in splits}


def _read_splits(
    level: _Folder, splits: Mapping[Split, _Folder], files: Sequence[File], known: Collection[str]
) -> tuple[dict[Split | None, Part], _LeftOut]:
    """The labelled splits, and the images outside the splits or without a label."""
    paths = {folder.path for folder in splits.values()}
    names = _quoted([name for name, folder in level.folders.items() if folder.path in paths])
    left_out = {
        f"in '{folder.path}', which is none of the splits {names}": list(folder.all_images())
        for folder in level.folders.values()
        if folder.path not in paths
    }
    parts: dict[Split | None, Part] = {}
    for split, folder in splits.items():
        part, unlabelled = _read_annotated(folder, files) or _read_split(split, folder, known)
        left_out |= unlabelled
        if part is not None:
            parts[split] = part
            if not known and not part.is_annotated:
                known = set(part.classes)
    if not parts:
        raise UserError(f"{level}: no split has class folders; {'; '.join(_lines_on(left_out, level.root))}")
    return parts, left_out


def _read_split(split: Split, outer: _Folder, known: Collection[str]) -> tuple[Part | None, _LeftOut]:
    """Read a split with class folders, which may be wrapped in further folders, as in training_set/training_set."""
    folder = outer
    while (only := folder.only) is not None:
        is_same = (split_name(only.name) or ("", ""))[0] == split
        if composed(only.name) in known or not (only.folders or is_same):
            break
        folder = only
    names = [composed(name) for name in folder.folders]
    if not names or (len(names) == 1 and known and names[0] not in known):
        reason = f"whose only folder, '{names[0]}', is not a class" if names else "which has no class folders"
        return None, {f"in '{outer.path}', {reason}: they have no labels": list(outer.all_images())}
    return _read_folders(folder), {}


def _read_folders(folder: _Folder) -> Part:
    """Read the images of a folder's class folders. UserError if one of these holds splits, which must be above."""
    for name, below in folder.folders.items():
        named = {inner: parsed[0] for inner in below.folders if (parsed := split_name(inner)) and not parsed[1]}
        if len(set(named.values())) > 1:
            raise UserError(
                f"{below} holds the splits {_quoted(named)}: put the splits above the classes, as "
                f"{next(iter(named))}/{printable(name)}/, or give one such folder as the root"
            )
    labelled = [(image, composed(name)) for name, below in folder.folders.items() for image in below.all_images()]
    return _part(folder, labelled)


def _read_annotated(folder: _Folder, files: Sequence[File]) -> tuple[Part, _LeftOut] | None:
    """Read a split whose labels are in a text file, as in Tiny-ImageNet; None if there is no such file."""
    inside = [file for file in files if file.name.rpartition("/")[0] == folder.path]
    sheets = [file for file in inside if file.name.lower().endswith(ANNOTATIONS)]
    if len(sheets) != 1:
        return None
    (sheet,) = sheets
    try:
        rows = sheet.read().decode("utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise UserError(f"{sheet} is not UTF-8 text") from None
    images = {image.name.rpartition("/")[2]: image for image in folder.all_images()}
    labelled = []
    for number, row in enumerate(rows, start=1):
        if not row.strip():
            continue
        name, *columns = row.split("\t")
        if not columns:
            raise UserError(f"{sheet}, row {number}: '{shortened(printable(row))}' is not <file>, tab, <class>")
        if name not in images:
            raise UserError(f"{sheet}, row {number}: no image '{printable(name)}' below {folder.path}")
        labelled.append((images.pop(name), composed(columns[0].strip())))
    if not labelled:
        raise UserError(f"{sheet} has no rows")
    unnamed = {f"in '{folder.path}' that {sheet.name} does not name": list(images.values())} if images else {}
    return _part(folder, labelled, is_annotated=True), unnamed


def _empty_folders(
    root: Path, images: Sequence[File], class_folders: Collection[str], split_folder: str | None
) -> Iterator[str]:
    """Yield the folders without images where a class or a split is expected."""
    holding = {PurePosixPath(name) for name in {image.name.rpartition("/")[0] for image in images}}
    with_images = holding.union(*(folder.parents for folder in holding))
    for path in sorted(list_folders(root) - with_images, key=PurePosixPath.as_posix):
        above, _, name = path.as_posix().rpartition("/")
        if above in class_folders or (above == split_folder and split_name(name) is not None):
            yield path.as_posix()
