"""Which folders of an image set are its splits, and which its classes.

The class of an image is the folder below the root, or below the split, whatever lies below that, as torchvision's
ImageFolder has it. Folders that only wrap others are gone through. Splits are known by their names: `train`, `val`,
`test` and what `split_name` takes for these.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from emoreg.data.images.files import File, count_not_read, guessed_names, is_image, list_files, list_folders, not_read
from emoreg.data.images.names import SPLITS, Split, composed
from emoreg.errors import UserError, printable, shortened

FILLERS = ("set", "sets", "data", "dataset", "image", "images", "split", "folder")  # train_set, Test Data, valimages
_WITH_FILLER = re.compile(f"^({'|'.join(SPLITS)})({'|'.join(FILLERS)})$")
ANNOTATIONS = "_annotations.txt"  # Tiny-ImageNet's val_annotations.txt: file, tab, class, tab, a box
LAYOUT = "[<split>/]<class>/*.jpg|png"


@dataclass(frozen=True)
class Part:
    """The images of one split, or of a set without splits.

    Args:
        folder: whose folders are the classes, below the root; "" for the root itself.
        images: in order of name, at least one.
        classes: the class of each image.
    """

    folder: str
    images: tuple[File, ...]
    classes: tuple[str, ...]


@dataclass(frozen=True)
class Layout:
    """How a set lies in its folders.

    Args:
        root: folder or zip.
        whole: all images of a set without splits; None for a set with splits.
        splits: the labelled splits; empty for a set without.
        empty: folders without images among those of the splits and classes, below the root.
        notes: lines on names that are guessed.
        left_out: lines that say which files are in no part, and why.
    """

    root: Path
    whole: Part | None
    splits: Mapping[Split, Part]
    empty: tuple[str, ...]
    notes: tuple[str, ...]
    left_out: tuple[str, ...]

    @property
    def parts(self) -> tuple[Part, ...]:
        """The splits in the order train, validation, test; or the whole."""
        return (self.whole,) if self.whole is not None else tuple(self.splits.values())

    @property
    def classes(self) -> tuple[str, ...]:
        """All classes, sorted; in Unicode's composed form, NFC, in which names are compared everywhere."""
        return tuple(sorted({name for part in self.parts for name in part.classes}))

    def describe(self, parts: Mapping[Split, Part] | Mapping[str, Part], what: str = "classes", more: str = "") -> str:
        """A line that says what was read as what.

        Args:
            parts: by what they serve as.
            what: the classes are.
            more: to be said of the parts.
        """
        counts = ", ".join(
            f"{name} {len(part.images):,} images".strip() + (f" from '{part.folder}'" if part.folder else "")
            for name, part in parts.items()
        )
        classes = sorted({name for part in parts.values() for name in part.classes})
        names = shortened(", ".join(classes))
        return printable(f"{self.root.name}: {counts}{more}; {len(classes):,} {what}: {names}")

    def refuse_empty_folders(self) -> None:
        """UserError for a folder without images among those of the splits and classes."""
        for folder in self.empty:
            raise UserError(f"{File(folder, self.root)} holds no images; put some there, or remove it")


def split_name(folder: str) -> tuple[Split, str] | None:
    """The split that a folder's name means, and what else the name says; None if it names no split.

    Case, separators and words such as "set" do not count: `train`, `Training Data`, `test-images`, `valset`. What else
    there is, as "seg" in `seg_train`, must be the same for all splits of a set.
    """
    words = re.findall(r"[^\W\d_]+|\d+", composed(folder).lower())
    words = [part for word in words for part in _WITH_FILLER.sub(r"\1 \2", word).split()]
    named = [word for word in words if word in SPLITS]
    if len(named) != 1:
        return None
    return SPLITS[named[0]], " ".join(word for word in words if word not in (*FILLERS, named[0]))


