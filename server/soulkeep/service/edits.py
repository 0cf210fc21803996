"""Edits of documents that can be taken back, and the lines of MEMORY.md that memories were promoted to.

The hunks of an edit go into the log of changes, not whole texts. Promoted lines go, change and come back
with their memories.
"""

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field, replace
from datetime import date
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from soulkeep.documents import DOCUMENTS, Documents, Hunk
from soulkeep.documents.markdown import find_hunks
from soulkeep.errors import DocumentError, InvalidInputError, UndoConflictError
from soulkeep.models import ChangedRow, DocumentEdit, Memory
from soulkeep.repository import Repository
from soulkeep.service.callers import MAX_ENTRY, LineChange
from soulkeep.service.document_index import MEMORY
from soulkeep.wording import in_one_form

if TYPE_CHECKING:
    from soulkeep.documents.markdown import Entry


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


class PlannedEdit:
    """An edit of a document, tried on its present text before anything is locked or written.

    Where the text is another one when it is written, it is done anew. `hunks` says what it does,
    and `text` what it makes of the document.
    """

    def __init__(
        self, documents: Documents, name: str, change: Callable[[str], tuple[str, list[Hunk]]]
    ) -> None:
        self.name, self.hunks = name, list[Hunk]()
        document = next((document for document in DOCUMENTS if document == name), None)
        self._page = document or date.fromisoformat(Path(name).stem)
        self._documents, self._change = documents, change
        self._before: str | None = None
        self.text = ""
        if isinstance(self._page, date):
            self._changed(documents.read_daily(self._page) or "")
        else:
            self._changed(documents.read(self._page))

    @property
    def changes_nothing(self) -> bool:
        """Whether the text is what it was, the date in its footer included."""
        return self.text == self._before

    def write(self, on_failure: ExitStack) -> str:
        """Write it, to be taken back by `on_failure` where that does not come with the store's rows.

        Return the new text.
        """
        text = self._documents.edit(self._page, self._changed)
        take_back_later(on_failure, self._documents, self.name, self.hunks)
        return text

    def _changed(self, text: str) -> str:
        if text != self._before:  # else it was done already, which in a long one saves seconds
            self.text, self.hunks = self._change(text)
            self._before = text
        return self.text


@dataclass(eq=False)
class ChangeRecorder:
    """What the store cannot know of a change: edits of documents, and whose place a memory took."""

    edited: dict[str, list[Hunk]] = field(default_factory=dict)
    replaced_by: dict[int, int] = field(default_factory=dict)
    _was_replaced_by: dict[int, int] = field(default_factory=dict)
    undone: Sequence[int] = ()
    change_id: int = 0
    lines: Sequence[LineChange] = ()
    when_saved: Callable[[int], None] = field(default=lambda change_id: None)
    """Called in the transaction with the id of the change, 0 where nothing changed."""
    put_down: Callable[[], None] = field(default=lambda: None)
    """Puts what was done until now into the log, so that it need not be in memory; no row of it may be
    touched again, nor the line of a memory be linked to one."""
    on_failure: ExitStack = field(default_factory=ExitStack)
    """Takes back what was done outside the store, should the change fail."""

    def put_back(self, row: ChangedRow) -> None:
        """Note that a row is what it was before a change, and what this means for what replaced it."""
        if row.replaced_by is not None:
            self._was_replaced_by.setdefault(int(row.key), row.replaced_by)
            if row.before is not None:
                self.replaced_by.setdefault(row.replaced_by, int(row.key))

    def edit(self, name: str, hunks: Sequence[Hunk]) -> None:
        """Note what was done to a document, if anything was."""
        if hunks:
            self.edited.setdefault(name, []).extend(hunks)

    def with_place_taken(self, row: ChangedRow, find: Callable[[list[int]], object]) -> ChangedRow:
        """Return a row with what took the place of a memory, or had it; `find` says what is there."""
        later = {**self._was_replaced_by, **self.replaced_by}
        if row.kind != "memories" or not later:
            return row
        found = later.get(int(row.key))
        while row.after is None and found is not None and not find([found]):
            found = later.pop(found, None)
        return replace(row, replaced_by=found)


def take_back_later(
    on_failure: ExitStack, documents: Documents, name: str, hunks: Sequence[Hunk]
) -> None:
    """Take an edit back by `on_failure`, where that does not come with the store's rows."""
    if hunks and not documents.texts.in_store:
        change = partial(_taken_back, documents, [row_of(name, hunks)])
        on_failure.callback(lambda: PlannedEdit(documents, name, change).write(ExitStack()))


def _taken_back(documents: Documents, rows: Sequence[ChangedRow], text: str) -> tuple[str, list[Hunk]]:
    """Return a text without edits of one document, the first row first, and what that does."""
    from soulkeep.documents.markdown import date_footer

    is_dated = rows[0].key in DOCUMENTS
    new, hunks = date_footer(text, "") if is_dated else text, list[Hunk]()
    for row in rows:
        for hunk in reversed(hunks_of(row)):
            taken = hunk.take_back(new)
            if taken is None:
                place = (hunk.added or hunk.above).strip()
                raise UndoConflictError(row.change_id, row.kind, row.key, text=place)
            new, back = taken
            hunks.append(back)
    return date_footer(new, documents.today().isoformat()) if is_dated else new, hunks


