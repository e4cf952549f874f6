"""Suites and their options: the entries of `suites` in a study's file, and the arguments of `emoreg suites`."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from emoreg.config.read_recipe import build
from emoreg.config.rules import check_at_least, check_not_negative
from emoreg.config.schema import TargetSettings
from emoreg.config.setting_types import expand_paths, settle, shown
from emoreg.config.strict_yaml import parse_yaml
from emoreg.errors import SettingError, nearest

MAX_EPS = 64.0  # of 255, a quarter of the range: beyond it the image itself changes
MAX_SETS = 20
SMOKE_IMAGES = 8
WHOLE = ("calibration", "human_uncertainty")  # suites without a limit on images


@dataclass(frozen=True)
class CorruptionOptions:
    """Accuracy on images with noise, blur, weather and digital damage: 15 corruptions at 5 severities."""

    images: int | None = 500
    """Score at most this many images, drawn by seed in proportion to the classes, each of them 75 times; null for
    all."""
    seed: int = 0
    """Seed of the images that are drawn, and of the noise in each. All runs see the same damaged images."""

    def __post_init__(self) -> None:
        _settle_drawn(self)


@dataclass(frozen=True)
class CalibrationOptions:
    """ECE, Brier score and NLL, before and after temperature scaling."""

    seed: int = 0
    """Seed of the half of the images on which the temperature is fitted, for a run without validation images."""

    def __post_init__(self) -> None:
        settle(self)
        check_not_negative(self, "seed")


@dataclass(frozen=True)
class OtherSet:
    """A set of images of other things than those that a classifier was trained on."""

    name: str = "folder"
    """As target.name: cifar100, svhn, dtd (textures), folder, hf:OWNER/NAME, ..."""
    root: str | None = None
    """As target.root."""
    classes: tuple[str, ...] | None = None
    """Only these classes, at least two; null for all."""

    def __post_init__(self) -> None:
        settle(self)
        expand_paths(self, "root")
        _ = self.target(32, "crop")  # checks the values

    @property
    def label(self) -> str:
        """Name in columns and reports: of the set, or of its folder."""
        return Path(self.root).stem if self.root and self.name == "folder" else self.name

    def target(self, image_size: int, fit: Any) -> TargetSettings:
        """Return the settings to read the images with, as those of a target."""
        return TargetSettings(name=self.name, root=self.root, classes=self.classes, image_size=image_size, fit=fit)


@dataclass(frozen=True)
class OutOfDistributionOptions:
    """How well confidence separates the run's images from images of other things: AUROC and FPR95."""

    sets: tuple[OtherSet, ...] = ()
    """The other sets: names, or mappings of name, root and classes. Their test images are used, at the target's
    size."""
    images: int | None = 2000
    """Score at most this many images of each set, drawn by seed in proportion to the classes; null for all."""
    seed: int = 0
    """Seed of the draw of images."""

    def __post_init__(self) -> None:
        _settle_drawn(self)
        _check_sets(self.sets)


@dataclass(frozen=True)
class TransferOptions:
    """How useful the trained trunks are for other targets: accuracy of linear classifiers on their features."""

    sets: tuple[OtherSet, ...] = ()
    """The other targets: names, or mappings of name, root and classes. A linear classifier is fitted on features of
    their training images and scored on their test images, at the target's size."""
    images: int | None = 5000
    """Use at most this many training images and as many test images of each set, drawn by seed in proportion to the
    classes; null for all."""
    seed: int = 0
    """Seed of the draw of images."""

    def __post_init__(self) -> None:
        _settle_drawn(self)
        _check_sets(self.sets)


@dataclass(frozen=True)
class HumanUncertaintyOptions:
    """How well the uncertainty of a classifier of CIFAR-10 matches people's (CIFAR-10H)."""

    file: str | None = None
    """cifar10h-probs.npy or cifar10h-counts.npy, as https://github.com/jcpeterson/cifar-10h publishes them."""

    def __post_init__(self) -> None:
        settle(self)
        expand_paths(self, "file")


