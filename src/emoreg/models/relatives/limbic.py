"""What BEL and LiAENN share: stimuli, with the short path through the thalamus, and what is felt of them."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import linear, normalize

# Answers are rewards, 0 to 1; logits are answers times this. A class that is answered by 1, and all others by 0, then
# has the probability 0.9996 among 10 classes, and 0.956 among 1,000 (ours).
SHARPNESS = 10.0


class Answer(NamedTuple):
    """What is felt of stimuli, each (B, K)."""

    amygdala: Tensor  # A, with the thalamic path
    cortex: Tensor  # O

    @property
    def emotion(self) -> Tensor:
        """E = A - O."""
        return self.amygdala - self.cortex


def stimuli_of(features: Tensor) -> Tensor:
    """Features (B, D) at length 1 (ours: stimuli of the sources are in [0, 1], features of a trunk of any size)."""
    return normalize(features.float(), dim=1)


def answer_of(stimuli: Tensor, v: Tensor, w: Tensor) -> Answer:
    """Answers to stimuli S (B, D) by weights V (K, D + 1), whose last column is the thalamus', and W (K, D).

    A_i = V_i · S_i, with A_th = V_th · max S; O_i = W_i · S_i; summed over i.
    """
    thalamus = stimuli.amax(dim=1, keepdim=True)
    return Answer(linear(torch.cat([stimuli, thalamus], dim=1), v), linear(stimuli, w))
