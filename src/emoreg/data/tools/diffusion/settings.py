"""Settings of image-to-image diffusion. Apart from `diffuse`, so that the command line needs no torch for its help."""

from __future__ import annotations

import re
from dataclasses import dataclass

from emoreg.config.training import Device
from emoreg.errors import SettingError

MODEL = "stable-diffusion-v1-5/stable-diffusion-v1-5"  # (ours) open weights, small, and the field's common ground
MULTIPLE = 16  # pixels; latent models divide the sides of an image by 8, and some by 2 once more


@dataclass(frozen=True)
class DiffuseSettings:
    """How variants of images are generated.

    Raises:
        SettingError: value out of range.
    """

    strength: float = 0.5
    """Share of the noise schedule that the source is pushed through, in (0, 1]; at 1 nothing of the source is left,
    nor any ground for its label."""
    per_image: int = 4
    """Variants of each source; may be raised later, existing variants are kept."""
    prompt: str = ""
    """Text prompt; {emotion} stands for the category of the source. Default: none, the image alone guides."""
    guidance: float | None = None
    """Classifier-free guidance scale; up to 1 turns guidance off. Default: 7.5 with a prompt, 1 without."""
    steps: int = 50
    """Denoising steps from pure noise, of which strength * steps are done."""
    size: int = 512
    """Side of the square images in pixels, a multiple of 16; best is the size that the model was trained at."""
    seed: int = 0
    """Seed of the noise, and of the choice of sources under a limit."""
    limit: int | None = None
    """Use at most this many sources, drawn by seed; may be raised later. Default: all."""
    revision: str | None = None
    """Branch, tag or commit of a model on the Hub; its commit is recorded and kept. Default: the newest."""
    batch_size: int = 4
    """Images per batch on an accelerator. A CPU always takes one: larger batches are no faster there and round
    differently."""
    device: Device = "auto"
    """Device to run on; auto takes the first accelerator."""
    skip_unreadable: bool = False
    """Skip and count sources that cannot be decoded, instead of stopping at the first."""

    def __post_init__(self) -> None:
        for key in ("per_image", "steps", "batch_size", "limit"):
            value = getattr(self, key)
            _require(value is None or value >= 1, key, f"must be at least 1, not {value}")
        _require(0 < self.strength <= 1, "strength", f"must lie in (0, 1], not {self.strength:g}")
        _require(
            int(self.strength * self.steps) >= 1,
            "strength",
            f"{self.strength:g} of {self.steps} steps is less than one step; raise either",
        )
        _require(
            self.guidance is None or self.guidance >= 0, "guidance", f"must not be negative, and is {self.guidance}"
        )
        is_multiple = self.size >= MULTIPLE and self.size % MULTIPLE == 0
        _require(is_multiple, "size", f"must be a multiple of {MULTIPLE} pixels, not {self.size}")
        _require(self.prompt.isprintable(), "prompt", "must be one line of text")
        for word in re.findall(r"\{(.*?)\}", self.prompt):
            _require(word == "emotion", "prompt", f"has {{{word}}}; the only placeholder is {{emotion}}")


def _require(condition: bool, key: str, reason: str) -> None:
    if not condition:
        raise SettingError(key, reason)
