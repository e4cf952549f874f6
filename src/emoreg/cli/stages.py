"""The commands that train and score one model: pretrain, train and evaluate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from json import dumps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

from emoreg.cli.edition import say_edition
from emoreg.cli.parser import DeviceName, Folder, Quiet, SettingsOf, Shown
from emoreg.config.recipe import PretrainRecipe, TrainRecipe
from emoreg.errors import UserError, printable
from emoreg.runtime import launch_env
from emoreg.runtime.progress import Progress
from emoreg.runtime.safe_io import make_folder, write_json
from emoreg.runtime.streams import tell

if TYPE_CHECKING:
    from emoreg.runs.run import Run

R = TypeVar("R", PretrainRecipe, TrainRecipe)
RecipeFile = Annotated[Path, Shown("RECIPE", "a YAML file, see recipes/")]
RunFolder = Annotated[Path, Shown("DIR", "run folder. Default: runs/<folder>-<recipe>-seed<seed>")]
PrintConfig = Annotated[bool, Shown(help="print the complete recipe and stop")]
DryRun = Annotated[
    bool,
    Shown(
        help="print what it would do in its folder, which images, encoder or device it lacks, and how long it takes on "
        "this machine, and stop; the exit code is 2 if it would be refused for one of these"
    ),
]
Smoke = Annotated[bool, Shown(help="train one epoch on a few images and score a few, to check that it runs")]


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

        say_edition(recipe)
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

        say_edition(recipe)
        was_finished = Run(folder).is_finished
        run = train_classifier(filled, folder, progress=progress)
        final = run.final
        title, measured = ("test split", final["test"]) if final["test"] else ("validation split", final["validation"])
        _print_metrics(title, measured or {}, run)
        _print_confusion(measured or {}, final["classes"], run.folder, writes=not was_finished)
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
    """Score a trained classifier on your images, or once more on its test split.

    Args:
        run: folder of a finished run of stage 2
        data: a target's name (cifar10), or a folder or zip of [test/]<class>/*.jpg|png. Default: the run's own test
            split
        out: folder to write metrics.json and the confusion matrix as confusion.csv and confusion.png
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
    if not json or out is not None:
        _print_confusion(metrics, metrics["classes"], out, not json)


def _read(kind: type[R], file: Path, settings: Sequence[str], smoke: bool, print_it: bool) -> R:
    from emoreg.config.read_recipe import parse_options, read_recipe, recipe_yaml, smoke_settings
    from emoreg.models.weight_source import FOLDER, HUB

    given = parse_options(kind, settings, ("out", "print-config", "dry-run", "smoke", "quiet"))
    recipe = read_recipe(kind, file, given)
    if smoke:
        more: dict[str, Any] = {}
        is_drawn = "backbone.pretrained" not in given and not recipe.backbone.name.startswith((FOLDER, HUB))
        if recipe.backbone.pretrained and is_drawn:
            more["backbone.pretrained"] = False
            tell("emoreg: --smoke starts from drawn weights: published ones would have to be downloaded first")
        recipe = read_recipe(kind, file, smoke_settings(kind, recipe.edition) | more | given)
    if print_it:
        print(recipe_yaml(recipe), end="")
    return recipe


def _print_costs(recipe: PretrainRecipe | TrainRecipe, folder: Path, progress: Progress) -> int:
    """Print what would be done in the run folder, which images, encoder or device are not here or cannot be used, what
    they need, and how long a run takes.

    The exit code is 2 if the run would be refused for one of these, else 0. Of a finished run no images are needed.
    """
    from emoreg.data.images.batches import steps_per_epoch
    from emoreg.runs.run import Run
    from emoreg.runtime.progress import about
    from emoreg.runtime.terminal import show
    from emoreg.stages.pretrain import experience_run
    from emoreg.study.costs import estimate
    from emoreg.study.image_counts import count_images
    from emoreg.study.measured_speeds import gpu_estimate
    from emoreg.study.missing_sets import download_notes, missing_sets_of, told
    from emoreg.training.fabric import device_kind

    outlook = refusal = None
    try:
        recipe = _prepared(recipe, Run(folder))
        outlook = _outlook(folder, recipe)
        if Run(folder).is_finished:
            show(printable(outlook))
            return 0
        if isinstance(recipe, TrainRecipe) and recipe.encoder.experience is not None:
            experience_run(recipe.encoder.experience)
        device_kind(recipe.training, recipe.training.devices)
    except UserError as error:  # what can be told is told all the same
        refusal = str(error)
    counted, training = count_images([recipe], progress), recipe.training
    missing = missing_sets_of(recipe, counted.faults)
    show(printable(refusal or outlook or ""), *told(missing), *download_notes([recipe]))
    code = 2 if refusal or missing else 0
    if (counts := counted.of(recipe)) is None:
        show("no estimate, as the number of its images is not known")
        return code
    steps = steps_per_epoch(counts.train, training.batch_size)
    show(
        f"{counts.train:,} images to train on, {counts.validation:,} for validation, {counts.test:,} to test; "
        f"{training.epochs:,} epochs of {steps:,} steps of {min(training.batch_size, counts.train):,} images"
    )
    if any(settings.root is not None for settings in recipe.sections.values()):
        show("no image was decoded; emoreg data verify finds those that cannot be")
    costs = estimate({"": recipe}, counted, progress, folders=[folder.parent])
    if not costs.seconds:
        show(f"no estimate, as there is no {training.device} here")
    else:
        show(f"{about(costs.seconds[''])} on this machine ({costs.machine})", costs.sources)
    if training.device in ("auto", "cuda") and (on_gpu := gpu_estimate([recipe], counted)):
        show(on_gpu)
    return code


