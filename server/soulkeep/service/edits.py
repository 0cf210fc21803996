"""Edits of documents that can be taken back: their hunks go into the log of changes, not whole texts."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from datetime import date
from functools import partial
from pathlib import Path

from soulkeep.documents import DOCUMENTS, DocumentName, Documents, Hunk, TextEdit
from soulkeep.documents.files import locked
from soulkeep.documents.hunks import find_hunks
from soulkeep.errors import UndoConflictError
from soulkeep.models import ChangedRow, DocumentEdit

EDITED = "edited"
"""Stands for the digest of an edited document: what the user changes elsewhere in it does not matter."""

Written = Mapping[str, Sequence[Hunk]]
"""What was done to documents, by their names in the home."""


def row_of(name: str, hunks: Sequence[Hunk]) -> ChangedRow:
    """Return what the log of changes holds of an edit, its hunks in the order they were made in."""
    return ChangedRow("documents", name, DocumentEdit(tuple(map(asdict, hunks))), EDITED)


def hunks_of(row: ChangedRow) -> list[Hunk]:
    """Return the hunks of an edit, in the order in which they were made."""
    return [Hunk(**hunk) for hunk in row.before.hunks] if isinstance(row.before, DocumentEdit) else []


class Edits:
    """Edits documents, says what that did, and takes it back."""

    def __init__(self, documents: Documents) -> None:
        self._documents = documents

    def edit(
        self, name: DocumentName, change: TextEdit, *, dated: bool = True
    ) -> tuple[str, list[Hunk]]:
        """Change a document's text and date its footer; return the new text and what that did.

        Raises:
            DocumentError: It cannot be read or written.
            InvalidInputError: The new text is none that a file can hold.
        """
        return self.edit_in_steps(name, lambda text: [change(text)], dated=dated)

    def edit_in_steps(
        self, name: DocumentName, steps: Callable[[str], Iterable[str]], *, dated: bool = True
    ) -> tuple[str, list[Hunk]]:
        """Change a document's text to the last of the texts that `steps` makes of it, as `edit` does.

        Each step can be taken back alone. Without one, nothing is changed.

        Raises:
            DocumentError: It cannot be read or written.
            InvalidInputError: The new text is none that a file can hold.
        """
        from soulkeep.documents.markdown import date_footer

        day = self._documents.today().isoformat()
        hunks: list[Hunk] = []

        def changed(text: str) -> str:
            hunks.clear()
            new, before = text, date_footer(text, "")
            for new in steps(text):
                # Without the footer's date, which would make one place of all that stands above it.
                after = date_footer(new, "")
                hunks.extend(find_hunks(before, after))
                before = after
            return date_footer(new, day) if dated and new is not text else new

        return self._documents.edit(name, changed), hunks

    def take_back(self, row: ChangedRow) -> None:
        """Take back what was done to a document a moment ago.

        Raises:
            UndoConflictError: It does not stand any more.
            DocumentError: The document cannot be read or written.
        """
        _Reversal(self._documents, [row]).write()

    @contextmanager
    def taking_back(self, rows: Sequence[ChangedRow]) -> Iterator[Callable[[], Written]]:
        """Take edits back, the first row first; the block is handed the function that writes the files.

        Until it is left no other process writes documents, and where it fails they are as they were.

        Raises:
            UndoConflictError: What an edit did no longer stands; nothing is written.
            DocumentError: A document cannot be read or written.
        """
        if not rows:
            yield dict
            return
        with locked(self._documents.home), ExitStack() as on_failure:
            names = dict.fromkeys(row.key for row in rows)
            reversals = [
                _Reversal(self._documents, [r for r in rows if r.key == name]) for name in names
            ]
            for reversal in reversals:
                reversal.dry_run()
            yield partial(_write, reversals, on_failure)
            on_failure.pop_all()


def _write(reversals: Sequence["_Reversal"], on_failure: ExitStack) -> Written:
    written = {}
    for reversal in reversals:
        written[reversal.name] = reversal.write()
        on_failure.callback(reversal.opposite().write)
    return written


class _Reversal:
    """Edits of one document to be taken back, the first row first."""

    def __init__(self, documents: Documents, rows: Sequence[ChangedRow]) -> None:
        self.name = rows[0].key
        self._page = _page(self.name)
        self._documents = documents
        self._rows = rows
        self._text: str | None = None
        self._new = ""
        self._hunks: list[Hunk] = []

    def dry_run(self) -> None:
        if isinstance(self._page, date):
            self._changed(self._documents.read_daily(self._page) or "")
        else:
            self._changed(self._documents.read(self._page))

    def write(self) -> Sequence[Hunk]:
        self._documents.edit(self._page, self._changed)
        return self._hunks

    def opposite(self) -> "_Reversal":
        return _Reversal(self._documents, [row_of(self.name, self._hunks)])

    def _changed(self, text: str) -> str:
        # Done in the dry run already, unless the user was quicker: that saves seconds in a long one.
        if text != self._text:
            new = self._taken_back(self._dated(text, ""))
            self._text, self._new = text, self._dated(new, self._documents.today().isoformat())
        return self._new

    def _taken_back(self, text: str) -> str:
        self._hunks = []
        for row in self._rows:
            for hunk in reversed(hunks_of(row)):
                taken = hunk.take_back(text)
                if taken is None:
                    raise UndoConflictError(
                        row.change_id, row.kind, row.key, text=(hunk.added or hunk.above).strip()
                    )
                text, back = taken
                self._hunks.append(back)
        return text

    def _dated(self, text: str, day: str) -> str:
        from soulkeep.documents.markdown import date_footer

        return text if isinstance(self._page, date) else date_footer(text, day)


def _page(name: str) -> DocumentName | date:
    for document in DOCUMENTS:
        if name == document:
            return document
    return date.fromisoformat(Path(name).stem)
