"""What a trained classifier answers to images, one row an image, however many there are."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from emoreg.config.schema import Device, Mixing
from emoreg.data.images.batches import normalise
from emoreg.data.images.decode import by_all_cores, decode
from emoreg.data.images.files import IMAGE_SUFFIXES, File, list_files
from emoreg.data.images.packed import is_pack
from emoreg.errors import UserError
from emoreg.inference.load import Loaded, load_run
from emoreg.models.regulation import Response, mix_probabilities
from emoreg.runs.run import Run
from emoreg.stages.affective_heads import Head
from emoreg.training.loop import make_fabric

FeelWith = Literal["experience", "encoder"]
Image = File | NDArray[np.uint8]
Images = Path | str | Sequence[Path | str | Image]
# Images that a thread decodes at a time: few enough that the first batch comes soon and that little is in memory.
DECODED_TOGETHER = 16


@dataclass(frozen=True)
class Answer:
    """One response: the probabilities of all classes (K,), float32."""

    probabilities: NDArray[np.float32]
    classes: tuple[str, ...]

    @property
    def name(self) -> str:
        """Of the most probable class."""
        return self.classes[int(self.probabilities.argmax())]

    @property
    def probability(self) -> float:
        """Of the most probable class, in [0, 1]."""
        return float(self.probabilities.max())


@dataclass(frozen=True)
class Feeling:
    """What a head of stage 1 reads out of an image."""

    head: Head
    values: NDArray[np.float32]  # (E,): probabilities that add up to 1, or values of dimensions about [-1, 1]

    @property
    def told(self) -> str:
        """In a few words: "contentment 0.41", or "valence +0.20, arousal -0.13"."""
        names = self.head.space.names
        if self.head.space.kind == "dimensions":
            return ", ".join(f"{name} {value:+.2f}" for name, value in zip(names, self.values, strict=True))
        return f"{names[int(self.values.argmax())]} {self.values.max():.2f}"


@dataclass(frozen=True)
class Prediction:
    """What the classifier answers to one image.

    Args:
        image: its path, or its number for pixels.
        source: the image itself.
        regulated: the answer.
        non_emotional: the plain backbone's.
        emotional: the emotional encoder's; None without one.
        lam: λ in [0, 1]; with one λ a class, that of the class that `regulated` names. None without an encoder.
        felt: the emotion that stage 1's heads read out; empty where there is no such read-out.
    """

    image: str
    source: Image
    regulated: Answer
    non_emotional: Answer
    emotional: Answer | None
    lam: float | None
    felt: tuple[Feeling, ...]

    def row(self, with_all: bool = False) -> dict[str, Any]:
        """As plain values for JSON, rounded to six digits.

        Args:
            with_all: the probabilities of all classes too.
        """
        row: dict[str, Any] = {"image": self.image, **_written(self.regulated, with_all)}
        if self.emotional is not None and self.lam is not None:
            row["lambda"] = round(self.lam, 6)
            row["non_emotional"] = _written(self.non_emotional, with_all)
            row["emotional"] = _written(self.emotional, with_all)
        felt = {
            feeling.head.name: dict(zip(feeling.head.space.names, _rounded(feeling.values), strict=True))
            for feeling in self.felt
        }
        if felt:
            row["felt"] = felt if len(felt) > 1 else next(iter(felt.values()))
        return row


def predict(
    run: Loaded | Run | Path | str,
    images: Images,
    *,
    lam: float | None = None,
    feel_with: FeelWith = "experience",
    batch_size: int | None = None,
    device: Device = "auto",
    on_unreadable: Callable[[UserError], None] | None = None,
) -> Iterator[Prediction]:
    """Predictions one after the other, in the order of the images. Only a few batches are in memory at a time.

    Args:
        run: of a classifier, its folder, or what `load_run` gives.
        images: an image, a folder or zip of images, or any number of these; or pixels uint8 (H, W, 3).
        lam: regulate by hand with this λ in [0, 1]; None for λ as trained.
        feel_with: whose features the stage-1 head reads: "experience", those of the stage-1 encoder that it was
            trained with; "encoder", those of the encoder that stage 2 has trained on, which it need not fit.
        batch_size: images at a time; None for 256 on an accelerator and 64 on the CPU. Where the memory of an
            accelerator is too small for so many, they are halved.
        device: as training.device.
        on_unreadable: told of each image that cannot be decoded, which is then left out; None stops there.

    Raises:
        UserError: unfinished run; missing or unreadable images; λ by hand without an emotional branch.
    """
    loaded = run if isinstance(run, Loaded) else load_run(run)
    if lam is not None and loaded.model.encoder is None:
        raise UserError("λ cannot be set by hand: this classifier has no emotional branch")
    if lam is not None and not 0 <= lam <= 1:
        raise UserError(f"λ is {lam}; it must lie in [0, 1]")
    if batch_size is not None and batch_size < 1:
        raise UserError(f"the batch size is {batch_size}; it must be at least 1")
    return _predict(loaded, find_images(images), lam, feel_with, batch_size, device, on_unreadable)


def _predict(
    loaded: Loaded,
    images: Sequence[Image],
    lam: float | None,
    feel_with: FeelWith,
    batch_size: int | None,
    device: Device,
    on_unreadable: Callable[[UserError], None] | None,
) -> Iterator[Prediction]:
    fabric = make_fabric(dataclasses.replace(loaded.recipe.training, device=device))
    model = loaded.model.to(fabric.device)
    read_out = loaded.read_out
    if read_out is not None:
        read_out.model.to(fabric.device)
    feels_apart = read_out is not None and feel_with == "experience"
    sizes = (loaded.image_size, read_out.image_size if read_out is not None and feels_apart else loaded.image_size)

    batch_size = batch_size or (64 if fabric.device.type == "cpu" else 256)

    @torch.inference_mode()
    def ask(pixels: Tensor, pixels_felt: Tensor) -> _Answers:
        try:
            with fabric.autocast():
                batch = normalise(pixels.to(fabric.device))
                response = model.respond(batch)
                felt = None
                if read_out is not None:
                    seen = normalise(pixels_felt.to(fabric.device)) if feels_apart else batch
                    felt = read_out.feel(seen, None if feels_apart else model.encoder)
            return _arrays(response if lam is None else at_lambda(response, lam, model.mix), felt)
        except torch.OutOfMemoryError:
            half = len(pixels) // 2
            if not half:
                raise UserError(f"{fabric.device} has too little memory for one image; use --device cpu") from None
        return _joined(ask(pixels[:half], pixels_felt[:half]), ask(pixels[half:], pixels_felt[half:]))

    for rows, squares in _batches(images, sizes, batch_size, on_unreadable):
        answers = ask(*squares)
        for number, row in enumerate(rows):
            yield _prediction(answers, number, _name(images[row], row), images[row], loaded)


class _Answers(NamedTuple):
    """Of a batch, float32 on the CPU: probabilities (B, K), λ (B, K) and what is felt (B, ΣE)."""

    regulated: NDArray[np.float32]
    non_emotional: NDArray[np.float32]
    emotional: NDArray[np.float32] | None
    lam: NDArray[np.float32] | None
    felt: NDArray[np.float32] | None


def _joined(first: _Answers, second: _Answers) -> _Answers:
    def both(a: NDArray[np.float32] | None, b: NDArray[np.float32] | None) -> NDArray[np.float32] | None:
        return None if a is None or b is None else np.concatenate((a, b))

    return _Answers(
        np.concatenate((first.regulated, second.regulated)),
        np.concatenate((first.non_emotional, second.non_emotional)),
        both(first.emotional, second.emotional),
        both(first.lam, second.lam),
        both(first.felt, second.felt),
    )


def _arrays(response: Response, felt: Tensor | None) -> _Answers:
    def on_cpu(values: Tensor) -> NDArray[np.float32]:
        return values.float().cpu().numpy()

    def shares(logits: Tensor) -> NDArray[np.float32]:
        return on_cpu(logits.float().softmax(dim=1))

    return _Answers(
        shares(response.logits),
        shares(response.non_emotional),
        None if response.emotional is None else shares(response.emotional),
        None if response.lam is None else on_cpu(response.lam.expand_as(response.logits)),
        None if felt is None else on_cpu(felt),
    )


def _prediction(answers: _Answers, number: int, name: str, image: Image, loaded: Loaded) -> Prediction:
    regulated, classes = Answer(answers.regulated[number], loaded.classes), loaded.classes
    felt: tuple[Feeling, ...] = ()
    if answers.felt is not None and loaded.read_out is not None:
        felt = tuple(Feeling(head, answers.felt[number, head.outputs]) for head in loaded.read_out.heads)
    return Prediction(
        name,
        image,
        regulated,
        Answer(answers.non_emotional[number], classes),
        None if answers.emotional is None else Answer(answers.emotional[number], classes),
        None if answers.lam is None else float(answers.lam[number, int(regulated.probabilities.argmax())]),
        felt,
    )


def _name(image: Image, row: int) -> str:
    return str(image).removeprefix("./") if isinstance(image, File) else str(row)


def at_lambda(response: Response, lam: float, mix: Mixing) -> Response:
    """The response if λ were `lam` for every image and class, from both responses that are there.

    Exact also where features are mixed: their head is linear, so the head of a mixture of features is the mixture of
    the head's two answers.

    Args:
        response: of a classifier with an emotional branch.
        lam: λ in [0, 1].
        mix: what the classifier's λ balances.
    """
    non_emotional, emotional = response.non_emotional.float(), response.emotional
    assert emotional is not None
    emotional = emotional.float()
    value = torch.full((1, 1), lam, device=emotional.device)
    if mix == "probabilities":
        logits = mix_probabilities(non_emotional, emotional, value.logit())
    else:
        logits = (1 - value) * non_emotional + value * emotional
    return Response(logits, non_emotional, emotional, value)


def find_images(images: Images) -> list[Image]:
    """Every image, in order: those below folders and in zips by name, single files as they are given.

    Raises:
        UserError: something does not exist, or there is no image at all.
    """
    given = [images] if isinstance(images, Path | str) else images
    found: list[Image] = []
    for one in given:
        if isinstance(one, np.ndarray) and (one.dtype != np.uint8 or one.ndim != 3 or one.shape[2] != 3):
            raise UserError(f"pixels must be uint8 (H, W, 3), not {one.dtype} {one.shape}")
        if isinstance(one, np.ndarray | File):
            found.append(one)
            continue
        path = Path(one)
        if is_pack(path):
            raise UserError(f"{path} is a pack; give the images that it was made of (or score it: emoreg evaluate)")
        if path.is_dir() or path.suffix.lower() == ".zip":
            inside = [file for file in list_files(path) if file.name.lower().endswith(IMAGE_SUFFIXES)]
            if not inside:
                raise UserError(f"{path} holds no images ({', '.join(IMAGE_SUFFIXES)})")
            found += inside
        elif path.is_file():
            found.append(File(path.name, path.parent))
        else:
            raise UserError(f"{path} does not exist; give an image, a folder or a zip")
    if not found:
        raise UserError("no images are given")
    return found


def _batches(
    images: Sequence[Image], sizes: tuple[int, int], batch_size: int, on_unreadable: Callable[[UserError], None] | None
) -> Iterator[tuple[list[int], tuple[Tensor, Tensor]]]:
    """Row numbers (B) and squares uint8 (B, 3, S, S) for each of both sizes, decoded as for training."""

    apart = sizes[0] != sizes[1]

    def work(rows: range) -> list[tuple[int, tuple[NDArray[np.uint8], ...] | UserError]]:
        done: list[tuple[int, tuple[NDArray[np.uint8], ...] | UserError]] = []
        for row in rows:
            try:
                done.append((row, tuple(decode(images[row], size) for size in dict.fromkeys(sizes))))
            except UserError as error:
                done.append((row, error))
        return done

    def readable() -> Iterator[tuple[int, tuple[NDArray[np.uint8], ...]]]:
        for _, done in by_all_cores(work, range(len(images)), DECODED_TOGETHER):
            for row, squares in done:
                if not isinstance(squares, UserError):
                    yield row, squares
                elif on_unreadable is None:
                    raise squares
                else:
                    on_unreadable(squares)

    def stack(squares: Sequence[NDArray[np.uint8]]) -> Tensor:
        return torch.from_numpy(np.stack(squares)).permute(0, 3, 1, 2)

    coming = readable()
    while part := list(itertools.islice(coming, batch_size)):
        first = stack([squares[0] for _, squares in part])
        yield [row for row, _ in part], (first, stack([squares[-1] for _, squares in part]) if apart else first)


def _written(answer: Answer, with_all: bool) -> dict[str, Any]:
    written: dict[str, Any] = {"class": answer.name, "probability": round(answer.probability, 6)}
    if with_all:
        written["probabilities"] = dict(zip(answer.classes, _rounded(answer.probabilities), strict=True))
    return written


def _rounded(values: NDArray[np.float32]) -> list[float]:
    return [round(value, 6) for value in values.tolist()]
