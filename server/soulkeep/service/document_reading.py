"""Reading a document to index it: its text as far as it is searched, and the state it is in."""

import hashlib
from dataclasses import dataclass

from soulkeep.documents import Documents
from soulkeep.service.document_entries import day_of_log
from soulkeep.service.document_looks import MEMORY, is_settled, log_name, size_of, stamp

MAX_INDEXED = 2_000_000
"""Bytes of a document that are searched: some twenty thousand entries. What stands below is left out."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What a document says, and the state of its file before it was read; without one where it is gone.

    A state is the file's stamp, or `young` while that cannot be relied on, and a digest of its text.
    """

    name: str
    state: str | None
    text: str

    def says_what(self, known: str | None) -> bool:
        """Whether the text is that of a known state."""
        return None not in (self.state, known) and _digest_of(self.state) == _digest_of(known)


def read_document(documents: Documents, name: str) -> Reading:
    """Read a document, or find that it is gone.

    Raises:
        DocumentError: It cannot be read.
    """
    at = stamp(documents.home / name)
    if at is None:
        return Reading(name, None, "")
    is_old = is_settled(at)
    text = (
        documents.read("MEMORY.md") if name == MEMORY else documents.read_daily(day_of_log(name)) or ""
    )
    text = _beginning(text)
    digest = hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
    return Reading(name, f"{at if is_old else 'young'} {digest}", text)


def list_too_long(documents: Documents) -> list[tuple[str, int]]:
    """Return the documents of which only the beginning is searched, with their sizes in bytes."""
    names = [MEMORY, *(log_name(day.isoformat()) for day in documents.list_daily())]
    stamps = ((name, stamp(documents.home / name)) for name in names)
    return [(name, size_of(at)) for name, at in stamps if at and size_of(at) > MAX_INDEXED]


def _beginning(text: str) -> str:
    """Return the lines of a text that are searched."""
    if len(text) <= MAX_INDEXED and len(encoded := text.encode()) <= MAX_INDEXED:
        return text
    encoded = text[:MAX_INDEXED].encode()[:MAX_INDEXED]
    kept = encoded.decode(errors="ignore")
    return kept[: kept.rfind("\n") + 1] or kept


def _digest_of(state: str | None) -> str:
    return (state or "").rpartition(" ")[2]
