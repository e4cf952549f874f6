from __future__ import annotations

import dataclasses
import json
import re
import shutil
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from huggingface_hub import ModelCard
from PIL import Image
from torch import Tensor, nn

from emoreg.cli.main import main
from emoreg.config.loss import LossSettings
from emoreg.config.normalisation import STD
from emoreg.config.read_recipe import recipe_yaml
from emoreg.config.recipe import PretrainRecipe, Recipe
from emoreg.config.schema import (
    BackboneSettings,
    EncoderSettings,
    Fit,
    Granularity,
    Mixing,
    Mode,
    RegulationSettings,
    StimuliSettings,
)
from emoreg.data.images.augment import normalise
from emoreg.data.images.decode import decode
from emoreg.data.images.files import File
from emoreg.inference.calibrate import calibrate
from emoreg.inference.export import graphs, timm_weights
from emoreg.inference.export.export import Format, _metadata, export
from emoreg.inference.export.graphs import (
    OUTPUTS,
    ExportableClassifier,
    load_onnx,
    max_difference,
    save_onnx,
    save_program,
)
from emoreg.inference.export.hub import RegulatedModel
from emoreg.inference.export.model_card import classifier_card, encoder_card
from emoreg.inference.export.preparation import preparation
from emoreg.inference.load import load_run
from emoreg.models.regulation import RegulatedClassifier
from emoreg.runs.run import RECIPE, Run
from emoreg.runtime.progress import Progress
from emoreg.stages.classify import train
from inference.combinations import COMBINATIONS
from odd_images import write_odd_images
from refusing import refusal
from result_rows import results, stage_2
from tiny_backbone import TinyBackbone
from trained_runs import CLASSIFIER

needs_onnx = pytest.mark.extra("export")
ROOT = Path(__file__).parents[3]


