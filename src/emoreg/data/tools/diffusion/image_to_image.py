"""Load image-to-image models of diffusers without running code from them, and generate variations."""

from __future__ import annotations

import contextlib
import hashlib
import inspect
import socket
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from logging import CRITICAL
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from emoreg.errors import UserError, shortened
from emoreg.runtime.optional import importing
from emoreg.runtime.out_of_memory import is_out_of_memory
from emoreg.runtime.quiet_libraries import errors_only

if TYPE_CHECKING:
    from PIL import Image

PARTS = (".json", ".txt", ".safetensors")  # suffixes of the files that define a model
ONLY_SAFETENSORS = "its weights must be safetensors; pickled ones, which can run code, are not loaded"


@dataclass(frozen=True)
class Model:
    """A loaded model.

    Args:
        pipeline: an image-to-image pipeline of diffusers, on its device.
        name: folder, or name on the Hub.
        commit: commit on the Hub, or a digest of the folder's files; "" if unknown.
    """

    pipeline: Any
    name: str
    commit: str

    @property
    def place(self) -> str:
        """Device and precision, such as "cuda float16"."""
        return f"{self.pipeline.device.type} {str(self.pipeline.dtype).removeprefix('torch.')}"


def require_extra() -> str:
    """Return the version of diffusers. UserError if diffusers or transformers is not installed."""
    with importing("diffusers", "image-to-image diffusion", "'emoreg[diffusion]'"):
        import diffusers
    with importing("transformers", "image-to-image diffusion", "'emoreg[diffusion]'"):
        import transformers  # noqa: F401 (diffusers can be imported without it, but then has no text encoders)
    return str(diffusers.__version__)


def load(name: str, revision: str | None, device: str) -> Model:
    """Load the image-to-image pipeline of a model.

    It runs in float32 on CPUs and Apple's GPUs. On NVIDIA's GPUs it runs in the half precision in which the family is
    published: float16 for models with a UNet (Stable Diffusion, SDXL), bfloat16 for transformers (Flux, SD3), which
    overflow in float16.

    Args:
        name: a folder, or a model on the Hub, which is downloaded unless it is in the cache.
        revision: branch, tag or commit on the Hub; None for the newest.
        device: auto, cpu, cuda or mps.

    Raises:
        UserError: no such model or device, no safetensors weights, no image-to-image pipeline, not enough memory.
    """
    from diffusers import AutoPipelineForImage2Image

    device = _device(device)
    folder = Path(name).expanduser()
    is_folder = folder.is_dir()
    if is_folder and not (folder / "model_index.json").is_file():
        raise UserError(f"{name} holds no model that diffusers can load: it has no model_index.json")
    for part in sorted(folder.glob("*/")):
        if any(part.glob("*.bin")) and not any(part.glob("*.safetensors")):
            raise UserError(f"{part} has no safetensors weights; {ONLY_SAFETENSORS}")
    if not is_folder and (name.count("/") > 1 or name.startswith((".", "/", "~"))):
        raise UserError(f"no folder {name}; give one, or a name on the Hub such as OWNER/MODEL")
    where = str(folder) if is_folder else name
    try:
        config, commit = AutoPipelineForImage2Image.load_config(where, revision=revision, return_commit_hash=True)
        dtype = torch.float32
        if device == "cuda":
            dtype = torch.float16 if "unet" in config or not torch.cuda.is_bf16_supported() else torch.bfloat16
        pipeline = AutoPipelineForImage2Image.from_pretrained(
            where, revision=commit or revision, use_safetensors=True, dtype=dtype
        ).to(device)
    except Exception as error:  # diffusers, transformers and the Hub's client raise almost anything
        raise UserError(_explain(name, error)) from None
    pipeline.set_progress_bar_config(disable=True)
    return Model(pipeline, name, _digest(folder) if is_folder else commit or "")


def vary(
    model: Model,
    sources: Sequence[NDArray[np.uint8]],
    prompts: Sequence[str],
    generators: Sequence[torch.Generator],
    **how: float,
) -> list[tuple[Image.Image, bool]]:
    """Generate one variation (S, S) of each source; return it with whether the model's safety checker flagged it.

    Args:
        model: the model.
        sources: B images, uint8 (S, S, 3) each.
        prompts: one prompt per source.
        generators: one generator per source, on the CPU, for all noise.
        how: strength, num_inference_steps and guidance_scale of diffusers.

    Raises:
        UserError: not enough memory; a pipeline that does not take one of these arguments; a blank image.
    """
    from PIL import Image

    known = inspect.signature(model.pipeline.__call__).parameters
    for name in ("image", "prompt", "generator", *how):
        if name not in known:
            kind = type(model.pipeline).__name__
            raise UserError(f"{model.name}: its {kind} takes no {name}; choose a plain image-to-image model")
    size = len(sources[0])
    # Without these, some pipelines would return the size that they were trained at.
    shape = {name: size for name in ("height", "width") if name in known}
    images = [Image.fromarray(source) for source in sources]
    try:
        output = model.pipeline(
            prompt=list(prompts), image=images, generator=list(generators), output_type="pil", **how, **shape
        )
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise UserError(
            f"out of memory with {len(sources)} of {size}x{size} pixels at once on {model.place}; "
            "give a smaller --batch-size or --size (finished images are kept)"
        ) from None
    flags = getattr(output, "nsfw_content_detected", None) or [False] * len(output.images)
    for picture, flagged in zip(output.images, flags, strict=True):
        if not flagged and all(low == high for low, high in picture.convert("RGB").getextrema()):
            raise UserError(
                f"{model.name} gives a blank image on {model.place}, probably by overflow; try --device cpu"
            )
    return list(zip(output.images, map(bool, flags), strict=True))


@contextlib.contextmanager
def silenced(hide_bars: bool) -> Iterator[None]:
    """Within, silence warnings and logs of the libraries and, if `hide_bars`, their progress bars."""
    from diffusers.utils import logging as diffusers
    from transformers.utils import logging as transformers

    with_bars = [library for library in (diffusers, transformers) if hide_bars and library.is_progress_bar_enabled()]
    for library in with_bars:
        library.disable_progress_bar()
    try:
        with errors_only("diffusers", "transformers", "huggingface_hub", level=CRITICAL), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for library in with_bars:
            library.enable_progress_bar()


def _device(name: str) -> str:
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        return next(device for device, is_available in available.items() if is_available)
    if not available.get(name, False):
        raise UserError(f"--device is {name}, but PyTorch finds no such device; use auto or cpu")
    return name


def _explain(name: str, error: Exception) -> str:
    """Explain in one line why a model could not be loaded."""
    from huggingface_hub.errors import LocalEntryNotFoundError

    # Without a network, the root cause of an HTTP client's error is one of Python's own errors.
    offline = (LocalEntryNotFoundError, ConnectionError, TimeoutError, socket.gaierror)
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, offline):
            return (
                f"{name} is not in the Hugging Face cache, and the Hub cannot be reached: give a local folder, "
                f"or download the model into the cache when online (hf download {name})"
            )
        cause = cause.__cause__ or cause.__context__
    if is_out_of_memory(error):
        return f"out of memory while loading {name}; free some, or choose a smaller model or --device cpu"
    message = shortened(str(error), 1000) or type(error).__name__
    return f"cannot load the model {name} ({ONLY_SAFETENSORS}): {message}"


def _digest(folder: Path) -> str:
    """A digest of the names and contents of a model's files."""
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.suffix in PARTS and path.is_file()):
        with path.open("rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
        digest.update(f"{path.relative_to(folder).as_posix()} {content}\n".encode())
    return f"sha256:{digest.hexdigest()}"
