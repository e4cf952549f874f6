"""Affective sets as `datasets` writes and reads them, made here; the Hub is never contacted."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

import extras
from emoreg.config.schema import StimuliSettings
from emoreg.data.images.decode import decode
from emoreg.data.stimuli import read_stimuli
from emoreg.data.stimuli.emotion import EKMAN_6, MIKELS_8, POLARITY
from emoreg.data.stimuli.stimulus_set import Stimuli
from emoreg.data.tools.catalogue import kind_of
from emoreg.data.tools.pack import pack
from emoreg.data.tools.verify import verify
from emoreg.errors import UserError
from emoreg.runtime.progress import Progress
from hub_sets import saved, split_of

datasets = extras.load("hub", "datasets")
pytestmark = pytest.mark.extra("hub")

NAMES = [
    "amusement",
    "awe",
    "contentment",
    "excitement",
    "anger",
    "disgust",
    "fear",
    "sadness",
]  # as info.json has them


@pytest.fixture(autouse=True)
def _quiet_and_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    datasets.disable_progress_bars()


def read(root: Path | None, name: str = "hf:me/EmoSet-118K") -> Stimuli:
    return read_stimuli(StimuliSettings(name=name, root=None if root is None else str(root)), seed=0)


def part(values: Sequence[Any], names: list[str] | None = None, column: str = "emotion", **more: Any) -> Any:
    """A split of images of increasing brightness, one per value. Values are words, or indices into `names`."""
    kind = datasets.Value("string") if names is None else datasets.ClassLabel(names=names)
    return split_of([20 * number for number in range(len(values))], {column: (kind, values), **more})


def test_a_copy_of_emoset_is_read_with_words_for_emotions(tmp_path: Path) -> None:
    """Like one on the Hub: strings, splits train, val and test, and columns of attributes."""
    attributes: dict[str, Any] = {
        "image_id": (datasets.Value("string"), ["a", "b"]),
        "brightness": (datasets.Value("float32"), [0.1, 1]),
    }
    splits = {"train": part(["awe", "fear"], **attributes), "val": part(["sadness"]), "test": part(["awe", "anger"])}
    stimuli = read(saved(tmp_path / "emoset", splits))
    assert stimuli.name == "hf:me/EmoSet-118K" and stimuli.splits == ["train"] * 2 + ["validation"] + ["test"] * 2
    (labels,) = stimuli.labels
    assert labels.space.names == MIKELS_8 and labels.values.tolist() == [2, 6, 7, 2, 1]
    assert [int(decode(image, 8)[0, 0, 0]) for image in stimuli.images] == [0, 20, 0, 0, 20]
    assert str(stimuli.images[2]) == "hf:me/EmoSet-118K/val[0]"
    assert stimuli.notes == (
        "hf:me/EmoSet-118K: train from the split 'train', validation from the split 'val', test from the split 'test'; "
        "the emotions from the column 'emotion': awe, fear, sadness, anger",
    )


def test_class_labels_are_mapped_by_their_names(tmp_path: Path) -> None:
    """Like another copy: columns img and label, with classes in the order of info.json."""
    data = part([1, 7, 4], NAMES, "label").rename_column("image", "img")
    stimuli = read(saved(tmp_path / "emoset", {"train": data}))
    assert stimuli.labels[0].space.names == MIKELS_8 and stimuli.labels[0].values.tolist() == [2, 7, 1]
    assert stimuli.splits is None and "all images from the split 'train'" in stimuli.notes[0]


@pytest.mark.parametrize(
    ("words", "names", "labels", "read_as"),
    [
        (["happy", "Sad", "fear"], EKMAN_6, [3, 4, 2], "happy as joy, Sad as sadness, fear"),
        (["pos", "neg"], POLARITY, [1, 0], "pos as positive, neg as negative"),
    ],
)
def test_the_note_says_how_words_are_read(
    words: list[str], names: tuple[str, ...], labels: list[int], read_as: str, tmp_path: Path
) -> None:
    stimuli = read(saved(tmp_path / "set", {"train": part(words)}))
    assert stimuli.labels[0].space.names == names and stimuli.labels[0].values.tolist() == labels
    assert stimuli.notes[0].endswith(f"from the column 'emotion': {read_as}")


@pytest.mark.parametrize(
    ("splits", "message"),
    [
        (
            {"train": part(["awe", "amusment"])},
            r"'emotion': 'amusment' is not a known emotion \(did you mean 'amusement'\?\)",
        ),
        ({"train": part([0, 1], ["cat", "dog"], "label")}, "'label': 'cat' is not a known emotion"),
        ({"train": part(["awe", "joy"])}, "'emotion': no single space has all of awe, joy"),
        ({"train": part(["awe", None])}, "row 1 of the split 'train' has no 'emotion'"),
        ({"train": part([0, -1], NAMES)}, "row 1 of the split 'train' has no 'emotion'"),
        ({"some": part(["awe"]), "test": part(["fear"])}, "no split 'train', but some, test"),
        (
            {"train": part(["awe"]), "val": part(["awe"]), "dev": part(["awe"])},
            "two splits for validation, 'dev' among",
        ),
        ({"train": part(["awe"], column="words")}, "has no emotion column; its columns: image: Image, words: Value"),
        ({"train": part(["awe"]).remove_columns("image")}, "has no image column"),
        ({"train": part(["awe"]), "test": part(["awe"]).remove_columns("image")}, "'test' has no column 'image'"),
    ],
)
def test_other_sets_are_refused(splits: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=rf"^hf:me/EmoSet-118K.*{message}"):
        read(saved(tmp_path / "set", splits))


def test_unknown_splits_and_test_splits_without_emotions_are_left_out_and_reported(tmp_path: Path) -> None:
    splits = {"train": part(["awe", "fear"]), "test": part([None, None]), "extra": part(["awe"])}
    stimuli = read(saved(tmp_path / "set", splits))
    assert len(stimuli.images) == 2 and stimuli.splits == ["train", "train"]
    assert stimuli.left_out == (
        "hf:me/EmoSet-118K: left out the split 'extra', 1 images",
        "hf:me/EmoSet-118K: left out the split 'test', 2 images without 'emotion'",
    )


def test_a_set_that_cannot_be_loaded_names_the_setting_of_the_stimuli(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub.constants

    with pytest.raises(UserError, match=r"^stimuli\.root: .*nowhere is not a folder"):
        read(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"^stimuli\.name: 'hf:' is not of the form"):
        read(None, "hf:")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match=r"set stimuli\.root to a folder"):
        read(None)


def test_a_set_can_be_verified_and_packed_as_stimuli(tmp_path: Path, quiet: Progress) -> None:
    root = str(saved(tmp_path / "set", {"train": part(["awe", "fear"]), "test": part(["awe"])}))
    name = "hf:me/EmoSet-118K"
    findings = verify(name, root, quiet, kind_of(name, as_stimuli=True))
    assert findings.counts["awe"] == {"train": 1, "test": 1} and findings.published == []
    folder = pack(name, root, 8, tmp_path / "pack", False, quiet, "stimuli").folder
    packed = read_stimuli(StimuliSettings(name=name, root=str(folder), image_size=8), seed=0)
    assert packed.labels[0].space.names == MIKELS_8 and packed.splits == ["train", "train", "test"]
    assert kind_of(name) == "target"
    with pytest.raises(UserError, match="--stimuli is for sets of the Hugging Face Hub"):
        kind_of("cifar10", as_stimuli=True)