def run_card(folder: Path, image: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Run the code on a card in its folder, with `image` as photo.jpg, and return the variables that it sets."""
    card = (folder / "README.md").read_text(encoding="utf-8")
    [code] = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    assert code.count('"photo.jpg"') == 1
    names: dict[str, Any] = {}
    monkeypatch.chdir(folder)
    exec(code.replace('"photo.jpg"', repr(str(image))), names)
    return names


def decoded(image: Path, size: int) -> Tensor:
    """Decode an image as in training, float32 (1, 3, S, S)."""
    return normalise(torch.from_numpy(decode(File(image.name, image.parent), size).copy()).permute(2, 0, 1)[None])


ODD = (  # one of each kind, as each loads a network; cards of encoders are cheaper and are tested with all images
    *("plain.png", "turned-6.jpg", "large.jpg", "transparent.png", "palette-transparent.png", "grey.png", "grey16.png"),
    *("cmyk.jpg", "moving.gif"),
)
TWO_LEVELS = 2 / 255 / min(STD)  # how much rounding by Pillow and torch may differ in a normalised pixel


def smallest(mode: Mode, granularity: Granularity, mix: Mixing, lam: float) -> RegulatedClassifier:
    encoder = None if mode == "none" else TinyBackbone(5)
    model = RegulatedClassifier(TinyBackbone(), encoder, 3, mode, granularity, mix, lam)
    if encoder is not None and isinstance(model.regulation.gate, nn.Linear):
        model.regulation.gate.weight.data.normal_()
    return model.eval()


class Together(nn.Module):
    """Classifiers of every kind in one network, because each export takes seconds."""

    def __init__(self) -> None:
        super().__init__()
        kinds = [ExportableClassifier(smallest(*kind)) for kind in COMBINATIONS]
        self.kinds = nn.ModuleList(kinds)
        self.names = tuple(f"{name}_{number}" for number, kind in enumerate(kinds) for name in kind.names)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        return tuple(output for kind in self.kinds for output in kind(images))


@pytest.fixture(scope="module")
def together() -> Together:
    return Together().eval()


@needs_onnx
def test_onnx_of_every_kind_gives_the_same_outputs_in_batches_of_any_size(together: Together, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    save_onnx(cast(ExportableClassifier, together), 8, path, {"classes": ["cat", "λ"]})
    assert max_difference(together, load_onnx(path), 8) <= 1e-4

    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    assert tuple(output.name for output in session.get_outputs()) == together.names
    assert session.get_modelmeta().custom_metadata_map == {"classes": json.dumps(["cat", "λ"])}


def test_the_outputs_of_a_plain_classifier_are_two_tensors_since_onnx_names_tensors() -> None:
    with torch.no_grad():
        logits, non_emotional = ExportableClassifier(smallest("none", "scalar", "logits", 0.5))(torch.randn(2, 3, 8, 8))
    assert logits.equal(non_emotional) and logits.data_ptr() != non_emotional.data_ptr()


def test_a_program_of_every_kind_gives_the_same_outputs_in_batches_of_any_size(
    together: Together, tmp_path: Path
) -> None:
    path = tmp_path / "model.pt2"
    save_program(cast(ExportableClassifier, together), 8, path, {"image_size": 8})
    kept = {graphs.METADATA: ""}
    network = torch.export.load(path, extra_files=kept).module()
    assert max_difference(together, network, 8) <= 1e-4
    assert json.loads(kept[graphs.METADATA]) == {"image_size": 8}


def test_outputs_have_the_batch_dimension_first() -> None:
    for mode, granularity, mix, lam in COMBINATIONS:
        network = ExportableClassifier(smallest(mode, granularity, mix, lam))
        outputs = dict(zip(network.names, network(torch.zeros(4, 3, 8, 8)), strict=True))
        assert tuple(outputs) == (OUTPUTS if mode != "none" else OUTPUTS[:2])
        assert all(outputs[name].shape == (4, 3) for name in outputs if name != "lam")
        if mode != "none":
            assert outputs["lam"].shape == (4, 3 if granularity == "per_class" else 1)
        if mode == "random":
            assert (outputs["lam"] == 0.5).all()  # the mean of U(0, 1)


def test_a_difference_or_nan_is_found() -> None:
    def constant(value: float) -> Callable[[Tensor], list[Tensor]]:
        return lambda images: [torch.full((len(images), 2), value)]

    assert max_difference(constant(1.0), constant(1.00005), 8) == pytest.approx(5e-5, rel=0.1)
    assert "1.0e-03" in refusal(lambda: max_difference(constant(1.0), constant(1.001), 8))
    assert "nan" in refusal(lambda: max_difference(constant(1.0), constant(float("nan")), 8))


@pytest.mark.parametrize("format", ["hub", pytest.param("onnx", marks=needs_onnx), "torch"])
def test_the_code_on_the_card_predicts_like_the_run_for_images_of_every_kind(
    format: str,
    runs: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = str(tmp_path / "out")
    assert main(["export", str(runs / "learned"), "--to", out, "--format", format, "--quiet"]) == 0
    printed = capsys.readouterr().out
    file = {"hub": "model.safetensors", "onnx": "model.onnx", "torch": "model.pt2"}[format]
    assert re.search(r"largest difference of the .*: \d\.\de[+-]\d\d \(allowed: 1e-04\)", printed)
    assert f"done: {out} (README.md, config.json, {file})" in printed
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert len(config["classes"]) == 10 and config["image_size"] == 8
    assert format == "hub" or config["outputs"] == list(OUTPUTS)

    from emoreg.inference.predict import predict

    images = [image for image in write_odd_images(tmp_path / "odd") if image.name in ODD]
    for image, expected in zip(images, predict(load_run(runs / "learned"), images, device="cpu"), strict=True):
        found = run_card(tmp_path / "out", image, monkeypatch)
        logits = found["response"].logits if format == "hub" else torch.as_tensor(found["logits"])
        given = logits.softmax(dim=1)[0].detach().numpy()
        assert given == pytest.approx(expected.regulated.probabilities, abs=1e-3), image.name
        if format != "hub":
            apart = (torch.from_numpy(found["pixels"]) - decoded(image, 8)).abs().max()
            assert apart <= TWO_LEVELS, image.name


def test_the_card_has_the_numbers_and_metadata_of_the_run(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    final = Run(runs / "learned").final
    assert final["target"] == {"classes": 10, "is_published_test": False}  # digits have no published test split
    export(runs / "learned", tmp_path / "unpublished", "hub")
    unpublished = ModelCard.load(tmp_path / "unpublished" / "README.md")
    assert unpublished.data.eval_results is None and "model-index" not in unpublished.content
    assert "Target: digits, 10 classes, at most 64 training images, 8 pixels." in " ".join(unpublished.text.split())
    monkeypatch.setattr(Run, "final", {**final, "target": {"classes": 10, "is_published_test": True}})
    export(runs / "learned", tmp_path / "out", "hub")
    card = ModelCard.load(tmp_path / "out" / "README.md")
    test = Run(runs / "learned").final["test"]
    assert card.data.license == "apache-2.0" and "emotional-regulation" in card.data.tags
    assert card.data.eval_results[0].metric_value == pytest.approx(test["accuracy"], abs=1e-6)
    assert f"| Test accuracy, emotional response alone | {100 * test['accuracy_emotional']:.2f} % |" in card.text
    assert "pre-trained on affective images (procedural)" in card.text
    assert "| Epochs | 1 |" in card.text and re.search(r"λ: 0\.\d\d \(Learn-E-Reg, mixing probabilities\)\.", card.text)
    assert "do not say whether emotion helps" in " ".join(card.text.split())
    assert str(runs) not in card.content  # no path of this machine


def test_the_card_of_an_exploration_has_the_numbers_of_its_validation_images(tmp_path: Path, quiet: Progress) -> None:
    recipe = dataclasses.replace(
        CLASSIFIER,
        target=dataclasses.replace(CLASSIFIER.target, validation=0.5, test=False),
        regulation=RegulationSettings("learned", granularity="per_sample"),
    )
    validation = train(recipe, tmp_path / "run", progress=quiet).final["validation"]
    export(tmp_path / "run", tmp_path / "out", "hub")
    card = ModelCard.load(tmp_path / "out" / "README.md")
    accuracy = 100 * validation["accuracy"]
    assert f"| Validation accuracy, regulated response | {accuracy:.2f} % |" in card.text
    assert "over the validation images" in card.text and "| Test " not in card.text
    assert card.data.eval_results is None


def test_the_card_of_a_transfer_says_that_it_is_one_network_of_stage_1(
    runs: Path, tmp_path: Path, quiet: Progress
) -> None:
    recipe = dataclasses.replace(
        CLASSIFIER,
        backbone=BackboneSettings("resnet14"),
        encoder=EncoderSettings(experience=str(runs / "experience")),
        regulation=RegulationSettings("transfer"),
    )
    train(recipe, tmp_path / "run", progress=quiet)
    export(tmp_path / "run", tmp_path / "out", "hub")
    text = ModelCard.load(tmp_path / "out" / "README.md").text
    assert "A plain classifier" in text and "One network: resnet8, an encoder of stage 1" in text
    assert "resnet14" not in text and "λ: " not in text
    assert json.loads((tmp_path / "out" / "config.json").read_text())["backbone"]["name"] == "resnet8"


def test_the_card_of_two_networks_trained_apart_does_not_call_them_regulated(
    runs: Path, tmp_path: Path, quiet: Progress
) -> None:
    recipe = dataclasses.replace(
        CLASSIFIER,
        encoder=EncoderSettings(experience=str(runs / "experience")),
        regulation=RegulationSettings("fixed"),
        loss=LossSettings(regulated=0, non_emotional=1, emotional=1),
    )
    train(recipe, tmp_path / "run", progress=quiet)
    export(tmp_path / "run", tmp_path / "out", "hub")
    text = ModelCard.load(tmp_path / "out" / "README.md").text
    assert "A two-network classifier" in text and "Second network: resnet8, trained further in stage 2" in text
    assert "the prediction is the mean of their probabilities" in text and "λ: " not in text


def test_the_card_of_a_gated_run_has_the_mean_lambda_of_the_images(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    final = Run(runs / "gated").final
    old = {**final, "lambda": [0.5], "test": {**final["test"], "lambda": 0.3711}}  # the gate at features of zero
    monkeypatch.setattr(Run, "final", old)
    export(runs / "gated", tmp_path / "out", "hub")
    text = ModelCard.load(tmp_path / "out" / "README.md").text
    assert "λ: one per image from a gate on both features, mean 0.37 over the test images (Learn-E-Reg," in text
    assert "0.50" not in text

    del old["test"]["lambda"]
    assert "final.json is damaged: lambda is missing" in refusal(lambda: export(runs / "gated", tmp_path / "no", "hub"))


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        ({"test": None}, "accuracy is missing"),
        ({"images": None}, "a value has the wrong type"),
        ({"images": {}}, "train is missing"),
    ],
)
def test_a_damaged_final_json_is_refused_in_one_line(
    damage: dict[str, Any], reason: str, runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Run, "final", Run(runs / "learned").final | damage)
    message = refusal(lambda: export(runs / "learned", tmp_path / "out", "hub"))
    assert message.endswith(f"final.json is damaged: {reason}")


def test_the_card_states_a_null_result_of_its_study_first(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = results(stage_2({"none": [0.9, 0.9], "learned": [0.9, 0.9], "learned fresh": [0.9, 0.9]}))
    study = SimpleNamespace(study=SimpleNamespace(name="pilot"), out=tmp_path, table=lambda: table, planned=[])
    monkeypatch.setattr("emoreg.study.run_study.open_study", lambda *_: study)
    export(runs / "learned", tmp_path / "other", "hub", study="pilot")
    text = ModelCard.load(tmp_path / "other" / "README.md").text
    section = text.partition("## The study\n\n")[2]
    assert section.startswith("No verdict on the label effect or the emotion effect of Learn-E-Reg")
    assert 'not one of the runs of this study ("pilot")' in section and "| Learn-E-Reg |" in section

    run_id = "digits-resnet8-learned-affect-procedural-seed1"
    study.planned.append(SimpleNamespace(id=run_id, folder=runs / "learned"))
    export(runs / "learned", tmp_path / "own", "hub", study="pilot")
    assert "Learn-E-Reg (procedural), seed 1." in (tmp_path / "own" / "README.md").read_text(encoding="utf-8")

    table["status"] = "waiting"
    message = refusal(lambda: export(runs / "learned", tmp_path / "none", "hub", study="pilot"))
    assert "no run of this study is finished" in message and not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("settings", "size"),
    [
        (BackboneSettings("resnet8"), 16),
        (BackboneSettings("resnet8", width=10, zero_gamma=True), 16),
        (BackboneSettings("speednet", width=4), 16),
        (BackboneSettings("resnet18", stem="cifar"), 32),
        (BackboneSettings("test_resnet", stem="imagenet"), 64),
        (BackboneSettings("resnet10t", stem="imagenet", width=20, zero_gamma=False), 64),
        (BackboneSettings("test_vit", patch_size=8), 32),
        (BackboneSettings("test_vit", patch_size=8, width=48), 32),
        (BackboneSettings("test_vit", patch_size=8, pool="average", class_token=False), 32),
        (BackboneSettings("test_efficientnet"), 32),
    ],
)
def test_the_card_of_an_encoder_loads_its_weights_into_timm(
    settings: BackboneSettings, size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from emoreg.models.backbones import build_backbone

    encoder = build_backbone(settings, size)
    recipe = PretrainRecipe(stimuli=StimuliSettings(image_size=size))
    monkeypatch.setattr(timm_weights, "_encoder_of", lambda _: (recipe, encoder, settings, size))
    monkeypatch.setattr("emoreg.inference.export.model_card._stage1_results", lambda *_: "")  # there is no run
    difference, _ = timm_weights.write_encoder(Path("runs/mine"), tmp_path)
    assert difference <= 1e-4
    [image, *_] = write_odd_images(tmp_path / "odd")
    loaded = run_card(tmp_path, image, monkeypatch)["encoder"]
    images = torch.randn(2, 3, size, size)
    assert torch.allclose(loaded(images), encoder.eval()(images), atol=1e-4)

    import timm

    metadata = ModelCard.load(tmp_path / "README.md").data.to_dict()
    if metadata["library_name"] == "timm":
        again: Any = timm.create_model(f"local-dir:{tmp_path}", pretrained=True)
        assert torch.allclose(again.eval()(images), encoder(images), atol=1e-4)
        assert again.pretrained_cfg["mean"] == pytest.approx((0.485, 0.456, 0.406))
    else:
        assert settings.name in ("resnet8", "speednet") or settings.stem == "cifar"


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")  # about the broken EXIF data
@pytest.mark.parametrize("name", ["resnet8", "test_resnet"])
def test_the_card_of_an_encoder_computes_its_features_for_images_of_every_kind(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from emoreg.models.backbones import build_backbone

    settings = BackboneSettings(name, stem="imagenet" if name == "test_resnet" else "cifar")
    encoder = build_backbone(settings, 32)
    recipe = PretrainRecipe(stimuli=StimuliSettings(image_size=32))
    monkeypatch.setattr(timm_weights, "_encoder_of", lambda _: (recipe, encoder, settings, 32))
    monkeypatch.setattr("emoreg.inference.export.model_card._stage1_results", lambda *_: "")  # there is no run
    timm_weights.write_encoder(Path("runs/mine"), tmp_path)
    for image in write_odd_images(tmp_path / "odd"):
        found = run_card(tmp_path, image, monkeypatch)
        assert (torch.from_numpy(found["pixels"]) - decoded(image, 32)).abs().max() <= TWO_LEVELS, image.name
        with torch.no_grad():
            assert torch.allclose(found["features"], encoder(torch.from_numpy(found["pixels"])), atol=1e-5), image.name


def test_the_code_on_the_card_refuses_pixels_of_unknown_range(tmp_path: Path) -> None:
    Image.new("F", (8, 8)).save(tmp_path / "numbers.tif")
    code = preparation(8, "import torch").replace("photo.jpg", str(tmp_path / "numbers.tif"))
    with pytest.raises(ValueError, match="32-bit numbers, whose range is not known"):
        exec(code, {})


def test_the_encoder_can_be_exported_from_either_stage(runs: Path, tmp_path: Path) -> None:
    export(runs / "experience", tmp_path / "one", "timm")
    export(runs / "learned", tmp_path / "two", "timm")
    one, two = ((tmp_path / part / "README.md").read_text(encoding="utf-8") for part in ("one", "two"))
    assert "trained to predict emotion from affective images (stage 1), and nothing else" in one
    assert re.search(r"It saw 36 images for 1 epoch; on held-out images: CCC -?0\.\d\d, CCC valence ", one)
    assert "trained it together with the classifier." in two


@pytest.mark.parametrize(
    ("changes", "learned", "sources"),
    [
        ({}, "trained to predict emotion from affective images", "digits, procedural."),
        ({"pretext": "shuffled"}, "a control, trained on labels that were shuffled among", "digits, procedural."),
        (
            {"stimuli": StimuliSettings("cifar10", image_size=16)},
            "a positive control, trained to predict not emotion but the classes of images",
            "digits, cifar10.",
        ),
        (
            {"backbone": BackboneSettings("resnet8", pretrained=True)},
            "trained to predict emotion from affective images",
            "digits, procedural; they started from timm's published weights of resnet8.",
        ),
    ],
    ids=["affect", "control", "positive control", "published weights"],
)
def test_cards_say_what_stage_1_was_and_what_all_weights_were_trained_on(
    changes: dict[str, Any], learned: str, sources: str, runs: Path, tmp_path: Path
) -> None:
    run = Path(shutil.copytree(runs / "learned", tmp_path / "run"))
    folder = Path(shutil.copytree(runs / "experience", run / "experience"))
    trained = Run(folder).recipe
    assert isinstance(trained, PretrainRecipe)
    stage1 = dataclasses.replace(trained, **changes)
    (folder / RECIPE).write_text(recipe_yaml(stage1))
    loaded = load_run(run)

    def encoder(folder: Path, recipe: Recipe) -> str:
        return encoder_card(folder, recipe, BackboneSettings("resnet8"), 8, "crop", "pass", "", "emoreg")

    assert f"It was {learned}" in (card := encoder(folder, stage1))
    assert ("(stage 1), and nothing else" in card) == ("backbone" not in changes)
    assert f"In stage 1 it was {learned}" in (card := encoder(run, loaded.recipe))
    assert sources in card
    card = classifier_card(loaded, "pass", {}, None)
    assert sources in card
    assert (f"trained further in stage 2; in stage 1 it was {learned}" in card) == ("control" in learned)
    transfer = dataclasses.replace(loaded.recipe, regulation=RegulationSettings("transfer"))
    card = classifier_card(dataclasses.replace(loaded, recipe=transfer), "pass", {}, None)
    assert f"an encoder of stage 1 ({learned}" in card and sources in card

    plain = dataclasses.replace(loaded.recipe, encoder=EncoderSettings(backbone=BackboneSettings("resnet8")))
    card = encoder(run, plain)
    assert "the twin `fresh`" in card and "terms of their own: digits." in card


def test_the_card_of_a_classifier_from_published_weights_says_so(runs: Path) -> None:
    loaded = load_run(runs / "plain")
    recipe = dataclasses.replace(loaded.recipe, backbone=BackboneSettings("resnet18", pretrained=True))
    card = classifier_card(dataclasses.replace(loaded, recipe=recipe), "pass", {}, None)
    assert "Backbone: resnet18 (started from timm's published weights of resnet18)." in card
    assert "terms of their own: digits; they started from timm's published weights of resnet18." in card


def test_the_card_of_a_model_of_your_own_does_not_claim_to_know_all_its_training_data(
    tmp_path: Path, quiet: Progress
) -> None:
    model = RegulatedClassifier(TinyBackbone(), TinyBackbone(), 10, mode="learned")
    train(CLASSIFIER, tmp_path / "run", model=model, progress=quiet)
    card = classifier_card(load_run(tmp_path / "run", model=model), "pass", {}, None)
    assert "terms of their own: digits; they started from weights that were given in Python, of which" in card


def test_the_card_of_an_encoder_that_rehearsed_says_so(runs: Path, tmp_path: Path) -> None:
    encoder = EncoderSettings(experience=str(runs / "experience"), rehearsal=0.1)
    recipe = dataclasses.replace(CLASSIFIER, encoder=encoder, regulation=RegulationSettings(mode="learned"))
    export(train(recipe, tmp_path / "run", progress=Progress(quiet=True)).folder, tmp_path / "card", "timm")
    card = (tmp_path / "card" / "README.md").read_text(encoding="utf-8")
    assert "together with the classifier, and kept showing it the stimuli of stage 1 (rehearsal)." in card


def test_the_card_of_a_classifier_that_pads_images_says_so(tmp_path: Path) -> None:
    recipe = dataclasses.replace(CLASSIFIER, target=dataclasses.replace(CLASSIFIER.target, fit="pad"))
    export(train(recipe, tmp_path / "run", progress=Progress(quiet=True)).folder, tmp_path / "card", "hub")
    card = " ".join((tmp_path / "card" / "README.md").read_text(encoding="utf-8").split())
    assert "high byte; longer side resized to 8 pixels (bicubic), centred on a square of the colour" in card
    assert "centre crop" not in card


@pytest.mark.parametrize(("fit", "mode"), [("crop", "center"), ("pad", "border")])
def test_the_configs_of_exports_say_how_images_are_made_square(runs: Path, fit: Fit, mode: str) -> None:
    loaded = load_run(runs / "plain")
    target = dataclasses.replace(loaded.recipe.target, fit=fit)
    loaded = dataclasses.replace(loaded, recipe=dataclasses.replace(loaded.recipe, target=target))
    assert _metadata(loaded, ExportableClassifier(loaded.model))["fit"] == fit
    settings = BackboneSettings("test_resnet", stem="imagenet")
    assert timm_weights._config(settings, 8, 32, fit, is_timm=False)["fit"] == fit
    assert timm_weights._config(settings, 8, 32, fit, is_timm=True)["pretrained_cfg"]["crop_mode"] == mode


def test_what_cannot_be_exported_is_refused_and_nothing_is_written(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"

    def refused(run: str, format: Any, to: Path = out, **more: Any) -> str:
        return refusal(lambda: export(runs / run, to, format, **more))

    assert "has no emotional encoder" in refused("plain", "timm")
    assert "is a run of stage 1" in refused("experience", "torch")
    assert "--study is for the card of a classifier" in refused("learned", "timm", study="pilot")
    model = load_run(runs / "learned").model
    assert "a model of your own" in refused("learned", "hub", model=model)
    assert "is a run; choose another folder" in refused("learned", "hub", runs / "plain", overwrite=True)
    monkeypatch.setattr(graphs, "TOLERANCE", -1.0)
    assert "nothing was written" in refused("learned", "torch")
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    assert "pip install 'emoreg[export]'" in refused("learned", "onnx")
    assert not out.exists()


def test_a_folder_with_files_is_only_overwritten_on_request(runs: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    (out / ".emoreg-export-killed").mkdir(parents=True)  # left by an export that was killed
    export(runs / "plain", out, "hub")
    assert {path.name for path in out.iterdir()} == {"README.md", "config.json", "model.safetensors"}
    (out / "README.md").write_text("mine")
    (out / ".export-notes").mkdir()
    assert "is not empty; choose another folder" in refusal(lambda: export(runs / "plain", out, "hub"))
    assert (out / "README.md").read_text() == "mine"
    (out / ".export-notes").rmdir()
    export(runs / "plain", out, "hub", overwrite=True)
    assert (out / "README.md").read_text(encoding="utf-8").startswith("---")
    assert {path.name for path in out.iterdir()} == {"README.md", "config.json", "model.safetensors"}
    (tmp_path / "new").touch()
    assert {path.stat().st_mode for path in out.iterdir()} == {(tmp_path / "new").stat().st_mode}


@pytest.mark.parametrize("format", ["hub", "torch", "timm", pytest.param("onnx", marks=needs_onnx)])
def test_exports_contain_no_paths_of_the_machine(format: Format, runs: Path, tmp_path: Path) -> None:
    """By default, programs contain stack traces with paths."""
    export(runs / "learned", tmp_path / "out", format)
    places = [str(runs), str(tmp_path), str(Path.home()) + "/", str(Path(torch.__file__).parents[1]), str(ROOT)]
    for path in (tmp_path / "out").iterdir():
        contents = [path.read_bytes()]
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                contents += [archive.read(name) for name in archive.namelist()]
        for place in places:
            assert not any(place.encode() in content for content in contents), f"{place} in {path.name}"


def test_a_network_that_cannot_be_traced_is_refused_in_one_line(tmp_path: Path) -> None:
    model = smallest("none", "scalar", "logits", 0.5)

    def forward(images: Tensor) -> Tensor:
        return images.mean(dim=(2, 3)) if images.sum() > 0 else images.amax(dim=(2, 3))

    model.backbone.forward = forward
    model.head = nn.Linear(3, 3)
    message = refusal(lambda: save_program(ExportableClassifier(model), 8, tmp_path / "model.pt2", {}))
    assert message.startswith("torch.export cannot write this network")


@pytest.mark.parametrize("format", ["hub", pytest.param("onnx", marks=needs_onnx), "torch"])
def test_an_exported_network_divides_its_regulated_logits_by_the_temperature(
    format: Format, runs: Path, tmp_path: Path
) -> None:
    export(runs / "learned", tmp_path / "out", format, temperature=2.0)
    network = ExportableClassifier(load_run(runs / "learned").model)
    images = torch.randn(2, 3, 8, 8)
    found: dict[str, Any]
    if format == "hub":
        found = RegulatedModel.from_pretrained(tmp_path / "out").respond(images)._asdict()
    elif format == "onnx":
        found = dict(zip(OUTPUTS, load_onnx(tmp_path / "out" / "model.onnx")(images), strict=True))
    else:
        found = dict(zip(OUTPUTS, torch.export.load(tmp_path / "out" / "model.pt2").module()(images), strict=True))
    expected = dict(zip(OUTPUTS, network(images), strict=True))
    assert torch.allclose(found["logits"], expected["logits"] / 2, atol=1e-4)
    for name in ("non_emotional", "emotional"):
        assert torch.allclose(found[name], expected[name], atol=1e-4)
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["temperature"] == 2
    fact = "the regulated logits are divided by the temperature 2, given by hand; the other outputs are as trained"
    assert format == "hub" or fact in config["calibration"]
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert fact in card and "| Expected calibration error (15 bins), before the temperature | " in card


def test_the_card_of_a_calibrated_network_says_what_its_temperature_was_fitted_on(
    runs: Path, tmp_path: Path, quiet: Progress, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = shutil.copytree(runs / "learned", tmp_path / "run")
    calibration = calibrate(run, device="cpu", progress=quiet)
    monkeypatch.setattr(Run, "final", Run(run).final | {"target": {"classes": 10, "is_published_test": True}})
    export(run, tmp_path / "out", "hub", temperature="calibrated")
    card = ModelCard.load(tmp_path / "out" / "README.md")
    assert f"divided by the temperature {calibration.temperature:.4g}, {calibration.origin};" in card.text
    assert [result.metric_type for result in card.data.eval_results] == ["accuracy"]  # ECE is that without T
    model = RegulatedModel.from_pretrained(tmp_path / "out")
    assert model.temperature == calibration.temperature
    images = torch.randn(2, 3, 8, 8)
    in_evaluation = model(images)
    model.training = True  # its batch norms stay in evaluation mode
    assert torch.allclose(in_evaluation * calibration.temperature, model(images), atol=1e-4)


def test_without_a_temperature_nothing_in_an_export_mentions_one(runs: Path, tmp_path: Path) -> None:
    formats: tuple[Format, ...] = ("hub", "torch")
    for format in formats:
        export(runs / "plain", tmp_path / format, format)
        text = (tmp_path / format / "config.json").read_text() + (tmp_path / format / "README.md").read_text()
        assert "temperature" not in text
    assert "encoder (timm) does not have" in refusal(
        lambda: export(runs / "learned", tmp_path / "timm", "timm", temperature=2)
    )
