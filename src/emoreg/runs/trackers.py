"""Sending of the rows of metrics.csv to trackers while a run trains. Trackers never change or stop the run.

Each place of a tracker receives every row once: a resumed run continues its record there, and what could not be sent is
sent later, at the latest by the same command. A place that lost its record receives everything again.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from emoreg.config.read_recipe import flatten
from emoreg.config.recipe import Recipe, resolved
from emoreg.config.training import TrackerName
from emoreg.errors import Diverged, UserError, shortened
from emoreg.runs.published import published
from emoreg.runs.run import TRACKED, Run
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
from emoreg.runtime.safe_io import read_json, write_json

PAUSE = 120.0  # seconds without another attempt after a failure, since each attempt waits for a timeout
SLOW, SHARE = 0.5, 20  # after a request of more than SLOW seconds, wait SHARE times as long
Track = Callable[[Sequence[Row]], None]
_failed: dict[str, tuple[Path, float]] = {}  # by tracker: folder of the run that failed last in this process, and when


class Trackers:
    """All trackers of one run.

    Args:
        run: the run.
        recipe: its recipe. training.trackers names the trackers; all settings are sent as hyperparameters.
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
        self.reported: set[str] = set()  # trackers that were reported as failing or switched off
        self.rests_until: dict[str, float] = {}  # by tracker: slow servers get fewer requests
        self.record = _read_record(run)

    def update(self, rows: Sequence[Row], final: Mapping[str, Any] | None = None) -> dict[str, bool]:
        """Bring every tracker up to date.

        Args:
            rows: all rows of the run so far, one per epoch.
            final: the final metrics of a finished run.

        Returns:
            Whether everything was sent, by name, for the trackers that lacked something.
        """
        sent: dict[str, bool] = {}
        for name in self.names:
            try:
                is_sent = self._update_tracker(name, rows, final)
            except Exception as error:  # a server may be away, a disk full, a client may have its own bugs
                is_sent = False
                self._report_failure(name, error)
            if is_sent is not None:
                sent[name] = is_sent
        return sent

    def _update_tracker(self, name: TrackerName, rows: Sequence[Row], final: Mapping[str, Any] | None) -> bool | None:
        """Send what a tracker lacks; return whether it was sent, or None if it lacks nothing, pauses or is off."""
        is_resting = self._is_resting(name, final is not None)
        if is_resting and final is None:
            return None
        place = place_of(name)
        if self._has_all(name, place):
            return None
        if place is None:
            self._say(name, "is switched off: nothing is sent")
            return None
        if is_resting:
            self._say(name, "has just failed; this run is sent by the same command later")
            return False
        self._send(name, place, rows, final)
        _failed.pop(name, None)
        self.reported.discard(name)
        return True

    def send_finished(self) -> dict[str, bool]:
        """Send what trackers lack of the run if it is finished; returns the same as `update`."""
        if not self.run.is_finished or not self.names:
            return {}
        rows = [
            {str(key): float(value) for key, value in row.items() if not math.isnan(value)}
            for row in self.run.metrics.to_dict("records")
        ]
        return self.update(rows, self.run.final)

    def fail(self) -> None:
        """Mark the run as failed at all trackers that were opened in this process."""
        self._at_each(lambda tracker: tracker.fail())

    def close(self) -> None:
        """Close all trackers in this process."""
        self._at_each(lambda tracker: tracker.close())
        self.opened.clear()

    def _at_each(self, act: Callable[[Tracker], None]) -> None:
        for name, tracker in self.opened.items():
            try:
                act(tracker)
            except Exception as error:
                self._report_failure(name, error)

    def _is_resting(self, name: str, is_last: bool) -> bool:
        """Whether to pause sending to a tracker. Pauses of the run itself end with it, pauses of other runs do not."""
        folder, when = _failed.get(name, (self.run.folder, -math.inf))
        has_failed = time.monotonic() - when < PAUSE
        if has_failed and (self.is_late or folder != self.run.folder):
            return True
        return not is_last and (has_failed or time.monotonic() < self.rests_until.get(name, -math.inf))

    def _has_all(self, name: str, place: str | None) -> bool:
        known = self._known(name, place)
        return bool(known.get("finished")) and is_kept(name, self.run, place, known)

    def _known(self, name: str, place: str | None) -> dict[str, Any]:
        """Return the record of the run in this place. Records of earlier versions do not name the place."""
        entries = self.record.get(name, [])
        return next((entry for entry in entries if entry.get("where") in (place, None)), {})

    def _send(self, name: TrackerName, place: str, rows: Sequence[Row], final: Mapping[str, Any] | None) -> None:
        tracker = self.opened.get(name)
        # TensorBoard's files may have been deleted since; what a server keeps is not asked for at every step.
        if tracker is None or (name == "tensorboard" and not is_kept(name, self.run, place, {})):
            known = self._known(name, place)
            if not os.access(self.run.folder, os.W_OK):  # every command would send it again
                raise PermissionError(f"{self.run.folder} cannot be written, so what is sent could not be recorded")
            id_ = known.get("run")
            if name == "wandb" and id_ is None and name in self.record:  # `wandb sync` may have uploaded an offline run
                id_ = next((entry.get("run") for entry in self.record[name]), None)
            tracker = self.opened[name] = open_tracker(name, self.run, self.settings, id_, known.get("rows", 0))
            self._write_record(name, place, tracker, False)
        start = time.monotonic()
        tracker.log(rows[tracker.sent :])
        if final is not None:
            tracker.finish(_numbers(final))
        self._write_record(name, place, tracker, final is not None)
        end = time.monotonic()
        self.rests_until[name] = end + SHARE * (end - start) if end - start > SLOW else end

    def _write_record(self, name: str, place: str, tracker: Tracker, is_finished: bool) -> None:
        others = [entry for entry in self.record.get(name, []) if entry.get("where") not in (place, None)]
        entry = {"where": place, "run": tracker.id, "rows": tracker.sent, "finished": is_finished}
        self.record[name] = [*others, entry]
        write_json(self.run.folder / TRACKED, self.record)

    def _report_failure(self, name: str, error: Exception) -> None:
        """Print the first of consecutive failures, and note the time of each."""
        reason = shortened(without_passwords(f"{type(error).__name__}: {error}"), 200)
        self._say(
            name,
            f"fails ({reason}); the run itself is not affected, and what is missing there is sent when it responds, or "
            "by the same command later",
        )
        _failed[name] = (self.run.folder, time.monotonic())

    def _say(self, name: str, message: str) -> None:
        """Print a message about a tracker, unless one was printed since it was last up to date."""
        if name not in self.reported:
            self.reported.add(name)
            self.progress.say(f"{self.run.folder.name}: the tracker {name} {message}")


