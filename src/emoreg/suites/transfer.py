"""Transfer of the trained trunks to other targets: linear classifiers on their features, with the networks frozen.

This is the common linear evaluation, with scikit-learn's ridge classifier instead of logistic regression: its solution
is exact and its penalty follows from leave-one-out errors, so that no arm is stopped too early.
"""

from __future__ import annotations

from statistics import fmean

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from emoreg.data.images.image_set import ImageSet
from emoreg.errors import UserError
from emoreg.models.features import pooled_features
from emoreg.stages.outputs import outputs_in_order
from emoreg.suites.options import TransferOptions
from emoreg.suites.subject import BATCH, Scored, Subject, checksum_of, drawn, load_drawn, other_target

PENALTIES = np.logspace(-1, 5, 7)  # for features of variance 1; leave-one-out errors decide


def score(subject: Subject, options: TransferOptions) -> Scored:
    """Compute the accuracy of linear classifiers on the test images of other sets.

    Returns:
        backbone_accuracy, from the features f(x) of the backbone, whose number is the same in all arms except wide;
        accuracy, from f(x) and, with an emotional branch, e(x) side by side. Both as means over the sets and for each
        of them, such as <set>_backbone_accuracy.

    Raises:
        UserError: one of the other sets is missing, cannot be read, or is the run's own.
    """
    own = checksum_of(drawn(subject.scored, options.images, options.seed))
    figures: dict[str, float] = {}
    counts, checksums = [], {subject.name: own}
    for number, each in enumerate(options.sets):
        target, settings = other_target(subject, options.sets, number)
        train, test = (load_drawn(subject, table, settings, options) for table in (target.train, target.test))
        checksums[each.label] = checksum_of(test)
        if checksums[each.label] == own:
            raise UserError(f"transfer: {each.label} has the images of the run itself; name other sets")
        counts.append(f"{len(test):,} of {each.label} after {len(train):,}")
        if len(train.labels.unique()) < 2:
            raise UserError(f"transfer: {len(train):,} training images of {each.label} are of one class; raise images")
        learned, tested = features_of(subject, train), features_of(subject, test)
        width = subject.classifier.widths[0]
        for name, columns in (("backbone_accuracy", slice(width)), ("accuracy", slice(None))):
            truth = (labels.labels.cpu().numpy() for labels in (train, test))
            figures[f"{each.label}_{name}"] = linear_accuracy(learned[:, columns], tested[:, columns], *truth)
    means = {
        name: fmean(figures[f"{each.label}_{name}"] for each in options.sets)
        for name in ("backbone_accuracy", "accuracy")
    }
    return Scored(means | figures, f"test images, {' and '.join(counts)} training images", checksums)


@torch.no_grad()
def features_of(subject: Subject, images: ImageSet) -> NDArray[np.float64]:
    """Compute the features of images in their order, (N, D), or (N, D + De) with an emotional branch."""
    model = subject.classifier

    def compute(batch: Tensor) -> Tensor:
        features = [pooled_features(model.backbone, batch, model.widths[0], "backbone")]
        if model.encoder is not None:
            features.append(pooled_features(model.encoder, batch, model.widths[1], "encoder"))
        return torch.cat([part.float() for part in features], dim=1).cpu()

    parts = [features for _, _, features in outputs_in_order(images, subject.fabric, compute, batch_size=BATCH)]
    return torch.cat(parts).double().numpy()


def linear_accuracy(
    features: NDArray[np.float64],
    test_features: NDArray[np.float64],
    labels: NDArray[np.int64],
    test_labels: NDArray[np.int64],
) -> float:
    """Compute the test accuracy of a linear classifier on standardised features.

    Args:
        features: of the training images (N, D).
        test_features: of the test images (M, D).
        labels: classes of the training images (N,).
        test_labels: classes of the test images (M,).
    """
    from sklearn.linear_model import RidgeClassifierCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    probe = make_pipeline(StandardScaler(), RidgeClassifierCV(PENALTIES)).fit(features, labels)
    return float(np.mean(probe.predict(test_features) == test_labels))
