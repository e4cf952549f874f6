"""Captured steps without a GPU: `torch.fx` records the operations of a step and repeats them on the same tensors."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import get_args

import pytest
import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn import functional as F
from torch.testing import assert_close

import captured_states
from captured_states import ADAMW, MUON, SGD, STEPS, batches, require_equal, states_of
from emoreg.config.optimizer import OptimizerSettings
from emoreg.config.schema import Mode
from emoreg.config.training import Precision, TrainingSettings
from emoreg.errors import SettingError
from emoreg.models import loss_inputs
from emoreg.models.regulation import Holdable, RegulatedClassifier
from emoreg.training.captured_step import WARM_UP, CapturedStep, _Captured, make_step
from emoreg.training.step import TrainState, train_step, why_uncaptured


@pytest.fixture(autouse=True)
def as_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Disable our and PyTorch's checks of labels, which would wait for a GPU."""
    monkeypatch.setattr(loss_inputs, "_require_indices", lambda labels, classes: None)
    monkeypatch.setattr(loss_inputs, "_require_probabilities", lambda labels: None)
    monkeypatch.setattr("timm.optim._helpers._get_capturable_supported_devices", lambda **_: ["cpu"])
    monkeypatch.setattr(F, "one_hot", lambda labels, classes: torch.eye(classes, dtype=torch.int64)[labels])


class NoGraphs:
    """A capture that fails. As with CUDA graphs, another error follows the first."""

    error: RuntimeError = RuntimeError("operation not permitted when stream is capturing")

    def aside(self) -> AbstractContextManager[None]:
        return nullcontext()

    def __call__(self, step: Callable[[], Tensor]) -> Callable[[], Tensor]:
        try:
            raise self.error
        finally:
            raise RuntimeError("operation failed due to a previous error during capture")


class Noting(NoGraphs):
    def __call__(self, step: Callable[[], Tensor]) -> Callable[[], Tensor]:
        return noted(step)


class OutOfMemory(NoGraphs):
    error = torch.OutOfMemoryError("CUDA out of memory")


def noted(step: Callable[[], Tensor]) -> Callable[[], Tensor]:
    """As a CUDA graph: the same operations on the same memory, and no Python in between.

    Like a graph it cannot be made of a step that reads a number from the device: torch.fx refuses it. Unlike with a
    graph the step is done while it is noted, so the first repetition does nothing.
    """
    done: list[Tensor] = []

    def noted_step() -> Tensor:
        loss = step()
        done.append(loss)
        return loss

    graph = make_fx(noted_step)()
    result = done[0].detach()

    def replay() -> Tensor:
        if done:
            done.clear()
        else:
            with torch.no_grad():
                result.copy_(graph())
        return result

    return replay


def state_of(optimizer: OptimizerSettings, training: TrainingSettings, mode: Mode = "learned") -> TrainState:
    state = captured_states.state_of(optimizer, training, mode)
    for group in state.optimizer.param_groups:  # as on a GPU: such kernels take learning rates from the device
        group["capturable" if optimizer.name == "muon" else "fused"] = True
    return state


FLOAT, BF16 = (TrainingSettings(device="cpu", precision=precision) for precision in get_args(Precision))


@pytest.mark.parametrize(
    ("optimizer", "training", "mode", "mixed"),
    [
        (SGD, FLOAT, "learned", False),
        (SGD, BF16, "random", False),
        (ADAMW, FLOAT, "fixed", True),
        (ADAMW, dataclasses.replace(FLOAT, accumulate=2), "none", True),
        (MUON, FLOAT, "learned", False),
    ],
)
def test_replayed_steps_are_those_of_train_step(
    optimizer: OptimizerSettings, training: TrainingSettings, mode: Mode, mixed: bool
) -> None:
    """Losses, weights, averages and the optimiser's state, with two sizes of images and an observed step."""
    plain, captured = (state_of(optimizer, training, mode) for _ in range(2))
    counts = {"captured": 0, "observed": 0}

    class Counting(Noting):
        def __call__(self, step: Callable[[], Tensor]) -> Callable[[], Tensor]:
            counts["captured"] += 1
            return super().__call__(step)

    def observe() -> None:
        counts["observed"] += 1

    step, losses = CapturedStep(captured, Counting()), list[tuple[Tensor, Tensor]]()
    small, large = batches(WARM_UP + 5, 8, mixed), batches(WARM_UP + 1, 12, mixed)
    for number, batch in enumerate([*small[:-3], *large, *small[-3:]]):
        watch = observe if number == STEPS - 2 else None
        torch.manual_seed(number)  # dropout and a random λ
        expected = train_step(plain, batch, watch)
        torch.manual_seed(number)
        losses.append((step(batch, watch), expected))
        assert captured.schedule.get_last_lr() == plain.schedule.get_last_lr()
    assert counts == {"captured": 2, "observed": 2}
    for loss, expected in losses:  # losses of earlier steps have not changed
        assert_close(loss, expected)
    for one, other in zip(states_of(captured), states_of(plain), strict=True):
        assert_close(one, other)
    assert all(type(group["lr"]) is float for group in captured.optimizer.param_groups)  # as a checkpoint needs it


