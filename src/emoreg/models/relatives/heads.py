"""The heads of the relatives by their modes, and what learns by a rule of its own."""

from __future__ import annotations

from torch import nn

from emoreg.config.schema import Mode
from emoreg.models.relatives.bel import BELHead
from emoreg.models.relatives.embp import EmBPHead
from emoreg.models.relatives.liaenn import LiAENNHead

RelativeHead = EmBPHead | BELHead | LiAENNHead


def relative_head(mode: Mode, linear: nn.Linear) -> RelativeHead:
    """The head of a mode of `config.schema.RELATIVES`, in place of Backbone's.

    Args:
        mode: which.
        linear: Backbone's head, from D features to K classes, as drawn for it: EmBP keeps it.
    """
    if mode == "embp":
        return EmBPHead(linear)
    width, num_classes = linear.in_features, linear.out_features
    return BELHead(width, num_classes) if mode == "bel" else LiAENNHead(width, num_classes)


def own_rules(module: nn.Module) -> set[str]:
    """The parameters, by name, that relatives' heads in a module train by rules of their own: no optimiser does."""
    return {
        f"{prefix}.{name}" if prefix else name
        for prefix, inner in module.named_modules()
        if isinstance(inner, RelativeHead)
        for name in inner.own_rule()
    }
