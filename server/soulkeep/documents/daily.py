"""Daily logs: what is appended to one, and how its entries are read back."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import date, time

from soulkeep.documents.blocks import split_lines
from soulkeep.documents.markdown import Entry, list_entries, list_sections

_HEADER = re.compile(r"##[ \t]+([01]?\d|2[0-3]):([0-5]\d)(?!\d)[ \t]*(.*)")
_HEADER_LEVEL = 2


def log_title(day: date) -> str:
    """Return the line that a log begins with."""
    return f"# {day.isoformat()}\n"


def log_addition(former: str, at: str, item: Sequence[str]) -> str:
    """Return what to append to a log that holds `former`: a header with the time, and an item."""
    newline = "\r\n" if former.endswith("\r\n") else "\n"
    lines = ["", f"## {at}", "", *item, ""]
    return newline.join(lines if former.endswith("\n") else ["", *lines])


def list_daily_entries(day: date, text: str) -> list[tuple[Entry, time | None]]:
    """Return the entries of a day's log, each with the time of the header that it stands under.

    A line with a time begins an entry even inside a fence that nobody closed, so that a forgotten fence
    cannot hide what was logged later. What stands under no such header has no time. The heading of an
    entry is what its header says besides the time, else the day.
    """
    lines = split_lines(text)
    cuts = [number for number, line in enumerate(lines) if _HEADER.match(line)]
    return [
        timed
        for first, last in zip([0, *cuts], [*cuts, len(lines)], strict=True)
        for timed in _timed(day, "".join(lines[first:last]), first)
    ]


def _timed(day: date, text: str, offset: int) -> Iterator[tuple[Entry, time | None]]:
    """Return the entries of one header, in whose section others may stand."""
    header = _HEADER.match(text)
    others = list_sections(text)[header is not None :]
    beside = [section.first for section in others if section.level <= _HEADER_LEVEL]
    for entry in list_entries(text):
        is_timed = header is not None and all(entry.first < first for first in beside)
        is_own = is_timed and all(entry.first < section.first for section in others)
        heading = header[3].strip() if header and is_own else entry.heading
        yield (
            replace(
                entry,
                heading=heading or day.isoformat(),
                first=entry.first + offset,
                last=entry.last + offset,
            ),
            time(int(header[1]), int(header[2])) if header and is_timed else None,
        )
