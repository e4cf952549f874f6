"""Settings of image-to-image diffusion, apart from `diffuse`, so that the command line needs no torch for its help."""

from __future__ import annotations

import re
from dataclasses import dataclass

from emoreg.config.rules import check_at_least, check_rule
from emoreg.config.training import Device
from emoreg.errors import SettingError

MODEL = "stable-diffusion-v1-5/stable-diffusion-v1-5"  # (ours) open weights, small, and widely used in research
MULTIPLE = 16  # pixels; latent models divide the sides of an image by 8, some by 16
GUIDANCE = 7.5  # default of diffusers, used with a prompt
NO_GUIDANCE = 1.0  # diffusers applies guidance above 1


@dataclass(frozen=True)
class DiffuseSettings:
    """How variants of images are generated.

    Raises:
        SettingError: value out of range.
    """

    strength: float = 0.5
    """Share of the noise schedule that the source is put through, in (0, 1]; at 1 nothing of the source remains, and
    its label no longer applies."""
    per_image: int = 4
    """Variants of each source; may be raised later, existing variants are kept."""
    prompt: str = ""
    """Text prompt; {emotion} stands for the category of the source. Default: none, only the image guides."""
    guidance: float | None = None
    """Classifier-free guidance scale; up to 1 turns guidance off. Default: 7.5 with a prompt, 1 without."""
    steps: int = 50
    """Denoising steps from pure noise; strength * steps of them are done."""
    size: int = 512
    """Side of the square images in pixels, a multiple of 16; best is the size that the model was trained at."""
    seed: int = 0
    """Seed of the noise, and of the choice of sources under a limit."""
    limit: int | None = None
    """Use at most this many sources, drawn by seed; may be raised later. Default: all."""
    revision: str | None = None
    """Branch, tag or commit of a model on the Hub; its commit is recorded and used on resuming. Default: the newest."""
    batch_size: int = 4
    """Images per batch on an accelerator. On a CPU it is always one: larger batches are no faster there and round
    differently."""
    device: Device = "auto"
    """Device to run on; auto is the first accelerator, or else the CPU."""
    skip_unreadable: bool = False
    """Skip and count sources that cannot be decoded, instead of stopping at the first."""

    @property
    def guidance_scale(self) -> float:
        """`guidance`, or its default."""
        if self.guidance is not None:
            return self.guidance
        return GUIDANCE if self.prompt else NO_GUIDANCE

    def __post_init__(self) -> None:
        check_at_least(1, self, "per_image", "steps", "batch_size", "limit")
        check_at_least(0, self, "guidance")
        check_rule(self, ("strength",), lambda share: 0 < share <= 1, "lie in (0, 1]")
        check_rule(
            self, ("size",), lambda size: size > 0 and size % MULTIPLE == 0, f"be a multiple of {MULTIPLE} pixels"
        )
        if int(self.strength * self.steps) < 1:
            raise SettingError(
                "strength", f"{self.strength:g} of {self.steps} steps is less than one step; raise either"
            )
        if not self.prompt.isprintable():
            raise SettingError("prompt", "must be one line of text")
        for word in re.findall(r"\{(.*?)\}", self.prompt):
            if word != "emotion":
                raise SettingError("prompt", f"has {{{word}}}; the only placeholder is {{emotion}}")
