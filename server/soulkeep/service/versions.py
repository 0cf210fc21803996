"""The versions of a memory: which one an id leads to now, and which came before it."""

from collections.abc import Iterable

from soulkeep.errors import MemoryForgottenError, MemoryNotFoundError
from soulkeep.models import Memory
from soulkeep.repository import Repository


def newest_versions(repository: Repository, memory_ids: Iterable[int]) -> dict[int, Memory]:
    """Return for each id the memory that it leads to: its own, or the newest in its place.

    Raises:
        MemoryForgottenError: What it leads to is in the trash.
        MemoryNotFoundError: There is none with this id, and none came in its place.
    """
    with repository.snapshot():
        led = repository.changes.latest_ids(memory_ids)
        found = repository.memories.list_by_ids(list(led.values()))
        for asked, memory_id in led.items():
            if memory_id not in found:
                if repository.changes.rows_about("memories", str(memory_id)):
                    raise MemoryForgottenError(memory_id)
                raise MemoryNotFoundError(asked)
    return {asked: found[memory_id] for asked, memory_id in led.items()}


def earlier_ids(repository: Repository, memory_ids: Iterable[int]) -> set[int]:
    """Return these ids and those of all that they replaced, directly or through others.

    What came back on its own, and what that had replaced, is not among them.
    """
    found: set[int] = set()
    waiting = set(memory_ids)
    while waiting:
        found |= waiting
        replaced = repository.changes.replaced_by(waiting)
        waiting = replaced - repository.memories.list_by_ids(list(replaced)).keys() - found
    return found
