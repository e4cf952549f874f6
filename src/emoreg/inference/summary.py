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

COLUMNS: Mapping[Task, str] = {"classification": "class", "multilabel": "labels", "regression": "values"}
MAX_ROWS = 40  # further predictions are only counted
MIN_SAME = 10  # warn if at least this many images all get the same class; fewer may well show one class


@dataclass
class Summary:
    """The first predictions, and in classification the number of images per predicted class."""

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
        """Lay out a table of the first predictions, counts if there are more, and a note on the felt emotion.

        Args:
            loaded: the run that made the predictions.
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
        if len(self.counts) == 1 and self.images >= MIN_SAME:
            (name,) = self.counts
            parts.append(
                Text(
                    f"All {self.images:,} images are predicted as {name}. If they show several classes, the classifier "
                    "cannot tell them apart; score it with emoreg evaluate"
                )
            )
        if self.first and (temperature := self.first[0].temperature) is not None:
            name = "regulated" if loaded.model.encoder is not None else "class"
            parts.append(Text(f"{name}: probabilities at temperature {temperature:.4g}", style="dim"))
        return Group(*parts, Text(_felt_note(loaded, feel_with), style="dim"))


def _table(predictions: list[Prediction], loaded: LoadedRun) -> Table:
    is_regulated = loaded.model.encoder is not None
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("image")
    table.add_column("regulated" if is_regulated else COLUMNS[loaded.model.task])
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
        table.add_row(*map(Text, _cells(prediction)))
    return table


def _cells(prediction: Prediction) -> list[str]:
    cells = [prediction.image, prediction.regulated.summary]
    if prediction.emotional is not None:
        cells += [prediction.non_emotional.summary, prediction.emotional.summary, f"{prediction.lam:.2f}"]
    for emotion in prediction.felt:
        if emotion.head.space.kind == "dimensions":
            cells += [f"{value:+.2f}" for value in emotion.values]
        else:
            cells.append(emotion.summary)
    return cells


def _felt_note(loaded: LoadedRun, feel_with: FeelWith) -> str:
    """A line on where the felt emotions come from, or why there are none."""
    if loaded.readout is None:
        return f"no felt emotion: {loaded.no_readout_reason}"
    where = loaded.readout.folder
    if feel_with == "encoder" and loaded.model.freeze_encoder:
        return f"felt: what the stage-1 head of {where} reads out of the encoder, which was frozen in stage 2"
    if feel_with == "experience":
        return f"felt: what the stage-1 head of {where} reads out of the encoder as stage 1 left it"
    return f"felt: what the stage-1 head of {where} reads out of the encoder of stage 2, which it may no longer fit"
