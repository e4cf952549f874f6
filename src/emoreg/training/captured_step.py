"""A training step that is captured once as a CUDA graph and then launched as a whole.

The step of a small network consists of hundreds of kernels, which a fast GPU executes faster than Python can launch
them. A graph replays them on the same memory without Python: each batch is copied over the first one. Forward and
backward pass, clipping and optimiser are captured. The order of batches, augmentation, schedule and weight average are
not: they are few kernels, which are launched while the graph runs.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Protocol

import torch
from torch import Tensor
from torch.optim import Optimizer

from emoreg.data.images.batches import Batch
from emoreg.errors import SettingError, shortened
from emoreg.training.step import TrainState, finish_step, train_step, update

WARM_UP = 3  # steps of each shape before its capture; they create the optimiser's state, and cuDNN tries its kernels

Step = Callable[[Batch, Callable[[], None] | None], Tensor]  # `train_step` without its state


class Capture(Protocol):
    """How steps are captured: as CUDA graphs, or by a stand-in in tests without a GPU."""

    def aside(self) -> AbstractContextManager[None]:
        """The context of steps that prepare a capture."""

    def __call__(self, step: Callable[[], Tensor]) -> Callable[[], Tensor]:
        """Capture a step; return a function that replays it on the same memory and returns the same tensor."""


def make_step(state: TrainState) -> Step:
    """Return the training step of a state: captured if training.cuda_graphs requests it, else `train_step`."""
    if state.recipe.training.cuda_graphs and state.uncaptured is None:
        return CapturedStep(state)
    return lambda batch, observe: train_step(state, batch, observe)


class CapturedStep:
    """`train_step` of a state, with the same results up to rounding, replayed from the fourth batch of a shape on.

    A replay needs the learning rate as a tensor, with which optimisers round differently. It is a tensor in every step,
    so that replayed and other steps give the same bits, as a resumed run needs.

    Args:
        state: changed in place by each call. Nothing else may replace its tensors.
        capture: None for CUDA graphs.
    """

    def __init__(self, state: TrainState, capture: Capture | None = None) -> None:
        self.state = state
        self._capture = capture or _CudaGraphs(state.fabric.device)
        self._rates = [torch.zeros((), device=state.fabric.device) for _ in state.optimizer.param_groups]
        self._steps = Counter[torch.Size]()  # done, by the shape of the images
        self._captured = dict[torch.Size, _Captured]()

    def __call__(self, batch: Batch, observe: Callable[[], None] | None = None) -> Tensor:
        """Train on a batch; see `train_step`. A step with `observe` is not replayed."""
        with _rates_on_device(self.state.optimizer.optimizer, self._rates):
            loss = self._update(batch, observe)
        finish_step(self.state)
        return loss

    def _update(self, batch: Batch, observe: Callable[[], None] | None) -> Tensor:
        shape = batch.images.shape
        self._steps[shape] += 1
        if observe is not None:
            return update(self.state, batch, observe)
        if self._steps[shape] <= WARM_UP:
            with self._capture.aside():
                return update(self.state, batch)
        if shape not in self._captured:
            self._captured[shape] = _Captured(self.state, batch, self._capture)
        return self._captured[shape](batch)


class _Captured:
    """The captured part of a step, for batches of one shape."""

    def __init__(self, state: TrainState, batch: Batch, capture: Capture) -> None:
        self._batch = batch._replace(**{name: part.clone() for name, part in _parts(batch)})
        state.optimizer.zero_grad(set_to_none=True)  # so that gradients are allocated in the graph's memory
        try:
            self._replay = capture(lambda: update(state, self._batch))
        except RuntimeError as error:
            # After a failed capture, ending it fails too, with a second error that says nothing.
            cause = error.__context__ if isinstance(error.__context__, RuntimeError) else error
            if isinstance(cause, torch.OutOfMemoryError):
                raise cause from None
            reason = f"is true, but no step can be captured ({shortened(str(cause), 200)}); set it to false"
            raise SettingError("training.cuda_graphs", reason) from None

    def __call__(self, batch: Batch) -> Tensor:
        for (_, own), (_, given) in zip(_parts(self._batch), _parts(batch), strict=True):
            own.copy_(given)
        return self._replay().clone()  # the next replay overwrites it


def _parts(batch: Batch) -> list[tuple[str, Tensor]]:
    return [(name, part) for name, part in batch._asdict().items() if part is not None]


@contextlib.contextmanager
def _rates_on_device(optimizer: Optimizer, rates: list[Tensor]) -> Iterator[None]:
    """Let the optimiser read its learning rates from tensors, which a schedule can change between replays."""
    before = [dict(group) for group in optimizer.param_groups]
    try:
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate.fill_(group["lr"])
            if "capturable" in group:
                group["capturable"] = True
        yield
    finally:
        for group, old in zip(optimizer.param_groups, before, strict=True):
            group.update(old)


class _CudaGraphs:
    """Captures CUDA graphs. They share one memory pool, as only one of them runs at a time."""

    def __init__(self, device: torch.device) -> None:
        self._device, self._pool, self._stream = device, torch.cuda.graph_pool_handle(), torch.cuda.Stream(device)

    @contextlib.contextmanager
    def aside(self) -> Iterator[None]:
        """Use another stream than the default one, which cannot be captured (PyTorch's notes on CUDA graphs)."""
        current = torch.cuda.current_stream(self._device)
        self._stream.wait_stream(current)
        try:
            with torch.cuda.stream(self._stream):
                yield
        finally:
            current.wait_stream(self._stream)

    def __call__(self, step: Callable[[], Tensor]) -> Callable[[], Tensor]:
        graph, current = torch.cuda.CUDAGraph(), torch.cuda.current_stream(self._device)
        try:
            # thread_local: threads that decode images may allocate memory meanwhile.
            with torch.cuda.graph(graph, self._pool, self._stream, capture_error_mode="thread_local"):
                result = step()
        finally:
            torch.cuda.set_stream(current)  # a failed capture leaves its own stream active

        def replay() -> Tensor:
            graph.replay()
            return result

        return replay
