"""The documents of a home as rows, and their former texts: what `documents.Texts` asks for.

A document is written in a transaction, and so with whatever else that writes: the log of changes above
all. Who writes holds the home's lock, so that nobody is overwritten.
"""

import hashlib
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass

from soulkeep.errors import DocumentError
from soulkeep.repository.postgres.database import Database, columns_of

REVISION = "documents"
"""The number of a home that grows by every change of a document."""


@dataclass(eq=False)
class DocumentRows:
    """Rows of `documents`, each under its name in the home."""

    place: str
    _used: Callable[[], AbstractContextManager[Database]]
    in_store = True

    locked: Callable[[], AbstractContextManager[None]] = nullcontext
    """Nothing to do: what is written is compared first, in a transaction that locks the home."""

    drop_leftovers: Callable[[], None] = lambda: None
    """Nothing either: what is cut off leaves no part of itself."""

    @contextmanager
    def _writing(self) -> Iterator[Database]:
        """Write in the transaction that this thread is in, or in one of its own."""
        with ExitStack() as stack:
            database = stack.enter_context(self._used())
            if not database.in_transaction:
                stack.enter_context(database.transaction())
            yield database

    def add(self, names: Collection[str], content: Callable[[str], bytes]) -> list[str]:
        """Add those of these documents that are missing; return their names."""
        there = self.stamps(list(names))
        missing = [(name, content(name)) for name in names if name not in there]
        if not missing:
            return []
        with self._writing() as database:
            return _put(database, missing, "NOTHING")

    def read(self, name: str) -> bytes | None:
        """Return what a document says; None where there is none."""
        with self._used() as database:
            rows = database.query(
                "SELECT content FROM documents WHERE owner = %(owner)s AND name = %(name)s", name=name
            )
        return bytes(rows[0][0]) if rows else None

    def list_names(self, folder: str) -> list[str]:
        """Return the names in a folder, without it."""
        with self._used() as database:
            rows = database.query(
                "SELECT substr(name, length(%(first)s) + 1) FROM documents"
                " WHERE owner = %(owner)s AND name > %(first)s AND name < %(beyond)s",
                first=f"{folder}/",
                beyond=f"{folder}0",  # the sign after the slash
            )
        return [str(name) for (name,) in rows]

    def stamps(self, names: Sequence[str]) -> dict[str, tuple[str, int, bool]]:
        """Return the digests of documents, and how many bytes they have; for `daily` the revision."""
        found = {}
        with self._used() as database:
            if "daily" in names:
                found["daily"] = str(database.numbers(REVISION)[0]), 0, True
            if found.keys() != {*names}:
                rows = database.query(
                    "SELECT name, digest, octet_length(content) FROM documents"
                    " WHERE owner = %(owner)s AND name = ANY(%(names)s)",
                    names=list(names),
                )
                found |= {name: (digest, size, True) for name, digest, size in rows}
        return found

    def rewrite(
        self, name: str, change: Callable[[bytes], bytes], keep: Callable[[bytes], None]
    ) -> bytes:
        """Replace what a document says by what `change` makes of its newest text; return that.

        It is called outside the transaction first, and anew where another was quicker.

        Raises:
            DocumentError: There is no such document.
        """
        former = self.read(name)
        if former is not None and (new := change(former)) == former:
            return new
        with self._writing() as database:
            now = self.read(name)
            if now is None:
                remedy = "see what there is, and decide anew"
                raise DocumentError(f"{self.place}/{name}", "it is not there any more", remedy)
            if now != former:
                new = change(now)
            if new != now:
                keep(now)
                _put(database, [(name, new)])
        return new

    def append(self, name: str, addition: Callable[[bytes], bytes]) -> None:
        """Add to the end of a document, made if it is missing."""
        with self._writing() as database:
            former = self.read(name) or b""
            _put(database, [(name, former + addition(former))])

    def put(self, name: str, content: bytes) -> None:
        """Put a text under a name, whatever is there."""
        with self._writing() as database:
            _put(database, [(name, content)])

    def remove(self, name: str, content: bytes | None = None) -> None:
        """Remove a document, with `content` one that still says this."""
        with self._writing() as database:
            database.execute(
                "DELETE FROM documents WHERE owner = %(owner)s AND name = %(name)s"
                " AND (%(content)s::bytea IS NULL OR content = %(content)s::bytea)",
                name=name,
                content=content,
            )
            database.add_to(REVISION, 1)


def _put(
    database: Database,
    documents: Sequence[tuple[str, bytes]],
    otherwise: str = "UPDATE SET content = excluded.content, digest = excluded.digest",
) -> list[str]:
    """Write documents inside a transaction; return the names of those that were written."""
    rows = [(name, text, hashlib.blake2b(text, digest_size=16).hexdigest()) for name, text in documents]
    written = database.execute(
        "INSERT INTO documents (owner, name, content, digest) SELECT %(owner)s, * FROM"
        " unnest(%(names)s::text[], %(contents)s::bytea[], %(digests)s::text[])"
        f" ON CONFLICT (owner, name) DO {otherwise} RETURNING name",
        **columns_of(rows, "names", "contents", "digests"),
    )
    database.add_to(REVISION, 1)
    return [str(name) for (name,) in written]
