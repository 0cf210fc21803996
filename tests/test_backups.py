"""Backups and restore on real files: consistent under writers, verified, bounded, and undone."""

import errno
import json
import os
import random
import shutil
import signal
import stat
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

import apsw
import pytest

from conftest import TickingClock
from engine import another_program, database_of, file_of, store_of
from forks import run_code
from soulkeep.app import open_backups, open_home
from soulkeep.errors import (
    BackupDamagedError,
    BackupNotFoundError,
    DocumentError,
    InvalidInputError,
    SchemaTooNewError,
    StoreBusyError,
    StoreCorruptError,
)
from soulkeep.models import Backup, MemoryFilter, NewMemory, Options
from soulkeep.progress import told_to
from soulkeep.repository.sqlite import schema
from soulkeep.repository.sqlite.database import Database
from soulkeep.service.backups import surplus, verify_files, write_manifest
from soulkeep.service.home import Home

needs_kill = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL")
KILLS = pytest.mark.parametrize("kills", [2, pytest.param(30, marks=pytest.mark.campaign)])


def _keep(home: Home, *texts: str) -> list[int]:
    return [receipt.id for receipt in home.memories.remember([NewMemory(text) for text in texts])]


def _contents(home: Home) -> list[str]:
    found = home.repository.memories.list_memories(MemoryFilter(), -1)
    return [memory.content for memory in reversed(found)]


def _files(folder: Path) -> dict[str, bytes]:
    found = [folder / "SOUL.md", folder / "MEMORY.md", *(folder / "daily").glob("*.md")]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


def _spoil(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)


def _tear_index(home: Home) -> None:
    database = database_of(home)
    database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    (page, size) = database.execute(
        "SELECT rootpage, page_size FROM sqlite_master, pragma_page_size"
        " WHERE sqlite_master.name = 'memories_by_date'"
    )[0]
    with file_of(home).open("r+b") as file:
        file.seek((page - 1) * size)
        file.write(bytes(size))


def test_a_backup_holds_the_store_and_the_documents_and_says_so(home: Home) -> None:
    _keep(home, "The cat is called Miso.")
    home.documents.append_daily("Bought a lamp.")

    told: list[tuple[str, float | None]] = []

    with told_to(lambda doing, share: told.append((doing, share))):
        backup = home.backups.make("before-spring cleaning")

    assert told == [("Copying the store", 1), ("Checking the copy of the store", None)]
    assert backup == home.backups.find(backup.id) == home.backups.list_backups()[0]
    assert (backup.automatic, backup.label) == (True, "before-spring cleaning")
    assert backup.id.endswith("Z-before-spring-cleaning")
    assert backup.counts == home.repository.count_rows()
    folder = home.backups.folder / backup.id
    assert _files(folder) == _files(home.path)
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["schema"] == len(schema.STEPS)
    assert manifest["files"].keys() == {"soulkeep.db", *_files(home.path)}
    assert backup.size == sum(file["size"] for file in manifest["files"].values())


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no permission bits")
def test_backups_are_for_their_owner_only(home: Home) -> None:
    home.documents.append_daily("Private.")
    home.backups.make("try")

    for path in (home.backups.folder, *home.backups.folder.rglob("*")):
        wanted = 0o700 if path.is_dir() else 0o600
        assert stat.S_IMODE(path.stat().st_mode) == wanted, path


def test_a_backup_inside_a_transaction_holds_what_is_committed(home: Home) -> None:
    ids = _keep(home, "Stays.", "Goes.")

    with home.repository.recording():
        home.repository.memories.delete_memories([ids[1]])
        backup = home.backups.make("before-deletion")

    assert _contents(home) == ["Stays."]
    assert backup.counts["memories"] == 2


def test_two_backups_of_one_moment_and_label_are_both_kept(tmp_path: Path) -> None:
    open_home(tmp_path).close()
    moment = datetime(2026, 3, 1, tzinfo=UTC)
    backups = open_backups(tmp_path, clock=lambda: moment)

    first, second = backups.make("try"), backups.make("try")

    assert {backup.id for backup in backups.list_backups()} == {first.id, second.id}
    assert second.id == f"{first.id}-2"


