"""What every run imports. Workers are forked from a process that has imported this module, so that they need not.

Nothing here may start threads that compute or ask CUDA for anything: a fork inherits what it cannot use.
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

with contextlib.suppress(Exception):  # of a broken installation; the run that needs the package says so
    import_fabric()
for name in NAMES:
    with contextlib.suppress(Exception):
        importlib.import_module(name)
