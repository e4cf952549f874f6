"""Keeps a network in evaluation while it answers, whatever mode its owner left it in."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

from torch import nn

_LOCK = threading.Lock()
# By network, for threads that predict with the same one: how many, and which of its modules were in training before.
_ANSWERING: dict[nn.Module, tuple[int, list[nn.Module]]] = {}


@contextlib.contextmanager
def in_evaluation(network: nn.Module) -> Iterator[None]:
    """The network is in evaluation inside; each of its modules is as it was when the last thread is out.

    Args:
        network: changed in place.
    """
    with _LOCK:
        threads, trained = _ANSWERING.get(network, (0, []))
        if not threads:
            trained = [module for module in network.modules() if module.training]
            if trained:  # else it would walk through all modules again for each batch
                network.eval()
        _ANSWERING[network] = (threads + 1, trained)
    try:
        yield
    finally:
        with _LOCK:
            threads, trained = _ANSWERING.pop(network)
            if threads > 1:
                _ANSWERING[network] = (threads - 1, trained)
            else:
                for module in trained:
                    module.training = True
