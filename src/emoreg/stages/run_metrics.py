"""The metrics that a run of stage 2 records: after each epoch in metrics.csv, and at the end in final.json."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from emoreg.config.outcomes import OUTCOMES
from emoreg.config.recipe import TrainRecipe
from emoreg.data.fingerprint import checksum_of_images
from emoreg.data.images.image_set import ImageSet
from emoreg.data.targets.target import Target
from emoreg.errors import Diverged
from emoreg.models.regulation import RegulatedClassifier
from emoreg.runtime.seeding import generator
from emoreg.stages.confusion import remark_on_predictions
from emoreg.stages.given_model import describes_given_model
from emoreg.stages.metrics import count_flops, measure
from emoreg.stages.probe import probe_outputs
from emoreg.stages.target_images import TargetImages
from emoreg.training.launch import RunContext

if TYPE_CHECKING:
    from lightning_fabric import Fabric

TRAINING_IMAGES = 10_000  # most training images that are used for accuracies at the end, and for batch statistics


class Curves:
    """The callbacks `observe` and `score` of `training.loop.fit`."""

    def __init__(
        self, classifier: RegulatedClassifier, validation: ImageSet | None, fabric: Fabric, classes: Sequence[str]
    ) -> None:
        self.classifier, self.validation, self.fabric, self.classes = classifier, validation, fabric, classes
        self.gradient_share: float | None = None  # the last one that was observed

    def observe(self) -> None:
        """Record the gradient share; called while the gradients of a step exist."""
        share = _gradient_share(self.classifier)
        self.gradient_share = self.gradient_share if share is None else share

    def score(self, candidate: nn.Module) -> dict[str, float]:
        """Return an epoch's metrics of the model that would be kept: the trained one, or its average."""
        assert isinstance(candidate, RegulatedClassifier)
        measured: dict[str, Any] = {}
        if self.validation is not None:
            measured = measure(candidate, self.validation, self.fabric, names=self.classes)
        lam = _lambda_values(candidate, measured) or []
        row = {"lambda": fmean(lam)} if lam else {}
        if len(lam) > 1:
            row |= {f"lambda_{number}": value for number, value in enumerate(lam)}
        if measured:
            row |= {f"val_{name}": measured[name] for name in (OUTCOMES[candidate.task].name, "loss")}
        if self.gradient_share is not None:
            row["gradient_share"] = self.gradient_share
        return row | _trunk_norms(self.classifier)  # of the trained model, not of its average


def _gradient_share(classifier: RegulatedClassifier) -> float | None:
    """‖g_n‖ / (‖g_n‖ + ‖g_e‖) over the parameters of the trunks, backbone and encoder, in [0, 1].

    None without an emotional branch, if a trunk is frozen, or if all gradients are zero.
    """
    if classifier.encoder is None:
        return None
    trunks = (classifier.backbone, classifier.encoder)
    gradients = [[p.grad for p in trunk.parameters() if p.grad is not None] for trunk in trunks]
    non_emotional, emotional = (_norm(of_trunk) for of_trunk in gradients)
    total = non_emotional + emotional
    return non_emotional / total if all(gradients) and total > 0 else None


def _trunk_norms(classifier: RegulatedClassifier) -> dict[str, float]:
    """norm_non_emotional and norm_emotional: ‖θ‖ of backbone and encoder; empty without an emotional branch."""
    if classifier.encoder is None:
        return {}
    trunks = {"non_emotional": classifier.backbone, "emotional": classifier.encoder}
    return {f"norm_{name}": _norm([p.detach() for p in trunk.parameters()]) for name, trunk in trunks.items()}


def _norm(tensors: list[Tensor]) -> float:
    return nn.utils.get_total_norm(tensors).item()


def _lambda_values(classifier: RegulatedClassifier, measured: Mapping[str, Any]) -> list[float] | None:
    """λ: one value, one per class, or the mean over measured images if each has its own; None if there is none."""
    if classifier.lam is not None:
        return classifier.lam.flatten().tolist()
    return [measured["lambda"]] if "lambda" in measured else None


def measure_and_finish(
    context: RunContext[TrainRecipe],
    classifier: RegulatedClassifier,
    target: Target,
    images: TargetImages,
    facts: Mapping[str, Any],
) -> None:
    """Measure a trained classifier and finish its run.

    Args:
        context: the run.
        classifier: to measure and to keep.
        target: the whole task.
        images: of the run.
        facts: more entries of final.json.

    Raises:
        Diverged: a loss is not finite.
    """
    train, validation, test = images
    recipe, fabric, run, names = context.recipe, context.fabric, context.run, target.classes
    measured = {
        "test": measure(classifier, test, fabric, each_image=True, names=names) if test else None,
        "validation": measure(classifier, validation, fabric, names=names) if validation else None,
    }
    for split, metrics in measured.items():
        if metrics is not None and not math.isfinite(metrics["loss"]):
            raise Diverged(f"the loss on the {split} images is {metrics['loss']} at the end of training")
    for split, metrics in measured.items():
        if metrics is not None and (remark := remark_on_predictions(metrics, names, f"{split} images")):
            # A study prints no remarks on test images, which might tempt people to stop it.
            say = context.progress.detail if split == "test" else context.progress.say
            say(f"{run.folder.name}: {remark}")
    is_published_test = (
        target.whole is None
        and target.has_published_test
        and test is not None
        and len(test) == len(target.test)  # none was skipped as unreadable
    )
    final: dict[str, Any] = {
        **measured,
        "train": _measure_training(classifier, train, recipe.seed, fabric),
        "lambda": _lambda_values(classifier, measured["test"] or measured["validation"] or {}),
        "images_per_second": float(run.metrics["images_per_second"].median()),
        "parameters": sum(p.numel() for p in classifier.parameters()),
        "flops": count_flops(classifier, recipe.target.image_size, fabric),
        "classes": list(names),
        "target": {"classes": target.whole or len(names), "is_published_test": is_published_test},
        "images": {"train": len(train), "validation": len(validation or ()), "test": len(test or ())},
        "test_images_checksum": checksum_of_images(target.test),  # by which evaluate recognises them
        **facts,
    }
    metadata: dict[str, Any] = {"stage": 2, "classes": names}
    if describes_given_model(recipe):
        metadata |= probe_outputs(classifier, recipe.target.image_size)
    run.finish(classifier.state_dict(), metadata, final)


def _measure_training(
    classifier: RegulatedClassifier, images: ImageSet, seed: int, fabric: Fabric
) -> dict[str, Any] | None:
    """Measure each response on training images without augmentation, to detect starving; None for a single network."""
    if classifier.encoder is None:
        return None
    drawn = torch.randperm(len(images), generator=generator(seed, "training images"))[:TRAINING_IMAGES]
    measured = measure(classifier, images, fabric, drawn.sort().values)
    outcome = OUTCOMES[classifier.task].name
    return {name: measured[name] for name in (outcome, f"{outcome}_non_emotional", f"{outcome}_emotional", "images")}
