"""Every setting, once: typed, with its unit, range and reason. `config.recipe` has the recipes that they make up.

What the paper states and what is ours is marked where it matters; see docs/method.md.

A wrong value raises `SettingError`. Its key is relative to the class that checks it ("patch_size"), because some
classes serve several sections of a recipe; `config.read_recipe.build` adds the section.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import inf
from typing import Literal, NamedTuple

from emoreg.errors import SettingError

MAX_IMAGE_SIZE = 8192  # pixels a side: above this even a few decoded images would fill the memory

Mode = Literal["none", "fixed", "random", "learned", "random_learned", "transfer"]
SINGLE = ("none", "transfer")  # modes of one network, without a second response
LEARNED = ("learned", "random_learned")  # modes whose λ = σ(ρ) is trained
Granularity = Literal["scalar", "per_class", "per_sample"]
Device = Literal["auto", "cpu", "cuda", "mps"]
Mixing = Literal["logits", "probabilities", "features"]
LabelChoice = Literal["published", "distribution", "majority", "polarity", "ekman", "dimensions"]
Pretext = Literal["affect", "shuffled", "neutral", "rotation"]
Takeover = Literal["as_is", "norm_matched", "shrunk"]
Budget = Literal["matched", "as_given"]
TrackerName = Literal["tensorboard", "mlflow", "wandb"]
OptimizerName = Literal["sgd", "adamw", "muon"]
SCALE_FREE: Mapping[str, str] = {"adamw": "AdamW", "muon": "Muon"}  # optimisers that do not feel a loss's scale


def _check(settings: object, names: tuple[str, ...], holds: Callable[[float], bool], rule: str) -> None:
    """SettingError unless the rule holds for the value of each named setting; null always passes."""
    for name in names:
        value = getattr(settings, name)
        if value is not None and not holds(value):
            or_null = ", or null" if getattr(type(settings), name) is None else ""  # optional settings default to null
            raise SettingError(name, f"must {rule}{or_null}, not {value}")


def check_at_least(lowest: int, settings: object, *names: str) -> None:
    """SettingError unless each named setting is null or at least `lowest`."""
    _check(settings, names, lambda value: value >= lowest, f"be at least {lowest}")


def _check_not_negative(settings: object, *names: str) -> None:
    _check(settings, names, lambda value: 0 <= value < inf, "be at least 0 and finite")


def _check_positive(settings: object, *names: str) -> None:
    _check(settings, names, lambda value: 0 < value < inf, "be positive and finite")


def _check_share(settings: object, *names: str) -> None:
    _check(settings, names, lambda value: 0 <= value < 1, "lie in [0, 1)")


def check_regulation(mode: Mode, lam: float, granularity: Granularity, mix: Mixing = "logits") -> None:
    """SettingError for a λ outside [0, 1] and for combinations that have no meaning; see `RegulationSettings`."""
    if not 0 <= lam <= 1:
        raise SettingError("lam", f"λ must lie in [0, 1], not {lam}")
    if mode == "learned" and lam in (0, 1):
        reason = f"must lie strictly between 0 and 1 in mode learned, not {lam}: it is the start of λ = σ(ρ)"
        raise SettingError("lam", reason)
    if granularity != "scalar" and mode not in LEARNED:
        reason = f"must be scalar in mode {mode}, not {granularity}: only learned modes have a λ per class or sample"
        raise SettingError("granularity", reason)
    if granularity == "per_class" and mix == "features":
        reason = "must be scalar or per_sample with mix features, not per_class: features have no classes yet"
        raise SettingError("granularity", reason)


@dataclass(frozen=True)
class StimuliSettings:
    """The affective images of stage 1."""

    name: str = "procedural"
    """procedural (drawn on the fly, labels from psychophysics), a published set (emoset, abstract, emod, ...; see
    emoreg data list), hf:OWNER/NAME (a set of the Hugging Face Hub whose classes are emotions), emotion_folder
    (`<emotion>/*.jpg`) or manifest (a CSV, JSON Lines or Parquet file). For positive controls, the training images of a
    target with their classes, which are no emotion: cifar10, cifar100, digits or folder."""
    root: str | None = None
    """Folder or zip of the set, the manifest file, or a pack made by `emoreg data pack`; procedural needs none. For hf:
    a local folder to read instead of the Hub."""
    classes: tuple[str, ...] | None = None
    """With the classes of a target (name: cifar10, cifar100, digits, folder) as stimuli: keep only these, at least two.
    null for all. Other sets have no classes."""
    labels: LabelChoice = "published"
    """published (the set's own), distribution (of votes), majority (of votes; ties are left out), polarity
    (negative or positive), ekman (one of six) or dimensions (valence, arousal, ...)."""
    count: int = 2000
    """Number of images to draw, at least 10 (procedural only)."""
    image_size: int = 32
    """Side of the square network input in pixels, 8 to 8,192. A ViT needs the same size in stage 2."""
    validation: float = 0.1
    """Share of the images held out to measure the encoder, in [0, 1). Ignored for a set that is published with a
    validation split: that split is used."""
    limit: int | None = None
    """Use at most this many training images, drawn by seed; null for all."""
    weight: float | None = None
    """With several sets: this set's share of each epoch's images, relative to the other weights. null in all sets
    weights each by its number of training images, so that an epoch sees every image once."""
    skip_unreadable: bool = False
    """Skip images that cannot be decoded and report their number, instead of stopping at the first."""

    def __post_init__(self) -> None:
        check_at_least(10, self, "count")
        _check_positive(self, "weight")
        _check_classes(self.classes)
        _check_images(self)


@dataclass(frozen=True)
class TargetSettings:
    """The classification task of stage 2."""

    name: str = "digits"
    """digits (embedded), cifar10, cifar100, folder (any images as `[<split>/]<class>/*.jpg|png`), any of
    torchvision's classification sets (svhn, stl10, flowers102, food101, ...), hf:OWNER/NAME (Hugging Face), or an
    affective set by its emotions (abstract, artphoto, emoset, emotion6, fi)."""
    root: str | None = None
    """Folder or zip of the images, or a pack made by `emoreg data pack`. For cifar10, cifar100 and torchvision's
    sets: the download folder (null for data). For hf: a local folder to read instead of the Hub."""
    classes: tuple[str, ...] | None = None
    """Keep only these classes, at least two, of the training and the test images; labels follow their order. null
    for all."""
    per_class: int | None = None
    """Few-shot: train on this many images of each class, drawn by seed after the validation images are held out. A
    class with fewer is an error. null for all."""
    image_size: int = 32
    """Side of the square network input in pixels, 8 to 8,192."""
    validation: float = 0.1
    """Share of the training images held out for curves and model choices, in [0, 1). Ignored for a set that is
    published with a validation split beside its test split: that split is used. The test split is scored once, at the
    end."""
    test: bool = True
    """Score the test split at the end. false leaves it unseen, for explorations that validation images decide."""
    limit: int | None = None
    """Use at most this many training images, drawn by seed in proportion to the classes; null for all."""
    skip_unreadable: bool = False
    """Skip images that cannot be decoded and report their number, instead of stopping at the first."""

    def __post_init__(self) -> None:
        _check_classes(self.classes)
        check_at_least(1, self, "per_class")
        _check_images(self)
        if not self.test and not self.validation:
            raise SettingError("validation", "must be above 0 where target.test is false: nothing would be measured")


def _check_classes(classes: tuple[str, ...] | None) -> None:
    if classes is None:
        return
    if len(classes) < 2:
        raise SettingError("classes", f"must name at least two, or be null for all, not {len(classes)}")
    for name, times in Counter(classes).items():
        if times > 1:
            raise SettingError("classes", f"must not name '{name}' more than once")


def _check_images(settings: StimuliSettings | TargetSettings) -> None:
    _check(settings, ("image_size",), lambda side: 8 <= side <= MAX_IMAGE_SIZE, f"be 8 to {MAX_IMAGE_SIZE:,} pixels")
    _check_share(settings, "validation")
    check_at_least(1, settings, "limit")


@dataclass(frozen=True)
class BackboneSettings:
    """An architecture without its classification head."""

    name: str = "resnet20"
    """resnet8/14/20/32/44/56/110 (He et al. 2016, for 32x32 images) or any model name of timm."""
    stem: Literal["cifar", "imagenet"] = "cifar"
    """First layers of timm's ResNets: cifar is a 3x3 convolution with stride 1 and no max-pool, for small images."""
    patch_size: int | None = None
    """Side of a ViT's patches in pixels; null for the architecture's own."""
    drop_path: float = 0.0
    """Stochastic depth rate of timm's models, in [0, 1)."""
    pretrained: bool = False
    """Start from timm's published weights (downloaded) where they fit the architecture."""
    zero_gamma: bool | None = None
    """Start the last batch norm of each residual block at γ = 0, which gates the block off at first (Goyal et al.
    2017), or at 1 (false). ResNets only. null for the architecture's own: 0 in timm's ResNets, 1 in the classic ones.
    """
    width: int | None = None
    """Channels of a ResNet's first stage, or embedding width of a ViT; null for the architecture's own."""
    pool: Literal["token", "average"] | None = None
    """A ViT's features: its class token, or the average over its patches after the last norm, which is better for
    images alone (Beyer, Zhai & Kolesnikov 2022). null for the architecture's own."""
    class_token: bool | None = None
    """false builds a ViT without a class token, which pool average does not read. null for the architecture's own."""

    def __post_init__(self) -> None:
        check_at_least(1, self, "patch_size", "width")
        _check_share(self, "drop_path")
        if self.class_token is False and self.pool != "average":
            raise SettingError("class_token", "must be null or true unless pool is average, not false: it is read")


@dataclass(frozen=True)
class EncoderSettings:
    """The emotional encoder of stage 2."""

    experience: str | None = None
    """Run folder of the stage-1 run that trained the encoder. null leaves it untrained: the twin `fresh`."""
    backbone: BackboneSettings | None = None
    """Architecture; null for that of the experience or, without one, the same as the backbone."""
    frozen: bool = False
    """Keep the weights and batch statistics of stage 1. The paper trains end to end (false)."""
    views: int | None = None
    """Frozen only: show the encoder this many fixed views of each training image (0: the image itself), augmented as
    augment says, so that its features are computed once and then looked up. The encoder then no longer sees the
    same crop as the backbone, which changes the method (ours). null computes features at every step."""
    lr_factor: float = 1.0
    """Learning rate of the encoder as a multiple of optimizer.lr, at least 0."""
    takeover: Takeover = "as_is"
    """How stage 2 takes over the weights of stage 1: as_is; norm_matched (filters before a batch norm get the norms of
    a fresh network, which leaves the function unchanged; not for ViTs); or shrunk (towards a fresh draw)."""
    shrink: float = 0.5
    """Share s of stage 1's weights that a shrunk takeover keeps, in [0, 1]: θ ← (1 - s) · fresh + s · stage 1 (Ash &
    Adams 2020, in the convex form of Schwarzer et al. 2023)."""
    moments_only: bool = False
    """Keep of stage 1 only each layer's mean and variance of the weights, in a fresh draw, and its norms' γ and β: the
    twin `moments` (Raghu et al. 2019)."""

    def __post_init__(self) -> None:
        _check_not_negative(self, "lr_factor")
        _check(self, ("shrink",), lambda share: 0 <= share <= 1, "lie in [0, 1]")
        check_at_least(0, self, "views")
        if self.views is not None and not self.frozen:
            reason = f"must be null unless encoder.frozen is true, not {self.views}: learning changes the features"
            raise SettingError("views", reason)


@dataclass(frozen=True)
class RegulationSettings:
    """How the non-emotional and the emotional response are balanced."""

    mode: Mode = "none"
    """none (plain backbone), fixed (E-Reg), random (Rand-E-Reg), learned (Learn-E-Reg), random_learned
    (Rand-Learn-E-Reg), or transfer (the encoder of encoder.experience alone, fine-tuned; a reference)."""
    lam: float = 0.5
    """λ strictly between 0 and 1: the constant of fixed, the start of learned."""
    granularity: Granularity = "scalar"
    """One λ, one per class, or one per sample from a gate on both features (per class and per sample: learned modes
    only)."""
    mix: Mixing = "probabilities"
    """What λ balances: probabilities, logits or features (features not with a λ per class)."""
    lr_factor: float = 1.0
    """Learning rate of λ's parameters as a multiple of optimizer.lr, at least 0."""

    def __post_init__(self) -> None:
        check_regulation(self.mode, self.lam, self.granularity, self.mix)
        _check_not_negative(self, "lr_factor")


class LossWeights(NamedTuple):
    """Weights a, a_n, a_e and m of the terms of the loss, each at least 0; see `LossSettings` and `regulation_loss`."""

    regulated: float  # a
    non_emotional: float  # a_n
    emotional: float  # a_e
    mutual: float = 0.0  # m


@dataclass(frozen=True)
class LossSettings:
    """loss = a · CE(z, y) + a_n · CE(z_n, y) + a_e · CE(z_e, y) + m · D(z_n, z_e)

    Ours; the plainest reading of the paper is a = 1 with the others 0 and regulation.mix logits. Weights are >= 0.
    """

    label_smoothing: float = 0.0
    """Label smoothing of all three cross-entropies, in [0, 1)."""
    regulated: float | None = None
    """Weight a of the regulated response's loss; 0 trains the two responses apart, as an ensemble. null: 0.5, or 1
    without a second response."""
    non_emotional: float | None = None
    """Weight a_n of the non-emotional response's own loss. null: 0.75, or 0 without a second response."""
    emotional: float | None = None
    """Weight a_e of the emotional response's own loss. null: 0.75, or 0 without a second response."""
    mutual: float = 0.0
    """Weight m of the divergence between both responses: deep mutual learning (Zhang et al. 2018)."""
    budget: Budget = "matched"
    """matched: each branch starts with the gradient that the plain backbone gets, whatever the weights and λ; in the
    backward pass only. as_given: as the loss gives it."""

    def __post_init__(self) -> None:
        _check_share(self, "label_smoothing")
        _check_not_negative(self, "regulated", "non_emotional", "emotional", "mutual")

    def weights(self, has_two: bool) -> LossWeights:
        """The weights, with defaults for a network with a second response or without one."""
        defaults = (0.5, 0.75, 0.75) if has_two else (1.0, 0.0, 0.0)
        given = (self.regulated, self.non_emotional, self.emotional)
        a, a_n, a_e = (own if value is None else value for value, own in zip(given, defaults, strict=True))
        return LossWeights(a, a_n, a_e, self.mutual)


@dataclass(frozen=True)
class AugmentSettings:
    """Random changes of training images, batched; each image gets its own draw. They come in this order: crop, flip,
    policy, jitter, erase, cutout, then mixup or CutMix."""

    crop_padding: int = 4
    """Zero padding in pixels before a random crop back to size; 0 for no crop (He et al. 2016 use 4)."""
    flip: bool = True
    """Mirror left to right with probability 1/2. Wrong for digits and text."""
    alternate_flip: bool = False
    """With flip: mirror a random half of the images in the first epoch, the other half in the second, and so on: any
    two epochs in a row show each image both ways (Jordan 2024, "94% on CIFAR-10 in 3.29 seconds")."""
    policy: Literal["none", "trivial", "rand"] = "none"
    """One random change of colour or geometry, of random strength (trivial: TrivialAugment in its wide space, Müller &
    Hutter 2021), or policy_ops of them of strength policy_magnitude (rand: RandAugment, Cubuk et al. 2020)."""
    policy_ops: int = 2
    """Changes of an image, at least 1 (policy rand only)."""
    policy_magnitude: int = 9
    """Strength of the changes, 0 to 30 (policy rand only)."""
    jitter: float = 0.0
    """Brightness, contrast and saturation, in random order, each times a factor from U(1 - jitter, 1 + jitter), in
    [0, 1). 0 for none; 0.4 is usual. Wrong where labels follow colour."""
    erase: float = 0.0
    """Probability, in [0, 1], that a rectangle of 2 to 40 % of the image, three times as wide as high or the other way
    round at most, becomes grey (the mean colour; Zhong et al. 2020, who use 0.5). 0 for none."""
    cutout: float = 0.0
    """Side of a square that becomes grey, as a share of the image's, in [0, 1). Its centre is any pixel, so part of it
    may be outside (DeVries & Taylor 2017: 0.5 for CIFAR-10, 0.25 for CIFAR-100). 0 for none."""
    mixup: float = 0.0
    """α of mixup, at least 0: image and label become λ times its own and 1 - λ times another's of the batch, λ from
    Beta(α, α) (Zhang et al. 2018: 1 for CIFAR, 0.2 for ImageNet). 0 for none."""
    cutmix: float = 0.0
    """α of CutMix, at least 0: a rectangle of 1 - λ of the area comes from another image of the batch, and so much of
    the label, λ from Beta(α, α) (Yun et al. 2019: 1). 0 for none. With mixup too, a coin decides for each image."""
    mix_share: float = 1.0
    """Probability, in (0, 1], that an image is mixed (mixup and cutmix only; Yun et al. 2019 use 0.5 for CIFAR)."""

    def __post_init__(self) -> None:
        check_at_least(0, self, "crop_padding")
        check_at_least(1, self, "policy_ops")
        _check(self, ("policy_magnitude",), lambda bin: 0 <= bin <= 30, "be 0 to 30")
        _check_share(self, "jitter", "cutout")
        _check(self, ("erase",), lambda probability: 0 <= probability <= 1, "lie in [0, 1]")
        _check_not_negative(self, "mixup", "cutmix")
        _check(self, ("mix_share",), lambda probability: 0 < probability <= 1, "lie in (0, 1]")
        if self.alternate_flip and not self.flip:
            raise SettingError("alternate_flip", "must be false where flip is false: no image is mirrored")

    @property
    def mixing(self) -> str | None:
        """The setting by which images are mixed, "mixup" or "cutmix" (mixup if both do); None if none are."""
        return "mixup" if self.mixup else "cutmix" if self.cutmix else None


@dataclass(frozen=True)
class OptimizerSettings:
    """Optimizer and learning-rate schedule, stepped every batch."""

    name: OptimizerName = "sgd"
    """sgd (with Nesterov momentum), adamw, or muon (Jordan et al. 2024): orthogonalised momentum for the matrices and
    filters within a network, and AdamW for its first layer, heads, biases, norms and λ. Muon's steps have the size of
    AdamW's (Liu et al. 2025), so lr and weight_decay are those of adamw. timm's Muon, whose step of a matrix is that of
    torch.optim.Muon, which takes no filters."""
    lr: float = 0.1
    """Peak learning rate, above 0."""
    lr_per_batch: int | None = None
    """Images per step for which lr is meant, at least 1. With another training.batch_size the peak is lr times their
    ratio with sgd (Goyal et al. 2017), and times its square root with adamw and muon (Malladi et al. 2022, and timm's
    choice too); it is printed, and stored in environment.json. null: lr is used as it is, whatever the batch."""
    momentum: float = 0.9
    """Momentum of sgd (0.9 is usual), or of muon (0.95 is), in [0, 1)."""
    weight_decay: float = 5e-4
    """Decay of weights of two or more dimensions, at least 0; biases, norms, tokens and λ never decay."""
    layer_decay: float | None = None
    """Factor of the learning rate from each layer of backbone and encoder to the layer before it, in (0, 1]; heads and
    λ keep the full rate. For fine-tuning: early layers of pretrained weights are general (Clark et al. 2020; Bao et al.
    2021 use 0.65 to 0.75 for ViTs). Layers are timm's. null for none."""
    schedule: Literal["cosine", "one_cycle", "constant"] = "cosine"
    """After the warm-up: cosine to 0, the one-cycle policy (Smith & Topin 2018), or constant. The one-cycle policy is
    PyTorch's `OneCycleLR`: by cosines from 1/25 of the peak up to it, then down to 1/250,000 of it; momentum stays."""
    warmup: float = 0.05
    """Share of all steps over which the learning rate rises, in [0, 1); one_cycle needs more than 0."""
    clip_norm: float | None = None
    """Largest norm of the gradient, above 0, for each branch and λ by itself; null for no clipping."""
    ema: float | None = None
    """Decay per step of a moving average of the weights, in (0, 1). The average is evaluated and saved in place of
    the weights. null for none."""

    def __post_init__(self) -> None:
        _check_positive(self, "lr", "clip_norm")
        check_at_least(1, self, "lr_per_batch")
        _check_share(self, "momentum", "warmup")
        _check_not_negative(self, "weight_decay")
        _check(self, ("layer_decay",), lambda decay: 0 < decay <= 1, "lie in (0, 1]")
        if self.schedule == "one_cycle" and self.warmup == 0:
            raise SettingError("warmup", "must be positive with schedule one_cycle, not 0 (0.3 is usual)")
        _check(self, ("ema",), lambda decay: 0 < decay < 1, "lie in (0, 1)")

    def peak_lr(self, batch_size: int) -> float:
        """The peak learning rate with batches of `batch_size` images; see `lr_per_batch`."""
        if self.lr_per_batch is None:
            return self.lr
        ratio = batch_size / self.lr_per_batch
        return self.lr * (ratio if self.name == "sgd" else ratio**0.5)

    def describe_lr(self, batch_size: int) -> str:
        """The peak learning rate, and how it follows from `lr_per_batch`, in a line."""
        peak = f"learning rate {self.peak_lr(batch_size):.4g}"
        if self.lr_per_batch is None:
            return peak
        ratio = f"{batch_size} / {self.lr_per_batch}"
        return f"{peak} = {self.lr:g} · {ratio if self.name == 'sgd' else f'√({ratio})'} images per step"


@dataclass(frozen=True)
class TrainingSettings:
    """Duration, batch size, device and precision."""

    epochs: int = 100
    """Passes over the training images, at least 1."""
    batch_size: int = 128
    """Images per step, at least 1."""
    device: Device = "auto"
    """auto takes the first accelerator, or else the CPU."""
    precision: Literal["auto", "32-true", "bf16-mixed"] = "auto"
    """auto is bf16-mixed on GPUs that compute in it, else 32-true. On CPUs with AVX512-BF16 or AMX, bf16-mixed is
    faster for convolutional networks."""
    compile: bool = False
    """torch.compile the model together with its loss, on GPUs with CUDA graphs; pays off there over many epochs."""
    initial_scale: float = 1.0
    """Progressive resizing: side of the first images as a share of image_size, 0.25 to 1. The side grows in steps of
    4 pixels over the first 80 % of the steps. Below 1 training is faster and gives other results; networks of a
    fixed input size (ViTs) refuse it."""
    deterministic: bool = False
    """On GPUs: use only deterministic kernels, which are slower. CPUs are always deterministic."""
    memory_limit_gib: float = 4.0
    """Image sets up to this size in GiB, and up to half of the memory that this process may use, are decoded once and
    held. Larger ones are decoded again every epoch by worker processes, or read from their pack (emoreg data pack)."""
    devices: int = 1
    """Devices of this machine that share each batch, one process each, at most batch_size (docs/scale.md). Ignored
    under torchrun and srun, which start the processes themselves, on one machine or on several."""
    trackers: tuple[TrackerName, ...] = ("tensorboard",)
    """Where to log each epoch's metrics besides the run folder's own files: a list of tensorboard (event files in the
    run folder), mlflow and wandb; [] for nowhere."""

    def __post_init__(self) -> None:
        check_at_least(1, self, "epochs", "batch_size")
        _check(self, ("initial_scale",), lambda scale: 0.25 <= scale <= 1, "lie in [0.25, 1]")
        _check_not_negative(self, "memory_limit_gib")
        most = f"be at least 1 and at most training.batch_size ({self.batch_size})"
        _check(self, ("devices",), lambda devices: 1 <= devices <= self.batch_size, most)