def test_a_label_is_named_when_it_is_blank_or_long(home: Home) -> None:
    for label in ("", "x" * 201):
        with pytest.raises(InvalidInputError, match="label"):
            home.backups.make(label)
    assert home.backups.list_backups() == []


def test_a_document_that_cannot_be_read_is_left_out_by_name_and_left_alone(
    home: Home, tmp_path: Path
) -> None:
    (tmp_path / "vault.md").write_text("Elsewhere.", encoding="utf-8")
    (home.path / "MEMORY.md").unlink()
    (home.path / "MEMORY.md").symlink_to(tmp_path / "vault.md")

    backup = home.backups.make("try")
    restored = home.backups.restore(backup.id)

    assert backup.left_out == restored.left == ("MEMORY.md",)
    assert (home.path / "MEMORY.md").read_text(encoding="utf-8") == "Elsewhere."


def test_no_backup_is_kept_of_a_store_that_fails_the_check(home: Home) -> None:
    _keep(home, *(f"Memory {number}." for number in range(50)))
    _tear_index(home)

    with pytest.raises(StoreCorruptError, match="soulkeep doctor"):
        home.backups.make("before-deletion")

    assert {path.name for path in home.backups.folder.iterdir()} == {".lock"}


# Restoring


def test_a_restore_brings_back_the_store_and_the_documents_with_their_bytes(home: Home) -> None:
    _keep(home, "Older.")
    (home.path / "SOUL.md").write_bytes(b"\xef\xbb\xbf# Soul\r\nno newline at the end \xff")
    home.documents.append_daily("First day.")
    backup, before = home.backups.make("try"), _files(home.path)
    _keep(home, "Newer.")
    (home.path / "SOUL.md").write_bytes(b"# Another\n")
    (home.path / "daily" / "2031-01-01.md").write_bytes(b"# Later\n")
    for log in before.keys() - {"SOUL.md", "MEMORY.md"}:
        (home.path / log).unlink()

    home.backups.restore(backup.id)

    assert _files(home.path) == before
    assert [text for text in _contents(home) if text in ("Older.", "Newer.")] == ["Older."]
    assert home.check() == []
    assert home.documents.read_version("SOUL.md", home.documents.list_versions("SOUL.md")[0].id)


def test_a_restore_is_undone_by_the_backup_that_it_makes(home: Home) -> None:
    first = home.backups.make("try")
    _keep(home, "Written later.")
    home.documents.append_daily("Logged later.")
    contents, files = _contents(home), _files(home.path)

    restored = home.backups.restore(first.id)
    assert "Written later." not in _contents(home)
    assert restored.former is not None
    assert (restored.former.label, restored.former.automatic) == ("before-restore", True)
    home.backups.restore(restored.former.id)

    assert _contents(home) == contents
    assert _files(home.path) == files
    assert home.check() == []


def test_who_has_the_store_open_finds_what_was_restored_and_nothing_else(
    make_home: Callable[..., Home],
) -> None:
    home, other = make_home(), make_home()
    _keep(home, "The cat is called Miso.", "The parrot repeats everything.")
    backup = home.backups.make("try")
    ids = _keep(home, "The dog is called Rex.", "The tortoise sleeps in winter.")
    assert {m.memory.id for m in other.memories.recall("a pet dog").matches} & {*ids}

    home.backups.restore(backup.id)

    for opened in (other, home):
        matches = opened.memories.recall("a pet dog that is called").matches
        assert {match.memory.content for match in matches} <= {
            "The cat is called Miso.",
            "The parrot repeats everything.",
        }
        assert matches
        assert opened.check() == []
    (new,) = _keep(other, "The cow is called Berta.")
    assert new > max(ids)  # an id is never given to a second memory
    assert other.memories.recall("cow Berta").matches[0].memory.id == new


