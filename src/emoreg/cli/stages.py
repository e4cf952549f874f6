"""The commands that train and score one model: pretrain, train and evaluate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from json import dumps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from emoreg.cli.parser import DeviceName, Folder, Quiet, SettingsOf, Shown
from emoreg.config.recipe import EDITION, AnyRecipe, PretrainRecipe, Recipe, TrainRecipe
from emoreg.errors import UserError, printable
from emoreg.runtime import launch_env
from emoreg.runtime.progress import Progress
from emoreg.runtime.safe_io import make_folder, write_json
from emoreg.runtime.streams import print_line

if TYPE_CHECKING:
    from emoreg.runs.run import Run
    from emoreg.study.image_counts import CountedSets

RecipeFile = Annotated[Path, Shown("RECIPE", "a YAML file, see recipes/")]
RunFolder = Annotated[Path, Shown("DIR", "run folder. Default: runs/<folder>-<recipe>-seed<seed>")]
PrintConfig = Annotated[bool, Shown(help="print the complete recipe and stop")]
DryRun = Annotated[
    bool,
    Shown(
        help="print whether the run is new or resumed, missing images, encoder or device, and the expected duration on "
        "this machine, and stop; the exit code is 2 if training would refuse to start for one of these reasons"
    ),
]
Smoke = Annotated[bool, Shown(help="train one epoch and score on a few images, to check that the recipe runs")]


def pretrain(
    recipe: RecipeFile,
    *,
    out: RunFolder | None = None,
    print_config: PrintConfig = False,
    dry_run: DryRun = False,
    smoke: Smoke = False,
    quiet: Quiet = False,
    settings: Annotated[Sequence[str], SettingsOf(PretrainRecipe)],
) -> int:
    """Stage 1: train an emotional encoder on affective images.

    Every setting of the recipe is an option too.

    Examples:
        emoreg pretrain recipes/experience/procedural-resnet20.yaml
        emoreg pretrain recipes/experience/oasis-resnet20.yaml --stimuli.root oasis.zip --seed 1
        emoreg pretrain recipes/experience/oasis-resnet20.yaml --print-config
    """
    filled = _read(PretrainRecipe, recipe, settings, smoke, print_config)
    folder, progress = out or _default_folder(recipe, filled, smoke), Progress(quiet=quiet)
    if dry_run:
        return _print_costs(filled, folder, progress)
    if not print_config:
        from emoreg.stages.pretrain import pretrain as train_encoder

        print_edition(recipe)
        run = train_encoder(filled, folder, progress=progress)
        _print_metrics("experience", run.final.get("validation") or run.final.get("train") or {}, run)
    return 0


def train(
    recipe: RecipeFile,
    *,
    out: RunFolder | None = None,
    print_config: PrintConfig = False,
    dry_run: DryRun = False,
    smoke: Smoke = False,
    quiet: Quiet = False,
    settings: Annotated[Sequence[str], SettingsOf(TrainRecipe)],
) -> int:
    """Stage 2: train a classifier, regulated or plain.

    Every setting of the recipe is an option too.

    Examples:
        emoreg train recipes/cifar10/resnet20.yaml
        emoreg train recipes/cifar10/resnet20-learn-e-reg.yaml --regulation.granularity per_class
        emoreg train recipes/cifar10/resnet20.yaml --target.name folder --target.root my-photos/
        emoreg train recipes/cifar100/resnet18.yaml --smoke
        emoreg train recipes/cifar100/resnet18.yaml --dry-run
    """
    filled = _read(TrainRecipe, recipe, settings, smoke, print_config)
    if smoke and not print_config:
        filled = _with_smoke_experience(filled)
    folder, progress = out or _default_folder(recipe, filled, smoke), Progress(quiet=quiet)
    if dry_run:
        return _print_costs(filled, folder, progress)
    if not print_config:
        from emoreg.runs.run import Run
        from emoreg.stages.classify import train as train_classifier

        print_edition(recipe)
        was_finished = Run(folder).is_finished
        run = train_classifier(filled, folder, progress=progress)
        final = run.final  # read from its file
        split = "test" if final["test"] else "validation"
        metrics = final[split] or {}
        _print_metrics(f"{split} split", metrics, run)
        _print_confusion(metrics, final["classes"], run.folder, writes=not was_finished)
    return 0


def evaluate(
    run: Annotated[Path, Shown("RUN")],
    *,
    data: str | None = None,
    out: Folder | None = None,
    device: DeviceName = "auto",
    json: bool = False,
    quiet: Quiet = False,
) -> None:
    """Score a trained classifier on your images, or again on its test split.

    Args:
        run: folder of a finished run of stage 2
        data: a target's name (cifar10), or a folder or zip of [test/]<class>/*.jpg|png. Default: the run's own test
            split
        out: folder for metrics.json and the confusion matrix (confusion.csv, confusion.png)
        json: print JSON

    Examples:
        emoreg evaluate runs/cifar10-resnet20-seed0
        emoreg evaluate runs/cifar10-resnet20-seed0 --data my-photos/ --json
        emoreg evaluate runs/cifar10-resnet20-seed0 --data my-photos/ --out scores/
    """
    from emoreg.stages.evaluate import evaluate as evaluate_run

    metrics = evaluate_run(run, data, device, progress=Progress(quiet=quiet))
    if json:
        print(dumps(metrics, indent=2))
    else:
        _print_metrics(metrics["target"], metrics)
    if out is not None:
        make_folder(out)
        write_json(out / "metrics.json", metrics)
    _print_confusion(metrics, metrics["classes"], out, prints=not json)


def print_edition(file: Path) -> None:
    """Print the edition that is assumed for the YAML file of a recipe or study, if the file does not name one."""
    from emoreg.config.read_recipe import has_edition

    if launch_env.rank() == 0 and not has_edition(file):
        print_line(printable(f"emoreg: {file}: edition {EDITION} of the method; write 'edition: {EDITION}' to keep it"))


def _read(kind: type[AnyRecipe], file: Path, settings: Sequence[str], smoke: bool, print_it: bool) -> AnyRecipe:
    from emoreg.config.read_recipe import parse_options, read_recipe, recipe_yaml, smoke_settings
    from emoreg.models.weight_source import FOLDER, HUB

    given = parse_options(kind, settings, ("out", "print-config", "dry-run", "smoke", "quiet"))
    recipe = read_recipe(kind, file, given)
    if smoke:
        overrides = smoke_settings(kind, recipe.edition)
        needs_pretrained = recipe.backbone.name.startswith((FOLDER, HUB))
        if recipe.backbone.pretrained and not needs_pretrained and "backbone.pretrained" not in given:
            overrides["backbone.pretrained"] = False
            print_line("emoreg: --smoke starts from random weights, so that published ones need not be downloaded")
        recipe = read_recipe(kind, file, overrides | given)
    if print_it:
        print(recipe_yaml(recipe), end="")
    return recipe


def _print_costs(recipe: Recipe, folder: Path, progress: Progress) -> int:
    """Print what the help of --dry-run names, and return the exit code."""
    from emoreg.runs.run import Run
    from emoreg.runtime.terminal import show
    from emoreg.stages.pretrain import experience_run
    from emoreg.study.image_counts import count_images
    from emoreg.study.missing_sets import describe_missing, download_notes, missing_sets_of
    from emoreg.training.fabric import device_kind

    is_refused = False
    try:
        recipe = _prepared(recipe, Run(folder))
        first_line = _outlook(folder, recipe)
        if Run(folder).is_finished:  # needs no images
            show(printable(first_line))
            return 0
        if isinstance(recipe, TrainRecipe) and recipe.encoder.experience is not None:
            experience_run(recipe.encoder.experience)
        device_kind(recipe.training, recipe.training.devices)
    except UserError as error:  # the rest is worth printing nevertheless
        first_line, is_refused = str(error), True
    counted = count_images([recipe], progress)
    missing = missing_sets_of(recipe, counted.faults)
    show(printable(first_line), *describe_missing(missing), *download_notes([recipe]))
    _print_estimate(recipe, counted, folder, progress)
    return 2 if is_refused or missing else 0


def _print_estimate(recipe: Recipe, sets: CountedSets, folder: Path, progress: Progress) -> None:
    """Print the number of images and steps, and the expected duration."""
    from emoreg.data.images.batches import steps_per_epoch
    from emoreg.runtime.progress import about
    from emoreg.runtime.terminal import show
    from emoreg.study.costs import estimate
    from emoreg.study.measured_speeds import gpu_estimate

    counts, training = sets.of(recipe), recipe.training
    if counts is None:
        show("no estimate, as the number of its images is not known")
        return
    steps = steps_per_epoch(counts.train, training.batch_size)
    show(
        f"{counts.train:,} images to train on, {counts.validation:,} for validation, {counts.test:,} to test; "
        f"{training.epochs:,} epochs of {steps:,} steps of {min(training.batch_size, counts.train):,} images"
    )
    if any(settings.root is not None for settings in recipe.sections.values()):
        show("no image was decoded; emoreg data verify finds those that cannot be")
    costs = estimate({"": recipe}, sets, progress, folders=[folder.parent])
    if not costs.seconds:
        show(f"no estimate, as there is no {training.device} here")
    else:
        show(f"{about(costs.seconds[''])} on this machine ({costs.machine})", costs.sources)
    if training.device in ("auto", "cuda") and (on_gpu := gpu_estimate([recipe], sets)):
        show(on_gpu)


def _prepared(recipe: Recipe, run: Run) -> Recipe:
    """Return the recipe as `train` and `pretrain` record it; raise UserError for settings that they refuse."""
    from emoreg.config.recipe import with_stems
    from emoreg.models.weight_source import with_sources
    from emoreg.stages.classifier import check_encoder, with_encoder_architecture
    from emoreg.stages.classify import check_augment

    if run.has_begun:  # for a new run, weights need not be downloaded to be recorded
        recipe = with_sources(recipe)
    if isinstance(recipe, PretrainRecipe):
        return with_stems(recipe)
    check_encoder(recipe)
    check_augment(recipe)
    return with_encoder_architecture(recipe)


def _outlook(folder: Path, recipe: Recipe) -> str:
    """Say in a line what training would do in a run folder; raise the UserError with which it would refuse to start."""
    from emoreg.runs.inputs import Inputs
    from emoreg.runs.run import Run, find_started_run
    from emoreg.runtime.lock import FolderInUse, holder
    from emoreg.stages.inputs import inputs_of

    inputs = inputs_of(recipe) if Run(folder).has_begun else Inputs()  # for a new run, images need no checksums
    run = find_started_run(folder, recipe, inputs)
    if run is not None and run.is_finished:
        return f"{folder}: already finished, nothing to train"
    if (process := holder(folder)) is not None:
        raise FolderInUse(folder, process)
    if run is None:
        return f"{folder}: a new run"
    if (divergence := run.divergence) is not None:
        raise divergence
    checkpoint, epochs = run.load_checkpoint(), recipe.training.epochs
    epoch = 1 if checkpoint is None else min(len(checkpoint["rows"]) + 1, epochs)
    return f"{folder}: resumes in epoch {epoch} of {epochs}; what follows is for the whole run"


def _with_smoke_experience(recipe: TrainRecipe) -> TrainRecipe:
    """Replace the recipe's stage-1 run by its smoke run if only that exists."""
    experience = recipe.encoder.experience
    if experience is None or Path(experience).is_dir():
        return recipe
    name, separator, seed = Path(experience).name.rpartition("-seed")
    smoke = Path(experience).with_name(f"{name}-smoke-seed{seed}" if separator else f"{seed}-smoke")
    if not smoke.is_dir():
        raise UserError(
            f"encoder.experience: no run folder {experience}, and no smoke run {smoke}; make one with "
            f"'emoreg pretrain RECIPE --smoke', or train without any: --encoder.experience null"
        )
    return replace(recipe, encoder=replace(recipe.encoder, experience=str(smoke)))


