"""Backbones named by the place of their weights, as in timm: `local-dir:FOLDER` and `hf-hub:OWNER/NAME[@REVISION]`.

Such a name is replaced by the architecture that its config.json describes and by the file of its weights, so that a
run's recipe says which network it was.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from emoreg.config.recipe import AnyRecipe, TrainRecipe
from emoreg.config.schema import BackboneSettings
from emoreg.config.setting_types import path_of
from emoreg.errors import SettingError, shortened
from emoreg.runtime.quiet_libraries import errors_only
from emoreg.runtime.safe_io import read_json

FOLDER, HUB = "local-dir:", "hf-hub:"
CONFIG = "config.json"
WEIGHTS = ("model.safetensors", "pytorch_model.bin")  # in timm's order
# Keys of config.json that do not matter for a network without a head that takes RGB images of the recipe's size.
UNUSED = ("num_classes", "img_size", "in_chans", "drop_rate", "num_features")


def with_sources(recipe: AnyRecipe) -> AnyRecipe:
    """Replace names of places in a recipe's backbones; see `resolve_source`."""
    recipe = replace(recipe, backbone=resolve_source(recipe.backbone))
    if isinstance(recipe, TrainRecipe) and recipe.encoder.backbone is not None:
        own = resolve_source(recipe.encoder.backbone, "encoder.backbone")
        recipe = replace(recipe, encoder=replace(recipe.encoder, backbone=own))
    return recipe


def is_source(name: str) -> bool:
    """Whether a backbone's name is the place of its weights."""
    return name.startswith((FOLDER, HUB))


def resolve_source(settings: BackboneSettings, section: str = "backbone") -> BackboneSettings:
    """Replace a backbone's name, if it is a place, by the architecture and the file of weights found there.

    Args:
        settings: with `pretrained` true if the name is a place.
        section: the recipe section of the settings, for errors.

    Raises:
        SettingError: the place is malformed, does not exist or cannot be reached; its config.json describes a network
            that no recipe can.
    """
    if not is_source(settings.name):
        return settings
    try:
        return _resolved(settings)
    except SettingError as error:
        raise error.within(section) from None


@cache
def _resolved(settings: BackboneSettings) -> BackboneSettings:
    name = settings.name
    folder = _folder(name.removeprefix(FOLDER)) if name.startswith(FOLDER) else _download(name.removeprefix(HUB))
    config = _read_config(folder / CONFIG)
    architecture = config["architecture"]
    if not settings.pretrained:
        reason = f"must be true with the name {name}, which stands for weights"
        raise SettingError("pretrained", f"{reason}; the architecture alone is called {architecture}")
    described = _described_settings(config, name)
    unset = {key: value for key, value in described.items() if getattr(settings, key) in (None, "auto")}
    weights = next((str(folder / file) for file in WEIGHTS if (folder / file).is_file()), None)
    if weights is None:
        raise SettingError("name", f"{folder} has no weights, neither {' nor '.join(WEIGHTS)}")
    return replace(settings, name=architecture, pretrained=False, weights=weights, **unset)


def _folder(place: str) -> Path:
    folder = path_of(place, "name")
    if not place or not folder.is_dir():
        raise SettingError("name", f"there is no folder {place or 'after ' + FOLDER}; {FOLDER} names one with {CONFIG}")
    return folder


def _download(place: str) -> Path:
    """Download a model's config.json and weights unless the Hub's cache has them; return their folder."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    repository, _, revision = place.partition("@")
    if repository.count("/") != 1:
        raise SettingError("name", f"'{HUB}{place}' is not of the form {HUB}OWNER/NAME or {HUB}OWNER/NAME@REVISION")
    try:
        with errors_only("huggingface_hub"):
            return Path(snapshot_download(repository, revision=revision or None, allow_patterns=[CONFIG, *WEIGHTS]))
    except HFValidationError:
        raise SettingError("name", f"'{shortened(repository)}' is not a valid name of a model on the Hub") from None
    except (HfHubHTTPError, OSError) as error:
        reason = shortened(str(error).strip().partition("\n")[0] or type(error).__name__, 200)
        remedy = "it is downloaded once, which needs a network or a filled Hugging Face cache"
        raise SettingError("name", f"{HUB}{place} cannot be loaded ({reason}); {remedy}") from None


def _read_config(path: Path) -> dict[str, Any]:
    """Read the config.json of a model, as timm and `emoreg export` write it."""
    if not path.is_file():
        raise SettingError("name", f"there is no {CONFIG} in {path.parent}, as timm and emoreg export write it")
    try:
        config = read_json(path)
    except (OSError, ValueError) as error:
        reason = shortened(str(error), 200)
        raise SettingError("name", f"{path} cannot be read as the description of a model: {reason}") from None
    if not isinstance(config, dict) or not isinstance(config.get("architecture"), str):
        raise SettingError("name", f"{path} does not name a timm architecture")
    if not isinstance(config.get("model_args", {}), Mapping):
        raise SettingError("name", f"model_args of {path} must be an object")
    return config


def _described_settings(config: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The settings of the backbone that config.json describes."""
    settings: dict[str, Any] = {"stem": config.get("stem", "imagenet")}  # the only stem that timm has
    for key, value in config.get("model_args", {}).items():
        if key in ("patch_size", "class_token"):
            settings[key] = value
        elif key == "embed_dim":
            settings["width"] = value
        elif key == "global_pool" and value in ("token", "avg"):
            if config["architecture"].startswith("vit"):  # other architectures only have avg
                settings["pool"] = "average" if value == "avg" else "token"
        elif key not in UNUSED:
            raise SettingError("name", f"{name} is built with {key}: {shortened(str(value))}, which recipes lack")
    return settings