@pytest.mark.embedder("universal")
def test_copies_of_vectors_are_loaded_anew_also_where_ids_and_changes_look_the_same(
    make_home: Callable[..., Home],
) -> None:
    home, other = make_home(), make_home()
    _keep(home, "Aunt Clara plays the cello.")
    first = home.backups.make("first")
    home.backups.restore(first.id)
    for text in ("Uncle Bob fishes for trout.", "The neighbour grows tomatoes."):
        home.backups.restore(first.id)
        _keep(home, text)
        state = store_of(other)._scan._look()
        other.memories.recall("before")

        assert other.memories.recall(text).matches[0].memory.content == text
        assert state.last_change > 2**32


def test_a_restored_store_remembers_that_it_was(home: Home) -> None:
    backup = home.backups.make("try")

    home.backups.restore(backup.id)

    rows = database_of(home).execute("SELECT event, details FROM audit_log ORDER BY id DESC")
    assert (rows[0][0], json.loads(rows[0][1])) == ("store.restored", {"backup": backup.id})


def test_a_restore_shows_among_the_events_of_a_store(make_home: Callable[..., Home]) -> None:
    home, other = make_home(), make_home()
    home.prompts.add_prompt("Tone", "Be brief.", 0)
    backup = home.backups.make("try")
    home.prompts.change_prompt(1, content="Be great.")
    ends = other.repository.news(None)[0]

    home.backups.restore(backup.id)

    assert "store.restored" in other.repository.news(ends)[1]
    assert other.prompts.list_prompts()[0].content == "Be brief."


def test_a_moment_means_the_latest_backup_that_is_not_after_it(home: Home, clock: TickingClock) -> None:
    made: list[Backup] = []
    for day in (20, 21):
        clock.now = clock.now.replace(month=11, day=day, hour=12, minute=0, second=0)
        made.append(home.backups.make(f"day {day}"))

    assert home.backups.find("2026-11-20") == made[0]
    assert home.backups.find("2026-11-21T12:00") == made[0]
    assert home.backups.find("2026-11-21T12:00:30Z") == home.backups.find("2027-01-01") == made[1]
    for wanted in ("2026-11-19", "2026-11-20T11:00", "yesterday", "", "..", ".lock", "../home"):
        with pytest.raises(BackupNotFoundError):
            home.backups.find(wanted)


@pytest.mark.parametrize("spoilt", ["soulkeep.db", "MEMORY.md"])
def test_a_damaged_backup_is_refused_before_anything_changes(home: Home, spoilt: str) -> None:
    backup = home.backups.make("try")
    _keep(home, "Written later.")
    contents, files = _contents(home), _files(home.path)
    _spoil(home.backups.folder / backup.id / spoilt)

    with pytest.raises(BackupDamagedError, match=spoilt):
        home.backups.restore(backup.id)

    assert (_contents(home), _files(home.path)) == (contents, files)
    assert home.backups.list_backups() == [backup]


def test_a_backup_with_a_file_more_or_less_or_no_manifest_is_refused(home: Home) -> None:
    more, less, none = (home.backups.make(label) for label in ("more", "less", "none"))
    folder = home.backups.folder
    (folder / more.id / "daily" / "2026-01-01.md").write_text("Slipped in.", encoding="utf-8")
    (folder / less.id / "SOUL.md").unlink()
    (folder / none.id / "manifest.json").write_text("[]", encoding="utf-8")

    for backup in (more, less, none):
        with pytest.raises(BackupDamagedError):
            home.backups.restore(backup.id)
    assert none not in home.backups.list_backups()


def test_a_backup_by_a_later_soulkeep_is_refused_before_anything_changes(home: Home) -> None:
    later = open_home(home.path.with_name("later"))
    with closing(later):
        database_of(later).execute("PRAGMA user_version = 99")
        kept = _copied_by_hand(later, home)
    _keep(home, "Stays.")

    with pytest.raises(SchemaTooNewError, match=kept):
        home.backups.restore(kept)

    assert "Stays." in _contents(home)


