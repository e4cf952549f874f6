"""A trained classifier in the format of the Hugging Face Hub: weights, config.json, a model card."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import numpy as np
import torch
from huggingface_hub import ModelCard, PyTorchModelHubMixin
from torch import Tensor

from emoreg.config.normalisation import MEAN, STD
from emoreg.config.read_recipe import build
from emoreg.config.schema import BackboneSettings, Fit, RegulationSettings, TargetSettings, Task
from emoreg.data.images.decode import decode
from emoreg.errors import SettingError, UserError, is_plain, shortened
from emoreg.inference.export.model_card import CARD, CONFIG
from emoreg.inference.load import LoadedRun
from emoreg.inference.predict import Images, find_images
from emoreg.inference.temperature import checked_temperature
from emoreg.models.backbones import build_backbone
from emoreg.models.gradient_budget import GradientScale
from emoreg.models.regulation import RegulatedClassifier, Response
from emoreg.runs.readers import refuse_non_finite
from emoreg.runs.run import WEIGHTS
from emoreg.runtime.safe_io import read_bounded, read_json, require_regular

MAX_CARD_BYTES = 2**20
REGULATION = ("mode", "granularity", "mix", "lam")  # settings in config.json
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
    """A regulated classifier that is built from config.json alone.

        model = RegulatedModel.from_pretrained("exported/")          # or "owner/name" on the Hub
        response = model.respond(model.prepare(["photo.jpg"]))
        model.classes[response.logits[0].argmax()]

    `from_pretrained`, `save_pretrained` and `push_to_hub` come from the mixin, with three differences: weights that do
    not fit raise an error, pickled weights are not loaded, and the card of a folder is kept.

    Args:
        backbone: architecture, the fields of `BackboneSettings`.
        classes: K names, in the order of the logits.
        image_size: S, side of the square input in pixels.
        encoder: architecture of the emotional encoder, the fields of `BackboneSettings`; None if and only if the mode
            is "none".
        regulation: mode, granularity, mix and lam of `RegulationSettings`; lam is λ before training.
        freeze_encoder: whether further training leaves the encoder unchanged.
        mean: mean of each colour, of values in [0, 1]; subtracted from the pixels.
        std: standard deviation of each colour, of values in [0, 1]; the pixels are divided by it.
        fit: how images are made square; see `TargetSettings`.
        task: what is predicted, as for `RegulatedClassifier`. If not classes, `classes` names the labels or values.
        temperature: T in [0.01, 100] that the regulated logits are divided by in evaluation mode; None for none.
        unknown: keys of a config.json from a later version; refused.

    Raises:
        UserError: the values do not describe a classifier, for example in an edited config.json.
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
        fit: Fit = "crop",
        task: Task = "classification",
        temperature: float | None = None,
        **unknown: object,
    ) -> None:
        try:
            if unknown:
                raise ValueError(f"unknown key '{shortened(next(iter(unknown)))}'; a later emoreg may have written it")
            _check_classes(classes)
            _check_input(image_size, fit, mean, std)
            if temperature is not None and task != "classification":
                raise ValueError("temperature must be null for anything but a classification")
            temperature = None if temperature is None else checked_temperature(temperature)
            settings = _settings("regulation", RegulationSettings(), regulation or {})
            super().__init__(
                build_backbone(_architecture_of("backbone", backbone), image_size),
                None if encoder is None else build_backbone(_architecture_of("encoder", encoder), image_size),
                len(classes),
                mode=settings.mode,
                granularity=settings.granularity,
                mix=settings.mix,
                lam=settings.lam,
                freeze_encoder=freeze_encoder,
                task=task,
            )
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise UserError(f"config.json does not describe a classifier: {shortened(str(error), 300)}") from None
        self.classes, self.image_size = tuple(classes), image_size
        self.mean, self.std, self.fit = tuple(mean), tuple(std), fit
        self.temperature = temperature
        if temperature is None and isinstance(self._hub_mixin_config, dict):
            self._hub_mixin_config.pop("temperature", None)  # versions of emoreg without this key read it then
        self.card: str | None = None  # the text of README.md

    @classmethod
    def of(cls, loaded: LoadedRun, temperature: float | None = None) -> RegulatedModel:
        """Build the classifier of a run with its weights, in evaluation mode, with its logits divided by a temperature.

        Args:
            loaded: the run.
            temperature: T; None for none.
        """
        recipe = loaded.recipe
        mode = recipe.regulation.mode
        model = cls(
            backbone=_architecture(recipe.encoder_backbone if mode == "transfer" else recipe.backbone),
            classes=list(loaded.classes),
            image_size=loaded.image_size,
            encoder=_architecture(recipe.encoder_backbone) if recipe.has_two_responses else None,
            regulation={name: getattr(recipe.regulation, name) for name in REGULATION} | {"mode": loaded.model.mode},
            freeze_encoder=recipe.encoder.frozen,
            mean=list(MEAN),
            std=list(STD),
            fit=loaded.fit,
            task=loaded.model.task,
            temperature=temperature,
        )
        model.load_state_dict(loaded.model.state_dict())
        return model.eval()

    def respond(
        self, images: Any, emotional_features: Tensor | None = None, scale: GradientScale | None = None
    ) -> Response:
        """As `RegulatedClassifier.respond`; in evaluation mode the regulated logits are divided by `temperature`."""
        response = super().respond(images, emotional_features, scale)
        if self.temperature is None or self.training:
            return response
        return response._replace(logits=response.logits / self.temperature)

    def prepare(self, images: Images) -> Tensor:
        """Decode images, turn them upright, make them square as `fit` says, and normalise them, as in training.

        Args:
            images: B images, as for `predict`: paths, contents of files, Pillow images, or pixels. The same image gives
                the same values in every form (for large JPEG files see `upright`).

        Returns:
            float32 (B, 3, S, S).

        Raises:
            UserError: an image cannot be decoded.
        """
        squares = [decode(image, self.image_size, self.fit) for image in find_images(images)]
        pixels = torch.from_numpy(np.stack(squares)).permute(0, 3, 1, 2).float() / 255
        mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (self.mean, self.std))
        return (pixels - mean) / std

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | Path, **options: Any) -> RegulatedModel:
        """Load a model from a folder or the Hub, without unpickling anything.

        Args:
            pretrained_model_name_or_path: a folder, or "owner/name" on the Hub.
            options: options of the mixin: revision, token, local_files_only, ...

        Raises:
            UserError: the model is missing, damaged or from a later emoreg; its weights do not fit or are not finite.
        """
        where = pretrained_model_name_or_path
        try:
            if Path(where).is_dir():
                for name in (CONFIG, WEIGHTS):
                    require_regular(Path(where) / name)
                if not isinstance(read_json(Path(where) / CONFIG), dict):
                    raise ValueError(f"{CONFIG} must be a mapping of names to values")
            model: RegulatedModel = super().from_pretrained(where, **options)
        except UserError as error:
            raise UserError(f"{where}: {error}") from None
        except Exception as error:  # from the Hub, JSON, safetensors or torch
            reason = str(error)
            if isinstance(error, OSError) and error.filename and error.strerror:
                reason = f"{Path(error.filename).name}: {error.strerror}"
            raise UserError(f"{where} cannot be loaded as a classifier: {shortened(reason, 300)}") from None
        refuse_non_finite(where, model.state_dict())
        return model.eval()  # huggingface_hub before 1.9 leaves it in training mode, after `_from_pretrained` too

    @classmethod
    def _from_pretrained(cls, *, model_id: str, strict: bool = True, **options: Any) -> RegulatedModel:
        """Load as the mixin does, but require that the weights fit, and keep the card of a folder."""
        model: RegulatedModel = super()._from_pretrained(model_id=model_id, strict=strict, **options)
        card = Path(model_id) / CARD
        if card.is_file():
            model.card = read_bounded(card, MAX_CARD_BYTES).decode()
        return model

    @classmethod
    def _load_as_pickle(cls, model: object, model_file: str, map_location: str, strict: bool) -> NoReturn:
        """Refuse pickled weights: the mixin falls back to pytorch_model.bin on the Hub."""
        raise UserError(f"there is no {WEIGHTS}, and other formats are not loaded because they may contain code")

    def generate_model_card(self, *arguments: Any, **options: Any) -> ModelCard:
        """Return the card that the model was loaded with, or else the card of the mixin."""
        return ModelCard(self.card) if self.card else super().generate_model_card(*arguments, **options)


