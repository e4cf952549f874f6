"""Settings of images, networks and regulation, typed, with unit, range and reason.

The other settings are in `config.loss`, `config.augment`, `config.optimizer` and `config.training`; `config.recipe`
combines all of them into recipes. Docstrings say "stated" of what the paper states, and "ours" of what this library
adds, where it matters; see docs/method.md.

A wrong value raises `SettingError`. Its key is relative to the class that checks it ("patch_size"), because some
classes serve several sections of a recipe; `config.read_recipe.build` adds the section.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import inf
from typing import Literal, get_args

from emoreg.config.label_noise import LabelNoise, check_label_noise
from emoreg.config.rules import check_at_least, check_not_negative, check_positive, check_rule, check_share
from emoreg.config.setting_types import expand_paths, settle
from emoreg.errors import SettingError

SMALL_IMAGES = 64  # largest side in pixels for which stem auto means cifar; timm's stem would leave maps of 2x2 pixels
MAX_IMAGE_SIZE = 8192  # side in pixels: above this even a few decoded images would fill the memory

Relative = Literal["embp", "bel", "liaenn"]
Mode = Literal["none", "fixed", "random", "learned", "random_learned", "transfer", Relative]
RELATIVES: tuple[Relative, ...] = get_args(Relative)  # earlier emotional networks, as a head of the backbone
SINGLE = ("none", "transfer", *RELATIVES)  # modes with one network and no second response
OWN = "own:"  # prefix of the recorded architecture name of a user-supplied module
LEARNED = ("learned", "random_learned")  # modes with a trained λ = σ(ρ)
Granularity = Literal["scalar", "per_class", "per_sample"]
Mixing = Literal["logits", "probabilities", "features"]
LabelChoice = Literal["published", "distribution", "majority", "polarity", "ekman", "dimensions"]
Pretext = Literal["affect", "shuffled", "neutral", "rotation"]
Fit = Literal["crop", "pad"]
Valence = Literal["all", "pleasant", "unpleasant"]
Arousal = Literal["all", "calm", "arousing"]
Takeover = Literal["as_is", "norm_matched", "shrunk"]
TargetLabels = Literal["majority", "polarity", "ekman", "multilabel", "dimensions"]
Task = Literal["classification", "multilabel", "regression"]  # one class of K, any of K labels, K values
# The labels with which recipes name these tasks; classes have several kinds.
LABELS_OF: Mapping[Task, TargetLabels] = {"multilabel": "multilabel", "regression": "dimensions"}


@dataclass(frozen=True)
class StimuliSettings:
    """The affective images of stage 1."""

    name: str = "procedural"
    """procedural (drawn on the fly, labels from psychophysics), a published set (emoset, abstract, emod, ...; see
    emoreg data list), hf:OWNER/NAME (a set of the Hugging Face Hub whose classes are emotions), emotion_folder
    (`<emotion>/*.jpg`) or manifest (a CSV, JSON Lines or Parquet file). For positive controls, the training images of a
    target with their classes, which are not emotions: cifar10, cifar100, digits or folder."""
    root: str | None = None
    """Folder or zip of the set, the manifest file, or a pack made by `emoreg data pack` or `emoreg.write_pack`;
    procedural has none. For hf: a local folder to read instead of the Hub."""
    classes: tuple[str, ...] | None = None
    """If the stimuli are a target's images (name: cifar10, cifar100, digits, folder), keep only these classes, at least
    two. null for all. Other sets have no classes."""
    labels: LabelChoice = "published"
    """published (the set's own), distribution (of votes), majority (of votes; ties are left out), polarity
    (negative or positive), ekman (one of six) or dimensions (valence, arousal, ...). For polarity and ekman, votes for
    emotions without a counterpart, such as neutral, do not count."""
    count: int = 2000
    """Number of images to draw, at least 10 (procedural only)."""
    image_size: int = 32
    """Side of the square network input in pixels, 8 to 8,192. A ViT needs the same size in stage 2."""
    fit: Fit = "crop"
    """How images are made square: crop keeps the central square; pad scales the longer side to image_size and adds bars
    of the mean colour (grey). A pack is made for one or the other."""
    validation: float = 0.1
    """Share of the images held out to measure the encoder, in [0, 1). Ignored if the set is published with a validation
    split, which is then used."""
    share: float | None = None
    """Dose of experience: train on this share of the training images, above 0 and at most 1. It is taken from each
    category, if the set's own labels are categories, with at least one image of each. A smaller share is a subset of a
    larger one. Twins see the same images. null for all."""
    valence: Valence = "all"
    """Train on pleasant images only (valence above 0, the middle of the scale), unpleasant ones only (below 0), or all.
    By the set's ratings, or else by the polarity of its categories. Twins see the same images."""
    arousal: Arousal = "all"
    """Train on calm images only (arousal below 0, the middle of the scale), arousing ones only (above 0), or all. By
    the set's ratings, or else by ratings of its categories' names (Russell & Mehrabian 1977)."""
    limit: int | None = None
    """Use at most this many training images (those of share, if that is given), drawn by seed, and the same proportion
    of the validation images; null for all."""
    test_limit: int | None = None
    """Measure on at most this many images of a published test split, drawn by seed; null for all. For quick trials
    only."""
    weight: float | None = None
    """With several sets: this set's share of each epoch's images, relative to the other weights. null (then for every
    set): weight by the number of training images, so that an epoch shows every image once."""
    skip_unreadable: bool = False
    """Skip images that cannot be decoded and report their number, instead of stopping at the first."""

    def __post_init__(self) -> None:
        settle(self)
        expand_paths(self, "root")
        check_at_least(10, self, "count")
        check_positive(self, "weight")
        _check_images(self)


@dataclass(frozen=True)
class TargetSettings:
    """The classification task of stage 2."""

    name: str = "digits"
    """digits (embedded), cifar10, cifar100, folder (any images as `[<split>/]<class>/*.jpg|png`), any of
    torchvision's classification sets (svhn, stl10, flowers102, food101, ...), hf:OWNER/NAME (Hugging Face), or an
    affective set whose classes are the evoked emotions (abstract, artphoto, emoset, emotion6, fi; with labels polarity
    also emod, diffused_emod, oasis, manifest)."""
    root: str | None = None
    """Folder or zip of the images, or a pack made by `emoreg data pack` or `emoreg.write_pack`; digits has none. For
    cifar10, cifar100 and torchvision's sets: the download folder (null for data). For hf: a local folder to read
    instead of the Hub."""
    classes: tuple[str, ...] | None = None
    """Keep only these classes, at least two, of the training and test images; labels are numbered in this order. null
    for all."""
    per_class: int | None = None
    """Few-shot: train on this many images of each class, drawn by seed after the validation images are held out. A
    class with fewer is an error. null for all."""
    share: float | None = None
    """Train on this share of the images of each class, above 0 and at most 1, with at least one image; drawn by seed
    after the validation images are held out. A smaller share is a subset of a larger one. null for all."""
    imbalance: float | None = None
    """Long tail: keep n · imbalance^(-k / (K - 1)) training images, rounded down, of class k = 0, ..., K - 1 in the
    order of the labels, where n is the size of the smallest class (Cui et al. 2019; 10 or 100 are usual). Validation
    and test images are unchanged. null for the classes as they are."""
    label_noise: LabelNoise = "none"
    """Wrong labels for training images only, the same in all arms. symmetric: noise_share of each class, drawn by seed,
    get a random other class. asymmetric: they get the class that theirs is confused with (Patrini et al. 2017): in
    cifar10 truck -> automobile, bird -> airplane, deer -> horse, cat <-> dog, and no others; in cifar100 the next class
    of the same superclass; in other sets the next class. The last is followed by the first. aggre, random1, random2,
    random3 and worse (cifar10) and noisy (cifar100): labels of human annotators (Wei et al. 2022)."""
    noise_share: float | None = None
    """Share of the training images whose labels symmetric or asymmetric noise changes, above 0 and below 1; the images
    of a smaller share are a subset of those of a larger one. null without such noise."""
    image_size: int = 32
    """Side of the square network input in pixels, 8 to 8,192."""
    fit: Fit = "crop"
    """How images are made square, in training and wherever the classifier is used: crop keeps the central square; pad
    scales the longer side to image_size and adds bars of the mean colour (grey). A pack is made for one or the other.
    """
    validation: float = 0.1
    """Share of the training images held out for curves and model selection, in [0, 1). Ignored if the set is published
    with both a validation and a test split, which are then used. The test split is scored once, at the end."""
    test: bool = True
    """Score the test split at the end. false leaves it unseen, for explorations decided on validation images."""
    limit: int | None = None
    """Use at most this many training images, drawn by seed in proportion to the classes; null for all. Of the
    validation images it keeps the proportion that the limit is of all training images, also where share, per_class or
    imbalance leave fewer than the limit."""
    test_limit: int | None = None
    """Score at most this many images of the test split at the end, drawn by seed in proportion to the classes; null for
    all. For quick trials only: such an accuracy cannot be compared with any other."""
    skip_unreadable: bool = False
    """Skip images that cannot be decoded and report their number, instead of stopping at the first."""
    labels: TargetLabels = "majority"
    """Task posed by an affective set: majority, the published emotion or the one with most votes; polarity, negative or
    positive, by valence or by emotions; ekman, one of six basic emotions; multilabel, all emotions with at least 1 / E
    of the votes, for E emotions (ours); dimensions, regression of people's ratings of valence, arousal, .... Images
    without such a label are left out. Packs of `emoreg.write_pack` may have multilabel or dimensions of any kind."""

    def __post_init__(self) -> None:
        settle(self)
        expand_paths(self, "root")
        _check_images(self)
        check_at_least(1, self, "per_class")
        check_rule(self, ("imbalance",), lambda factor: 1 < factor < inf, "be above 1 and finite")
        if self.share is not None and self.per_class is not None:
            raise SettingError("share", "must be null with target.per_class: both say how many images are trained on")
        check_label_noise(self.label_noise, self.noise_share, self.name, self.classes)
        if self.task != "classification":
            _refuse_classes(self)
        if not self.test and not self.validation:
            raise SettingError("validation", "must be above 0 if target.test is false: nothing would be measured")

    @property
    def task(self) -> Task:
        """The kind of task that these labels pose."""
        return task_of(self.labels)


def task_of(labels: str) -> Task:
    """Return the kind of task that a target with these labels poses; classification for most."""
    return next((task for task, name in LABELS_OF.items() if name == labels), "classification")


def _refuse_classes(settings: TargetSettings) -> None:
    """Raise SettingError for a setting about classes, for a task without classes."""
    for name in ("classes", "per_class", "imbalance", "label_noise"):
        value, default = getattr(settings, name), getattr(TargetSettings, name)
        if value != default:
            neutral = "null" if default is None else default
            reason = f"must be {neutral} with labels {settings.labels}, not {value}: there are no classes"
            raise SettingError(name, reason)


def _check_images(settings: StimuliSettings | TargetSettings) -> None:
    """Make the checks that both kinds of image set share."""
    if settings.classes is not None and len(settings.classes) < 2:
        raise SettingError("classes", f"must name at least two, or be null for all, not {len(settings.classes)}")
    for name, times in Counter(settings.classes or ()).items():
        if times > 1:
            raise SettingError("classes", f"must not name '{name}' more than once")
    check_rule(settings, ("share",), lambda share: 0 < share <= 1, "be above 0 and at most 1")
    check_rule(
        settings, ("image_size",), lambda side: 8 <= side <= MAX_IMAGE_SIZE, f"be 8 to {MAX_IMAGE_SIZE:,} pixels"
    )
    check_share(settings, "validation")
    check_at_least(1, settings, "limit", "test_limit")


@dataclass(frozen=True)
class BackboneSettings:
    """An architecture without its classification head."""

    name: str = "resnet20"
    """resnet8/14/20/32/44/56/110 (He et al. 2016, for 32x32 images), speednet (in the style of Jordan 2024, learns in
    a few epochs) or any model name of timm; with pretrained true also hf-hub:OWNER/NAME, a model on the Hub, or
    local-dir:FOLDER, both with config.json and weights."""
    stem: Literal["auto", "cifar", "imagenet"] = "auto"
    """First layers of timm's ResNets. cifar: a 3x3 convolution with stride 1 and no max-pool, for small images.
    imagenet: timm's own, which reduces maps to a sixteenth of the pixels, and the cost of a step on photographs of 224
    pixels to about a fifteenth. auto: cifar for images of at most 64 pixels, else imagenet."""
    patch_size: int | None = None
    """Side of a ViT's patches in pixels; null for the architecture's own."""
    drop_path: float = 0.0
    """Stochastic depth rate of timm's models, in [0, 1)."""
    pretrained: bool = False
    """Start from timm's published weights (downloaded) where they fit the architecture."""
    weights: str | None = None
    """Start from the weights in this file (safetensors or PyTorch), ignoring its head. null: random, or timm's if
    pretrained."""
    zero_gamma: bool | None = None
    """Start the last batch norm of each residual block at γ = 0, which switches the block off at first (Goyal et al.
    2017), or at 1 (false). ResNets only. null for the architecture's default: 0 in timm's ResNets, 1 in the classic
    ones."""
    width: int | None = None
    """Channels of the first stage of a ResNet or speednet, or embedding width of a ViT; null for the architecture's
    default."""
    pool: Literal["token", "average"] | None = None
    """A ViT's features: its class token, or the average over its patches after the last norm, which is better when
    training on images alone (Beyer, Zhai & Kolesnikov 2022). null for the architecture's default."""
    class_token: bool | None = None
    """false builds a ViT without a class token, which pool average does not use. null for the architecture's default.
    """

    def __post_init__(self) -> None:
        settle(self)
        expand_paths(self, "weights")
        if self.weights is not None and self.pretrained:
            raise SettingError("weights", "must be null with pretrained true: a network starts from one or the other")
        check_at_least(1, self, "patch_size", "width")
        check_share(self, "drop_path")
        if self.class_token is False and self.pool != "average":
            raise SettingError("class_token", "must be null or true unless pool is average, not false: it is read")

    @property
    def is_own(self) -> bool:
        """Whether this records a user-supplied module, which no recipe can build."""
        return self.name.startswith(OWN)

    def for_images(self, image_size: int) -> BackboneSettings:
        """Return the settings with `stem: auto` resolved for images with sides of `image_size` pixels."""
        if self.stem != "auto":
            return self
        return replace(self, stem="cifar" if image_size <= SMALL_IMAGES else "imagenet")

    @property
    def untrained(self) -> BackboneSettings:
        """The same architecture without pretrained weights."""
        return replace(self, pretrained=False, weights=None)


@dataclass(frozen=True)
class EncoderSettings:
    """The emotional encoder of stage 2."""

    experience: str | None = None
    """Folder of the stage-1 run that trained the encoder. null leaves it untrained, with the weights that its stage 1
    would start from, random or pretrained: the twin `fresh`."""
    backbone: BackboneSettings | None = None
    """Architecture; null for that of the experience or, without one, the same as the backbone."""
    frozen: bool = False
    """Keep the weights and batch statistics of stage 1. The paper trains end to end (false)."""
    views: int | None = None
    """Frozen only: show the encoder this many fixed views of each training image, augmented as augment says (0: the
    image itself), so that its features are computed once and then looked up. The encoder then no longer sees the same
    crop as the backbone, which changes the method (ours). null computes features at every step."""
    lr_factor: float = 1.0
    """Learning rate of the encoder as a multiple of optimizer.lr, at least 0."""
    anchor: float = 0.0
    """Weight α, at least 0, of a penalty α / 2 · ‖θ - θ₀‖² that pulls the encoder's weights towards those it has at the
    start of stage 2, which preserves the experience (L2-SP: Li et al. 2018, who use 0.01 to 0.1). Weight decay still
    pulls them towards 0. Each twin is pulled towards its own start. train_loss includes it. 0 for none."""
    rehearsal: float = 0.0
    """Weight, at least 0, of stage 1's loss added to that of stage 2, which preserves the experience: each step also
    runs a batch of stimuli, as many as it has images, through the encoder and its stage-1 read-out, which stays frozen.
    Costs another step of the encoder. Of stage 1's augmentation only mirroring is applied. 0 for none; must be 0
    without an experience. In a study twins rehearse what they have learned; fresh and moments rehearse nothing.
    train_loss includes it."""
    takeover: Takeover = "as_is"
    """How stage 2 takes over the weights of stage 1: as_is; norm_matched (filters before a batch norm get the norms of
    a fresh network; the function stays the same; not for ViTs); or shrunk (towards fresh weights). Fresh weights
    are what stage 1 started from: a random draw with the run's seed, or pretrained weights."""
    shrink: float = 0.5
    """Share s of stage 1's weights that a shrunk takeover keeps, in [0, 1]: θ ← (1 - s) · fresh + s · stage 1 (Ash &
    Adams 2020, in the convex form of Schwarzer et al. 2023)."""
    moments_only: bool = False
    """Draw fresh weights and keep from stage 1 only the mean and variance of each layer's weights, and all vectors:
    biases, γ and β of norms, LayerScale. The twin `moments` (Raghu et al. 2019)."""

    def __post_init__(self) -> None:
        settle(self)
        expand_paths(self, "experience")
        check_not_negative(self, "lr_factor", "anchor", "rehearsal")
        for name, value in (("anchor", self.anchor), ("rehearsal", self.rehearsal)):
            if self.frozen and value:
                raise SettingError(name, f"must be 0 with encoder.frozen true, not {value:g}: nothing moves")
        if self.rehearsal and self.moments_only:
            reason = f"must be 0 with encoder.moments_only true, not {self.rehearsal:g}: nothing is left to rehearse"
            raise SettingError("rehearsal", reason)
        check_rule(self, ("shrink",), lambda share: 0 <= share <= 1, "lie in [0, 1]")
        check_at_least(0, self, "views")
        if self.views is not None and not self.frozen:
            reason = f"must be null unless encoder.frozen is true, not {self.views}: learning changes the features"
            raise SettingError("views", reason)


@dataclass(frozen=True)
class RegulationSettings:
    """How λ balances the non-emotional and the emotional response."""

    mode: Mode = "none"
    """none (plain backbone), fixed (E-Reg), random (Rand-E-Reg), learned (Learn-E-Reg), random_learned
    (Rand-Learn-E-Reg), transfer (the encoder of encoder.experience alone, fine-tuned; a reference), or an earlier
    emotional network as the backbone's head: embp, bel, liaenn (docs/relatives.md; they have no λ)."""
    lam: float = 0.5
    """λ, strictly between 0 and 1: constant in mode fixed, initial value in mode learned."""
    granularity: Granularity = "scalar"
    """One λ (scalar), one per class, or one per sample, from a gate on the features of both branches (per_class and
    per_sample: learned modes only)."""
    mix: Mixing = "probabilities"
    """What λ mixes: probabilities, logits or features (features not with a λ per class)."""
    lr_factor: float = 1.0
    """Learning rate of λ's parameters as a multiple of optimizer.lr, at least 0."""
    warmup: float = 0.0
    """Share of the steps, in [0, 1), during which a learned λ stays at its initial value."""

    def __post_init__(self) -> None:
        settle(self)
        mode, lam, granularity = self.mode, self.lam, self.granularity
        if not 0 <= lam <= 1:
            raise SettingError("lam", f"λ must lie in [0, 1], not {lam}")
        if mode == "learned" and lam in (0, 1):
            reason = f"must lie strictly between 0 and 1 in mode learned, not {lam}: it is the start of λ = σ(ρ)"
            raise SettingError("lam", reason)
        if granularity != "scalar" and mode not in LEARNED:
            reason = (
                f"must be scalar in mode {mode}, not {granularity}: only learned modes have a λ per class or sample"
            )
            raise SettingError("granularity", reason)
        if granularity == "per_class" and self.mix == "features":
            reason = "must be scalar or per_sample with mix features, not per_class: features have no classes yet"
            raise SettingError("granularity", reason)
        check_not_negative(self, "lr_factor")
        check_share(self, "warmup")
        for name in ("lam", "lr_factor", "warmup"):
            value = getattr(self, name)
            if mode in RELATIVES and value != getattr(type(self), name):
                reason = f"must be left out in mode {mode}, not {value}: it has no second response to balance"
                raise SettingError(name, reason)
