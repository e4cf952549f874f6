"""A report's notes on the method's settings: edition, each branch's gradient at the start, takeover."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from emoreg.config.loss import LossSettings, LossWeights
from emoreg.config.optimizer import SCALE_FREE
from emoreg.report.formatting import all_of, count, decimal
from emoreg.report.run_frame import MODES
from emoreg.runs.catalogue import is_missing
from emoreg.study.arms import REGULATED
from emoreg.study.columns import SETTINGS

if TYPE_CHECKING:
    import pandas as pd

    Row = Mapping[str, Any]

FIRST_EDITION = (
    "These runs are from the first edition of the method, in which gradients were not matched, so differences from "
    "Backbone and the ensemble also reflect step size, and all controls had one mode, so they are twins only of the "
    "arm with that mode."
)
PLAN = ("mode", "experience", "variant", "edition", "purpose", "planned_seeds", "first_seed", "looks")
TAKEOVERS = {"as_is": "as it is", "norm_matched": "norm-matched", "shrunk": "shrunk and perturbed"}


@dataclass(frozen=True)
class MethodNotes:
    """Settings of the method in words."""

    editions: tuple[int, ...] = ()
    facts: tuple[tuple[str, str], ...] = ()  # (name, value)
    remarks: tuple[str, ...] = ()  # sentences: what the settings mean for the findings


def method_notes(runs: pd.DataFrame) -> MethodNotes:
    """Notes on finished runs of stage 2, from the rows of a table of results and their settings, if these are known."""
    editions = tuple(sorted({1 if is_missing(row.get("edition")) else int(row["edition"]) for row in _rows(runs)}))
    rows = [row for row in _rows(runs) if row["mode"] in REGULATED and not is_missing(_setting(row, "loss.regulated"))]
    facts = {
        "Edition of the method": all_of([str(edition) for edition in editions]) if editions else "",
        "Plan": "; ".join(dict.fromkeys(plan for row in _rows(runs) if (plan := _plan(row)))),
        "Loss": _by_line(rows, _loss),
        "Gradient budget": _by_line(rows, _budget),
        "Takeover of the encoder": _by_line([row for row in rows if row["experience"] != "fresh"], _takeover),
    }
    remarks = [*_as_given(rows), *_rehearsing(rows), *_frozen(rows), *_features(rows), *_scale_free(rows)]
    return MethodNotes(editions, tuple((name, value) for name, value in facts.items() if value), tuple(remarks))


def _rows(runs: pd.DataFrame) -> list[dict[str, Any]]:
    names = [name for name in runs if str(name).startswith(SETTINGS)]
    rows = runs.reindex(columns=[*PLAN, *names]).to_dict("records")
    return [{str(name): value for name, value in row.items()} for row in rows]


def _plan(row: Row) -> str:
    """Purpose, seeds and looks of a run's plan; empty for a run without one, as in the first edition."""
    seeds, looks = row["planned_seeds"], row["looks"]
    if is_missing(seeds):
        return "" if is_missing(row["purpose"]) else str(row["purpose"])
    at = [] if looks is None or isinstance(looks, float) or len(looks) < 2 else [str(int(look)) for look in looks]
    when = f", looks at {all_of(at)}" if at else ""
    first = "" if is_missing(row["first_seed"]) else f" from {int(row['first_seed'])} on"
    return f"{row['purpose']}, {count(int(seeds), 'seed')}{first}{when}"


def _setting(row: Row, name: str) -> Any:
    return row.get(f"{SETTINGS}{name}")


def _arm(row: Row) -> str:
    return MODES[row["mode"]] + ("" if is_missing(row["variant"]) else f", {row['variant']}")


def _by_line(rows: Iterable[Row], line: Callable[[Row], str]) -> str:
    """The lines about all arms; a line that arms share is given once with their names."""
    arms: dict[str, dict[str, None]] = {}
    for row in rows:
        arms.setdefault(line(row), {})[_arm(row)] = None
    if len(arms) == 1:
        return next(iter(arms))
    return "; ".join(f"{all_of(list(names))}: {line}" for line, names in arms.items())


def _weights(row: Row) -> LossWeights:
    given = [_setting(row, f"loss.{name}") for name in ("regulated", "non_emotional", "emotional")]
    a, a_n, a_e = (None if is_missing(value) else float(value) for value in given)
    m = _setting(row, "loss.mutual")
    settings = LossSettings(regulated=a, non_emotional=a_n, emotional=a_e, mutual=0.0 if is_missing(m) else float(m))
    return settings.weights(has_two=True)


