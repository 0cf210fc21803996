"""A new file outlasts a power cut only if its folder was synced too, and each is before the answer."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from conftest import TickingClock
from soulkeep.app import open_home
from soulkeep.documents import log_name
from soulkeep.engines import STORE_NAME
from soulkeep.models import NewMemory
from soulkeep.service.home import Home

pytestmark = pytest.mark.skipif(os.name == "nt", reason="Windows syncs no folders")

Synced = Callable[[], set[Path]]


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Synced:
    """What was synced since the last look, files and folders, by where they are now."""
    seen: set[tuple[int, int]] = set()
    sync = os.fsync

    def fsync(descriptor: int) -> None:
        status = os.fstat(descriptor)
        seen.add((status.st_dev, status.st_ino))
        sync(descriptor)

    def look() -> set[Path]:
        found = {
            path
            for path in (tmp_path, *tmp_path.rglob("*"))
            if (path.stat().st_dev, path.stat().st_ino) in seen
        }
        seen.clear()
        return found

    monkeypatch.setattr(os, "fsync", fsync)
    return look


@pytest.fixture
def home(make_home: Callable[..., Home]) -> Home:
    return make_home(embedder="none")


def test_a_new_home_is_synced_with_its_folder_and_documents(tmp_path: Path, synced: Synced) -> None:
    home = open_home(tmp_path / "deep" / "home", embedder="none", clock=TickingClock())
    home.close()

    assert {tmp_path, tmp_path / "deep", home.path, home.path / "SOUL.md"} <= synced()


def test_a_new_log_is_synced_with_its_folder(home: Home, clock: TickingClock, synced: Synced) -> None:
    daily = home.path / "daily"
    synced()
    home.curator.log_day("First.")
    log = home.path / log_name(home.documents.today())
    assert {log, daily} <= synced()

    home.curator.log_day("Second.")
    assert (log in (again := synced()), daily in again) == (True, False)

    for path in daily.iterdir():
        path.unlink()
    daily.rmdir()
    home.curator.log_day("Third.")
    assert {log, daily, home.path} <= synced()


def test_a_new_version_of_a_document_is_synced_with_all_its_folders(home: Home, synced: Synced) -> None:
    synced()
    home.curator.add_entry("User Facts", "Has a cat.")

    (version,) = home.documents.list_versions("MEMORY.md")
    history = home.path / "history"
    place = history / "MEMORY.md"
    wanted = {home.path, history, place, place / f"{version.id}.md", home.path / "MEMORY.md"}
    assert wanted <= synced()


def test_a_backup_is_synced_whole(home: Home, synced: Synced) -> None:
    (kept,) = home.memories.remember([NewMemory("Kept.")])
    home.curator.log_day("Logged.")
    synced()

    made = home.backups.make("one", on_demand=True)
    folder = home.backups.folder / made.id
    # SQLite itself syncs the store.
    assert {home.path, home.backups.folder, *_all_in(folder)} <= synced()

    home.purges.purge([kept.id], [made.id])
    (rewritten,) = home.backups.list_backups()
    assert {home.backups.folder, *_all_in(home.backups.folder / rewritten.id)} <= synced()


def test_a_restored_log_is_synced_with_its_folder(home: Home, synced: Synced) -> None:
    home.curator.log_day("Logged.")
    log = home.path / log_name(home.documents.today())
    made = home.backups.make("one", on_demand=True)
    log.unlink()
    synced()

    home.backups.restore(made.id)

    assert {log, log.parent} <= synced()


def _all_in(folder: Path) -> set[Path]:
    return {folder, *(path for path in folder.rglob("*") if path.name != STORE_NAME)}
