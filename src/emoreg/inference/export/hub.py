"""A trained classifier as Hugging Face's Hub and its tools keep models: weights, config.json, a card."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import numpy as np
import torch
from huggingface_hub import ModelCard, PyTorchModelHubMixin
from PIL import Image
from torch import Tensor

from emoreg.config.recipe import build
from emoreg.config.schema import BackboneSettings, RegulationSettings, TargetSettings
from emoreg.data.images.augment import MEAN, STD
from emoreg.data.images.decode import decode, square
from emoreg.data.images.files import File
from emoreg.errors import SettingError, UserError, is_plain, shortened
from emoreg.inference.export.model_card import CARD, CONFIG
from emoreg.inference.load import LoadedRun
from emoreg.models.backbones import build_backbone
from emoreg.models.regulation import RegulatedClassifier
from emoreg.runs.readers import refuse_non_finite
from emoreg.runs.run import WEIGHTS
from emoreg.runtime.safe_io import read_bounded, read_json, require_regular

MAX_CARD_BYTES = 2**20
REGULATION = ("mode", "granularity", "mix", "lam")  # what of a recipe's regulation a trained classifier is made of
S = TypeVar("S", BackboneSettings, RegulationSettings)


class RegulatedModel(
    RegulatedClassifier,
    PyTorchModelHubMixin,
    library_name="emoreg",
    license="apache-2.0",
    pipeline_tag="image-classification",
    tags=["emotional-regulation", "arxiv:2606.13081"],
    paper_url="https://arxiv.org/abs/2606.13081",
):
    """A regulated classifier that is built from what config.json holds, and from nothing else.

        model = RegulatedModel.from_pretrained("exported/")          # or "owner/name" on the Hub
        response = model.respond(model.prepare(["photo.jpg"]))
        model.classes[response.logits[0].argmax()]

    `from_pretrained`, `save_pretrained` and `push_to_hub` are the mixin's, with three differences: weights that do not
    fit are an error, pickled ones are not loaded, and the card of a folder travels along.

    Args:
        backbone: its architecture, as `BackboneSettings`.
        classes: K names, in the order of the logits.
        image_size: S, side of the square input in pixels.
        encoder: architecture of the emotional encoder, as `BackboneSettings`; None exactly in mode "none".
        regulation: mode, granularity, mix and lam, as `RegulationSettings`; lam is that before training.
        freeze_encoder: whether further training leaves the encoder as it is.
        mean: of each colour in [0, 1], taken from pixels.
        std: of each colour in [0, 1], by which they are divided.
        unknown: of a config.json that a later emoreg wrote; refused.

    Raises:
        UserError: values that mean no classifier, such as those of a config.json that was edited.
    """

    def __init__(
        self,
        backbone: dict[str, Any],
        classes: Sequence[str],
        image_size: int,
        encoder: dict[str, Any] | None = None,
        regulation: dict[str, Any] | None = None,
        freeze_encoder: bool = False,
        mean: Sequence[float] = MEAN,
        std: Sequence[float] = STD,
        **unknown: object,
    ) -> None:
        try:
            _check(classes, image_size, mean, std, unknown)
            asked = _settings("regulation", RegulationSettings(), regulation or {})
            super().__init__(
                build_backbone(_architecture_of("backbone", backbone), image_size),
                None if encoder is None else build_backbone(_architecture_of("encoder", encoder), image_size),
                len(classes),
                mode=asked.mode,
                granularity=asked.granularity,
                mix=asked.mix,
                lam=asked.lam,
                freeze_encoder=freeze_encoder,
            )
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise UserError(f"config.json describes no classifier: {shortened(str(error), 300)}") from None
        self.classes, self.image_size = tuple(classes), image_size
        self.mean, self.std = tuple(mean), tuple(std)
        self.card: str | None = None  # the text of README.md

    @classmethod
    def of(cls, loaded: LoadedRun) -> RegulatedModel:
        """The classifier of a run, in evaluation; it has the run's weights."""
        recipe = loaded.recipe
        encoder = recipe.encoder.backbone or recipe.backbone
        model = cls(
            backbone=_architecture(recipe.backbone),
            classes=list(loaded.classes),
            image_size=loaded.image_size,
            encoder=None if recipe.regulation.mode == "none" else _architecture(encoder),
            regulation={name: getattr(recipe.regulation, name) for name in REGULATION},
            freeze_encoder=recipe.encoder.frozen,
            mean=list(MEAN),
            std=list(STD),
        )
        model.load_state_dict(loaded.model.state_dict())
        return model.eval()

    def prepare(self, images: Sequence[Path | str | Image.Image]) -> Tensor:
        """Images as the classifier was trained on them: float32 (B, 3, S, S).

        Decoded and turned upright, the shorter side resized to S, the middle square kept, normalised.

        Args:
            images: paths, or images of Pillow.

        Raises:
            UserError: a file that is no image.
        """
        squares = [
            square(image.convert("RGB"), self.image_size)
            if isinstance(image, Image.Image)
            else decode(File(Path(image).name, Path(image).parent), self.image_size)
            for image in images
        ]
        pixels = torch.from_numpy(np.stack(squares)).permute(0, 3, 1, 2).float() / 255
        mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (self.mean, self.std))
        return (pixels - mean) / std

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | Path, **options: Any) -> RegulatedModel:
        """As the mixin's, but what is wrong is told in one line, and nothing is unpickled.

        Args:
            pretrained_model_name_or_path: a folder, or "owner/name" on the Hub.
            options: of the mixin: revision, token, local_files_only, ...

        Raises:
            UserError: not there, damaged, of a later emoreg, or weights that do not fit or are no numbers.
        """
        where = pretrained_model_name_or_path
        try:
            if Path(where).is_dir():
                for name in (CONFIG, WEIGHTS):
                    require_regular(Path(where) / name)
                if not isinstance(read_json(Path(where) / CONFIG), dict):
                    raise ValueError(f"{CONFIG} is no mapping of names to values")
            model: RegulatedModel = super().from_pretrained(where, **options)
        except UserError as error:
            raise UserError(f"{where}: {error}") from None
        except Exception as error:  # of the Hub, of JSON, of safetensors, of torch
            reason = str(error)
            if isinstance(error, OSError) and error.filename and error.strerror:
                reason = f"{Path(error.filename).name}: {error.strerror}"
            raise UserError(f"{where} cannot be loaded as a classifier: {shortened(reason, 300)}") from None
        refuse_non_finite(where, model.state_dict())
        return model

    @classmethod
    def _from_pretrained(cls, *, model_id: str, strict: bool = True, **options: Any) -> RegulatedModel:
        """As the mixin's, but weights must fit, and a folder's card is kept."""
        model: RegulatedModel = super()._from_pretrained(model_id=model_id, strict=strict, **options)
        card = Path(model_id) / CARD
        if card.is_file():
            model.card = read_bounded(card, MAX_CARD_BYTES).decode()
        return model

    @classmethod
    def _load_as_pickle(cls, model: object, model_file: str, map_location: str, strict: bool) -> NoReturn:
        """In place of the mixin's, which takes pytorch_model.bin from the Hub where there is nothing else."""
        raise UserError(f"there is no {WEIGHTS}, and weights of other formats, which may hold code, are not loaded")

    def generate_model_card(self, *arguments: Any, **options: Any) -> ModelCard:
        """The card that the model came with; without one, the mixin's."""
        return ModelCard(self.card) if self.card else super().generate_model_card(*arguments, **options)


