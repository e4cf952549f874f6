"""Grouping the parameters for an optimiser: by weight decay, learning rate, depth, and whether Muon takes them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from types import SimpleNamespace
from typing import Any, NamedTuple, cast

from torch import nn

from emoreg.config.optimizer import OptimizerSettings
from emoreg.errors import SettingError
from emoreg.models.features import COLOURS, undecayed
from emoreg.models.relatives.heads import own_rules

TRUNKS = ("backbone", "encoder")  # attributes f and e of the models of both stages; everything else is a head or λ
ADAM = {"betas": (0.9, 0.999), "eps": 1e-8}  # defaults of torch.optim.AdamW; timm's Muon has others


class _Group(NamedTuple):
    """What the parameters of a group have in common."""

    factor: float  # of the learning rate
    decay: float
    is_hidden: bool  # whether Muon trains them


def parameter_groups(
    model: nn.Module, settings: OptimizerSettings, lr: float, lr_factors: Mapping[str, float]
) -> list[dict[str, Any]]:
    """Return the trainable parameters of a model as parameter groups of a torch optimiser.

    Biases, norms and the parameters that a module lists in `no_weight_decay()` (timm's convention) are not decayed.

    Args:
        model: left out are frozen parameters (requires_grad false) and those that a relative's head trains itself.
        settings: name, weight_decay and layer_decay are used.
        lr: peak learning rate.
        lr_factors: factors of the learning rate, by prefix of the parameters' names; multiplied by the layer's factor.

    Raises:
        SettingError: layer_decay for an architecture without timm's `group_matcher`.
    """
    own: Callable[[], set[str]] = getattr(model, "no_weight_decay", set)
    exempt = undecayed(model) | own()
    layers = {} if settings.layer_decay is None else _layer_factors(model, settings.layer_decay)
    groups: dict[_Group, list[nn.Parameter]] = {}
    local = own_rules(model)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and name not in local:
            factor = next((factor for prefix, factor in lr_factors.items() if name.startswith(prefix)), 1.0)
            decays = parameter.ndim >= 2 and name not in exempt
            group = _Group(
                factor * layers.get(name, 1.0),
                settings.weight_decay if decays else 0.0,
                settings.name == "muon" and decays and _is_hidden(name, parameter),
            )
            groups.setdefault(group, []).append(parameter)
    if layers:  # the order that checkpoints have
        groups = dict(sorted(groups.items(), key=lambda item: item[0].factor != 1))
    options: list[dict[str, Any]] = []
    for group, parameters in groups.items():
        options.append({"params": parameters, "lr": lr * group.factor, "weight_decay": group.decay})
        if settings.name == "muon":
            options[-1] |= {"use_muon": True} if group.is_hidden else {"use_muon": False, **ADAM}
    return options


def _is_hidden(name: str, parameter: nn.Parameter) -> bool:
    """Whether a parameter is a matrix or a filter of several channels, and not in the first layer or a head.

    Jordan et al. 2024, "Muon: An optimizer for hidden layers in neural networks", leave input and output layers to
    AdamW, and flatten filters to matrices. A depthwise filter has no channels to mix.
    """
    outputs, inputs = parameter.shape[:2]
    is_first = parameter.ndim == 4 and inputs == COLOURS
    return name.partition(".")[0] in TRUNKS and min(outputs, inputs) > 1 and not is_first


def _layer_factors(model: nn.Module, decay: float) -> dict[str, float]:
    """The factor decay^(L - l) of every parameter in a trunk by name, at layer l of L; heads are at layer L.

    Clark et al. 2020 (ELECTRA); Bao et al. 2021 (BEiT). Layers are those of timm's `param_groups_layer_decay`, which
    itself only takes a single network with its own head.
    """
    from timm.models import group_parameters

    factors: dict[str, float] = {}
    for prefix in TRUNKS:
        trunk = getattr(model, prefix, None)
        if trunk is None:
            continue
        if not hasattr(trunk, "group_matcher"):
            reason = f"{type(trunk).__name__} does not define its layers (timm's group_matcher); leave it out"
            raise SettingError("optimizer.layer_decay", reason)
        # timm puts parameters that its matcher does not name into the last layer, such as the head, which we add here.
        named = [*trunk.named_parameters(), ("head.weight", None)]
        with_head = cast(nn.Module, SimpleNamespace(named_parameters=partial(iter, named)))
        layers = group_parameters(with_head, trunk.group_matcher(coarse=False), reverse=True)
        last = layers.pop("head.weight")
        factors |= {f"{prefix}.{name}": decay ** (last - layer) for name, layer in layers.items()}
    return factors
