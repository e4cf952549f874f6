"""Make sets like Diffused-EMOd: variants of the images of a stimulus set, by image-to-image diffusion.

Stated by arXiv:2606.13081: Diffused-EMOd is made from EMOd with an image-to-image diffusion model, and a variant
keeps the label of its source. The rest is ours: the model, all values, and the default of no prompt and no guidance, so
that emotion can only come from the source image.

Image-to-image diffusion (Meng et al. 2022, "SDEdit", ICLR) adds noise to the source and lets the model remove it.
`strength` is the amount of noise: towards 0 the result is the source; at 1 nothing of the source remains, and its label
no longer applies. The variants are of the source's central square, as stage 1 sees it.

A variant depends only on the settings, the seed, the content of its source and its number among the variants. On one
machine it is reproduced bit by bit. Another machine and, on GPUs, another batch size may round differently.

| file | content |
|---|---|
| images/<source>-<number>.png | a variant, with its provenance embedded as JSON (text chunk "emoreg") |
| flagged/<source>-<number>.json | the provenance of a variant that the model's own safety checker blackened |
| manifest.csv | images, labels and splits in the format of stimuli/manifest.py, and provenance |
| diffuse.json | the settings that all variants have in common |
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
from emoreg.data.tools.diffusion.image_to_image import Model, load, require_extra, silenced, vary
from emoreg.data.tools.diffusion.settings import DiffuseSettings
from emoreg.data.tools.diffusion.variants import (
    FLAGGED,
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
from emoreg.runtime.lock import hold_new, is_trace
from emoreg.runtime.progress import Progress
from emoreg.runtime.safe_io import read_json
from emoreg.runtime.seeding import derive_seed, generator

if TYPE_CHECKING:
    import torch

SETTINGS = "diffuse.json"
MANIFEST_EVERY = 60.0  # seconds; for users who look before the end, as images contain their own records
LEAST_BYTES_PER_PIXEL = 1.0  # lower estimate for a photograph as PNG


@dataclass(frozen=True)
class Diffused:
    """Result of `diffuse`.

    Args:
        made: number of images made by this call.
        kept: number of images that existed before.
        flagged: number of images skipped, now or before, because the model's safety checker blackened them.
        unreadable: number of sources skipped.
        seconds: mean time per image of this call; 0 if it made none.
    """

    made: int
    kept: int
    flagged: int
    unreadable: int
    seconds: float


def diffuse(
    stimuli: Stimuli, model: str | Any, settings: DiffuseSettings, out: Path | str, progress: Progress
) -> Diffused:
    """Make variants of the images of a set, with their labels and splits; resume an interrupted run.

    A variant is in the split of its source, so that nothing leaks between splits.

    Args:
        stimuli: the sources; labels of all kinds are copied to the variants.
        model: folder, or name on the Hub, of any model with safetensors weights for which diffusers has an
            image-to-image pipeline; or such a pipeline itself, which stays on its device.
        settings: number of variants, and how they are generated.
        out: folder; new, empty, or with variants made with the same settings.
        progress: shows how many images have been made.

    Raises:
        UserError: the extra is not installed; the folder holds other files, or images made with other settings (names
            these), or another process is using it; a source or the model cannot be read; the memory or the disk is
            full; every image was flagged.
    """
    require_extra()
    out = Path(out)
    name = model
    if not isinstance(model, str):
        name = str(getattr(model.config, "_name_or_path", None) or type(model).__name__)
    common = {  # what all images of the folder share
        "set": stimuli.name,
        "model": name,
        "revision": settings.revision,
        "strength": settings.strength,
        "steps": settings.steps,
        "guidance": settings.guidance_scale,
        "prompt": settings.prompt,
        "size": settings.size,
        "seed": settings.seed,
    }
    _check_folder(out, stimuli.images, common)  # before a lock is written in a folder that is refused
    with hold_new(out, "set's folder"):
        return _diffuse(stimuli, model, common, settings, out, progress)


def _diffuse(
    stimuli: Stimuli, model: str | Any, common: Provenance, settings: DiffuseSettings, out: Path, progress: Progress
) -> Diffused:
    """The rest of `diffuse`, given the settings that all images of the folder have in common."""
    name = common["model"]
    commit = _check_folder(out, stimuli.images, common)  # another process may have held the lock
    wanted, done, unreadable = _examine(stimuli, settings, common, out, progress)
    kept = sum(not provenance["flagged"] for provenance in done.values())
    missing = [variant for variant in wanted if variant.file not in done]
    seconds = 0.0
    if missing:
        _check_space(out, len(missing), settings.size)
        with silenced(progress.quiet or not isinstance(model, str) or Path(model).is_dir()):
            progress.say(f"load {name}")
            if isinstance(model, str):
                loaded = load(model, commit or settings.revision, settings.device)
            else:
                loaded = Model(model, name, "")
            _open_folder(out, common, commit, loaded)
            start = written = time.monotonic()
            try:
                for variant, provenance in _make(stimuli, loaded, missing, settings, out, progress):
                    done[variant.file] = provenance
                    if time.monotonic() - written > MANIFEST_EVERY:
                        write_manifest(out, stimuli, wanted, done)
                        written = time.monotonic()
            finally:  # if interrupted or out of memory, the finished images are a valid set
                seconds = time.monotonic() - start
                write_manifest(out, stimuli, wanted, done)
    count = write_manifest(out, stimuli, wanted, done)
    if count == 0:
        raise UserError(f"the safety checker of {name} flagged all {len(done)} images; see {out / FLAGGED}")
    made = count - kept
    return Diffused(made, kept, len(done) - count, unreadable, seconds / made if made else 0.0)


def with_labels(stimuli: Stimuli, choice: LabelChoice) -> Stimuli:
    """The set with only the chosen labels; unchanged for `published`.

    Raises:
        UserError: see `choose_labels`.
    """
    if choice == "published":
        return stimuli
    table, space, rows = choose_labels(stimuli, choice)
    splits = None if stimuli.splits is None else [stimuli.splits[row] for row in rows]
    return Stimuli(stimuli.name, table.images, (Labels(space, table.labels),), splits, stimuli.missing)


def _check_folder(out: Path, images: Images, common: Provenance) -> str:
    """The model's commit that is recorded in a folder to resume; "" for a new one. UserError for any other folder."""
    path = out / SETTINGS
    if not path.exists():
        if out.exists() and (not out.is_dir() or not all(map(is_trace, out.iterdir()))):
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
            raise UserError(f"{image} is among the sources, but was made from one; move {out} out of the set")
    return commit


