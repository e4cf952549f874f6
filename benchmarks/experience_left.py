"""Measure what stage 2 leaves of stage 1: the read-out of the stimuli from an encoder before and after stage 2.

    python benchmarks/experience_left.py runs/cifar100-learned-affect ... --json left.json

The head of stage 1 reads out the encoder as stage 1 left it, and as stage 2 left it, on the stimuli that stage 1 held
out. Run it in the folder where stage 1 was run, so that the stimuli are found. Batch norms use running statistics,
which after stage 2 belong to the images of the target.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from torch import nn

from emoreg.config.recipe import TrainRecipe
from emoreg.config.training import TrainingSettings
from emoreg.runs.provenance import environment
from emoreg.runs.run import Run
from emoreg.runtime.progress import Progress
from emoreg.stages.classifier import load_classifier
from emoreg.stages.pretrain import AffectiveModel, experience_run, load_encoder, load_stage1_head
from emoreg.stages.stage1_data import load_parts, read_stage1_data
from emoreg.training.fabric import make_fabric


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "runs", nargs="+", type=Path, metavar="RUN", help="regulated runs of stage 2 with an experience"
    )
    parser.add_argument("--json", metavar="FILE", type=Path, help="also write metrics and environment to FILE")
    options = parser.parse_args()
    found = {}
    for folder in options.runs:
        found[folder.name] = left = experience_left(Run(folder))
        print(folder.name)
        for when, metrics in left.items():
            print(f"  {when:6}", "  ".join(f"{name} {value:.4f}" for name, value in metrics.items()), flush=True)
    if options.json:
        record = {"runs": found, "command": sys.argv, **environment()}
        options.json.write_text(json.dumps(record, indent=2), encoding="utf-8")


def experience_left(run: Run) -> dict[str, dict[str, float]]:
    """Return the metrics of stage 1 on its held-out stimuli, "before" and "after" a run of stage 2."""
    recipe = run.recipe
    assert isinstance(recipe, TrainRecipe) and recipe.encoder.experience is not None, f"{run.folder}: no experience"
    first, stage_1 = experience_run(recipe.encoder.experience)
    quiet, fabric = Progress(quiet=True), make_fabric(TrainingSettings(device="cpu", precision="32-true"))
    data = read_stage1_data(stage_1, fabric, quiet)
    limit, tables = stage_1.training.memory_limit_gib, [split.validation for split in data.splits]
    held_out = load_parts(tables, data.splits, stage_1, limit, quiet)
    head = load_stage1_head(first, data.task.outputs)

    def measure(encoder: nn.Module) -> dict[str, float]:
        model = AffectiveModel(encoder, data.task.outputs)
        model.head = head
        return data.task.measure(model.eval(), held_out) or {}

    encoder = load_classifier(run)[0].encoder
    assert encoder is not None, f"{run.folder} is not regulated"
    return {"before": measure(load_encoder(first)), "after": measure(encoder)}


if __name__ == "__main__":
    main()
