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

if TYPE_CHECKING:  # "as" tells type checkers that a name is public
    from emoreg.config.loss import LossWeights as LossWeights
    from emoreg.config.read_recipe import read_recipe as read_recipe
    from emoreg.config.recipe import PretrainRecipe as PretrainRecipe
    from emoreg.config.recipe import TrainRecipe as TrainRecipe
    from emoreg.data.images.augment import normalise as normalise
    from emoreg.data.images.table import Table as Table
    from emoreg.data.stimuli.emotion import EmotionSpace as EmotionSpace
    from emoreg.data.targets.target import Target as Target
    from emoreg.data.tools.write_pack import write_pack as write_pack
    from emoreg.errors import UserError as UserError
    from emoreg.inference.calibrate import calibrate as calibrate
    from emoreg.inference.export.export import export as export
    from emoreg.inference.export.hub import RegulatedModel as RegulatedModel
    from emoreg.inference.load import load_run as load_run
    from emoreg.inference.predict import predict as predict
    from emoreg.models.backbones import build_backbone as build_backbone
    from emoreg.models.regulation import RegulatedClassifier as RegulatedClassifier
    from emoreg.models.regulation import Response as Response
    from emoreg.models.regulation import regulation_loss as regulation_loss
    from emoreg.models.regulation_loss import RegulationLoss as RegulationLoss
    from emoreg.models.takeover import keep_moments as keep_moments
    from emoreg.report.contrasts import analyse as analyse
    from emoreg.report.own_report import report_results as report_results
    from emoreg.runs.run import Run as Run
    from emoreg.runtime.progress import Progress as Progress
    from emoreg.stages.classifier import build_classifier as build_classifier
    from emoreg.stages.classify import train as train
    from emoreg.stages.evaluate import evaluate as evaluate
    from emoreg.stages.pretrain import load_encoder as load_encoder
    from emoreg.stages.pretrain import pretrain as pretrain
    from emoreg.study.definition import Study as Study
    from emoreg.study.read_study import read_study as read_study
    from emoreg.study.run_study import run_study as run_study
    from emoreg.suites.score import score_suites as score_suites

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
    "Study": "study.definition",
    "Table": "data.images.table",
    "Target": "data.targets.target",
    "TrainRecipe": "config.recipe",
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

__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'emoreg' has no attribute '{name}'")
    return getattr(importlib.import_module(f"emoreg.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
