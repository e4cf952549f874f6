"""Tests with a real pipeline of diffusers that has few and random weights, saved and loaded like any other."""

from __future__ import annotations

import csv
import dataclasses
import errno
import itertools
import json
import os
import shutil
import string
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image

import extras
from emoreg.cli.main import main
from emoreg.data.images.files import File
from emoreg.data.stimuli import diffused_emod
from emoreg.data.stimuli.emotion import MIKELS_8, VALENCE_AROUSAL, EmotionSpace
from emoreg.data.stimuli.stimulus_set import Labels, Stimuli
from emoreg.data.tools.diffusion import diffuse as module
from emoreg.data.tools.diffusion.diffuse import diffuse, with_labels
from emoreg.data.tools.diffusion.image_to_image import vary
from emoreg.data.tools.diffusion.settings import DiffuseSettings
from emoreg.errors import UserError
from emoreg.runtime.lock import hold
from emoreg.runtime.progress import Progress
from narrow import files

diffusers = extras.load("diffusion", "diffusers")
transformers = extras.load("diffusion", "transformers")
pytestmark = pytest.mark.extra("diffusion")

QUIET = Progress(quiet=True)
TINY = DiffuseSettings(steps=2, per_image=2, size=32, batch_size=4, device="cpu")
SOURCES = ("fear/same.png", "awe/same.png", "awe/Größe 水.png")
NAMES = ("same-9d42c119", "same-b5b8956f", "Gr_e")


