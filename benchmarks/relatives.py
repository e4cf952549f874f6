"""Compare the relatives in their original forms with what was published of them, on data that scikit-learn ships.

    python benchmarks/relatives.py    # all three; about a minute on one core
    python benchmarks/relatives.py --only embp liaenn --seeds 10

The numbers in the papers were not accessible, so ours are compared with the claims in their abstracts, and with the
simulations of a public re-implementation. The faces that EmBP and LiAENN were trained on (ORL, Yale) do not come with
scikit-learn; its digits, wines and tumours are used instead, and the printed lines say so. Sources and output are in
docs/relatives.md.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from original_relatives import BEL, Array, EmBPNetwork, LiAENN
from sklearn.datasets import load_breast_cancer, load_digits, load_wine
from sklearn.model_selection import train_test_split

GOAL = 0.02  # mean squared error of an output at which training ends
LIMIT = 300  # iterations
RATE = 0.1  # η of EmBP in the comparison with the limbic networks, with the same number of iterations


class Split(NamedTuple):
    """A set split in half, values in [0, 1]."""

    patterns: Array  # for training, (N, D)
    targets: Array  # their classes, (N, K), one-hot
    others: Array  # for testing, (M, D)
    classes: NDArray[np.int64]  # classes of `others`, (M,)


def split(load: Callable[..., tuple[Array, NDArray[np.int64]]], seed: int, count: int | None = None) -> Split:
    """Split a set in half, scaled to [0, 1] by the training patterns; keep at most `count` training patterns."""
    x, y = load(return_X_y=True)
    train, test, labels, classes = train_test_split(x, y, test_size=0.5, random_state=seed, stratify=y)
    low, high = train.min(axis=0), train.max(axis=0)
    train, test = (np.clip((part - low) / np.maximum(high - low, 1e-9), 0, 1) for part in (train, test))
    return Split(train[:count], np.eye(y.max() + 1)[labels[:count]], test, classes)


def unit_length(patterns: Array) -> Array:
    return np.asarray(patterns / np.maximum(np.linalg.norm(patterns, axis=1, keepdims=True), 1e-9))


def accuracy(outputs: Array, classes: NDArray[np.int64]) -> float:
    return float((outputs.argmax(axis=1) == classes).mean())


def embp(seeds: int) -> Iterator[str]:
    yield "EmBP. Published (abstract), of faces: 'higher recognition rates and faster recognition time' than without."
    yield f"Ours, on 300 digits, to an error of {GOAL}, seeds 0 to {seeds - 1} (not the published figure):"
    for name, emotional in (("EmBP", True), ("BP", False)):
        rows = [_to_goal(seed, emotional) for seed in range(seeds)]
        iterations, right, anxiety, confidence = np.mean(rows, axis=0)
        mood = f", μ at the end {anxiety:.3f}, k {confidence:.3f}" if emotional else ""
        yield f"  {name:4}  {iterations:5.1f} iterations, {100 * right:.2f} % of the other digits right{mood}"


def _to_goal(seed: int, emotional: bool) -> tuple[float, float, float, float]:
    data = split(load_digits, seed, 300)
    network = EmBPNetwork(64, 30, 10, rate=0.05, emotional=emotional, seed=seed)
    iterations = next((n for n in range(1, LIMIT + 1) if network.iterate(data.patterns, data.targets) <= GOAL), LIMIT)
    outputs = np.stack([network.respond(pattern)[1] for pattern in data.others])
    return iterations, accuracy(outputs, data.classes), network.mood.anxiety, network.mood.confidence


def bel() -> Iterator[str]:
    yield "BEL. Published (simulations, by a public re-implementation): acquisition and extinction, blocking."
    model, one, none = BEL(1), np.array([1.0]), np.array([0.0])
    phases = (("acquisition", one), ("extinction", none), ("acquisition again", one))
    for name, reward in phases:
        felt = [model.learn(one, reward, thalamus=False).item() for _ in range(20)]
        values = ", ".join(f"{felt[n - 1]:.2f}" for n in (1, 2, 5, 10, 20))
        yield f"  {name:17}  E at presentations 1, 2, 5, 10, 20: {values}; V {model.v[0, 0]:.2f}, W {model.w[0, 0]:.2f}"
    blocked, alone = BEL(2), BEL(2)
    for _ in range(20):
        blocked.learn(np.array([1.0, 0.0]), one, thalamus=False)
    for model in (blocked, alone):
        for _ in range(20):
            model.learn(np.array([1.0, 1.0]), one, thalamus=False)
    for name, model in (("blocking", blocked), ("without the first 20", alone)):
        amygdala, cortex = model.respond(np.array([0.0, 1.0]), thalamus=False)
        yield f"  {name:20}  E of the second stimulus alone: {(amygdala - cortex).item():.2f}"


def liaenn(seeds: int) -> Iterator[str]:
    yield "LiAENN. Published (abstract): 'a higher accuracy' than BEL and EmBP on the faces of ORL and Yale."
    yield f"Ours, % of test patterns right, mean of splits 0 to {seeds - 1}, 20 iterations (not the published figure):"
    for name, load in (("digits", load_digits), ("wine", load_wine), ("breast cancer", load_breast_cancer)):
        rows = np.array([_compared(split(load, seed), seed) for seed in range(seeds)])
        means, least, most = 100 * rows.mean(axis=0), 100 * rows.min(axis=0), 100 * rows.max(axis=0)
        values = (
            f"{each} {m:.1f} ({a:.1f} to {b:.1f})" for each, m, a, b in zip(NAMES, means, least, most, strict=True)
        )
        yield f"  {name:13}  {', '.join(values)}"


NAMES = ("LiAENN", "BEL", "EmBP")


def _compared(data: Split, seed: int, iterations: int = 20) -> tuple[float, float, float]:
    inputs, outputs = data.patterns.shape[1], data.targets.shape[1]
    limbic, brain, network = LiAENN(inputs, outputs), BEL(inputs, outputs), EmBPNetwork(inputs, 30, outputs, RATE)
    train, test, rng = unit_length(data.patterns), unit_length(data.others), np.random.default_rng(seed)
    for _ in range(iterations):
        order = rng.permutation(len(train))
        limbic.iterate(train[order], data.targets[order])
        for pattern, target in zip(train[order], data.targets[order], strict=True):
            brain.learn(pattern, target)
        network.iterate(data.patterns[order], data.targets[order])
    return (
        accuracy(np.stack([np.subtract(*limbic.respond(pattern)[::2]) for pattern in test]), data.classes),
        accuracy(np.stack([np.subtract(*brain.respond(pattern)) for pattern in test]), data.classes),
        accuracy(np.stack([network.respond(pattern)[1] for pattern in data.others]), data.classes),
    )


RELATIVES: dict[str, Callable[[int], Iterator[str]]] = {"embp": embp, "bel": lambda _: bel(), "liaenn": liaenn}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=RELATIVES, default=RELATIVES, help="which; all by default")
    parser.add_argument(
        "--seeds",
        type=int,
        default=3,
        help="number of seeds for splits and weights; bel has none (default: %(default)s)",
    )
    given = parser.parse_args()
    for name in given.only:
        print("\n".join(RELATIVES[name](given.seeds)))


if __name__ == "__main__":
    main()
