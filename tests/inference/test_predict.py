from __future__ import annotations

import dataclasses
import io
import os
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import emoreg.data.images.threads
import emoreg.inference.predict
from emoreg.config.schema import Mixing
from emoreg.config.training import Precision
from emoreg.data.images.augment import normalise
from emoreg.data.images.decode import decode
from emoreg.data.images.files import list_files
from emoreg.data.stimuli.emotion import MIKELS_8, VALENCE_AROUSAL, EmotionSpace
from emoreg.errors import UserError
from emoreg.inference.answer import Answer
from emoreg.inference.load import load_run
from emoreg.inference.pictures import thumbnail
from emoreg.inference.predict import FeelWith, FeltEmotion, Prediction, at_lambda, find_images, predict
from emoreg.models.regulation import RegulatedClassifier
from emoreg.stages.affective_heads import heads_of
from tiny_backbone import TinyBackbone


def test_images_are_decoded_as_in_training(runs: Path, photos: Path) -> None:
    loaded = load_run(runs / "learned")
    files = list_files(photos)
    predictions = list(predict(loaded, photos, device="cpu", batch_size=2))
    assert [p.image for p in predictions] == [str(file) for file in files]
    pixels = torch.from_numpy(np.stack([decode(file, 8) for file in files])).permute(0, 3, 1, 2)
    with torch.no_grad():
        response = loaded.model.respond(normalise(pixels))
    assert response.emotional is not None and response.lam is not None
    for logits, name in (
        (response.logits, "regulated"),
        (response.non_emotional, "non_emotional"),
        (response.emotional, "emotional"),
    ):
        found = np.stack([getattr(p, name).probabilities for p in predictions])
        np.testing.assert_allclose(found, logits.softmax(dim=1).numpy(), atol=1e-5)
    assert all(p.lam == pytest.approx(response.lam.item()) for p in predictions)


def test_predictions_compare_by_identity_and_are_hashable(runs: Path, photos: Path) -> None:
    predictions = list(predict(runs / "learned", photos, device="cpu"))
    for found in (predictions, [p.regulated for p in predictions], [p.felt[0] for p in predictions]):
        assert found[0] != found[1] and found[0] in found and len(set(found)) == len(found)


def test_felt_emotion_is_read_from_images_of_the_size_of_the_encoder(runs: Path, photos: Path) -> None:
    loaded = load_run(runs / "learned")
    assert loaded.readout is not None and loaded.model.encoder is not None
    files = list_files(photos)
    large = normalise(torch.from_numpy(np.stack([decode(file, 16) for file in files])).permute(0, 3, 1, 2))
    small = normalise(torch.from_numpy(np.stack([decode(file, 8) for file in files])).permute(0, 3, 1, 2))
    for feel_with, expected in (
        ("experience", loaded.readout.read(large)),
        ("encoder", loaded.readout.read(small, loaded.model.encoder)),
    ):
        found = [p.felt[0].values for p in predict(loaded, photos, feel_with=feel_with, device="cpu")]  # type: ignore[arg-type]
        np.testing.assert_allclose(np.stack(found), expected.numpy(), atol=1e-4)


def test_an_unreadable_image_is_reported_and_skipped_or_raises(runs: Path, photos: Path) -> None:
    (photos / "bb.png").write_bytes(b"this is no image")
    errors: list[UserError] = []
    names = [Path(p.image).name for p in predict(runs / "learned", photos, device="cpu", on_unreadable=errors.append)]
    assert names == ["a.png", "b.jpg", "c.png", "d.bmp", "e.webp"]
    assert len(errors) == 1 and "bb.png: not an image in a known format" in str(errors[0])
    with pytest.raises(UserError, match=r"bb\.png"):
        list(predict(runs / "learned", photos, device="cpu"))


def test_images_come_from_folders_zips_files_and_pixels(runs: Path, photos: Path, tmp_path: Path) -> None:
    archive = tmp_path / "photos.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.write(photos / "a.png", "inside/a.png")
        file.writestr("notes.txt", "not an image")
    pixels = np.zeros((9, 9, 3), np.uint8)
    predictions = list(predict(runs / "plain", [archive, photos / "b.jpg", pixels, photos / "below"], device="cpu"))
    names = [p.image for p in predictions]
    assert names == [f"{archive}/inside/a.png", f"{photos}/b.jpg", "2", f"{photos}/below/c.png"]
    first = next(iter(predict(runs / "plain", photos / "a.png", device="cpu")))
    np.testing.assert_allclose(predictions[0].regulated.probabilities, first.regulated.probabilities, atol=1e-6)


