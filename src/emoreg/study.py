"""Arms and seeds: every arm trained with every seed, all else equal, stage-1 encoders shared."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from emoreg.classification import train
from emoreg.experience import pretrain
from emoreg.progress import Progress
from emoreg.run import Run
from emoreg.settings import EncoderSettings, Mode, PretrainRecipe, RegulationSettings, TrainRecipe
from emoreg.summary import ArmSummary, interval


@dataclass(frozen=True)
class Arm:
    """One thing that is compared."""

    label: str  # in reports
    mode: Mode
    experience: Literal["none", "affective"]  # what the emotional encoder has lived through
    is_control: bool = False


# Names and labels as in docs/method.md; the controls are ours.
ARMS: Mapping[str, Arm] = {
    "backbone": Arm("Backbone", "none", "none"),
    "fixed": Arm("E-Reg", "fixed", "affective"),
    "random": Arm("Rand-E-Reg", "random", "affective"),
    "learned": Arm("Learn-E-Reg", "learned", "affective"),
    "random_learned": Arm("Rand-Learn-E-Reg", "random_learned", "affective"),
    "random_encoder": Arm("random_encoder", "learned", "none", is_control=True),
}


def arm_recipe(recipe: TrainRecipe, arm: Arm, experience: Path, seed: int) -> TrainRecipe:
    """The recipe of one arm: it differs from `recipe` in the emotional branch and the seed, in nothing else.

    What an arm cannot have is left out: the plain backbone the losses of the two responses, a λ that is not
    learned its granularity.

    Args:
        recipe: of the study; its encoder's and regulation's other settings are kept.
        arm: which one.
        experience: folder of the stage-1 run for arms that have one.
        seed: of the run.
    """
    if arm.mode == "none":
        loss = dataclasses.replace(recipe.loss, non_emotional=0.0, emotional=0.0)
        return dataclasses.replace(
            recipe, encoder=EncoderSettings(), regulation=RegulationSettings(), loss=loss, seed=seed
        )
    lived = str(experience) if arm.experience == "affective" else None
    encoder = dataclasses.replace(recipe.encoder, experience=lived)
    # Only a λ that is learned can differ between classes or samples.
    granularity = recipe.regulation.granularity if arm.mode in ("learned", "random_learned") else "scalar"
    regulation = dataclasses.replace(recipe.regulation, mode=arm.mode, granularity=granularity)
    return dataclasses.replace(recipe, encoder=encoder, regulation=regulation, seed=seed)


def run_arms(
    stage1: PretrainRecipe,
    stage2: TrainRecipe,
    arms: Sequence[str],
    seeds: Sequence[int],
    out: Path,
    progress: Progress,
) -> dict[str, list[Run]]:
    """Train every arm with every seed; finished runs in `out` are kept, half-done ones go on.

    The emotional encoder of a seed is trained once and shared by all arms of that seed. `random_encoder` has
    the architecture of the encoder that the other arms use.

    Returns:
        The runs of each arm, in the order of `seeds`.
    """
    architecture = dataclasses.replace(stage1.backbone, pretrained=False)  # the weights are the experience's, or drawn
    stage2 = dataclasses.replace(stage2, encoder=dataclasses.replace(stage2.encoder, backbone=architecture))
    runs: dict[str, list[Run]] = {name: [] for name in arms}
    with progress.task("all runs", len(seeds) * _cost(arms), "units") as advance:
        for seed in seeds:
            experience = out / f"experience-seed{seed}"
            if any(ARMS[name].experience == "affective" for name in arms):
                run = pretrain(dataclasses.replace(stage1, seed=seed), experience, progress=progress)
                progress.say(_told(run, f"experience, seed {seed}"))
                advance(1)
            for name in arms:
                arm = ARMS[name]
                run = train(arm_recipe(stage2, arm, experience, seed), out / f"{name}-seed{seed}", progress=progress)
                runs[name].append(run)
                progress.say(_told(run, f"{arm.label}, seed {seed}"))
                advance(1 if arm.mode == "none" else 2)
    return runs


def _cost(arms: Sequence[str]) -> int:
    """Rough units of time for one seed, for the estimate: two branches take twice as long as one."""
    return 1 + sum(1 if ARMS[name].mode == "none" else 2 for name in arms)


def _told(run: Run, name: str) -> str:
    final = run.final
    measured = final.get("test") or final.get("validation") or {}
    told = ", ".join(f"{key} {measured[key]:.4f}" for key in ("accuracy", "ccc") if key in measured)
    return f"{name}: {told}, {final['seconds']:.0f} s"


def summarise(runs: Mapping[str, Sequence[Run]]) -> list[ArmSummary]:
    """Each arm's accuracy, its gain over the backbone paired by seed, and its curves."""
    by_seed = {name: sorted(arm_runs, key=lambda run: run.recipe.seed) for name, arm_runs in runs.items()}
    return [_summary(name, arm_runs, by_seed.get("backbone", ())) for name, arm_runs in by_seed.items()]


def _summary(name: str, runs: Sequence[Run], backbone: Sequence[Run]) -> ArmSummary:
    import pandas as pd

    finals = [run.final for run in runs]
    accuracies = [final["test"]["accuracy"] for final in finals]
    gain = None
    if backbone and name != "backbone":
        plain = {run.recipe.seed: run.final["test"]["accuracy"] for run in backbone}
        gain = interval([a - plain[run.recipe.seed] for a, run in zip(accuracies, runs, strict=True)])
    curves = pd.concat([run.metrics.assign(seed=run.recipe.seed) for run in runs], ignore_index=True)
    return ArmSummary(
        name=name,
        label=ARMS[name].label,
        is_control=ARMS[name].is_control,
        accuracy=interval(accuracies),
        gain=gain,
        lam=tuple(_mean(final["lambda"]) for final in finals if final["lambda"] is not None),
        seconds=_mean([final["seconds"] for final in finals]),
        curves=curves,
    )


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
