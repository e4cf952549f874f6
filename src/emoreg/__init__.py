"""Emotional Regulation for image classification (arXiv:2606.13081), with the controls that show what it does.

    import emoreg

    stage1 = emoreg.pretrain(emoreg.read_recipe(emoreg.PretrainRecipe), "runs/experience")
    encoder = emoreg.load_encoder(stage1.folder)
    classifier = emoreg.RegulatedClassifier(my_backbone, encoder, num_classes=10, mode="learned")
    run = emoreg.train(emoreg.read_recipe(emoreg.TrainRecipe), "runs/mine", model=classifier)
    print(run.final["test"], classifier.lam)

Names are imported when they are first used, so that `import emoreg` does not wait for torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.2.0.dev0"

if TYPE_CHECKING:
    from emoreg.config.loss import LossWeights
    from emoreg.config.read_recipe import read_recipe
    from emoreg.config.recipe import PretrainRecipe, TrainRecipe
    from emoreg.data.images.augment import normalise
    from emoreg.data.images.table import Table
    from emoreg.data.stimuli.emotion import EmotionSpace
    from emoreg.data.targets.target import Target
    from emoreg.data.tools.write_pack import write_pack
    from emoreg.errors import UserError
    from emoreg.inference.calibrate import calibrate
    from emoreg.inference.export.export import export
    from emoreg.inference.export.hub import RegulatedModel
    from emoreg.inference.load import load_run
    from emoreg.inference.predict import predict
    from emoreg.models.backbones import build_backbone
    from emoreg.models.regulation import RegulatedClassifier, Response, regulation_loss
    from emoreg.models.regulation_loss import RegulationLoss
    from emoreg.models.takeover import keep_moments
    from emoreg.report.contrasts import analyse
    from emoreg.report.own_report import report_results
    from emoreg.runs.run import Run
    from emoreg.runtime.progress import Progress
    from emoreg.stages.classifier import build_classifier
    from emoreg.stages.classify import train
    from emoreg.stages.evaluate import evaluate
    from emoreg.stages.pretrain import load_encoder, pretrain
    from emoreg.study.definition import Study
    from emoreg.study.read_study import read_study
    from emoreg.study.run_study import run_study
    from emoreg.suites.score import score_suites

_HOMES = {
    "EmotionSpace": "data.stimuli.emotion",
    "LossWeights": "config.loss",
    "PretrainRecipe": "config.recipe",
    "Progress": "runtime.progress",
    "RegulatedClassifier": "models.regulation",
    "RegulatedModel": "inference.export.hub",
    "RegulationLoss": "models.regulation_loss",
    "Response": "models.regulation",
    "Run": "runs.run",
    "Table": "data.images.table",
    "Target": "data.targets.target",
    "TrainRecipe": "config.recipe",
    "Study": "study.definition",
    "UserError": "errors",
    "analyse": "report.contrasts",
    "build_backbone": "models.backbones",
    "build_classifier": "stages.classifier",
    "calibrate": "inference.calibrate",
    "evaluate": "stages.evaluate",
    "export": "inference.export.export",
    "keep_moments": "models.takeover",
    "load_encoder": "stages.pretrain",
    "load_run": "inference.load",
    "normalise": "data.images.augment",
    "predict": "inference.predict",
    "pretrain": "stages.pretrain",
    "read_recipe": "config.read_recipe",
    "read_study": "study.read_study",
    "regulation_loss": "models.regulation",
    "report_results": "report.own_report",
    "run_study": "study.run_study",
    "score_suites": "suites.score",
    "train": "stages.classify",
    "write_pack": "data.tools.write_pack",
}

__all__ = [
    "EmotionSpace",
    "LossWeights",
    "PretrainRecipe",
    "Progress",
    "RegulatedClassifier",
    "RegulatedModel",
    "RegulationLoss",
    "Response",
    "Run",
    "Study",
    "Table",
    "Target",
    "TrainRecipe",
    "UserError",
    "analyse",
    "build_backbone",
    "build_classifier",
    "calibrate",
    "evaluate",
    "export",
    "keep_moments",
    "load_encoder",
    "load_run",
    "normalise",
    "predict",
    "pretrain",
    "read_recipe",
    "read_study",
    "regulation_loss",
    "report_results",
    "run_study",
    "score_suites",
    "train",
    "write_pack",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'emoreg' has no attribute '{name}'")
    return getattr(importlib.import_module(f"emoreg.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