def _copied_by_hand(source: Home, target: Home) -> str:
    """Put a store under a manifest as that later version would have written it."""
    folder = target.backups.folder / "2026-01-01T000000Z-later"
    folder.mkdir(parents=True)
    with (
        closing(another_program(file_of(source))) as store,
        closing(another_program(folder / "soulkeep.db")) as copy,
    ):
        with copy.backup("main", store, "main") as backup:
            backup.step()
        copy.pragma("journal_mode", "delete")
    counts = source.repository.count_rows()
    described = {"made_at": "2026-01-01T00:00:00.000Z", "label": "later", "automatic": False}
    write_manifest(folder, 99, **described, left_out=[], counts=counts)
    return folder.name


def test_a_backup_of_an_older_schema_and_other_pages_is_migrated_as_it_is_restored(
    make_home: Callable[..., Home], tmp_path: Path
) -> None:
    (tmp_path / "old").mkdir()
    plain = apsw.Connection(str(tmp_path / "old" / "soulkeep.db"))
    plain.execute("PRAGMA page_size = 4096; PRAGMA journal_mode = wal; VACUUM")
    plain.close()
    with closing(Database(tmp_path / "old" / "soulkeep.db")) as old:
        schema.bootstrap(old, schema.STEPS[:1])
        assert old.execute("PRAGMA auto_vacuum") == [(0,)]
        old.execute(
            "INSERT INTO memories (content, memory_type, created_at)"
            " VALUES ('The lighthouse is closed.', 'fact', '2026-01-01T00:00:00.000Z')"
        )
    backup = open_backups(tmp_path / "old").make("old")
    home, other = make_home("new", "none"), make_home("new", "none")
    _keep(home, "Of the new home.")
    home.backups.make("try")
    shutil.copytree(tmp_path / "old" / "backups" / backup.id, home.backups.folder / backup.id)

    home.backups.restore(backup.id)

    assert _contents(home) == ["The lighthouse is closed."]
    _keep(other, *(f"Written after it, number {number}." for number in range(300)))
    for opened in (home, other):
        assert opened.repository.versions()["schema"] == str(len(schema.STEPS))
        assert database_of(opened).execute("PRAGMA auto_vacuum") == [(2,)]
        assert opened.check() == []
        assert opened.memories.recall("lighthouse").matches


def test_a_restore_that_a_document_stands_in_the_way_of_changes_nothing(home: Home) -> None:
    _keep(home, "Older.")
    home.documents.edit("MEMORY.md", lambda text: text + "\nOlder.\n")
    backup = home.backups.make("try")
    _keep(home, "Newer.")
    home.documents.edit("MEMORY.md", lambda text: text + "\nNewer.\n")
    (home.path / "SOUL.md").write_text("# Another\n", encoding="utf-8")
    (home.path / "SOUL.md").chmod(0o400)
    contents, files = _contents(home), _files(home.path)

    with pytest.raises(DocumentError, match="read-only"):
        home.backups.restore(backup.id)

    (home.path / "SOUL.md").chmod(0o600)
    assert (_contents(home), _files(home.path)) == (contents, files)
    _keep(home, "The store can be written again.")


def test_a_restore_does_not_begin_while_another_process_keeps_the_write_lock(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    backup = home.backups.make("try")
    monkeypatch.setattr("soulkeep.repository.sqlite.connections.BUSY_TIMEOUT_S", 0)
    with closing(another_program(file_of(home))) as blocker:
        blocker.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreBusyError):
            home.backups.restore(backup.id)

    assert home.backups.list_backups() == [backup]


def test_a_damaged_store_is_mended_under_those_who_have_it_open(
    make_home: Callable[..., Home],
) -> None:
    home, other = make_home(), make_home()
    _keep(home, *(f"Memory {number}." for number in range(50)))
    backup = home.backups.make("try")
    _tear_index(home)
    with pytest.raises(StoreCorruptError):
        home.backups.make("before-deletion")

    restored = open_backups(home.path).restore(backup.id)

    assert restored.former is None
    for opened in (home, other):
        assert opened.check() == []
    _keep(other, "Written by the other.")
    assert "Written by the other." in _contents(home)


