"""What BEL and LiAENN share: the stimuli, and the outputs of amygdala (with its thalamic path) and cortex."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import linear, normalize

# Logits per unit of emotion E, which predicts a reward in [0, 1]. With E = 1 for one class and 0 for all others, that
# class has the probability 0.9996 among 10 classes, and 0.956 among 1,000 (ours).
SHARPNESS = 10.0


class LimbicOutput(NamedTuple):
    """Outputs of amygdala and cortex, each (B, K)."""

    amygdala: Tensor  # A, with the thalamic path
    cortex: Tensor  # O

    @property
    def emotion(self) -> Tensor:
        """E = A - O."""
        return self.amygdala - self.cortex


def normalised_stimuli(features: Tensor) -> Tensor:
    """Normalise features (B, D) to length 1 (ours: the sources' stimuli are in [0, 1], a trunk's features are not)."""
    return normalize(features.float(), dim=1)


def limbic_output(stimuli: Tensor, v: Tensor, w: Tensor) -> LimbicOutput:
    """Return ΣA and ΣO of stimuli S (B, D), with weights V (K, D + 1) and W (K, D).

    A_i = V_i · S_i and O_i = W_i · S_i. The last column of V is V_th of the thalamic path, A_th = V_th · max S.
    """
    thalamus = stimuli.amax(dim=1, keepdim=True)
    return LimbicOutput(linear(torch.cat([stimuli, thalamus], dim=1), v), linear(stimuli, w))
