"""Accuracy under attack: FGSM (Goodfellow et al. 2015) and PGD (Madry et al. 2018).

By the Adversarial Robustness Toolbox. The attacker knows the weights: gradients flow through the regulated output z, in
evaluation mode. Everything is computed in 32 bits, and attacked images are not rounded to 255 levels. Both attacks are
weak by today's standards: accuracy under stronger ones is lower.
"""

from __future__ import annotations

from collections import Counter
from statistics import fmean
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from emoreg.config.normalisation import MEAN, STD
from emoreg.runtime.optional import importing
from emoreg.runtime.seeding import numpy_drawn_from
from emoreg.suites.options import AdversarialOptions
from emoreg.suites.subject import MORE, Scored, Subject, checksum_of, drawn

BATCH = 50  # the same in every arm: PGD's random starts are drawn batch by batch
STEP = 2.5  # step size of PGD in units of eps / steps: enough to reach the border (Madry et al. 2018, appendix)
ATTACKS = ("pgd", "fgsm")


def score(subject: Subject, options: AdversarialOptions) -> Scored:
    """Compute the accuracy under FGSM and PGD.

    Returns:
        pgd_accuracy and fgsm_accuracy, the means over eps; clean_accuracy, of the same images without an attack; and
        the accuracy for each eps, such as pgd_8 and fgsm_8.

    Raises:
        UserError: the library is not installed.
    """
    images = drawn(subject.scored, options.images, options.seed)
    estimator = _estimator(subject)
    batches = [
        (pixels.float().div(255).cpu().numpy(), labels.cpu().numpy())
        for pixels, labels, _ in images.batches(torch.arange(len(images)), BATCH)
    ]
    right: Counter[str] = Counter()
    with subject.progress.task(f"{subject.run.folder.name}: adversarial", len(batches), "batches") as advance:
        for number, (pixels, labels) in enumerate(batches):
            right["clean"] += _count_right(estimator, pixels, labels)
            for eps in options.eps:
                with numpy_drawn_from(options.seed, "attack", number):
                    for name, attacked in _attacked(estimator, pixels, labels, eps / 255, options.steps).items():
                        right[f"{name}_{eps:g}"] += _count_right(estimator, attacked, labels)
            advance(1)
    subject.classifier.to(subject.fabric.device)  # the toolbox supports only CUDA and the CPU
    accuracy = {key: right[key] / len(images) for key in right}
    figures = {
        **{f"{name}_accuracy": fmean(accuracy[f"{name}_{eps:g}"] for eps in options.eps) for name in ATTACKS},
        "clean_accuracy": accuracy.pop("clean"),
        **accuracy,
    }
    limits = " and ".join(f"{eps:g}/255" for eps in options.eps)
    scored = f"{len(images):,} {subject.name}, attacked within {limits} by FGSM and by {options.steps} steps of PGD"
    return Scored(figures, scored, {subject.name: checksum_of(images)})


def _estimator(subject: Subject) -> Any:
    """Wrap the classifier for the toolbox: it takes pixels in [0, 1], and gives no gradients of its weights."""
    with importing("art", "the suite adversarial", MORE):
        from art.estimators.classification.pytorch import PyTorchClassifier
    classifier, size = subject.classifier, subject.recipe.target.image_size
    for parameter in classifier.parameters():
        parameter.requires_grad_(False)
    return PyTorchClassifier(
        model=classifier,
        loss=nn.CrossEntropyLoss(),
        input_shape=(3, size, size),
        nb_classes=classifier.num_classes,
        clip_values=(0.0, 1.0),
        preprocessing=(MEAN, STD),
        device_type="gpu" if subject.fabric.device.type == "cuda" else "cpu",
    )


def _attacked(
    estimator: Any, pixels: NDArray[np.float32], labels: NDArray[np.int64], eps: float, steps: int
) -> dict[str, NDArray[np.float32]]:
    """The attacked images, in [0, 1], for each of ATTACKS."""
    from art.attacks.evasion.fast_gradient import FastGradientMethod
    from art.attacks.evasion.projected_gradient_descent import projected_gradient_descent_pytorch as pgd

    size = len(pixels)
    iterated = pgd.ProjectedGradientDescentPyTorch(
        estimator,
        eps=eps,
        eps_step=STEP * eps / steps,
        max_iter=steps,
        num_random_init=1,
        batch_size=size,
        verbose=False,
    )
    single = FastGradientMethod(estimator, eps=eps, batch_size=size)
    return {"pgd": iterated.generate(pixels, labels), "fgsm": single.generate(pixels, labels)}


def _count_right(estimator: Any, pixels: NDArray[np.float32], labels: NDArray[np.int64]) -> int:
    predictions: NDArray[np.int64] = estimator.predict(pixels, batch_size=len(pixels)).argmax(axis=1)
    return int((predictions == labels).sum())
