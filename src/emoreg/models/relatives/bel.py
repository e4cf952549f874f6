"""BEL: brain emotional learning, by an amygdala that learns and an orbitofrontal cortex that inhibits.

Morén & Balkenius 2000, "A computational model of emotional learning in the amygdala", From Animals to Animats 6;
applied to control by Lucas, Shahmirzadi & Sheikholeslami 2004, "Introducing BELBIC", Intelligent Automation and Soft
Computing 10(1), 11-21. Of the first paper only the first page was accessible; the equations follow public
implementations (docs/relatives.md) and are not numbered as in the papers. With stimuli S and a reward R:

    A_i = V_i · S_i, and A_th = V_th · max S, by the short path through the thalamus
    O_i = W_i · S_i
    E = ΣA - ΣO
    ΔV_i = α · S_i · max(0, R - ΣA)        the amygdala never unlearns
    ΔW_i = β · S_i · (E - R)               the cortex inhibits what is no longer rewarded

with α = 0.2 and β = 0.8, and W at least 0, as in an implementation of the paper's simulations.

Ours: one reward per class, 1 for the image's class and 0 for the others. And the head on a trunk: both rules are
gradients, of ½ max(0, R - ΣA)² in V and of ½ (E - R)² in W, averaged over a batch. The trunk is trained by the
cross-entropy of the logits `SHARPNESS` · E, as Backbone's is. W may become negative, as features may be.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from emoreg.models.relatives.limbic import SHARPNESS, limbic_output, normalised_stimuli
from emoreg.models.relatives.mood import silent

AMYGDALA, CORTEX = 0.2, 0.8  # α and β


class BELHead(nn.Module):
    """Amygdala and cortex for each class, on the features of a trunk; their weights start at 0."""

    def __init__(self, width: int, num_classes: int) -> None:
        super().__init__()
        self.v = nn.Parameter(torch.zeros(num_classes, width + 1))
        self.w = nn.Parameter(torch.zeros(num_classes, width))

    def own_rule(self) -> set[str]:
        """Parameters that `learn` trains instead of the optimiser."""
        return {"v", "w"}

    def forward(self, features: Tensor, images: Tensor) -> Tensor:
        """Return logits (B, K) of features (B, D); V and W get no gradient from them."""
        return SHARPNESS * limbic_output(normalised_stimuli(features), self.v.detach(), self.w.detach()).emotion

    def local_loss(self, features: Tensor, images: Tensor, logits: Tensor, targets: Tensor) -> Tensor:
        """Return 0 with the gradients -S · max(0, R - ΣA) of V and -S · (E - R) of W, averaged over the batch.

        Targets R are (B, K).
        """
        amygdala, cortex = limbic_output(normalised_stimuli(features.detach()), self.v, self.w)
        missing = (targets - amygdala).clamp(min=0)
        error = amygdala.detach() - cortex - targets
        return silent(0.5 * (missing.square() + error.square()).sum(dim=1).mean())

    @torch.no_grad()
    def learn(self, share: float = 1.0) -> None:
        """Apply both rules, after a backward pass.

        Args:
            share: current learning rate of the schedule, divided by its peak.
        """
        for weights, rate in ((self.v, AMYGDALA), (self.w, CORTEX)):
            if weights.grad is not None:
                weights.sub_(share * rate * weights.grad)
                weights.grad = None