def test_a_path_like_object_is_one_path_even_if_it_can_be_iterated(photos: Path) -> None:
    class Folder(os.PathLike[str]):
        def __fspath__(self) -> str:
            return str(photos)

        def __str__(self) -> str:
            return str(photos)

        def __iter__(self) -> Iterator[str]:
            return iter(["a.png"])

    assert find_images(Folder()) == list_files(photos)


def test_an_image_gives_the_same_prediction_in_every_form(runs: Path, photos: Path) -> None:
    loaded, path = load_run(runs / "plain"), photos / "a.png"
    with Image.open(path) as image, path.open("rb") as file:
        pixels, content = np.asarray(image.convert("RGB")), path.read_bytes()
        many: list[Any] = [str(path), path, image, file, io.BytesIO(content), content, bytearray(content), pixels]
        found = list(predict(loaded, (given for given in many), device="cpu"))
        alone = [next(iter(predict(loaded, given, device="cpu"))) for given in (path, image, file, content, pixels)]
    assert [p.image for p in found] == [str(path)] * 2 + [str(row) for row in range(2, 8)]
    for prediction in (*found, *alone):
        np.testing.assert_allclose(prediction.regulated.probabilities, found[0].regulated.probabilities, atol=1e-6)
    assert all(thumbnail(p.source, p.fit).size == thumbnail(found[0].source, "crop").size for p in found)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (np.zeros((4, 4, 3)), r"uint8 \(H, W, 3\), not float64 \(4, 4, 3\): values 0 to 255, colours last; grey or"),
        (np.zeros((3, 4, 4), np.uint8), r"not uint8 \(3, 4, 4\): values 0 to 255, colours last"),
        (np.zeros((4, 4), np.uint8), r"not uint8 \(4, 4\)"),
        (np.zeros((4, 4, 4), np.uint8), r"grey or transparent ones as PIL\.Image\.fromarray\(pixels\)"),
        (np.zeros((4, 4, 3), np.uint16), "not uint16"),
        (torch.rand(3, 4, 4), r"a tensor \(torch\.float32 \(3, 4, 4\)\) is not accepted .* as a NumPy array, uint8"),
        ("https://example.org/cat.jpg", r"https://example\.org/cat\.jpg is an address, and nothing is downloaded"),
        ("s3://bucket/cat.jpg", "is an address"),
        (io.StringIO("text"), "a file was opened as text; open it with mode 'rb'"),
        (7, "7 is not an image; give a path, bytes, an opened file, a Pillow image, or pixels"),
        ([None], "None is not an image"),
        ({"a": np.zeros((4, 4, 3), np.uint8)}, r"a mapping of names to images .*; give list\(images.values\(\)\)"),
        ([], "no images were given"),
        ("x" * 300, "cannot read x+: File name too long"),
        ("nul\0.png", r"nul\\x00\.png"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_anything_but_an_image_is_refused_with_advice(given: Any, message: str, runs: Path) -> None:
    with pytest.raises(UserError, match=message):
        predict(runs / "plain", given)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (Image.new("F", (4, 5)), "an image of 4x5, mode F: its pixels are 32-bit numbers, whose range is not known"),
        (Image.new("I", (4, 5)), "mode I: its pixels are 32-bit numbers"),
        (b"no image", "an image of 8 bytes: not an image in a known format"),
        (b"", "it is empty"),
    ],
    ids=["F", "I", "bytes", "empty"],
)
def test_an_image_without_a_path_is_described_when_it_cannot_be_decoded(image: Any, message: str, runs: Path) -> None:
    errors: list[UserError] = []
    assert list(predict(runs / "plain", [image], device="cpu", on_unreadable=errors.append)) == []
    assert message in str(errors[0]) and "\n" not in str(errors[0]) and "0x" not in str(errors[0])


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "PA", "RGBA", "RGBX", "CMYK", "YCbCr", "HSV", "I;16"])
def test_a_white_pillow_image_of_any_mode_is_decoded_as_white(mode: str) -> None:
    white = Image.new("RGB", (8, 8), "white")
    image = Image.new("I;16", (8, 8), 65535) if mode == "I;16" else white.convert(mode)
    assert decode(image, 8).min() > 250


@pytest.mark.parametrize("mix", ["logits", "probabilities", "features"])
@pytest.mark.parametrize("lam", [0.0, 0.3, 1.0])
def test_lambda_by_hand_gives_the_outputs_of_a_classifier_with_that_constant(mix: Mixing, lam: float) -> None:
    torch.manual_seed(0)
    arms = TinyBackbone(6), TinyBackbone(4), 5
    trained = RegulatedClassifier(*arms, mode="learned", mix=mix, lam=0.6).eval()
    fixed = RegulatedClassifier(*arms, mode="fixed", mix=mix, lam=lam).eval()
    weights = {key: value for key, value in trained.state_dict().items() if not key.startswith("regulation")}
    fixed.load_state_dict(weights, strict=False)
    images = torch.rand(3, 3, 8, 8)
    with torch.no_grad():
        by_hand = at_lambda(trained.respond(images), lam, mix)
        expected = fixed.respond(images)
    torch.testing.assert_close(by_hand.logits.softmax(dim=1), expected.logits.softmax(dim=1), rtol=1e-4, atol=1e-5)
    assert by_hand.lam is not None and by_hand.lam.item() == pytest.approx(lam)


