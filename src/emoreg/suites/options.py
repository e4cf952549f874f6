"""Which suites are to be scored, with their options: an entry of `suites` in a study's file, or of `emoreg suites`."""

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

LARGEST_EPS = 64.0  # of 255, a quarter of the range: beyond it an image is no longer the one that was attacked
MOST_SETS = 20
SMOKE_IMAGES = 8
WHOLE = ("calibration", "human_uncertainty")  # suites that have no limit of images


@dataclass(frozen=True)
class CorruptionOptions:
    """Accuracy on images with noise, blur, weather and digital damage: 15 corruptions at 5 severities."""

    images: int | None = 500
    """Score at most this many images, drawn by seed in proportion to the classes, each of them 75 times; null for
    all."""
    seed: int = 0
    """Of the draws: which images, and the noise of each. All runs see the same damaged images."""

    def __post_init__(self) -> None:
        settle(self)
        _check_draw(self)


@dataclass(frozen=True)
class CalibrationOptions:
    """ECE, Brier score and NLL, before and after temperature scaling."""

    seed: int = 0
    """Of the half of the images on which the temperature is fitted, for a run without validation images."""

    def __post_init__(self) -> None:
        settle(self)
        check_not_negative(self, "seed")


@dataclass(frozen=True)
class OtherSet:
    """Images of other things than those that a classifier was trained on."""

    name: str = "folder"
    """As target.name: cifar100, svhn, dtd (textures), folder, hf:OWNER/NAME, ..."""
    root: str | None = None
    """As target.root."""
    classes: tuple[str, ...] | None = None
    """Only these classes, at least two; null for all."""

    def __post_init__(self) -> None:
        settle(self)
        expand_paths(self, "root")
        _ = self.target(32, "crop")  # its own rules

    @property
    def label(self) -> str:
        """In columns and reports: the set's name, or the folder's."""
        return Path(self.root).stem if self.root and self.name == "folder" else self.name

    def target(self, image_size: int, fit: Any) -> TargetSettings:
        """The settings by which its images are read, as those of a classifier."""
        return TargetSettings(name=self.name, root=self.root, classes=self.classes, image_size=image_size, fit=fit)


@dataclass(frozen=True)
class OutOfDistributionOptions:
    """Whether confidence tells the run's images from images of other things: AUROC and FPR95."""

    sets: tuple[OtherSet, ...] = ()
    """The other sets: names, or mappings of name, root and classes. Their test images are used, at the target's
    size."""
    images: int | None = 2000
    """Score at most this many images of each set, drawn by seed in proportion to the classes; null for all."""
    seed: int = 0
    """Of the draw of images."""

    def __post_init__(self) -> None:
        settle(self)
        _check_draw(self)
        _check_sets(self.sets)


@dataclass(frozen=True)
class TransferOptions:
    """What the trained trunks are worth for other targets: accuracy of linear classifiers on their features."""

    sets: tuple[OtherSet, ...] = ()
    """The other targets: names, or mappings of name, root and classes. A linear classifier is fitted on features of
    their training images and scored on their test images, at the target's size."""
    images: int | None = 5000
    """Use at most this many training images and as many test images of each set, drawn by seed in proportion to the
    classes; null for all."""
    seed: int = 0
    """Of the draw of images."""

    def __post_init__(self) -> None:
        settle(self)
        _check_draw(self)
        _check_sets(self.sets)


@dataclass(frozen=True)
class HumanUncertaintyOptions:
    """Whether a classifier of CIFAR-10 is unsure where people are (CIFAR-10H)."""

    file: str | None = None
    """cifar10h-probs.npy or cifar10h-counts.npy, as https://github.com/jcpeterson/cifar-10h publishes them."""

    def __post_init__(self) -> None:
        settle(self)
        expand_paths(self, "file")


def _check_draw(options: CorruptionOptions | OutOfDistributionOptions | TransferOptions) -> None:
    check_at_least(1, options, "images")
    check_not_negative(options, "seed")


