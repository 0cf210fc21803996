"""What the service may ask of the undo log of a store.

Memories (no entries of documents), threads, messages and global prompts are written inside
`Repository.recording` alone. There the engine itself notes each of them as it was before it was changed
or deleted, and each that was added, whoever writes it and how: nobody can forget to. At the end the
service says what the change was, and the rows go into the log with it.
"""

from collections.abc import Iterable, Sequence
from typing import Protocol

from soulkeep.models import Change, ChangedRow, RowKind, RowValue, Session, Vector


class UnrecordedChangeError(Exception):
    """Something that can be undone was written outside `Repository.recording`: the program is wrong."""


class Recording(Protocol):
    """A change while it is made."""

    def rows(self) -> list[ChangedRow]:
        """Return what has changed until now, each row once, in the order of the first writes.

        What is as it was before is left out. That a thread was used is no change of it.
        """

    def save(
        self, action: str, session: Session, now: str, rows: Sequence[ChangedRow], undone: Sequence[int]
    ) -> int:
        """Put the change into the log with these of its rows and with edits of documents; return its id.

        `undone` are the changes that it takes back; what those had taken back is in force again.
        """


class Changes(Protocol):
    """What was changed, by whom, and each changed row as it was before."""

    def put_back(self, row: ChangedRow, vector: Vector | None, now: str) -> None:
        """Make a row what it was before a change, with all that is derived from it; in a recording.

        A memory whose expiry is `now` or before comes back without it. When a thread was last used stays
        as it is.

        Raises:
            UndoConflictError: The row is not as the change left it, something belongs to the thread that
                would go, or the thread is gone that the row would belong to. An added row may have been
                changed since, and an expiry that was cleared does not count.
        """

    def get_change(self, change_id: int) -> Change:
        """Return one change; ChangeNotFoundError where there is none with this id, or no longer."""

    def list_changes(self, limit: int, before: int | None = None, since: str = "") -> list[Change]:
        """Return changes with ids below `before`, made since a timestamp, largest id first."""

    def last_id(self) -> int:
        """Return the id of the last change; 0 where there is none."""

    def lists_threads_anew(self, after: int) -> bool:
        """Whether the changes with ids above made, deleted, renamed, archived or resumed a thread."""

    def rows_of(self, change_id: int, limit: int = -1) -> list[ChangedRow]:
        """Return what a change did: threads, prompts, memories, documents, messages, each by number."""

    def row_counts(self, change_ids: Sequence[int]) -> dict[int, int]:
        """Return how many rows each of these changes touched."""

    def rows_about(self, kind: RowKind, *keys: str) -> list[ChangedRow]:
        """Return what changes did to rows of these keys, oldest change first."""

    def after(self, row: ChangedRow) -> RowValue | None:
        """Return a row as a change left it, as far as that is known; None where it was gone."""

    def list_trash(self, limit: int, before: int | None = None) -> list[ChangedRow]:
        """Return memories that are gone, no entries, each as it last was, latest change first.

        Only those that went by changes with ids below `before`.
        """

    def edits_of_documents(self, change_ids: Iterable[int] | None = None) -> list[ChangedRow]:
        """Return what changes, or these of them, did to documents, oldest change first."""

    def latest_ids(self, memory_ids: Iterable[int]) -> dict[int, int]:
        """Return for each id the last that came in its place, one after another; or the id itself.

        That is known for ever, also where the changes are no longer kept.
        """

    def replaced_by(self, memory_ids: Iterable[int]) -> set[int]:
        """Return the ids of the memories that one of these replaced."""

    def latest_of(self, keys: Sequence[tuple[str, str]], above: int, but: Sequence[int]) -> list[int]:
        """Return for each kind and key the last change in force with an id above one, but for some.

        In force is what is not undone. An undo counts only where there is nothing else.
        """

    def find_saying(self, texts: Sequence[str]) -> list[tuple[str, str]]:
        """Return kind and key, in order, of the rows that once held one of the texts."""

    def delete_rows(self, rows: Sequence[ChangedRow]) -> None:
        """Forget what changes did to rows, and changes that did nothing else; inside a transaction."""

    def delete_before(self, moment: str | None) -> int:
        """Forget changes made before a timestamp, or all; inside a transaction. Return how many."""