def _open_folder(out: Path, common: Provenance, commit: str, model: Model) -> None:
    """Record the common settings. UserError if the existing images were made by another version of the model."""
    if not (out / SETTINGS).exists():
        record = {"settings": common, "commit": model.commit, "emoreg": __version__}
        write(out / SETTINGS, (json.dumps(record, indent=2, ensure_ascii=False) + "\n").encode())
    elif model.commit != commit:
        raise UserError(f"{model.name} has changed since {out} was started; choose another folder with --out")


def _check_space(out: Path, count: int, size: int) -> None:
    """UserError if the disk cannot hold `count` more images."""
    disk = next(folder for folder in (out.absolute(), *out.absolute().parents) if folder.exists())
    needed, free = count * size * size * LEAST_BYTES_PER_PIXEL, shutil.disk_usage(disk).free
    if needed > free:
        raise UserError(
            f"{count:,} images take at least {needed / 1e9:.1f} GB, but {disk} has {free / 1e9:.1f} GB left; "
            "reduce --limit or --per-image, or choose another --out"
        )


def _examine(
    stimuli: Stimuli, settings: DiffuseSettings, common: Provenance, out: Path, progress: Progress
) -> tuple[list[Variant], dict[str, Provenance], int]:
    """The requested variants, in the order of the set; the finished ones, by file; the number of skipped sources."""
    files, prompts = file_names(stimuli), _prompts(stimuli, settings.prompt)
    order = np.random.default_rng(derive_seed(settings.seed, "diffuse", "limit")).permutation(len(files))
    rows: list[int] = np.sort(order[: settings.limit]).tolist()
    shared = {key: common[key] for key in ("strength", "steps", "guidance", "seed", "model")}
    wanted: list[Variant] = []
    done: dict[str, Provenance] = {}
    unreadable: list[UserError] = []

    def examine(part: range) -> list[list[tuple[Variant, Provenance | None]] | UserError]:
        chosen = rows[part.start : part.stop]
        return [_examine_source(stimuli, n, files[n], {"prompt": prompts[n], **shared}, settings, out) for n in chosen]

    with progress.task(f"read {stimuli.name}", len(rows), "images") as advance:
        for part, results in in_threads(examine, range(len(rows)), 16):
            for result in results:
                if isinstance(result, UserError):
                    unreadable.append(result)
                    continue
                wanted += [variant for variant, _ in result]
                done |= {variant.file: provenance for variant, provenance in result if provenance is not None}
            if unreadable and not settings.skip_unreadable:
                raise UserError(f"{unreadable[0]} (--skip-unreadable skips such images)")
            advance(len(part))
    if not wanted:
        raise UserError(f"{stimuli.name}: all {len(rows)} images are unreadable; the first: {unreadable[0]}")
    if unreadable:
        progress.say(
            f"{stimuli.name}: skipped {len(unreadable)} unreadable of {len(rows)} images; the first: {unreadable[0]}"
        )
    return wanted, done, len(unreadable)