def find_layout(root: Path | str, known: Collection[str] = ()) -> Layout:
    """The splits and classes of a folder or zip.

    Args:
        root: folder or zip.
        known: classes that are expected; a single folder with such a name is a class, and not gone through.

    Raises:
        UserError: nothing at `root`, no images in folders, names that leave open what the splits are, or labels of
            Tiny-ImageNet's kind that cannot be read.
    """
    root, files = Path(root), list_files(root)
    images = [file for file in files if is_image(file.name)]
    others = [file for file in files if not file.name.endswith(ANNOTATIONS)]  # these are labels, no images
    if not any("/" in image.name for image in images):
        hint = f" ({counted})" if (counted := count_not_read(others)) else ""
        raise UserError(f"{printable(str(root))} holds no images as {LAYOUT}{hint}")
    finder = _Finder(root, files, _tree(images))
    level, splits = finder.find_splits(finder.tree, known)
    if splits:
        found = finder.read_splits(level, splits, known)
        whole, kept = None, list(found.values())
    else:
        whole, found = finder.read_classes(level), {}
        kept = [whole]
    used = {image for part in kept for image in part.images} | finder.explained
    stray = [image for image in images if image not in used]
    if stray:
        finder.leave_out(len(stray), f"that lie in no class folder, e.g. '{stray[0].name}'")
    return Layout(
        root,
        whole,
        found,
        tuple(finder.empty_folders(level, splits)),
        guessed_names(root),
        (*finder.left_out, *not_read(root, others)),
    )


@dataclass
class _Folder:
    """A folder with images somewhere below it."""

    path: str  # below the root; "" for the root
    images: list[File] = field(default_factory=list)  # directly in it
    folders: dict[str, _Folder] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.path.rpartition("/")[2]

    def all_images(self) -> Iterator[File]:
        yield from self.images
        for folder in self.folders.values():
            yield from folder.all_images()


def _tree(images: list[File]) -> _Folder:
    top = _Folder("")
    for image in images:
        folder = top
        for name in image.name.split("/")[:-1]:
            folder = folder.folders.setdefault(name, _Folder(f"{folder.path}/{name}".removeprefix("/")))
        folder.images.append(image)
    return top


def _in_order(folder: str, labelled: list[tuple[File, str]]) -> Part:
    labelled = sorted(labelled, key=lambda pair: pair[0].name)
    return Part(folder, tuple(image for image, _ in labelled), tuple(name for _, name in labelled))


def _listed(names: Collection[str]) -> str:
    return shortened(" and ".join(f"'{printable(name)}'" for name in names))


