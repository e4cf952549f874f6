"""Emotional Regulation: balancing a non-emotional and an emotionally influenced response.

Stated by the source (arXiv:2606.13081): two responses, one through a plain backbone f and one through an emotional
encoder e that was pre-trained on affective images, are balanced end to end; the balance may be fixed, random or
learned. Ours, because the public summaries leave it open: the equation, the parametrisation of λ, its granularity, and
what is mixed. With images x (B, 3, H, W), K classes and linear heads h_n, h_e:

    z_n = h_n(f(x))        z_e = h_e(e(x))        z = (1 - λ) · z_n + λ · z_e        λ in [0, 1]

By default probabilities are mixed instead of logits, and each response has a loss of its own beside the loss of the
mixture (ours, `regulation_loss`): with a loss of the mixture alone, one branch can do the work of both. Multilabel
classification and regression work in the same way (ours, `models.tasks`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol, overload, runtime_checkable

import torch
from torch import Tensor, nn

from emoreg.config.loss import LossWeights
from emoreg.config.schema import LEARNED, RELATIVES, Granularity, Mixing, Mode, RegulationSettings, Task
from emoreg.config.setting_types import typed_value
from emoreg.errors import SettingError
from emoreg.models.features import network_widths, pooled_features, require_images, undecayed
from emoreg.models.gradient_budget import UNSCALED, GradientScale, expected_start, scale_gradient
from emoreg.models.loss_inputs import (
    DEFAULT_WEIGHTS,
    NOTHING,
    checked_class_weights,
    checked_weights,
    require_labels,
    require_smoothing,
)
from emoreg.models.relatives.heads import own_rules, relative_head
from emoreg.models.tasks import disagreement, mix_probabilities, task_loss


class Response(NamedTuple):
    """The full output of a regulated classifier. All logits are (B, K); in a regression they are the values."""

    logits: Tensor  # regulated: z
    non_emotional: Tensor  # z_n
    emotional: Tensor | None  # z_e; None without an emotional branch
    lam: Tensor | None  # λ, broadcastable to (B, K): (1, 1), (1, K), (B, 1) or (B, K)


class RegulationLike(Protocol):
    """What a classifier reads of its `regulation`: a `Regulation`, or a module of your own with these attributes.

    If `gate` is None, also `rho`, the log-odds of λ in evaluation, (1, 1) or (1, K); without it `lam`, a constant λ of
    these shapes. A module may also have `no_weight_decay()`, as any other, and `hold(is_held)` (see `Holdable`).
    """

    @property
    def expected_start(self) -> float:
        """λ₀, for which a matched budget scales the gradients of both branches."""

    @property
    def gate(self) -> nn.Module | None:
        """None if λ is the same for all images; not None, such as the gate's layer, if each has its own."""

    def __call__(self, features: Tensor, emotional_features: Tensor) -> Tensor:
        """The log-odds of λ, broadcastable to (B, K), of features (B, D) and (B, De)."""


@runtime_checkable
class Holdable(Protocol):
    """A regulation whose training can be suspended, as a warm-up of λ does."""

    def hold(self, is_held: bool) -> None:
        """Suspend the training of λ, or resume it; λ keeps its value meanwhile."""

    def parameters(self) -> Iterator[nn.Parameter]:
        """As every module's."""


