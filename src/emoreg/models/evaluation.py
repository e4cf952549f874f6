"""Keep a network in evaluation mode while it predicts, and restore its mode afterwards."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

from torch import nn

_LOCK = threading.Lock()
# For each network in use: the number of threads that predict with it, and its modules that were in training mode.
_IN_USE: dict[nn.Module, tuple[int, list[nn.Module]]] = {}


@contextlib.contextmanager
def in_evaluation(network: nn.Module) -> Iterator[None]:
    """Put a network into evaluation mode for the block. The last thread to leave restores the mode of each module.

    Args:
        network: changed in place.
    """
    with _LOCK:
        threads, in_training = _IN_USE.get(network, (0, []))
        if not threads:
            in_training = [module for module in network.modules() if module.training]
            if in_training:  # otherwise eval() would walk through all modules again for each batch
                network.eval()
        _IN_USE[network] = (threads + 1, in_training)
    try:
        yield
    finally:
        with _LOCK:
            threads, in_training = _IN_USE.pop(network)
            if threads > 1:
                _IN_USE[network] = (threads - 1, in_training)
            else:
                for module in in_training:
                    module.training = True
