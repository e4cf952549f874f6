"""Image sets of the Hugging Face Hub, and local copies of them (extra emoreg[hub])."""

from __future__ import annotations

import functools
import io
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from PIL import Image

from emoreg.data.images.files import IMAGE_FORMATS
from emoreg.data.images.table import Item
from emoreg.errors import SettingError, UserError, shortened
from emoreg.runtime.optional import importing
from emoreg.runtime.quiet_libraries import errors_only

if TYPE_CHECKING:
    from datasets import Dataset

Section = Literal["target", "stimuli"]  # of the recipe, which specifies the set's name and root
PREFIX = "hf:"
IMAGE_NAMES = ("image", "img")  # preferred if there are several image columns


def parse_hub_name(name: str, section: Section) -> tuple[str, str | None]:
    """Split hf:OWNER/NAME/CONFIG into OWNER/NAME, of which OWNER is optional, and CONFIG. SettingError otherwise."""
    parts = name[len(PREFIX) :].split("/")
    if len(parts) > 3 or not all(parts):
        raise SettingError(f"{section}.name", f"'{name}' is not of the form hf:OWNER/NAME or hf:OWNER/NAME/CONFIG")
    return "/".join(parts[:2]), parts[2] if len(parts) == 3 else None


def load_splits(name: str, root: str | None, section: Section) -> dict[str, Dataset]:
    """Load all splits of a set, by name.

    Args:
        name: hf:OWNER/NAME or hf:OWNER/NAME/CONFIG on the Hub, from which the set is downloaded once.
        root: a local folder to read instead, which `datasets` can load (image folders, Parquet, ...) or has saved
            with `save_to_disk`. Of `name`, only CONFIG is then used to load the set.
        section: section of the recipe that specifies the set's name and root, for messages.

    Raises:
        UserError: `datasets` is not installed, or the set cannot be loaded.
    """
    path, config = parse_hub_name(name, section)
    try:
        with importing("datasets", name, "'emoreg[hub]'"):
            import datasets
    except UserError as error:
        raise SettingError(f"{section}.name", str(error)) from None
    if root is not None and not Path(root).is_dir():
        raise SettingError(f"{section}.root", f"{root} is not a folder; {name} needs one that `datasets` can load")
    if root is None and Path(path).exists():  # load_dataset would read it instead of the Hub's set
        raise SettingError(
            f"{section}.name", f"there is a folder {path} here; to read it, give it as {section}.root too"
        )
    try:
        if root is None:
            with errors_only("huggingface_hub"):  # it logs its attempts to reach the Hub
                loaded = datasets.load_dataset(path, config)
        elif any((Path(root) / file).exists() for file in ("dataset_dict.json", "state.json")):
            loaded = datasets.load_from_disk(root)
        else:
            loaded = datasets.load_dataset(str(Path(root).resolve()), config)
    except Exception as error:  # errors of datasets, huggingface_hub, pyarrow and others share no base class
        raise _loading_error(name, root, section, config, error) from None
    return dict(loaded) if isinstance(loaded, dict) else {"train": loaded}


def download_note(name: str, root: str | None) -> str | None:
    """A line about the download that reading the set would start; None if it is here, or cannot be loaded at all.

    Asks the Hub for the set's description, and downloads no images.
    """
    if root is not None:
        return None
    try:
        import datasets

        path, config = parse_hub_name(name, "target")
        with errors_only("huggingface_hub"):
            builder = datasets.load_dataset_builder(path, config)
        is_here = Path(path).exists() or Path(builder.cache_dir).is_dir()
    except Exception:  # `load_splits` says why
        return None
    return None if is_here else f"{name} is not on this machine: the first run downloads it from the Hub; size unknown"


def _loading_error(name: str, root: str | None, section: Section, config: str | None, error: Exception) -> UserError:
    where = ""
    advice = (
        "Check the name at https://huggingface.co/datasets; without a network, set "
        f"{section}.root to a folder with the set, or load it once where there is a network"
    )
    if root is not None:
        where = f" from {root}"
        advice = "See https://huggingface.co/docs/datasets/image_dataset for what a folder may hold"
    if config is None:
        advice += "; choose one of several configurations as hf:OWNER/NAME/CONFIG"
    reason = shortened(str(error), 300) or type(error).__name__
    return UserError(f"{name} could not be loaded{where} ({reason}). {advice}")


def image_column(name: str, dataset: Dataset, section: Section) -> str:
    """The column with the images. UserError if there is none, or several without a preferred name."""
    import datasets

    columns = [column for column, feature in dataset.features.items() if isinstance(feature, datasets.Image)]
    return choose_column(name, dataset, section, columns, "image", IMAGE_NAMES, "Image")


def choose_column(
    name: str,
    dataset: Dataset,
    section: Section,
    candidates: list[str],
    content: str,
    preferred: tuple[str, ...],
    feature_type: str,
) -> str:
    """Choose the column with a certain content, such as "image": the only candidate, or the first preferred name.

    `candidates` are the columns of a suitable type, such as `feature_type`. UserError if there are none, or several
    without a preferred name.
    """
    if len(candidates) == 1:
        return candidates[0]
    for column in preferred:
        if column in candidates:
            return column
    problem, change = f"has no {content} column", f"cast one to {feature_type}"
    if candidates:
        problem = f"has several {content} columns ({', '.join(candidates)})"
        change = f"rename the right one to '{preferred[0]}'"
    features = ", ".join(f"{column}: {type(feature).__name__}" for column, feature in dataset.features.items())
    raise UserError(
        f"{name} {problem}; its columns: {features}. With `datasets`, {change}, save_to_disk, and give that folder as "
        f"{section}.root"
    )


def items_of(name: str, dataset: Dataset, column: str) -> list[Item]:
    """The images of a split, decoded when they are needed."""
    import datasets

    undecoded = dataset.select_columns([column]).with_format(None).cast_column(column, datasets.Image(decode=False))
    fetch = functools.partial(_fetch, undecoded, column)
    return [Item(name, index, fetch) for index in range(len(dataset))]


def _fetch(dataset: Dataset, column: str, index: int) -> Image.Image:
    """Open one image. Thread-safe, because the data set does not change."""
    value = dataset[index][column]
    if value is None:
        raise ValueError("the row has no image")
    source = io.BytesIO(value["bytes"]) if value["bytes"] is not None else value["path"]
    return Image.open(source, formats=IMAGE_FORMATS)