class Regulation(nn.Module):
    """The regulation λ: a constant, a random draw, or σ(ρ) with a trained ρ (ours).

    A constant λ is stored as the buffer `lam`, a trained one as the parameter `rho`, its log-odds. `hold` suspends the
    training of λ: ρ and the gate then get a gradient of zero (ours).

    Args:
        mode: "fixed", "random" (U(0, 1) per sample and step in training, its mean 0.5 in evaluation),
            "learned" (starts at `lam`) or "random_learned" (starts at a draw from U(0, 1) by `seed`).
        granularity: "scalar"; in the learned modes also "per_class", or "per_sample" from a linear gate on both
            features, which starts with the λ of "scalar" for every sample.
        lam: the constant of "fixed", the start of "learned", in [0, 1].
        num_classes: K.
        gate_features: D + De, the width of both features together.
        seed: of the start of "random_learned". Draws in training come from torch's default generator, like dropout's.
    """

    lam: Tensor  # (1, 1), a constant λ
    pace: Tensor  # (), factor of the gradient of a trained λ: 0 while it is held, else 1

    def __init__(
        self,
        mode: Mode,
        granularity: Granularity,
        lam: float,
        num_classes: int,
        gate_features: int,
        seed: int,
    ) -> None:
        super().__init__()
        self.mode = mode
        self.expected_start = expected_start(mode, lam)  # λ₀, in expectation over draws
        width = num_classes if granularity == "per_class" else 1
        start = torch.full((1, width), self.expected_start)
        if mode == "random_learned":  # clamped, because a saturated σ would hardly learn
            start = torch.rand(1, width, generator=torch.Generator().manual_seed(seed)).clamp(0.01, 0.99)
        if mode in LEARNED:
            self.rho = nn.Parameter(start.logit())
            self.register_buffer("pace", torch.ones(()), persistent=False)  # a tensor, for captured CUDA graphs
        else:
            self.register_buffer("lam", start)
        self.gate: nn.Linear | None = None
        if granularity == "per_sample":
            self.gate = nn.Linear(gate_features, 1, bias=False)
            nn.init.zeros_(self.gate.weight)

    def no_weight_decay(self) -> set[str]:
        """Parameters that weight decay would pull towards λ = 0.5 (timm's convention)."""
        return {"rho", "gate.weight"}

    def hold(self, is_held: bool) -> None:
        """Suspend the training of λ, or resume it; no effect in the other modes."""
        if self.mode in LEARNED:
            self.pace.fill_(not is_held)

    def forward(self, features: Tensor, emotional_features: Tensor) -> Tensor:
        """The log-odds of λ: (1, 1), (1, K) per class, or (B, 1) per sample or drawn.

        Log-odds, because mixing probabilities needs log λ and log(1 - λ) without rounding to 0 or 1; ±∞ if λ is 1 or
        0. Features are f(x) (B, D) and e(x) (B, De).
        """
        if self.mode == "random" and self.training:
            return torch.rand(len(features), 1, device=features.device).logit()
        if self.mode not in LEARNED:
            return self.lam.logit()
        log_odds: Tensor = self.rho
        if self.gate is not None:
            log_odds = log_odds + self.gate(torch.cat([features, emotional_features], dim=1))
        return scale_gradient(log_odds, self.pace) if self.training else log_odds

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        """Also load states of the first edition, which stored the log-odds ρ of a constant λ too."""
        if self.mode not in LEARNED and f"{prefix}rho" in state_dict:
            state_dict[f"{prefix}lam"] = state_dict.pop(f"{prefix}rho").sigmoid()
        super()._load_from_state_dict(state_dict, prefix, *args)


