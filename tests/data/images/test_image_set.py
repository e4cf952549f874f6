from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from emoreg.data.images import image_set
from emoreg.data.images.files import list_files
from emoreg.data.images.image_set import load_images
from emoreg.data.images.table import Table
from emoreg.errors import UserError
from emoreg.runtime.progress import Progress


def table_of(folder: Path) -> Table:
    images = list_files(folder)
    return Table("set", images, np.arange(len(images), dtype=np.int64))


def test_unreadable_images_are_errors_unless_skipped(
    image_folder: Path, quiet: Progress, capsys: pytest.CaptureFixture[str]
) -> None:
    (image_folder / "train" / "red" / "0003.png").write_bytes(b"broken")
    with pytest.raises(UserError, match=r"red/0003\.png.*skip_unreadable"):
        load_images(table_of(image_folder), 8, False, 1.0, quiet)
    images = load_images(table_of(image_folder), 8, True, 1.0, Progress())
    assert len(images) == 31 and images.pixels is not None and len(images.pixels) == 31
    assert not any(str(file).endswith("train/red/0003.png") for file in images.table.images)
    assert set(images.labels.tolist()) == set(range(32)) - {
        list(map(str, list_files(image_folder))).index(f"{image_folder}/train/red/0003.png")
    }
    assert "skipped 1 unreadable of 32 images" in capsys.readouterr().err


def test_a_set_over_the_memory_limit_gives_the_same_batches(image_folder: Path, quiet: Progress) -> None:
    table = table_of(image_folder)
    held, on_demand = (load_images(table, 8, False, limit, quiet) for limit in (1.0, 0.0))
    assert held.pixels is not None and on_demand.pixels is None
    order, before = torch.randperm(32, generator=torch.Generator().manual_seed(1))[:30], torch.get_rng_state()
    one, other = (list(images.batches(order, 8)) for images in (held, on_demand))
    assert torch.equal(torch.get_rng_state(), before)  # otherwise a resumed run would draw other numbers
    assert [len(labels) for _, labels, _ in one] == [8, 8, 8, 6]
    assert torch.equal(torch.cat([rows for _, _, rows in one]), order)
    for (pixels, labels, _), (other_pixels, other_labels, _) in zip(one, other, strict=True):
        assert torch.equal(pixels, other_pixels) and torch.equal(labels, other_labels)
        assert pixels.dtype == torch.uint8 and pixels.shape[1:] == (3, 8, 8)


def test_threads_decode_the_same_batches_if_shared_memory_is_small_and_a_line_says_so(
    image_folder: Path, quiet: Progress, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    images = load_images(table_of(image_folder), 8, False, 0.0, quiet)
    before = [pixels for pixels, _, _ in images.batches(torch.arange(32), 10)]
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(image_set, "_shared_memory", lambda: 10 * 3 * 8 * 8)
    monkeypatch.setattr(image_set, "DataLoader", None)
    image_set._warn_of_threads.cache_clear()
    for _ in range(2):
        assert all(map(torch.equal, before, (pixels for pixels, _, _ in images.batches(torch.arange(32), 10))))
    told = capsys.readouterr().err
    assert told.startswith("/dev/shm is too small") and "--shm-size" in told and told.count("\n") == 1
    (image_folder / "train" / "red" / "0003.png").unlink()
    with pytest.raises(UserError, match=r"^cannot read .*red/0003\.png: No such file"):
        list(images.batches(torch.arange(32), 8))


def test_a_set_that_needs_over_half_of_the_usable_memory_is_not_kept(
    image_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    table = table_of(image_folder)
    for usable, is_held in ((2 * 32 * 3 * 64, True), (2 * 32 * 3 * 64 - 2, False)):
        monkeypatch.setattr(image_set, "usable_memory", lambda usable=usable: usable)
        assert (load_images(table, 8, False, 1.0, Progress()).pixels is not None) is is_held
        assert ("set: 0.0 GiB of pixels are not kept in memory" in capsys.readouterr().err) is not is_held


# A script without a main guard. Linux has fork servers as the default since Python 3.14, other systems spawn.
READS_ON_DEMAND = """
import multiprocessing, sys
from types import SimpleNamespace
import numpy as np
import torch
from emoreg.data.images import image_set
from emoreg.data.images.files import list_files
from emoreg.data.images.table import Table
print("started", flush=True)
multiprocessing.set_start_method(sys.argv[2])
image_set.sys = SimpleNamespace(platform=sys.argv[1])
images = list_files(sys.argv[3])
table = Table("set", images, np.arange(len(images)))
print(sum(map(len, image_set._read(table, 8, "crop", torch.arange(len(images)).split(8), False))))
"""


@pytest.mark.thorough
@pytest.mark.parametrize(("platform", "method"), [("linux", "forkserver"), ("darwin", "spawn")])
def test_workers_do_not_run_a_script_without_a_main_guard_again(
    platform: str, method: str, image_folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "script.py").write_text(READS_ON_DEMAND)
    arguments = [sys.executable, str(tmp_path / "script.py"), platform, method, str(image_folder)]
    ended = subprocess.run(arguments, capture_output=True, text=True, timeout=300, check=False)
    assert (ended.stdout, ended.returncode) == ("started\n32\n", 0), ended.stderr


def test_a_set_over_the_memory_limit_is_checked_before_training(image_folder: Path, quiet: Progress) -> None:
    (image_folder / "train" / "red" / "0003.png").write_bytes(b"broken")
    with pytest.raises(UserError, match=r"0003\.png"):
        load_images(table_of(image_folder), 8, False, 0.0, quiet)
    assert len(load_images(table_of(image_folder), 8, True, 0.0, quiet)) == 31


def test_arrays_of_the_right_size_are_copied_whole(quiet: Progress, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_set, "decode", None)  # images must not be decoded one by one
    pixels = np.random.default_rng(0).integers(0, 256, (3000, 8, 8, 3), dtype=np.uint8)
    pixels.flags.writeable = False
    table = Table("set", pixels, np.arange(3000))
    held, left = (load_images(table, 8, False, limit, quiet) for limit in (1.0, 0.0))
    assert held.pixels is not None and left.pixels is None
    assert held.pixels.is_contiguous(memory_format=torch.channels_last)
    np.testing.assert_array_equal(held.pixels.permute(0, 2, 3, 1), pixels)
    order = torch.randperm(3000)[:70]
    for one, other in zip(held.batches(order, 32), left.batches(order, 32), strict=True):
        assert torch.equal(one[0], other[0]) and torch.equal(one[1], other[1])


def test_an_image_that_vanishes_during_training_is_named_in_one_line(image_folder: Path, quiet: Progress) -> None:
    images = load_images(table_of(image_folder), 8, False, 0.0, quiet)
    (image_folder / "train" / "red" / "0003.png").unlink()
    with pytest.raises(UserError, match=r"^cannot read .*red/0003\.png: No such file") as caught:
        list(images.batches(torch.arange(32), 8))
    assert "\n" not in str(caught.value)
