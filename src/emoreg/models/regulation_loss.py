"""The loss of a regulated classifier and its gradient budget in one module, for any training loop (ours)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from emoreg.config.loss import Budget, LossSettings, LossWeights
from emoreg.config.schema import LEARNED
from emoreg.config.setting_types import typed_value
from emoreg.errors import SettingError
from emoreg.models.gradient_budget import UNSCALED, matched_scale
from emoreg.models.loss_inputs import NOTHING, checked_class_weights, checked_weights, require_smoothing
from emoreg.models.regulation import RegulatedClassifier, Response, regulation_loss


class RegulationLoss(nn.Module):
    """The loss of a regulated classifier, made from it, so that λ₀, gradient budget and task are its own.

        loss_of = RegulationLoss(classifier)
        loss = loss_of(classifier(images, whole=True), labels)

    It sets the classifier's `gradient_scale`: from then on a backward pass through the classifier in training mode is
    matched, in copies and wrappers of it that are made later too. Answers do not change. So a classifier has one loss,
    or several of the same budget. It has no parameters, and keeps no reference to the classifier.

    Args:
        classifier: to be trained, before it is wrapped or compiled.
        weights: a, a_n, a_e and m of `regulation_loss`; None for 0.5, 0.75, 0.75 and 0, without an emotional branch for
            CE(z, y) alone.
        label_smoothing: in [0, 1).
        budget: "matched": each branch starts with the gradient that the plain backbone gets, whatever the weights and
            λ. "as_given": as the loss gives it.
        class_weights: K numbers, as of `regulation_loss`; they move to a device with this module. None for 1.

    Raises:
        SettingError: what is no regulated classifier, or has a loss of another budget already; weights that train
            nothing, or no λ in a mode that learns it; a branch without a gradient, or a constant λ of 0 or 1, which
            cannot be matched.
    """

    if TYPE_CHECKING:  # nn.Module's gives Any

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
        of_classes = checked_class_weights(class_weights, classifier.num_classes, self.task)
        self.register_buffer("class_weights", of_classes, persistent=False)
        if not any(self.weights[: 3 if has_two else 2]):
            raise SettingError("weights", NOTHING)
        if classifier.mode in LEARNED and self.weights.regulated == 0:
            reason = f"must be positive in mode {classifier.mode}, not 0: no other loss trains λ"
            raise SettingError("weights.regulated", reason)
        is_matched = has_two and self.budget == "matched"
        start = classifier.regulation.expected_start if is_matched else 0.5
        if classifier.mode == "fixed" and start in (0, 1):  # the first edition had these, never matched
            alone = "backbone" if start == 0 else "encoder"
            reason = f"must lie strictly between 0 and 1 in mode fixed, not {start:g}: for one branch alone make a "
            raise SettingError("lam", f"{reason}RegulatedClassifier({alone}, None, num_classes, mode='none')")
        scale = matched_scale(self.weights, start) if is_matched else UNSCALED
        if classifier.gradient_scale not in (None, scale):
            raise SettingError(
                "classifier",
                "has a RegulationLoss of another budget already, whose gradients this one would change: to watch other "
                "terms take the function emoreg.regulation_loss, to train on with this loss in place of that one set "
                "classifier.gradient_scale = None before",
            )
        classifier.gradient_scale = scale

    def forward(self, response: Response, labels: Tensor) -> Tensor:
        """The loss, a scalar, of a whole response and labels (B,), or (B, K) of mixed images and other tasks."""
        return regulation_loss(response, labels, self.weights, self.label_smoothing, self.class_weights, self.task)

    def extra_repr(self) -> str:
        """The settings, for `print`."""
        shown = ", ".join(f"{name}={value:g}" for name, value in self.weights._asdict().items())
        return f"{shown}, label_smoothing={self.label_smoothing:g}, budget={self.budget}"


def require_classifier(classifier: Any, key: str) -> None:
    """SettingError for what is given as a regulated classifier, under this name, and is none."""
    if isinstance(classifier, RegulatedClassifier):
        return
    mend = ""
    inner = getattr(classifier, "module", getattr(classifier, "_orig_mod", None))  # of DDP; of torch.compile
    if isinstance(inner, RegulatedClassifier):
        mend = "; give the classifier itself, before it is wrapped"
    elif isinstance(classifier, nn.Module):
        mend = "; build one around it: emoreg.RegulatedClassifier(backbone, encoder, num_classes)"
    given = f"the class {classifier.__name__}" if isinstance(classifier, type) else f"a {type(classifier).__name__}"
    raise SettingError(key, f"must be a RegulatedClassifier, not {given}{mend}")
