"""Write a regulated classifier as ONNX or as a torch.export program, and compare outputs."""

from __future__ import annotations

import contextlib
import importlib
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
from emoreg.runtime.optional import importing

OUTPUTS = ("logits", "non_emotional", "emotional", "lam")
OPSET = 18  # of ONNX: torch's exporter writes it since 2.6, onnxruntime reads it since 1.14
TOLERANCE = 1e-4  # largest allowed difference of an exported network's outputs
BATCH_SIZES = (1, 2, 5)  # of the comparison
METADATA = "emoreg.json"  # file inside a .pt2


class ExportableClassifier(nn.Module):
    """A regulated classifier whose outputs are plain tensors with the batch dimension first.

    Maps normalised images, float32 (B, 3, S, S), to OUTPUTS: logits, non_emotional and emotional (B, K), and lam
    (B, 1), or (B, K) with one λ per class. Without an emotional branch only the first two exist, and are equal but for
    the temperature.

    Args:
        classifier: in evaluation mode.
        temperature: T that `logits` are divided by; None for none.
    """

    def __init__(self, classifier: RegulatedClassifier, temperature: float | None = None) -> None:
        super().__init__()
        self.classifier, self.temperature = classifier, temperature

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Compute the outputs listed in `names`."""
        response = self.classifier.respond(images)
        logits = response.logits if self.temperature is None else response.logits / self.temperature
        if response.emotional is None or response.lam is None:
            return logits, response.non_emotional.clone()  # torch 2.9 gives only one name to one tensor
        lam = response.lam.expand(images.shape[0], -1)  # len(images) would fix the batch size
        return logits, response.non_emotional, response.emotional, lam

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the outputs."""
        return OUTPUTS if self.classifier.encoder is not None else OUTPUTS[:2]


def save_onnx(network: ExportableClassifier, image_size: int, path: Path, metadata: dict[str, Any]) -> None:
    """Write a network as ONNX, with input "images" (batch, 3, S, S), outputs `network.names`, and any batch size.

    Args:
        network: in evaluation mode.
        image_size: S.
        path: where to write the file.
        metadata: stored in the file; values other than strings as JSON.

    Raises:
        UserError: onnx or onnxscript is not installed, or torch cannot export the network.
    """
    for package in ("onnx", "onnxscript"):  # needed by torch.onnx
        with importing(package, "exporting ONNX", "'emoreg[export]'"):
            importlib.import_module(package)
    program = _program(network, image_size)
    with _exporter("ONNX"):
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


def load_onnx(path: Path) -> Callable[[Tensor], Sequence[Tensor]]:
    """Load an ONNX file as a function of images, run by onnxruntime on the CPU. UserError if it is not installed."""
    with importing("onnxruntime", "comparing ONNX", "'emoreg[export]'"):
        import onnxruntime
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda images: [torch.from_numpy(values) for values in session.run(None, {"images": images.numpy()})]


def save_program(network: ExportableClassifier, image_size: int, path: Path, metadata: dict[str, Any]) -> None:
    """Write a network as a torch.export program (.pt2) of images (B, 3, S, S). For arguments see `save_onnx`."""
    program = _program(network, image_size)
    with _exporter("torch.export"):
        torch.export.save(program, path, extra_files={METADATA: json.dumps(metadata)})


def _program(network: ExportableClassifier, image_size: int) -> torch.export.ExportedProgram:
    device = next(network.parameters()).device
    # Two images, because torch.export would treat a batch size of one as a constant.
    images = torch.zeros(2, 3, image_size, image_size, device=device)
    shapes = {"images": {0: torch.export.Dim("batch", min=1)}}
    with torch.no_grad(), _exporter("torch.export"):
        program = torch.export.export(network, (images,), dynamic_shapes=shapes, strict=False)
    for module in program.graph_module.modules():
        if isinstance(module, torch.fx.GraphModule):
            for node in module.graph.nodes:
                node.meta.pop("stack_trace", None)  # contains paths of this machine
    return program


@torch.no_grad()
def max_difference(
    network: Callable[[Tensor], Sequence[Tensor]], other: Callable[[Tensor], Sequence[Tensor]], image_size: int
) -> float:
    """Return the largest difference between outputs of two networks, for seeded noise in batches of 1, 2 and 5 images.

    Raises:
        UserError: the difference is above 1e-4 or NaN, or the shapes differ.
    """
    draw = torch.Generator().manual_seed(0)
    largest = torch.zeros(())
    for size in BATCH_SIZES:
        images = torch.randn(size, 3, image_size, image_size, generator=draw)
        for one, two in zip(network(images), other(images), strict=True):
            if one.shape != two.shape:
                raise UserError(f"the exported network's output has shape {tuple(two.shape)}, not {tuple(one.shape)}")
            largest = torch.maximum(largest, (one - two).abs().max())  # maximum() propagates NaN
    difference = float(largest)
    if not difference <= TOLERANCE:
        raise UserError(
            f"the exported network's outputs differ from the run's by up to {difference:.1e}, more than "
            f"{TOLERANCE:g}; nothing was written"
        )
    return difference


@contextlib.contextmanager
def _exporter(name: str) -> Iterator[None]:
    """Suppress warnings of an exporter, which concern only its internals, and raise its errors as UserError."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except (UserError, OSError, MemoryError):
        raise
    except Exception as error:  # exporters raise all kinds of errors for unsupported operations
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        reason = lines[0] if lines else type(error).__name__
        raise UserError(f"{name} cannot write this network with a batch of any size: {reason}") from None
    finally:
        logging.disable(before)