def _examine_source(
    stimuli: Stimuli, row: int, file: str, provenance: Provenance, settings: DiffuseSettings, out: Path
) -> list[tuple[Variant, Provenance | None]] | UserError:
    """The requested variants of a source, each with its provenance if it is finished; the error if unreadable."""
    try:
        image = stimuli.images[row]
        sha256, content = digest_of(image)
        known = {"source": source_name(stimuli, row), "source_sha256": sha256, **provenance}
        numbers = range(1, settings.per_image + 1)
        variants = [Variant(row, f"{file}-{number}", {**known, "variant": number}) for number in numbers]
        pairs = [(variant, find_made(out, variant)) for variant in variants]
        if isinstance(image, File) and any(found is None for _, found in pairs):
            # It will be decoded again later. Decode it now, so that a failure does not come after hours of work.
            upright(image, content, at_least=settings.size)
        return pairs
    except UserError as error:
        return error


def _prompts(stimuli: Stimuli, prompt: str) -> list[str]:
    """The prompt for each image of a set. UserError if it contains {emotion}, but the set has no categories."""
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
    out: Path,
    progress: Progress,
) -> Iterator[tuple[Variant, Provenance]]:
    """Make the missing variants, batch by batch; yield each with its complete provenance once it is on the disk."""
    made_by = {"commit": model.commit, "device": model.place, "diffusers": require_extra()}
    batch_size = _batch_size(model, settings)
    with progress.task(f"diffuse {stimuli.name}", len(missing), "images") as advance:
        for start in range(0, len(missing), batch_size):
            batch = missing[start : start + batch_size]
            # Fill the last batch up: a batch of another size is rounded differently, and images would depend on how
            # many were left to make.
            full = [*batch, *[batch[-1]] * (batch_size - len(batch))]
            pictures = vary(
                model,
                [decode(stimuli.images[variant.row], settings.size) for variant in full],
                [variant.provenance["prompt"] for variant in full],
                [_noise(variant.provenance) for variant in full],
                strength=settings.strength,
                num_inference_steps=settings.steps,
                guidance_scale=settings.guidance_scale,
            )
            for variant, (picture, flagged) in zip(batch, pictures, strict=False):
                provenance = {**variant.provenance, **made_by, "flagged": flagged}
                save(out, variant, picture, provenance)
                yield variant, provenance
            advance(len(batch))


def _batch_size(model: Model, settings: DiffuseSettings) -> int:
    return 1 if model.pipeline.device.type == "cpu" else settings.batch_size


def _noise(provenance: Provenance) -> torch.Generator:
    """The generator of all noise of a variant, on the CPU, so that the noise is the same for every device."""
    return generator(provenance["seed"], "diffuse", provenance["source_sha256"], provenance["variant"])