@pytest.mark.parametrize("damage", ["gone", "torn"])
def test_a_store_that_is_gone_or_damaged_is_brought_back(damage: str, tmp_path: Path) -> None:
    with closing(open_home(tmp_path / "home")) as home:
        _keep(home, "Survives.")
        backup = home.backups.make("try")
    store = tmp_path / "home" / "soulkeep.db"
    if damage == "gone":
        store.unlink()
    else:
        content = bytearray(store.read_bytes())
        content[200 : 16384 * 2] = b"\xff" * (16384 * 2 - 200)
        store.write_bytes(content)
        torn = store.read_bytes()

    restored = open_backups(tmp_path / "home").restore(backup.id)

    if damage == "torn":
        assert restored.former is None
        assert restored.kept is not None
        assert (restored.kept / "soulkeep.db").read_bytes() == torn
    with closing(open_home(tmp_path / "home")) as home:
        assert "Survives." in _contents(home)
        assert home.check() == []


# The bound


def test_only_so_many_are_kept_and_automatic_ones_go_first(tmp_path: Path, clock: TickingClock) -> None:
    open_home(tmp_path / "home").close()
    kept = open_backups(tmp_path / "home", clock=clock, options=Options(backups=3))

    def labels() -> list[str]:
        return [backup.label for backup in reversed(kept.list_backups())]

    for label in ("mine 1", "auto 1", "auto 2", "auto 3"):
        kept.make(label, on_demand=label.startswith("mine"))
    assert labels() == ["mine 1", "auto 2", "auto 3"]
    for label in ("mine 2", "mine 3"):
        kept.make(label, on_demand=True)
    assert labels() == ["mine 1", "mine 2", "mine 3"]
    kept.make("auto 4")
    assert labels() == ["mine 1", "mine 2", "mine 3", "auto 4"]
    kept.make("mine 4", on_demand=True)
    assert labels() == ["mine 2", "mine 3", "mine 4"]
    assert {path.name for path in kept.folder.iterdir()} - {".lock"} == {
        backup.id for backup in kept.list_backups()
    }


def test_the_backup_that_is_restored_is_not_dropped_for_the_one_made_before(
    tmp_path: Path, clock: TickingClock
) -> None:
    open_home(tmp_path / "home").close()
    kept = open_backups(tmp_path / "home", clock=clock, options=Options(backups=1))
    backup = kept.make("only")

    restored = kept.restore(backup.id)

    assert kept.list_backups() == [restored.former, backup]


@pytest.mark.parametrize("seed", range(50))
def test_whatever_the_order_the_bound_is_kept_and_the_newest_stay(seed: int) -> None:
    chance, keep = random.Random(seed), seed % 5 + 1  # noqa: S311 - repeatable
    backups: list[Backup] = []
    for number in range(30):
        made = Backup(str(number), f"{number:03}", "", chance.random() < 0.6, 0, {})
        backups = [made, *backups]
        going = surplus(backups, keep)
        assert made not in going
        assert made.automatic is False or all(backup.automatic for backup in going)
        backups = [backup for backup in backups if backup not in going]
        assert len(backups) <= keep + made.automatic


# Several processes


WRITER = """
import sys
from soulkeep.app import open_home
from soulkeep.models import NewMemory

home, name = open_home(sys.argv[1], embedder="none"), sys.argv[2]
print("ready", flush=True)
for number in range(int(sys.argv[3])):
    home.memories.remember([NewMemory(f"{name} {number}")])
    print(number, flush=True)
"""


def _assert_prefixes(contents: Sequence[str], names: Sequence[str]) -> dict[str, int]:
    counts = {}
    for name in names:
        own = [text for text in contents if text.split()[0] == name]
        assert own == [f"{name} {number}" for number in range(len(own))]
        counts[name] = len(own)
    return counts


def test_backups_while_two_processes_write_are_each_one_moment_of_the_store(tmp_path: Path) -> None:
    home = open_home(tmp_path / "home", embedder="none")
    names = ["maple", "river"]
    writers = [run_code(WRITER, home.path, name, 120) for name in names]
    for writer in writers:
        assert writer.stdout
        assert writer.stdout.readline() == "ready\n"
    made: list[Backup] = []
    while any(writer.poll() is None for writer in writers) and len(made) < 6:
        made.append(home.backups.make(f"during {len(made)}"))
        assert home.check() == []
    assert [len(writer.communicate()[0].split()) for writer in writers] == [120] * 2

    grown = [_check_copy(home, backup, tmp_path / backup.id, names) for backup in made]

    assert any(0 < sum(counts.values()) < 240 for counts in grown)
    for earlier, later in pairwise(grown):
        assert all(earlier[name] <= later[name] for name in names)
    assert _assert_prefixes(_contents(home), names) == dict.fromkeys(names, 120)
    home.close()


