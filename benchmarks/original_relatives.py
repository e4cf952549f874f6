"""The relatives in their small original forms, in NumPy, pattern by pattern. The equations are in docs/relatives.md.

The heads that a study trains, and the sources, are in `emoreg.models.relatives`.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from emoreg.models.relatives.bel import AMYGDALA, CORTEX
from emoreg.models.relatives.liaenn import FORGETTING

Array = NDArray[np.float64]


class Mood:
    """Anxiety and confidence of a network that learns pattern by pattern; 1 and 0 in the first iteration."""

    def __init__(self) -> None:
        self.anxiety, self.confidence = 1.0, 0.0  # μ and k
        self.first: float | None = None  # μ₀

    def iterate(self, learn: Callable[[Array, Array], float], patterns: Array, targets: Array) -> float:
        """Run one iteration, then compute anxiety and confidence of the next.

        Args:
            learn: takes a step with a pattern and its target, and returns its error.
            patterns: (M, N).
            targets: (M, K).

        Returns:
            E, the mean error.
        """
        error = float(np.mean([learn(*each) for each in zip(patterns, targets, strict=True)]))
        self.anxiety = float(patterns.mean()) + error
        self.first = self.anxiety if self.first is None else self.first
        self.confidence = self.first - self.anxiety
        return error


class EmBPNetwork:
    """EmBP (Khashman 2008): one hidden layer, logistic neurons, one pattern after another.

    Args:
        inputs: number of values of a pattern; values are in [0, 1].
        hidden: number of neurons of the hidden layer.
        outputs: number of classes.
        rate: η of the conventional weights.
        momentum: α of the conventional weights.
        emotional: False for plain back-propagation, without emotional weights.
        seed: seed of the weights, drawn from U(-0.3, 0.3).
    """

    def __init__(
        self,
        inputs: int,
        hidden: int,
        outputs: int,
        rate: float = 0.007,
        momentum: float = 0.21,
        emotional: bool = True,
        seed: int = 0,
    ) -> None:
        self.rate, self.momentum, self.emotional = rate, momentum, emotional
        draw = np.random.default_rng(seed)
        self.weights = [draw.uniform(-0.3, 0.3, shape) for shape in ((hidden, inputs), (outputs, hidden))]
        self.biases = [draw.uniform(-0.3, 0.3, width) for width in (hidden, outputs)]
        self.emotions = [draw.uniform(-0.3, 0.3, width) * emotional for width in (hidden, outputs)]
        self.changes = [[np.zeros_like(w) for w in layer] for layer in (self.weights, self.biases, self.emotions)]
        self.mood = Mood()

    def respond(self, pattern: Array) -> tuple[Array, Array]:
        """Return the outputs of the hidden and the output layer for a pattern (inputs,)."""
        mean, signals = pattern.mean(), [pattern]
        for w, b, m in zip(self.weights, self.biases, self.emotions, strict=True):
            signals.append(1 / (1 + np.exp(-(w @ signals[-1] + b + m * mean))))
        return signals[1], signals[2]

    def learn(self, pattern: Array, target: Array) -> float:
        """Take one step, and return the mean squared error of the outputs (K,) before it."""
        hidden, output = self.respond(pattern)
        mean = float(pattern.mean())
        output_delta = output * (1 - output) * (target - output)  # Δ
        hidden_delta = hidden * (1 - hidden) * (self.weights[1].T @ output_delta)
        w_changes, b_changes, m_changes = self.changes
        for layer, (delta, signal) in enumerate(((hidden_delta, pattern), (output_delta, hidden))):
            w_changes[layer] = self.rate * np.outer(delta, signal) + self.momentum * w_changes[layer]
            b_changes[layer] = self.rate * delta + self.momentum * b_changes[layer]
            self.weights[layer] += w_changes[layer]
            self.biases[layer] += b_changes[layer]
            if self.emotional:
                m_changes[layer] = self.mood.anxiety * delta * mean + self.mood.confidence * m_changes[layer]
                self.emotions[layer] += m_changes[layer]
        return float(((target - output) ** 2).mean())

    def iterate(self, patterns: Array, targets: Array) -> float:
        """Run one iteration over all patterns (N, inputs), as `Mood.iterate`, and return the mean error E."""
        return self.mood.iterate(self.learn, patterns, targets)


class BEL:
    """Brain emotional learning (Morén & Balkenius 2000), with an amygdala and a cortex for each of K rewards.

    Args:
        stimuli: N, number of values of a pattern; values are in [0, 1].
        rewards: K, number of rewards.
        alpha: learning rate of the amygdala.
        beta: learning rate of the cortex.
    """

    def __init__(self, stimuli: int, rewards: int = 1, alpha: float = AMYGDALA, beta: float = CORTEX) -> None:
        self.alpha, self.beta = alpha, beta
        self.v = np.zeros((rewards, stimuli + 1))  # the last column belongs to the thalamus
        self.w = np.zeros((rewards, stimuli))

    def respond(self, stimuli: Array, thalamus: bool = True) -> tuple[Array, Array]:
        """Return ΣA and ΣO, each (K,), for stimuli (N,). `thalamus` False cuts the thalamic path."""
        through = np.append(stimuli, stimuli.max() * thalamus)
        return self.v @ through, self.w @ stimuli

    def learn(self, stimuli: Array, rewards: Array, thalamus: bool = True) -> Array:
        """Learn from one presentation, and return E (K,) before it."""
        amygdala, cortex = self.respond(stimuli, thalamus)
        emotion = amygdala - cortex
        through = np.append(stimuli, stimuli.max() * thalamus)
        self.v += self.alpha * np.outer(np.maximum(rewards - amygdala, 0), through)
        self.w = np.maximum(self.w + self.beta * np.outer(emotion - rewards, stimuli), 0)
        return emotion


class LiAENN:
    """LiAENN (Lotfi & Akbarzadeh-T. 2014): an amygdala and a cortex for each of K classes, one pattern after another.

    Args:
        inputs: N, number of values of a pattern, in [0, 1]. Patterns longer than 1 may make the rules overshoot.
        outputs: K, number of classes.
        forgetting: γ, in [0, 1).
    """

    def __init__(self, inputs: int, outputs: int, forgetting: float = FORGETTING) -> None:
        self.forgetting = forgetting
        self.v = np.zeros((outputs, inputs + 1))  # the last column belongs to the thalamus
        self.w = np.zeros((outputs, inputs))
        self.v_change, self.w_change = np.zeros_like(self.v), np.zeros_like(self.w)
        self.mood = Mood()

    def respond(self, pattern: Array) -> tuple[Array, Array, Array]:
        """Return A, A' and O, each (K,), for a pattern (N,)."""
        short = self.v[:, :-1] @ pattern
        return short + self.v[:, -1] * pattern.max(), short, self.w @ pattern

    def learn(self, pattern: Array, target: Array) -> float:
        """Take one step, and return the mean squared error of E (K,) before it."""
        amygdala, short, cortex = self.respond(pattern)
        reward = np.where(target > 0, np.maximum(short - target, 0) - cortex, np.maximum(short - cortex, 0))  # R₀
        through = np.append(pattern, pattern.max())
        grown = self.mood.anxiety * np.outer(np.maximum(target - amygdala, 0), through)
        self.v_change = grown + self.mood.confidence * self.v_change
        self.w_change = self.mood.anxiety * np.outer(reward, pattern) + self.mood.confidence * self.w_change
        self.v = (1 - self.forgetting) * self.v + self.v_change
        self.w = (1 - self.forgetting) * self.w + self.w_change
        return float(((target - amygdala + cortex) ** 2).mean())

    def iterate(self, patterns: Array, targets: Array) -> float:
        """Run one iteration over all patterns (M, N), as `Mood.iterate`, and return the mean error."""
        return self.mood.iterate(self.learn, patterns, targets)
