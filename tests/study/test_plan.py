from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from emoreg.config.read_recipe import build
from emoreg.config.recipe import PretrainRecipe, TrainRecipe, defaults
from emoreg.config.schema import BackboneSettings, StimuliSettings
from emoreg.config.training import TrainingSettings
from emoreg.runs.run import CHECKPOINT, DIVERGED, FINAL
from emoreg.study.arms import EXPERIENCES, PlannedArm, factorial
from emoreg.study.definition import GridPoint, StimuliRecipe, Study, Variant
from emoreg.study.machine import Machine
from emoreg.study.part import part_of
from emoreg.study.plan import PlannedRun, left_out, plan_runs, run_id, run_name
from study_arms import BACKBONE, FRESH, LEARNED

OASIS = StimuliRecipe("oasis", PretrainRecipe(stimuli=StimuliSettings("oasis", root="x")))
PROCEDURAL = StimuliRecipe("procedural", PretrainRecipe())
CPU = Machine()


def grid(
    *cells: GridPoint, arms: tuple[PlannedArm, ...] = factorial(), seeds: int = 2, machine: Machine = CPU
) -> Study:
    return Study("grid", cells or (cell(),), arms, seeds, machine=machine)


def cell(target: str = "digits", recipe: TrainRecipe | None = None) -> GridPoint:
    recipe = recipe or build(TrainRecipe(), {"regulation": {"mode": "learned"}, "target": {"name": target}})
    return GridPoint(target, "resnet20", recipe, (OASIS, PROCEDURAL))


def variants(**changes: dict[str, object]) -> GridPoint:
    """A cell with a variant for each overlay on stage 2."""
    base = cell()
    made = [Variant(name, build(base.recipe, change), base.stimuli) for name, change in changes.items()]
    return dataclasses.replace(base, variants=tuple(made))


def labels(planned: list[PlannedRun], arm: PlannedArm) -> list[tuple[int, str | None]]:
    return [(run.seed, run.stimuli) for run in planned if (run.mode, run.experience) == (arm.mode, arm.experience)]


def test_every_arm_is_run_once_per_seed_and_stimulus_set(tmp_path: Path) -> None:
    planned = plan_runs(grid(), tmp_path)
    for arm in factorial():
        sets: tuple[str | None, ...] = ("oasis", "procedural") if arm.pretext else (None,)
        sets = ("oasis",) if arm.experience == "neutral" else sets
        assert labels(planned, arm) == [(seed, label) for seed in (0, 1) for label in sets], arm
    pretexts = [(run.experience, run.stimuli) for run in planned if run.mode is None]
    assert len(pretexts) == 2 * 7 and len(set(pretexts)) == 7  # once, though three arms use the affective one


def test_runs_are_ordered_by_seed_with_encoders_before_the_arms_that_use_them(tmp_path: Path) -> None:
    planned = plan_runs(grid(), tmp_path)
    assert [run.seed for run in planned] == sorted(run.seed for run in planned)
    seen: dict[str, Path] = {}
    for run in planned:
        if isinstance(run.recipe, TrainRecipe) and run.recipe.encoder.experience is not None:
            assert run.needs in seen and run.recipe.encoder.experience == str(seen[run.needs])
        else:
            assert run.needs is None
        seen[run.id] = run.folder
    assert len({run.folder for run in planned}) == len(planned)


def test_targets_share_their_encoders(tmp_path: Path) -> None:
    planned = plan_runs(grid(cell("digits"), cell("cifar10"), arms=(LEARNED,), seeds=1), tmp_path)
    assert sum(run.mode is None for run in planned) == 2
    assert sum(run.mode == "learned" for run in planned) == 4


def test_variants_share_the_references_and_each_has_its_own_twins(tmp_path: Path) -> None:
    mixture = {"loss": {"regulated": 1.0, "non_emotional": 0.0, "emotional": 0.0}, "regulation": {"mix": "logits"}}
    planned = plan_runs(grid(variants(own={}, mixture=mixture), seeds=1), tmp_path)
    for arm in factorial():
        of_arm = [run for run in planned if (run.mode, run.experience) == (arm.mode, arm.experience)]
        expected = {"own", "mixture"} if arm.has_regulated_mode else {None}
        assert {run.variant for run in of_arm} == expected, arm
    of_stage_1 = [run for run in planned if run.mode is None]
    assert {run.variant for run in of_stage_1} == {None} and len(of_stage_1) == 7
    loss = {run.variant: run.recipe.loss_weights for run in planned if isinstance(run.recipe, TrainRecipe)}
    assert loss["own"] == (0.5, 0.75, 0.75, 0) and loss["mixture"] == (1, 0, 0, 0)


