"""How results of a user's own training loop were interpreted, for the terminal."""

from __future__ import annotations

from rich.console import Group
from rich.text import Text

from emoreg.errors import printable
from emoreg.report.formatting import count, seeds_in_words
from emoreg.report.own_notes import not_checked, taken_arms, taken_values
from emoreg.report.own_results import OwnResults
from emoreg.runtime.terminal import Table


def own_table(own: OwnResults) -> Group:
    """A row for each arm, then lines on the other columns and on what could not be checked."""
    arms = taken_arms(own)
    cells = list(dict.fromkeys(arm.cell for arm in arms))
    columns = {
        "in the table": [arm.given for arm in arms],
        "arm": [arm.label for arm in arms],
        "mode": [arm.arm.mode for arm in arms],
        "experience": [arm.arm.experience or "–" for arm in arms],
        "variant": [arm.arm.variant or "–" for arm in arms],
        "stimuli": [arm.arm.stimuli or "–" for arm in arms],
        "role": [arm.role for arm in arms],
        "target, backbone": [arm.cell for arm in arms],
        "seeds": [f"{len(arm.seeds)}: {seeds_in_words(arm.seeds)}" for arm in arms],
    }
    is_redundant = {"arm": columns["arm"] == columns["in the table"], "target, backbone": len(cells) == 1}
    is_redundant |= {name: set(columns[name]) == {"–"} for name in ("variant", "stimuli")}
    shown = {name: values for name, values in columns.items() if not is_redundant.get(name)}
    table = Table(*shown, box=None, header_style="bold")
    for row in zip(*shown.values(), strict=True):
        table.add_row(*row)
    where = f" of {cells[0]}" if len(cells) == 1 and cells[0] else ""
    title = f"{own.source}: {count(len(own.places), 'run')}{where}, from your own training loop"
    lines = [*taken_values(own), "Not checked:", *(f"  {sentence}" for sentence in not_checked(own))]
    return Group(Text(printable(title), "bold"), table, Text("\n".join([*map(printable, lines), ""])))
