"""Training states and batches of a tiny regulated classifier, for tests of captured steps on CPUs and GPUs."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from emoreg.config.optimizer import OptimizerSettings
from emoreg.config.recipe import TrainRecipe
from emoreg.config.schema import Mode
from emoreg.config.training import TrainingSettings
from emoreg.data.images.batches import Batch
from emoreg.models.regulation import RegulatedClassifier
from emoreg.models.regulation_loss import RegulationLoss
from emoreg.training.captured_step import WARM_UP
from emoreg.training.fabric import make_fabric
from emoreg.training.step import Objective, TrainState, make_state
from tiny_backbone import TinyBackbone

STEPS = 2 * WARM_UP + 6
SGD = OptimizerSettings(lr=0.1, schedule="one_cycle", warmup=0.3, clip_norm=0.5, ema=0.9)
ADAMW = OptimizerSettings("adamw", lr=0.01, schedule="cosine", warmup=0.25)
MUON = OptimizerSettings("muon", lr=0.01, weight_decay=0.1, schedule="one_cycle", warmup=0.3)


def state_of(
    optimizer: OptimizerSettings,
    training: TrainingSettings,
    mode: Mode = "learned",
    then: Callable[[Tensor], Tensor] = lambda loss: loss,
) -> TrainState:
    """The training state before the first step. `then` is applied to the loss."""
    torch.manual_seed(0)
    model = RegulatedClassifier(TinyBackbone(), None if mode == "none" else TinyBackbone(), num_classes=3, mode=mode)
    # A bias before a norm has no gradient except rounding errors, which AdamW would scale up.
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(not name.endswith("conv.bias"))
    loss = RegulationLoss(model, label_smoothing=0.1)

    def loss_of(model: nn.Module, batch: Batch) -> Tensor:
        assert isinstance(model, RegulatedClassifier)
        return then(loss(model.respond(batch.images), batch.targets(3)))

    recipe = TrainRecipe(optimizer=optimizer, training=training)
    objective = Objective(model, loss_of, clip_groups=model.branches())
    state = make_state(make_fabric(training), objective, recipe, 8, STEPS)
    state.loss_module.train()
    return state


def batches(count: int, size: int = 8, mixed: bool = False, device: str = "cpu") -> list[Batch]:
    draw = torch.Generator().manual_seed(size)
    made = []
    for _ in range(count):
        images, labels = torch.randn(8, 3, size, size, generator=draw), torch.randint(3, (8,), generator=draw)
        mixture = (labels.flip(0), torch.rand(8, generator=draw)) if mixed else ()
        made.append(Batch(*(part.to(device) for part in (images, labels, torch.arange(8), *mixture))))
    return made


def states_of(state: TrainState) -> list[dict[str, Tensor]]:
    """The weights, their moving average, and the optimiser's state of each parameter."""
    return [state.objective.model.state_dict(), state.kept.state_dict(), *state.optimizer.optimizer.state.values()]


def require_equal(one: TrainState, other: TrainState) -> None:
    for first, second in zip(states_of(one), states_of(other), strict=True):
        assert first.keys() == second.keys()
        assert all(torch.equal(torch.as_tensor(first[name]), torch.as_tensor(second[name])) for name in first)