def _check_copy(home: Home, backup: Backup, path: Path, names: Sequence[str]) -> dict[str, int]:
    shutil.copytree(home.backups.folder / backup.id, path)
    with closing(open_home(path, embedder="none")) as copy:
        assert copy.check() == []
        return _assert_prefixes(_contents(copy), names)


def test_a_restore_while_two_processes_write_loses_nothing_that_its_backup_does_not_hold(
    tmp_path: Path,
) -> None:
    home = open_home(tmp_path / "home", embedder="none")
    _keep(home, "before all")
    backup = home.backups.make("try")
    names = ["maple", "river"]
    writers = [run_code(WRITER, home.path, name, 60) for name in names]
    for writer in writers:
        assert writer.stdout
        assert [writer.stdout.readline() for _ in range(4)] == ["ready\n", "0\n", "1\n", "2\n"]

    restored = home.backups.restore(backup.id)

    assert [len(writer.communicate()[0].split()) for writer in writers] == [57] * 2
    assert restored.former is not None
    assert restored.kept is not None
    shutil.copytree(restored.kept, tmp_path / "former")
    with closing(open_home(tmp_path / "former", embedder="none")) as former:
        kept = _contents(former)
    after = _contents(home)
    assert sorted(text for text in [*kept, *after] if text != "before all") == sorted(
        f"{name} {number}" for name in names for number in range(60)
    )
    assert home.check() == []
    home.close()


BACKING_UP = """
import sys
from pathlib import Path
from soulkeep.app import open_backups

backups = open_backups(Path(sys.argv[1]))
print("ready", flush=True)
while True:
    print(backups.make("try").id, flush=True)
"""


@needs_kill
@KILLS
def test_kill_9_during_a_backup_leaves_none_that_is_half(kills: int, tmp_path: Path) -> None:
    home = open_home(tmp_path / "home", embedder="none")
    _keep(home, *(f"Memory {number} " + "maple " * 500 for number in range(300)))
    chance = random.Random(3)  # noqa: S311 - repeatable
    for _ in range(kills):
        process = run_code(BACKING_UP, home.path)
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
        time.sleep(chance.uniform(0.0, 0.15))  # the moment of the kill, not a wait
        process.send_signal(signal.SIGKILL)
        process.communicate()

        for backup in home.backups.list_backups():
            verify_files(home.backups.folder / backup.id)
            assert backup.counts["memories"] == 300

    last = home.backups.make("after the kills", on_demand=True)
    home.backups.restore(last.id)
    listed = {backup.id for backup in home.backups.list_backups()}
    assert {path.name for path in home.backups.folder.iterdir()} == {".lock", *listed}
    assert len(_contents(home)) == 300
    home.close()


RESTORING = """
import sys
from pathlib import Path
from soulkeep.app import open_backups

backups = open_backups(Path(sys.argv[1]))
print("ready", flush=True)
for number in range(1000):
    backups.restore(sys.argv[2 + number % 2])
"""


@needs_kill
@KILLS
def test_kill_9_during_a_restore_leaves_one_store_or_the_other(kills: int, tmp_path: Path) -> None:
    home = open_home(tmp_path / "home", embedder="none")
    _keep(home, *(f"few {number}" for number in range(10)))
    few = home.backups.make("few", on_demand=True)
    _keep(home, *(f"many {number} " + "maple " * 200 for number in range(400)))
    many = home.backups.make("many", on_demand=True)
    home.close()
    chance = random.Random(4)  # noqa: S311 - repeatable
    for _ in range(kills):
        process = run_code(RESTORING, home.path, few.id, many.id)
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
        time.sleep(chance.uniform(0.0, 0.3))  # the moment of the kill, not a wait
        process.send_signal(signal.SIGKILL)
        process.communicate()

        with closing(open_home(home.path, embedder="none")) as left:
            assert left.check() == []
            assert left.repository.count_rows()["memories"] in (10, 410)
    listed = open_backups(home.path).list_backups()
    assert few in listed
    assert many in listed


