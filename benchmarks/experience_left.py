"""What stage 2 leaves of stage 1: an encoder's read-out of the stimuli before and after, for runs of stage 2.

    python benchmarks/experience_left.py runs/cifar100-learned-affect ... --json left.json

The encoder as it came from stage 1, and as stage 2 has left it, is read out by the head of stage 1 on the stimuli that
were held out there. Start it where stage 1 was started, so that its stimuli are found. Batch norms use the running
statistics, which after stage 2 are those of the target's images.
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
from emoreg.stages.pretrain import AffectiveModel, experience_run, load_encoder, load_read_out
from emoreg.stages.stage1_data import load_parts, read_stage1_data
from emoreg.training.fabric import make_fabric


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="of stage 2, regulated, with an experience")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write the metrics and the environment there too")
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
    """Metrics of stage 1 on its held-out stimuli, "before" and "after" a run of stage 2."""
    recipe = run.recipe
    assert isinstance(recipe, TrainRecipe) and recipe.encoder.experience is not None, f"{run.folder}: no experience"
    first, stage_1 = experience_run(recipe.encoder.experience)
    quiet, fabric = Progress(quiet=True), make_fabric(TrainingSettings(device="cpu", precision="32-true"))
    data = read_stage1_data(stage_1, fabric, quiet)
    limit, tables = stage_1.training.memory_limit_gib, [split.validation for split in data.splits]
    held_out = load_parts(tables, data.splits, stage_1, limit, quiet)
    head = load_read_out(first, data.task.outputs)

    def measured(encoder: nn.Module) -> dict[str, float]:
        model = AffectiveModel(encoder, data.task.outputs)
        model.head = head
        return data.task.measure(model.eval(), held_out) or {}

    encoder = load_classifier(run)[0].encoder
    assert encoder is not None, f"{run.folder} is not regulated"
    return {"before": measured(load_encoder(first)), "after": measured(encoder)}


if __name__ == "__main__":
    main()
