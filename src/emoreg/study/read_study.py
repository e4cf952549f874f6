"""From a study's file to the study."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

from emoreg.config.read_recipe import build, flatten, put_setting, smoke_settings, typed_values
from emoreg.config.recipe import EDITION, PretrainRecipe, TrainRecipe
from emoreg.config.setting_types import path_of, typed_value
from emoreg.config.strict_yaml import read_yaml
from emoreg.errors import SettingError, UserError, printable
from emoreg.runtime.lock import LOCK
from emoreg.runtime.progress import Progress
from emoreg.study import first_edition
from emoreg.study.arms import factorial
from emoreg.study.definition import Study, needs_machine, on_machine, scored_in
from emoreg.study.grid_of_file import FileValues, grid_of
from emoreg.study.kept_data import with_those_here
from emoreg.study.machine import Machine
from emoreg.study.study_file import StudyFile
from emoreg.suites.options import shrunk, written_out

FILE = "study.yaml"  # in a study's folder: a copy of the file that defines it
TABLE = "results.parquet"  # beside it, once the study has run
# More than anybody has time for: a typo such as one zero too many is refused before its plan fills the memory.
MAX_LISTED, MAX_RUNS = 100, 100_000
# Settings of the recipes that the study decides.
DECIDED = (
    *("pretraining.backbone", "pretraining.pretext", "pretraining.seed", "pretraining.edition"),
    *("classifier.encoder.experience", "classifier.encoder.moments_only", "classifier.regulation.mode"),
    *("classifier.seed", "classifier.edition", "classifier.target.test"),
)
INSTEAD = {
    "pretraining.backbone": "set classifier.encoder.backbone instead",
    "classifier.target.test": "set the study's purpose: an exploration leaves the test split unseen",
}
# The lists of partial recipes that are laid over each base recipe.
LAID_OVER = {"pretraining": ("stimuli",), "classifier": ("targets", "backbones")}
# Keys that hold recipes, and those that hold anything else.
RECIPES = ("pretraining", "stimuli", "classifier", "targets", "backbones", "variants")
HEADER = tuple(item.name for item in fields(StudyFile) if item.name not in RECIPES)


def with_data(study: Study, out: Path) -> Study:
    """The study with what is known of its images: by its folder `out`, and of others by what is here now."""
    before = None if study.data else kept_study(out)
    data = with_those_here(study.data if before is None else before.data, study.recipes)
    values = None if study.values is None else {**study.values, "data": [asdict(each) for each in data]}
    return replace(study, data=data, values=values)


def with_machine(study: Study, out: Path, here: Machine) -> Study:
    """The study with what its `auto` stands for, if a machine decides that: what it was when the folder was begun.

    Otherwise some of its runs would be of one precision, and the rest of another. On a device of another kind it is
    another study, with runs of its own.

    Args:
        study: whose machine is asked for if `needs_machine`.
        out: the study's folder.
        here: what `auto` stands for where the runs are done.
    """
    if not needs_machine(study):
        return study
    before = kept_study(out)
    machine = None if before is None else before.machine
    return on_machine(study, here if machine is None or machine.device != here.device else machine)


def with_suites(study: Study, out: Path) -> Study:
    """The study with the suites that its folder `out` has and its file does not name: 'emoreg suites' may add some."""
    before, own = kept_study(out), {suite.name for suite in study.suites}
    added = () if before is None else tuple(suite for suite in before.suites if suite.name not in own)
    return scored_in(study, (*study.suites, *added)) if added else study


def kept_study(out: Path) -> Study | None:
    """The study whose copy a folder has; None without one."""
    copy = out / FILE
    if copy.is_file():
        with contextlib.suppress(UserError):  # a damaged copy knows nothing
            return read_study(copy)
    return None


def find_study(path: Path | str) -> Path:
    """The file of a study, given that file or the folder that 'emoreg study' made. UserError if there is none."""
    path = Path(path)
    file = path / FILE if path.is_dir() else path
    if not file.is_file():
        what = f"{path} is not a study's folder: it has no {FILE}" if path.is_dir() else f"no study file {path}"
        raise UserError(f"{what}; give a YAML file, see recipes/studies/, or the folder that 'emoreg study' made")
    return file


def is_kept(path: Path) -> bool:
    """Whether this is the copy in a study's folder, rather than a user's own file of the same name."""
    return path.name == FILE and any((path.parent / trace).exists() for trace in (TABLE, LOCK))


def read_study(
    path: Path | str,
    seeds: int | None = None,
    smoke: bool = False,
    is_stored: bool | None = None,
    progress: Progress | None = None,
) -> Study:
    """Read a study's file. Keys of the first edition, in a file that does not say its edition, are read as today's.

    Args:
        path: the YAML file.
        seeds: how many to run for now, also more than the file plans; the plan stays. None for those of the file.
        smoke: one seed of one epoch over few images in every run, to see that all of it runs.
        is_stored: whether 'emoreg study' wrote the file. It is then read as it is: without an edition it is of the
            first, else of the current one. None to tell by its place.
        progress: says what keys of the first edition were taken for; None for the terminal.

    Raises:
        UserError: unreadable file.
        SettingError: unknown key (names the nearest known one), wrong type or value; names the file, line and key.
    """
    path, seeds = path_of(path, "path"), typed_value(int | None, seeds, "seeds")
    is_copy = is_kept(path)
    # The copy in a study's folder is always called study.yaml; the folder has the study's name.
    name = path.resolve().parent.name if is_copy else path.stem
    is_stored = is_copy if is_stored is None else is_stored
    file, read_as = _read_file(path, is_stored)
    if seeds is not None:
        file = _with_seeds(file, seeds)
    try:
        study = _study(name, file)
        if not is_stored:  # what a study began with stays readable; of a smoke run, variants may be alike
            _refuse_in_own_file(study)
    except SettingError as error:
        raise error.at(path, file.keys.get(error.key)) from None
    if read_as is not None:
        line = f"emoreg: {path}: keys of the first edition: {read_as}; now edition {EDITION} of the method, with its "
        (progress or Progress()).say(printable(f"{line}defaults; write 'edition: 1' to keep the first"))
    if smoke:
        study = _study(name, _shrunk(file))
    return replace(study, read_as=read_as)


def _read_file(path: Path, is_stored: bool) -> tuple[FileValues, str | None]:
    """What a study's file says, and what keys of the first edition in it were taken for; None without any."""
    raw, lines = read_yaml(path)
    given = raw if isinstance(raw, Mapping) else {}
    edition = given.get("edition", 1 if is_stored else EDITION)
    if edition == 1:
        values = typed_values(first_edition.StudyFile, raw, lines, path)
        return FileValues({"edition": edition, **values}, lines, first_edition.WORDS), None
    if "edition" in given and (old := first_edition.old_key(given)) is not None:
        raise SettingError(*old, path, lines.get(old[0]))
    try:
        translation = first_edition.translated(given)
    except SettingError as error:
        raise error.at(path, lines.get(error.key)) from None
    if translation is not None:
        raw, lines = translation.values, translation.lines(lines)
    if isinstance(raw, Mapping) and "suites" in raw:
        raw = {**raw, "suites": written_out(raw["suites"])}
    values = {"edition": edition, **typed_values(StudyFile, raw, lines, path)}
    if edition == EDITION:
        values["stem"] = values.get("stem") or ("cifar" if is_stored else "auto")
    return FileValues(values, lines, {}), None if translation is None else translation.read_as