# The command line


@pytest.fixture
def run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    from soulkeep.cli import main

    monkeypatch.setenv("SOULKEEP_EMBEDDER", "none")

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["soulkeep", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capsys.readouterr()
        return int(ended.value.code or 0), out, err

    return run


def test_a_backup_is_made_listed_and_restored_from_the_command_line(
    run: Callable[..., tuple[int, str, str]],
) -> None:
    assert run("backups") == (0, "There are no backups; `soulkeep backup` makes one.\n", "")
    run("remember", "Older.")
    made = run("backup", "--label", "Before the move")[1]
    name = made.split()[1].rstrip(":")
    assert (made.split(": ")[0], "1 memory" in made) == (f"Made {name}", True)
    run("remember", "Newer.")

    code, out, err = run("restore", name, "--yes")
    assert (code, err) == (0, "")
    first, undo = out.splitlines()
    assert first.startswith(f"Restored {name}: 1 memory")
    assert "Newer." not in run("recall", "newer")[1]
    head, *rows = run("backups")[1].splitlines()
    assert head.split() == ["ID", "SIZE", "MADE", "AT", "MEMORIES", "WHY"]
    assert [row.split("  ")[-1].strip() for row in rows] == [
        "before-restore (automatic)",
        "Before the move",
    ]
    listed = json.loads(run("backups", "--json")[1])["backups"]
    assert [entry["counts"]["memories"] for entry in listed] == [2, 1]

    run(*undo.removeprefix("To undo: soulkeep ").split(), "--yes")
    assert "Newer." in run("recall", "newer")[1]


def test_scripts_get_a_backup_as_it_is_listed(run: Callable[..., tuple[int, str, str]]) -> None:
    run("remember", "Kept.")

    code, out, err = run("backup", "--json", "--label", "nightly")

    made = json.loads(out)
    assert (code, err, made["label"], made["automatic"]) == (0, "", "nightly", False)
    assert made["counts"]["memories"] == 1
    assert json.loads(run("backups", "--json")[1]) == {"backups": [made]}


def test_a_restore_asks_first(
    run: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    run("backup")
    monkeypatch.setattr("click.termui.visible_prompt_func", lambda _: "n")

    code, _, err = run("restore", "2099-01-01")

    assert (code, "Aborted" in err) == (1, True)
    assert len(json.loads(run("backups", "--json")[1])["backups"]) == 1


def test_what_is_not_there_is_one_line_on_stderr(run: Callable[..., tuple[int, str, str]]) -> None:
    run("backup")

    for wanted in ("yesterday", "1999-01-01"):
        code, out, err = run("restore", wanted, "--yes")
        assert (code, out, err.count("\n"), "soulkeep backups" in err) == (1, "", 1, True)


def test_the_setting_bounds_the_backups(
    run: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOULKEEP_BACKUPS", "2")
    for _ in range(3):
        run("backup")
    assert len(json.loads(run("backups", "--json")[1])["backups"]) == 2

    monkeypatch.setenv("SOULKEEP_BACKUPS", "0")
    code, _, err = run("backup")
    assert (code, "SOULKEEP_BACKUPS" in err) == (2, True)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES, errno.EIO])
def test_a_restore_that_cannot_be_copied_is_said_in_a_sentence(
    run: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    run("remember", "Kept.")
    name = json.loads(run("backup", "--json")[1])["id"]

    def refuse(source: Path, target: Path) -> None:
        raise OSError(number, os.strerror(number), str(target))

    monkeypatch.setattr(shutil, "copy2", refuse)
    code, out, err = run("restore", name, "--yes")

    assert (code, out, err.count("\n")) == (1, "", 1)
    assert f"a backup cannot be written here ({os.strerror(number)}); " in err
    assert "Kept." in run("memories", "list")[1]