class _Finder:
    """Finds the splits of one set, and collects what is not in them."""

    def __init__(self, root: Path, files: list[File], tree: _Folder) -> None:
        self.root, self.files, self.tree = root, files, tree
        self.left_out: list[str] = []
        self.explained: set[File] = set()  # images that a line speaks of
        self.class_folders: list[str] = []  # whose folders are classes

    def _at(self, folder: _Folder) -> str:
        return printable(str(self.root / folder.path))

    def leave_out(self, count: int, why: str) -> None:
        self.left_out.append(f"{printable(self.root.name)}: left out {count:,} images {printable(why)}")

    def find_splits(self, folder: _Folder, known: Collection[str]) -> tuple[_Folder, dict[Split, _Folder]]:
        """The folder of the splits, with these; or the folder of the classes, and no splits."""
        while True:
            splits = self._splits_in(folder)
            only = next(iter(folder.folders.values())) if len(folder.folders) == 1 else None
            if splits or only is None or not only.folders or composed(only.name) in known:
                return folder, splits
            folder = only

    def _splits_in(self, folder: _Folder) -> dict[Split, _Folder]:
        """Its splits; none if its folders are classes, or wrap them."""
        named = {name: found for name in folder.folders if (found := split_name(name)) is not None}
        if not any(folder.folders[name].folders for name in named):  # a split holds folders, and a class may be "train"
            if len(named) == len(folder.folders) > 1 and len({split for split, _ in named.values()}) > 1:
                raise UserError(
                    f"{self._at(folder)}: {_listed(named)} hold images, but no class folders: put each "
                    f"image into <split>/<class>/"
                )
            return {}
        groups: dict[str, list[str]] = {}
        for name, (_, rest) in named.items():
            groups.setdefault(rest, []).append(name)
        whole = [names for names in groups.values() if len({named[name][0] for name in names}) > 1]
        if not whole and len(folder.folders) == 1:
            if "" not in groups:
                return {}
            whole = [groups[""]]
        if len(whole) != 1 or len({named[name][0] for name in whole[0]}) < len(whole[0]):
            unnamed = [name for name in folder.folders if name not in named]
            beside = f" beside {_listed(unnamed)}" if unnamed else ""
            raise UserError(
                f"{self._at(folder)}: it is not clear which folders are the splits: {_listed(named)}"
                f"{beside}; name them train, val and test, and keep other folders elsewhere"
            )
        beside_splits = [below for name, below in folder.folders.items() if name not in whole[0]]
        for below in beside_splits:
            images = list(below.all_images())
            self.explained |= set(images)
            self.leave_out(len(images), f"in '{below.path}', which is none of the splits {_listed(whole[0])}")
        return {
            split: folder.folders[name]
            for split in ("train", "validation", "test")
            for name in whole[0]
            if named[name][0] == split
        }

    def read_splits(self, level: _Folder, splits: Mapping[Split, _Folder], known: Collection[str]) -> dict[Split, Part]:
        """The labelled splits; those without labels are left out."""
        found: dict[Split, Part] = {}
        for split, outer in splits.items():
            annotated = self._annotated(outer)
            if annotated is not None:
                found[split] = annotated
                continue
            folder = outer
            while len(folder.folders) == 1:
                (only,) = folder.folders.values()
                is_same = (split_name(only.name) or ("", ""))[0] == split
                if composed(only.name) in known or not (only.folders or is_same):
                    break
                folder = only
            names = [composed(name) for name in folder.folders]
            if not names or (len(names) == 1 and known and names[0] not in known):
                images = list(outer.all_images())
                self.explained |= set(images)
                why = f"whose only folder, '{names[0]}', is no class" if names else "which has no class folders"
                self.leave_out(len(images), f"in '{outer.path}', {why}: they have no labels")
                continue
            found[split] = self.read_classes(folder)
            known = known or set(names)
        if not found:
            raise UserError(f"{self._at(level)}: no split has class folders; {'; '.join(self.left_out)}")
        return found

    def read_classes(self, folder: _Folder) -> Part:
        """The images in the folders of a folder. UserError if these hold splits: their images would be one class."""
        for name, below in folder.folders.items():
            named = {inner: found[0] for inner in below.folders if (found := split_name(inner)) and not found[1]}
            if len(set(named.values())) > 1:
                raise UserError(
                    f"{self._at(below)} holds the splits {_listed(named)}: put the splits above the "
                    f"classes, as {next(iter(named))}/{printable(name)}/, or give one such folder as the root"
                )
        self.class_folders.append(folder.path)
        labelled = [(image, composed(name)) for name, below in folder.folders.items() for image in below.all_images()]
        return _in_order(folder.path, labelled)

    def _annotated(self, folder: _Folder) -> Part | None:
        """A split whose labels are in a text file, as Tiny-ImageNet has it; None for one that has no such file."""
        sheets = [
            file
            for file in self.files
            if file.name.startswith(f"{folder.path}/")
            and "/" not in file.name[len(folder.path) + 1 :]
            and file.name.lower().endswith(ANNOTATIONS)
        ]
        if len(sheets) != 1:
            return None
        images = {image.name.rpartition("/")[2]: image for image in folder.all_images()}
        labelled = []
        for number, row in enumerate(_lines(sheets[0]), start=1):
            if not row.strip():
                continue
            name, *columns = row.split("\t")
            if not columns:
                raise UserError(f"{sheets[0]}, row {number}: '{shortened(printable(row))}' is not <file>, tab, <class>")
            if name not in images:
                raise UserError(f"{sheets[0]}, row {number}: no image '{printable(name)}' below {folder.path}")
            labelled.append((images.pop(name), composed(columns[0].strip())))
        if not labelled:
            raise UserError(f"{sheets[0]} has no rows")
        if images:
            self.explained |= set(images.values())
            self.leave_out(len(images), f"in '{folder.path}' that {sheets[0].name} does not name")
        return _in_order(folder.path, labelled)

    def empty_folders(self, level: _Folder, splits: Mapping[Split, _Folder]) -> Iterator[str]:
        """Folders without images, where a class or a split should be."""
        with_images = {parent for file in self.files if is_image(file.name) for parent in _parents(file.name)}
        for folder in sorted(path.as_posix() for path in list_folders(self.root)):
            above, _, name = folder.rpartition("/")
            is_split = bool(splits) and above == level.path and split_name(name) is not None
            if folder not in with_images and (above in self.class_folders or is_split):
                yield folder


def _parents(name: str) -> Iterator[str]:
    while "/" in name:
        name = name.rpartition("/")[0]
        yield name


def _lines(sheet: File) -> list[str]:
    try:
        return sheet.read().decode("utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise UserError(f"{sheet} is no text in UTF-8") from None