def _check_classes(classes: Any) -> None:
    """Raise ValueError unless `classes` is a list of printable names."""
    if not isinstance(classes, list | tuple) or not classes:
        raise ValueError("classes must be a list of names")
    if not all(isinstance(name, str) and is_plain(name) for name in classes):
        raise ValueError("classes must be names, without control characters")


def _check_input(image_size: Any, fit: Any, mean: Any, std: Any) -> None:
    """Raise ValueError unless the values describe how images are prepared."""
    if type(image_size) is not int:
        raise ValueError(f"image_size must be a whole number, not {shortened(repr(image_size))}")
    TargetSettings(image_size=image_size, fit=fit)  # checks them
    for name, values in (("mean", mean), ("std", std)):
        is_three = isinstance(values, list | tuple) and len(values) == 3
        if not is_three or not all(type(value) in (int, float) and abs(value) < math.inf for value in values):
            raise ValueError(f"{name} must be three numbers")
    if min(std) <= 0:
        raise ValueError("std must be above 0")


def _settings(name: str, defaults: S, values: dict[str, Any]) -> S:
    """Parse a section of config.json. Raise SettingError for a wrong value or an unknown key."""
    if not isinstance(values, dict):
        raise SettingError(name, "must be a mapping of keys to values")
    try:
        settings: S = build(defaults, values)
    except SettingError as error:
        raise error.within(name) from None
    return settings


def _architecture_of(name: str, values: dict[str, Any]) -> BackboneSettings:
    """Parse an architecture of config.json. Nothing is downloaded, whatever it says: the weights come with it."""
    return _settings(name, BackboneSettings(), values).untrained


def _architecture(settings: BackboneSettings) -> dict[str, Any]:
    """Convert an architecture for config.json, without settings of initial weights: the weights come with it."""
    return dataclasses.asdict(dataclasses.replace(settings.untrained, zero_gamma=None))