def test_with_lambda_zero_the_prediction_is_the_non_emotional_one(runs: Path, photos: Path) -> None:
    for p in predict(runs / "gated", photos, lam=0.0, device="cpu"):
        np.testing.assert_allclose(p.regulated.probabilities, p.non_emotional.probabilities, atol=1e-6)
        assert p.lam == 0


@pytest.mark.parametrize(("precision", "tolerance"), [("32-true", 1e-5), ("bf16-mixed", 0.02)])
@pytest.mark.parametrize("feel_with", ["experience", "encoder"])
def test_folded_networks_predict_the_same_up_to_rounding(
    precision: Precision,
    tolerance: float,
    feel_with: FeelWith,
    runs: Path,
    photos: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    loaded = load_run(runs / "learned")
    assert loaded.readout is not None
    training = dataclasses.replace(loaded.recipe.training, precision=precision)
    loaded = dataclasses.replace(loaded, recipe=dataclasses.replace(loaded.recipe, training=training))
    calls: list[nn.Module] = []
    forward = nn.BatchNorm2d.forward

    def record(norm: nn.BatchNorm2d, images: torch.Tensor) -> torch.Tensor:
        calls.append(norm)
        return forward(norm, images)

    monkeypatch.setattr(nn.BatchNorm2d, "forward", record)

    def values() -> list[Any]:
        found = list(predict(loaded, photos, feel_with=feel_with, device="cpu", batch_size=3))
        answers = [(p.regulated, p.non_emotional, p.emotional) for p in found]
        return [[[each.values for each in three if each] for three in answers], [p.felt[0].values for p in found]]

    expected, unfolded = values(), len(calls)
    monkeypatch.setattr(emoreg.inference.predict, "FOLDED_FROM", 5)
    found, compared = values(), len(calls) - unfolded
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(np.array(ours), np.array(theirs), atol=tolerance, rtol=0)
    # ResNet-8 has seven norms. Unfolded: three networks, two batches. Folded: each network once, for the comparison.
    assert (unfolded, compared) == (2 * 3 * 7, (3 if feel_with == "experience" else 2) * 7)
    assert any(isinstance(module, nn.BatchNorm2d) for module in loaded.model.modules())


@pytest.mark.parametrize("at_once", [1, 4])
def test_a_model_in_training_mode_predicts_in_evaluation_mode_and_is_restored(
    at_once: int, runs: Path, photos: Path
) -> None:
    loaded = load_run(runs / "learned")
    assert loaded.readout is not None and loaded.model.encoder is not None
    networks: tuple[nn.Module, ...] = (loaded.model, loaded.readout.model)
    expected = [p.row(with_all=True) for p in predict(loaded, photos, device="cpu", batch_size=1)]
    for network in networks:
        network.train()
    loaded.model.encoder.eval()  # a part that the user keeps in evaluation mode
    modes = [module.training for network in networks for module in network.modules()]
    held = [{name: value.clone() for name, value in network.state_dict().items()} for network in networks]

    def predicted(_: int) -> list[dict[str, Any]]:
        return [p.row(with_all=True) for p in predict(loaded, photos, device="cpu", batch_size=1)]

    with ThreadPoolExecutor(at_once) as threads:
        assert list(threads.map(predicted, range(at_once))) == [expected] * at_once
    assert [module.training for network in networks for module in network.modules()] == modes
    for network, before in zip(networks, held, strict=True):
        assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_a_batch_that_the_device_cannot_hold_is_halved(
    runs: Path, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = load_run(runs / "learned")
    expected = [p.row(with_all=True) for p in predict(loaded, photos, device="cpu")]
    respond, sizes = loaded.model.respond, []

    def small_memory(images: torch.Tensor) -> object:
        sizes.append(len(images))
        if len(images) > 2:
            raise torch.OutOfMemoryError("of device memory")
        return respond(images)

    monkeypatch.setattr(loaded.model, "respond", small_memory)
    found = [p.row(with_all=True) for p in predict(loaded, photos, device="cpu")]
    assert sizes == [5, 2, 3, 1, 2]
    for row, other in zip(found, expected, strict=True):
        assert row["image"] == other["image"] and row["probability"] == pytest.approx(other["probability"], abs=1e-5)


def test_only_a_few_images_are_decoded_ahead(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded = 0

    def count(image: np.ndarray, size: int, fit: str) -> np.ndarray:
        nonlocal decoded
        decoded += 1
        return np.zeros((size, size, 3), np.uint8)

    monkeypatch.setattr(emoreg.inference.predict, "decode", count)
    monkeypatch.setattr(emoreg.data.images.threads, "usable_cores", lambda: 2)
    many = [np.zeros((8, 8, 3), np.uint8)] * 2000
    predictions = predict(runs / "plain", many, device="cpu", batch_size=16)
    next(predictions)
    assert decoded < 200
    predictions.close()  # type: ignore[attr-defined]  # an iterator that is a generator
    assert decoded < 2000


def test_rows_are_plain_values_with_felt_emotions_by_name() -> None:
    half = np.array([0.25, 0.75], np.float32)
    answer = Answer(half, ("cat", "dog"))
    head, wheel = heads_of([("oasis", VALENCE_AROUSAL), ("emoset", EmotionSpace("category", MIKELS_8))])
    felt = FeltEmotion(head, np.array([0.5, -0.25], np.float32)), FeltEmotion(wheel, np.eye(8, dtype=np.float32)[2])
    prediction = Prediction("a.png", half[None], answer, answer, answer, 0.5, felt)  # type: ignore[arg-type]
    row = prediction.row()
    assert row["class"] == "dog" and row["probability"] == 0.75 and row["lambda"] == 0.5
    assert row["felt"]["oasis"] == {"valence": 0.5, "arousal": -0.25} and row["felt"]["emoset"]["awe"] == 1
    assert [emotion.summary for emotion in felt] == ["valence +0.50, arousal -0.25", "awe 1.00"]
    only = dataclasses.replace(prediction, felt=felt[:1], emotional=None, lam=None)
    assert only.row() == {"image": "a.png", "class": "dog", "probability": 0.75, "felt": row["felt"]["oasis"]}
    assert only.row(with_all=True)["probabilities"] == {"cat": 0.25, "dog": 0.75}


@pytest.mark.parametrize(
    ("images", "options", "message"),
    [
        ("nowhere.png", {}, "nowhere.png does not exist; give an image, a folder or a zip"),
        ("empty", {}, "empty holds no images"),
        (
            np.zeros((4, 4, 3), np.uint8),
            {"lam": 0.5},
            "λ cannot be set by hand: this classifier has no emotional branch",
        ),
        (np.zeros((4, 4, 3), np.uint8), {"batch_size": 0}, "the batch size is 0; it must be at least 1"),
    ],
)
def test_bad_input_is_refused_before_anything_is_predicted(
    images: object, options: dict[str, float], message: str, runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    given = [images] if isinstance(images, np.ndarray) else images
    with pytest.raises(UserError, match=message):
        predict(runs / "plain", given, **options)  # type: ignore[arg-type]


def test_a_lambda_outside_0_to_1_is_refused(runs: Path) -> None:
    with pytest.raises(UserError, match=r"λ is 1.5; it must lie in \[0, 1\]"):
        predict(runs / "learned", [np.zeros((4, 4, 3), np.uint8)], lam=1.5)


@pytest.mark.parametrize("name", ["learned", "plain"])
def test_a_temperature_changes_the_probabilities_of_the_regulated_response_alone(
    name: str, runs: Path, photos: Path
) -> None:
    before = list(predict(runs / name, photos, device="cpu"))
    after = list(predict(runs / name, photos, temperature=2.0, device="cpu"))
    for one, other in zip(before, after, strict=True):
        scaled = one.regulated.probabilities**0.5  # softmax(z / 2) is proportional to the root of softmax(z)
        np.testing.assert_allclose(other.regulated.probabilities, scaled / scaled.sum(), atol=1e-5)
        assert other.regulated.name == one.regulated.name
        np.testing.assert_array_equal(other.non_emotional.values, one.non_emotional.values)
        if one.emotional is not None and other.emotional is not None:
            np.testing.assert_array_equal(other.emotional.values, one.emotional.values)
        assert one.temperature is None and "temperature" not in one.row()
        assert other.temperature == other.row()["temperature"] == 2
        assert one.row().keys() == other.row().keys() - {"temperature"}


def test_the_runs_own_temperature_is_for_lambda_as_trained(runs: Path) -> None:
    image = np.zeros((4, 4, 3), np.uint8)
    with pytest.raises(UserError, match="was fitted with λ as trained: leave out λ, or give a number"):
        predict(runs / "learned", image, lam=0.5, temperature="calibrated")
    assert next(predict(runs / "learned", image, lam=0.5, temperature=2, device="cpu")).temperature == 2
