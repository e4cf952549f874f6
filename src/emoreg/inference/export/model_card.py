"""The card of an exported classifier: what it is, how it is used, its run's numbers, what its study found."""

from __future__ import annotations

import importlib.resources
import json
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emoreg import __version__
from emoreg.config.schema import BackboneSettings, PretrainRecipe, RegulationSettings, TrainRecipe
from emoreg.data.images.augment import MEAN, STD
from emoreg.errors import UserError
from emoreg.report.paper_tables import markdown, markdown_table
from emoreg.runs.run import FINAL, Run
from emoreg.study.arms import ARMS

if TYPE_CHECKING:
    from emoreg.inference.load import LoadedRun

CARD, CONFIG = "README.md", "config.json"
TAGS = ["emotional-regulation", "arxiv:2606.13081"]
SHOWN = 100  # classes that the card lists; config.json has all


@dataclass(frozen=True)
class StudyFacts:
    """What a card tells of a study, in Markdown."""

    name: str
    sentence: str  # the first of its findings
    table: str
    arm: str | None  # what the run is in it, e.g. "Learn-E-Reg (oasis), seed 0"; None if it is not one of its runs


def study_facts(folder: Path | str, run: Path) -> StudyFacts:
    """The table and the first finding of a study as it now is.

    Args:
        folder: of the study, or its file.
        run: folder of the run that is exported.

    Raises:
        UserError: no such study, or none of its classifiers is finished.
    """
    from emoreg.report.analysis import analyse
    from emoreg.report.findings import findings
    from emoreg.study.run_study import open_study

    found = open_study(folder)
    table = found.table()
    done = table[(table.stage == 2) & (table.status == "finished")]
    if done.empty:
        raise UserError(f"--study {folder}: no run of this study is finished in {found.out}")
    rows = done[["folder", "arm", "experience", "seed"]].itertuples(index=False)
    own = next((row for row in map(tuple, rows) if Path(row[0]).resolve() == run.resolve()), None)
    arm = None
    if own is not None:
        _, name, experience, seed = own
        arm = markdown(f"{ARMS[name].label}{f' ({experience})' if isinstance(experience, str) else ''}, seed {seed}")
    analysis = analyse(found.study.name, table)
    return StudyFacts(markdown(analysis.name), markdown(findings(analysis)[0]), markdown_table(analysis).strip(), arm)


def classifier_card(loaded: LoadedRun, use: str, files: Mapping[str, str], study: StudyFacts | None) -> str:
    """README.md of a classifier: YAML metadata as the Hub reads it, then Markdown.

    Args:
        loaded: the run.
        use: how it is loaded, as the body of a code block in Python.
        files: name and meaning of each file beside the card.
        study: what its study found, if it has one.
    """
    recipe, final = loaded.recipe, Run(loaded.folder).final
    needed = {"accuracy", "ece", "images"} - (final["test"] or {}).keys() | {"parameters", "lambda"} - final.keys()
    if needed or not isinstance(final.get("images"), dict):
        raise UserError(f"{loaded.folder / FINAL} does not tell {min(needed, default='images')}: it is damaged")
    test = final["test"]
    rows = [
        ("Test accuracy, regulated response" if "lambda" in test else "Test accuracy", _percent(test["accuracy"])),
        *(
            (f"Test accuracy, {name.replace('_', '-')} response alone", _percent(test[f"accuracy_{name}"]))
            for name in ("non_emotional", "emotional")
            if f"accuracy_{name}" in test
        ),
        ("Expected calibration error (15 bins)", f"{test['ece']:.4f}"),
        ("Test images", f"{test['images']:,}"),
        ("Training images", f"{final['images']['train']:,}"),
        ("Epochs", f"{recipe.training.epochs:,}"),
        ("Parameters", f"{final['parameters']:,}"),
        ("Seed", str(recipe.seed)),
    ]
    metrics = {"accuracy": test["accuracy"], "expected calibration error": test["ece"]}
    return _render(
        loaded.folder,
        tags=["image-classification", *TAGS],
        pipeline_tag="image-classification",
        target=recipe.target.name,
        metrics=metrics,
        title=f"A {'plain' if recipe.regulation.mode == 'none' else 'regulated'} classifier of {len(loaded.classes)} "
        f"classes",
        facts=_classifier_facts(loaded, final["lambda"]),
        use=use,
        files=files,
        rows=rows,
        study=study,
        size=loaded.image_size,
        classes=list(loaded.classes),
        data=", ".join(dict.fromkeys([recipe.target.name, *_stimuli(loaded)])),
    )


