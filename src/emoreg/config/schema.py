"""Every setting, once: typed, with its unit and its reason. Recipes are these classes written as YAML.

What the paper states and what is ours is marked where it matters; see docs/method.md.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from math import inf
from pathlib import Path
from typing import Any, Literal

MAX_IMAGE_SIZE = 8192  # pixels: of few images more are decoded, see `images.decode.MAX_PIXELS`

Mode = Literal["none", "fixed", "random", "learned", "random_learned"]
Granularity = Literal["scalar", "per_class", "per_sample"]
Device = Literal["auto", "cpu", "cuda", "mps"]
Mixing = Literal["logits", "probabilities", "features"]
LabelChoice = Literal["published", "distribution", "majority", "polarity", "ekman", "dimensions"]
Pretext = Literal["affect", "shuffled", "rotation"]
TrackerName = Literal["tensorboard", "mlflow", "wandb"]


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)


def _check_not_negative(key: str, value: float) -> None:
    _require(0 <= value < inf, f"{key} is {value}; it must be a finite number, not negative")


@dataclass(frozen=True)
class StimuliSettings:
    """The affective images of stage 1."""

    name: str = "procedural"
    """procedural (drawn here, labels from psychophysics), a published set (emoset, abstract, emod, ...; see
    emoreg data list), emotion_folder (`<emotion>/*.jpg`) or manifest (a CSV, JSON Lines or Parquet file)."""
    root: str | None = None
    """Folder or zip that holds the set, the manifest, or what `emoreg data pack` made of it; not needed for
    procedural."""
    labels: LabelChoice = "published"
    """published (the set's own), distribution (of votes), majority (of votes; ties are left out), polarity
    (negative or positive), ekman (one of six) or dimensions (valence, arousal, ...)."""
    count: int = 2000
    """How many images to draw (procedural only)."""
    image_size: int = 32
    """Side of the square network input, in pixels; stage 2 must use the same for a ViT."""
    validation: float = 0.1
    """Share of the images held out to measure the encoder, in [0, 1). A set that is published with a
    validation split is measured on that, and this is not used."""
    limit: int | None = None
    """Use at most this many training images, drawn by seed; null for all."""
    weight: float | None = None
    """With several sets: this one's share of each epoch's images, relative to the other sets' weights; null in
    all of them for the number of training images, so that an epoch sees each image once."""
    skip_unreadable: bool = False
    """Leave out images that cannot be decoded, with a count, instead of stopping at the first."""

    def __post_init__(self) -> None:
        _require(self.count >= 10, f"stimuli.count is {self.count}; it must be at least 10")
        _require(
            self.weight is None or 0 < self.weight < inf,
            f"stimuli.weight is {self.weight}; it must be positive and finite, or null",
        )
        _check_images("stimuli", self.image_size, self.validation, self.limit)


@dataclass(frozen=True)
class TargetSettings:
    """The classification task of stage 2."""

    name: str = "digits"
    """digits (embedded), cifar10, cifar100, folder (any images as `[<split>/]<class>/*.jpg|png`), any of
    torchvision's classification sets (svhn, stl10, flowers102, food101, ...), or hf:OWNER/NAME (Hugging Face)."""
    root: str | None = None
    """Folder or zip with the images. Of torchvision's sets, and of cifar10 and cifar100 too, the folder into which
    they are downloaded (default: data); of hf: a folder to read in place of the Hub.
    Of every set also what `emoreg data pack` made of it."""
    classes: tuple[str, ...] | None = None
    """Keep these classes only, of the training and the test images; their order is that of the labels. null
    for all."""
    per_class: int | None = None
    """Few-shot: train on this many images of each class, drawn by seed after the validation images are held
    out; a class with fewer is an error. null for all."""
    image_size: int = 32
    """Side of the square network input, in pixels."""
    validation: float = 0.1
    """Share of the training images held out for the curves and for choices, in [0, 1); the test split is
    scored once, at the end."""
    limit: int | None = None
    """Use at most this many training images, drawn by seed with the classes in proportion; null for all."""
    skip_unreadable: bool = False
    """Leave out images that cannot be decoded, with a count, instead of stopping at the first."""

    def __post_init__(self) -> None:
        classes = self.classes
        _require(
            classes is None or len(classes) >= 2,
            f"target.classes names {len(classes or ())}; a classifier needs two, or null for all",
        )
        twice = [name for name in classes or () if (classes or ()).count(name) > 1]
        _require(not twice, f"target.classes names '{''.join(twice[:1])}' twice")
        _require(
            self.per_class is None or self.per_class >= 1,
            f"target.per_class is {self.per_class}; it must be at least 1, or null",
        )
        _check_images("target", self.image_size, self.validation, self.limit)


def _check_images(where: str, image_size: int, validation: float, limit: int | None) -> None:
    _require(image_size >= 8, f"{where}.image_size is {image_size}; it must be at least 8 pixels")
    _require(
        image_size <= MAX_IMAGE_SIZE,
        f"{where}.image_size is {image_size}; it must be at most {MAX_IMAGE_SIZE} pixels",
    )
    _require(0 <= validation < 1, f"{where}.validation is {validation}; it must lie in [0, 1)")
    _require(limit is None or limit >= 1, f"{where}.limit is {limit}; it must be at least 1, or null")


@dataclass(frozen=True)
class BackboneSettings:
    """An architecture without its classification head."""

    name: str = "resnet20"
    """resnet8/20/32/44/56/110 (He et al. 2016, for 32x32 images) or any name that timm knows."""
    stem: Literal["cifar", "imagenet"] = "cifar"
    """For timm's ResNets: cifar is a 3x3 convolution with stride 1 and no max-pool, for small images."""
    patch_size: int | None = None
    """For ViTs: side of a patch in pixels; null keeps the architecture's own."""
    drop_path: float = 0.0
    """Stochastic depth rate for timm's models, in [0, 1)."""
    pretrained: bool = False
    """Start from timm's published weights (downloaded), where the architecture fits them."""

    def __post_init__(self) -> None:
        patch_size, drop_path = self.patch_size, self.drop_path
        _require(patch_size is None or patch_size >= 1, f"backbone.patch_size is {patch_size}; it must be at least 1")
        _require(0 <= drop_path < 1, f"backbone.drop_path is {drop_path}; it must lie in [0, 1)")


@dataclass(frozen=True)
class EncoderSettings:
    """The emotional encoder of stage 2."""

    experience: str | None = None
    """Run folder of stage 1 whose encoder is taken. null leaves the encoder untrained: the control
    random_encoder."""
    backbone: BackboneSettings | None = None
    """Its architecture; null is that of the experience, or else the same as the backbone."""
    frozen: bool = False
    """Keep its weights and batch statistics as stage 1 left them. The paper trains end to end (false)."""
    views: int | None = None
    """Frozen only: let it see each training image in this many fixed views, drawn as augment says, 0 for the image
    as it is, so that its features are computed once and looked up from then on. It then no longer sees the crop
    that the backbone sees, which changes the method (ours). null for no such thing."""
    lr_factor: float = 1.0
    """Its learning rate as a multiple of optimizer.lr."""

    def __post_init__(self) -> None:
        _check_not_negative("encoder.lr_factor", self.lr_factor)
        views = self.views
        _require(views is None or views >= 0, f"encoder.views is {views}; it must not be negative, or be null")
        _require(
            views is None or self.frozen,
            f"encoder.views is {views} but encoder.frozen is false: features of an encoder that learns cannot be kept",
        )


@dataclass(frozen=True)
class RegulationSettings:
    """How the non-emotional and the emotional response are balanced."""

    mode: Mode = "none"
    """none (plain backbone), fixed (E-Reg), random (Rand-E-Reg), learned (Learn-E-Reg) or random_learned
    (Rand-Learn-E-Reg)."""
    lam: float = 0.5
    """λ in [0, 1]: the constant of fixed, the start of learned."""
    granularity: Granularity = "scalar"
    """One λ, one per class, or one per sample from a gate on both features (learned modes only)."""
    mix: Mixing = "logits"
    """What λ balances."""
    lr_factor: float = 1.0
    """Learning rate of λ's parameters as a multiple of optimizer.lr."""

    def __post_init__(self) -> None:
        _require(0 <= self.lam <= 1, f"regulation.lam is {self.lam}; λ must lie in [0, 1]")
        _check_not_negative("regulation.lr_factor", self.lr_factor)


@dataclass(frozen=True)
class LossSettings:
    """loss = regulated · CE(z, y) + non_emotional · CE(z_n, y) + emotional · CE(z_e, y) + mutual · D(z_n, z_e)

    Ours; by default CE(z, y) alone.
    """

    label_smoothing: float = 0.0
    """In [0, 1)."""
    regulated: float = 1.0
    """Weight of the regulated response's loss; 0 trains the two responses apart, as an ensemble."""
    non_emotional: float = 0.0
    """Weight a_n of the non-emotional response's own loss."""
    emotional: float = 0.0
    """Weight a_e of the emotional response's own loss."""
    mutual: float = 0.0
    """Weight m of both responses' divergence from each other: deep mutual learning (Zhang et al. 2018)."""

    def __post_init__(self) -> None:
        _require(
            0 <= self.label_smoothing < 1,
            f"loss.label_smoothing is {self.label_smoothing}; it must lie in [0, 1)",
        )
        _check_not_negative("loss.regulated", self.regulated)
        _check_not_negative("loss.non_emotional", self.non_emotional)
        _check_not_negative("loss.emotional", self.emotional)
        _check_not_negative("loss.mutual", self.mutual)


@dataclass(frozen=True)
class AugmentSettings:
    """Batched random changes of training images; each image gets its own draw."""

    crop_padding: int = 4
    """Zero padding in pixels before a random crop back to size; 0 for no crop (He et al. 2016 use 4)."""
    flip: bool = True
    """Mirror left to right with probability 1/2. Wrong for digits and text."""

    def __post_init__(self) -> None:
        _require(self.crop_padding >= 0, f"augment.crop_padding is {self.crop_padding}; it must not be negative")


@dataclass(frozen=True)
class OptimizerSettings:
    """Optimiser and learning-rate schedule, stepped every batch."""

    name: Literal["sgd", "adamw"] = "sgd"
    """sgd is with Nesterov momentum."""
    lr: float = 0.1
    """Highest learning rate."""
    momentum: float = 0.9
    """Of sgd."""
    weight_decay: float = 5e-4
    """On weights of two or more dimensions; never on biases, norms, tokens or λ."""
    schedule: Literal["cosine", "one_cycle", "constant"] = "cosine"
    """After the warm-up: cosine to 0, or the one-cycle policy (Smith & Topin 2018)."""
    warmup: float = 0.05
    """Share of all steps over which the learning rate rises, in [0, 1)."""
    clip_norm: float | None = None
    """Largest norm of the gradient; null for no clipping."""
    ema: float | None = None
    """Decay per step of an average of the weights that is evaluated and kept in place of them; null for
    none."""

    def __post_init__(self) -> None:
        _require(0 < self.lr < inf, f"optimizer.lr is {self.lr}; it must be positive and finite")
        _require(0 <= self.momentum < 1, f"optimizer.momentum is {self.momentum}; it must lie in [0, 1)")
        _check_not_negative("optimizer.weight_decay", self.weight_decay)
        _require(0 <= self.warmup < 1, f"optimizer.warmup is {self.warmup}; it must lie in [0, 1)")
        _require(
            self.schedule != "one_cycle" or self.warmup > 0,
            "optimizer.warmup is 0; one_cycle needs a rise (0.3 is usual)",
        )
        _require(
            self.clip_norm is None or 0 < self.clip_norm < inf,
            f"optimizer.clip_norm is {self.clip_norm}; it must be positive and finite, or null",
        )
        _require(
            self.ema is None or 0 < self.ema < 1, f"optimizer.ema is {self.ema}; it must lie in (0, 1), or be null"
        )


@dataclass(frozen=True)
class TrainingSettings:
    """How long, on what, how exactly."""

    epochs: int = 100
    """Passes over the training images."""
    batch_size: int = 128
    """Images per step."""
    device: Device = "auto"
    """auto takes the first accelerator that is there."""
    precision: Literal["auto", "32-true", "bf16-mixed"] = "auto"
    """auto is bf16-mixed on GPUs that compute in it, else 32-true. On CPUs with AVX512-BF16 or AMX,
    bf16-mixed is faster for convolutional networks."""
    compile: bool = False
    """torch.compile the model together with its loss, on GPUs with CUDA graphs. Pays there over many epochs."""
    initial_scale: float = 1.0
    """Progressive resizing: side of the images at the beginning, as a share of image_size; it grows in steps of 4
    pixels over the first 80 % of the steps. Below 1 training is faster and no longer the same; networks whose
    input size is fixed (ViTs) refuse it."""
    deterministic: bool = False
    """On GPUs: only kernels that give the same result again, which are slower. CPUs always give the same."""
    memory_limit_gib: float = 4.0
    """Image sets up to this size are decoded once and held in memory; larger ones are decoded again every
    epoch by worker processes, or read from their pack (emoreg data pack)."""
    devices: int = 1
    """Devices of this machine that share each batch, a process each (docs/scale.md). Not used under torchrun and
    srun, which start the processes themselves, on one machine or on several."""
    trackers: tuple[TrackerName, ...] = ("tensorboard",)
    """Where the metrics of each epoch are shown too: a list of tensorboard (event files in the run folder), mlflow
    and wandb; [] for nowhere."""

    def __post_init__(self) -> None:
        _require(self.epochs >= 1, f"training.epochs is {self.epochs}; it must be at least 1")
        _require(self.batch_size >= 1, f"training.batch_size is {self.batch_size}; it must be at least 1")
        _require(
            0.25 <= self.initial_scale <= 1,
            f"training.initial_scale is {self.initial_scale}; it must lie between 0.25 and 1 (1 for none)",
        )
        _check_not_negative("training.memory_limit_gib", self.memory_limit_gib)
        _require(
            1 <= self.devices <= self.batch_size,
            f"training.devices is {self.devices}; it must be at least 1, and at most training.batch_size "
            f"({self.batch_size})",
        )


@dataclass(frozen=True)
class PretrainRecipe:
    """Stage 1: an emotional encoder learns from affective stimuli."""

    stimuli: StimuliSettings = field(default_factory=StimuliSettings)
    also: tuple[StimuliSettings, ...] = ()
    """Further sets, learned at the same time, each with a head of its own: a list of settings as in stimuli.
    May be a set that is there already, under other labels."""
    pretext: Pretext = "affect"
    """What the encoder learns from the images: affect (their labels; stated), or what a control learns (ours):
    shuffled (the same labels, permuted among the training images) or rotation (by which quarter turn an image
    was rotated, a task without emotion; Gidaris et al. 2018)."""
    backbone: BackboneSettings = field(default_factory=BackboneSettings)
    # No crop: its black border would change brightness, which the default stimuli's labels follow. AdamW and few
    # epochs: ratings are a regression, which a learning rate for classifiers blows up; stimuli are few.
    augment: AugmentSettings = field(default_factory=lambda: AugmentSettings(crop_padding=0))
    optimizer: OptimizerSettings = field(
        default_factory=lambda: OptimizerSettings(name="adamw", lr=2e-3, weight_decay=0.05, warmup=0.1)
    )
    training: TrainingSettings = field(default_factory=lambda: TrainingSettings(epochs=40, batch_size=64))
    seed: int = 0
    """Of the weights, the splits, the order of the images and their augmentation."""

    def __post_init__(self) -> None:
        _check_seed(self.seed)
        _check_union(self.sets)

    @property
    def sets(self) -> tuple[StimuliSettings, ...]:
        """All stimulus sets, the first one first."""
        return (self.stimuli, *self.also)


def _told(value: float | None) -> str:
    return "null" if value is None else f"{value:g}"


def _check_union(sets: tuple[StimuliSettings, ...]) -> None:
    first = sets[0]
    for number, other in enumerate(sets[1:]):
        where = f"also[{number}]"
        _require(
            other.image_size == first.image_size,
            f"{where}.image_size is {other.image_size} but stimuli.image_size is {first.image_size}; "
            "one encoder sees all sets at one size",
        )
        _require(
            (other.weight is None) == (first.weight is None),
            f"{where}.weight is {_told(other.weight)} but stimuli.weight is {_told(first.weight)}; "
            "give every set a weight, or none",
        )
        for place, earlier in zip(("stimuli", *(f"also[{n}]" for n in range(number))), sets, strict=False):
            if (earlier.name, Path(earlier.root or "")) != (other.name, Path(other.root or "")):
                continue
            # The same images under other labels must be cut alike: what one head is measured on, none may train on.
            for name in ("count", "validation", "skip_unreadable"):
                old, new = getattr(earlier, name), getattr(other, name)
                _require(
                    old == new,
                    f"{where}.{name} is {new} but {place}.{name} is {old}; both are the set {other.name}, and its "
                    "held-out images must be the same",
                )
            _require(
                earlier.labels != other.labels,
                f"{where}.labels is {other.labels}, as in {place}; the same set a second time needs other labels",
            )


@dataclass(frozen=True)
class TrainRecipe:
    """Stage 2: a classifier whose two responses are balanced by λ."""

    target: TargetSettings = field(default_factory=TargetSettings)
    backbone: BackboneSettings = field(default_factory=BackboneSettings)
    encoder: EncoderSettings = field(default_factory=EncoderSettings)
    regulation: RegulationSettings = field(default_factory=RegulationSettings)
    loss: LossSettings = field(default_factory=LossSettings)
    # No flip: the default target is digits, and a mirrored digit is none.
    augment: AugmentSettings = field(default_factory=lambda: AugmentSettings(flip=False))
    optimizer: OptimizerSettings = field(default_factory=OptimizerSettings)
    training: TrainingSettings = field(default_factory=TrainingSettings)
    seed: int = 0
    """Of the weights, λ's draw, the splits, the order of the images and their augmentation."""

    def __post_init__(self) -> None:
        _check_seed(self.seed)
        regulation, loss = self.regulation, self.loss
        if regulation.mode == "none":
            _require(loss.regulated > 0, "loss.regulated is 0; with regulation.mode none there is no other loss")
            _require(
                self.encoder.experience is None,
                "encoder.experience is set but regulation.mode is none: choose a mode, or leave it null",
            )
            _require(
                loss.emotional == 0 and loss.non_emotional == 0,
                "loss.emotional and loss.non_emotional need a regulation.mode other than none",
            )
        _require(
            loss.regulated > 0 or loss.non_emotional > 0 or loss.emotional > 0,
            "loss.regulated is 0; loss.non_emotional and loss.emotional are 0 too, so nothing would be trained",
        )
        _require(
            regulation.granularity == "scalar" or regulation.mode in ("learned", "random_learned"),
            f"regulation.granularity {regulation.granularity} needs regulation.mode learned or random_learned, "
            f"not {regulation.mode}",
        )
        _require(
            not (regulation.mix == "features" and regulation.granularity == "per_class"),
            "regulation.mix features has one λ for all classes: choose granularity scalar or per_sample",
        )
        _require(
            regulation.mode != "learned" or 0 < regulation.lam < 1,
            f"regulation.lam is {regulation.lam}; a learned λ = σ(ρ) must start strictly between 0 and 1",
        )


def _check_seed(seed: int) -> None:
    _require(seed >= 0, f"seed is {seed}; it must not be negative")


Recipe = PretrainRecipe | TrainRecipe

# Of training: how many share the work and who watches. With other values of these it is the same run.
CIRCUMSTANCES = ("devices", "trackers")


def identity(recipe: Recipe) -> dict[str, Any]:
    """The settings of a recipe, nested, but for the circumstances."""
    content = asdict(recipe)
    content["training"] = {key: value for key, value in content["training"].items() if key not in CIRCUMSTANCES}
    return content