def _check_sets(sets: Sequence[OtherSet]) -> None:
    from emoreg.data.targets import require_known  # reads sets, and imports what that takes

    labels = [each.label for each in sets]
    for index, each in enumerate(sets):
        try:
            require_known(each.name)
        except SettingError as error:
            raise SettingError(f"sets[{index}].name", error.reason) from None
    for index, label in enumerate(labels):
        if label in labels[:index]:
            raise SettingError(f"sets[{index}]", f"is called '{label}' as another one is; name each set once")
    if len(labels) > MOST_SETS:
        raise SettingError("sets", f"must have at most {MOST_SETS} entries, not {len(labels)}")


@dataclass(frozen=True)
class AdversarialOptions:
    """Accuracy under attack by FGSM and PGD, within eps of each pixel's value."""

    eps: tuple[float, ...] = (2.0, 8.0)
    """Largest change of a pixel's value, in units of 1/255, each above 0 and at most 64; several are attacked one
    after the other."""
    steps: int = 20
    """Steps of PGD, each of 2.5 · eps / steps; it starts at random within eps."""
    images: int | None = 200
    """Attack at most this many images, drawn by seed in proportion to the classes; null for all."""
    seed: int = 0
    """Of the draws: which images, and where PGD starts on each."""

    def __post_init__(self) -> None:
        settle(self)
        check_at_least(1, self, "images", "steps")
        check_not_negative(self, "seed")
        if not self.eps or not all(0 < eps <= LARGEST_EPS for eps in self.eps) or len(set(self.eps)) < len(self.eps):
            raise SettingError(
                "eps", f"must be different numbers above 0 and at most {LARGEST_EPS:g}, not {list(self.eps)}"
            )


WithSets = OutOfDistributionOptions | TransferOptions  # suites that need other sets
Options = CorruptionOptions | CalibrationOptions | AdversarialOptions | WithSets | HumanUncertaintyOptions


@dataclass(frozen=True)
class Suite:
    """One suite with its options. Exactly one of the keys is given (`check_suites`)."""

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
    """Cross-entropy to the shares of people's answers to CIFAR-10's test images."""

    def __post_init__(self) -> None:
        settle(self)

    @property
    def given(self) -> dict[str, Options]:
        """The keys that are given."""
        return {name: options for name in SUITES if (options := getattr(self, name)) is not None}

    @property
    def name(self) -> str:
        """Its only key."""
        return next(iter(self.given))

    @property
    def options(self) -> Options:
        """The options of its only key."""
        return self.given[self.name]

    @property
    def told(self) -> dict[str, Any]:
        """The options as plain values, without the paths of images."""
        values = dataclasses.asdict(self.options)
        if isinstance(self.options, WithSets):
            values["sets"] = [{"set": each.label, "classes": each.classes} for each in self.options.sets]
        if isinstance(self.options, HumanUncertaintyOptions):
            values["file"] = self.options.file and Path(self.options.file).name
        return json.loads(json.dumps(values))

    @property
    def id(self) -> str:
        """Eight hexadecimal digits that stand for the options: other options are another result."""
        return hashlib.sha256(json.dumps([self.name, self.told], sort_keys=True).encode()).hexdigest()[:8]


SUITES: tuple[str, ...] = tuple(item.name for item in dataclasses.fields(Suite))


def written_out(entries: Any) -> Any:
    """Entries of `suites` as they may be written, as mappings: a name alone stands for its defaults, also among sets.

    What is no list is returned as it is: whoever reads it says what is wrong.
    """
    if not isinstance(entries, list | tuple):
        return entries
    return [_written_out(entry) for entry in entries]


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
    """Entries from `written_out` that are right, over so few images that they only show that all of it runs."""
    return [
        {name: options if name in WHOLE else {**options, "images": SMOKE_IMAGES}}
        for entry in entries
        for name, options in entry.items()
    ]


def check_suites(suites: Sequence[Suite]) -> None:
    """SettingError for an entry that is no suite or several, for a suite twice, and for one without what it needs."""
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
    """Suites from what stands for them: names, mappings of one name to its options, or `Suite`.

    Raises:
        SettingError: an unknown suite or option (the nearest is named), a wrong value, a suite twice.
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
    found = [entry if isinstance(entry, Suite) else suite for entry, suite in zip(entries, read.suites, strict=True)]
    check_suites(found)
    return tuple(found)


def parse_suites(words: Sequence[str]) -> tuple[Suite, ...]:
    """As `read_suites`, from words of a command line: names, or YAML such as "adversarial: {images: 100}"."""
    return read_suites([parse_yaml(word)[0] for word in words])
