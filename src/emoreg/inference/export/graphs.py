"""A regulated classifier as ONNX and as a torch.export program, and whether those answer as it does."""

from __future__ import annotations

import contextlib
import json
import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from emoreg.errors import UserError
from emoreg.models.regulation import RegulatedClassifier

OUTPUTS = ("logits", "non_emotional", "emotional", "lam")
OPSET = 18  # of ONNX: what torch's own exporter writes since 2.6, and onnxruntime reads since 1.14
TOLERANCE = 1e-4  # of an exported network's answers
BATCHES = (1, 2, 5)  # on which it is compared
METADATA = "emoreg.json"  # within a .pt2


class Responses(nn.Module):
    """A regulated classifier whose answers are plain tensors with the batch in front, for exporters.

    Images float32 (B, 3, S, S), normalised, to OUTPUTS: logits, non_emotional and emotional (B, K), and lam (B, 1), or
    (B, K) with one λ a class. Without an emotional branch only the first two, which are then the same.
    """

    def __init__(self, classifier: RegulatedClassifier) -> None:
        super().__init__()
        self.classifier = classifier

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """See the class."""
        response = self.classifier.respond(images)
        if response.emotional is None or response.lam is None:
            return response.logits, response.non_emotional
        lam = response.lam.expand(images.shape[0], -1)  # len(images) would fix the size of the batch
        return response.logits, response.non_emotional, response.emotional, lam

    @property
    def names(self) -> tuple[str, ...]:
        """Of the outputs that are there."""
        return OUTPUTS if self.classifier.encoder is not None else OUTPUTS[:2]


def save_onnx(network: Responses, image_size: int, path: Path, metadata: dict[str, Any]) -> None:
    """Write a network as ONNX: input "images" (batch, 3, S, S), outputs as `network.names`, any batch.

    Args:
        network: in evaluation.
        image_size: S.
        path: of the file.
        metadata: kept in the file, as text.

    Raises:
        UserError: onnx or onnxscript is not installed, or torch cannot export the network.
    """
    try:
        import onnxscript  # noqa: F401  # asked for by torch.onnx
    except ImportError:
        raise UserError("ONNX needs the extra: pip install 'emoreg[export]'") from None
    program = _program(network, image_size)
    with _silence(), _explained("ONNX"):
        written = torch.onnx.export(
            program,
            dynamo=True,
            opset_version=OPSET,
            input_names=["images"],
            output_names=list(network.names),
            verbose=False,
        )
        assert written is not None
        written.model.metadata_props.update(
            {key: value if isinstance(value, str) else json.dumps(value) for key, value in metadata.items()}
        )
        written.save(path, external_data=False)


def onnx_answers(path: Path) -> Callable[[Tensor], Sequence[Tensor]]:
    """An ONNX file as a function of images, run by onnxruntime on the CPU. UserError if that is not installed."""
    try:
        import onnxruntime
    except ImportError:
        raise UserError("comparing ONNX needs onnxruntime: pip install 'emoreg[export]'") from None
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda images: [torch.from_numpy(values) for values in session.run(None, {"images": images.numpy()})]


def save_program(network: Responses, image_size: int, path: Path, metadata: dict[str, Any]) -> None:
    """Write a network as a torch.export program (.pt2) of images (B, 3, S, S). Arguments as `save_onnx`."""
    program = _program(network, image_size)
    with _silence(), _explained("torch.export"):
        torch.export.save(program, path, extra_files={METADATA: json.dumps(metadata)})


def _program(network: Responses, image_size: int) -> torch.export.ExportedProgram:
    device = next(network.parameters()).device
    # Of two images: a batch of one would be taken for a constant.
    images = torch.zeros(2, 3, image_size, image_size, device=device)
    shapes = {"images": {0: torch.export.Dim("batch", min=1)}}
    with torch.no_grad(), _silence(), _explained("torch.export"):
        return torch.export.export(network, (images,), dynamic_shapes=shapes, strict=False)


@torch.no_grad()
def compare(
    network: Callable[[Tensor], Sequence[Tensor]], other: Callable[[Tensor], Sequence[Tensor]], image_size: int
) -> float:
    """The largest difference between the answers of two networks to seeded noise in batches of 1, 2 and 5.

    Raises:
        UserError: it is above 1e-4, or no number.
    """
    draw = torch.Generator().manual_seed(0)
    largest = torch.zeros(())
    for size in BATCHES:
        images = torch.randn(size, 3, image_size, image_size, generator=draw)
        for one, two in zip(network(images), other(images), strict=True):
            if one.shape != two.shape:
                raise UserError(f"what was exported answers {tuple(two.shape)}, not {tuple(one.shape)}")
            largest = torch.maximum(largest, (one - two).abs().max())  # which keeps NaN
    difference = float(largest)
    if not difference <= TOLERANCE:
        raise UserError(
            f"what was exported answers otherwise than the run: its largest difference is {difference:.1e}, "
            f"above {TOLERANCE:g}; nothing is written"
        )
    return difference


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Without the exporters' warnings, which are about their own insides."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.export", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


@contextlib.contextmanager
def _explained(exporter: str) -> Iterator[None]:
    try:
        yield
    except (UserError, OSError, MemoryError):
        raise
    except Exception as error:  # an exporter that meets an operation it does not know raises nearly anything
        reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise UserError(f"{exporter} cannot write this network with a batch of any size: {reason}") from None