def test_variants_of_the_takeover_share_a_fresh_twin_with_a_row_for_each(tmp_path: Path) -> None:
    study = grid(variants(as_is={}, shrunk={"encoder": {"takeover": "shrunk"}}), arms=(LEARNED, FRESH), seeds=1)
    planned = plan_runs(study, tmp_path)
    fresh = [run for run in planned if run.experience == "fresh"]
    assert [run.variant for run in fresh] == ["as_is", "shrunk"]
    assert len({(run.id, run.folder, run.name) for run in fresh}) == 1
    affect = {run.variant: run.id for run in planned if run.mode == "learned" and run.experience == "affect"}
    assert len({run.stimuli for run in planned if run.mode == "learned" and run.experience == "affect"}) == 2
    assert affect["as_is"] != affect["shrunk"]


def test_arms_with_one_recipe_share_a_run_with_a_row_for_each(tmp_path: Path) -> None:
    """Without a loss on the regulated response the twin fresh is the ensemble, and affect is unregulated."""
    apart = {"regulated": 0.0, "non_emotional": 1.0, "emotional": 1.0}
    point = cell(recipe=build(TrainRecipe(), {"regulation": {"mode": "fixed"}, "loss": apart}))
    point = dataclasses.replace(point, stimuli=(PROCEDURAL,))
    arms = factorial(("fixed",), ("affect", "fresh"), ("ensemble", "unregulated"))
    planned = plan_runs(grid(point, arms=arms, seeds=1), tmp_path)
    runs = {(run.mode, run.experience): run for run in planned if run.mode is not None}
    assert set(runs) == {(arm.mode, arm.experience) for arm in arms}
    assert runs["fixed", "fresh"].id == runs["ensemble", None].id
    assert runs["fixed", "affect"].id == runs["unregulated", "affect"].id
    assert len({run.folder for run in runs.values()}) == 2
    assert {run.mode for run in part_of(planned, ["fixed"])} == {None, "fixed", "ensemble", "unregulated"}


def test_a_run_of_another_study_with_other_labels_is_found(tiny_study: Study, tmp_path: Path) -> None:
    before = plan_runs(tiny_study, tmp_path)
    for run in before:
        run.folder.mkdir(parents=True)
    (point,) = tiny_study.grid
    renamed = dataclasses.replace(tiny_study, grid=(dataclasses.replace(point, target="my digits"),))
    after = plan_runs(renamed, tmp_path)
    assert [run.folder for run in after] == [run.folder for run in before]
    assert any(run.name != old.name for run, old in zip(after, before, strict=True))


@pytest.mark.parametrize(
    ("files", "used"),
    [
        ((None, FINAL, None), "b"),
        ((DIVERGED, CHECKPOINT), "a"),
        ((CHECKPOINT, DIVERGED), "b"),
        ((DIVERGED, FINAL), "b"),
    ],
)
def test_of_several_folders_of_a_run_the_one_that_has_come_furthest_is_used(
    tiny_study: Study, tmp_path: Path, files: tuple[str | None, ...], used: str
) -> None:
    run = plan_runs(tiny_study, tmp_path)[-1]
    digits = run.folder.name.rpartition("-")[2]
    for name, file in zip("abc", files, strict=False):
        (tmp_path / f"{name}-{digits}").mkdir()
        if file is not None:
            (tmp_path / f"{name}-{digits}" / file).write_text("{}")
    assert plan_runs(tiny_study, tmp_path)[-1].folder.name == f"{used}-{digits}"


def test_a_variant_of_stage_1_has_encoders_of_its_own(tmp_path: Path) -> None:
    base = cell()
    longer = dataclasses.replace(OASIS, recipe=dataclasses.replace(OASIS.recipe, training=TrainingSettings(epochs=99)))
    both = (Variant("short", base.recipe, (OASIS,)), Variant("long", base.recipe, (longer,)))
    point = dataclasses.replace(base, stimuli=(OASIS,), variants=both)
    arms = (LEARNED, PlannedArm("transfer", "affect"), PlannedArm("unregulated", "affect"))
    planned = plan_runs(grid(point, arms=arms, seeds=1), tmp_path)
    stage_1 = {run.variant: run for run in planned if run.mode is None}
    assert set(stage_1) == {None, "long"} and stage_1["long"].recipe.training.epochs == 99
    for mode in ("learned", "unregulated"):
        needs = {run.variant: run.needs for run in planned if run.mode == mode}
        assert needs == {"short": stage_1[None].id, "long": stage_1["long"].id}
    assert [run.needs for run in planned if run.mode == "transfer"] == [stage_1[None].id]