def _with_seeds(file: FileValues, seeds: int) -> FileValues:
    """The file with so many seeds to run for now, which is then no line of it."""
    key = "seeds" if file.given["edition"] == 1 else "run_seeds"
    lines = {name: line for name, line in file.keys.items() if name != key}
    return FileValues({**file.given, key: seeds}, lines, file.words)


def _refuse_in_own_file(study: Study) -> None:
    """SettingError for what an own file may not have: `smoke`, which would free its study from the plan; looks that
    nobody takes; suites that cannot be scored; a variant under a second name."""
    if study.is_smoke:
        raise SettingError("smoke", "is written by emoreg alone: leave it out, and give 'emoreg study' --smoke")
    if study.suites and (others := [point for point in study.grid if point.recipe.target.task != "classification"]):
        reason = f"must be left out with the target {others[0].target}: suites score classifiers of one class an image"
        raise SettingError("suites", reason)
    if study.purpose == "exploration" and study.looks is not None:
        raise SettingError("looks", "must be left out of an exploration, which gives no verdicts")
    variants = enumerate(zip(*(point.variants for point in study.grid), strict=True))
    for (first, one), (second, other) in itertools.combinations(variants, 2):
        if all((a.recipe, a.stimuli) == (b.recipe, b.stimuli) for a, b in zip(one, other, strict=True)):
            reason = f"has the same settings as variants[{first}], '{one[0].label}'; change one, or leave it out"
            raise SettingError(f"variants[{second}]", reason)