@contextlib.contextmanager
def tracked(run: Run, recipe: Recipe, progress: Progress) -> Iterator[Track]:
    """Yield a function that updates the recipe's trackers with all rows so far; send a finished run at the end.

    A run that diverges is marked as failed there.

    Arguments and errors as for `Trackers`.
    """
    with contextlib.closing(Trackers(run, recipe, progress)) as trackers:

        def track(rows: Sequence[Row]) -> None:
            if rows:  # before the first, a start that fails leaves nothing behind
                trackers.update(rows)

        try:
            yield track
        except Diverged:
            trackers.fail()
            raise
        trackers.send_finished()


def send_later(run: Run, recipe: Recipe, progress: Progress) -> dict[str, bool]:
    """Send a run that was finished earlier to the trackers that lack part of it; returns the same as `Trackers.update`.

    TensorBoard is left out unless its event files were deleted: they are written while a run trains, and the folder of
    a finished run may be read-only. Arguments as for `Trackers`.
    """
    training = dataclasses.replace(recipe.training, trackers=_late_trackers(run, recipe))
    with contextlib.closing(Trackers(run, dataclasses.replace(recipe, training=training), progress, True)) as trackers:
        sent = trackers.send_finished()
    for name, is_sent in sent.items():
        if is_sent:
            progress.say(f"{run.folder.name}: sent to {name}, which lacked part of it")
    return sent


def _late_trackers(run: Run, recipe: Recipe) -> tuple[TrackerName, ...]:
    """Return the trackers that may lack part of a finished run; see `send_later`."""
    was_sent = "tensorboard" in _read_record(run) and os.access(run.folder, os.W_OK)
    is_lost = was_sent and not is_kept("tensorboard", run, None, {})
    return tuple(name for name in recipe.training.trackers if name != "tensorboard" or is_lost)


def send_all_later(finished: Sequence[tuple[Run, Recipe]], progress: Progress) -> None:
    """Call `send_later` for the finished runs of a study; a server that does not answer is reported once."""
    missing: Counter[str] = Counter()
    for run, recipe in finished:
        if not _late_trackers(run, recipe):  # locking the folder would leave a file in it
            continue
        try:
            with hold(run.folder, patience=0.0) if os.access(run.folder, os.W_OK) else contextlib.nullcontext():
                sent = send_later(run, recipe, Progress(quiet=True) if missing else progress)
        except FolderInUse:  # another process is sending it
            continue
        except UserError as error:  # a tracker is not installed, or the run is damaged
            progress.say(f"{run.folder.name}: not sent to its trackers: {error}")
            continue
        missing.update(name for name, is_sent in sent.items() if not is_sent)
    for name, count in missing.items():
        runs = "a finished run is" if count == 1 else f"{count} finished runs are"
        progress.say(f"{runs} still to be sent to {name}: run the same command again when it responds")


def _read_record(run: Run) -> dict[str, list[dict[str, Any]]]:
    try:
        record = read_json(run.folder / TRACKED)
        # Earlier versions recorded a single place, without naming it.
        places = {name: [known] if isinstance(known, dict) else known for name, known in record.items()}
        return {name: [dict(place) for place in known] for name, known in places.items()}
    except (OSError, ValueError, TypeError, AttributeError):  # missing or damaged: at worst a tracker starts a new run
        return {}


def _numbers(final: Mapping[str, Any]) -> dict[str, float]:
    """Return the numbers among the final metrics, named like final/test_accuracy to differ from columns of rows."""
    return {
        f"final/{key.replace('.', '_')}": float(value)
        for key, value in flatten(final)
        if isinstance(value, int | float) and not isinstance(value, bool)
    }
