"""The lines of MEMORY.md that memories were promoted to: they go, change and come back with them."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from soulkeep.documents import Documents, Hunk
from soulkeep.documents.files import locked
from soulkeep.errors import DocumentError, InvalidInputError
from soulkeep.models import ChangedRow, Memory
from soulkeep.repository import Repository
from soulkeep.service.document_entries import MEMORY
from soulkeep.service.document_index import link_to, linked_id, promoted_text, without_link
from soulkeep.service.edits import Edits, hunks_of, row_of
from soulkeep.service.receipts import LineChange
from soulkeep.service.validation import MAX_ENTRY
from soulkeep.wording import in_one_form

if TYPE_CHECKING:
    from soulkeep.documents.markdown import Entry

_LINKED = re.compile(r"\(soulkeep://memories/(\d{1,18})\)")


class PromotedLines:
    """Keeps the promoted lines of MEMORY.md in step with their memories."""

    def __init__(self, repository: Repository, documents: Documents, edits: Edits) -> None:
        self._repository = repository
        self._documents = documents
        self._edits = edits

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Let nobody else write the documents during the block, if MEMORY.md has promoted lines.

        It comes before the store is locked.

        Raises:
            DocumentError: The documents cannot be locked.
        """
        with ExitStack() as locks:
            if self._linked():
                locks.enter_context(locked(self._documents.home))
            yield

    def follow(
        self, gone: Mapping[int, Memory], later: Mapping[int, Memory], on_failure: ExitStack
    ) -> tuple[Sequence[Hunk], Sequence[LineChange]]:
        """Change the lines of memories that went, by id, to what came in their places, or remove them.

        What the user edited stays. Return what that did, which `on_failure` takes back.

        Raises:
            DocumentError: MEMORY.md cannot be written.
        """
        owners = self._owners(gone) if gone else {}
        if not owners:
            return (), ()
        changes: list[LineChange] = []

        def steps(text: str) -> Iterable[str]:
            from soulkeep.documents.markdown import change_entries

            changes.clear()
            return change_entries(text, lambda entry: self._changed(entry, owners, later, changes))

        _, hunks = self._edits.edit_in_steps(MEMORY, steps)
        if hunks:
            on_failure.callback(self._edits.take_back, row_of(MEMORY, hunks))
        return hunks, changes

    def _owners(self, gone: Mapping[int, Memory]) -> dict[int, Memory]:
        """Return the memories that went by the ids in MEMORY.md that link to them or older versions."""
        linked = self._linked()
        there = self._repository.memories.list_by_ids(linked)
        led = self._repository.changes.latest_ids([i for i in linked if i not in there])
        return {linked: gone[memory_id] for linked, memory_id in led.items() if memory_id in gone}

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
        said = {in_one_form(promoted_text(text, entry.heading)) for text in self._said(owner, linked)}
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

    def _said(self, owner: Memory, linked: int) -> set[str]:
        """Return what a memory says, and what it said when it had the id that a line links to."""
        if linked == owner.id:
            return {owner.content}
        rows = self._repository.changes.rows_about("memories", str(linked))
        return {owner.content, *(row.before.content for row in rows if isinstance(row.before, Memory))}

    def removed_with(self, rows: Sequence[ChangedRow]) -> dict[int, list[Hunk]]:
        """Return for memories that are gone what removed their lines, when they went by these rows."""
        edits = self._repository.changes.edits_of_documents(row.change_id for row in rows)
        hunks = [hunk for edit in edits if edit.key == MEMORY for hunk in hunks_of(edit)]
        removed = [hunk for hunk in hunks if not hunk.added.strip()]
        return {
            int(row.key): [hunk for hunk in removed if link_to(int(row.key)) in hunk.removed]
            for row in rows
        }

    def fit(self, hunk: Hunk) -> bool:
        """Whether what a hunk removed has a place in MEMORY.md as it is now."""
        return hunk.take_back(self._documents.read(MEMORY)) is not None

    def _linked(self) -> list[int]:
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
