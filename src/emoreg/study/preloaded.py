"""The imports of every run. Workers are forked from a process that has imported this module, to start faster.

Nothing here may start compute threads or initialise CUDA, which a forked process could not use.
"""

import contextlib
import importlib

from emoreg.runtime.optional import import_fabric

NAMES = (
    "emoreg.stages.classify",
    "emoreg.stages.pretrain",
    "emoreg.study.run_one",
    "pandas",
    "pyarrow.pandas_compat",
    "sklearn.datasets",
    "sklearn.model_selection",
    "tensorboardX",
    "timm",
)

with contextlib.suppress(Exception):  # a broken installation is reported by the run that needs the package
    import_fabric()
for name in NAMES:
    with contextlib.suppress(Exception):
        importlib.import_module(name)