def _prepared(recipe: PretrainRecipe | TrainRecipe, run: Run) -> PretrainRecipe | TrainRecipe:
    """The recipe as `train` and `pretrain` record it. UserError for settings that they refuse."""
    from emoreg.config.recipe import with_stems
    from emoreg.models.weight_source import with_sources
    from emoreg.stages.classifier import check_encoder, with_encoder_architecture
    from emoreg.stages.classify import check_augment

    if run.has_begun:  # else no weights are fetched
        recipe = with_sources(recipe)
    if isinstance(recipe, PretrainRecipe):
        return with_stems(recipe)
    check_encoder(recipe)
    check_augment(recipe)
    return with_encoder_architecture(recipe)


def _outlook(folder: Path, recipe: PretrainRecipe | TrainRecipe) -> str:
    """What training would do in a run folder, in a line. UserError with what it would refuse it for."""
    from emoreg.runs.inputs import Inputs
    from emoreg.runs.run import Run, begun_run
    from emoreg.runtime.lock import FolderInUse, holder
    from emoreg.stages.inputs import inputs_of

    inputs = inputs_of(recipe) if Run(folder).has_begun else Inputs()  # else no images are looked through
    run = begun_run(folder, recipe, inputs)
    if run is not None and run.is_finished:
        return f"{folder}: already finished, nothing to train"
    if (other := holder(folder)) is not None:
        raise FolderInUse(folder, other)
    if run is None:
        return f"{folder}: a new run"
    if (divergence := run.divergence) is not None:
        raise divergence
    done = len((run.load_checkpoint() or {"rows": ()})["rows"])
    epochs = recipe.training.epochs
    return f"{folder}: goes on in epoch {min(done + 1, epochs)} of {epochs}; what follows is of the whole run"


def _with_smoke_experience(recipe: TrainRecipe) -> TrainRecipe:
    """The recipe with the smoke run of its stage 1, where that is there and the run that it names is not."""
    experience = recipe.encoder.experience
    if experience is None or Path(experience).is_dir():
        return recipe
    name, found, seed = Path(experience).name.rpartition("-seed")
    smoke = Path(experience).with_name(f"{name}-smoke-seed{seed}" if found else f"{seed}-smoke")
    if not smoke.is_dir():
        raise UserError(
            f"encoder.experience: no run folder {experience}, and no smoke run {smoke}; make one with "
            f"'emoreg pretrain RECIPE --smoke', or train without any: --encoder.experience null"
        )
    return replace(recipe, encoder=replace(recipe.encoder, experience=str(smoke)))


def _default_folder(file: Path, recipe: PretrainRecipe | TrainRecipe, smoke: bool) -> Path:
    """The run folder, the same for every path to the recipe's file."""
    parts = (file.resolve().parent.name, file.stem, "smoke" if smoke else "", f"seed{recipe.seed}")
    return Path("runs", "-".join(part for part in parts if part))


def _print_metrics(title: str, metrics: dict[str, Any], run: Run | None = None) -> None:
    if launch_env.rank() > 0:
        return  # the first process prints
    from emoreg.runtime.terminal import show, two_columns

    rows = [
        (key, f"{value:,.4f}" if isinstance(value, float) else f"{value:,}")
        for key, value in metrics.items()
        if isinstance(value, int | float)  # lists, such as the accuracy of each class, are for files
    ]
    show(two_columns("metric", "value", rows, title))
    if run is not None:
        print(f"run folder: {run.folder}")


def _print_confusion(
    metrics: Mapping[str, Any], classes: Sequence[str], folder: Path | None, prints: bool = True, writes: bool = True
) -> None:
    """Print which classes are most often taken for which, and write the whole matrix into a folder."""
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
