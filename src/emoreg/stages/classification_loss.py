"""The loss of stage 2: that of the responses, plus anchor and rehearsal, which preserve stage 1."""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn

from emoreg.config.recipe import TrainRecipe
from emoreg.config.schema import RELATIVES
from emoreg.data.images.batches import Batch
from emoreg.data.images.image_set import ImageSet
from emoreg.errors import SettingError
from emoreg.models.anchor import Anchor
from emoreg.models.regulation import RegulatedClassifier
from emoreg.models.regulation_loss import RegulationLoss
from emoreg.models.relative_loss import relative_loss
from emoreg.runtime.seeding import derive_seed
from emoreg.stages.frozen_features import FrozenFeatures
from emoreg.stages.rehearsal import Rehearsal
from emoreg.training.step import LossOf


def classification_loss(
    classifier: RegulatedClassifier,
    images: ImageSet,
    recipe: TrainRecipe,
    class_weights: Tensor | None = None,
    rehearsal: Rehearsal | None = None,
) -> LossOf:
    """Make the loss that trains a classifier on batches of `images`; a frozen encoder's features take shortcuts.

    Args:
        classifier: to be trained.
        images: the training images.
        recipe: loss, encoder, augment and the mode of the regulation are used.
        class_weights: from `class_weights.class_weights`.
        rehearsal: of the encoder, or of the only network in mode transfer.

    Raises:
        SettingError: a matched budget for a user-supplied classifier with a branch that gets no gradient; an encoder
            that is not declared frozen but has no trainable parameters.
    """
    _refuse_frozen(classifier)
    loss = recipe.loss
    weights = loss.weights(classifier.encoder is not None)  # a user-supplied classifier may not have the recipe's mode
    classifier.gradient_scale = None  # forget a loss of the caller's own loop
    regulation_loss = RegulationLoss(classifier, weights, loss.label_smoothing, loss.budget, class_weights)
    features: FrozenFeatures | None = None
    if classifier.encoder is not None and classifier.freeze_encoder:
        seed = derive_seed(recipe.seed, "views")
        features = FrozenFeatures(classifier.encoder, images, recipe.encoder.views, recipe.augment, seed)

    def loss_of(model: nn.Module, batch: Batch) -> Tensor:
        assert isinstance(model, RegulatedClassifier)
        targets = batch.targets(model.num_classes)
        if model.mode in RELATIVES:
            return relative_loss(model, batch.images, targets, regulation_loss)
        response = model.respond(batch.images, None if features is None else features(batch))
        return regulation_loss(response, targets)

    rate, is_transfer = recipe.encoder.anchor, recipe.regulation.mode == "transfer"
    has_anchor = rate and (classifier.encoder is not None or is_transfer)
    if not has_anchor and rehearsal is None:
        return loss_of
    return _WithPenalties(loss_of, Anchor(_experienced(classifier), rate) if has_anchor else None, rehearsal)


def _refuse_frozen(classifier: RegulatedClassifier) -> None:
    """Raise SettingError for an encoder without trainable parameters that is not declared frozen.

    Building such a classifier is allowed: it may be for inference, or the caller's loop may unfreeze the encoder later.
    """
    encoder = classifier.encoder
    if encoder is None or classifier.freeze_encoder:
        return
    trainable = [parameter.requires_grad for parameter in encoder.parameters()]
    if trainable and not any(trainable):
        raise SettingError(
            "encoder.frozen",
            "must be true with an encoder that has no trainable parameters (for a RegulatedClassifier of your own: "
            "freeze_encoder=True); encoder.requires_grad_(True) lets it learn",
        )


def _experienced(classifier: RegulatedClassifier) -> nn.Module:
    """The network that comes from stage 1: the encoder, or in mode transfer the backbone."""
    return classifier.backbone if classifier.encoder is None else classifier.encoder


class _WithPenalties(nn.Module):
    """A loss plus the penalty of an anchor, the loss of a rehearsal, or both."""

    def __init__(self, loss_of: LossOf, anchor: Anchor | None, rehearsal: Rehearsal | None) -> None:
        super().__init__()
        self.loss_of, self.anchor, self.rehearsal = loss_of, anchor, rehearsal

    def forward(self, model: nn.Module, batch: Batch) -> Tensor:
        assert isinstance(model, RegulatedClassifier)
        loss, encoder = self.loss_of(model, batch), _experienced(model)
        if self.anchor is not None:
            loss = loss + cast(Tensor, self.anchor(encoder))
        if self.rehearsal is not None:
            loss = loss + cast(Tensor, self.rehearsal(encoder, len(batch.rows)))
        return loss
