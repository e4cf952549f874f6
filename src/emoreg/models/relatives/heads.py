"""The heads of the relatives by mode, and the parameters that they train by rules of their own."""

from __future__ import annotations

from torch import nn

from emoreg.config.schema import Mode
from emoreg.models.relatives.bel import BELHead
from emoreg.models.relatives.embp import EmBPHead
from emoreg.models.relatives.liaenn import LiAENNHead

RelativeHead = EmBPHead | BELHead | LiAENNHead


def relative_head(mode: Mode, linear: nn.Linear) -> RelativeHead:
    """Build the head of a relative, which replaces Backbone's.

    Args:
        mode: one of `config.schema.RELATIVES`.
        linear: Backbone's head, from D features to K classes; EmBP keeps it.
    """
    if mode == "embp":
        return EmBPHead(linear)
    width, num_classes = linear.in_features, linear.out_features
    return BELHead(width, num_classes) if mode == "bel" else LiAENNHead(width, num_classes)


def own_rules(module: nn.Module) -> set[str]:
    """Names of the parameters that the relatives' heads in a module train by rules of their own, not the optimiser."""
    return {
        f"{prefix}.{name}" if prefix else name
        for prefix, inner in module.named_modules()
        if isinstance(inner, RelativeHead)
        for name in inner.own_rule()
    }