class RegulatedClassifier(nn.Module):
    """A classifier with two branches; `forward` returns the regulated logits z (B, K), or the whole response.

    Args:
        backbone: f, any module that maps inputs to features (B, D). Inputs are images (B, 3, H, W), or whatever both
            modules take as their one argument, such as a tensor of tokens or a dictionary of them.
        encoder: e, any module that maps the same inputs to features (B, De); None if and only if mode is "none" or a
            relative.
        num_classes: K, the number of classes, labels or values.
        mode: "none", "fixed", "random", "learned" or "random_learned", or their names in reports: "Backbone", "E-Reg",
            "Rand-E-Reg", "Learn-E-Reg" or "Rand-Learn-E-Reg"; see `Regulation`. "embp", "bel" and "liaenn" have the
            head of a relative (`models.relatives`). For a recipe's mode "transfer", use "none" with the encoder as
            backbone.
        granularity: of λ; see `Regulation`.
        mix: "probabilities" (in a regression the values), "logits", or "features": z = h_n((1 - λ) · f(x) + λ · P e(x))
            and z_e = h_n(P e(x)), with a linear P: De -> D if the widths differ.
        lam: constant or start of λ, in [0, 1].
        freeze_encoder: keep e's weights and batch statistics unchanged. If false, the parameters of e that require
            gradients are trained (all, or adapters alone, say), and its batch statistics are updated in training.
        feature_dims: (D, De) for modules without timm's `num_features`; De is ignored without an encoder.
        seed: of the start of λ in mode "random_learned", which `torch.manual_seed` does not change.
        task: "classification", one of K classes; "multilabel", any of K labels with z their log-odds; or "regression",
            K values z. See `models.tasks`.

    Raises:
        SettingError: an unknown word (the closest match is suggested); λ outside [0, 1]; a combination without
            meaning; an encoder in mode "none", or none in another mode; a network that is not a module; unknown feature
            widths.
    """

    regulation: RegulationLike  # may be replaced, as in docs/extend.md, "A mode"

    if TYPE_CHECKING:  # the types that nn.Module.__call__ hides

        @overload
        def __call__(self, images: Any, whole: Literal[False] = False) -> Tensor: ...
        @overload
        def __call__(self, images: Any, whole: Literal[True]) -> Response: ...
        def __call__(self, images: Any, whole: bool = False) -> Tensor | Response:
            """As `forward`."""

    def __init__(
        self,
        backbone: nn.Module,
        encoder: nn.Module | None,
        num_classes: int,
        mode: str = "learned",
        granularity: str = "scalar",
        mix: str = "probabilities",
        lam: float = 0.5,
        freeze_encoder: bool = False,
        feature_dims: tuple[int, int] | None = None,
        seed: int = 0,
        task: str = "classification",
    ) -> None:
        super().__init__()
        settings = RegulationSettings(
            mode=typed_value(Mode, mode, "mode"),
            lam=lam,
            granularity=typed_value(Granularity, granularity, "granularity"),
            mix=typed_value(Mixing, mix, "mix"),
        )
        self.mode, self.mix = settings.mode, settings.mix
        self.task: Task = typed_value(Task, task, "task")
        self.num_classes: int = typed_value(int, num_classes, "num_classes")
        self.freeze_encoder: bool = typed_value(bool, freeze_encoder, "freeze_encoder")
        self.widths = width, emotional_width = network_widths(backbone, encoder, self.mode, feature_dims)  # D and De
        _check_classifier(self, typed_value(int, seed, "seed"), encoder is backbone)
        self.sees_images = any(isinstance(module, nn.Conv2d) for module in backbone.modules())
        self.gradient_scale: GradientScale | None = None  # set by RegulationLoss
        self.backbone = backbone
        self.head: nn.Module = nn.Linear(width, self.num_classes)  # h_n
        if self.mode in RELATIVES:
            self.head = relative_head(self.mode, self.head)
        self.encoder = encoder
        if encoder is None:
            return
        self.projection: nn.Module = nn.Identity()
        if self.mix != "features":
            self.emotional_head = nn.Linear(emotional_width, self.num_classes)  # h_e
        elif emotional_width != width:
            self.projection = nn.Linear(emotional_width, width)  # P
        gate_features = width + emotional_width
        self.regulation = Regulation(
            self.mode, settings.granularity, settings.lam, self.num_classes, gate_features, int(seed)
        )
        if self.freeze_encoder:
            encoder.requires_grad_(False)

    def train(self, mode: bool = True) -> RegulatedClassifier:
        """As `nn.Module.train`, but batch norm and dropout of a frozen encoder stay in evaluation mode."""
        super().train(mode)
        if self.encoder is not None and self.freeze_encoder:
            self.encoder.eval()
        return self

    def no_weight_decay(self) -> set[str]:
        """Parameters exempt from weight decay (timm's convention): those of λ, and tokens of ViTs."""
        return undecayed(self)

    def forward(self, images: Any, whole: bool = False) -> Tensor | Response:
        """Return the regulated logits (B, K) of images (B, 3, H, W) or other inputs, or with `whole` the response.

        Compute losses from `forward`, not `respond`, under wrappers such as DistributedDataParallel, which synchronise
        gradients in `forward` only.
        """
        response = self.respond(images)
        return response if whole else response.logits

    def respond(
        self, images: Any, emotional_features: Tensor | None = None, scale: GradientScale | None = None
    ) -> Response:
        """Return both responses, λ and the regulated logits.

        Args:
            images: normalised images (B, 3, H, W), or whatever else the networks take.
            emotional_features: e(x) (B, De) if already computed, such as a frozen encoder's; None to compute it.
            scale: factors of the gradients at z_n, z_e (with mix "features" at f(x), P e(x)) and λ, such as from
                `matched_scale`; they do not change the response. None for the classifier's `gradient_scale`, which
                `RegulationLoss` sets, in training, and for 1 in evaluation, where gradients explain predictions.

        Raises:
            SettingError: 8-bit pixels or a single image; a network whose features do not have the declared width; a
                user-supplied regulation whose output is not log-odds for these images.
        """
        if self.sees_images:
            require_images(images)
        if scale is None:
            scale = (self.gradient_scale if self.training else None) or UNSCALED
        features = pooled_features(self.backbone, images, self.widths[0], "backbone")  # (B, D)
        if self.encoder is None:
            logits = self.head(features, images) if self.mode in RELATIVES else self.head(features)
            return Response(logits, logits, None, None)
        if emotional_features is None:
            with torch.set_grad_enabled(torch.is_grad_enabled() and not self.freeze_encoder):
                emotional_features = pooled_features(self.encoder, images, self.widths[1], "encoder")  # (B, De)
        log_odds = self.regulation(features, emotional_features)
        _require_log_odds(log_odds, features.shape[0], 1 if self.mix == "features" else self.num_classes)
        log_odds = scale_gradient(log_odds, scale.rho)
        lam = log_odds.sigmoid()

        projected = self.projection(emotional_features)
        if self.mix == "features":
            features = scale_gradient(features, scale.non_emotional)
            projected = scale_gradient(projected, scale.emotional)
            non_emotional, emotional = self.head(features), self.head(projected)
            logits = self.head((1 - lam) * features + lam * projected)
            return Response(logits, non_emotional, emotional, lam)

        non_emotional = scale_gradient(self.head(features), scale.non_emotional)
        emotional = scale_gradient(self.emotional_head(projected), scale.emotional)
        if self.mix == "probabilities":
            logits = mix_probabilities(non_emotional, emotional, log_odds, self.task)
        else:
            logits = (1 - lam) * non_emotional + lam * emotional
        return Response(logits, non_emotional, emotional, lam)

    def branches(self) -> tuple[list[nn.Parameter], ...]:
        """Three groups of parameters: f and h_n; e, P and h_e; λ. Parameters that both branches share are in the first.

        Parameters that a relative's head trains by its own rule are in none.
        """
        group_of = {"encoder": 1, "projection": 1, "emotional_head": 1, "regulation": 2}
        groups: tuple[list[nn.Parameter], ...] = ([], [], [])
        local = own_rules(self)
        for name, parameter in self.named_parameters():
            if name not in local:
                groups[group_of.get(name.partition(".")[0], 0)].append(parameter)
        return groups

    @property
    def lam(self) -> Tensor | None:
        """λ in evaluation, (1, 1) or (1, K). None without an emotional branch, or if each sample has its own λ."""
        if self.encoder is None or self.regulation.gate is not None:
            return None
        regulation: Any = self.regulation  # has one of the two
        lam: Tensor = regulation.rho.detach().sigmoid() if hasattr(regulation, "rho") else regulation.lam
        return lam