def test_moments_and_transfer_use_the_affective_encoder_of_their_seed(tmp_path: Path) -> None:
    for run in (planned := plan_runs(grid(), tmp_path)):
        if run.experience == "moments" or run.mode == "transfer":
            (encoder,) = [other for other in planned if other.id == run.needs]
            assert (encoder.experience, encoder.stimuli, encoder.seed) == ("affect", run.stimuli, run.seed)
            assert isinstance(run.recipe, TrainRecipe)
            assert run.recipe.encoder.moments_only == (run.experience == "moments")


def test_neutral_is_left_out_for_procedural_stimuli_and_a_line_says_so(tmp_path: Path) -> None:
    study = grid(arms=factorial(("learned",), EXPERIENCES, ()))
    (line,) = left_out(study)
    assert line.startswith("digits, resnet20: neutral is left out for procedural: ")
    assert {run.stimuli for run in plan_runs(study, tmp_path) if run.experience == "neutral"} == {"oasis"}
    assert left_out(grid(arms=(BACKBONE, LEARNED))) == []


def test_a_fresh_encoder_starts_as_stage_1_does_and_has_the_architecture_of_the_other_arms(tmp_path: Path) -> None:
    own = {"regulation": {"mode": "learned"}, "encoder": {"backbone": {"name": "resnet18", "pretrained": True}}}
    planned = plan_runs(grid(cell(recipe=build(TrainRecipe(), own)), seeds=1), tmp_path)
    published = BackboneSettings("resnet18", "cifar", pretrained=True)
    for run in planned:
        if isinstance(run.recipe, PretrainRecipe):
            assert run.recipe.backbone == published
        elif run.experience == "fresh":
            assert run.recipe.encoder.backbone == published
        elif run.needs:  # its weights come from stage 1
            assert run.recipe.encoder.backbone == BackboneSettings("resnet18", "cifar")


def test_a_stem_follows_the_target_s_images_in_both_stages(tmp_path: Path) -> None:
    small = StimuliRecipe("small", build(PretrainRecipe(), {"stimuli": {"image_size": 64}}))
    changes = {"target": {"image_size": 96}, "backbone": {"name": "resnet18"}, "regulation": {"mode": "learned"}}
    point = GridPoint("digits", "resnet18", build(TrainRecipe(), changes), (small,))
    planned = plan_runs(grid(point, arms=(BACKBONE, LEARNED, FRESH)), tmp_path)
    stems = {
        network.stem
        for run in planned
        for network in (run.recipe.backbone, getattr(run.recipe, "encoder_backbone", run.recipe.backbone))
    }
    assert stems == {"imagenet"}


def test_explorations_have_seeds_of_their_own(tmp_path: Path) -> None:
    study = dataclasses.replace(grid(arms=(BACKBONE,)), purpose="exploration", run_seeds=3)
    assert [run.seed for run in plan_runs(study, tmp_path)] == [1000, 1001, 1002]
    assert [run.seed for run in plan_runs(grid(arms=(BACKBONE,)), tmp_path)] == [0, 1]


def test_the_hash_depends_on_every_setting_but_not_on_paths(tmp_path: Path) -> None:
    recipe = TrainRecipe()
    changed = dataclasses.replace(recipe, training=dataclasses.replace(recipe.training, epochs=3))
    assert run_id(recipe) == run_id(TrainRecipe()) != run_id(changed)
    here, there = (plan_runs(grid(), tmp_path / place) for place in ("here", "there"))
    assert [run.id for run in here] == [run.id for run in there]
    assert len({run.id for run in here}) == len(here)
    more = plan_runs(grid(seeds=3, arms=(LEARNED, BACKBONE)), tmp_path / "here")
    assert {run.folder for run in more if run.seed < 2} <= {run.folder for run in here}  # found again in a larger study


def test_the_resolved_settings_decide_the_id(tmp_path: Path) -> None:
    """With `auto`, another kind of device gives other ids in both stages; a study that pins both has one set of ids."""
    gpu = Machine("cuda", "bf16-mixed")
    ids = [{run.id for run in plan_runs(grid(machine=machine), tmp_path)} for machine in (CPU, gpu)]
    assert not ids[0] & ids[1]
    for run in plan_runs(grid(machine=gpu), tmp_path):
        assert (run.recipe.training.device, run.recipe.training.precision) == ("cuda", "bf16-mixed")

    pinned = TrainingSettings(device="cpu", precision="32-true")
    point = cell(recipe=dataclasses.replace(cell().recipe, training=pinned))
    sets = tuple(dataclasses.replace(s, recipe=dataclasses.replace(s.recipe, training=pinned)) for s in point.stimuli)
    study = grid(dataclasses.replace(point, stimuli=sets))
    again = dataclasses.replace(study, machine=gpu)
    assert [run.id for run in plan_runs(study, tmp_path)] == [run.id for run in plan_runs(again, tmp_path)]


