"""Diffused-EMOd (arXiv:2606.13081): variants of EMOd's images by image-to-image diffusion, with their labels.

The original is not published. `emoreg data diffuse --from emod` makes such a set, with the manifest that is read here.
A set in EMOd's layout, with a variant in place of each image, is read too. A variant keeps the label of its source.
"""

from __future__ import annotations

from emoreg.data.images.table import About
from emoreg.data.stimuli.emod import FOLDER, SHEET, read_as_emod
from emoreg.data.stimuli.stimulus_set import Stimuli

ABOUT = About(
    title="Diffused-EMOd (Landi et al. 2026)",
    size="as many as you make",
    labels="the labels of the source images",
    licence="the licences of the source images and of the diffusion model",
    source="emoreg data diffuse --from emod",
    layout=f"manifest.csv|jsonl|parquet, and the images that it names; or {SHEET}, {FOLDER}/<id>.jpg",
)


def read(root: str | None, skip_missing: bool) -> Stimuli:
    """Read the variants with the labels of their sources; see `emod.read`. Columns of provenance are ignored."""
    return read_as_emod("diffused_emod", root, skip_missing)