def _require_log_odds(log_odds: Any, images: int, columns: int) -> None:
    """Raise SettingError unless a regulation gave floats (1, 1), (1, `columns`), (B, 1) or (B, `columns`).

    Others, such as (B,), may be broadcast over the classes without an error.
    """
    given = f"a {type(log_odds).__name__}"
    if isinstance(log_odds, Tensor):
        shape = log_odds.shape
        if not log_odds.is_floating_point():
            given = str(log_odds.dtype)
        elif len(shape) == 2 and shape[0] in (1, images) and shape[1] in (1, columns):
            return
        else:
            given = str(tuple(shape))
    shapes = "(1, 1) or (B, 1)" if columns == 1 else "(1, 1), (1, K) or (B, 1)"
    raise SettingError("regulation", f"must give log-odds of λ {shapes}, not {given}")


def _check_classifier(classifier: RegulatedClassifier, seed: int, is_shared: bool) -> None:
    """Raise SettingError for settings that have no meaning together; `is_shared` if f and e are one module."""
    if seed < 0:
        raise SettingError("seed", f"must be at least 0, not {seed}")
    if classifier.freeze_encoder and is_shared:
        reason = "must be false if one module is both backbone and encoder; for two give copy.deepcopy of it as encoder"
        raise SettingError("freeze_encoder", reason)
    count, fewest = classifier.num_classes, 2 if classifier.task == "classification" else 1
    if count < fewest:
        hint = "; for one label that an image may have give task='multilabel'" if count == 1 else ""
        raise SettingError("num_classes", f"must be at least {fewest}, not {count}{hint}")
    if classifier.mode in RELATIVES and classifier.task != "classification":
        raise SettingError("task", f"must be classification in mode {classifier.mode}, not {classifier.task}")