def _default_folder(file: Path, recipe: Recipe, smoke: bool) -> Path:
    """Return the run folder, the same for every path to the recipe's file."""
    parts = (file.resolve().parent.name, file.stem, "smoke" if smoke else "", f"seed{recipe.seed}")
    return Path("runs", "-".join(part for part in parts if part))


def _print_metrics(title: str, metrics: dict[str, Any], run: Run | None = None) -> None:
    if launch_env.rank() > 0:
        return  # the first process prints
    from emoreg.runtime.terminal import show, two_columns

    rows = [
        (key, f"{value:,.4f}" if isinstance(value, float) else f"{value:,}")
        for key, value in metrics.items()
        if isinstance(value, int | float)  # lists, such as the accuracy of each class, are only in files
    ]
    show(two_columns("metric", "value", rows, title))
    if run is not None:
        print(f"run folder: {run.folder}")


def _print_confusion(
    metrics: Mapping[str, Any], classes: Sequence[str], folder: Path | None, prints: bool = True, writes: bool = True
) -> None:
    """Print the most frequent confusions of classes, and write the whole matrix into a folder."""
    if launch_env.rank() > 0 or "confusion" not in metrics:
        return
    from emoreg.stages.confusion import frequent_confusions

    pairs = frequent_confusions(metrics["confusion"], classes)
    if prints and pairs:
        print(printable(f"most often: {'; '.join(pair.described for pair in pairs)}"))
    if folder is not None:
        from emoreg.inference.confusion_files import write_confusion
        from emoreg.runs.run import CONFUSION_PICTURE, CONFUSION_TABLE

        if writes:
            write_confusion(folder, metrics["confusion"], classes)
        if prints and (folder / CONFUSION_TABLE).exists():
            print(f"confusion matrix: {folder / CONFUSION_TABLE}, {CONFUSION_PICTURE}")
