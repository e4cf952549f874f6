"""Trackers show the rows of metrics.csv elsewhere while a run trains. They never change the run, and never stop it.

Each place of a tracker receives every row once: a run that resumes continues its record there, and what could not be
sent is sent later, by the same command at the latest. A place that lost or never kept what it was sent gets it again.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from emoreg.config.read_recipe import flatten
from emoreg.config.recipe import Recipe, resolved
from emoreg.config.training import TrackerName
from emoreg.errors import UserError, shortened
from emoreg.runs.published import published
from emoreg.runs.run import Run
from emoreg.runs.tracker_clients import (
    Row,
    Tracker,
    check_installed,
    is_kept,
    open_tracker,
    place_of,
    without_passwords,
)
from emoreg.runtime.lock import FolderInUse, hold
from emoreg.runtime.progress import Progress
from emoreg.runtime.safe_io import write_json

RECORD = "trackers.json"  # in the run folder: by tracker and place, the id of the run there and how many rows it has
PAUSE = 120.0  # seconds without another attempt after a failure, as each attempt waits for a timeout
SLOW, SHARE = 0.5, 20  # a server that takes longer, in seconds, then rests for so many times as long
Track = Callable[[Sequence[Row]], None]
# By tracker, in this process: the run whose attempt failed last, and when. Its server is then left alone for a while.
_failed: dict[str, tuple[Path, float]] = {}


class Trackers:
    """All trackers of one run.

    Args:
        run: whose rows are sent.
        recipe: training.trackers names the trackers; all settings are sent as hyperparameters.
        progress: reports failures.
        is_late: whether the run was finished earlier.

    Raises:
        UserError: the package of a tracker is not installed.
    """

    def __init__(self, run: Run, recipe: Recipe, progress: Progress, is_late: bool = False) -> None:
        self.is_late = is_late
        self.names = tuple(dict.fromkeys(recipe.training.trackers))
        for name in self.names:
            check_installed(name)
        self.run, self.progress = run, progress
        self.settings = published(resolved(recipe), run.folder)
        self.opened: dict[str, Tracker] = {}
        self.told: set[str] = set()  # trackers of which a failure, or that they are off, was said
        self.rests_until: dict[str, float] = {}  # by name: a slow server is asked less often
        self.record = _read_record(run)

    def update(self, rows: Sequence[Row], final: Mapping[str, Any] | None = None) -> dict[str, bool]:
        """Bring every tracker up to date.

        Args:
            rows: all rows of the run so far, one per epoch.
            final: the final metrics of a finished run.

        Returns:
            By name, of the trackers that lacked something, whether they have it now.
        """
        done: dict[str, bool] = {}
        for name in self.names:
            is_resting = self._is_resting(name, final is not None)
            if is_resting and final is None:
                continue
            try:
                place = place_of(name)
                if self._has_all(name, place):
                    continue
                if place is None:
                    self._say(name, "is switched off: nothing is sent")
                    continue
                if is_resting:
                    done[name] = False
                    self._say(name, "has just failed; this run is sent by the same command later")
                    continue
                self._bring_up_to_date(name, place, rows, final)
                done[name] = True
            except Exception as error:  # a server may be away, a disk full, a client may have its own bugs
                done[name] = False
                self._report_failure(name, error)
            else:
                _failed.pop(name, None)
                self.told.discard(name)
        return done

    def send_finished(self) -> dict[str, bool]:
        """Send what trackers lack of the run if it is finished; returns as `update`."""
        if not self.run.is_finished or not self.names:
            return {}
        rows = [
            {str(key): float(value) for key, value in row.items() if not math.isnan(value)}
            for row in self.run.metrics.to_dict("records")
        ]
        return self.update(rows, self.run.final)

    def close(self) -> None:
        """Close all trackers in this process."""
        for name, tracker in self.opened.items():
            try:
                tracker.close()
            except Exception as error:
                self._report_failure(name, error)
        self.opened.clear()

    def _is_resting(self, name: str, is_last: bool) -> bool:
        """Whether a tracker is left alone for now. A run's own pauses end with it, those of other runs do not."""
        folder, when = _failed.get(name, (self.run.folder, -math.inf))
        has_failed = time.monotonic() - when < PAUSE
        if has_failed and (self.is_late or folder != self.run.folder):
            return True
        return not is_last and (has_failed or time.monotonic() < self.rests_until.get(name, -math.inf))

    def _has_all(self, name: str, place: str | None) -> bool:
        known = self._known(name, place)
        return bool(known.get("finished")) and is_kept(name, self.run, place, known)

    def _known(self, name: str, place: str | None) -> dict[str, Any]:
        """What is recorded of the run in this place. Records of earlier versions do not say where."""
        entries = self.record.get(name, [])
        return next((entry for entry in entries if entry.get("where") in (place, None)), {})

    def _bring_up_to_date(
        self, name: TrackerName, place: str, rows: Sequence[Row], final: Mapping[str, Any] | None
    ) -> None:
        tracker = self.opened.get(name)
        if tracker is None or not tracker.is_there():
            known = self._known(name, place)
            if not os.access(self.run.folder, os.W_OK):  # else it would be sent again by every command
                raise PermissionError(f"{self.run.folder} cannot be written, so what is sent could not be recorded")
            id_ = known.get("run")
            if name == "wandb" and id_ is None:  # `wandb sync` may bring an offline run to where it is sent now
                id_ = next((entry.get("run") for entry in self.record.get(name, [])), None)
            tracker = self.opened[name] = open_tracker(name, self.run, self.settings, id_, known.get("rows", 0))
            self._write_record(name, place, tracker, False)
        begun = time.monotonic()
        tracker.log(rows[tracker.sent :])
        if final is not None:
            tracker.finish(_numbers(final))
        self._write_record(name, place, tracker, final is not None)
        taken = time.monotonic() - begun
        self.rests_until[name] = time.monotonic() + (SHARE * taken if taken > SLOW else 0.0)

    def _write_record(self, name: str, place: str, tracker: Tracker, is_finished: bool) -> None:
        others = [entry for entry in self.record.get(name, []) if entry.get("where") not in (place, None)]
        entry = {"where": place, "run": tracker.id, "rows": tracker.sent, "finished": is_finished}
        self.record[name] = [*others, entry]
        write_json(self.run.folder / RECORD, self.record)

    def _report_failure(self, name: str, error: Exception) -> None:
        """Print the first of several failures in a row, and note the time."""
        reason = shortened(without_passwords(f"{type(error).__name__}: {error}"), 200)
        self._say(
            name,
            f"fails ({reason}); the run itself is not affected, and what is missing there is sent when it answers, or "
            "by the same command later",
        )
        _failed[name] = (self.run.folder, time.monotonic())

    def _say(self, name: str, what: str) -> None:
        """Say something of a tracker, once until it is up to date again."""
        if name not in self.told:
            self.told.add(name)
            self.progress.say(f"{self.run.folder.name}: the tracker {name} {what}")