@dataclass(eq=False)
class Edits:
    """Edits documents, says what that did, and takes it back."""

    _documents: Documents

    def plan(
        self, name: str, steps: Callable[[str], Iterable[str]], *, dated: bool = True
    ) -> PlannedEdit:
        """Plan to change a document's text to the last of those that `steps` makes of it.

        Its footer is dated. Each step can be taken back alone; without one, nothing is changed.

        Raises:
            DocumentError: It cannot be read.
        """
        from soulkeep.documents.markdown import date_footer

        day, has_footer = self._documents.today().isoformat(), name in DOCUMENTS

        def changed(text: str) -> tuple[str, list[Hunk]]:
            hunks = list[Hunk]()
            new, before = text, date_footer(text, "") if has_footer else text
            for new in steps(text):
                # Without the footer's date, which would make one place of all that stands above it.
                after = date_footer(new, "") if has_footer else new
                hunks.extend(find_hunks(before, after))
                before = after
            return date_footer(new, day) if dated and new is not text else new, hunks

        return PlannedEdit(self._documents, name, changed)

    @contextmanager
    def taking_back(self, rows: Sequence[ChangedRow]) -> Iterator[Callable[[], Written]]:
        """Take edits back, the first row first; the block is handed the function that writes them.

        Where the block fails, documents are as they were.

        Raises:
            UndoConflictError: What an edit did no longer stands; nothing is written.
            DocumentError: A document cannot be read or written.
        """
        if not rows:
            yield dict
            return
        with self._documents.texts.locked(), ExitStack() as on_failure:
            planned = []
            for name in dict.fromkeys(row.key for row in rows):
                change = partial(_taken_back, self._documents, [r for r in rows if r.key == name])
                planned.append(PlannedEdit(self._documents, name, change))
            yield partial(_write, planned, on_failure)
            on_failure.pop_all()


def _write(planned: Sequence[PlannedEdit], on_failure: ExitStack) -> Written:
    for edit in planned:
        edit.write(on_failure)
    return {edit.name: edit.hunks for edit in planned}


_LINK = re.compile(r"\(\[memory (\d{1,18})\]\(soulkeep://memories/\1\)\)\s*\Z")
_LINKED = re.compile(r"\(soulkeep://memories/(\d{1,18})\)")


