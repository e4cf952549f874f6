"""Diffused-EMOd (arXiv:2606.13081): variants of EMOd's images by image-to-image diffusion, with their labels.

It is not published to us. `emoreg data diffuse --from emod` makes such a set, and the manifest that is read here; one
in EMOd's layout, with another image of each id, is read as EMOd is. The label travels with the image.
"""

from __future__ import annotations

from emoreg.data.images.table import About
from emoreg.data.stimuli.emod import FOLDER, SHEET, read_as_emod
from emoreg.data.stimuli.stimulus_set import Stimuli

ABOUT = About(
    title="Diffused-EMOd (Landi et al. 2026)",
    size="as many as you make",
    labels="those of the images that it is made from",
    licence="that of the images that it is made from, and of the diffusion model",
    source="emoreg data diffuse --from emod",
    layout=f"manifest.csv|jsonl|parquet, and the images that it names; or {SHEET}, {FOLDER}/<id>.jpg",
)


def read(root: str | None, skip_missing: bool) -> Stimuli:
    """Made images with the labels of their sources; where they come from (source, strength, ...) is not read.

    Args:
        root: folder or zip that holds one manifest, or EMOd's .mat file; or the manifest.
        skip_missing: skip rows whose image is missing, instead of stopping at the first.

    Raises:
        UserError: as `emod.read`.
    """
    return read_as_emod("diffused_emod", root, skip_missing)
