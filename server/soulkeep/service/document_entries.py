"""What the entries of a document are as memories."""

from collections.abc import Sequence
from datetime import UTC, date, datetime, time, tzinfo
from pathlib import Path
from typing import TYPE_CHECKING

from soulkeep.models import Memory, NewMemory, timestamp
from soulkeep.search.words import same_title
from soulkeep.service.document_looks import MEMORY

if TYPE_CHECKING:
    from soulkeep.documents.markdown import Outline
    from soulkeep.service.passages import Passages

_SECTION_TYPES = {
    "user facts": "fact",
    "project context": "fact",
    "preferences": "preference",
    "important decisions": "decision",
}
"""What the entries of a section are, and of all sections in it that have no type of their own."""

Key = tuple[str, str, str | None, str | None]
"""What tells an entry from others: its text, type and source, and its date where it has one."""


def entries_of(name: str, text: str, zone: tzinfo | None, passages: "Passages") -> list[NewMemory]:
    """Return the entries of a document; `passages` has those of MEMORY.md as it was read before."""
    from soulkeep.documents.markdown import list_daily_entries

    if name == MEMORY:
        entries = passages.list_entries(text)
        return [_memory(name, entry.heading, entry.text, None, entry.outline) for entry in entries]
    day = day_of_log(name)
    return [
        _memory(
            name,
            entry.heading if at is None else f"{at:%H:%M}",
            entry.text,
            _moment(day, at or time(12), zone),
            entry.outline if at is None else (),
        )
        for entry, at in list_daily_entries(day, text)
    ]


def keys_of(entries: Sequence[NewMemory | Memory]) -> list[Key]:
    """Return the key of each entry."""
    # An entry of MEMORY.md has no date of its own; it is dated by when it was first seen.
    return [
        (e.content, e.memory_type, e.source, e.occurred_at if e.document != MEMORY else None)
        for e in entries
    ]


def day_of_log(name: str) -> date:
    """Return the day of a log by its name in the home."""
    return date.fromisoformat(Path(name).stem)


def _memory(
    name: str, heading: str, text: str, occurred_at: str | None, outline: "Outline"
) -> NewMemory:
    from soulkeep.documents.blocks import plain_title

    titles = [same_title(plain_title(title)) for _, title in outline]
    types = [_SECTION_TYPES[title] for title in titles if title in _SECTION_TYPES]
    return NewMemory(
        content=text,
        memory_type=types[-1] if types else "fact" if name == MEMORY else "summary",
        source=f"{name}: {heading}" if heading else name,
        occurred_at=occurred_at,
        document=name,
    )


def _moment(day: date, at: time, zone: tzinfo | None) -> str:
    try:
        return timestamp(datetime.combine(day, at, zone))
    except (ValueError, OverflowError):  # on the first or last day of the calendar
        return timestamp(datetime.combine(day, at, UTC))
