"""Predict any number of images with a trained classifier, a few batches at a time."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from os import PathLike
from pathlib import Path
from typing import IO, Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image as Pillow
from torch import Tensor

from emoreg.config.schema import Fit, Mixing, Task
from emoreg.config.setting_types import path_of, typed_value
from emoreg.config.training import Device
from emoreg.data.images.augment import normalise
from emoreg.data.images.decode import decode
from emoreg.data.images.files import File, guessed_names, image_suffixes, is_image, list_files, not_read
from emoreg.data.images.packed import is_pack
from emoreg.data.images.threads import in_threads
from emoreg.errors import UserError, shortened
from emoreg.inference.answer import Answer, answers_of, by_name
from emoreg.inference.load import EmotionReadout, LoadedRun, load_run
from emoreg.inference.temperature import CALIBRATED, temperature_of
from emoreg.models.evaluation import in_evaluation
from emoreg.models.folding import with_folded
from emoreg.models.regulation import RegulatedClassifier, Response
from emoreg.models.tasks import mix_probabilities
from emoreg.runs.run import Run
from emoreg.runtime.out_of_memory import in_halves
from emoreg.runtime.progress import Progress
from emoreg.stages.affective_heads import Head
from emoreg.training.fabric import make_fabric, place, scoring_settings

FeelWith = Literal["experience", "encoder"]
Image = File | NDArray[np.uint8] | bytes | Pillow.Image  # bytes: the content of an image file
Given = PathLike[str] | str | Image | IO[bytes]
Images = Given | Iterable[Given]
ADDRESS = re.compile(r"[a-z][a-z0-9+.-]+://", re.IGNORECASE)
# Images decoded by a thread at a time: few, so that the first batch is ready soon and memory use stays low.
DECODED_TOGETHER = 16
# On a CPU, networks are folded for at least this many images; for fewer, the copy costs more than it saves
# (docs/speed.md).
FOLDED_FROM = 1000


@dataclass(frozen=True, eq=False)  # comparing arrays gives no single bool
class FeltEmotion:
    """The emotion that one stage-1 head reads from an image.

    Args:
        head: the head.
        values: (E,): probabilities that sum to 1, or values of dimensions, roughly within [-1, 1].
    """

    head: Head
    values: NDArray[np.float32]

    @property
    def summary(self) -> str:
        """The emotion in a few words: "contentment 0.41", or "valence +0.20, arousal -0.13"."""
        is_category = self.head.space.kind != "dimensions"
        return Answer(self.values, self.head.space.names, "classification" if is_category else "regression").summary


@dataclass(frozen=True, eq=False)  # comparing arrays gives no single bool
class Prediction:
    """What a classifier predicts for one image.

    Args:
        image: path of the image; if it has none, its position in the input.
        source: the image itself.
        regulated: the regulated response, which is the prediction of the classifier.
        non_emotional: the response of the plain backbone.
        emotional: the response of the emotional branch; None without one.
        lam: λ in [0, 1]. With one λ per class: the λ of the predicted class, or the mean in tasks other than
            classification. None without an emotional branch.
        felt: the emotion that each stage-1 head reads; empty without a readout.
        fit: how the image was made square; see `TargetSettings`.
        temperature: T that the logits of the regulated response were divided by; None for as trained.
    """

    image: str
    source: Image
    regulated: Answer
    non_emotional: Answer
    emotional: Answer | None
    lam: float | None
    felt: tuple[FeltEmotion, ...]
    fit: Fit = "crop"
    temperature: float | None = None

    def row(self, with_all: bool = False) -> dict[str, Any]:
        """Plain values for JSON, rounded to six digits.

        Args:
            with_all: include the probabilities of all classes or labels.
        """
        row: dict[str, Any] = {"image": self.image, **self.regulated.row(with_all)}
        if self.temperature is not None:
            row["temperature"] = round(self.temperature, 6)
        if self.emotional is not None and self.lam is not None:
            row["lambda"] = round(self.lam, 6)
            row["non_emotional"] = self.non_emotional.row(with_all)
            row["emotional"] = self.emotional.row(with_all)
        felt = {emotion.head.name: by_name(emotion.head.space.names, emotion.values) for emotion in self.felt}
        if felt:
            row["felt"] = felt if len(felt) > 1 else next(iter(felt.values()))
        return row


def predict(
    run: LoadedRun | Run | Path | str,
    images: Images,
    *,
    lam: float | None = None,
    temperature: float | str | None = None,
    feel_with: FeelWith = "experience",
    batch_size: int | None = None,
    device: Device = "auto",
    on_unreadable: Callable[[UserError], None] | None = None,
) -> Iterator[Prediction]:
    """Predict images one by one, in the given order. Only a few batches are in memory at a time.

    Args:
        run: a finished run of stage 2, its folder, or the result of `load_run`.
        images: an image, a folder or zip of images, or any number of these. An image is a path, the content of a file
            (bytes, or a file opened for reading), a Pillow image, or pixels, uint8 (H, W, 3).
        lam: λ in [0, 1] for all images, instead of the trained one; None for λ as trained.
        temperature: T in [0.01, 100] that the regulated logits are divided by before the softmax, or "calibrated" for
            the one that `calibrate` has fitted; the predicted classes, and the other responses, stay the same. None for
            as trained.
        feel_with: the encoder whose features the stage-1 head reads: "experience" for the stage-1 encoder that the head
            was trained with; "encoder" for the encoder after stage 2, which the head may no longer fit.
        batch_size: images per batch; None for 256 on an accelerator and 64 on the CPU. A batch that does not fit into
            an accelerator's memory is halved.
        device: as `training.device`.
        on_unreadable: called with the error for each image that cannot be decoded, which is then skipped; None to raise
            the error.

    Raises:
        UserError: unfinished run; missing or unreadable images; `lam` for a classifier without an emotional branch;
            a run without a calibration, or not of one class per image, with `temperature`.
    """
    loaded = run if isinstance(run, LoadedRun) else load_run(run)
    lam, feel_with = typed_value(float | None, lam, "lam"), typed_value(FeelWith, feel_with, "feel_with")
    batch_size = typed_value(int | None, batch_size, "batch_size")
    if lam is not None and loaded.model.encoder is None:
        raise UserError("λ cannot be set by hand: this classifier has no emotional branch")
    if lam is not None and not 0 <= lam <= 1:
        raise UserError(f"λ is {lam}; it must lie in [0, 1]")
    if batch_size is not None and batch_size < 1:
        raise UserError(f"the batch size is {batch_size}; it must be at least 1")
    if lam is not None and isinstance(temperature, str) and temperature == CALIBRATED:
        raise UserError("the run's temperature was fitted with λ as trained: leave out λ, or give a number")
    scaling = temperature_of(loaded, temperature)
    divisor = None if scaling is None else scaling.value
    return _predict(loaded, find_images(images), lam, divisor, feel_with, batch_size, device, on_unreadable)


def _predict(
    loaded: LoadedRun,
    images: Sequence[Image],
    lam: float | None,
    temperature: float | None,
    feel_with: FeelWith,
    batch_size: int | None,
    device: Device,
    on_unreadable: Callable[[UserError], None] | None,
) -> Iterator[Prediction]:
    fabric = make_fabric(scoring_settings(loaded.recipe, Run(loaded.folder), device))
    model, readout, shape = place(loaded.model, fabric), loaded.readout, (loaded.image_size, loaded.fit)
    readout_shape = shape
    if readout is not None:
        place(readout.model, fabric)
        if feel_with == "experience":
            readout_shape = readout.image_size, readout.fit
    batch_size = batch_size or (64 if fabric.device.type == "cpu" else 256)
    must_fold = fabric.device.type == "cpu" and len(images) >= FOLDED_FROM  # not measured on a GPU

    @torch.inference_mode()
    def predict_batch(batch: _Batch, part: slice) -> list[Prediction]:
        batch = batch.part(part)
        with fabric.autocast():
            pixels, felt = normalise(batch.pixels.to(fabric.device)), None
            response = model.respond(pixels)
            if readout is not None and feel_with == "experience":
                felt = readout.read(normalise(batch.readout_pixels.to(fabric.device)))
            elif readout is not None:
                felt = readout.read(pixels, model.encoder)
        if lam is not None:
            response = at_lambda(response, lam, model.mix, model.task)
        return _predictions(loaded, [(row, images[row]) for row in batch.rows], response, felt, temperature)

    for batch in _batches(images, (shape, readout_shape), batch_size, on_unreadable):
        with in_evaluation(model), in_evaluation(model if readout is None else readout.model):
            if must_fold:
                model, readout = _folded(model, readout, feel_with, batch)
                must_fold = False
            parts = in_halves(partial(predict_batch, batch), slice(0, len(batch.rows)), fabric.device)
        yield from itertools.chain.from_iterable(parts)


class _Batch(NamedTuple):
    """B images, decoded as for training, in the shapes of the classifier and of the readout."""

    rows: list[int]
    pixels: Tensor  # uint8 (B, 3, S, S)
    readout_pixels: Tensor

    def part(self, rows: slice) -> _Batch:
        return _Batch(self.rows[rows], self.pixels[rows], self.readout_pixels[rows])


@torch.inference_mode()
def _folded(
    model: RegulatedClassifier, readout: EmotionReadout | None, feel_with: FeelWith, batch: _Batch
) -> tuple[RegulatedClassifier, EmotionReadout | None]:
    """Fold the networks of classifier and readout, as verified on two images of a batch."""
    trial = batch.part(slice(2))
    networks = [network for network in (model.backbone, model.encoder) if network is not None]
    model = with_folded(model, networks, normalise(trial.pixels))
    if readout is not None and feel_with == "experience":
        stage1 = with_folded(readout.model, [readout.model.encoder], normalise(trial.readout_pixels))
        readout = replace(readout, model=stage1)
    return model, readout


def _predictions(
    loaded: LoadedRun,
    images: Sequence[tuple[int, Image]],
    response: Response,
    felt: Tensor | None,
    temperature: float | None,
) -> list[Prediction]:
    """Convert the outputs for a batch of (row, image) to predictions; `felt` is (B, ΣE)."""
    task = loaded.model.task
    regulated = answers_of(response.logits, loaded.classes, task, temperature)
    non_emotional = answers_of(response.non_emotional, loaded.classes, task)
    emotional = None if response.emotional is None else answers_of(response.emotional, loaded.classes, task)
    lam = None if response.lam is None else _numpy(response.lam.expand_as(response.logits))
    values, has_class = None if felt is None else _numpy(felt), task == "classification"
    heads = () if loaded.readout is None else loaded.readout.heads
    return [
        Prediction(
            image=str(image).removeprefix("./") if isinstance(image, File) else str(row),
            source=image,
            regulated=regulated[i],
            non_emotional=non_emotional[i],
            emotional=None if emotional is None else emotional[i],
            lam=None if lam is None else float(lam[i, regulated[i].index] if has_class else lam[i].mean()),
            felt=() if values is None else tuple(FeltEmotion(head, values[i, head.outputs]) for head in heads),
            fit=loaded.fit,
            temperature=temperature,
        )
        for i, (row, image) in enumerate(images)
    ]


def at_lambda(response: Response, lam: float, mix: Mixing, task: Task = "classification") -> Response:
    """Mix the two responses again with the same λ for every image and class, without another forward pass.

    This is exact for mixed features too: the head is linear, so its output for a mixture of features is the mixture of
    its outputs.

    Args:
        response: response of a classifier with an emotional branch.
        lam: λ in [0, 1].
        mix: what the classifier mixes.
        task: what the classifier predicts.
    """
    assert response.emotional is not None
    non_emotional, emotional = response.non_emotional.float(), response.emotional.float()
    value = torch.full((1, 1), lam, device=emotional.device)
    if mix == "probabilities":
        logits = mix_probabilities(non_emotional, emotional, value.logit(), task)
    else:
        logits = (1 - value) * non_emotional + value * emotional
    return Response(logits, non_emotional, emotional, value)


def find_images(images: Images, progress: Progress | None = None) -> list[Image]:
    """List images in the given order; those of a folder (recursively) or zip by name.

    Args:
        images: as for `predict`.
        progress: reports which files of a folder or zip are not images; None for the terminal.

    Raises:
        UserError: a path does not exist, an item is not an image, or there are no images.
    """
    if isinstance(images, Mapping):
        raise UserError("a mapping of names to images has no order for predictions; give list(images.values())")
    is_single = isinstance(images, str | PathLike | bytes | bytearray | memoryview | File | Pillow.Image | Tensor)
    is_single |= hasattr(images, "read") or (isinstance(images, np.ndarray) and images.ndim in (2, 3))
    items: Iterable[Any] = images if isinstance(images, Iterable) and not is_single else [images]
    progress = progress or Progress()
    found = [image for item in items for image in _images_of(item, progress)]
    if not found:
        raise UserError("no images were given")
    return found


def _images_of(item: Any, progress: Progress) -> list[Image]:
    """The images of one item of the input: a folder or zip has several."""
    if isinstance(item, np.ndarray):
        if item.dtype != np.uint8 or item.ndim != 3 or item.shape[2] != 3:
            advice = "values 0 to 255, colours last; grey or transparent ones as PIL.Image.fromarray(pixels)"
            raise UserError(f"pixels must be uint8 (H, W, 3), not {item.dtype} {item.shape}: {advice}")
        return [item]
    if isinstance(item, File | bytes | Pillow.Image):
        return [item]
    if isinstance(item, bytearray | memoryview):
        return [bytes(item)]
    if hasattr(item, "read"):
        return [_content_of(item)]
    if isinstance(item, str | PathLike):
        return list(_images_at(path_of(item, "images"), str(item), progress))
    if isinstance(item, Tensor):
        reason = f"a tensor ({item.dtype} {tuple(item.shape)}) is not accepted as an image"
        raise UserError(f"{reason}: its axes and range are unknown; give pixels as a NumPy array, uint8 (H, W, 3)")
    kinds = "a path, bytes, an opened file, a Pillow image, or pixels as uint8 (H, W, 3)"
    raise UserError(f"{shortened(repr(item))} is not an image; give {kinds}")


def _content_of(file: Any) -> bytes:
    if file.seekable():
        file.seek(0)
    content = file.read()
    if not isinstance(content, bytes):
        raise UserError(f"{getattr(file, 'name', 'a file')} was opened as text; open it with mode 'rb'")
    return content


def _images_at(path: Path, given: str, progress: Progress) -> Sequence[File]:
    if ADDRESS.match(given):
        raise UserError(f"{given} is an address, and nothing is downloaded; give a file, a folder or a zip")
    try:
        if is_pack(path):
            raise UserError(f"{path} is a pack; give the images it was made from, or score it with emoreg evaluate")
        if path.is_dir() or path.suffix.lower() == ".zip":
            files = list_files(path)
            inside = [file for file in files if is_image(file.name)]
            if not inside:
                raise UserError(f"{path} holds no images ({', '.join(image_suffixes())})")
            progress.report_notes(guessed_names(path), not_read(path, files))
            return inside
        if path.is_file():
            return [File(path.name, path.parent)]
    except (OSError, ValueError) as error:  # the name is too long, or contains a zero byte
        raise UserError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from None
    raise UserError(f"{path} does not exist; give an image, a folder or a zip")


def _batches(
    images: Sequence[Image],
    shapes: tuple[tuple[int, Fit], tuple[int, Fit]],
    batch_size: int,
    on_unreadable: Callable[[UserError], None] | None,
) -> Iterator[_Batch]:
    """Decode images in both shapes (size and fit), in batches. Unreadable images are skipped, or raise."""

    def decode_row(row: int) -> list[NDArray[np.uint8]] | UserError:
        try:
            return [decode(images[row], *shape) for shape in dict.fromkeys(shapes)]
        except UserError as error:
            return error

    def readable() -> Iterator[tuple[int, list[NDArray[np.uint8]]]]:
        for rows, decoded in in_threads(
            lambda rows: [decode_row(row) for row in rows], range(len(images)), DECODED_TOGETHER
        ):
            for row, squares in zip(rows, decoded, strict=True):
                if not isinstance(squares, UserError):
                    yield row, squares
                elif on_unreadable is None:
                    raise squares
                else:
                    on_unreadable(squares)

    stream = readable()
    while batch := list(itertools.islice(stream, batch_size)):
        rows, squares = zip(*batch, strict=True)
        pixels = [torch.from_numpy(np.stack(same_size)).permute(0, 3, 1, 2) for same_size in zip(*squares, strict=True)]
        yield _Batch(list(rows), pixels[0], pixels[-1])


def _numpy(values: Tensor) -> NDArray[np.float32]:
    return values.float().cpu().numpy()