@dataclass(eq=False)
class PromotedLines:
    """Keeps the promoted lines of MEMORY.md in step with their memories."""

    _repository: Repository
    _documents: Documents
    _edits: Edits

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Let nobody else write the documents during the block, if MEMORY.md has promoted lines.

        It comes before the store is locked.

        Raises:
            DocumentError: The documents cannot be locked.
        """
        with ExitStack() as locks:
            if self.linked():
                locks.enter_context(self._documents.texts.locked())
            yield

    def follow(
        self, rows: Callable[[], Iterable[ChangedRow]], on_failure: ExitStack
    ) -> tuple[Sequence[Hunk], Sequence[LineChange]]:
        """Change the lines of memories that went to what came in their places, or remove them.

        `rows` yields what a change did. What the user edited stays. Return what was done to lines, which
        `on_failure` takes back.

        Raises:
            DocumentError: MEMORY.md cannot be written.
        """
        if all(row.after is not None or not isinstance(row.before, Memory) for row in rows()):
            return (), ()
        linked = self.linked()
        there = self._repository.memories.list_by_ids(linked)
        led = self._repository.changes.latest_ids([i for i in linked if i not in there])
        wanted = set(led.values())
        gone = {
            row.before.id: (row.before, row.replaced_by or 0)
            for row in (rows() if wanted else ())
            if row.after is None and isinstance(row.before, Memory) and row.before.id in wanted
        }
        owners = {link: gone[memory_id][0] for link, memory_id in led.items() if memory_id in gone}
        if not owners:
            return (), ()
        found = self._repository.memories.list_by_ids([by for _, by in gone.values()])
        later = {memory_id: found[by] for memory_id, (_, by) in gone.items() if by in found}
        changes: list[LineChange] = []

        def steps(text: str) -> Iterable[str]:
            from soulkeep.documents.markdown import change_entries

            changes.clear()
            return change_entries(text, lambda entry: self._changed(entry, owners, later, changes))

        planned = self._edits.plan(MEMORY, steps)
        planned.write(on_failure)
        return planned.hunks, changes

    def _changed(
        self,
        entry: "Entry",
        owners: Mapping[int, Memory],
        later: Mapping[int, Memory],
        changes: list[LineChange],
    ) -> str | None:
        """Return what an entry becomes, and note that; None where it goes."""
        linked = linked_id(entry.text)
        owner = owners.get(linked or 0)
        if linked is None or owner is None:
            return entry.text
        # What the memory says, and what it said when it had the id that the line links to.
        rows = self._repository.changes.rows_about("memories", str(linked)) if linked != owner.id else ()
        texts = [owner.content, *(r.before.content for r in rows if isinstance(r.before, Memory))]
        said = {in_one_form(promoted_text(text, entry.heading)) for text in texts}
        if in_one_form(without_link(entry.text)) not in said:
            changes.append(LineChange(owner.id, entry.heading, "kept"))
            return entry.text
        line = _new_line(later[owner.id], entry.heading) if owner.id in later else None
        section = [c for c in changes if c.section == entry.heading and c.outcome == "changed"]
        if line and not any(later[change.memory_id] == later[owner.id] for change in section):
            changes.append(LineChange(owner.id, entry.heading, "changed"))
            return line
        changes.append(LineChange(owner.id, entry.heading, "removed"))
        return None

    def removed_with(self, rows: Sequence[ChangedRow]) -> dict[int, list[Hunk]]:
        """Return for memories that are gone what removed their lines, when they went by these rows."""
        edits = self._repository.changes.rows_about("documents", MEMORY)
        changes = {row.change_id for row in rows}
        hunks = [hunk for edit in edits if edit.change_id in changes for hunk in hunks_of(edit)]
        removed = [hunk for hunk in hunks if not hunk.added.strip()]
        return {
            int(row.key): [hunk for hunk in removed if link_to(int(row.key)) in hunk.removed]
            for row in rows
        }

    def require_memories(self, edited: Sequence[ChangedRow], taken: Collection[int]) -> None:
        """Refuse to bring back lines of memories that later changes removed, which are not `taken` back.

        Else MEMORY.md would say again what was forgotten, or what a memory said before it was revised.
        It comes after the rows, in their transaction.

        Raises:
            UndoConflictError: Such a line would come back without its memory.
        """
        for row in edited:
            text = "\n".join(hunk.removed for hunk in hunks_of(row)) if row.key == MEMORY else ""
            linked = [int(memory_id) for memory_id in _LINKED.findall(text)]
            there = self._repository.memories.list_by_ids(linked)
            for memory_id in linked:
                rows = self._repository.changes.rows_about("memories", str(memory_id))
                later = {r.change_id for r in rows if r.change_id > row.change_id}.difference(taken)
                if memory_id not in there and later:
                    held_by = [("memories", str(memory_id))]
                    raise UndoConflictError(row.change_id, row.kind, row.key, held_by=held_by)

    def fit(self, hunk: Hunk) -> bool:
        """Whether what a hunk removed has a place in MEMORY.md as it is now."""
        return hunk.take_back(self._documents.read(MEMORY)) is not None

    def linked(self) -> list[int]:
        """Return the ids of the memories that MEMORY.md links to."""
        try:
            text = self._documents.read(MEMORY)
        except DocumentError:
            return []  # nor does recall find what stands in it
        return [int(found) for found in _LINKED.findall(text)]


def promoted_line(memory: Memory, section: str) -> str:
    """Return the line that a memory is promoted to in a section, with a link to the memory."""
    return f"{promoted_text(memory.content, section)} {link_to(memory.id)}"


def _new_line(memory: Memory, section: str) -> str | None:
    """Return the line of what came in a memory's place; None where none can hold its text."""
    from soulkeep.documents.markdown import as_item

    line = promoted_line(memory, section)
    try:
        as_item(line)
    except InvalidInputError:
        return None
    return line if len(line) <= MAX_ENTRY else None


def link_to(memory_id: int) -> str:
    """Return the link that a line promoted from a memory ends with."""
    return f"([memory {memory_id}](soulkeep://memories/{memory_id}))"


def linked_id(entry: str) -> int | None:
    """Return the id of the memory that an entry ends with a link to, if it does."""
    match = _LINK.search(entry)
    return int(match[1]) if match else None


def without_link(entry: str) -> str:
    """Return an entry without the link that it ends with, if it does."""
    return _LINK.sub("", entry)


def promoted_text(content: str, section: str) -> str:
    """Return what a memory's text is in a section: without a mark of its own, unless it is a list."""
    from soulkeep.documents.blocks import list_sent

    sent = list_sent(content, section)
    return sent[0] if len(sent) == 1 else content


def has_promoted(text: str, memory: Memory) -> bool:
    """Whether an entry of a text is the line that a memory was promoted to, and still says the same."""
    link = link_to(memory.id)
    end = text.find(link) + len(link)
    if end < len(link):
        return False
    said = promoted_text(memory.content, section="")
    line = f"{said} {link}"
    # The text may be indented in a list, but its words are the same.
    words = in_one_form(line).split()
    return in_one_form(text[max(0, end - 2 * len(line)) : end]).split()[-len(words) :] == words


def repeated_entries(memories: Mapping[int, Memory]) -> set[int]:
    """Return the ids of entries that were promoted from another one of these memories."""
    entries = [memory for memory in memories.values() if memory.document]
    origins = {entry.id: memories.get(linked_id(entry.content) or 0) for entry in entries}
    return {i for i, origin in origins.items() if origin and has_promoted(memories[i].content, origin)}
