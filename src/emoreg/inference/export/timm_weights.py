"""Export an emotional encoder alone, as weights for timm."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, NamedTuple

from torch import nn

from emoreg.config.normalisation import MEAN, STD
from emoreg.config.recipe import PretrainRecipe, Recipe
from emoreg.config.schema import BackboneSettings, Fit
from emoreg.errors import UserError
from emoreg.inference.export.graphs import max_difference
from emoreg.inference.export.model_card import encoder_card, write_description
from emoreg.inference.export.preparation import preparation
from emoreg.inference.load import load_run
from emoreg.models.backbones import build_backbone, timm_arguments
from emoreg.models.features import num_features
from emoreg.models.our_networks import OURS
from emoreg.runs.run import WEIGHTS, Run
from emoreg.stages.pretrain import encoder_architecture, load_encoder

LOAD_FILE = "from safetensors.torch import load_file"
LOAD = 'encoder.load_state_dict(load_file("model.safetensors"))\nencoder.eval()'
FEATURES = "\nwith torch.no_grad():\n    features = encoder(torch.from_numpy(pixels))"


class Loader(NamedTuple):
    """Code that loads exported weights."""

    imports: str  # imports for `code`
    code: str  # Python code that makes `encoder` from model.safetensors
    note: str  # a sentence about the code
    is_timm: bool  # whether `timm.create_model` alone can load them


def write_encoder(folder: Path, to: Path) -> tuple[float, str]:
    """Write the emotional encoder of a run of either stage, reload it, and compare its features.

    Args:
        folder: the run.
        to: folder for model.safetensors, config.json and the card.

    Returns:
        The largest difference, and what was compared, in words.

    Raises:
        UserError: the run is not finished or has no emotional encoder, or the features differ.
    """
    from safetensors.torch import load_file, save_file

    recipe, encoder, settings, size = _encoder_of(folder)
    settings = dataclasses.replace(settings, drop_path=0.0, zero_gamma=None)  # for training only, without weights
    # Cloned, because safetensors does not support tensors that share memory.
    save_file({key: value.contiguous().clone() for key, value in encoder.state_dict().items()}, to / WEIGHTS)
    loader = timm_loader(settings, encoder, size)
    library = "timm" if loader.is_timm else "emoreg"
    fit = recipe.stimuli.fit if isinstance(recipe, PretrainRecipe) else recipe.target.fit
    use = preparation(size, loader.imports, fit) + loader.code + FEATURES
    card = encoder_card(folder, recipe, settings, size, fit, use, loader.note, library)
    write_description(to, _config(settings, num_features(encoder), size, fit, loader.is_timm), card)
    if loader.is_timm:
        import timm

        arguments = timm_arguments(settings, size)
        again = timm.create_model(settings.name, num_classes=0, checkpoint_path=str(to / WEIGHTS), **arguments)
    else:
        again = build_backbone(settings, size)
        again.load_state_dict(load_file(to / WEIGHTS))
    encoder.eval()
    again.eval()
    difference = max_difference(lambda images: [encoder(images)], lambda images: [again(images)], size)
    return difference, "features of the reloaded encoder"


def _config(settings: BackboneSettings, width: int, image_size: int, fit: Fit, is_timm: bool) -> dict[str, Any]:
    """The content of config.json, in timm's format if timm alone can build the encoder."""
    inputs = {"input_size": [3, image_size, image_size], "mean": list(MEAN), "std": list(STD)}
    if not is_timm:
        return {"architecture": settings.name, "stem": settings.stem, "num_features": width, "fit": fit, **inputs}
    arguments = timm_arguments(settings, image_size)
    fixed = "img_size" in arguments
    model = {"architecture": settings.name, "num_classes": 0, "num_features": width, "model_args": arguments}
    inputs |= {"fixed_input_size": fixed, "interpolation": "bicubic", "crop_pct": 1.0, "num_classes": 0}
    inputs["crop_mode"] = "border" if fit == "pad" else "center"  # timm's bars have the mean colour too
    return model | {"pretrained_cfg": inputs}


def _encoder_of(folder: Path) -> tuple[Recipe, nn.Module, BackboneSettings, int]:
    """Recipe, emotional encoder, architecture and input size of a run of either stage."""
    run = Run(folder)
    recipe = run.recipe
    if isinstance(recipe, PretrainRecipe):
        return recipe, load_encoder(folder), encoder_architecture(folder), recipe.stimuli.image_size
    loaded = load_run(folder)
    if loaded.model.encoder is None:
        mode = loaded.recipe.regulation.mode
        raise UserError(f"{folder} has no emotional encoder (regulation.mode {mode}); export it as hub, onnx or torch")
    settings = loaded.recipe.encoder_backbone.untrained  # the weights come from the run
    return loaded.recipe, loaded.model.encoder, settings, loaded.image_size


def timm_loader(settings: BackboneSettings, encoder: nn.Module, image_size: int) -> Loader:
    """Write the code that loads the weights of an encoder."""
    if settings.name in OURS:
        imports, backbone = ["import emoreg, torch"], f'"{settings.name}"'
        if settings.width is not None:
            imports.append("from emoreg.config.schema import BackboneSettings")
            backbone = f"BackboneSettings({backbone}, width={settings.width})"
        imports.append(LOAD_FILE)
        code = f"encoder = emoreg.build_backbone({backbone})\n{LOAD}"
        note = f"timm does not have {settings.name}; emoreg builds it."
        return Loader("\n".join(imports), code, note, is_timm=False)
    import timm

    more = "".join(f", {key}={value!r}" for key, value in timm_arguments(settings, image_size).items())
    if settings.stem == "cifar" and isinstance(encoder, timm.models.resnet.ResNet):
        stem: Any = encoder.conv1
        code = (
            f'encoder = timm.create_model("{settings.name}", num_classes=0{more})\n'
            f"encoder.conv1 = torch.nn.Conv2d(3, {stem.out_channels}, 3, stride=1, padding=1, bias=False)\n"
            f"encoder.maxpool = torch.nn.Identity()\n{LOAD}"
        )
        note = "Unlike in timm, its stem is for small images (3x3, stride 1, no max-pool)."
        return Loader(f"import timm, torch\n{LOAD_FILE}", code, note, is_timm=False)
    code = (
        f'encoder = timm.create_model("{settings.name}", num_classes=0, checkpoint_path="model.safetensors"{more})\n'
        "encoder.eval()"
    )
    note = "timm reads config.json too: `timm.create_model('local-dir:DIR', pretrained=True)`, or 'hf-hub:OWNER/NAME'."
    return Loader("import timm, torch", code, note, is_timm=True)
