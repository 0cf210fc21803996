"""Backups of a home in a database are in the database too: any process lists and restores them."""

import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psycopg
import pytest
from pydantic import SecretStr

from conftest import Run, TickingClock
from database_server import new_database, owner_of, place_in_postgres
from soulkeep.app import open_accounts, open_home
from soulkeep.errors import BackupNotFoundError, BackupsBusyError
from soulkeep.models import MemoryFilter, NewMemory, Options
from soulkeep.repository.accounts import TABLES as ACCOUNT_TABLES
from soulkeep.repository.postgres.schema import BACKUP_TABLES, TABLES
from soulkeep.service.backups import BULK
from soulkeep.service.home import Home

pytestmark = pytest.mark.postgres


@pytest.fixture
def homes(tmp_path: Path, clock: TickingClock) -> Iterator[tuple[Home, Home]]:
    """One home as two processes have it, neither of which can make a folder for it."""
    (tmp_path / "file").write_text("Nothing can be made below a file.")
    # In a database of their own: what others read at that moment, a purge cannot yet erase.
    where = {**place_in_postgres(tmp_path), "options": Options(store=SecretStr(new_database()))}
    one, other = (
        open_home(tmp_path / "file" / name, embedder="none", clock=clock, **where) for name in "ab"
    )
    with closing(one), closing(other):
        yield one, other


def contents(home: Home) -> set[str]:
    kept = home.repository.memories.list_memories(MemoryFilter(), -1)
    return {memory.content for memory in kept if memory.document is None}


def test_what_one_process_backs_up_another_lists_and_restores(homes: tuple[Home, Home]) -> None:
    one, other = homes
    one.memories.remember([NewMemory("One.")])
    one.curator.log_day("Rain.")
    made = one.backups.make("by hand", on_demand=True)
    other.memories.remember([NewMemory("Two.")])
    other.curator.log_day("Sun.")
    other.curator.add_entry("User Facts", "Lives in Graz.")

    assert other.backups.list_backups() == [made]
    assert (made.label, made.automatic, made.counts["memories"]) == ("by hand", False, 1)
    assert other.statistics.figures().sizes["backups"] == made.size > 0
    restored = other.backups.restore(made.id)

    assert contents(one) == {"One."}
    assert "Graz" not in one.documents.read("MEMORY.md")
    (log,) = [one.documents.read_daily(day) or "" for day in one.documents.list_daily()]
    assert "Rain" in log
    assert "Sun" not in log
    assert (one.check(), one.faults()) == ([], [])
    assert restored.former is not None
    assert restored.kept is None
    one.backups.restore(restored.former.id)
    assert contents(other) == {"One.", "Two."}
    assert "Graz" in other.documents.read("MEMORY.md")
    with pytest.raises(BackupNotFoundError):
        one.backups.restore("yesterday")


@pytest.mark.parametrize("what", ["memories", "thread", "undo"])
def test_very_much_goes_without_a_folder_and_comes_back(homes: tuple[Home, Home], what: str) -> None:
    one, other = homes
    thread = one.threads.create_thread("Work").id
    ids = [
        receipt.id
        for receipt in one.memories.remember(
            [NewMemory(f"Number {n}.", thread_id=thread) for n in range(BULK)]
        )
    ]
    if what == "undo":
        one.changes.undo(one.changes.list_changes(1)[0].id)
    elif what == "memories":
        one.lifecycle.forget(ids)
    else:
        one.threads.delete(thread, "forget")
    assert contents(one) == set()
    (made,) = other.backups.list_backups()
    assert (made.label, made.automatic) == (f"before forgetting {BULK} memories", True)
    other.backups.restore(made.id)
    assert len(contents(one)) == BULK


def test_the_oldest_automatic_ones_go_first(tmp_path: Path, clock: TickingClock) -> None:
    where = place_in_postgres(tmp_path)
    where["options"] = Options(store=where["options"].store, backups=3)
    with closing(open_home(tmp_path, embedder="none", clock=clock, **where)) as home:
        first = home.backups.make("kept", on_demand=True)
        home.backups.restore(first.id)
        for label in ("Same!", "same"):
            home.backups.make(label)
        assert [backup.label for backup in home.backups.list_backups()] == ["same", "Same!", "kept"]
        assert len({backup.id for backup in home.backups.list_backups()}) == 3