def encoder_card(
    folder: Path,
    recipe: TrainRecipe | PretrainRecipe,
    architecture: BackboneSettings,
    size: int,
    use: str,
    note: str,
    library: str,
) -> str:
    """README.md of an emotional encoder alone.

    Args:
        folder: of the run it comes from.
        recipe: of that run, of either stage.
        architecture: of the encoder.
        size: S, side of its input in pixels.
        use: how it is loaded, as the body of a code block in Python.
        note: what is to be known of that, in a sentence.
        library: that loads it, for the Hub: "timm" or "emoreg".
    """
    if isinstance(recipe, PretrainRecipe):
        learned = {
            "affect": "It has learned emotion from affective images (stage 1), and nothing else.",
            "shuffled": "It is a control: it has learned labels of emotion that were shuffled among the images.",
            "rotation": "It is a control: it has learned by which quarter turn an image was rotated, not emotion.",
        }[recipe.pretext]
        learned += f" {_how_well(Run(folder), recipe)}"
        data = ", ".join(dict.fromkeys(settings.name for settings in recipe.sets))
    else:
        learned = "It is what stage 2 left of it, where it was " + (
            "frozen." if recipe.encoder.frozen else "trained on together with the classifier."
        )
        if recipe.encoder.experience is None:
            learned += " It was never pre-trained on affective images (the control random_encoder)."
        data = f"{recipe.target.name} and the stimuli of stage 1"
    return _render(
        folder,
        tags=["image-feature-extraction", *TAGS],
        pipeline_tag="image-feature-extraction",
        library=library,
        title="An emotional encoder: images to features, without a head",
        facts=[f"Architecture: {describe(architecture)}, input of {size}x{size} pixels.", learned, note],
        use=use,
        files={"model.safetensors": "the weights", "config.json": "architecture, input size and normalisation"},
        size=size,
        data=data,
    )


def _how_well(run: Run, recipe: PretrainRecipe) -> str:
    """How long stage 1 was, and how well its encoder tells what it was taught, in a sentence."""
    final, epochs = run.final, recipe.training.epochs
    split = "validation" if final["validation"] else "train"
    told = ", ".join(
        f"{name.replace('_', ' ').replace('ccc', 'CCC')} {value:.2f}"
        for name, value in final[split].items()
        if "ccc" in name or "accuracy" in name
    )
    where = "held-out images" if split == "validation" else "the images that it was trained on"
    return f"It saw {final['images']:,} images for {epochs} epoch{'s' * (epochs > 1)}; on {where}: {told}."


def write_description(folder: Path, config: Mapping[str, Any], card: str) -> None:
    """Write config.json and README.md."""
    (folder / CONFIG).write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    (folder / CARD).write_text(card, encoding="utf-8")


def describe(settings: BackboneSettings) -> str:
    """An architecture in words: "resnet18 (stem for small images)"."""
    more = [f"patches of {settings.patch_size} pixels"] if settings.patch_size else []
    if settings.name.startswith(("resnet", "resnext", "wide_resnet", "seresnet")) and settings.stem == "imagenet":
        more.append("ImageNet stem")
    return settings.name + (f" ({', '.join(more)})" if more else "")


