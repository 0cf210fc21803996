"""What is handed back when memories are kept or changed."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from soulkeep.models import Memory


@dataclass(frozen=True, slots=True)
class Similar:
    """An existing memory close to a new one; `similarity` is their cosine, absent without vectors."""

    memory: Memory
    similarity: float | None


@dataclass(frozen=True, slots=True)
class LineChange:
    """What became of a line of MEMORY.md that a memory was promoted to.

    It was `changed` to the text that came in its place, `removed`, or `kept` as the user had edited it;
    or it is `back`, or `missing` where its place is not there any more.
    """

    memory_id: int
    section: str
    outcome: Literal["changed", "removed", "kept", "back", "missing"]


@dataclass(frozen=True, slots=True)
class Receipt:
    """What became of one memory that was to be kept.

    `id` is the new memory's, or the older one's where `stored` is false because that states exactly the
    same. `similar` is None where nobody looked: in a long list. `replaced` are the memories in whose
    place it is now; `newer` holds, for ids of older versions that were given for them, the newest ones.
    `lines` says what became of lines promoted from those that it replaced. `change_id` is the change to
    undo, 0 where nothing changed. An expiry that had passed is cleared by a revision.
    """

    id: int
    stored: bool
    similar: tuple[Similar, ...] | None = ()
    replaced: tuple[int, ...] = ()
    newer: Mapping[int, int] = field(default_factory=dict)
    lines: tuple[LineChange, ...] = ()
    expires_at: str | None = None
    change_id: int = 0
    expiry_cleared: bool = False


@dataclass(frozen=True, slots=True)
class Changed:
    """What became of memories: as they are now, or were until they were forgotten.

    `newer` holds, for ids of older versions that were given, the newest ones. The change can be undone
    by its id; it is 0 where nothing changed. `lines` says what became of lines promoted from them,
    `expiry_cleared` which of them came back without an expiry that had passed.
    """

    memories: tuple[Memory, ...]
    newer: Mapping[int, int]
    change_id: int
    lines: tuple[LineChange, ...] = ()
    expiry_cleared: tuple[int, ...] = ()
