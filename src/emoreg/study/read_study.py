"""Read a study from its file."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path

from emoreg.config.read_recipe import build, flatten, put_setting, smoke_settings, typed_values
from emoreg.config.recipe import EDITION, PretrainRecipe, TrainRecipe
from emoreg.config.setting_types import path_of, typed_value
from emoreg.config.strict_yaml import read_yaml
from emoreg.errors import SettingError, UserError, printable
from emoreg.runtime.lock import LOCK
from emoreg.runtime.progress import Progress
from emoreg.study import first_edition
from emoreg.study.arms import factorial
from emoreg.study.definition import Study, needs_machine, scored_in
from emoreg.study.grid_of_file import FileValues, grid_of
from emoreg.study.kept_data import with_those_here
from emoreg.study.machine import Machine
from emoreg.study.study_file import StudyFile
from emoreg.suites.options import shrunk, written_out

FILE = "study.yaml"  # in a study's folder: a copy of its file
TABLE = "results.parquet"  # in a study's folder, once it has run
# Limits of a list's entries and of all runs, so that a typo, such as one zero too many, does not fill the memory.
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
RECIPES = ("pretraining", "stimuli", "classifier", "targets", "backbones", "variants")  # keys that hold recipes


def with_data(study: Study, kept: Study | None) -> Study:
    """Add the records of a study's images: from its kept copy, and for other sets from the images themselves."""
    data = with_those_here(study.data or (() if kept is None else kept.data), study.recipes)
    values = None if study.values is None else {**study.values, "data": [asdict(each) for each in data]}
    return replace(study, data=data, values=values)


def with_machine(study: Study, kept: Study | None, here: Machine) -> Study:
    """Set what `auto` stands for in a study that needs it: what it was when the study's folder was started.

    Otherwise some runs would have one precision, and the rest another. On a device of another kind the study has
    different runs, and the folder's machine is not used.

    Args:
        study: any study; it changes only if `needs_machine`.
        kept: the copy in the study's folder, from `kept_study`.
        here: what `auto` stands for where the runs are done.
    """
    if not needs_machine(study):
        return study
    machine = here
    if kept is not None and kept.machine is not None and kept.machine.device == here.device:
        machine = kept.machine
    values = None if study.values is None else {**study.values, "machine": asdict(machine)}
    return replace(study, machine=machine, values=values)


def with_suites(study: Study, kept: Study | None) -> Study:
    """Add the suites that only the kept copy names: 'emoreg suites' may have added them."""
    names = {suite.name for suite in study.suites}
    added = () if kept is None else tuple(suite for suite in kept.suites if suite.name not in names)
    return scored_in(study, (*study.suites, *added)) if added else study


def kept_study(out: Path) -> Study | None:
    """The study in a folder, from the copy of its file; None without a readable copy."""
    copy = out / FILE
    if copy.is_file():
        with contextlib.suppress(UserError):
            return read_study(copy)
    return None


def find_study(path: Path | str) -> Path:
    """Find the file of a study, given that file or the folder that 'emoreg study' made.

    Raises:
        UserError: there is no such file.
    """
    path = Path(path)
    file = path / FILE if path.is_dir() else path
    if not file.is_file():
        what = f"{path} is not a study's folder: it has no {FILE}" if path.is_dir() else f"no study file {path}"
        raise UserError(f"{what}; give a YAML file, see recipes/studies/, or the folder that 'emoreg study' made")
    return file


def is_kept(path: Path) -> bool:
    """Return whether this is the copy in a study's folder, not a user's file of the same name."""
    return path.name == FILE and any((path.parent / trace).exists() for trace in (TABLE, LOCK))


def read_study(
    path: Path | str,
    seeds: int | None = None,
    smoke: bool = False,
    is_stored: bool | None = None,
    progress: Progress | None = None,
) -> Study:
    """Read a study's file. Keys of the first edition are converted if the file does not specify its edition.

    Args:
        path: the YAML file.
        seeds: number of seeds to run for now, possibly more than planned; the plan stays. None for the file's.
        smoke: one seed, one epoch and few images in every run, to check that the study runs.
        is_stored: whether 'emoreg study' wrote the file. Such a file is of the first edition if it specifies none, and
            nothing in it is converted. None to decide by its folder.
        progress: reports how keys of the first edition were converted; None for the terminal.

    Raises:
        UserError: unreadable file.
        SettingError: unknown key (the error names the closest match), wrong type or value; names file, line and key.
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
        if not is_stored:  # stored studies stay readable, and variants of a smoke run may be equal
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
    """Read the values of a study's file, and a line on converted keys of the first edition; None if there are none."""
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
    """Set the number of seeds to run for now, which then has no line in the file."""
    key = "seeds" if file.given["edition"] == 1 else "run_seeds"
    lines = {name: line for name, line in file.keys.items() if name != key}
    return FileValues({**file.given, key: seeds}, lines, file.words)


