"""Tables for the terminal: the catalogue, and the findings of `verify`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.text import Text

from emoreg.data.stimuli.published import IMAGES
from emoreg.errors import printable
from emoreg.runtime.terminal import Table, two_columns

if TYPE_CHECKING:  # verify needs torch, the catalogue does not
    from emoreg.data.tools.catalogue import Entry
    from emoreg.data.tools.verify import Findings

MAX_CLASSES = 30  # up to which each class has a row


def catalogue_list(entries: Sequence[Entry], root: Path) -> Group:
    """List every set with its size, labels, source, licence and place.

    Args:
        entries: from `catalogue`.
        root: the folder that was searched, for the message.
    """
    parts: list[RenderableType] = []
    for kind, title in (("stimuli", "Stimuli of stage 1"), ("target", "Targets of stage 2")):
        parts.append(Text(f"{title}\n", style="bold underline"))
        for entry in entries:
            if entry.kind == kind:
                facts = Table.grid("key", "text", padding=(0, 2, 0, 0))
                for key, value in _facts(entry, root):
                    facts.add_row(key, value)
                parts.append(Text.assemble((entry.name, "bold"), "  ", entry.about.title))
                parts.append(Padding(facts, (0, 0, 1, 4), expand=False))
    return Group(*parts)


def _facts(entry: Entry, root: Path) -> Iterator[tuple[str, Text]]:
    about = entry.about
    yield "images", Text(about.size)
    yield "labels", Text(about.labels)
    yield "from", Text(about.source)
    yield "licence", Text(about.licence)
    if entry.needs_no_files:
        yield "here", Text("yes, it needs no files", "green")
        return
    yield "layout", Text(about.layout)
    if entry.places:
        packs = {place: f" (a pack of {place.pack_of} pixels)" if place.pack_of else "" for place in entry.places}
        yield "here", Text(", ".join(f"{place.root}{pack}" for place, pack in packs.items()), "green")
    elif entry.can_be_found:
        yield "here", Text(f"no, not in {root}", "dim")


def findings_tables(findings: Findings, limit: int) -> Group:
    """Show notes, images by class and split, and for each kind of problem their number and the first ones.

    Args:
        findings: from `verify`.
        limit: largest number of problems of each kind to list.
    """
    leaks = [" = ".join(f"{printable(name)} ({split})" for name, split in group) for group in findings.leaks]
    repeats = [" = ".join(printable(name) for name, _ in group) for group in findings.repeats]
    problems: dict[str, list[str]] = {
        "labels that cannot be read": [] if findings.error is None else [findings.error],
        "unreadable images": [reason for _, reason in findings.unreadable],
        "rows whose image is missing": findings.missing,
        "images that no row names": [printable(name) for name in findings.unnamed],
        "same pixels in several splits (a leak)": leaks,
        "same pixels twice in a split": repeats,
    }
    parts: list[RenderableType] = [Text(printable(line)) for line in (*findings.notes, *findings.left_out)]
    if findings.error is None:
        parts.append(_counts(findings))
    if findings.published:
        parts.append(_published(findings))
    counts = (Text(f"{len(found):,}", "bold red" if found else "green") for found in problems.values())
    parts.append(two_columns("check", "found", zip(problems, counts, strict=True)))
    for problem, found in problems.items():
        if found:
            parts.append(Text(f"{problem}:", "bold"))
        parts += (Text(f"  {line}", no_wrap=True, overflow="ignore") for line in found[:limit])
        if len(found) > limit:
            parts.append(Text(f"  and {len(found) - limit:,} more (--show N, or --json for all)"))
    return Group(*parts)


def _counts(findings: Findings) -> Table:
    """Images by class and split, or the ranges of valence, arousal, ... by split."""
    by_label: dict[str, Any] = {**findings.counts, **findings.ranges}  # one of them is empty
    splits = list(next(iter(by_label.values()), ()))
    columns = [f"{split}: lowest, mean, highest" for split in splits] if findings.ranges else splits
    title = Text(printable(f"{findings.name}: {findings.images:,} images"))
    table = Table("dimension" if findings.ranges else "class", *columns, title=title, title_justify="left")
    for column in table.columns[1:]:
        column.justify = "right"
    for name, ranges in findings.ranges.items():
        table.add_row(name, *("  ".join(f"{number:+.2f}" for number in ranges[split]) for split in splits))
    if findings.counts:
        numbers = [[by_split[split] for by_split in findings.counts.values()] for split in splits]
        if len(findings.counts) > MAX_CLASSES:
            each = (f"{min(column):,} to {max(column):,}" for column in numbers)
            table.add_row(f"{len(findings.counts)} classes, each", *each)
        else:
            for name, by_split in findings.counts.items():
                table.add_row(Text(printable(name)), *(f"{by_split[split]:,}" for split in splits))
        table.add_section()
        table.add_row("all", *(f"{sum(column):,}" for column in numbers))
    return table


def _published(findings: Findings) -> Table:
    """Compare with the numbers of the set's authors: the whole set, and each count that differs."""
    shown = [row for row in findings.published if row.what == IMAGES or row.verdict != "as published"]
    others = len(findings.published) - len(shown)
    more = f", {others} more counts as published" if others else ""
    table = Table("count", "found", "published", "", title=Text(f"found and published{more}"), title_justify="left")
    for column in table.columns[1:3]:
        column.justify = "right"
    for row in shown:
        verdict = f"{row.verdict}: {row.why}" if row.why else row.verdict
        table.add_row(row.what, f"{row.found:,}", f"{row.published:,}", verdict)
    return table