def _settle_drawn(options: CorruptionOptions | OutOfDistributionOptions | TransferOptions | AdversarialOptions) -> None:
    settle(options)
    check_at_least(1, options, "images")
    check_not_negative(options, "seed")


def _check_sets(sets: Sequence[OtherSet]) -> None:
    from emoreg.data.targets import require_known  # imports the readers of all sets

    labels = [each.label for each in sets]
    for index, each in enumerate(sets):
        try:
            require_known(each.name)
        except SettingError as error:
            raise SettingError(f"sets[{index}].name", error.reason) from None
    for index, label in enumerate(labels):
        if label in labels[:index]:
            raise SettingError(f"sets[{index}]", f"has the same name as another set, '{label}'; name each set once")
    if len(labels) > MAX_SETS:
        raise SettingError("sets", f"must have at most {MAX_SETS} entries, not {len(labels)}")


@dataclass(frozen=True)
class AdversarialOptions:
    """Accuracy under attack by FGSM and PGD, within eps of each pixel's value."""

    eps: tuple[float, ...] = (2.0, 8.0)
    """Largest change of a pixel's value, in units of 1/255, each above 0 and at most 64. Every value is a separate
    attack."""
    steps: int = 20
    """Steps of PGD, each of 2.5 · eps / steps; it starts at random within eps."""
    images: int | None = 200
    """Attack at most this many images, drawn by seed in proportion to the classes; null for all."""
    seed: int = 0
    """Seed of the images that are drawn, and of the start of PGD on each."""

    def __post_init__(self) -> None:
        _settle_drawn(self)
        check_at_least(1, self, "steps")
        if not self.eps or not all(0 < eps <= MAX_EPS for eps in self.eps) or len(set(self.eps)) < len(self.eps):
            reason = f"must be different numbers above 0 and at most {MAX_EPS:g}, not {list(self.eps)}"
            raise SettingError("eps", reason)


WithSets = OutOfDistributionOptions | TransferOptions  # suites that need other sets
Options = CorruptionOptions | CalibrationOptions | AdversarialOptions | WithSets | HumanUncertaintyOptions


@dataclass(frozen=True)
class Suite:
    """One suite with its options. Exactly one of the keys is set (`check_suites`)."""

    corruptions: CorruptionOptions | None = None
    """The 15 corruptions of CIFAR-C at 5 severities, by the constants of ImageNet-C: mean accuracy."""
    calibration: CalibrationOptions | None = None
    """ECE, Brier score and NLL, before and after temperature scaling."""
    out_of_distribution: OutOfDistributionOptions | None = None
    """AUROC and FPR95 against other sets."""
    adversarial: AdversarialOptions | None = None
    """Accuracy under FGSM and PGD."""
    transfer: TransferOptions | None = None
    """Accuracy of linear classifiers on the features of other targets."""
    human_uncertainty: HumanUncertaintyOptions | None = None
    """Cross-entropy to people's labels of CIFAR-10's test images."""

    def __post_init__(self) -> None:
        settle(self)

    @property
    def given(self) -> dict[str, Options]:
        """The keys that are set, with their options."""
        return {name: options for name in SUITES if (options := getattr(self, name)) is not None}

    @property
    def name(self) -> str:
        """The key that is set."""
        return next(iter(self.given))

    @property
    def options(self) -> Options:
        """The options of the key that is set."""
        return self.given[self.name]

    @property
    def public_options(self) -> dict[str, Any]:
        """The options as plain values, without paths."""
        values = dataclasses.asdict(self.options)
        if isinstance(self.options, WithSets):
            values["sets"] = [{"set": each.label, "classes": each.classes} for each in self.options.sets]
        if isinstance(self.options, HumanUncertaintyOptions):
            values["file"] = self.options.file and Path(self.options.file).name
        return json.loads(json.dumps(values))

    @property
    def id(self) -> str:
        """A hash of the options, eight hexadecimal digits: other options give another result."""
        return hashlib.sha256(json.dumps([self.name, self.public_options], sort_keys=True).encode()).hexdigest()[:8]


