"""Emotional Regulation: balancing a non-emotional and an emotionally influenced response.

Stated by the source (arXiv:2606.13081): two responses, one through a plain backbone f and one through an
emotional encoder e that was pre-trained on affective images, are balanced end to end; the balance may be
fixed, random or learned. Ours, as the public summaries leave it open: the equation, λ's parametrisation,
its granularity, and what else may be mixed. With image x (B, 3, H, W), K classes and heads h_n, h_e:

    z_n = h_n(f(x))        z_e = h_e(e(x))        z = (1 - λ) · z_n + λ · z_e        λ in [0, 1]

By default probabilities are mixed in place of logits, and each response has a loss of its own beside that of the
mixture (ours, `regulation_loss`): one loss on a mixture lets one branch answer for both. Several labels and values are
answered in the same way (ours, `models.answers`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, overload

import torch
from torch import Tensor, nn

from emoreg.config.loss import LossWeights
from emoreg.config.schema import LEARNED, RELATIVES, Granularity, Mixing, Mode, RegulationSettings, Task
from emoreg.config.setting_types import typed_value
from emoreg.errors import SettingError
from emoreg.models.answers import answer_loss, disagreement, mix_probabilities
from emoreg.models.features import network_widths, pooled_features, require_images, sees_images, undecayed
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


class Response(NamedTuple):
    """The full output of a regulated classifier. All logits are (B, K); of a regression they are the values."""

    logits: Tensor  # regulated: z
    non_emotional: Tensor  # z_n
    emotional: Tensor | None  # z_e; None without an emotional branch
    lam: Tensor | None  # λ, broadcastable to (B, K): (1, 1), (1, K), (B, 1) or (B, K)


class Regulation(nn.Module):
    """The regulation λ: a constant, a random draw, or σ(ρ) with a trained ρ (ours).

    A constant λ is stored as the buffer `lam`, a trained one as the parameter `rho`, its log-odds. While it is held
    (`hold`), a trained one stays where it is in training: what trains it gets no gradient (ours).

    Args:
        mode: "fixed", "random" (U(0, 1) per sample and step in training, its mean 0.5 in evaluation),
            "learned" (starts at `lam`) or "random_learned" (starts at a draw from U(0, 1) by `seed`).
        granularity: "scalar"; for the learned modes also "per_class", or "per_sample" from a linear gate on both
            features that starts as the scalar would.
        lam: the constant of "fixed", the start of "learned", in [0, 1].
        num_classes: K.
        gate_features: D + De, the width of both features together.
        seed: of the start of "random_learned". Draws in training come from torch's default generator, as dropout's do.
    """

    lam: Tensor  # (1, 1), of a constant λ
    pace: Tensor  # (), of a trained λ: its share of the gradient, 0 while it is held and else 1

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
        if mode == "random_learned":  # a σ that starts saturated would hardly learn
            start = torch.rand(1, width, generator=torch.Generator().manual_seed(seed)).clamp(0.01, 0.99)
        if mode in LEARNED:
            self.rho = nn.Parameter(start.logit())
            self.register_buffer("pace", torch.ones(()), persistent=False)  # on the device, for steps that are captured
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
        """Keep a trained λ as it is in the steps from here on, or train it again; of others it changes nothing."""
        if self.mode in LEARNED:
            self.pace.fill_(not is_held)

    def forward(self, features: Tensor, emotional_features: Tensor) -> Tensor:
        """The log-odds of λ: (1, 1), (1, K) per class, (B, 1) per sample or drawn.

        Log-odds, because mixing probabilities needs log λ and log(1 - λ) without rounding to 0 or 1; ±∞ for a λ of
        1 or 0. Features are f(x) (B, D) and e(x) (B, De).
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
        """As `nn.Module`'s; the first edition stored the log-odds ρ of a constant λ too."""
        if self.mode not in LEARNED and f"{prefix}rho" in state_dict:
            state_dict[f"{prefix}lam"] = state_dict.pop(f"{prefix}rho").sigmoid()
        super()._load_from_state_dict(state_dict, prefix, *args)