def _check(classes: Any, image_size: Any, mean: Any, std: Any, unknown: Mapping[str, object]) -> None:
    """ValueError for values of a config.json that mean no classifier."""
    if unknown:
        raise ValueError(f"unknown key '{shortened(next(iter(unknown)))}'; a later emoreg may have written it")
    if not isinstance(classes, list | tuple) or not classes:
        raise ValueError("classes must be a list of names")
    if not all(isinstance(name, str) and is_plain(name) for name in classes):
        raise ValueError("classes must be names, without control characters")
    if type(image_size) is not int:
        raise ValueError(f"image_size must be a whole number, not {shortened(repr(image_size))}")
    TargetSettings(image_size=image_size)  # which knows the limits
    for name, values in (("mean", mean), ("std", std)):
        if not isinstance(values, list | tuple) or len(values) != 3 or not all(map(_is_finite, values)):
            raise ValueError(f"{name} must be three numbers")
    if min(std) <= 0:
        raise ValueError("std must be above 0")


def _is_finite(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) < math.inf


def _settings(name: str, defaults: S, values: dict[str, Any]) -> S:
    """A section of config.json. SettingError if it has a wrong value or unknown key."""
    if not isinstance(values, dict):
        raise SettingError(name, "must be a mapping of keys to values")
    try:
        settings: S = build(defaults, values)
    except SettingError as error:
        raise error.within(name) from None
    return settings


def _architecture_of(name: str, values: dict[str, Any]) -> BackboneSettings:
    """An architecture of config.json. Nothing is downloaded whatever it says: the weights come with it."""
    return dataclasses.replace(_settings(name, BackboneSettings(), values), pretrained=False)


def _architecture(settings: BackboneSettings) -> dict[str, Any]:
    """Without `pretrained`: the weights come from the file, and nothing is to be downloaded for them."""
    return dataclasses.asdict(dataclasses.replace(settings, pretrained=False))
