"""Score a finished run in suites, each once."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from emoreg.config.recipe import TrainRecipe
from emoreg.config.target_words import PREDICTED
from emoreg.config.training import Device
from emoreg.data.targets.target import Target
from emoreg.errors import UserError
from emoreg.models.regulation import RegulatedClassifier
from emoreg.runs.provenance import environment, package_version
from emoreg.runs.run import WEIGHTS, Run, open_run
from emoreg.runtime.lock import hold
from emoreg.runtime.optional import is_installed
from emoreg.runtime.progress import Progress, figure
from emoreg.suites import adversarial, calibration, corruptions, human_uncertainty, out_of_distribution, transfer
from emoreg.suites.figures import headlines
from emoreg.suites.options import Suite, read_suites
from emoreg.suites.results import SuiteResult, current_result, read_result, write_result
from emoreg.suites.subject import MORE, Scored, Subject, open_subject, refuse_other_images
from emoreg.training.fabric import resolve_precision, scoring_settings

SCORERS: Mapping[str, Callable[[Subject, Any], Scored]] = {
    "corruptions": corruptions.score,
    "calibration": calibration.score,
    "out_of_distribution": out_of_distribution.score,
    "adversarial": adversarial.score,
    "transfer": transfer.score,
    "human_uncertainty": human_uncertainty.score,
}
# The libraries of suites that need one: names in Python and for pip.
LIBRARIES: Mapping[str, tuple[str, str]] = {
    "corruptions": ("imagecorruptions", "imagecorruptions-imaug"),
    "adversarial": ("art", "adversarial-robustness-toolbox"),
}


def score_suites(
    run: Run | Path | str,
    suites: Iterable[Suite | str | Mapping[str, Any]],
    device: Device = "auto",
    model: RegulatedClassifier | None = None,
    data: Target | None = None,
    progress: Progress | None = None,
    recipe: TrainRecipe | None = None,
) -> tuple[SuiteResult, ...]:
    """Score a finished run of stage 2 in suites, from its saved model.

    Results are kept in the run's folder, and existing ones are not computed again, unless a folder among the other sets
    holds other files now. Other options give another result.

    Args:
        run: the run or its folder.
        suites: names, or mappings of one name to its options: ["calibration", {"adversarial": {"images": 100}}].
        device: as training.device.
        model: for a run that trained your own model, one built with the same code.
        data: for a run that was given its images in Python, the same images.
        progress: shows progress; None for the terminal.
        recipe: the run's recipe with the current root of its images; None for its own.

    Returns:
        The results, in the order of `suites`; `figures` of each is a mapping of names to numbers.

    Raises:
        UserError: the run is not finished, or has no weights; its images are missing, or have changed; a library is not
            installed; a result is damaged.
        SettingError: an unknown suite or option; the error names the closest match.
    """
    wanted, run, progress = read_suites(suites), open_run(run), progress or Progress()
    own = require_scorable(run)
    if data is not None:
        refuse_other_images(run, data)  # otherwise earlier results would be returned for other images
    missing = [suite for suite in wanted if current_result(run, suite) is None]
    if missing:
        require_libraries(missing)
        with hold(run.folder):  # another process may have scored some in the meantime
            missing = [suite for suite in missing if current_result(run, suite) is None]
            if missing:
                subject = open_subject(run, recipe or own, device, model, data, progress)
                for suite in missing:
                    _score(subject, suite)
    results = [read_result(run, suite) for suite in wanted]
    return tuple(result for result in results if result is not None)


def require_scorable(run: Run) -> TrainRecipe:
    """Return the recipe of a finished classifier of one class per image; raise UserError for any other run."""
    recipe = run.recipe
    if not isinstance(recipe, TrainRecipe):
        raise UserError(f"{run.folder} is a run of stage 1; suites score classifiers")
    if (task := recipe.target.task) != "classification":
        raise UserError(f"{run.folder} predicts {PREDICTED[task]}; suites score classifiers of one class per image")
    _ = run.final
    if not (run.folder / WEIGHTS).is_file():
        raise UserError(
            f"{run.folder} has no {WEIGHTS}, which suites need: restore it, or delete {run.folder} and train the run "
            "again"
        )
    return recipe


def require_libraries(suites: Sequence[Suite]) -> None:
    """Raise UserError for a suite whose library is not installed."""
    for suite in suites:
        module, package = LIBRARIES.get(suite.name, ("", ""))
        if module and not is_installed(module):
            raise UserError(f"the suite {suite.name} needs {package}: pip install {MORE}")


def _score(subject: Subject, suite: Suite) -> None:
    start = time.perf_counter()
    scored = SCORERS[suite.name](subject, suite.options)
    device: Any = subject.fabric.device.type
    precision = resolve_precision(scoring_settings(subject.recipe, subject.run, device), device)
    package = LIBRARIES[suite.name][1] if suite.name in LIBRARIES else "scikit-learn"
    where = environment()
    where["packages"] = {**where["packages"], package: package_version(package)}
    content = {
        "figures": dict(scored.figures),
        "images": scored.images,
        "checksums": dict(scored.checksums),
        "environment": {**where, "device": str(subject.fabric.device), "precision": precision},
        "seconds": time.perf_counter() - start,
    }
    write_result(subject.run, suite, content)
    first = headlines(suite.name)[0]
    subject.progress.detail(
        f"{subject.run.folder.name}: {suite.name}: {first.title} {figure(scored.figures[first.name])}, "
        f"{content['seconds']:.0f} s"
    )
