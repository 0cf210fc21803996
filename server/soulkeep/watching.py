"""Noticing what changes behind the server's back: documents, and prompts and threads in the store."""

import logging
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path, PurePath

import anyio
import anyio.to_thread

from soulkeep.documents import DOCUMENTS
from soulkeep.errors import SoulkeepError
from soulkeep.models import GlobalPrompt
from soulkeep.protocol import Notifications
from soulkeep.resources import CONTEXT_URI, log_uri, thread_uri
from soulkeep.service.document_index import stamp
from soulkeep.service.home import Home
from soulkeep.service.offers import fingerprint

DEBOUNCE_MS = 300
"""How long changes are collected before they are told: an editor makes several at once."""

STEP_MS = 50
"""How long it takes at most to notice a change, or the end of the server."""

LOOK_MS = 1_000
"""How often files are looked at anyway: for what came before the watching, or from another machine."""

AGAIN_S = 5.0
"""When watching is tried again after it failed."""

_THREADS = 1_000

_log = logging.getLogger(__name__)


async def watch(home: Home, notifications: Notifications) -> None:
    """Tell the client of changes until cancelled.

    Where the system cannot watch, the log says so: nothing else depends on it.
    """
    seen = _Seen(home)
    while True:
        try:
            await _tell(home, notifications, await _first_look(seen, notifications))
            await _watch_files(home, notifications, seen)
        except* (OSError, RuntimeError, SoulkeepError) as errors:
            _log.warning("changes of files are not noticed: %s", errors.exceptions[0])
        await anyio.sleep(AGAIN_S)


async def _first_look(seen: "_Seen", notifications: Notifications) -> "_Changes":
    try:
        return await anyio.to_thread.run_sync(seen.look, frozenset())
    finally:
        notifications.ready.set()


async def _watch_files(home: Home, notifications: Notifications, seen: "_Seen") -> None:
    # Imported here, as nothing may slow the first answer.
    from watchfiles import awatch

    # Some systems tell the real path of what changed, whatever they were asked to watch.
    root = home.path.resolve()
    stop = anyio.Event()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(_set_when_cancelled, stop)
        async for changes in awatch(
            root,
            watch_filter=_Relevant(root),
            debounce=DEBOUNCE_MS,
            step=STEP_MS,
            stop_event=stop,
            rust_timeout=LOOK_MS,
            yield_on_timeout=True,
        ):
            names = [Path(path).relative_to(root).as_posix() for _, path in changes]
            await _tell(home, notifications, await anyio.to_thread.run_sync(seen.look, names))


async def _set_when_cancelled(stop: anyio.Event) -> None:
    # The thread that waits for changes does not notice a cancellation.
    try:
        await anyio.sleep_forever()
    finally:
        stop.set()


class _Relevant:
    """Lets through documents, daily logs and writes to the store."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def __call__(self, _: object, path: str) -> bool:
        changed = Path(path)
        if changed.parent == self._root:
            return changed.name in DOCUMENTS or changed.name.endswith((".db", ".db-wal"))
        return changed.parent == self._root / "daily" and _day(changed) is not None


@dataclass(frozen=True, slots=True)
class _Changes:
    """What became different between two looks; files by their names in the home."""

    files: frozenset[str] = frozenset()
    files_come_or_gone: bool = False
    offers: bool = False
    prompts: bool = False
    threads_come_or_gone: bool = False
    threads: tuple[str, ...] = ()


class _Seen:
    """What was last told of the files, the prompts and the threads."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self._stamps: dict[str, str | None] = {}
        self._writes: tuple[int, ...] | None = None
        self._audited = 0
        self._outline = ""
        self._offers = ""
        self._prompts: list[GlobalPrompt] = []
        self._threads: dict[str, tuple[str, str]] = {}

    def look(self, names: Iterable[str]) -> _Changes:
        """Return what changed since the last look, in files of these names and those of now.

        The first look finds nothing changed.

        Raises:
            StoreError: The store cannot be read.
        """
        changes, before = self._look_at_files(names), self._writes
        writes = self._home.repository.write_count()
        if writes != before:
            changes = self._look_at_threads(self._look_at_prompts(changes))
            self._writes = writes
        return _Changes() if before is None else changes

    def _look_at_files(self, names: Iterable[str]) -> _Changes:
        today = self._home.documents.daily_path(self._home.documents.today())
        looked_at = {*names, *DOCUMENTS, today.relative_to(self._home.path).as_posix()}
        now = {name: stamp(self._home.path / name) for name in looked_at if not _is_store(name)}
        # The log of another day was not looked at before it changed, so it may be new.
        before = {name: self._stamps.get(name) for name in now}
        changed = {name for name in now if now[name] != before[name]}
        self._stamps |= now
        come_or_gone = any(None in (now[name], before[name]) for name in changed)
        return _Changes(files=frozenset(changed), files_come_or_gone=come_or_gone)

    def _look_at_prompts(self, changes: _Changes) -> _Changes:
        outline, changed, self._audited = self._home.repository.prompts.outline(self._audited)
        if outline == self._outline and not changed:
            return changes
        self._outline = outline
        offers = self._home.prompts.list_offers()
        seen, prompts = fingerprint(offers), [offer.prompt for offer in offers]
        changes = replace(changes, offers=seen != self._offers, prompts=prompts != self._prompts)
        self._offers, self._prompts = seen, prompts
        return changes

    def _look_at_threads(self, changes: _Changes) -> _Changes:
        threads, before = self._home.repository.threads.activity(_THREADS), self._threads
        self._threads = threads
        return replace(
            changes,
            threads_come_or_gone=threads.keys() != before.keys(),
            threads=tuple(i for i, active in threads.items() if before.get(i, active) != active),
        )


async def _tell(home: Home, notifications: Notifications, changes: _Changes) -> None:
    if changes.files:
        home.entries.note_change()
    for name in sorted(changes.files):
        await notifications.resource_updated(_uri(name))
    for thread_id in changes.threads:
        await notifications.resource_updated(thread_uri(thread_id))
    if changes.offers:
        await notifications.prompts_changed()
    if changes.threads_come_or_gone or changes.files_come_or_gone:
        await notifications.resources_changed()
    if changes.files or changes.prompts:
        await notifications.resource_updated(CONTEXT_URI)


def _is_store(name: str) -> bool:
    return not name.endswith(".md")


def _uri(name: str) -> str:
    day = _day(PurePath(name))
    return f"soulkeep://{name}" if day is None else log_uri(day)


def _day(path: PurePath) -> date | None:
    if path.suffix != ".md":
        return None
    try:
        return date.fromisoformat(path.stem)
    except ValueError:
        return None
