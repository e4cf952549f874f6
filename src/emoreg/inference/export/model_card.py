"""Write model cards: what a model is, how to use it, the numbers of its run, the findings of its study."""

from __future__ import annotations

import importlib.resources
import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from huggingface_hub import EvalResult, ModelCardData

from emoreg import __version__
from emoreg.config.normalisation import MEAN, STD
from emoreg.config.outcomes import OUTCOMES
from emoreg.config.recipe import PretrainRecipe, Recipe, TrainRecipe
from emoreg.config.schema import OWN, RELATIVES, BackboneSettings, Fit, Pretext, RegulationSettings, Task
from emoreg.config.target_words import OUTPUTS, name_of
from emoreg.errors import UserError
from emoreg.inference.export.preparation import in_words
from emoreg.inference.load import find_stage1, has_class_stimuli
from emoreg.report.paper_tables import markdown, markdown_table
from emoreg.runs.run import EXPORT_CONFIG, FINAL, WEIGHTS, Run
from emoreg.runtime.safe_io import write_json
from emoreg.study.arms import LABELS

if TYPE_CHECKING:
    from emoreg.inference.load import LoadedRun
    from emoreg.inference.temperature import Temperature

CARD, CONFIG = "README.md", EXPORT_CONFIG
TAGS = ["emotional-regulation", "arxiv:2606.13081"]
PIPELINES: Mapping[Task, tuple[str, ...]] = {
    "classification": ("image-classification",),
    "multilabel": ("image-classification", "multilabel"),
    "regression": ("image-regression",),
}
NETWORKS: Mapping[Task, str] = {
    "classification": "classifier of",
    "multilabel": "network for any of",
    "regression": "regression of",
}
MAX_CLASSES = 100  # on the card; config.json has all
LEARNED: Mapping[Pretext, str] = {  # in stage 1, after "it was"
    "affect": "trained to predict emotion from affective images",
    "shuffled": "a control, trained on labels that were shuffled among the images",
    "neutral": "a control, trained to predict not emotion but a neutral category, or colours",
    "rotation": "a control, trained to predict not emotion but the quarter turn of rotated images",
}
LEARNED_CLASSES = "a positive control, trained to predict not emotion but the classes of images"


@dataclass(frozen=True)
class StudyFacts:
    """What a card says about a study, in Markdown."""

    name: str
    sentence: str  # its first finding
    table: str
    arm: str | None  # the run's arm, such as "Learn-E-Reg (oasis), seed 0"; None if it is not a run of the study


def study_facts(folder: Path | str, run: Path, runs: Path | str | None = None) -> StudyFacts:
    """Read the current table and first finding of a study.

    Args:
        folder: folder or file of the study.
        run: folder of the exported run.
        runs: folder of the study's runs; None for its own.

    Raises:
        UserError: there is no such study, or none of its classifiers is finished.
    """
    from emoreg.report.analyse_table import analyse
    from emoreg.report.analysis import label_of
    from emoreg.report.findings import findings
    from emoreg.report.run_frame import Arm
    from emoreg.study.run_study import open_study

    opened = open_study(folder, runs)
    table = opened.table()
    done = table[(table.stage == 2) & (table.status == "finished")]
    if done.empty:
        raise UserError(f"--study {folder}: no run of this study is finished in {opened.out}")
    ids = {planned.id for planned in opened.planned if planned.folder.resolve() == run.resolve()}
    rows = done[done["id"].isin(ids)].to_dict("records")
    arm = None
    if rows:
        names = (rows[0][name] if isinstance(rows[0][name], str) else None for name in Arm._fields[1:])
        arm = markdown(f"{label_of(Arm(rows[0]['mode'], *names), has_stimuli=True)}, seed {rows[0]['seed']}")
    analysis = analyse(opened.study.name, table)
    return StudyFacts(markdown(analysis.name), markdown(findings(analysis)[0]), markdown_table(analysis).strip(), arm)