SUITES: tuple[str, ...] = tuple(item.name for item in dataclasses.fields(Suite))


def written_out(entries: Any) -> Any:
    """Expand entries of `suites`, and their sets, to mappings: a name alone stands for its defaults.

    Anything but a list is returned unchanged, to be refused when it is read.
    """
    return [_written_out(entry) for entry in entries] if isinstance(entries, list | tuple) else entries


def _written_out(entry: Any) -> Any:
    if isinstance(entry, str):
        return {entry: {}}
    if not isinstance(entry, Mapping):
        return entry
    entry = {name: {} if options is None else options for name, options in entry.items()}
    for name in ("out_of_distribution", "transfer"):
        options = entry.get(name)
        if isinstance(options, Mapping) and isinstance(options.get("sets"), list | tuple):
            sets = [{"name": each} if isinstance(each, str) else each for each in options["sets"]]
            entry[name] = {**options, "sets": sets}
    return entry


def shrunk(entries: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Limit the images of valid entries from `written_out`, for a smoke run."""
    return [
        {name: options if name in WHOLE else {**options, "images": SMOKE_IMAGES}}
        for entry in entries
        for name, options in entry.items()
    ]


def check_suites(suites: Sequence[Suite]) -> None:
    """Raise SettingError for an entry that is not exactly one suite, a suite twice, or one without its sets or file."""
    names: list[str] = []
    for index, suite in enumerate(suites):
        given = list(suite.given)
        if len(given) != 1:
            what = f"not {' and '.join(given)} together" if given else "not none"
            raise SettingError(f"suites[{index}]", f"must name one suite of {', '.join(SUITES)}, {what}")
        if given[0] in names:
            reason = f"'{given[0]}' appears twice; a study has one set of options for each suite"
            raise SettingError(f"suites[{index}]", reason)
        names += given
        if isinstance(suite.options, WithSets) and not suite.options.sets:
            reason = "must name at least one other set, as in [cifar100, svhn]"
            raise SettingError(f"suites[{index}].{given[0]}.sets", reason)
        if isinstance(suite.options, HumanUncertaintyOptions) and suite.options.file is None:
            raise SettingError(f"suites[{index}].{given[0]}.file", "must name cifar10h-probs.npy of CIFAR-10H")


@dataclass(frozen=True)
class _Entries:
    suites: tuple[Suite, ...] = ()


def read_suites(entries: Iterable[Suite | str | Mapping[str, Any]]) -> tuple[Suite, ...]:
    """Read suites from names, mappings of one name to its options, or `Suite` objects.

    Raises:
        SettingError: an unknown suite or option (the error names the closest match), a wrong value, a suite twice.
    """
    if isinstance(entries, str | Mapping | Suite):
        raise SettingError("suites", f"must be a list, not {shown(entries)}")
    entries = list(entries)
    for index, entry in enumerate(entries):
        if not isinstance(entry, str | Mapping | Suite):
            raise SettingError(f"suites[{index}]", f"must be a name or a mapping of one name, not {shown(entry)}")
        if isinstance(entry, str) and entry not in SUITES:
            raise SettingError(f"suites[{index}]", f"no suite is called '{entry}'{nearest(entry, SUITES)}")
    plain = [{} if isinstance(entry, Suite) else entry for entry in entries]
    read: _Entries = build(_Entries(), {"suites": written_out(plain)})
    suites = [entry if isinstance(entry, Suite) else suite for entry, suite in zip(entries, read.suites, strict=True)]
    check_suites(suites)
    return tuple(suites)


def parse_suites(words: Sequence[str]) -> tuple[Suite, ...]:
    """Read suites from the command line: names, or YAML such as "adversarial: {images: 100}"; see `read_suites`."""
    return read_suites([parse_yaml(word)[0] for word in words])
