"""Sets like Diffused-EMOd: variants of the images of a stimulus set, by image-to-image diffusion.

Stated by arXiv:2606.13081: Diffused-EMOd is made from EMOd with an image-to-image diffusion model, and an image
keeps the label of the one that it is made from. Ours is all the rest: the model, every number, and that by default
nothing is prompted and guidance is off, so that emotion can come from the source image alone.

Image-to-image diffusion (Meng et al. 2022, "SDEdit", ICLR) adds noise to the source and lets the model take it
away again. `strength` is how much noise: towards 0 the source comes back; at 1 nothing of it is left, and the
label has lost its ground. What is varied is the source's middle square, as stage 1 sees it.

An image depends on the settings, the seed, the content of its source and its number among the variants, and on
nothing else: on one machine it comes out the same to the bit. Another machine, and on GPUs another batch size, may
round differently.

| in the folder | is |
|---|---|
| images/<source>-<number>.png | what was made; its provenance stands in the file too (the text "emoreg", JSON) |
| flagged/<source>-<number>.json | the provenance of an image that the model's own safety checker blackened |
| manifest.csv | images, labels, splits (as stimuli/manifest.py has them) and provenance |
| diffuse.json | the settings that all its images have in common |
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from emoreg import __version__
from emoreg.config.schema import LabelChoice
from emoreg.data.images.decode import decode, upright
from emoreg.data.images.files import File
from emoreg.data.images.table import Images
from emoreg.data.images.threads import in_threads
from emoreg.data.stimuli.stimulus_set import Labels, Stimuli, choose_labels
from emoreg.data.tools.diffusion.image_to_image import Model, hushed, load, require_extra, vary
from emoreg.data.tools.diffusion.settings import DiffuseSettings
from emoreg.data.tools.diffusion.variants import (
    FLAGGED,
    MANIFEST,
    Provenance,
    Variant,
    digest_of,
    file_names,
    find_made,
    save,
    source_name,
    write,
    write_manifest,
)
from emoreg.errors import UserError, printable
from emoreg.runtime.progress import Progress
from emoreg.runtime.safe_io import read_json
from emoreg.runtime.seeding import derive_seed, generator

if TYPE_CHECKING:
    import torch

SETTINGS = "diffuse.json"
MANIFEST_EVERY = 60.0  # seconds; images carry their own records, so this is for people who look before the end
GUIDANCE = 7.5  # that of diffusers, where there is a prompt
NO_GUIDANCE = 1.0  # diffusers guides above 1
LEAST_BYTES_PER_PIXEL = 1.0  # of a photograph as PNG; most take more


@dataclass(frozen=True)
class Diffused:
    """What came of it.

    Args:
        manifest: the new set, as stimuli.root of diffused_emod or manifest.
        made: images made now.
        kept: images that were there already.
        flagged: images skipped because the model's safety checker blackened them, now or before.
        unreadable: sources skipped.
        seconds: that an image took, of those made now; 0 if there were none.
    """

    manifest: Path
    made: int
    kept: int
    flagged: int
    unreadable: int
    seconds: float


def diffuse(
    stimuli: Stimuli, model: str | Any, settings: DiffuseSettings, out: Path | str, progress: Progress
) -> Diffused:
    """Make variants of the images of a set, with their labels and splits; resumes an interrupted run.

    A variant is in the split of its source, so that none leaks into another.

    Args:
        stimuli: the sources; labels of all their kinds are carried over.
        model: folder, or name on the Hub, of any model for which diffusers has an image-to-image pipeline, with
            safetensors weights; or such a pipeline itself, which stays on its device.
        settings: how many, and how.
        out: folder; new, empty, or with images made so before.
        progress: shows how many images are made.

    Raises:
        UserError: the extra is not installed; the folder holds something else, or images made with other
            settings (which are named); a source or the model cannot be read; the memory or the disk is full;
            every image was flagged.
    """
    require_extra()
    out, name = Path(out), model if isinstance(model, str) else _name_of(model)
    common = _common(stimuli, name, settings)
    commit = _check_folder(out, stimuli.images, common)
    wanted, done, unreadable = _examine(stimuli, settings, common, out, progress)
    kept = sum(not found["flagged"] for found in done.values())
    missing = [variant for variant in wanted if variant.file not in done]
    seconds = 0.0
    if missing:
        _check_space(out, len(missing), settings.size)
        with hushed(progress.quiet or not isinstance(model, str) or Path(model).is_dir()):
            progress.say(f"load {name}")
            if isinstance(model, str):
                ready = load(model, commit or settings.revision, settings.device)
            else:
                ready = Model(model, name, "")
            _open_folder(out, common, commit, ready)
            begun = written = time.monotonic()
            try:
                for variant, found in _make(stimuli, ready, missing, settings, common, out, progress):
                    done[variant.file] = found
                    if time.monotonic() - written > MANIFEST_EVERY:
                        write_manifest(out, stimuli, wanted, done)
                        written = time.monotonic()
            finally:  # interrupted, or out of memory: what is finished is a set too
                seconds = time.monotonic() - begun
                write_manifest(out, stimuli, wanted, done)
    count = write_manifest(out, stimuli, wanted, done)
    if count == 0:
        raise UserError(f"the safety checker of {name} flagged all {len(done)} images; see {out / FLAGGED}")
    made = count - kept
    return Diffused(out / MANIFEST, made, kept, len(done) - count, unreadable, seconds / made if made else 0.0)


def with_labels(stimuli: Stimuli, choice: LabelChoice) -> Stimuli:
    """The set with the labels that were chosen and no others; for `published`, as it is.

    Raises:
        UserError: as `choose_labels`.
    """
    if choice == "published":
        return stimuli
    table, space, rows = choose_labels(stimuli, choice)
    splits = None if stimuli.splits is None else [stimuli.splits[row] for row in rows]
    return Stimuli(stimuli.name, table.images, (Labels(space, table.labels),), splits, stimuli.missing)


def _name_of(pipeline: Any) -> str:
    return str(getattr(pipeline.config, "_name_or_path", None) or type(pipeline).__name__)


def _common(stimuli: Stimuli, name: str, settings: DiffuseSettings) -> Provenance:
    """What all images of a folder share."""
    guidance = settings.guidance
    if guidance is None:
        guidance = GUIDANCE if settings.prompt else NO_GUIDANCE
    return {
        "set": stimuli.name,
        "model": name,
        "revision": settings.revision,
        "strength": settings.strength,
        "steps": settings.steps,
        "guidance": guidance,
        "prompt": settings.prompt,
        "size": settings.size,
        "seed": settings.seed,
    }


def _check_folder(out: Path, images: Images, common: Provenance) -> str:
    """The model's commit recorded in a folder to resume, "" in a new one. UserError for any other folder."""
    path = out / SETTINGS
    if not path.exists():
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise UserError(f"{out} is not empty and holds no diffused images; choose another folder with --out")
        return ""
    try:
        stored = read_json(path)
        before, commit = dict(stored["settings"]), str(stored["commit"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is damaged ({printable(str(error))}); choose another folder with --out") from None
    changed = [f"{key}: {before.get(key)} -> {value}" for key, value in common.items() if before.get(key) != value]
    if changed:
        raise UserError(
            f"{out} holds images made with other settings ({'; '.join(changed)}); choose another folder with --out"
        )
    inside = f"{out.resolve().as_posix()}/"
    for image in images:
        if isinstance(image, File) and f"{image.root.absolute().as_posix()}/{image.name}".startswith(inside):
            raise UserError(f"{image} is taken for a source, but was made from one; move {out} out of the set")
    return commit


def _open_folder(out: Path, common: Provenance, commit: str, model: Model) -> None:
    """Record what all images will share. UserError if the model is not the one that made those that are there."""
    if not (out / SETTINGS).exists():
        record = {"settings": common, "commit": model.commit, "emoreg": __version__}
        write(out / SETTINGS, (json.dumps(record, indent=2, ensure_ascii=False) + "\n").encode())
    elif model.commit != commit:
        raise UserError(f"{model.name} is not what it was when {out} was begun; choose another folder with --out")


def _check_space(out: Path, count: int, size: int) -> None:
    """UserError if the disk cannot hold `count` more images."""
    there = next(folder for folder in (out.absolute(), *out.absolute().parents) if folder.exists())
    needed, free = count * size * size * LEAST_BYTES_PER_PIXEL, shutil.disk_usage(there).free
    if needed > free:
        raise UserError(
            f"{count:,} images take {needed / 1e9:.1f} GB or more, but {there} has {free / 1e9:.1f} GB left; "
            "give fewer (--limit, --per-image) or another --out"
        )


def _examine(
    stimuli: Stimuli, settings: DiffuseSettings, common: Provenance, out: Path, progress: Progress
) -> tuple[list[Variant], dict[str, Provenance], int]:
    """The requested variants, in the order of the set; the finished ones, by file; the number of skipped sources."""
    files = file_names(stimuli)
    prompts = _prompts(stimuli, settings.prompt)
    order = np.random.default_rng(derive_seed(settings.seed, "diffuse", "limit")).permutation(len(files))
    chosen: list[int] = np.sort(order[: settings.limit]).tolist()
    shared = {key: common[key] for key in ("strength", "steps", "guidance", "seed", "model")}

    def examine(row: int) -> list[tuple[Variant, Provenance | None]] | UserError:
        try:
            image = stimuli.images[row]
            sha256, content = digest_of(image)
            about = {"source": source_name(stimuli, row), "source_sha256": sha256, "prompt": prompts[row], **shared}
            numbers = range(1, settings.per_image + 1)
            variants = [Variant(row, f"{files[row]}-{n}", {**about, "variant": n}) for n in numbers]
            pairs = [(variant, find_made(out, variant)) for variant in variants]
            if isinstance(image, File) and any(found is None for _, found in pairs):
                # It will be decoded again; but if that fails, better now than after hours of work.
                upright(image, content, at_least=settings.size)
            return pairs
        except UserError as error:
            return error

    wanted: list[Variant] = []
    done: dict[str, Provenance] = {}
    unreadable: list[UserError] = []
    with progress.task(f"read {stimuli.name}", len(chosen), "images") as advance:
        work = in_threads(lambda part: [examine(chosen[i]) for i in part], range(len(chosen)), 16)
        for part, results in work:
            for result in results:
                if isinstance(result, UserError):
                    if not settings.skip_unreadable:
                        raise UserError(f"{result} (--skip-unreadable skips such images)")
                    unreadable.append(result)
                    continue
                wanted += [variant for variant, _ in result]
                done |= {variant.file: found for variant, found in result if found is not None}
            advance(len(part))
    if not wanted:
        raise UserError(f"{stimuli.name}: all {len(chosen)} images are unreadable; the first: {unreadable[0]}")
    if unreadable:
        progress.say(
            f"{stimuli.name}: skipped {len(unreadable)} unreadable of {len(chosen)} images; the first: {unreadable[0]}"
        )
    return wanted, done, len(unreadable)


def _prompts(stimuli: Stimuli, prompt: str) -> list[str]:
    """The prompt for each image of a set. UserError for {emotion} of a set that has no categories."""
    if "{emotion}" not in prompt:
        return [prompt] * len(stimuli.images)
    for labels in stimuli.labels:
        if labels.space.kind == "category":
            return [prompt.replace("{emotion}", labels.space.names[index]) for index in labels.values.astype(int)]
    raise UserError(
        f"the prompt has {{emotion}}, but {stimuli.name} has no categories; --labels majority or polarity may give them"
    )


def _make(
    stimuli: Stimuli,
    model: Model,
    missing: Sequence[Variant],
    settings: DiffuseSettings,
    common: Provenance,
    out: Path,
    progress: Progress,
) -> Iterator[tuple[Variant, Provenance]]:
    """Make what is missing, batch by batch; gives each with its whole provenance when it is on the disk."""
    made_by = {"commit": model.commit, "device": model.place, "diffusers": require_extra()}
    at_once = _at_once(model, settings)
    with progress.task(f"diffuse {stimuli.name}", len(missing), "images") as advance:
        for start in range(0, len(missing), at_once):
            batch = missing[start : start + at_once]
            # Always full: a batch of another size is rounded differently, and an image would depend on how many
            # were left to do.
            full = [*batch, *[batch[-1]] * (at_once - len(batch))]
            pictures = vary(
                model,
                [decode(stimuli.images[variant.row], settings.size) for variant in full],
                [variant.provenance["prompt"] for variant in full],
                [_noise(variant.provenance) for variant in full],
                strength=settings.strength,
                num_inference_steps=settings.steps,
                guidance_scale=common["guidance"],
            )
            for variant, (picture, flagged) in zip(batch, pictures, strict=False):
                found = {**variant.provenance, **made_by, "flagged": flagged}
                save(out, variant, picture, found)
                yield variant, found
            advance(len(batch))


def _at_once(model: Model, settings: DiffuseSettings) -> int:
    return 1 if model.pipeline.device.type == "cpu" else settings.batch_size


def _noise(provenance: Provenance) -> torch.Generator:
    """Source of all noise of a variant. On the CPU, so that it is the same for every device."""
    return generator(provenance["seed"], "diffuse", provenance["source_sha256"], provenance["variant"])