def regulation_loss(
    response: Response,
    labels: Tensor,
    weights: LossWeights | None = None,
    label_smoothing: float = 0.0,
    class_weights: Tensor | Sequence[float] | None = None,
    task: Task = "classification",
) -> Tensor:
    """a · CE(z, y) + a_n · CE(z_n, y) + a_e · CE(z_e, y) + m · D(z_n, z_e)   (ours)

    Args:
        response: of a regulated classifier, with logits (B, K).
        labels: y, class indices (B,), or probabilities (B, K) of mixed images; (B, K) in the other tasks.
        weights: a, a_n, a_e and m, the weight of `disagreement`; None for 0.5, 0.75, 0.75 and 0, or without an
            emotional branch for CE(z, y) alone. a = 0 trains the two responses independently, as an ensemble; (1, 0, 0)
            with mix "logits" is the plainest reading of the source. A term of weight 0 is not computed; a_e and m are
            ignored without an emotional branch.
        label_smoothing: in [0, 1), for the three terms with labels.
        class_weights: numbers (K,), at least 0 and not all 0, cast to float32, for the three terms with labels; None
            for 1. A term is then the sum of the images' weighted losses divided by the number of images, not by the sum
            of their weights, so that the losses of the parts of a batch add up.
        task: of the classifier; the other tasks replace CE by their own loss, see `models.tasks`.

    Raises:
        SettingError: no term is left; logits instead of a response; labels that do not fit the task; negative weights;
            label smoothing in a regression, or class weights in a task without classes.
    """
    if not isinstance(response, Response):
        given = "logits" if isinstance(response, Tensor) else f"a {type(response).__name__}"
        hint = "classifier(images, whole=True) and classifier.respond(images) give one"
        raise SettingError("response", f"must be a Response, not {given}; {hint}")
    require_labels(labels, response.logits, task)
    require_smoothing(label_smoothing, task)
    class_weights = checked_class_weights(class_weights, response.logits.shape[1], task)
    weights = DEFAULT_WEIGHTS[response.emotional is not None] if weights is None else checked_weights(weights)
    outputs = (response.logits, response.non_emotional, response.emotional)
    terms = [
        weight * task_loss(output, labels, label_smoothing, class_weights, task)
        for weight, output in zip(weights[:3], outputs, strict=True)
        if weight and output is not None
    ]
    if not terms:
        raise SettingError("weights", NOTHING)
    if weights.mutual and response.emotional is not None:
        terms.append(weights.mutual * disagreement(response.non_emotional, response.emotional, task))
    return torch.stack(terms).sum()
