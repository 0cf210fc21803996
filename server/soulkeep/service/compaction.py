"""Giving back the space that deleted vectors leave, in steps between which others can write."""

import itertools
import time
from collections.abc import Callable

from soulkeep.errors import StoreBusyError, StoreFullError
from soulkeep.progress import tell
from soulkeep.repository import Repository

STEPS_AT_ONCE = 10
"""Steps of a compaction that a single call may wait for, some ten milliseconds each."""

PAUSE_S = 0.005
"""SQLite gives a lock to whoever asks in the right moment: this is the moment for others."""


def compact_some(repository: Repository) -> None:
    """Give back a part of the space of deleted vectors, if there is enough of it to be worth while.

    It takes some tenths of a second at most, and nothing while another process writes.
    """
    if not repository.wasted():
        return
    try:
        for _ in itertools.islice(repository.tidy(waiting=False), STEPS_AT_ONCE):
            pass
    except (StoreBusyError, StoreFullError):
        # It comes after a change that was made, and which must not look as if it had failed.
        return


def compact(repository: Repository, pause: Callable[[], None] = lambda: time.sleep(PAUSE_S)) -> int:
    """Give back the space of deleted vectors; return by how many bytes the store shrank.

    It goes in steps of some milliseconds, with a `pause` after each for other processes to write.

    Raises:
        StoreError: The store cannot be written; what is done by then stays done.
    """
    freed = 0
    for step in repository.tidy():
        freed += step
        tell("Giving back the space of deleted vectors")
        pause()
    return freed