def classifier_card(
    loaded: LoadedRun,
    use: str,
    files: Mapping[str, str],
    study: StudyFacts | None,
    temperature: Temperature | None = None,
) -> str:
    """Render README.md of a classifier: YAML metadata for the Hub, then Markdown.

    Args:
        loaded: the run.
        use: Python code that loads and uses the classifier.
        files: name and description of each file beside the card.
        study: results of a study, if any.
        temperature: what the exported network divides its logits by, if anything.

    Raises:
        UserError: final.json of the run is damaged.
    """
    recipe, final = loaded.recipe, Run(loaded.folder).final
    stage1 = find_stage1(Run(loaded.folder), recipe)
    task = recipe.target.task
    split = "test" if recipe.target.test else "validation"  # an exploration leaves the test split unseen
    try:
        measured = final[split] or {}
        rows = _rows(recipe, final, measured, split.capitalize(), is_scaled=temperature is not None)
        # Of a gate, old runs have in final["lambda"] its value at features of zero; `measured` always has the mean.
        lam = [measured["lambda"]] if recipe.regulation.granularity == "per_sample" else final["lambda"]
    except (KeyError, TypeError) as error:
        reason = f"{error.args[0]} is missing" if isinstance(error, KeyError) else "a value has the wrong type"
        raise UserError(f"{loaded.folder / FINAL} is damaged: {reason}") from None
    metadata = ModelCardData(
        license="apache-2.0",
        library_name="emoreg",
        pipeline_tag=None if task == "regression" else "image-classification",
        tags=[*PIPELINES[task], *TAGS],
    )
    if _is_published_test(recipe, final, split):
        results = _model_index(loaded, measured, ("accuracy",) if temperature else ("accuracy", "ece"))
        metadata.model_name, metadata.eval_results = _name(loaded.folder), results
    facts = [f"Target: {markdown(loaded.target)}.", *_classifier_facts(loaded, stage1, lam, split)]
    if temperature is not None:
        facts.append(markdown(f"{describe_temperature(temperature)}."))
    return _render(
        loaded.folder,
        metadata,
        title=f"{_kind(recipe)} {NETWORKS[task]} {len(loaded.classes)} {OUTPUTS[task]}",
        facts=facts,
        use=use,
        files=files,
        rows=rows,
        study=study,
        prepared=in_words(loaded.image_size, loaded.fit),
        classes=json.dumps(loaded.classes[:MAX_CLASSES], ensure_ascii=False),
        outputs=OUTPUTS[task].capitalize(),
        left_out=max(len(loaded.classes) - MAX_CLASSES, 0),
        data=_sources(recipe, stage1),
    )


def describe_temperature(temperature: Temperature) -> str:
    """Say what the logits of an exported network are divided by, without the full stop."""
    value = f"the temperature {temperature.value:.4g}, {temperature.origin}"
    return f"Calibration: the regulated logits are divided by {value}; the other outputs are as trained"


def _rows(
    recipe: TrainRecipe, final: Mapping[str, Any], measured: Mapping[str, Any], title: str, is_scaled: bool
) -> list[tuple[str, str]]:
    """Names and values in the table of numbers; `measured` is the part of final.json on the split called `title`."""
    outcome = OUTCOMES[recipe.target.task]
    responses = {
        outcome.name: ", regulated response" if "lambda" in measured else "",
        f"{outcome.name}_non_emotional": ", non-emotional response alone",
        f"{outcome.name}_emotional": ", emotional response alone",
    }
    rows = []
    for name, response in responses.items():
        if name in measured or name == outcome.name:
            value = f"{100 * measured[name]:.2f} %" if outcome.unit == "%" else f"{measured[name]:.4f}"
            rows.append((f"{title} {outcome.words}{response}", value))
    if outcome.is_counted:
        before = ", before the temperature" if is_scaled else ""
        rows.append((f"Expected calibration error (15 bins){before}", f"{measured['ece']:.4f}"))
    return [
        *rows,
        (f"{title} images", f"{measured['images']:,}"),
        ("Training images", f"{final['images']['train']:,}"),
        ("Epochs", f"{recipe.training.epochs:,}"),
        ("Parameters", f"{final['parameters']:,}"),
        ("Seed", str(recipe.seed)),
    ]


def _kind(recipe: TrainRecipe) -> str:
    """The kind of network with its article, such as "A regulated"."""
    mode = recipe.regulation.mode
    if _is_trained_apart(recipe):
        return "A two-network"
    if recipe.has_two_responses:
        return "A regulated"
    if mode in RELATIVES:
        return f"{'An' if LABELS[mode].startswith('E') else 'A'} {LABELS[mode]}"
    return "A plain"


def _is_published_test(recipe: TrainRecipe, final: Mapping[str, Any], split: str) -> bool:
    """Whether the numbers are from a whole published test split, so that others' numbers are comparable.

    False for runs of earlier versions, which do not record it.
    """
    target = final.get("target")
    is_whole = isinstance(target, Mapping) and target.get("is_published_test") is True
    return is_whole and split == "test" and recipe.target.classes is None


def _model_index(loaded: LoadedRun, measured: Mapping[str, float], metrics: Sequence[str]) -> list[EvalResult]:
    """The results that the Hub compares with those of other models, by their keys in final.json."""
    names = {"accuracy": "accuracy", "ece": "expected calibration error"}
    return [
        EvalResult(
            task_type="image-classification",
            dataset_type=loaded.recipe.target.name.removeprefix("hf:"),
            dataset_name=loaded.target,
            dataset_split="test",
            metric_type=names[key],
            metric_value=round(measured[key], 6),
        )
        for key in metrics
    ]


