"""The loss of a regulated classifier with its gradient budget, for any training loop (ours)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from emoreg.config.loss import Budget, LossSettings, LossWeights
from emoreg.config.schema import LEARNED
from emoreg.config.setting_types import shown, typed_value
from emoreg.errors import SettingError
from emoreg.models.gradient_budget import UNSCALED, matched_scale
from emoreg.models.loss_inputs import NOTHING, checked_class_weights, checked_weights, require_smoothing
from emoreg.models.regulation import RegulatedClassifier, Regulation, Response, regulation_loss


class RegulationLoss(nn.Module):
    """The loss of a regulated classifier. λ₀, gradient budget and task are taken from the classifier.

        loss_of = RegulationLoss(classifier)
        loss = loss_of(classifier(images, whole=True), labels)

    It sets the classifier's `gradient_scale`: from then on, backward passes through the classifier in training mode are
    matched, also through copies and wrappers made later. Outputs do not change. So all losses of a classifier must have
    the same budget. The loss has no parameters, and keeps no reference to the classifier.

    Args:
        classifier: to be trained, not yet wrapped or compiled.
        weights: a, a_n, a_e and m of `regulation_loss`; None for 0.5, 0.75, 0.75 and 0, or without an emotional branch
            for CE(z, y) alone.
        label_smoothing: in [0, 1).
        budget: "matched": each branch starts with the gradient that the plain backbone gets, whatever the weights and
            λ. "as_given": gradients are not scaled.
        class_weights: K numbers, see `regulation_loss`; they move to a device with this module. None for 1.

    Raises:
        SettingError: not a regulated classifier, or one that has a loss with another budget; weights that train
            nothing, or no λ in a mode that learns it; a matched budget with a constant λ of 0 or 1, or with a branch
            that gets no gradient.
    """

    if TYPE_CHECKING:  # the types that nn.Module.__call__ hides

        def __call__(self, response: Response, labels: Tensor) -> Tensor:
            """As `forward`."""

    def __init__(
        self,
        classifier: RegulatedClassifier,
        weights: LossWeights | None = None,
        label_smoothing: float = 0.0,
        budget: str = "matched",
        class_weights: Tensor | Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        require_classifier(classifier, "classifier")
        has_two = classifier.encoder is not None
        self.task = classifier.task
        settings = LossSettings(label_smoothing=label_smoothing, budget=typed_value(Budget, budget, "budget"))
        require_smoothing(settings.label_smoothing, self.task)
        self.weights = settings.weights(has_two) if weights is None else checked_weights(weights)
        self.label_smoothing, self.budget = settings.label_smoothing, settings.budget
        self.class_weights: Tensor | None
        class_weights = checked_class_weights(class_weights, classifier.num_classes, self.task)
        self.register_buffer("class_weights", class_weights, persistent=False)
        if not any(self.weights[: 3 if has_two else 2]):
            raise SettingError("weights", NOTHING)
        if classifier.mode in LEARNED and self.weights.regulated == 0:
            reason = f"must be positive in mode {classifier.mode}, not 0: no other loss trains λ"
            raise SettingError("weights.regulated", reason)
        is_matched = has_two and self.budget == "matched"
        start = classifier.regulation.expected_start if is_matched else 0.5
        if classifier.mode == "fixed" and start in (0, 1):  # possible in the first edition, which matched nothing
            alone = "backbone" if start == 0 else "encoder"
            reason = f"must lie strictly between 0 and 1 in mode fixed, not {start:g}: for one branch alone make a "
            raise SettingError("lam", f"{reason}RegulatedClassifier({alone}, None, num_classes, mode='none')")
        scale = matched_scale(self.weights, start) if is_matched else UNSCALED
        if classifier.gradient_scale not in (None, scale):
            raise SettingError(
                "classifier",
                "already has a RegulationLoss with another budget, whose gradients this one would change: to watch "
                "other terms use the function emoreg.regulation_loss; to continue training with this loss instead, "
                "first set classifier.gradient_scale = None",
            )
        classifier.gradient_scale = scale

    def forward(self, response: Response, labels: Tensor) -> Tensor:
        """The loss, a scalar, of a whole response and labels (B,), or (B, K) for mixed images and other tasks."""
        return regulation_loss(response, labels, self.weights, self.label_smoothing, self.class_weights, self.task)

    def extra_repr(self) -> str:
        """The settings, for `print`."""
        shown = ", ".join(f"{name}={value:g}" for name, value in self.weights._asdict().items())
        return f"{shown}, label_smoothing={self.label_smoothing:g}, budget={self.budget}"


def require_classifier(classifier: Any, key: str) -> None:
    """Raise SettingError for `key` unless the argument is a regulated classifier, whose regulation is complete."""
    if isinstance(classifier, RegulatedClassifier):
        is_own = classifier.encoder is not None and not isinstance(classifier.regulation, Regulation)
        fault = _fault_of(classifier.regulation, classifier.num_classes) if is_own else None
        if fault is not None:
            raise SettingError(key, f"has a regulation, a {type(classifier.regulation).__name__}, {fault}")
        return
    hint = ""
    inner = getattr(classifier, "module", getattr(classifier, "_orig_mod", None))  # of DDP; of torch.compile
    if isinstance(inner, RegulatedClassifier):
        hint = "; give the classifier itself, before it is wrapped"
    elif isinstance(classifier, nn.Module):
        hint = "; build one around it: emoreg.RegulatedClassifier(backbone, encoder, num_classes)"
    given = f"the class {classifier.__name__}" if isinstance(classifier, type) else f"a {type(classifier).__name__}"
    raise SettingError(key, f"must be a RegulatedClassifier, not {given}{hint}")


def _fault_of(regulation: Any, classes: int) -> str | None:
    """What keeps a user-supplied regulation from being a `RegulationLike`; None if nothing does."""
    forward = getattr(regulation, "forward", None)
    missing = ["forward"] if getattr(forward, "__func__", forward) in (None, nn.Module.forward) else []
    missing += [name for name in ("expected_start", "gate") if not hasattr(regulation, name)]
    name = "lam" if hasattr(regulation, "lam") and not hasattr(regulation, "rho") else "rho"
    if not hasattr(regulation, name) and getattr(regulation, "gate", None) is None:
        missing.append(name)
    if missing:
        return f'without {", ".join(missing)}; docs/extend.md, "A mode", says what it needs'
    start = regulation.expected_start
    if not (isinstance(start, int | float) and 0 <= start <= 1):
        return f"whose expected_start is {shown(start)}, not a number in [0, 1]"
    if regulation.gate is not None:
        return None
    value = getattr(regulation, name)
    if not isinstance(value, Tensor) or tuple(value.shape) not in ((1, 1), (1, classes)):
        given = f"of the shape {tuple(value.shape)}" if isinstance(value, Tensor) else shown(value)
        return f"whose {name} is {given}, not a tensor (1, 1) or (1, K)"
    if name == "lam" and not bool(((value >= 0) & (value <= 1)).all()):
        return f"whose lam is {shown(value.flatten().tolist())}, not in [0, 1]"
    return None