def components(folder: Path, hidden: int = 16) -> dict[str, Any]:
    """The components of Stable Diffusion, with few weights."""
    torch.manual_seed(0)
    words = ["<|startoftext|>", "<|endoftext|>", *string.ascii_lowercase, *(c + "</w>" for c in string.ascii_lowercase)]
    folder.mkdir()
    (folder / "vocab.json").write_text(json.dumps({word: index for index, word in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    text = transformers.CLIPTextConfig(
        vocab_size=len(words), hidden_size=hidden, intermediate_size=hidden, num_hidden_layers=1,
        num_attention_heads=2, max_position_embeddings=16, bos_token_id=0, eos_token_id=1, pad_token_id=1,
    )  # fmt: skip
    return {
        "tokenizer": transformers.CLIPTokenizer(
            str(folder / "vocab.json"), str(folder / "merges.txt"), model_max_length=16
        ),
        "text_encoder": transformers.CLIPTextModel(text),
        "vae": diffusers.AutoencoderKL(
            block_out_channels=(8, 8), norm_num_groups=4, latent_channels=4, sample_size=32,
            down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
        ),
        "unet": diffusers.UNet2DConditionModel(
            sample_size=16, in_channels=4, out_channels=4, block_out_channels=(8, 16), layers_per_block=1,
            norm_num_groups=4, cross_attention_dim=hidden, attention_head_dim=4,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        ),
        "scheduler": diffusers.DDIMScheduler(
            beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False, steps_offset=1
        ),
        "safety_checker": None,
        "feature_extractor": None,
    }  # fmt: skip


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("models")
    parts = components(folder / "tokenizer")
    diffusers.StableDiffusionPipeline(**parts, requires_safety_checker=False).save_pretrained(folder / "tiny")
    return str(folder / "tiny")


@pytest.fixture
def stimuli(tmp_path: Path, write_image: Callable[..., Path]) -> Stimuli:
    """Three images with labels of all kinds. Two have the same file name, one a name that is not ASCII."""
    root = tmp_path / "set"
    for name, colour in zip(SOURCES, ((200, 30, 30), (20, 40, 220), (30, 180, 60)), strict=True):
        write_image(root / name, colour, size=(60, 44))
    category = Labels(EmotionSpace("category", MIKELS_8), np.array([6, 2, 2]))
    votes = Labels(EmotionSpace("votes", MIKELS_8), np.eye(8, dtype=np.float32)[[6, 2, 2]] * 3 + 0.25)
    ratings = Labels(VALENCE_AROUSAL, np.array([[-0.83, 0.5], [0.1, 1 / 3], [1, -1]], np.float32))
    images = [File(name, root) for name in SOURCES]
    return Stimuli("emod", images, (category, votes, ratings), ("train", "test", "train"))


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def manifest(out: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((out / "manifest.csv").open(encoding="utf-8")))


def test_variants_carry_the_labels_and_splits_of_their_sources(model: str, stimuli: Stimuli, tmp_path: Path) -> None:
    done = diffuse(stimuli, model, TINY, tmp_path / "out", QUIET)
    assert (done.made, done.kept, done.flagged, done.unreadable) == (6, 0, 0, 0)
    assert done.seconds > 0
    again = diffused_emod.read(str(tmp_path / "out"), False)
    assert [image.name for image in files(again.images)] == [f"images/{name}-{n}.png" for name in NAMES for n in (1, 2)]
    assert again.splits == ["train", "train", "test", "test", "train", "train"]
    assert {labels.space.kind for labels in again.labels} == {"category", "votes", "dimensions"}
    for labels in again.labels:
        source = next(own for own in stimuli.labels if own.space == labels.space)
        np.testing.assert_array_equal(labels.values, np.repeat(source.values, 2, axis=0))


def test_manifest_and_image_record_the_provenance(model: str, stimuli: Stimuli, tmp_path: Path) -> None:
    diffuse(stimuli, model, TINY, tmp_path / "out", QUIET)
    row = manifest(tmp_path / "out")[5]
    assert (row["source"], row["variant"], row["strength"], row["steps"]) == ("awe/Größe 水.png", "2", "0.5", "2")
    assert (row["prompt"], row["guidance"], row["seed"], row["model"]) == ("", "1.0", "0", model)
    assert (row["device"], row["diffusers"]) == ("cpu float32", diffusers.__version__)
    assert row["commit"].startswith("sha256:") and len(row["source_sha256"]) == 64
    with Image.open(tmp_path / "out" / row["path"]) as image:
        assert image.size == (32, 32)
        own = json.loads(image.info["emoreg"])
    assert own.pop("flagged") is False
    assert {key: str(value) for key, value in own.items()} == {key: row[key] for key in own}


def test_images_depend_on_the_seed(model: str, stimuli: Stimuli, tmp_path: Path) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        diffuse(stimuli, model, dataclasses.replace(TINY, seed=seed), tmp_path / name, QUIET)
    a, b, c = (tree(tmp_path / name) for name in "abc")
    assert a == b
    assert a.keys() == c.keys()
    pixels = [np.stack([np.asarray(Image.open(tmp_path / name / row["path"])) for row in manifest(tmp_path / name)])
              for name in "ac"]  # fmt: skip
    assert all((one != other).any() for one, other in zip(*pixels, strict=True))
    assert len({picture.tobytes() for picture in pixels[0]}) == 6


def test_the_batch_size_does_not_matter(
    model: str, stimuli: Stimuli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    diffuse(stimuli, model, TINY, tmp_path / "a", QUIET)
    diffuse(stimuli, model, dataclasses.replace(TINY, batch_size=1), tmp_path / "b", QUIET)
    assert tree(tmp_path / "a") == tree(tmp_path / "b")

    # As on an accelerator: the batch size only affects rounding, and the last batch is filled up.
    sizes: list[int] = []

    def counted(*args: Any, **kwargs: Any) -> Any:
        sizes.append(len(args[1]))
        return vary(*args, **kwargs)

    monkeypatch.setattr(module, "_batch_size", lambda _, settings: settings.batch_size)
    monkeypatch.setattr(module, "vary", counted)
    diffuse(stimuli, model, TINY, tmp_path / "c", QUIET)
    assert sizes == [4, 4]
    for row, same in zip(manifest(tmp_path / "a"), manifest(tmp_path / "c"), strict=True):
        one, other = (np.asarray(Image.open(tmp_path / out / row["path"]), int) for out in "ac")
        assert row == same
        assert abs(one - other).max() <= 2


def stop_after(monkeypatch: pytest.MonkeyPatch, calls: int, error: BaseException) -> None:
    count = itertools.count(1)

    def stopping(*args: Any, **kwargs: Any) -> Any:
        if next(count) > calls:
            raise error
        return vary(*args, **kwargs)

    monkeypatch.setattr(module, "vary", stopping)


def test_after_an_interruption_only_missing_images_are_made(
    model: str, stimuli: Stimuli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    diffuse(stimuli, model, TINY, tmp_path / "whole", QUIET)
    with monkeypatch.context() as patched:
        stop_after(patched, 4, KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            diffuse(stimuli, model, TINY, tmp_path / "cut", QUIET)
    assert len(diffused_emod.read(str(tmp_path / "cut"), False).images) == 4
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "cut" / "images").iterdir()}
    done = diffuse(stimuli, model, TINY, tmp_path / "cut", QUIET)
    assert (done.made, done.kept) == (2, 4)
    assert all(path.stat().st_mtime_ns == time for path, time in before.items())
    assert tree(tmp_path / "cut") == tree(tmp_path / "whole")


def test_a_lost_manifest_is_restored_from_the_images_without_the_model(
    model: str, stimuli: Stimuli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    diffuse(stimuli, model, TINY, tmp_path / "out", QUIET)
    whole = tree(tmp_path / "out")
    (tmp_path / "out" / "manifest.csv").unlink()
    monkeypatch.setattr(module, "load", None)
    done = diffuse(stimuli, model, TINY, tmp_path / "out", QUIET)
    assert (done.made, done.kept, done.seconds) == (0, 6, 0)
    assert tree(tmp_path / "out") == whole


def test_a_damaged_image_is_made_again(model: str, stimuli: Stimuli, tmp_path: Path) -> None:
    diffuse(stimuli, model, TINY, tmp_path / "out", QUIET)
    whole = tree(tmp_path / "out")
    (tmp_path / "out" / "images" / "Gr_e-1.png").write_bytes(b"")
    assert diffuse(stimuli, model, TINY, tmp_path / "out", QUIET).made == 1
    assert tree(tmp_path / "out") == whole


def test_more_sources_and_variants_can_be_requested_later(model: str, stimuli: Stimuli, tmp_path: Path) -> None:
    few = dataclasses.replace(TINY, limit=2, per_image=1)
    assert diffuse(stimuli, model, few, tmp_path / "grown", QUIET).made == 2
    assert diffuse(stimuli, model, TINY, tmp_path / "grown", QUIET).kept == 2
    diffuse(stimuli, model, TINY, tmp_path / "whole", QUIET)
    assert tree(tmp_path / "grown") == tree(tmp_path / "whole")


def test_a_changed_source_is_made_again_and_a_corrected_label_is_not(
    model: str, stimuli: Stimuli, tmp_path: Path, write_image: Callable[..., Path]
) -> None:
    diffuse(stimuli, model, TINY, tmp_path / "out", QUIET)
    write_image(tmp_path / "set" / SOURCES[0], (90, 90, 90))
    corrected = Labels(stimuli.labels[0].space, np.array([1, 2, 2]))
    stimuli = dataclasses.replace(stimuli, labels=(corrected, *stimuli.labels[1:]))
    done = diffuse(stimuli, model, TINY, tmp_path / "out", QUIET)
    assert (done.made, done.kept) == (2, 4)
    assert [row["emotion"] for row in manifest(tmp_path / "out")] == ["anger"] * 2 + ["awe"] * 4


def test_other_settings_are_refused_and_named(model: str, stimuli: Stimuli, tmp_path: Path) -> None:
    diffuse(stimuli, model, TINY, tmp_path / "out", QUIET)
    other = dataclasses.replace(TINY, strength=0.75, prompt="a {emotion} scene")
    with pytest.raises(UserError, match=r"strength: 0\.5 -> 0\.75; guidance: 1\.0 -> 7\.5; prompt:  -> a \{emotion"):
        diffuse(stimuli, model, other, tmp_path / "out", QUIET)
    with pytest.raises(UserError, match="set: emod -> oasis"):
        diffuse(dataclasses.replace(stimuli, name="oasis"), model, TINY, tmp_path / "out", QUIET)


def test_a_model_that_has_changed_is_refused(model: str, stimuli: Stimuli, tmp_path: Path) -> None:
    copy = shutil.copytree(model, tmp_path / "model")
    diffuse(stimuli, str(copy), dataclasses.replace(TINY, limit=1), tmp_path / "out", QUIET)
    config = copy / "scheduler" / "scheduler_config.json"
    config.write_text(config.read_text().replace("0.012", "0.013"))
    with pytest.raises(UserError, match=r"has changed since .*out was started"):
        diffuse(stimuli, str(copy), TINY, tmp_path / "out", QUIET)


def test_two_processes_do_not_make_images_in_one_folder(model: str, stimuli: Stimuli, tmp_path: Path) -> None:
    (out := tmp_path / "out").mkdir()
    with hold(out), pytest.raises(UserError, match=f"is being worked on by process {os.getpid()} on "):
        diffuse(stimuli, model, TINY, out, QUIET)
    assert diffuse(stimuli, model, TINY, out, QUIET).made == 6


def test_other_folders_are_refused(model: str, stimuli: Stimuli, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="set is not empty and holds no diffused images"):
        diffuse(stimuli, model, TINY, tmp_path / "set", QUIET)
    diffuse(stimuli, model, TINY, tmp_path / "set" / "out", QUIET)
    name = "out/images/Gr_e-1.png"
    with pytest.raises(UserError, match=f"{name} is among the sources, but was made from one"):
        own = dataclasses.replace(stimuli, images=[*stimuli.images[:2], File(name, tmp_path / "set")])
        diffuse(own, model, TINY, tmp_path / "set" / "out", QUIET)
    (tmp_path / "set" / "out" / "diffuse.json").write_text("{")
    with pytest.raises(UserError, match=r"diffuse\.json is damaged"):
        diffuse(stimuli, model, TINY, tmp_path / "set" / "out", QUIET)


def test_the_prompt_may_name_the_category(
    model: str, stimuli: Stimuli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = dataclasses.replace(TINY, per_image=1)
    prompted = dataclasses.replace(plain, prompt="a {emotion} scene")
    diffuse(stimuli, model, plain, tmp_path / "plain", QUIET)
    diffuse(stimuli, model, prompted, tmp_path / "prompted", QUIET)
    assert [row["prompt"] for row in manifest(tmp_path / "prompted")] == ["a fear scene"] + ["a awe scene"] * 2
    one, other = (np.asarray(Image.open(tmp_path / name / "images" / "Gr_e-1.png")) for name in ("plain", "prompted"))
    assert (one != other).any()
    rated = dataclasses.replace(stimuli, labels=stimuli.labels[1:])
    with pytest.raises(UserError, match=r"emod has no categories; --labels majority"):
        diffuse(rated, model, prompted, tmp_path / "rated", QUIET)
    diffuse(with_labels(rated, "majority"), model, prompted, tmp_path / "majority", QUIET)
    assert {*manifest(tmp_path / "majority")[0]} & {"emotion", "p_fear", "valence"} == {"emotion"}


def test_arrays_can_be_sources_and_a_pipeline_can_be_the_model(model: str, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (2, 40, 40, 3)).astype(np.uint8)
    drawn = Stimuli("procedural", pixels, (Labels(VALENCE_AROUSAL, np.zeros((2, 2), np.float32)),))
    diffuse(drawn, model, TINY, tmp_path / "loaded", QUIET)
    pipeline = diffusers.AutoPipelineForImage2Image.from_pretrained(model)
    diffuse(drawn, pipeline, TINY, tmp_path / "given", QUIET)
    loaded, given = tree(tmp_path / "loaded" / "images"), tree(tmp_path / "given" / "images")
    assert sorted(given) == ["procedural_0-1.png", "procedural_0-2.png", "procedural_1-1.png", "procedural_1-2.png"]
    assert loaded.keys() == given.keys()
    assert "split" not in manifest(tmp_path / "given")[0]


def test_images_that_the_safety_checker_flags_are_recorded_and_left_out(
    model: str, stimuli: Stimuli, tmp_path: Path
) -> None:
    from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker

    side = {"image_size": 16, "patch_size": 8, "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1,
            "num_attention_heads": 2}  # fmt: skip
    checker = StableDiffusionSafetyChecker(transformers.CLIPConfig(vision_config=side, projection_dim=8))
    extractor = transformers.CLIPImageProcessor(size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16})
    parts = diffusers.StableDiffusionPipeline.from_pretrained(model).components
    parts |= {"safety_checker": checker, "feature_extractor": extractor}
    verdicts = itertools.cycle([-2.0, 2.0, 2.0])  # thresholds of the cosine similarity that flag all images, or none

    def judge(_: Any, inputs: Any, kwargs: dict[str, Any]) -> None:
        checker.concept_embeds_weights.fill_(next(verdicts))

    checker.register_forward_pre_hook(judge, with_kwargs=True)
    pipeline = diffusers.StableDiffusionImg2ImgPipeline(**parts)
    settings = dataclasses.replace(TINY, batch_size=1, per_image=1)
    done = diffuse(stimuli, pipeline, settings, tmp_path / "out", QUIET)
    assert (done.made, done.flagged) == (2, 1)
    assert [path.name for path in (tmp_path / "out" / "flagged").iterdir()] == [f"{NAMES[0]}-1.json"]
    assert len(manifest(tmp_path / "out")) == len([*(tmp_path / "out" / "images").iterdir()]) == 2
    done = diffuse(stimuli, pipeline, settings, tmp_path / "out", QUIET)
    assert (done.made, done.kept, done.flagged) == (0, 2, 1)


def test_unreadable_sources_stop_before_anything_is_made(model: str, stimuli: Stimuli, tmp_path: Path) -> None:
    (tmp_path / "set" / SOURCES[2]).write_bytes(b"no image")
    with pytest.raises(
        UserError, match=r"cannot decode .*水\.png: not an image .* \(--skip-unreadable skips such images\)"
    ):
        diffuse(stimuli, model, TINY, tmp_path / "out", QUIET)
    assert not (tmp_path / "out").exists()
    done = diffuse(stimuli, model, dataclasses.replace(TINY, skip_unreadable=True), tmp_path / "out", QUIET)
    assert (done.made, done.unreadable) == (4, 1)


def test_without_the_extra_the_error_says_what_to_install(
    stimuli: Stimuli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(UserError, match=r"needs transformers: pip install 'emoreg\[diffusion\]'"):
        diffuse(stimuli, "any", TINY, tmp_path / "out", QUIET)


def test_a_model_that_cannot_be_loaded_is_reported_in_one_line(
    model: str, stimuli: Stimuli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pickled = shutil.copytree(model, tmp_path / "pickled")
    pickled_text = shutil.copytree(model, tmp_path / "pickled-text")
    for weights in (
        pickled / "unet" / "diffusion_pytorch_model.safetensors",
        pickled_text / "text_encoder" / "model.safetensors",
    ):
        torch.save(
            safetensors.torch.load_file(weights),
            weights.with_name(f"{'pytorch_' * (weights.stem == 'model')}{weights.stem}.bin"),
        )
        weights.unlink()
    torn = shutil.copytree(model, tmp_path / "torn")
    (torn / "vae" / "diffusion_pytorch_model.safetensors").write_bytes(b"torn")
    (tmp_path / "empty").mkdir()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    for name, message in {
        "nobody/nothing": "nobody/nothing is not in the Hugging Face cache, and the Hub cannot be reached: give a",
        str(pickled): "pickled/unet has no safetensors weights; .*pickled ones, which can run code, are not loaded",
        str(pickled_text): "text_encoder has no safetensors weights; .*pickled ones, which can run code, are not",
        str(torn): "cannot load the model .*torn",
        str(tmp_path / "empty"): "empty holds no model that diffusers can load: it has no model_index.json",
        str(tmp_path / "absent"): "no folder .*absent",
    }.items():
        with pytest.raises(UserError, match=message) as caught:
            diffuse(stimuli, name, TINY, tmp_path / "out", QUIET)
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_a_model_from_the_cache_of_the_hub_is_recorded_with_its_commit(
    model: str, stimuli: Stimuli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cached = tmp_path / "cache" / "models--somebody--tiny"
    (cached / "refs").mkdir(parents=True)
    for name, commit in (("main", "a" * 40), ("v2", "b" * 40)):
        shutil.copytree(model, cached / "snapshots" / commit)
        (cached / "refs" / name).write_text(commit)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    few = dataclasses.replace(TINY, limit=1)
    diffuse(stimuli, "somebody/tiny", few, tmp_path / "out", QUIET)
    assert {(row["model"], row["commit"]) for row in manifest(tmp_path / "out")} == {("somebody/tiny", "a" * 40)}
    (cached / "refs" / "main").write_text("b" * 40)  # a new version; the folder keeps using the recorded one
    diffuse(stimuli, "somebody/tiny", TINY, tmp_path / "out", QUIET)
    assert {row["commit"] for row in manifest(tmp_path / "out")} == {"a" * 40}
    diffuse(stimuli, "somebody/tiny", dataclasses.replace(few, revision="v2"), tmp_path / "v2", QUIET)
    assert {row["commit"] for row in manifest(tmp_path / "v2")} == {"b" * 40}


def test_full_memory_and_full_disks_are_reported_and_finished_images_kept(
    model: str, stimuli: Stimuli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        step = diffusers.DDIMScheduler.step
        steps = itertools.count()

        def exhausted(*args: Any, **kwargs: Any) -> Any:
            if next(steps) >= 4:
                raise torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate")
            return step(*args, **kwargs)

        patched.setattr(diffusers.DDIMScheduler, "step", exhausted)
        with pytest.raises(
            UserError, match="out of memory with 1 of 32x32 pixels at once on cpu float32; give a smaller"
        ):
            diffuse(stimuli, model, TINY, tmp_path / "out", QUIET)
    assert len(manifest(tmp_path / "out")) == 4
    with monkeypatch.context() as patched:

        def full(path: Path, content: bytes) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        patched.setattr("emoreg.data.tools.diffusion.variants.write_atomically", full)
        with pytest.raises(UserError, match=r"cannot write .*: No space left on device; finished images are kept; run"):
            diffuse(stimuli, model, TINY, tmp_path / "out", QUIET)
    with pytest.raises(UserError, match=r"images take at least \d+\.\d GB, but .* left"):
        diffuse(stimuli, model, dataclasses.replace(TINY, size=2**28), tmp_path / "large", QUIET)


def test_the_command_makes_a_set_that_stage_1_reads(
    model: str, stimuli: Stimuli, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root, out = tmp_path / "set", tmp_path / "out"
    lines = [f"{name},{emotion}" for name, emotion in zip(SOURCES, ("fear", "awe", "awe"), strict=True)]
    (root / "manifest.csv").write_text("\n".join(["path,emotion", *lines]), encoding="utf-8")
    command = ["data", "diffuse", "--from", "emod", "--root", str(root), "--out", str(out), "--model", model]
    small = ["--steps", "2", "--per-image", "1", "--size", "32", "--device", "cpu", "--quiet"]
    assert main([*command, *small, "--labels", "polarity"]) == 0
    printed = capsys.readouterr()
    assert "made" in printed.out and "seconds per image" in printed.out and printed.err == ""
    assert [row["emotion"] for row in manifest(out)] == ["negative", "positive", "positive"]
    assert len(diffused_emod.read(str(out), False).images) == 3
    for wrong, message in (
        (["--strength", "2"], "strength: must lie in (0, 1], not 2"),
        (["--from", "emodd"], "--from: no stimulus set 'emodd' (did you mean 'emod'?)"),
        (["--seed", "1"], f"{out} holds images made with other settings (seed: 0 -> 1)"),
    ):
        assert main([*command, *small, *wrong]) == 2
        printed = capsys.readouterr()
        assert message in printed.err and printed.err.count("\n") == 1


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"strength": 0.0}, r"strength: must lie in \(0, 1\], not 0"),
        ({"strength": 1.5}, r"strength: must lie in \(0, 1\], not 1.5"),
        ({"strength": float("nan")}, r"strength: must lie in \(0, 1\], not nan"),
        ({"strength": 0.01}, "strength: 0.01 of 50 steps is less than one step"),
        ({"per_image": 0}, "per_image: must be at least 1, not 0"),
        ({"size": 500}, "size: must be a multiple of 16 pixels, not 500"),
        ({"limit": 0}, "limit: must be at least 1, or null, not 0"),
        ({"guidance": -1.0}, "guidance: must be at least 0, or null, not -1.0"),
        ({"prompt": "two\nlines"}, "prompt: must be one line of text"),
        ({"prompt": "{emotoin}"}, r"prompt: has \{emotoin\}; the only placeholder is \{emotion\}"),
    ],
)
def test_settings_out_of_range_are_refused(setting: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DiffuseSettings(**setting)
