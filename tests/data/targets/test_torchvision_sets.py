"""Tests of small versions of torchvision's sets, in their unpacked layout; checksums that torchvision checks are
replaced by those of the small files."""

from __future__ import annotations

import bz2
import hashlib
import inspect
import json
import pickle
import re
import struct
import urllib.error
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import scipy.io
import torch
from PIL import Image
from torchvision import datasets

from emoreg.config.schema import TargetSettings
from emoreg.data.images.decode import decode
from emoreg.data.images.files import File
from emoreg.data.images.table import Item
from emoreg.data.targets import Target, read_for_scoring, read_target
from emoreg.data.targets.torchvision_sets import SETS
from emoreg.errors import UserError

Build = Callable[[Path, pytest.MonkeyPatch], None]


def read(name: str, root: Path, **settings: object) -> Target:
    return read_target(TargetSettings(name=name, root=str(root), **settings))  # type: ignore[arg-type]


def md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes()).hexdigest()


def colour(label: int) -> tuple[int, int, int]:
    """The colour that identifies an image's class."""
    return 20 * label, 255 - 20 * label, 128


def picture(path: Path, label: int, size: int = 8) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (size, size), colour(label)).save(path, quality=95)
    return path


def squares(labels: list[int], size: int) -> np.ndarray:
    """Images uint8 (N, size, size, 3) with a white lower part, which reveals swapped axes."""
    images = np.array([np.full((size, size, 3), colour(label)) for label in labels], np.uint8)
    images[:, 3 * size // 4 :] = 255
    return images


def text(path: Path, content: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    return path


def idx(path: Path, array: np.ndarray, kind: int = 8) -> None:
    """The format of MNIST: kind, number of dimensions, sizes, values, all big-endian."""
    path.parent.mkdir(parents=True, exist_ok=True)
    values = array.astype(np.uint8 if kind == 8 else ">i4").tobytes()
    path.write_bytes(struct.pack(f">BBBB{array.ndim}I", 0, 0, kind, array.ndim, *array.shape) + values)


def svhn(root: Path, patch: pytest.MonkeyPatch) -> None:
    root.mkdir(exist_ok=True)
    lists = {}
    for split, digits in (("train", [1, 2, 10, 9]), ("test", [10, 1, 2, 9])):  # 10 is the digit 0
        images = squares([digit % 10 for digit in digits], 32).transpose(1, 2, 3, 0)
        scipy.io.savemat(root / f"{split}_32x32.mat", {"X": images, "y": np.array(digits)[:, None]})
        lists[split] = ["", f"{split}_32x32.mat", md5(root / f"{split}_32x32.mat")]
    patch.setattr(datasets.SVHN, "split_list", lists)


def stl10(root: Path, patch: pytest.MonkeyPatch) -> None:
    folder = root / "stl10_binary"
    text(folder / "class_names.txt", "airplane\nbird\ncar\n")
    for split, labels in (("train", [0, 2, 1]), ("test", [2, 0])):
        squares(labels, 96).transpose(0, 3, 2, 1).tofile(folder / f"{split}_X.bin")
        (np.array(labels, np.uint8) + 1).tofile(folder / f"{split}_y.bin")
    for split in ("train", "test"):
        files = [folder / f"{split}_X.bin", folder / f"{split}_y.bin"]
        patch.setattr(datasets.STL10, f"{split}_list", [[file.name, md5(file)] for file in files])


def fashion_mnist(root: Path, _patch: pytest.MonkeyPatch, folder: str = "FashionMNIST/raw") -> None:
    for split, labels in (("train", [9, 0, 1]), ("t10k", [1, 9])):
        grey = np.array([np.full((28, 28), 20 * label) for label in labels])
        idx(root / folder / f"{split}-images-idx3-ubyte", grey)
        idx(root / folder / f"{split}-labels-idx1-ubyte", np.array(labels))


def emnist(root: Path, _patch: pytest.MonkeyPatch) -> None:
    for split, labels in (("train", [0, 46]), ("test", [46])):
        idx(root / f"EMNIST/raw/emnist-balanced-{split}-images-idx3-ubyte", np.zeros((len(labels), 28, 28)))
        idx(root / f"EMNIST/raw/emnist-balanced-{split}-labels-idx1-ubyte", np.array(labels))


def qmnist(root: Path, _patch: pytest.MonkeyPatch) -> None:
    for split, labels in (("train", [[7, 4, 1], [3, 4, 1]]), ("test", [[3, 4, 1]])):  # digit, source, writer
        idx(root / f"QMNIST/raw/qmnist-{split}-images-idx3-ubyte", np.zeros((len(labels), 28, 28)))
        idx(root / f"QMNIST/raw/qmnist-{split}-labels-idx2-int", np.array(labels), kind=12)


def flowers102(root: Path, patch: pytest.MonkeyPatch) -> None:
    folder = root / "flowers-102"
    labels = [1, 2, 1, 2, 102, 102]
    for number, label in enumerate(labels, start=1):
        picture(folder / "jpg" / f"image_{number:05}.jpg", (label - 1) % 12)
    scipy.io.savemat(folder / "imagelabels.mat", {"labels": labels})
    scipy.io.savemat(folder / "setid.mat", {"trnid": [1, 5], "valid": [2, 6], "tstid": [3, 4]})
    names = {"image": "102flowers.tgz", "label": "imagelabels.mat", "setid": "setid.mat"}
    checked = {key: (name, md5(folder / name) if key != "image" else "") for key, name in names.items()}
    patch.setattr(datasets.Flowers102, "_file_dict", checked)


def dtd(root: Path, _patch: pytest.MonkeyPatch) -> None:
    folder = root / "dtd" / "dtd"
    for split, names in (("train", "ab"), ("val", "c"), ("test", "de")):
        lines = [f"{name}/{name}_{letter}.jpg" for name in ("banded", "dotted") for letter in names]
        text(folder / "labels" / f"{split}1.txt", "\n".join(lines))
        for line in lines:
            picture(folder / "images" / line, int(line.startswith("dotted")))


def food101(root: Path, _patch: pytest.MonkeyPatch) -> None:
    folder = root / "food-101"
    for split, numbers in (("train", [1, 2, 3]), ("test", [4])):
        lists = {name: [f"{name}/{number}" for number in numbers] for name in ("waffles", "apple_pie")}
        text(folder / "meta" / f"{split}.json", json.dumps(lists))
        for name, paths in lists.items():
            for path in paths:
                picture(folder / "images" / f"{path}.jpg", int(name == "waffles"))


def eurosat(root: Path, _patch: pytest.MonkeyPatch) -> None:
    for label, name in enumerate(("Forest", "River")):
        for number in range(10):
            picture(root / "eurosat" / "2750" / name / f"{name}_{number}.jpg", label)


def sun397(root: Path, _patch: pytest.MonkeyPatch) -> None:
    text(root / "SUN397" / "ClassName.txt", "/a/abbey\n/b/bar/indoor\n")
    for label, name in enumerate(("a/abbey", "b/bar/indoor")):
        for number in (3, 1, 4, 0, 2):
            picture(root / "SUN397" / name / f"sun_{number}.jpg", label)


def oxford_pets(root: Path, _patch: pytest.MonkeyPatch) -> None:
    folder = root / "oxford-iiit-pet"
    for split, numbers in (("trainval", [1, 2]), ("test", [3])):
        lines = [f"{name}_{n} {label} 1 1" for label, name in ((1, "Abyssinian"), (2, "pug")) for n in numbers]
        text(folder / "annotations" / f"{split}.txt", "\n".join(lines))
        for line in lines:
            picture(folder / "images" / f"{line.split()[0]}.jpg", int(line.split()[1]) - 1)


def gtsrb(root: Path, _patch: pytest.MonkeyPatch) -> None:
    folder = root / "gtsrb" / "GTSRB"
    for label in (0, 1):
        for number in range(2):
            picture(folder / "Training" / f"{label:05}" / f"{number}.ppm", label)
    picture(folder / "Final_Test" / "Images" / "0.ppm", 1)
    text(root / "gtsrb" / "GT-final_test.csv", "Filename;ClassId\n0.ppm;1\n")


def clevr(root: Path, _patch: pytest.MonkeyPatch) -> None:
    folder = root / "clevr" / "CLEVR_v1.0"
    for split, counts in (("train", [3, 10, 5]), ("val", [5, 3])):
        scenes = [{"image_filename": f"{split}_{n}.png", "objects": [0] * count} for n, count in enumerate(counts)]
        text(folder / "scenes" / f"CLEVR_{split}_scenes.json", json.dumps({"scenes": scenes}))
        for scene, label in zip(scenes, counts, strict=True):
            picture(folder / "images" / split / str(scene["image_filename"]), label)


def imagenette(root: Path, _patch: pytest.MonkeyPatch) -> None:
    for split in ("train", "val"):
        for label, name in enumerate(("n01440764", "n03888257")):
            picture(root / "imagenette2" / split / name / "0.jpeg", label)


def imagenet(root: Path, _patch: pytest.MonkeyPatch) -> None:
    names = {"n0": ("crane",), "n1": ("tench", "Tinca tinca"), "n2": ("crane",)}
    for split in ("train", "val"):
        for label, name in enumerate(names):
            picture(root / split / name / "0.jpg", label)
    torch.save((names, []), root / "meta.bin")


def inaturalist(root: Path, _patch: pytest.MonkeyPatch) -> None:
    for version, numbers in (("2021_train", "ba"), ("2021_valid", "c")):
        for label, name in enumerate(("00000_A_B_C_D_E_F_lutra", "00001_A_B_C_D_E_G_meles")):
            for number in numbers:
                picture(root / version / name / f"{number}.jpg", label)


def places365(root: Path, patch: pytest.MonkeyPatch) -> None:
    lists = {"train-standard": ["/a/x.jpg 0", "/b/y.jpg 1"], "val": ["z.jpg 1"]}
    categories = text(root / "categories_places365.txt", "/a/airfield 0\n/b/bar 1\n")
    patch.setattr(datasets.Places365, "_CATEGORIES_META", (categories.name, md5(categories)))
    for split, lines in lists.items():
        file = text(root / f"{split}.txt", "\n".join(lines))
        patch.setitem(datasets.Places365._FILE_LIST_META, split, (file.name, md5(file)))
        folder = root / ("val_256" if split == "val" else "data_256_standard")  # the small images
        for line in lines:
            picture(folder / line.split()[0].lstrip("/"), int(line[-1]))


def caltech256(root: Path, _patch: pytest.MonkeyPatch) -> None:
    for label, name in enumerate(("001.ak47", "002.flag")):
        for number in range(1, 6):
            file = f"{label + 1:03}_{number:04}.jpg"
            picture(root / "caltech256" / "256_ObjectCategories" / name / file, label)


def usps(root: Path, _patch: pytest.MonkeyPatch) -> None:
    for name, labels in (("usps.bz2", [1, 10]), ("usps.t.bz2", [10])):
        pixels = " ".join(f"{number}:-1" for number in range(1, 257))
        lines = "".join(f"{label} {pixels}\n" for label in labels)
        (root / name).write_bytes(bz2.compress(lines.encode()))


def lfw_people(root: Path, patch: pytest.MonkeyPatch) -> None:
    folder = root / "lfw-py"
    text(folder / "lfw-funneled.tgz", "unpacked already")
    text(folder / "lfw-names.txt", "Ada_L\t5\nAlan_T\t1\nKurt_G\t5\n")
    text(folder / "people.txt", "2\n2\nAda_L\t5\nAlan_T\t1\n1\nKurt_G\t5\n")  # folds, then people of each
    for label, (name, count) in enumerate((("Ada_L", 5), ("Alan_T", 1), ("Kurt_G", 5))):
        for number in range(1, count + 1):
            picture(folder / "lfw_funneled" / name / f"{name}_{number:04}.jpg", label)
    checksums = {name: md5(folder / name) for name in ("lfw-names.txt", "people.txt")}
    patch.setattr(datasets.LFWPeople, "checksums", checksums)
    patch.setattr(
        datasets.LFWPeople,
        "file_dict",
        {"funneled": ("lfw_funneled", "lfw-funneled.tgz", md5(folder / "lfw-funneled.tgz"))},
    )


def country211(root: Path, _patch: pytest.MonkeyPatch) -> None:
    for split in ("train", "valid", "test"):
        for label, name in enumerate(("AD", "FI")):
            picture(root / "country211" / split / name / f"{split}.jpg", label)


def rendered_sst2(root: Path, _patch: pytest.MonkeyPatch) -> None:
    for split in ("train", "valid", "test"):
        for label, name in enumerate(("negative", "positive")):
            picture(root / "rendered-sst2" / split / name / "0.png", label)


def fgvc_aircraft(root: Path, _patch: pytest.MonkeyPatch) -> None:
    folder = root / "fgvc-aircraft-2013b" / "data"
    text(folder / "variants.txt", "707-320\nCessna 172\n")
    for split, lines in (("trainval", ["12 Cessna 172", "7 707-320"]), ("test", ["3 Cessna 172"])):
        text(folder / f"images_variant_{split}.txt", "\n".join(lines))
        for line in lines:
            picture(folder / "images" / f"{line.split()[0]}.jpg", int("Cessna" in line))


def stanford_cars(root: Path, _patch: pytest.MonkeyPatch) -> None:
    folder = root / "stanford_cars"
    (folder / "devkit").mkdir(parents=True)
    scipy.io.savemat(folder / "devkit/cars_meta.mat", {"class_names": np.array(["Acura", "BMW", "Smart"], object)})
    files = {"train": "devkit/cars_train_annos.mat", "test": "cars_test_annos_withlabels.mat"}
    for split, labels in (("train", [3, 1]), ("test", [2, 3])):
        cars = [(picture(folder / f"cars_{split}/{n}.jpg", label - 1).name, label) for n, label in enumerate(labels)]
        annotations = np.array(cars, [("fname", object), ("class", object)])
        scipy.io.savemat(folder / files[split], {"annotations": annotations})


def semeion(root: Path, patch: pytest.MonkeyPatch) -> None:
    rows = [" ".join(map(str, [*([1] * 256), *(int(digit == label) for digit in range(10))])) for label in [7] * 5]
    patch.setattr(datasets.SEMEION, "md5_checksum", md5(text(root / "semeion.data", "\n".join(rows))))


def caltech101(root: Path, _patch: pytest.MonkeyPatch) -> None:
    for label, name in enumerate(("BACKGROUND_Google", "ant", "wrench")):
        for number in range(1, 6):
            picture(root / "caltech101/101_ObjectCategories" / name / f"image_{number:04}.jpg", label)


FACES = ((3, "Training"), (6, "Training"), (0, "PublicTest"))


def fer2013(root: Path, patch: pytest.MonkeyPatch, rows: Sequence[tuple[int, str]] = FACES) -> None:
    lines = [f"{label},{usage},{' '.join(['9'] * 48 * 48)}" for label, usage in rows]
    file = text(root / "fer2013" / "icml_face_data.csv", "\n".join(["emotion, Usage, pixels", *lines]))
    patch.setitem(datasets.FER2013._RESOURCES, "icml", (file.name, md5(file)))


def pcam(root: Path, _patch: pytest.MonkeyPatch) -> None:
    h5py = pytest.importorskip("h5py")
    (root / "pcam").mkdir(parents=True)
    for split, labels in (("train", [0, 1]), ("valid", [1]), ("test", [1, 0])):
        for kind, values in (("x", squares(labels, 96)), ("y", np.array(labels).reshape(-1, 1, 1, 1))):
            with h5py.File(root / "pcam" / f"camelyonpatch_level_2_split_{split}_{kind}.h5", "w") as file:
                file[kind] = values


FORMS: list[tuple[str, Build, list[int], list[int], dict[int, str]]] = [
    ("svhn", svhn, [1, 2, 0, 3], [0, 1, 2, 3], {0: "0", 3: "9"}),
    ("stl10", stl10, [0, 2, 1], [2, 0], {0: "airplane", 2: "car"}),
    ("fashionmnist", fashion_mnist, [9, 0, 1], [1, 9], {9: "Ankle boot"}),
    ("emnist", emnist, [0, 46], [46], {0: "0", 46: "t"}),
    ("qmnist", qmnist, [7, 3], [3], {7: "7 - seven"}),
    ("flowers102", flowers102, [0, 101, 1, 101], [0, 1], {0: "pink primrose", 101: "blackberry lily"}),
    ("dtd", dtd, [0, 0, 1, 1, 0, 1], [0, 0, 1, 1], {0: "banded", 1: "dotted"}),
    ("food101", food101, [1, 1, 1, 0, 0, 0], [1, 0], {0: "apple_pie", 1: "waffles"}),
    ("eurosat", eurosat, [0] * 8 + [1] * 8, [0, 0, 1, 1], {0: "Forest", 1: "River"}),
    ("sun397", sun397, [0] * 4 + [1] * 4, [0, 1], {0: "abbey", 1: "bar/indoor"}),
    ("oxfordiiitpet", oxford_pets, [0, 0, 1, 1], [0, 1], {0: "Abyssinian", 1: "Pug"}),
    ("gtsrb", gtsrb, [0, 0, 1, 1], [1], {0: "0", 1: "1"}),
    ("clevrclassification", clevr, [0, 2, 1], [1, 0], {0: "3", 2: "10"}),
    ("imagenette", imagenette, [0, 1], [0, 1], {0: "tench", 1: "parachute"}),
    ("imagenet", imagenet, [0, 1, 2], [0, 1, 2], {0: "crane (0)", 1: "tench", 2: "crane (2)"}),
    ("inaturalist", inaturalist, [0, 0, 1, 1], [0, 1], {1: "00001_A_B_C_D_E_G_meles"}),
    ("places365", places365, [0, 1], [1], {0: "/a/airfield", 1: "/b/bar"}),
    ("caltech256", caltech256, [0] * 4 + [1] * 4, [0, 1], {0: "001.ak47", 1: "002.flag"}),
    ("usps", usps, [0, 1], [1], {0: "0", 1: "9"}),
    ("lfwpeople", lfw_people, [0] * 4 + [1] + [2] * 4, [0, 2], {0: "Ada_L", 2: "Kurt_G"}),
    ("country211", country211, [0, 1, 0, 1], [0, 1], {0: "AD", 1: "FI"}),
    ("renderedsst2", rendered_sst2, [0, 1, 0, 1], [0, 1], {0: "negative", 1: "positive"}),
    ("fgvcaircraft", fgvc_aircraft, [1, 0], [1], {0: "707-320", 1: "Cessna 172"}),
    ("stanfordcars", stanford_cars, [2, 0], [1, 2], {0: "Acura", 2: "Smart"}),
    ("semeion", semeion, [0] * 4, [0], {0: "7"}),
    ("caltech101", caltech101, [0] * 4 + [1] * 4, [0, 1], {0: "ant", 1: "wrench"}),
    ("fer2013", fer2013, [3, 6], [0], {0: "angry", 6: "neutral"}),
    ("pcam", pcam, [0, 1, 1], [1, 0], {0: "0", 1: "1"}),
]


WITH_VALIDATION = ("dtd", "flowers102", "country211", "renderedsst2", "pcam")


@pytest.mark.parametrize(("name", "build", "train", "test", "classes"), FORMS, ids=[form[0] for form in FORMS])
def test_labels_classes_and_splits_match_the_files(
    name: str,
    build: Build,
    train: list[int],
    test: list[int],
    classes: dict[int, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    build(tmp_path, monkeypatch)
    target = read(name, tmp_path)
    held_out = [] if target.validation is None else target.validation.labels.tolist()
    assert [*target.train.labels.tolist(), *held_out] == train and target.test.labels.tolist() == test
    assert bool(held_out) == (name in WITH_VALIDATION)
    first_edition = read_target(TargetSettings(name, str(tmp_path)), edition=1)
    assert first_edition.train.labels.tolist() == train and first_edition.validation is None
    assert {label: target.classes[label] for label in classes} == classes
    for table in (target.train, target.test):
        assert all(decode(image, 8).shape == (8, 8, 3) for image in table.images)


@pytest.mark.parametrize(
    ("name", "build", "label_of"),
    [
        ("svhn", svhn, lambda label: (0, 1, 2, 9)[label]),  # pixels, channels first
        ("stl10", stl10, int),
        ("flowers102", flowers102, lambda label: label % 12),  # files
        ("sun397", sun397, int),  # files that had to be sorted
        ("oxfordiiitpet", oxford_pets, int),  # items
    ],
)
def test_every_image_keeps_its_label(
    name: str, build: Build, label_of: Callable[[int], int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build(tmp_path, monkeypatch)
    target = read(name, tmp_path)
    for table in (target.train, target.test):
        for image, label in zip(table.images, table.labels, strict=True):
            above = decode(image, 8)[:5].astype(int)
            assert np.abs(above - colour(label_of(label))).max() < 12


def test_sets_that_torchvision_lists_unsorted_are_sorted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for alphabet, character in (("Greek", "beta"), ("Greek", "alpha"), ("Arabic", "ba")):
        for number in range(5):
            picture(tmp_path / "omniglot-py/images_background" / alphabet / character / f"{number}.png", number)
    monkeypatch.setattr(datasets.Omniglot, "_check_integrity", lambda _self: True)
    sun397(tmp_path, monkeypatch)
    found = {name: read(name, tmp_path) for name in ("omniglot", "sun397")}
    assert found["omniglot"].classes == ("Arabic/ba", "Greek/alpha", "Greek/beta")
    for target in found.values():
        names = [str(image) for image in target.train.images]
        assert names == sorted(names)
    for image, label in zip(found["omniglot"].train.images, found["omniglot"].train.labels, strict=True):
        assert found["omniglot"].classes[label] in str(image)


def test_images_are_named_by_file_or_by_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    food101(tmp_path, monkeypatch)
    oxford_pets(tmp_path, monkeypatch)
    file, item = (read(name, tmp_path).train.images[0] for name in ("food101", "oxfordiiitpet"))
    assert isinstance(file, File) and str(file) == f"{tmp_path}/food-101/images/waffles/1.jpg"
    assert isinstance(item, Item) and str(item) == "oxfordiiitpet/trainval[0]"
    (tmp_path / "food-101/images/waffles/1.jpg").write_bytes(b"not an image")
    with pytest.raises(UserError, match=r"waffles/1\.jpg: not an image"):
        decode(file, 8)


@pytest.mark.parametrize(("name", "build"), [("oxfordiiitpet", oxford_pets), ("gtsrb", gtsrb), ("pcam", pcam)])
def test_items_can_be_sent_to_worker_processes_and_read_by_threads(
    name: str, build: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build(tmp_path, monkeypatch)
    images = list(read(name, tmp_path).train.images)
    expected = [decode(image, 8).tobytes() for image in images]
    assert [decode(image, 8).tobytes() for image in pickle.loads(pickle.dumps(images))] == expected
    with ThreadPoolExecutor(8) as pool:
        assert [pixels.tobytes() for pixels in pool.map(lambda image: decode(image, 8), images * 20)] == expected * 20


def test_the_case_of_a_name_does_not_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fashion_mnist(tmp_path, monkeypatch)
    assert read("FashionMNIST", tmp_path).classes == read("fashionmnist", tmp_path).classes


def offline(*_arguments: object, **_options: object) -> None:
    raise urllib.error.URLError("no route to host")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("svhn", "no route to host"),
        ("mnist", "no route to host"),  # torchvision's own message has several lines
        ("usps", "no route to host"),
        ("eurosat", "no route to host"),
        ("stanfordcars", "cannot be downloaded anymore"),  # by hand only
        ("lfwpeople", "download the dataset manually|no route to host"),  # torchvision changed its mind
        ("fer2013", "kaggle"),
        ("imagenet", "download it externally"),
    ],
)
def test_without_a_network_one_line_says_what_to_do(
    name: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("urllib.request.urlopen", offline)
    with pytest.raises(UserError) as caught:
        read(name, tmp_path)
    said = str(caught.value)
    assert said.startswith(f"{name} can neither be read from {tmp_path} nor downloaded there") and "\n" not in said
    assert re.search(message, said) and "the name folder and its root" in said and "torchvision.datasets." in said


def test_damaged_files_and_inconsistent_splits_are_refused_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    food101(tmp_path, monkeypatch)
    text(tmp_path / "food-101/meta/test.json", "{")
    with pytest.raises(UserError, match=r"^food101 can neither be read from .*Food101"):
        read("food101", tmp_path)
    dtd(tmp_path, monkeypatch)
    text(tmp_path / "dtd/dtd/labels/val1.txt", "dotted/dotted_c.jpg")
    with pytest.raises(UserError, match=r"dtd in .* its splits have different classes"):
        read("dtd", tmp_path)
    stl10(tmp_path, monkeypatch)
    text(tmp_path / "stl10_binary/class_names.txt", "airplane\nbird\n")
    with pytest.raises(UserError, match=r"stl10 in .* labels beyond its 2 classes"):
        read("stl10", tmp_path)
    fer2013(tmp_path, monkeypatch, [(3, "Training")])
    with pytest.raises(UserError, match=r"fer2013 in .* a split has no images"):
        read("fer2013", tmp_path)
    (tmp_path / "file.zip").touch()
    with pytest.raises(UserError, match=r"target\.root: .*file\.zip is a file.*target\.name folder"):
        read("svhn", tmp_path / "file.zip")


def test_test_images_without_labels_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for split, header, label in (("train", "emotion,pixels", "3,"), ("test", "pixels", "")):
        file = text(tmp_path / "fer2013" / f"{split}.csv", f"{header}\n{label}{' '.join(['9'] * 48 * 48)}\n")
        monkeypatch.setitem(datasets.FER2013._RESOURCES, split, (file.name, md5(file)))
    with pytest.raises(UserError, match=r"fer2013: there are images without a label in .*datasets\.FER2013"):
        read("fer2013", tmp_path)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("flower102", r"'flower102' \(did you mean 'flowers102'\?\)"),
        ("VOCDetection", r"no target for classification is called 'VOCDetection'"),
        ("CocoCaptions", r"no target for classification is called 'CocoCaptions'"),
        ("ImageFolder", r"did you mean 'folder'\?"),
        ("xyzzy", r"\(known: those of torchvision, and hf:OWNER/NAME\)"),
    ],
)
def test_unknown_and_other_than_classification_sets_are_refused(name: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        read(name, tmp_path)


def arguments_of(set_class: type) -> set[str]:
    """Arguments of the constructor, including those that it passes to its base class as **kwargs."""
    found: set[str] = set()
    for ancestor in set_class.__mro__:
        if "__init__" in vars(ancestor):
            arguments = inspect.signature(vars(ancestor)["__init__"]).parameters
            found |= set(arguments)
            if all(argument.kind != argument.VAR_KEYWORD for argument in arguments.values()):
                break
    return found


def test_the_table_has_all_of_torchvisions_classification_sets() -> None:
    """Fails if a new release of torchvision adds a set."""
    own_signature = {"fer2013", "imagenet", "oxfordiiitpet"}  # no `download`, or `transforms` as of segmentation
    others = {"celeba", "lfwpairs", "sbu", "widerface"}  # attributes, pairs, captions, boxes
    found = {
        name.lower()
        for name in datasets.__all__
        if isinstance(set_class := getattr(datasets, name), type)
        and {"root", "target_transform", "download"} <= (arguments := arguments_of(set_class))
        and "transforms" not in arguments
    }
    assert {*SETS, "cifar10", "cifar100"} == (found | own_signature) - others


@pytest.mark.parametrize("key", SETS)
def test_torchvision_accepts_the_arguments_in_the_table(key: str) -> None:
    set_class = getattr(datasets, SETS[key].name)
    assert ("download" in arguments_of(set_class)) == SETS[key].can_download
    for options in SETS[key].parts:
        assert set(options) <= arguments_of(set_class)


def test_a_run_is_scored_on_another_set_of_the_same_classes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    fashion_mnist(tmp_path / "data", monkeypatch, "MNIST/raw")  # not FashionMNIST: MNIST's names
    numbers = ("9 - nine", "1 - one")
    settings = TargetSettings(name="qmnist", classes=numbers)
    assert read_for_scoring(settings, "mnist", numbers).labels.tolist() == [1, 0]
    with pytest.raises(UserError, match="not those that the run was trained on"):
        read_for_scoring(TargetSettings(name="digits"), "mnist", tuple("0123456789"))
    picture(tmp_path / "svhn" / "test" / "a" / "0.jpg", 1)  # a folder that happens to be called like a set
    assert len(read_for_scoring(TargetSettings(name="digits"), "svhn", ("a", "b"))) == 1
