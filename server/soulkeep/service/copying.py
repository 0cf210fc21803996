"""A home copied into another, whichever engines keep them: page by page, and compared at the end."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any

from soulkeep.documents import Documents
from soulkeep.errors import DocumentError, StoreError
from soulkeep.progress import tell
from soulkeep.repository import Repository
from soulkeep.repository.values import COLUMNS, PLACE

MARK = "copying"
"""The fact under which a store says how far it has been filled from another."""

_OF_USERS = ("memories", "threads", "messages", "global_prompts")


def copy_store(source: Repository, target: Repository) -> dict[str, int]:
    """Make an empty store hold all that another holds; return how many rows of each table there are.

    Each page is a write of its own, which says how far it is, so that a copy that was cut off goes on
    when it is begun again. Nobody should write either meanwhile: what differs at the end is told.

    Raises:
        StoreError: The target holds something else, or not the same at the end; or one cannot be used.
    """
    origin = hashlib.blake2b(source.place.encode(), digest_size=8).hexdigest()
    begun, table, after = json.loads(target.get_fact(MARK) or '["", "", []]')
    counts = target.count_rows()
    if begun != origin and (begun or any(counts[name] for name in _OF_USERS)):
        remedy = "name a home that holds nothing yet, or the one that the same copy was begun into"
        raise StoreError(target.place, "this home holds something already", remedy)
    tables = list(COLUMNS)
    with source.snapshot():
        for name in tables[tables.index(table) if table else 0 :]:
            for page in _pages(source, name, after if name == table else ()):
                tell(f"Copying {name}")
                with target.recording():
                    target.rows.add(name, page)
                    last = list(page[-1][: len(COLUMNS[name][0])])
                    target.put_fact(MARK, json.dumps([origin, name, last]))
        with target.recording():
            target.rows.continue_ids(source.rows.last_ids())
            target.rebuild_full_text()
        copied = {name: _digest(source, name) for name in tables}
        for name, expected in copied.items():
            if _digest(target, name) != expected:
                remedy = "copy again into a home that holds nothing, while nobody writes into either"
                raise StoreError(target.place, f"{name} are not the same as in {source.place}", remedy)
    with target.transaction():
        target.put_fact(MARK, None)
    return {name: count for name, (count, _) in copied.items()}


def copy_documents(source: Documents, target: Documents) -> int:
    """Make the documents of a home those of another, with their history; return how many there are.

    Raises:
        DocumentError: One cannot be read or written, or is not the same at the end.
    """
    found, unreadable = source.read_all()
    if source.texts.place == target.texts.place:
        return len(found)
    target.seed()
    with target.texts.locked():
        former, _ = target.read_all()
        target.replace_all(found, former, unreadable)
        for name, content in source.read_history():
            target.texts.put(name, content)
    copied = target.read_all()[0] | dict(target.read_history())
    for name, content in chain(found.items(), source.read_history()):
        if copied.get(name) != content:
            remedy = "copy again while nobody writes into either"
            problem = f"it is not the same as in {source.texts.place}"
            raise DocumentError(f"{target.texts.place}/{name}", problem, remedy)
    return len(found)


def _pages(store: Repository, table: str, after: Sequence[Any] = ()) -> Iterator[list[Sequence[Any]]]:
    while page := store.rows.read(table, after):
        # A line of a document may have had a sign that not every engine can keep.
        yield [[_plain(value) for value in row] for row in page]
        after = page[-1][: len(COLUMNS[table][0])]


def _plain(value: Any) -> Any:
    return value.replace("\0", "\ufffd") if isinstance(value, str) else value


def _digest(store: Repository, table: str) -> tuple[int, str]:
    """Return how many rows a table has, and a digest of all that they say."""
    count, digest = 0, hashlib.sha256()
    skipped = COLUMNS[table][0].count(PLACE)
    for page in _pages(store, table):
        tell(f"Comparing {table}")
        count += len(page)
        for row in page:
            digest.update(json.dumps(row[skipped:], default=bytes.hex).encode())
    return count, digest.hexdigest()
