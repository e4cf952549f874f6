"""Deprecated names of `emoreg.inference` from 0.1.0, for scripts that import them.

`from emoreg.use.hub import RegulatedModel` imports it from `emoreg.inference.export.hub`, with a DeprecationWarning
that names the new module. Modules are imported only when one of their names is used.
"""

from __future__ import annotations

import importlib
import sys
import warnings
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

MOVED = {  # module of 0.1.0: modules of emoreg.inference that have its names now
    "card": ("export.model_card",),
    "demo": ("demo",),
    "explain": ("explain.projection", "explain.explain"),
    "explain_charts": ("explain.charts",),
    "explain_page": ("explain.page",),
    "explained": ("explain.explanation",),
    "exported": ("export.export",),
    "hub": ("export.hub",),
    "leaning": ("explain.effect",),
    "load": ("load",),
    "pictures": ("pictures",),
    "predict": ("predict",),
    "programs": ("export.graphs",),
    "rows": ("writers",),
    "saliency": ("explain.saliency",),
    "timm_weights": ("export.timm_weights",),
}
RENAMED: Mapping[str, Mapping[str, str]] = {  # by module of 0.1.0
    "load": {"Loaded": "LoadedRun", "ReadOut": "EmotionReadout"},
    "predict": {"Feeling": "FeltEmotion"},
    "demo": {"Asked": "DemoState", "ask": "classify", "served": "running_page"},
    "leaning": {"Leaning": "ClassEffect", "look": "split_responses"},
    "programs": {"Responses": "ExportableClassifier"},
}


def _getter(old: str) -> Callable[[str], Any]:
    def get(name: str) -> Any:
        new_name = RENAMED.get(old, {}).get(name, name)
        for new in () if name.startswith("_") else MOVED[old]:
            module = importlib.import_module(f"emoreg.inference.{new}")
            if hasattr(module, new_name):
                message = f"emoreg.use.{old}.{name} is deprecated: it is emoreg.inference.{new}.{new_name}"
                warnings.warn(message, DeprecationWarning, stacklevel=2)
                return getattr(module, new_name)
        raise AttributeError(f"module 'emoreg.use.{old}' has no attribute '{name}'; see Renamed in CHANGELOG.md")

    return get


for _old in MOVED:
    _module = ModuleType(f"{__name__}.{_old}", f"Deprecated; see {__name__}.")
    _module.__dict__["__getattr__"] = _getter(_old)
    sys.modules[_module.__name__] = globals()[_old] = _module