@contextlib.contextmanager
def tracked(run: Run, recipe: Recipe, progress: Progress) -> Iterator[Track]:
    """Within, call the given function with all rows so far to bring the recipe's trackers up to date.

    A run that is finished at the end is sent as a whole. Arguments and errors as for `Trackers`.
    """
    with contextlib.closing(Trackers(run, recipe, progress)) as trackers:

        def track(rows: Sequence[Row]) -> None:
            trackers.update(rows)

        yield track
        trackers.send_finished()


def send_later(run: Run, recipe: Recipe, progress: Progress) -> dict[str, bool]:
    """Send a run that was finished earlier to the trackers that lack part of it; returns as `Trackers.update`.

    TensorBoard is left out unless its event files were deleted: they are written while a run trains, and the folder of
    a finished run may be read-only. Arguments as for `Trackers`.
    """
    training = dataclasses.replace(recipe.training, trackers=_asked_later(run, recipe))
    with contextlib.closing(Trackers(run, dataclasses.replace(recipe, training=training), progress, True)) as trackers:
        done = trackers.send_finished()
    for name in (name for name, is_sent in done.items() if is_sent):
        progress.say(f"{run.folder.name}: sent to {name}, which lacked part of it")
    return done


def _asked_later(run: Run, recipe: Recipe) -> tuple[TrackerName, ...]:
    """The trackers that may lack part of a finished run; see `send_later`."""
    was_sent = "tensorboard" in _read_record(run) and os.access(run.folder, os.W_OK)
    is_lost = was_sent and not is_kept("tensorboard", run, None, {})
    return tuple(name for name in recipe.training.trackers if name != "tensorboard" or is_lost)


def send_all_later(finished: Sequence[tuple[Run, Recipe]], progress: Progress) -> None:
    """As `send_later`, of the finished runs of a study. A server that does not answer is asked once."""
    missing: dict[str, int] = {}
    for run, recipe in finished:
        if not _asked_later(run, recipe):  # a lock would leave its trace in the folder
            continue
        try:
            with hold(run.folder, patience=0.0) if os.access(run.folder, os.W_OK) else contextlib.nullcontext():
                done = send_later(run, recipe, progress if not missing else Progress(quiet=True))
        except FolderInUse:  # another process is sending it
            continue
        except UserError as error:  # not installed here, or a run that is damaged
            progress.say(f"{run.folder.name}: not sent to its trackers: {error}")
            continue
        for name in (name for name, is_sent in done.items() if not is_sent):
            missing[name] = missing.get(name, 0) + 1
    for name, count in missing.items():
        what = "a finished run is" if count == 1 else f"{count} finished runs are"
        progress.say(f"{what} still to be sent to {name}: run the same command again when it answers")


def _read_record(run: Run) -> dict[str, list[dict[str, Any]]]:
    try:
        found = json.loads((run.folder / RECORD).read_text()).items()
        # Earlier versions recorded one place, without saying which.
        return {name: [dict(of) for of in ([known] if isinstance(known, dict) else known)] for name, known in found}
    except (OSError, ValueError, TypeError, AttributeError):  # missing or damaged: at worst a tracker starts a new run
        return {}


def _numbers(final: Mapping[str, Any]) -> dict[str, float]:
    """The final metrics that are numbers, as final/test_accuracy and so on: no row has such a column."""
    return {
        f"final/{key.replace('.', '_')}": float(value)
        for key, value in flatten(final)
        if isinstance(value, int | float) and not isinstance(value, bool)
    }