def encoder_card(
    folder: Path, recipe: Recipe, architecture: BackboneSettings, size: int, fit: Fit, use: str, note: str, library: str
) -> str:
    """Render README.md of an emotional encoder alone.

    Args:
        folder: the run that it comes from, of either stage.
        recipe: recipe of that run.
        architecture: architecture of the encoder.
        size: S, side of its input in pixels.
        fit: how images are made square.
        use: Python code that loads the encoder.
        note: a sentence about that code.
        library: the library that loads it, for the Hub: "timm" or "emoreg".
    """
    if isinstance(recipe, PretrainRecipe):
        start = _given_weights(recipe.backbone)
        more = f", from {start}" if start else ", and nothing else"
        learned = f"It was {_learned(recipe)} (stage 1){more}. {_stage1_results(Run(folder), recipe)}"
        data = _sources(None, recipe)
    else:
        stage1 = find_stage1(Run(folder), recipe)
        training = "which froze it" if recipe.encoder.frozen else "which trained it together with the classifier"
        if recipe.encoder.rehearsal:
            training += ", and kept showing it the stimuli of stage 1 (rehearsal)"
        learned = f"It comes from stage 2, {training}."
        if recipe.encoder.experience is None:
            learned += " It was never pre-trained on affective images (the twin `fresh`)."
        elif stage1 is not None:
            learned += f" In stage 1 it was {_learned(stage1)}."
        else:
            learned += " What it learned in stage 1 is not known: that run was not found."
        data = _sources(recipe, stage1)
    task = "image-feature-extraction"
    return _render(
        folder,
        ModelCardData(license="apache-2.0", library_name=library, pipeline_tag=task, tags=[task, *TAGS]),
        title="An emotional encoder: images to features, without a head",
        facts=[f"Architecture: {describe(architecture)}, input of {size}x{size} pixels.", learned, note],
        use=use,
        files={WEIGHTS: "weights", CONFIG: "architecture, input size and normalisation"},
        rows=[],
        study=None,
        prepared=in_words(size, fit),
        classes="",
        outputs="",
        data=data,
    )


def _learned(recipe: PretrainRecipe) -> str:
    """What an encoder learned in stage 1, after "it was"."""
    is_positive_control = recipe.pretext == "affect" and has_class_stimuli(recipe)
    return LEARNED_CLASSES if is_positive_control else LEARNED[recipe.pretext]


def _sources(recipe: TrainRecipe | None, stage1: PretrainRecipe | None) -> str:
    """The sets of both stages and the weights that training started from, in Markdown; None for a missing stage."""
    names, networks = list[str](), list[BackboneSettings]()
    if recipe is not None:
        names.append(name_of(recipe.target))
        has_encoder = recipe.has_two_responses or recipe.regulation.mode == "transfer"
        if recipe.regulation.mode != "transfer":
            networks.append(recipe.backbone)
        if has_encoder and recipe.encoder.experience is None:
            networks.append(recipe.encoder_backbone)
        elif has_encoder and stage1 is None:
            names.append("the stimuli of stage 1")
    if stage1 is not None:
        names += [settings.name for settings in stage1.sets]
        networks.append(stage1.backbone)
    weights = " and ".join(dict.fromkeys(filter(None, map(_given_weights, networks))))
    return markdown(", ".join(dict.fromkeys(names)) + (f"; they started from {weights}" if weights else ""))


def _given_weights(settings: BackboneSettings) -> str:
    """Describe the weights that a network started from; "" if they were drawn at random."""
    if settings.is_own:
        return "weights that were given in Python, of which it is not recorded what they had learned"
    if settings.pretrained:
        return f"timm's published weights of {settings.name}"
    return "" if settings.weights is None else f"weights of {settings.name} from a file"


def _stage1_results(run: Run, recipe: PretrainRecipe) -> str:
    """Describe the length of stage 1 and the encoder's accuracy or CCC in a sentence."""
    final, epochs = run.final, recipe.training.epochs
    split = "validation" if final["validation"] else "train"
    scores = ", ".join(
        f"{name.replace('_', ' ').replace('ccc', 'CCC')} {value:.2f}"
        for name, value in final[split].items()
        if "ccc" in name or "accuracy" in name
    )
    where = "held-out images" if split == "validation" else "its training images"
    duration = "1 epoch" if epochs == 1 else f"{epochs} epochs"
    return f"It saw {final['images']:,} images for {duration}; on {where}: {scores}."


