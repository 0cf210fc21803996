"""What changes did, in a few words each, so that one of them can be chosen to be undone."""

from collections.abc import Sequence
from dataclasses import dataclass

from soulkeep.models import Change, ChangedRow, GlobalPrompt, Memory, Message, RowKind, RowValue, Thread
from soulkeep.repository import Repository
from soulkeep.service.edits import hunks_of
from soulkeep.wording import row_name

ROWS = 3
"""How many rows of a change are told apart; the others are counted."""

_KEPT_CHARACTERS = 1_000


@dataclass(frozen=True, slots=True)
class RowSummary:
    """What a change did to one row or document, and the beginning of its text: data that others wrote.

    The text is a memory's or message's, the title of a thread, the name of a prompt, or a line. `done`
    is added, changed, removed, or replaced with the memory that came in its place.
    """

    kind: RowKind
    key: str
    done: str
    text: str

    @property
    def name(self) -> str:
        """What was changed, in a form that nothing else shares: #12 is always a memory."""
        return row_name(self.kind, self.key)


@dataclass(frozen=True, slots=True)
class ChangeSummary:
    """A change, the first rows that it touched, and how many there are in all."""

    change: Change
    rows: tuple[RowSummary, ...]
    count: int


def summarize(repository: Repository, changes: Sequence[Change]) -> list[ChangeSummary]:
    """Return what changes did.

    Raises:
        StoreError: The store cannot be read.
    """
    counts = repository.changes.row_counts([change.id for change in changes])
    return [
        ChangeSummary(
            change,
            tuple(_summary(repository, r) for r in repository.changes.rows_of(change.id, ROWS)),
            counts.get(change.id, 0),
        )
        for change in changes
    ]


def _summary(repository: Repository, row: ChangedRow) -> RowSummary:
    if row.kind == "documents":
        hunks = hunks_of(row)
        is_new, is_gone = not any(h.removed for h in hunks), not any(h.added for h in hunks)
        text = " ".join(hunk.added if hunk.added.strip() else hunk.removed for hunk in hunks[:ROWS])
    else:
        is_new, is_gone = row.before is None, row.after is None
        text = _text(row.before or repository.changes.after(row))
    done = "added" if is_new else "removed" if is_gone else "changed"
    if is_gone and row.replaced_by is not None:
        done = f"replaced by #{row.replaced_by}"
    return RowSummary(row.kind, row.key, done, text[:_KEPT_CHARACTERS])


def _text(value: RowValue | None) -> str:
    if isinstance(value, GlobalPrompt):
        return value.name
    if isinstance(value, Thread):
        return value.title
    return value.content if isinstance(value, Memory | Message) else ""
