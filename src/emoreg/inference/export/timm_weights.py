"""An emotional encoder alone, as weights that timm's models load."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from torch import nn

from emoreg.config.schema import BackboneSettings, TrainRecipe
from emoreg.data.images.augment import MEAN, STD
from emoreg.errors import UserError
from emoreg.inference.export.graphs import compare
from emoreg.inference.export.model_card import encoder_card, write_description
from emoreg.inference.load import load_run
from emoreg.models.backbones import CLASSIC_DEPTHS, build_backbone, num_features
from emoreg.runs.run import WEIGHTS, Run
from emoreg.stages.pretrain import encoder_architecture, load_encoder


def write_encoder(folder: Path, made: Path) -> tuple[float, str]:
    """Write the emotional encoder of a run of either stage, load it again, and compare its features.

    Args:
        folder: of the run.
        made: where model.safetensors, config.json and the card are written.

    Returns:
        The largest difference, and of what, in words.

    Raises:
        UserError: no finished run, no emotional encoder, or features that differ.
    """
    from safetensors.torch import load_file, save_file

    recipe, encoder, settings, size = _encoder_of(folder)
    # Cloned, as the format has no place for weights that share memory.
    save_file({key: value.contiguous().clone() for key, value in encoder.state_dict().items()}, made / WEIGHTS)
    use, note, is_timm = timm_loader(settings, encoder, size)
    config, arguments = _config(settings, num_features(encoder), size, is_timm), timm_arguments(settings, size)
    write_description(
        made, config, encoder_card(folder, recipe, settings, size, use, note, "timm" if is_timm else "emoreg")
    )
    if is_timm:
        import timm

        again = timm.create_model(settings.name, num_classes=0, checkpoint_path=str(made / WEIGHTS), **arguments)
    else:
        again = build_backbone(settings, size)
        again.load_state_dict(load_file(made / WEIGHTS))
    encoder.eval()
    again.eval()
    difference = compare(lambda images: [encoder(images)], lambda images: [again(images)], size)
    return difference, "features of the encoder loaded again"


def _config(settings: BackboneSettings, width: int, image_size: int, is_timm: bool) -> dict[str, Any]:
    """config.json, as timm reads it where timm alone can build the encoder."""
    seen = {"input_size": [3, image_size, image_size], "mean": list(MEAN), "std": list(STD)}
    if not is_timm:
        return {"architecture": settings.name, "stem": settings.stem, "num_features": width, **seen}
    arguments = timm_arguments(settings, image_size)
    seen |= {"fixed_input_size": "img_size" in arguments, "interpolation": "bicubic", "crop_pct": 1.0, "num_classes": 0}
    model = {"architecture": settings.name, "num_classes": 0, "num_features": width, "model_args": arguments}
    return model | {"pretrained_cfg": seen}


def _encoder_of(folder: Path) -> tuple[Any, nn.Module, BackboneSettings, int]:
    """Recipe, emotional encoder, its architecture and the side of its input, of a run of either stage."""
    run = Run(folder)
    if run.stage == 1:
        recipe: Any = run.recipe
        return recipe, load_encoder(folder), encoder_architecture(folder), recipe.stimuli.image_size
    loaded = load_run(folder)
    recipe, encoder = loaded.recipe, loaded.model.encoder
    assert isinstance(recipe, TrainRecipe)
    if encoder is None:
        raise UserError(f"{folder} has no emotional encoder (regulation.mode none); export it as hub, onnx or torch")
    settings = dataclasses.replace(recipe.encoder.backbone or recipe.backbone, pretrained=False)  # weights are here
    return recipe, encoder, settings, loaded.image_size


def timm_arguments(settings: BackboneSettings, image_size: int) -> dict[str, Any]:
    """What `timm.create_model` must be told beside the name, as `build_backbone` tells it."""
    arguments: dict[str, Any] = {}
    if settings.patch_size:
        arguments["patch_size"] = settings.patch_size
    if any(kind in settings.name for kind in ("vit", "deit", "swin")):
        arguments["img_size"] = image_size
    return arguments


def timm_loader(settings: BackboneSettings, encoder: nn.Module, image_size: int) -> tuple[str, str, bool]:
    """How an encoder's weights are loaded.

    Returns:
        Code in Python that makes `encoder` of model.safetensors; a sentence about it; and whether that is
        `timm.create_model` alone.
    """
    if settings.name in {f"resnet{depth}" for depth in CLASSIC_DEPTHS}:
        use = (
            "import emoreg\nfrom safetensors.torch import load_file\n\n"
            f'encoder = emoreg.build_backbone("{settings.name}")\n'
            'encoder.load_state_dict(load_file("model.safetensors"))\n'
            "encoder.eval()"
        )
        return use, "timm has no ResNet for 32x32 images (He et al. 2016, section 4.2): emoreg builds it.", False
    import timm

    named = "".join(f", {key}={value!r}" for key, value in timm_arguments(settings, image_size).items())
    if settings.stem == "cifar" and isinstance(encoder, timm.models.resnet.ResNet):
        stem: Any = encoder.conv1
        use = (
            "import timm, torch\nfrom safetensors.torch import load_file\n\n"
            f'encoder = timm.create_model("{settings.name}", num_classes=0{named})\n'
            f"encoder.conv1 = torch.nn.Conv2d(3, {stem.out_channels}, 3, stride=1, padding=1, bias=False)\n"
            "encoder.maxpool = torch.nn.Identity()\n"
            'encoder.load_state_dict(load_file("model.safetensors"))\n'
            "encoder.eval()"
        )
        return use, "Its stem is for small images (3x3, stride 1, no max-pool), which timm's is not.", False
    use = (
        "import timm\n\n"
        f'encoder = timm.create_model("{settings.name}", num_classes=0, checkpoint_path="model.safetensors"{named})\n'
        "encoder.eval()"
    )
    note = "timm reads config.json too: `timm.create_model('local-dir:DIR', pretrained=True)`, or 'hf-hub:OWNER/NAME'."
    return use, note, True
