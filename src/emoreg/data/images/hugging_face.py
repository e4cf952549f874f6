"""Image sets of the Hugging Face Hub, and folders of the same kinds (extra emoreg[hub])."""

from __future__ import annotations

import contextlib
import functools
import io
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from PIL import Image

from emoreg.data.images.files import IMAGE_FORMATS
from emoreg.data.images.table import Item
from emoreg.errors import SettingError, UserError, shortened
from emoreg.runtime.optional import importing

if TYPE_CHECKING:
    from datasets import Dataset

Section = Literal["target", "stimuli"]  # of the recipe, which has the set's name and root
PREFIX = "hf:"
IMAGE_NAMES = ("image", "img")  # that are chosen where there are several of the kind


def parts_of(name: str, section: Section) -> list[str]:
    """OWNER, NAME and CONFIG of a set's name, as far as it has them. SettingError for a name of another form."""
    parts = name[len(PREFIX) :].split("/")
    if len(parts) > 3 or not all(parts):
        raise SettingError(f"{section}.name", f"'{name}' is not of the form hf:OWNER/NAME or hf:OWNER/NAME/CONFIG")
    return parts


def load_splits(name: str, root: str | None, section: Section) -> dict[str, Dataset]:
    """All splits of a set, by name.

    Args:
        name: hf:OWNER/NAME or hf:OWNER/NAME/CONFIG, of the Hub, from which the set is downloaded once.
        root: a folder to read instead, which `datasets` can load (image folders, Parquet, ...) or has saved
            with `save_to_disk`. The name is then a title only, but for CONFIG.
        section: of the recipe, which has the set's name and root.

    Raises:
        UserError: `datasets` is not installed, or the set cannot be loaded.
    """
    parts = parts_of(name, section)
    path, config = "/".join(parts[:2]), parts[2] if len(parts) == 3 else None
    try:
        with importing("datasets", name, "'emoreg[hub]'"):
            import datasets
    except UserError as error:
        raise SettingError(f"{section}.name", str(error)) from None
    if root is not None and not Path(root).is_dir():
        raise SettingError(f"{section}.root", f"{root} is not a folder; {name} wants one that `datasets` can load")
    if root is None and Path(path).exists():  # load_dataset would read it in place of the Hub's
        raise SettingError(
            f"{section}.name", f"there is a folder {path} here; to read it, give it as {section}.root too"
        )
    try:
        if root is None:
            with _quiet_client():
                loaded = datasets.load_dataset(path, config)
        elif any((Path(root) / file).exists() for file in ("dataset_dict.json", "state.json")):
            loaded = datasets.load_from_disk(root)
        else:
            loaded = datasets.load_dataset(str(Path(root).resolve()), config)
    except Exception as error:  # of datasets, huggingface_hub, fsspec, pyarrow, the HTTP client: no common class
        reason = shortened(str(error), 300) or type(error).__name__
        where = f" from {root}" if root is not None else ""
        advice = (
            "Check the name at https://huggingface.co/datasets; without a network, set "
            f"{section}.root to a folder with the set, or load it once where there is a network"
            if root is None
            else "See https://huggingface.co/docs/datasets/image_dataset for what a folder may hold"
        )
        if config is None:
            advice += "; choose one of several configurations as hf:OWNER/NAME/CONFIG"
        raise UserError(f"{name} could not be loaded{where} ({reason}). {advice}") from None
    return dict(loaded) if isinstance(loaded, dict) else {"train": loaded}


@contextlib.contextmanager
def _quiet_client() -> Iterator[None]:
    """Silences the Hub client's messages about retries; a failure is reported in one line."""
    from huggingface_hub.utils import logging as client

    level = client.get_verbosity()
    client.set_verbosity(logging.ERROR)
    try:
        yield
    finally:
        client.set_verbosity(level)


def image_column(name: str, dataset: Dataset, section: Literal["target", "stimuli"]) -> str:
    """The column with the images. UserError if there is none, or it is not clear which."""
    import datasets

    columns = [column for column, feature in dataset.features.items() if isinstance(feature, datasets.Image)]
    return choose_column(name, dataset, section, columns, "image", IMAGE_NAMES, "Image")


def choose_column(
    name: str,
    dataset: Dataset,
    section: Literal["target", "stimuli"],
    columns: list[str],
    what: str,
    preferred: tuple[str, ...],
    kind: str,
) -> str:
    """The one of some columns that serves as `what`: the only one, or the first of the preferred names.

    Args:
        name: of the set.
        dataset: one split.
        section: of the recipe.
        columns: that may serve.
        what: they would be.
        preferred: names, the first to be chosen first.
        kind: of feature, to cast a column to where there is none.

    Raises:
        UserError: there is none, or several with other names; says what to do.
    """
    chosen = columns if len(columns) == 1 else [column for column in preferred if column in columns][:1]
    if chosen:
        return chosen[0]
    problem = f"has several {what} columns ({', '.join(columns)})" if columns else f"has no {what} column"
    have = ", ".join(f"{column}: {type(feature).__name__}" for column, feature in dataset.features.items())
    change = f"rename the one that is meant to '{preferred[0]}'" if columns else f"cast one to {kind}"
    raise UserError(
        f"{name} {problem}; its columns: {have}. With `datasets`, {change}, save_to_disk, and give that folder as "
        f"{section}.root"
    )


def items_of(name: str, dataset: Dataset, column: str) -> list[Item]:
    """Its images, decoded when they are needed."""
    import datasets

    undecoded = dataset.select_columns([column]).with_format(None).cast_column(column, datasets.Image(decode=False))
    fetch = functools.partial(_fetch, undecoded, column)
    return [Item(name, index, fetch) for index in range(len(dataset))]


def _fetch(dataset: Dataset, column: str, index: int) -> Image.Image:
    """Decode one image. Thread-safe: rows are looked up in a table that does not change."""
    value = dataset[index][column]
    if value is None:
        raise ValueError("the row has no image")
    source = io.BytesIO(value["bytes"]) if value["bytes"] is not None else value["path"]
    return Image.open(source, formats=IMAGE_FORMATS)