def _refuse_in_own_file(study: Study) -> None:
    """Raise SettingError for what only a stored file may have: `smoke`, which allows the plan to change; looks in an
    exploration; suites with a task that they cannot score; two equal variants."""
    if study.is_smoke:
        raise SettingError("smoke", "is written by emoreg alone: leave it out, and give 'emoreg study' --smoke")
    if study.suites and (others := [point for point in study.grid if point.recipe.target.task != "classification"]):
        reason = f"must be left out with the target {others[0].target}: suites score classifiers of one class per image"
        raise SettingError("suites", reason)
    if study.purpose == "exploration" and study.looks is not None:
        raise SettingError("looks", "must be left out of an exploration, which gives no verdicts")
    variants = enumerate(zip(*(point.variants for point in study.grid), strict=True))
    for (first, one), (second, other) in itertools.combinations(variants, 2):
        if all((a.recipe, a.stimuli) == (b.recipe, b.stimuli) for a, b in zip(one, other, strict=True)):
            reason = f"has the same settings as variants[{first}], '{one[0].label}'; change one, or leave it out"
            raise SettingError(f"variants[{second}]", reason)


def _shrunk(file: FileValues) -> FileValues:
    """Reduce a file to one seed, and set the smoke settings in every recipe."""
    values = {key: value for key, value in file.given.items() if key not in ("looks", "run_seeds")}
    values |= {"seeds": 1, "smoke": True}
    for stage, base in ((PretrainRecipe, "pretraining"), (TrainRecipe, "classifier")):
        for key, value in smoke_settings(stage, values["edition"]).items():
            for place in (file.name(base), *(f"{file.name(name)}[]" for name in LAID_OVER[base])):
                put_setting(values, f"{place}.{key}", value)
    for part in (*values.get("variants", ()), *values.get("backbones", ())):
        if "pretraining" in part:
            for key, value in smoke_settings(PretrainRecipe, values["edition"]).items():
                put_setting(part, f"pretraining.{key}", value)
    if "suites" in values:
        values["suites"] = shrunk(values["suites"])
    return FileValues(values, file.keys, file.words)


def _study(name: str, file: FileValues) -> Study:
    """Build the study of a file."""
    header = {key: value for key, value in file.given.items() if key not in map(file.name, RECIPES)}
    if (edition := file.given["edition"]) == 1:
        old = build(first_edition.StudyFile(), header)
        arms = tuple(first_edition.arm_of(arm, old.control_mode) for arm in old.arms)
        study = Study(name, (), arms, old.seeds, purpose=None, edition=1, data=old.data, is_smoke=old.smoke)
    else:
        new: StudyFile = build(StudyFile(), header)
        if edition != EDITION:
            raise SettingError("edition", f"must be 1 or {EDITION}, not {edition}")
        arms = factorial(new.modes, new.experiences, new.references, new.relatives)
        plan = (new.seeds, new.looks, new.run_seeds, new.first_seed, new.purpose, new.machine)
        study = Study(name, (), arms, *plan, EDITION, new.data, new.suites, new.smoke)
    _refuse_too_large(file, study)
    _refuse_decided(file)
    return replace(study, grid=grid_of(file, study), values=file.given)


def _refuse_too_large(file: FileValues, study: Study) -> None:
    seeds = len(study.seed_numbers)
    runs = seeds * len(study.arms)
    for key in ("stimuli", "targets", "backbones", "variants"):
        entries = len(file.get(key, ()))
        if entries > MAX_LISTED:
            reason = f"must have at most {MAX_LISTED} entries, not {entries:,}; make several studies"
            raise SettingError(file.name(key), reason)
        runs *= max(entries, 1)
    if runs > MAX_RUNS:
        raise SettingError("seeds", f"{seeds:,} make up to {runs:,} runs; at most {MAX_RUNS:,} are possible")


def _refuse_decided(file: FileValues) -> None:
    """Raise SettingError for a setting that the study decides, in a base recipe or a partial one."""
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