def write_description(folder: Path, config: Mapping[str, Any], card: str) -> None:
    """Write config.json and README.md."""
    write_json(folder / CONFIG, config)
    (folder / CARD).write_text(card, encoding="utf-8")


def describe(settings: BackboneSettings) -> str:
    """Describe an architecture: "resnet18 (ImageNet stem)", "TinyBackbone, a user-defined module"."""
    if settings.is_own:
        return f"{settings.name.removeprefix(OWN)}, a user-defined module"
    more = [f"patches of {settings.patch_size} pixels"] if settings.patch_size else []
    if settings.name.startswith(("resnet", "resnext", "wide_resnet", "seresnet")) and settings.stem == "imagenet":
        more.append("ImageNet stem")
    if weights := _given_weights(settings):
        more.append(f"started from {weights}")
    return settings.name + (f" ({', '.join(more)})" if more else "")


def _is_trained_apart(recipe: TrainRecipe) -> bool:
    """Whether each network is trained by its own loss and they are averaged, as in `ensemble` and `unregulated`."""
    return recipe.regulation.mode == "fixed" and recipe.loss_weights.regulated == 0


def _classifier_facts(
    loaded: LoadedRun, stage1: PretrainRecipe | None, lam: Sequence[float] | None, split: str
) -> list[str]:
    recipe, backbone = loaded.recipe, describe(loaded.recipe.backbone)
    if recipe.regulation.mode == "transfer":
        network = f"{describe(recipe.encoder_backbone)}, an encoder of stage 1"
        learned = "" if stage1 is None else f" ({_learned(stage1)})"
        return [f"One network: {network}{learned}, trained further in stage 2."]
    if recipe.regulation.mode in RELATIVES:
        head = f"{LABELS[recipe.regulation.mode]}, an earlier network with emotions of its own (docs/relatives.md)"
        return [f"Backbone: {backbone}. Its head: {head}. No emotional branch."]
    if lam is None:
        return [f"Backbone: {backbone}. No emotional branch."]
    training = "frozen" if recipe.encoder.frozen else "trained further"
    is_apart = _is_trained_apart(recipe)
    name = "Second network" if is_apart else "Emotional encoder"
    branch = f"{name}: {describe(recipe.encoder_backbone)}, {training} in stage 2"
    if loaded.readout is not None:
        assert stage1 is not None  # the readout is of this run
        stimuli = ", ".join(settings.name for settings in stage1.sets)
        branch += f", pre-trained on affective images ({markdown(stimuli)})."
    elif stage1 is not None:
        branch += f"; in stage 1 it was {_learned(stage1)}."
    else:
        branch += f"; {markdown(loaded.no_readout_reason)}."
    if is_apart:
        balance = "Each branch was trained by its own loss alone; the prediction is the mean of their probabilities."
        return [f"First network: {backbone}.", branch, balance]
    return [f"Non-emotional branch: {backbone}.", branch, f"λ: {describe_lambda(recipe.regulation, lam, split)}."]


def describe_lambda(regulation: RegulationSettings, lam: Sequence[float], split: str = "test") -> str:
    """Describe how λ balances the two responses.

    Args:
        regulation: settings of a classifier with an emotional branch.
        lam: λ at the end of training: one value, or one per class. For a gate, which gives each image its own λ, the
            mean over the images of `split`.
        split: "test", or "validation" for a run that leaves its test split unseen.
    """
    if regulation.mode == "random":
        value = "drawn for each image in training, 0.5 in evaluation"
    elif regulation.granularity == "per_class":
        value = f"one per class, {min(lam):.2f} to {max(lam):.2f}, mean {statistics.fmean(lam):.2f}"
    elif regulation.granularity == "per_sample":
        value = f"one per image from a gate on both features, mean {lam[0]:.2f} over the {split} images"
    else:
        value = f"{lam[0]:.2f}"
    return f"{value} ({LABELS[regulation.mode]}, mixing {regulation.mix})"


def _name(folder: Path) -> str:
    return " ".join(folder.resolve().name.split())


def _render(folder: Path, metadata: ModelCardData, *, use: str, **content: Any) -> str:
    """Render card.md.jinja, which is Markdown: escape names from outside, and pass class names as JSON."""
    from jinja2 import Environment, StrictUndefined

    environment = Environment(
        undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )
    source = importlib.resources.files("emoreg.inference.export").joinpath("card.md.jinja").read_text(encoding="utf-8")
    return environment.from_string(source).render(
        metadata=metadata.to_yaml().strip(),
        name=markdown(_name(folder)),
        use=use.strip(),
        mean=", ".join(map(str, MEAN)),
        std=", ".join(map(str, STD)),
        version=__version__,
        **content,
    )