def _shares(row: Row) -> tuple[float, float]:
    """The starting gradients of backbone branch and encoder without a budget, in units of Backbone's."""
    from emoreg.models.gradient_budget import expected_start, gradient_shares  # imports torch

    return gradient_shares(_weights(row), expected_start(row["mode"], float(_setting(row, "regulation.lam"))))


def _is_matched(row: Row) -> bool:
    return _setting(row, "loss.budget") == "matched"


def _loss(row: Row) -> str:
    """The terms of the loss, and what is mixed."""
    a, a_n, a_e, m = _weights(row)
    terms = ((a, "CE(z, y)"), (a_n, "CE(z_n, y)"), (a_e, "CE(z_e, y)"), (m, "D(z_n, z_e)"))
    mixed = _setting(row, "regulation.mix")
    loss = " + ".join(f"{weight:g} · {term}" for weight, term in terms if weight)
    return loss if is_missing(mixed) else f"{loss}, {mixed} mixed"


def _budget(row: Row) -> str:
    if _is_matched(row):
        n, e = map(decimal, _shares(row))
        return f"matched: both branches start with Backbone's gradient (the loss alone would give {n} and {e} of it)"
    return f"as given: {_start(row)}"


def _start(row: Row) -> str:
    n, e = map(decimal, _shares(row))
    return f"the backbone branch starts with {n} of Backbone's gradient, the encoder with {e}"


def _takeover(row: Row) -> str:
    kind = _takeover_of(row)
    shrink = f" (s = {_setting(row, 'encoder.shrink'):g})" if kind == "shrunk" else ""
    return TAKEOVERS[kind] + shrink


def _takeover_of(row: Row) -> str:
    kind = _setting(row, "encoder.takeover")
    return "as_is" if is_missing(kind) else str(kind)


def _as_given(rows: Sequence[Row]) -> list[str]:
    unmatched = [
        row
        for row in rows
        if row["edition"] != 1
        and not _is_matched(row)
        and _setting(row, "optimizer.name") not in SCALE_FREE
        and any(abs(share - 1) > 0.005 for share in _shares(row))
    ]
    if not unmatched:
        return []
    return [
        f"The gradient budget of {all_of(_names(unmatched))} is as given ({_by_line(unmatched, _start)}): "
        "differences from Backbone, the ensemble, transfer and unregulated also reflect step size."
    ]


def _rehearsing(rows: Sequence[Row]) -> list[str]:
    rehearsed = [row for row in rows if not is_missing(weight := _setting(row, "encoder.rehearsal")) and weight > 0]
    if not rehearsed:
        return []
    return [
        f"In stage 2 the encoder of {all_of(_names(rehearsed))} keeps learning from the stimuli of stage 1 "
        "(encoder.rehearsal): differences from arms without rehearsal, such as Backbone, the ensemble, fresh and "
        "moments, also reflect these images and steps."
    ]


def _frozen(rows: Sequence[Row]) -> list[str]:
    frozen = [
        row
        for row in rows
        if not is_missing(value := _setting(row, "encoder.frozen"))
        and value
        # After a shrunk takeover the statistics of moments are estimated anew.
        and (row["experience"] == "fresh" or (row["experience"] == "moments" and _takeover_of(row) != "shrunk"))
    ]
    if not frozen:
        return []
    twins = all_of(list(dict.fromkeys(row["experience"] for row in frozen)))
    return [
        f"The encoder of {all_of(_names(frozen))} is frozen. Its batch norms, if it has any, keep in {twins} the "
        "statistics that stage 1 started from, in the other twins those of images: differences from "
        f"{twins} also reflect these statistics."
    ]


def _features(rows: Sequence[Row]) -> list[str]:
    mixed = [row for row in rows if _setting(row, "regulation.mix") == "features"]
    if not mixed:
        return []
    sums = sorted({sum(_weights(row)[:3]) for row in mixed})
    return [
        f"{all_of(_names(mixed))} mix{'es' if len(_names(mixed)) == 1 else ''} features: the head that both branches "
        f"share gets {all_of([decimal(value) for value in sums])} times the gradient of Backbone's head."
    ]


def _scale_free(rows: Sequence[Row]) -> list[str]:
    used = {_setting(row, "optimizer.name") for row in rows}
    return [
        f"{words} is insensitive to the scale of the loss: with it, a matched gradient budget and one as given are "
        "the same."
        for name, words in SCALE_FREE.items()
        if name in used
    ]


def _names(rows: Iterable[Row]) -> list[str]:
    return list(dict.fromkeys(_arm(row) for row in rows))
