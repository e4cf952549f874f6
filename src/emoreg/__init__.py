"""Emotional Regulation for image classification (arXiv:2606.13081), with the controls to judge it by.

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

__version__ = "0.1.0"

if TYPE_CHECKING:
    from emoreg.backbones import build_backbone
    from emoreg.classification import build_classifier, evaluate, train
    from emoreg.emotion import EmotionSpace
    from emoreg.errors import UserError
    from emoreg.experience import load_encoder, pretrain
    from emoreg.images.table import Table
    from emoreg.recipe import read_recipe
    from emoreg.regulation import RegulatedClassifier, Response, regulation_loss
    from emoreg.run import Run
    from emoreg.settings import PretrainRecipe, TrainRecipe
    from emoreg.study.file import Study, read_study
    from emoreg.study.study import run_study
    from emoreg.use.exported import export
    from emoreg.use.hub import RegulatedModel
    from emoreg.use.load import load_run
    from emoreg.use.predict import predict

_HOMES = {
    "EmotionSpace": "emotion",
    "PretrainRecipe": "settings",
    "RegulatedClassifier": "regulation",
    "RegulatedModel": "use.hub",
    "Response": "regulation",
    "Run": "run",
    "Table": "images.table",
    "TrainRecipe": "settings",
    "Study": "study.file",
    "UserError": "errors",
    "build_backbone": "backbones",
    "build_classifier": "classification",
    "evaluate": "classification",
    "export": "use.exported",
    "load_encoder": "experience",
    "load_run": "use.load",
    "predict": "use.predict",
    "pretrain": "experience",
    "read_recipe": "recipe",
    "read_study": "study.file",
    "regulation_loss": "regulation",
    "run_study": "study.study",
    "train": "classification",
}

__all__ = [
    "EmotionSpace",
    "PretrainRecipe",
    "RegulatedClassifier",
    "RegulatedModel",
    "Response",
    "Run",
    "Study",
    "Table",
    "TrainRecipe",
    "UserError",
    "build_backbone",
    "build_classifier",
    "evaluate",
    "export",
    "load_encoder",
    "load_run",
    "predict",
    "pretrain",
    "read_recipe",
    "read_study",
    "regulation_loss",
    "run_study",
    "train",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'emoreg' has no attribute '{name}'")
    return getattr(importlib.import_module(f"emoreg.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