def test_one_at_a_time_works_on_them(homes: tuple[Home, Home], monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = homes
    monkeypatch.setattr("soulkeep.service.stored_backups.LOCK_TIMEOUT_S", 0)
    with one.backups._exclusive(), pytest.raises(BackupsBusyError):
        other.backups.make("now")
    assert other.backups.make("now").label == "now"


def test_a_purge_takes_what_it_is_told_out_of_them(homes: tuple[Home, Home]) -> None:
    one, other = homes
    secret, _ = [r.id for r in one.memories.remember([NewMemory("A kingfisher."), NewMemory("One.")])]
    one.curator.promote(secret, "User Facts")
    named, left = one.backups.make("named", on_demand=True), one.backups.make("left", on_demand=True)

    purged = other.purges.purge([secret], [named.id])

    assert (purged.backups, purged.kept_in, purged.is_final) == (
        (named.id,),
        (f"backup {left.id}",),
        True,
    )
    one.backups.restore(named.id)
    assert contents(one) == {"One."}
    assert "kingfisher" not in one.documents.read("MEMORY.md")
    one.backups.restore(left.id)
    assert contents(one) == {"One.", "A kingfisher."}


def vacuumed(url: str) -> set[str]:
    with psycopg.connect(url, autocommit=True) as connection:
        rows = connection.execute("SELECT relname FROM pg_stat_user_tables WHERE vacuum_count > 0")
        return {name for (name,) in rows}


@pytest.mark.parametrize("is_team", [False, True])
def test_what_is_purged_of_an_account_or_a_team_is_vacuumed_with_its_backups(
    tmp_path: Path, is_team: bool
) -> None:
    url = new_database()
    options = Options(store=SecretStr(url))
    with closing(open_accounts(tmp_path, options=options)) as accounts:
        accounts.add("ann")
        accounts.add_team("crew")
        name, delete = ("crew", accounts.delete_team) if is_team else ("ann", accounts.delete)
        with closing(open_home(tmp_path, embedder="none", options=options, owner=name)) as home:
            home.memories.remember([NewMemory("A kingfisher.")])
            home.backups.make("by hand")
        delete(name)
        assert vacuumed(url) == set()

        assert accounts.purge(name, is_team=is_team)[1]

        assert vacuumed(url) >= {*TABLES, *BACKUP_TABLES, *ACCOUNT_TABLES}
        with psycopg.connect(url) as connection:
            for table in (*TABLES, *BACKUP_TABLES):
                rows = connection.execute(f"SELECT owner FROM {table}".encode())  # noqa: S608 - ours
                assert (name,) not in rows.fetchall(), table
            held = connection.execute("SELECT count(*) FROM members WHERE home = %s", [name])
            assert held.fetchone() == (0,)


def test_who_still_reads_is_told_of_when_an_account_is_purged(tmp_path: Path) -> None:
    options = Options(store=SecretStr(url := new_database()))
    with closing(open_accounts(tmp_path, options=options)) as accounts:
        accounts.add("ann")
        accounts.delete("ann")
        with psycopg.connect(url) as reader:
            reader.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            reader.execute("SELECT count(*) FROM memories")
            assert not accounts.purge("ann", is_team=False)[1]


def test_by_hand_they_are_made_listed_and_restored(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOULKEEP_STORE", new_database() + "#" + owner_of(tmp_path))
    run("remember", "One.")
    made = json.loads(run("backup", "--json")[1])
    run("remember", "Two.")
    assert made["id"] in run("backups")[1]
    restored = json.loads(run("restore", made["id"], "--yes", "--json")[1])
    assert restored["kept"] is None
    assert "Two." not in run("memories", "list")[1]
    assert run("restore", restored["former"]["id"], "--yes")[0] == 0
    assert "Two." in run("memories", "list")[1]
