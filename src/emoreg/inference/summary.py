"""Predictions as a table for the terminal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from rich.console import Group, RenderableType
from rich.text import Text

from emoreg.config.schema import Task
from emoreg.inference.load import LoadedRun
from emoreg.inference.predict import FeelWith, Prediction
from emoreg.runtime.terminal import Table

ANSWERED: Mapping[Task, str] = {"classification": "class", "multilabel": "labels", "regression": "values"}
MAX_ROWS = 40  # further predictions are counted
TELLING = 10  # images that all get one answer, from which on it is remarked; fewer may well be of one class


@dataclass
class Summary:
    """The first predictions, and the number of images per class, where one class of each is answered."""

    first: list[Prediction] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    images: int = 0

    def add(self, prediction: Prediction) -> None:
        """Add one prediction."""
        self.images += 1
        if prediction.regulated.task == "classification":
            self.counts[prediction.regulated.name] += 1
        if len(self.first) < MAX_ROWS:
            self.first.append(prediction)

    def shown(self, loaded: LoadedRun, feel_with: FeelWith) -> Group:
        """A table of the first predictions, the counts if there are more, and a note on what is felt.

        Args:
            loaded: run that made the predictions.
            feel_with: as given to `predict`.
        """
        parts: list[RenderableType] = []
        if self.first:
            parts.append(_table(self.first, loaded))
        more = self.images - len(self.first)
        if more:
            named = ", ".join(f"{name} {count:,}" for name, count in self.counts.most_common(10))
            others = f", and {len(self.counts) - 10} other classes" if len(self.counts) > 10 else ""
            of_all = f" Of all {self.images:,}: {named}{others}" if named else ""
            parts.append(Text(f"{more:,} more (--json and --out give all).{of_all}"))
        if len(self.counts) == 1 and self.counts.total() >= TELLING:
            answer, images = self.counts.most_common(1)[0]
            parts.append(
                Text(
                    f"All {images:,} images are answered {answer}: if they show several classes, the "
                    "classifier tells nothing apart; emoreg evaluate scores it"
                )
            )
        return Group(*parts, Text(_felt_note(loaded, feel_with), style="dim"))


def _table(predictions: list[Prediction], loaded: LoadedRun) -> Table:
    is_regulated = loaded.model.encoder is not None
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("image")
    table.add_column("regulated" if is_regulated else ANSWERED[loaded.model.task])
    if is_regulated:
        table.add_column("non-emotional")
        table.add_column("emotional")
        table.add_column("λ", justify="right")
    for head in loaded.readout.heads if loaded.readout is not None else ():
        if head.space.kind == "dimensions":
            for name in head.space.names:
                table.add_column(f"felt\n{name}", justify="right")
        else:
            table.add_column("felt")
    for prediction in predictions:
        answers = [prediction.regulated]
        if prediction.emotional is not None:
            answers += [prediction.non_emotional, prediction.emotional]
        cells = [prediction.image, *(answer.summary for answer in answers)]
        if prediction.lam is not None:
            cells.append(f"{prediction.lam:.2f}")
        for emotion in prediction.felt:
            has_columns = emotion.head.space.kind == "dimensions"
            cells += [f"{value:+.2f}" for value in emotion.values] if has_columns else [emotion.summary]
        table.add_row(*map(Text, cells))
    return table


def _felt_note(loaded: LoadedRun, feel_with: FeelWith) -> str:
    """One sentence on where the felt emotions come from."""
    if loaded.readout is None:
        return f"nothing is felt: {loaded.no_readout_reason}"
    where = loaded.readout.folder
    if feel_with == "encoder" and loaded.model.freeze_encoder:
        return f"felt: what the stage-1 head of {where} reads out of the encoder, which was frozen in stage 2"
    if feel_with == "experience":
        return f"felt: what the stage-1 head of {where} reads out of the encoder as stage 1 left it"
    return f"felt: what the stage-1 head of {where} reads out of the encoder of stage 2, which it may no longer fit"
