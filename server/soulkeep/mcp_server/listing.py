"""Which resources there are, in pages that neither repeat nor leave out one when another is added."""

import base64
import binascii
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from itertools import islice
from typing import Literal, cast

from mcp.types import Annotations, Resource

from soulkeep.documents import DOCUMENTS, DocumentName
from soulkeep.errors import InvalidInputError
from soulkeep.fence import one_line
from soulkeep.mcp_server.resources import MARKDOWN, TITLES, document_uri, log_uri, thread_uri
from soulkeep.models import Thread, timestamp
from soulkeep.service.home import Home
from soulkeep.service.validation import MAX_NAME

_EVERYONE: list[Literal["user", "assistant"]] = ["user", "assistant"]


@dataclass(frozen=True, slots=True)
class Place:
    """Where a list goes on: below the log of a day, or below a thread by its place in the store."""

    kind: Literal["log", "thread"]
    key: str


def list_page(
    home: Home, fixed: Sequence[Resource], limit: int, cursor: str | None
) -> tuple[list[Resource], str | None]:
    """Return up to `limit` resources from a cursor on, and the cursor of the next page if there is one.

    First come documents and what is `fixed`, then logs by day and active threads by when they were made,
    latest first.

    Raises:
        InvalidInputError: The cursor is none that was given.
        StoreError: The store cannot be read.
    """
    after = None if cursor is None else _place(cursor)
    first = [] if after else _first(home, fixed)
    room = limit - len(first)
    found = list(islice(_following(home, after, limit), room + 1))
    more = _cursor(found[room - 1][0]) if len(found) > room else None
    return [*first, *(resource for _, resource in found[:room])], more


def _first(home: Home, fixed: Sequence[Resource]) -> list[Resource]:
    documents = {document_uri(name): _document(home, name) for name in DOCUMENTS}
    return [documents.get(resource.uri, resource) for resource in fixed]


def _following(home: Home, after: Place | None, limit: int) -> Iterator[tuple[Place, Resource]]:
    if after is None or after.kind == "log":
        for day in reversed(home.documents.list_daily()):
            if after is None or day.isoformat() < after.key:
                yield Place("log", day.isoformat()), _log(home, day)
    below = int(after.key) if after and after.kind == "thread" else None
    for place, thread in home.repository.threads.list_made(limit + 1, below):
        yield Place("thread", str(place)), _thread(thread)


def _document(home: Home, name: DocumentName) -> Resource:
    title, description = TITLES[name]
    size, modified = _size_and_date(home, name)
    return Resource(
        uri=document_uri(name),
        name=name,
        title=title,
        description=description,
        mime_type=MARKDOWN,
        size=size,
        annotations=Annotations(audience=_EVERYONE, priority=1.0, last_modified=modified),
    )


def _log(home: Home, day: date) -> Resource:
    size, modified = _size_and_date(home, f"daily/{day.isoformat()}.md")
    return Resource(
        uri=log_uri(day),
        name=f"daily/{day.isoformat()}.md",
        title=f"Log of {day.isoformat()}",
        mime_type=MARKDOWN,
        size=size,
        annotations=Annotations(audience=_EVERYONE, priority=0.5, last_modified=modified),
    )


def _thread(thread: Thread) -> Resource:
    return Resource(
        uri=thread_uri(thread.id),
        name=thread.id,
        title=one_line(thread.title, MAX_NAME),
        mime_type=MARKDOWN,
        annotations=Annotations(audience=_EVERYONE, priority=0.3, last_modified=thread.last_active_at),
    )


def _size_and_date(home: Home, name: str) -> tuple[int | None, str | None]:
    try:
        status = (home.path / name).stat()
    except OSError:
        return None, None
    return status.st_size, timestamp(datetime.fromtimestamp(status.st_mtime, UTC))


def _cursor(place: Place) -> str:
    return base64.urlsafe_b64encode(f"{place.kind} {place.key}".encode()).decode()


def _place(cursor: str) -> Place:
    try:
        kind, _, key = base64.urlsafe_b64decode(cursor.encode()).decode().partition(" ")
        is_ours = _is_day(key) if kind == "log" else kind == "thread" and key.isascii() and key.isdigit()
    except (ValueError, binascii.Error):
        is_ours = False
    if not is_ours or len(key) > 18:
        raise InvalidInputError("cursor", "is none of ours; list without one")
    return Place(cast(Literal["log", "thread"], kind), key)


def _is_day(text: str) -> bool:
    return date.fromisoformat(text).isoformat() == text