def _shrunk(file: FileValues) -> FileValues:
    """The file with one seed, and smoke settings in every recipe."""
    values = {key: value for key, value in file.given.items() if key not in ("looks", "run_seeds")}
    values |= {"seeds": 1, "smoke": True}
    for stage, base in ((PretrainRecipe, "pretraining"), (TrainRecipe, "classifier")):
        places = [file.name(name) for name in (base, *LAID_OVER[base])]
        for key, value in smoke_settings(stage, values["edition"]).items():
            for place in (places[0], *(f"{name}[]" for name in places[1:])):
                put_setting(values, f"{place}.{key}", value)
    for part in (*values.get("variants", ()), *values.get("backbones", ())):
        for key, value in smoke_settings(PretrainRecipe, values["edition"]).items() if "pretraining" in part else ():
            put_setting(part, f"pretraining.{key}", value)
    if "suites" in values:
        values["suites"] = shrunk(values["suites"])
    return FileValues(values, file.keys, file.words)


def _study(name: str, file: FileValues) -> Study:
    """The study that a file's values define."""
    if (edition := file.given["edition"]) == 1:
        keys = ("edition", "arms", "seeds", "control_mode", "data", "smoke")
        old = build(first_edition.StudyFile(), _header(file, keys))
        arms = tuple(first_edition.arm_of(arm, old.control_mode) for arm in old.arms)
        study = Study(name, (), arms, old.seeds, purpose=None, edition=1, data=old.data, is_smoke=old.smoke)
    else:
        new: StudyFile = build(StudyFile(), _header(file, HEADER))
        if edition != EDITION:
            raise SettingError("edition", f"must be 1 or {EDITION}, not {edition}")
        arms = factorial(new.modes, new.experiences, new.references, new.relatives)
        plan = (new.seeds, new.looks, new.run_seeds, new.first_seed, new.purpose, new.machine)
        study = Study(name, (), arms, *plan, EDITION, new.data, new.suites, new.smoke)
    runs = len(study.seed_numbers) * len(arms)
    for key in ("stimuli", "targets", "backbones", "variants"):
        entries = len(file.get(key, ()))
        if entries > MAX_LISTED:
            raise SettingError(
                file.name(key), f"must have at most {MAX_LISTED} entries, not {entries:,}; make several studies"
            )
        runs *= max(entries, 1)
    if runs > MAX_RUNS:
        seeds = len(study.seed_numbers)
        raise SettingError("seeds", f"{seeds:,} make up to {runs:,} runs; at most {MAX_RUNS:,} are possible")
    _refuse_decided(file)
    return replace(study, grid=grid_of(file, study), values=file.given)


def _header(file: FileValues, keys: Sequence[str]) -> dict[str, Any]:
    return {key: file.given[key] for key in keys if key in file.given}


def _refuse_decided(file: FileValues) -> None:
    """SettingError for a setting that the study decides, in a base recipe or in a partial one laid over it."""
    for key in DECIDED:
        base, _, setting = key.partition(".")
        parts = [(base, file.get(base, {}))]
        parts += [(f"{name}[{n}]", part) for name in LAID_OVER[base] for n, part in enumerate(file.get(name, ()))]
        for name in ("variants", "backbones"):
            parts += [(f"{name}[{n}].{base}", part.get(base, {})) for n, part in enumerate(file.get(name, ()))]
        for place, part in parts:
            if any(leaf == setting or leaf.startswith(f"{setting}.") for leaf, _ in flatten(part)):
                reason = f"is decided by the study; {INSTEAD.get(key, 'leave it out')}"
                raise SettingError(f"{file.name(place)}.{setting}", reason)