class RegulatedClassifier(nn.Module):
    """A classifier around two backbones; `forward` returns the regulated logits z (B, K), or the whole response.

    Args:
        backbone: f, any module that maps inputs to features (B, D): images (B, 3, H, W), or whatever both modules
            take as their one argument, such as a tensor of tokens or a dictionary of them.
        encoder: e, any module that maps the same inputs to features (B, De); None if and only if mode is "none" or a
            relative's.
        num_classes: K, also of labels or values.
        mode: "none", "fixed", "random", "learned" or "random_learned", or as reports have it "Backbone", "E-Reg",
            "Rand-E-Reg", "Learn-E-Reg" or "Rand-Learn-E-Reg"; see `Regulation`. A recipe's mode "transfer" is "none"
            around the encoder. "embp", "bel" and "liaenn" have the head of a relative (`models.relatives`).
        granularity: of λ; see `Regulation`.
        mix: "probabilities" (of values, their means), "logits", or "features": z = h_n((1 - λ) · f(x) + λ · P e(x)),
            with a linear P: De -> D where the widths differ, and z_e = h_n(P e(x)).
        lam: constant or start of λ, in [0, 1].
        freeze_encoder: keep e's weights and batch statistics unchanged. Without it what learns of e is what takes
            gradients already, such as its adapters alone, and batch statistics move in training even if nothing does.
        feature_dims: (D, De) for modules without timm's `num_features`; De is ignored without an encoder.
        seed: of the start of λ in mode "random_learned", which `torch.manual_seed` does not change.
        task: "classification", one of K classes; "multilabel", any of K labels, z their log-odds; or "regression", K
            values, which z are. See `models.answers`.

    Raises:
        SettingError: an unknown word (the nearest is named); λ outside [0, 1]; combinations that have no meaning; an
            encoder in mode "none", or none in another mode; what is no network; unknown feature widths.
    """

    regulation: Any  # a Regulation, or a module of one's own with what is used of it

    if TYPE_CHECKING:  # nn.Module's gives Any

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
        self.gradient_scale: GradientScale | None = None  # until a loss is made from it
        self.task: Task = typed_value(Task, task, "task")
        self.num_classes: int = typed_value(int, num_classes, "num_classes")
        self.freeze_encoder: bool = typed_value(bool, freeze_encoder, "freeze_encoder")
        self.widths = network_widths(backbone, encoder, self.mode, feature_dims)  # D and De
        self.sees_images = sees_images(backbone)
        if typed_value(int, seed, "seed") < 0:
            raise SettingError("seed", f"must be at least 0, not {seed}")
        if self.freeze_encoder and encoder is backbone:
            reason = (
                "must be false where one module is backbone and encoder; for two give copy.deepcopy of it as encoder"
            )
            raise SettingError("freeze_encoder", reason)
        fewest = 2 if self.task == "classification" else 1
        if self.num_classes < fewest:
            hint = "; one label that an image has or not is task='multilabel'" if num_classes == 1 else ""
            raise SettingError("num_classes", f"must be at least {fewest}, not {num_classes}{hint}")
        width, emotional_width = self.widths
        self.backbone = backbone
        self.head: nn.Module = nn.Linear(width, self.num_classes)  # h_n
        if self.mode in RELATIVES:
            if self.task != "classification":
                raise SettingError("task", f"must be classification in mode {self.mode}, not {self.task}")
            self.head = relative_head(self.mode, self.head)
        self.encoder = encoder
        if encoder is None:
            return
        self.projection: nn.Module = nn.Identity()
        if self.mix == "features" and emotional_width != width:
            self.projection = nn.Linear(emotional_width, width)  # P
        if self.mix != "features":
            self.emotional_head = nn.Linear(emotional_width, self.num_classes)  # h_e
        gate_features = width + emotional_width
        self.regulation = Regulation(
            self.mode, settings.granularity, settings.lam, self.num_classes, gate_features, int(seed)
        )
        if self.freeze_encoder:
            encoder.requires_grad_(False)

    def train(self, mode: bool = True) -> RegulatedClassifier:
        """As `nn.Module.train`, but a frozen encoder's batch norm and dropout stay in evaluation."""
        super().train(mode)
        if self.encoder is not None and self.freeze_encoder:
            self.encoder.eval()
        return self

    def no_weight_decay(self) -> set[str]:
        """Parameters that weight decay must leave alone, which timm's optimisers heed: λ's, and tokens of ViTs."""
        return undecayed(self)

    def forward(self, images: Any, whole: bool = False) -> Tensor | Response:
        """Regulated logits (B, K) of images (B, 3, H, W), or of other inputs, or the whole response, for a loss.

        Wrappers such as DistributedDataParallel synchronise gradients through `forward` alone, not through `respond`.
        """
        response = self.respond(images)
        return response if whole else response.logits

    def respond(
        self, images: Any, emotional_features: Tensor | None = None, scale: GradientScale | None = None
    ) -> Response:
        """Both responses, λ and the regulated logits.

        Args:
            images: normalised, (B, 3, H, W); or the inputs of networks that take others.
            emotional_features: e(x) (B, De) if it is known already, as a frozen encoder's may be; None to compute it.
            scale: of the gradients that come back through z_n, z_e (features mixed: f(x), P e(x)) and λ; the response
                is the same, bit for bit. `matched_scale` makes one. None for the classifier's `gradient_scale`, which
                `RegulationLoss` sets, in training, and for 1 in evaluation, where gradients explain answers.

        Raises:
            SettingError: pixels in place of images; a network that does not give the features that it says.
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
        rho = scale_gradient(self.regulation(features, emotional_features), scale.rho)
        lam = rho.sigmoid()

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
            logits = mix_probabilities(non_emotional, emotional, rho, self.task)
        else:
            logits = (1 - lam) * non_emotional + lam * emotional
        return Response(logits, non_emotional, emotional, lam)

    def branches(self) -> tuple[list[nn.Parameter], ...]:
        """The parameters of f and h_n; of e, P and h_e; and of λ. Whatever both branches share is in the first.

        What a relative's head trains by a rule of its own is in none.
        """
        places = {"encoder": 1, "projection": 1, "emotional_head": 1, "regulation": 2}
        groups: tuple[list[nn.Parameter], ...] = ([], [], [])
        local = own_rules(self)
        for name, parameter in ((name, each) for name, each in self.named_parameters() if name not in local):
            groups[places.get(name.partition(".")[0], 0)].append(parameter)
        return groups

    @property
    def lam(self) -> Tensor | None:
        """λ in evaluation: (1, 1) or (1, K).

        None without an emotional branch, and with a λ per sample: `respond` returns each sample's.
        """
        if self.encoder is None or self.regulation.gate is not None:
            return None
        return self.regulation.rho.detach().sigmoid() if self.mode in LEARNED else self.regulation.lam


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
        response: of a regulated classifier, logits (B, K).
        labels: y, class indices (B,), or of mixed images probabilities (B, K); of the other tasks (B, K).
        weights: a, a_n, a_e and m, of `disagreement`; None for 0.5, 0.75, 0.75 and 0, without an emotional branch for
            CE(z, y) alone. a = 0 trains the two responses independently, as an ensemble; (1, 0, 0), with logits mixed,
            is the plainest reading of the source. A term of weight 0 is not computed; a_e and m are ignored without an
            emotional branch.
        label_smoothing: in [0, 1), for the three terms with labels.
        class_weights: numbers (K,), taken as float32, of the classes in the three terms with labels; at least 0, and
            not all 0; None for 1. A term is then the sum
            of the images' weighted losses divided by the number of images, not by the sum of their weights: so the
            parts of a batch add up to it, and labels that are probabilities count as their parts do.
        task: what is answered; the losses of other tasks stand in place of CE, see `models.answers`.

    Raises:
        SettingError: no term is left; logits in place of a response; labels of another kind, or negative weights; a
            label smoothing of values, or weights of classes where there are none.
    """
    _require_response(response)
    require_labels(labels, response.logits, task)
    require_smoothing(label_smoothing, task)
    of_classes = checked_class_weights(class_weights, response.logits.shape[1], task)
    weights = DEFAULT_WEIGHTS[response.emotional is not None] if weights is None else checked_weights(weights)
    answers = (response.logits, response.non_emotional, response.emotional)
    terms = [
        weight * answer_loss(answer, labels, label_smoothing, of_classes, task)
        for weight, answer in zip(weights[:3], answers, strict=True)
        if weight and answer is not None
    ]
    if not terms:
        raise SettingError("weights", NOTHING)
    if weights.mutual and response.emotional is not None:
        terms.append(weights.mutual * disagreement(response.non_emotional, response.emotional, task))
    return torch.stack(terms).sum()


def _require_response(response: Any) -> None:
    if not isinstance(response, Response):
        what = "logits" if isinstance(response, Tensor) else f"a {type(response).__name__}"
        mend = "classifier(images, whole=True) and classifier.respond(images) give one"
        raise SettingError("response", f"must be a Response, not {what}; {mend}")
