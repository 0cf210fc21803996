"""Which documents to look at, so that a call looks at a few files however many there are."""

import math
import time
from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import Final

from soulkeep.documents import Documents

LOOK_S = 5.0
"""In what time each log of a past day is looked at while nobody says that one changed."""

LOOKED = 200
"""How many of these a call looks at."""

SETTLED_S = 2.0
"""A file younger than this when it is read may change again without a sign in its date: FAT counts two
seconds."""

MEMORY: Final = "MEMORY.md"


class DocumentLooks:
    """Says at each call which documents to look at: all at first, then those that may have changed."""

    def __init__(self, documents: Documents, indexed: Callable[[], Collection[str]]) -> None:
        """Look at the files of `documents`, and at those that are `indexed`, which may be gone."""
        self._documents = documents
        self._indexed = indexed
        self._names: list[str] = []
        self._listed: str | None = None
        self._next = 0
        self._looked = 0.0
        self._all = True
        self._noted: set[str] = set()

    def note(self, names: Iterable[str] | None = None) -> None:
        """Look at these documents at the next call, or at all: they were changed."""
        if names is None:
            self._all = True
        else:
            self._noted |= {name for name in names if name == MEMORY or name.startswith("daily/")}

    def due(self) -> list[str]:
        """Return the documents to look at now: notes, today's log, then the others, latest first."""
        first = [MEMORY, log_name(self._documents.today().isoformat())]
        noted, self._noted = self._noted, set()
        return list(dict.fromkeys([*first, *sorted(noted, reverse=True), *self._others()]))

    def _others(self) -> list[str]:
        now = time.monotonic()
        if self._all:
            self._all, self._listed, self._looked, self._next = False, None, now, 0
            self._list()
            return self._names
        if now - self._looked < LOOK_S / max(math.ceil(len(self._names) / LOOKED), 1):
            return []
        self._looked = now
        former = set(self._names)
        self._list()
        added = [name for name in self._names if name not in former]
        part = self._names[self._next : self._next + LOOKED]
        self._next = self._next + LOOKED if self._next + LOOKED < len(self._names) else 0
        return [*added, *part]

    def _list(self) -> None:
        """List the logs anew, unless their folder says that it still has the same files."""
        at = stamp(self._documents.home / "daily")
        if at is not None and at == self._listed:
            return
        self._listed = at if at is not None and is_settled(at) else None
        logs = {log_name(day.isoformat()) for day in self._documents.list_daily()}
        self._names = sorted({*self._indexed(), *logs} - {MEMORY}, reverse=True)


def stamp(path: Path) -> str | None:
    """Return what changes when a file does; None where there is none."""
    try:
        status = path.stat()
    except OSError:
        return None
    return f"{status.st_mtime_ns}:{status.st_size}:{status.st_ino}"


def size_of(at: str) -> int:
    """Return how many bytes a file with a stamp has."""
    return int(at.split(":")[1])


def is_settled(at: str) -> bool:
    """Whether a file with a stamp is old enough that a change of it would show in its stamp."""
    return abs(time.time_ns() - int(at.split(":")[0])) > SETTLED_S * 1e9


def log_name(day: str) -> str:
    """Return the name in the home of the log of a day, given as an ISO date."""
    return f"daily/{day}.md"