@pytest.mark.parametrize("optimizer", [SGD, ADAMW, MUON])
def test_a_step_has_the_same_bits_whether_it_is_replayed_or_not(optimizer: OptimizerSettings) -> None:
    """A resumed run gives the same result, although its first steps are not replayed."""
    captured, uncaptured = (state_of(optimizer, FLOAT) for _ in range(2))
    step, other = (CapturedStep(state, Noting()) for state in (captured, uncaptured))
    for number, batch in enumerate(batches(2 * WARM_UP)):
        torch.manual_seed(number)
        loss = step(batch)
        torch.manual_seed(number)
        assert torch.equal(loss, other(batch, lambda: None))
    require_equal(captured, uncaptured)


def test_a_learned_lambda_is_held_and_released_between_replays() -> None:
    state = state_of(ADAMW, FLOAT)
    model = state.objective.model
    assert isinstance(model, RegulatedClassifier)
    regulation = model.regulation
    assert isinstance(regulation, Holdable)
    step, kept = CapturedStep(state, Noting()), list[float]()
    for number, batch in enumerate(batches(WARM_UP + 6)):
        regulation.hold(number < WARM_UP + 3)
        step(batch)
        kept.append(model.get_parameter("regulation.rho").item())
    assert kept[: WARM_UP + 3] == [0.0] * (WARM_UP + 3)
    assert len({0.0, *kept[WARM_UP + 3 :]}) == 4


def test_steps_that_cannot_be_captured_are_trained_normally_and_the_reason_is_reported() -> None:
    asked = dataclasses.replace(FLOAT, cuda_graphs=True)
    state = state_of(SGD, asked)
    assert state.uncaptured == "there are none on cpu" and not isinstance(make_step(state), CapturedStep)
    optimizer, gpu = state.optimizer.optimizer, torch.device("cuda")
    assert why_uncaptured(gpu, 1, optimizer, None) is None
    assert why_uncaptured(gpu, 2, optimizer, None) == "processes exchange gradients"
    assert why_uncaptured(gpu, 1, optimizer, lambda rate: None) == (
        "a part of the network has a rule of its own, which is not captured"
    )
    muon = state_of(MUON, asked).optimizer.optimizer
    assert why_uncaptured(gpu, 1, muon, None) is None
    for group in muon.param_groups:
        group["capturable"] = False  # as on a CPU
    assert why_uncaptured(gpu, 1, muon, None) == "Muon reads its learning rate on the CPU"
    for group in optimizer.param_groups:
        group["fused"] = None
    assert why_uncaptured(gpu, 1, optimizer, None) == "SGD reads its learning rate on the CPU"


def test_a_step_that_waits_for_the_device_is_refused_by_the_setting_and_trains_on_without() -> None:
    state = state_of(SGD, FLOAT)
    rates = [group["lr"] for group in state.optimizer.param_groups]

    step = CapturedStep(state, NoGraphs())
    for batch in batches(WARM_UP):
        step(batch)
    with pytest.raises(
        SettingError, match=r"is true, but no step can be captured \(operation not .*\); set it to false"
    ):
        step(batches(1)[0])
    assert all(type(group["lr"]) is float and not group.get("capturable") for group in state.optimizer.param_groups)
    with pytest.raises(torch.OutOfMemoryError):  # handled elsewhere (`diagnostics.explain_out_of_memory`)
        _Captured(state, batches(1)[0], OutOfMemory())
    assert len(rates) == 2 and torch.isfinite(train_step(state, batches(1)[0]))