@pytest.mark.parametrize(
    ("device", "precision", "machine", "expected"),
    [
        ("auto", "auto", Machine("mps"), ("mps", "32-true")),
        ("cuda", "auto", CPU, ("cuda", "bf16-mixed")),  # need not exist here
        ("cuda", "auto", Machine("cuda", "32-true"), ("cuda", "32-true")),  # an old GPU
        ("cpu", "auto", Machine("cuda", "bf16-mixed"), ("cpu", "32-true")),
        ("auto", "32-true", Machine("cuda", "bf16-mixed"), ("cuda", "32-true")),
    ],
)
def test_auto_stands_for_what_the_machine_has(
    device: str, precision: str, machine: Machine, expected: tuple[str, str], tmp_path: Path
) -> None:
    recipe = build(TrainRecipe(), {"training": {"device": device, "precision": precision}})
    (run,) = plan_runs(grid(cell(recipe=recipe), arms=(BACKBONE,), seeds=1, machine=machine), tmp_path)
    assert (run.recipe.training.device, run.recipe.training.precision) == expected


@pytest.mark.parametrize("label", ["a/b: <c>", "ünïcode set, limit 5"])
def test_a_label_gives_a_folder_name_that_is_valid_on_any_disk(tmp_path: Path, label: str) -> None:
    (run,) = plan_runs(grid(dataclasses.replace(cell(), target=label), arms=(BACKBONE,), seeds=1), tmp_path)
    assert run.target == label and run.folder.parent == tmp_path
    assert not set(run.folder.name) & set('/\\:<>"|?* ')


@pytest.mark.parametrize("label", ["a variant whose name is a sentence " * 9, "感情" * 60, "é" * 300])
def test_a_label_of_any_length_gives_a_folder_that_can_be_made_and_is_found_again(tmp_path: Path, label: str) -> None:
    study = grid(dataclasses.replace(cell(), target=label), arms=(BACKBONE,))
    planned = plan_runs(study, tmp_path)
    assert [run.name.rpartition("-")[2] for run in planned] == ["seed0", "seed1"]
    for run in planned:
        assert run.target == label and run.folder.name == f"{run.name}-{run.id[:8]}"
        run.folder.mkdir()
        run.folder.rename(renamed := tmp_path / f"a whole name-{run.id[:8]}")
        assert run.folder not in {again.folder for again in plan_runs(study, tmp_path)}
        assert renamed in {again.folder for again in plan_runs(study, tmp_path)}


def test_a_name_of_usual_length_is_whole() -> None:
    label = "x" * 180
    assert run_name(label, 7) == f"{label}-seed7" and run_name("a b/", 0) == "a-b--seed0"


def test_a_limit_on_test_images_is_part_of_an_id_only_if_it_is_set() -> None:
    assert run_id(TrainRecipe()) != run_id(build(TrainRecipe(), {"target": {"test_limit": 9}}))
    assert run_id(PretrainRecipe()) != run_id(build(PretrainRecipe(), {"stimuli": {"test_limit": 9}}))


def test_a_stem_is_what_auto_stands_for(tmp_path: Path) -> None:
    def of(stem: str, size: int, edition: int = 2) -> str:
        encoder = {"backbone": {"name": "resnet18", "stem": stem}}
        recipe = build(
            defaults(TrainRecipe, edition),
            {"backbone": {"stem": stem}, "encoder": encoder, "target": {"image_size": size}},
        )
        return run_id(recipe)

    assert of("auto", 32) == of("cifar", 32) and of("auto", 64) == of("cifar", 64)
    assert of("auto", 65) == of("imagenet", 65) != of("cifar", 65)
    assert of("auto", 224, edition=1) == of("cifar", 224, edition=1)


def test_settings_added_later_do_not_change_the_ids_of_runs_that_do_not_use_them() -> None:
    ids = run_id(PretrainRecipe()), run_id(TrainRecipe())
    assert ids == ("79d979f10589e2d8", "8cf91915f485e1d7"), "a new setting belongs into LATER (config/recipe.py)"