def _classifier_facts(loaded: LoadedRun, lam: list[float] | None) -> list[str]:
    recipe = loaded.recipe
    backbone, encoder = recipe.backbone, recipe.encoder.backbone or recipe.backbone
    if lam is None:
        return [f"Backbone: {describe(backbone)}. No emotional branch."]
    branch = f"Emotional encoder: {describe(encoder)}, {'frozen' if recipe.encoder.frozen else 'trained on'} in stage 2"
    if loaded.readout is not None:
        branch += f", pre-trained on affective images ({markdown(', '.join(_stimuli(loaded)))})."
    else:
        branch += f"; {markdown(loaded.no_readout_reason)}."
    return [f"Non-emotional branch: {describe(backbone)}.", branch, f"λ: {describe_lambda(recipe.regulation, lam)}."]


def describe_lambda(regulation: RegulationSettings, lam: list[float]) -> str:
    """How λ balances the two responses, in words.

    Args:
        regulation: of the recipe; with an emotional branch.
        lam: at the end of training: one value, or one a class.
    """
    if regulation.mode == "random":
        value = "drawn for each image in training, 0.5 in evaluation"
    elif regulation.granularity == "per_class":
        value = f"one a class, {min(lam):.2f} to {max(lam):.2f}, mean {statistics.fmean(lam):.2f}"
    elif regulation.granularity == "per_sample":
        value = f"one an image from a gate on both features, {lam[0]:.2f} at features of zero"
    else:
        value = f"{lam[0]:.2f}"
    return f"{value} ({ARMS[regulation.mode].label}, mixing {regulation.mix})"


def _stimuli(loaded: LoadedRun) -> list[str]:
    """Of stage 1, where its run is there."""
    if loaded.readout is None:
        return []
    recipe = Run(loaded.readout.folder).recipe
    return [settings.name for settings in recipe.sets] if isinstance(recipe, PretrainRecipe) else []


def _percent(fraction: float) -> str:
    return f"{100 * fraction:.2f} %"


def _render(
    folder: Path,
    *,
    tags: list[str],
    pipeline_tag: str,
    title: str,
    facts: list[str],
    use: str,
    files: Mapping[str, str],
    size: int,
    data: str,
    library: str = "emoreg",
    target: str = "",
    metrics: Mapping[str, float] | None = None,
    rows: list[tuple[str, str]] | None = None,
    study: StudyFacts | None = None,
    classes: list[str] | None = None,
) -> str:
    from huggingface_hub import EvalResult, ModelCardData
    from jinja2 import Environment, StrictUndefined

    name = " ".join(folder.resolve().name.split())
    results = [
        EvalResult(
            task_type=pipeline_tag,
            dataset_type=target.removeprefix("hf:"),
            dataset_name=target,
            dataset_split="test",
            metric_type=kind,
            metric_value=round(value, 6),
        )
        for kind, value in (metrics or {}).items()
    ]
    metadata = ModelCardData(
        license="apache-2.0",
        library_name=library,
        pipeline_tag=pipeline_tag,
        tags=tags,
        model_name=name if results else None,
        eval_results=results or None,
    )
    # Markdown, not HTML: what others have named is escaped before. Names of classes stand in a code block, as JSON.
    environment = Environment(
        undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )
    source = importlib.resources.files("emoreg.inference.export").joinpath("card.md.jinja").read_text(encoding="utf-8")
    shown = classes[:SHOWN] if classes else []
    return environment.from_string(source).render(
        metadata=metadata.to_yaml().strip(),
        name=markdown(name),
        title=title,
        facts=facts,
        use=use.strip(),
        files=files,
        rows=rows or [],
        study=study,
        size=size,
        mean=", ".join(map(str, MEAN)),
        std=", ".join(map(str, STD)),
        classes=json.dumps(shown, ensure_ascii=False),
        left_out=len(classes or ()) - len(shown),
        data=markdown(data),
        version=__version__,
    )
