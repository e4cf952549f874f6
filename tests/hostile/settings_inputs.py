"""Malformed recipes, study files and options."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from hostile.malformed import Content, Malformed

LAUGHS = "\n".join(
    ["a0: &a0 [lol, lol, lol]", *(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 10))]
)
DEEP = 100_000

# What is wrong, the recipe, and the key or the line that must be named.
RECIPES: tuple[tuple[str, Content, str], ...] = (
    ("a key that is not known", "trainin: {epochs: 3}", "trainin"),
    ("a key of another section", "training: {name: x}", "training.name"),
    ("a key of the other stage", "stimuli: {count: 50}", "stimuli"),
    ("a key of a later version", "training: {epochs: 3, quantum: true}", "training.quantum"),
    ("a dotted key", "training.epochs: 3", "training.epochs"),
    ("a number as key", "1: 2", "recipe.yaml:1"),
    ("a list as key", "? [a, b]\n: 2", "recipe.yaml:1"),
    ("a mapping as key", "? {a: b}\n: 2", "recipe.yaml:1"),
    ("null as key", "~: 2", "recipe.yaml:1"),
    ("an empty key", '"": 2', "recipe.yaml:1"),
    ("a key with line ends", '"a\\nb\\r\\nc": 2', "recipe.yaml:1"),
    ("a key that paints the terminal", '"\\e[2J\\e[31mx": 2', "recipe.yaml:1"),
    ("a very long key", f"{'k' * 5000}: 2", "recipe.yaml"),
    ("a key with half a surrogate", '"\\ud800": 2', "recipe.yaml"),
    ("a key twice", "seed: 1\nseed: 2", "seed"),
    ("a key twice in a section", "training: {epochs: 1, epochs: 2}", "training.epochs"),
    ("a section twice", "training: {epochs: 1}\ntraining: {epochs: 2}", "training"),
    ("a merge key", "<<: {seed: 1}", "recipe.yaml:1"),
    ("text for a number", "training: {epochs: three}", "training.epochs"),
    ("a fraction for a whole number", "training: {epochs: 1.5}", "training.epochs"),
    ("a truth for a number", "optimizer: {lr: true}", "optimizer.lr"),
    ("a number for a truth", "augment: {flip: 1}", "augment.flip"),
    ("a list for a number", "optimizer: {lr: [0.1]}", "optimizer.lr"),
    ("a mapping for a number", "seed: {a: {b: c}}", "seed"),
    ("a date for a path", "target: {root: 2024-02-03}", "target.root"),
    ("bytes for a path", "target: {root: !!binary aGVsbG8=}", "recipe.yaml:1"),
    ("a set for a list", "target: {classes: !!set {a, b}}", "recipe.yaml:1"),
    ("pairs for a list", "target: {classes: !!pairs [a: 1]}", "recipe.yaml:1"),
    ("a list of numbers for names", "target: {classes: [1, 2]}", "target.classes"),
    ("null for a number", "seed: ~", "seed"),
    ("null for a section", "training:", "training"),
    ("a list for a section", "training: [epochs, 3]", "training"),
    ("a long list for a number", f"seed: [{', '.join(['123456789'] * 5000)}]", "seed"),
    ("a long text for a number", f"seed: {'x' * 20_000}", "seed"),
    ("a text of many lines for a number", "seed: |\n  a\n  b\n  c", "seed"),
    ("a list at the top", "- seed: 1", "recipe.yaml:1"),
    ("a word at the top", "resnet20", "recipe.yaml:1"),
    ("a number at the top", "7", "recipe.yaml:1"),
    ("no epoch", "training: {epochs: 0}", "training.epochs"),
    ("a negative seed", "seed: -1", "seed"),
    ("λ above 1", "regulation: {mode: fixed, lam: 1.5}", "regulation.lam"),
    ("λ that is no number", "regulation: {mode: fixed, lam: .nan}", "regulation.lam"),
    ("an infinite learning rate", "optimizer: {lr: .inf}", "optimizer.lr"),
    ("a mode that is not known", "regulation: {mode: learnd}", "regulation.mode"),
    ("a list for a mode", "regulation: {mode: [learned]}", "regulation.mode"),
    ("one class", "target: {classes: [a]}", "target.classes"),
    ("a class twice", "target: {classes: [a, a]}", "target.classes"),
    ("an experience without a mode", "encoder: {experience: runs/x}", "encoder.experience"),
    ("nothing to train", "regulation: {mode: fixed}\nloss: {regulated: 0}", "loss.regulated"),
    ("a bracket left open", "seed: [1", "recipe.yaml:1"),
    ("a brace left open", "training: {epochs: 1", "recipe.yaml:1"),
    ("a quote left open", 'target: {root: "a', "recipe.yaml:1"),
    ("a tab", "training:\n\tepochs: 3", "recipe.yaml:2"),
    ("crooked lines", "training:\n  epochs: 3\n batch_size: 4", "recipe.yaml:3"),
    ("two documents", "seed: 1\n---\nseed: 2", "recipe.yaml:2"),
    ("a null byte", "seed: \0", "recipe.yaml"),
    ("control characters", "seed: \x01\x02\x1b[31m", "recipe.yaml"),
    ("a date that is none", "target: {root: 2024-02-31}", "recipe.yaml"),
    ("a time that is none", "target: {root: 2024-01-01 25:61:61}", "recipe.yaml"),
    ("a whole number of 5,000 digits", f"seed: {'9' * 5000}", "recipe.yaml"),
    ("a tag of Python", "seed: !!python/object/apply:os.system [touch hacked]", "recipe.yaml:1"),
    ("a tag of Python for a name", "target: {root: !!python/name:os.system }", "recipe.yaml:1"),
    ("a tag that is not known", "seed: !mine 3", "recipe.yaml:1"),
    ("a whole number that is none", "seed: !!int three", "recipe.yaml"),
    ("a whole number that is empty", "seed: !!int ''", "recipe.yaml"),
    ("a fraction that is none", "optimizer: {lr: !!float fast}", "recipe.yaml"),
    ("a truth that is none", "augment: {flip: !!bool perhaps}", "recipe.yaml"),
    ("a timestamp that is none", "seed: !!timestamp soon", "recipe.yaml"),
    ("base 64 that is none", "seed: !!binary '***'", "recipe.yaml"),
    ("an alias of nothing", "target: {root: *nobody}", "recipe.yaml:1"),
    ("an alias of itself", "training: &a {epochs: *a}", "recipe.yaml:1"),
    ("an alias that is well-meant", "seed: &s 3\ntraining: {epochs: *s}", "recipe.yaml:1"),
    ("a billion laughs as values", f"seed: {LAUGHS.splitlines()[0][4:]}\n{LAUGHS}", "recipe.yaml"),
    ("a billion laughs", LAUGHS, "recipe.yaml:1"),
    ("brackets in brackets", "seed: " + "[" * DEEP, "recipe.yaml"),
    ("braces in braces", "{a: " * DEEP, "recipe.yaml"),
    ("dashes in dashes", "- " * DEEP, "recipe.yaml"),
    ("larger than any recipe", "# padding\n" * 200_000, "recipe.yaml"),
    ("UTF-16 cut short", "seed: 1".encode("utf-16")[:-1], "recipe.yaml"),
    ("Latin-1", "target: {root: Caf\xe9}".encode("latin-1"), "recipe.yaml"),
    ("an image", b"\x89PNG\r\n\x1a\n" + bytes(range(256)), "recipe.yaml"),
    ("a pickle", b"\x80\x04\x95\x10\x00\x00\x00\x00\x00\x00\x00\x8c\x02os\x94.", "recipe.yaml"),
    ("a folder", Path.mkdir, "recipe.yaml"),
    ("a dead link", lambda path: path.symlink_to("nowhere"), "recipe.yaml"),
    ("a link to itself", lambda path: path.symlink_to(path.name), "recipe.yaml"),
    ("an endless file", lambda path: path.symlink_to("/dev/zero"), "recipe.yaml"),
    ("a pipe that nobody writes to", os.mkfifo, "recipe.yaml"),
)
STAGE_1: tuple[tuple[str, Content, str], ...] = (
    ("a set that is laid over with nothing", "also: [null]", "also[0]"),
    ("a number among the sets", "also: [{name: oasis}, 3]", "also[1]"),
    ("one set for a list of them", "also: {name: oasis}", "also"),
    ("a key within a list of sets", "also: [{nam: oasis}]", "also[0].nam"),
    ("sets of different sizes", "also: [{name: oasis, image_size: 64}]", "also[0].image_size"),
    ("a weight of one set alone", "also: [{name: oasis, weight: 2}]", "also[0].weight"),
    ("the same set twice", "also: [{name: procedural}]", "also[0].labels"),
    ("too few images", "stimuli: {count: 3}", "stimuli.count"),
    ("a pretext that is not known", "pretext: horror", "pretext"),
)
STUDIES: tuple[tuple[str, Content, str], ...] = (
    ("a key that is not known", "arm: [backbone]", "arm"),
    ("an arm that is not known", "arms: [backbone, learnd]", "learnd"),
    ("an arm twice", "arms: [backbone, backbone]", "backbone"),
    ("no arm", "arms: []", "arms"),
    ("one arm for a list of them", "arms: backbone", "arms"),
    ("arms that are lists", "arms: [[backbone]]", "arms"),
    ("arms that are null", "arms: [null]", "arms"),
    ("arms that are numbers", "arms: [1, 2]", "arms"),
    ("no seed", "seeds: 0", "seeds"),
    ("more seeds than anyone has time for", "seeds: 1000000000", "seeds"),
    ("a list of seeds", "seeds: [0, 1, 2]", "seeds"),
    ("a mode that no control has", "control_mode: none", "control_mode"),
    ("a section that is null", "classifier:", "classifier"),
    ("a section that is a list", "experience: [1]", "experience"),
    ("experiences that are no list", "experiences: {stimuli: {name: oasis}}", "experiences"),
    ("experiences that are words", "experiences: [oasis]", "experiences[0]"),
    ("targets that are null", "targets: [null]", "targets[0]"),
    ("the same target twice", "targets: [{target: {name: digits}}, {target: {name: digits}}]", "targets[1]"),
    ("a key within a target", "targets: [{target: {nam: digits}}]", "targets[0].target.nam"),
    ("a target's name that is a list", "targets: [{target: {name: [digits]}}]", "target.name"),
    ("a backbone's name that is a mapping", "backbones: [{backbone: {name: {a: b}}}]", "backbone.name"),
    ("a backbone's name that is null", "backbones: [{backbone: {name: null}}]", "backbone.name"),
    ("a size that is text", "targets: [{target: {image_size: big}}]", "image_size"),
    ("stimuli that are null", "experience: {stimuli: null}", "experience.stimuli"),
    ("further sets that are no list", "experience: {also: 3}", "also"),
    ("what the study decides: the seed", "classifier: {seed: 3}", "classifier.seed"),
    ("what the study decides: the mode", "classifier: {regulation: {mode: fixed}}", "classifier.regulation.mode"),
    ("what the study decides: the pretext", "experiences: [{pretext: rotation}]", "experiences[0].pretext"),
    ("what the study decides: the encoder", "experience: {backbone: {name: resnet8}}", "experience.backbone"),
    ("a λ that no arm can learn", "classifier: {regulation: {lam: 1}}", "regulation.lam"),
    ("a setting of the other stage", "classifier: {stimuli: {name: oasis}}", "classifier.stimuli"),
    ("an alias", "classifier: &c {seed: 1}\ntargets: [*c]", "study.yaml:1"),
    ("a billion laughs", LAUGHS, "study.yaml:1"),
    ("brackets in brackets", "arms: " + "[" * DEEP, "study.yaml"),
    ("a tag of Python", "arms: !!python/object/new:os.system [touch hacked]", "study.yaml:1"),
    ("a null byte", "arms: [\0]", "study.yaml"),
    ("nothing but a bracket", "[", "study.yaml"),
)
# What is wrong, the arguments, and what must be named.
OPTIONS: tuple[tuple[str, tuple[str, ...], str], ...] = (
    ("no command", ("trian",), "trian"),
    ("no recipe", ("train",), "RECIPE"),
    ("a recipe that is not there", ("train", "nowhere.yaml"), "nowhere.yaml"),
    ("a recipe whose name is too long", ("train", "x" * 5000), "File name too long"),
    ("a recipe whose name has a null byte", ("train", "a\0b"), "a\\x00b"),
    ("a recipe whose name has line ends", ("train", "a\nb"), "a"),
    ("a setting that is not known", ("train", "good.yaml", "--training.epoch", "3"), "training.epoch"),
    ("a number that is none", ("train", "good.yaml", "--training.epochs", "three"), "training.epochs"),
    ("a number of 5,000 digits", ("train", "good.yaml", "--seed", "9" * 5000), "seed"),
    ("a learning rate that is none", ("train", "good.yaml", "--optimizer.lr", "nan"), "optimizer.lr"),
    ("brackets in brackets", ("train", "good.yaml", "--target.classes", "[" * 5000), "target.classes"),
    ("a tag of Python", ("train", "good.yaml", "--seed", "!!python/object/apply:os.getpid []"), "seed"),
    ("an alias of itself", ("train", "good.yaml", "--target.classes", "&a [*a]"), "target.classes"),
    ("sets that are none", ("pretrain", "good.yaml", "--also", "[{nam: x}]"), "also"),
    ("a section from a file that is not there", ("train", "good.yaml", "--target", "nowhere.yaml"), "target"),
    ("two recipes", ("train", "good.yaml", "good.yaml"), "good.yaml"),
    ("an option without its value", ("train", "good.yaml", "--out"), "out"),
    ("no run", ("evaluate", "nowhere"), "nowhere"),
    ("a device that is not known", ("evaluate", "nowhere", "--device", "tpu"), "--device"),
    ("no study", ("study", "nowhere.yaml"), "nowhere.yaml"),
    ("no job", ("study", "good.yaml", "--jobs", "0"), "--jobs"),
    ("more seeds than anyone has time for", ("study", "good.yaml", "--seeds", "1000000000"), "seeds"),
    ("no results", ("results", "nowhere.parquet"), "nowhere.parquet"),
    ("no set", ("data", "verify", "nothing", "--root", "."), "nothing"),
    ("no root", ("data", "show", "oasis", "--root", "nowhere"), "nowhere"),
    ("no effect", ("power", "good.yaml", "--effect", "nan"), "--effect"),
)


def settings_inputs() -> Iterator[Malformed]:
    """Recipes of both stages, studies, options."""
    for name, content, place in RECIPES:
        yield Malformed("recipe", name, {"recipe.yaml": content}, ("train", "recipe.yaml", "--print-config"), place)
    for name, content, place in STAGE_1:
        yield Malformed(
            "recipe", f"stage 1: {name}", {"recipe.yaml": content}, ("pretrain", "recipe.yaml", "--print-config"), place
        )
    for name, content, place in STUDIES:
        yield Malformed("study", name, {"study.yaml": content}, ("study", "study.yaml", "--dry-run"), place)
    for name, arguments, place in OPTIONS:
        yield Malformed("options", name, {"good.yaml": ""}, arguments, place)
