"""EMOd (Fan et al. 2018, "Emotional Attention: A Study of Image Sentiment and Visual Attention", CVPR).

1,019 photographs (321 of them from the IAPS) with the sentiment that they evoke, and with eye movements of 16
people. It has no fixed published layout, so a manifest (manifest.py) lists its images and labels.
"""

from __future__ import annotations

from emoreg.data.images.table import About
from emoreg.data.stimuli.manifest import read_manifest
from emoreg.data.stimuli.stimulus_set import Stimuli

ABOUT = About(
    title="EMOd (Fan et al. 2018)",
    size="1,019",
    labels="as your manifest has them: the sentiment or emotion evoked",
    licence="for research, on request to its authors; the IAPS has terms of its own",
    source="its authors, see the paper",
    layout="manifest.csv|jsonl|parquet (path, emotion, valence, ...), which you write, and the images that it names",
)


def read(root: str | None, skip_missing: bool) -> Stimuli:
    """Photographs with the labels that the manifest gives them.

    Args:
        root: folder or zip that holds one manifest, or the manifest.
        skip_missing: skip rows whose image is missing, instead of stopping at the first.

    Raises:
        UserError: as `manifest.read_manifest`.
    """
    return read_manifest("emod", root, skip_missing)
