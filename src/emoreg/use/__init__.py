"""Deprecated: the names that `emoreg.inference` had in 0.1.0, for scripts that import them.

`from emoreg.use.hub import RegulatedModel` gives what `emoreg.inference.export.hub` has, with a DeprecationWarning that
names that place. Nothing is imported before a name is asked for.
"""

from __future__ import annotations

import importlib
import sys
import warnings
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

MOVED = {  # module of 0.1.0: modules below emoreg.inference that have its names
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
        now = RENAMED.get(old, {}).get(name, name)
        for place in () if name.startswith("_") else MOVED[old]:
            module = importlib.import_module(f"emoreg.inference.{place}")
            if hasattr(module, now):
                said = f"emoreg.use.{old}.{name} is deprecated: it is emoreg.inference.{place}.{now}"
                warnings.warn(said, DeprecationWarning, stacklevel=2)
                return getattr(module, now)
        raise AttributeError(f"module 'emoreg.use.{old}' has no attribute '{name}'; see Renamed in CHANGELOG.md")

    return get


for _old in MOVED:
    _module = ModuleType(f"{__name__}.{_old}", f"Deprecated; see {__name__}.")
    _module.__dict__["__getattr__"] = _getter(_old)
    sys.modules[_module.__name__] = globals()[_old] = _module
