"""Where connections are lost, refused or rolled back, a call is done, or told and not done at all."""

import itertools
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
import pytest
from pydantic import SecretStr

from database_server import OwnServer, database_url, new_database, owner_of
from soulkeep.app import open_home
from soulkeep.errors import SchemaTooNewError, StoreBusyError
from soulkeep.models import NewMemory, NewMessage, Options
from soulkeep.repository import CommitUnknownError, Repository, StoreUnreachableError
from soulkeep.repository.accounts import STEPS
from soulkeep.repository.postgres import PostgresRepository, connections
from soulkeep.repository.postgres.accounts import PostgresTables
from soulkeep.service.home import Home
from test_store_contract import DAYS, EVERY, keep

pytestmark = pytest.mark.postgres

execute = psycopg.Connection.execute


def opened(path: Path, url: str) -> Home:
    options = Options(store=SecretStr(url))
    return open_home(path, embedder="none", options=options, owner=owner_of(path))


def contents(store: Repository) -> set[str]:
    return {memory.content for memory in store.memories.list_memories(EVERY, -1)}


def latest_change(home: Home) -> int:
    return home.changes.list_changes(1)[0].id


# Each kind of call, cut off at each of its statements

CALLS: dict[str, Callable[[Home, str], object]] = {
    "remember": lambda home, _: home.memories.remember([NewMemory("New."), NewMemory("Newer.")]),
    "replace": lambda home, _: home.memories.remember([NewMemory("Instead.")], replaces=[1, 2]),
    "revise": lambda home, _: home.lifecycle.revise(2, "Two, again."),
    "forget": lambda home, _: home.lifecycle.forget([1, 2]),
    "restore": lambda home, _: home.lifecycle.restore([4]),
    "move": lambda home, thread: home.lifecycle.move([1, 2], thread),
    "create a thread": lambda home, _: home.threads.create_thread("Roof", "Be brief."),
    "rename": lambda home, thread: home.threads.rename(thread, "Another title"),
    "delete a thread": lambda home, thread: home.threads.delete(thread, "forget"),
    "save messages": lambda home, thread: home.messages.save(
        thread, [NewMessage("user", "Hello."), NewMessage("assistant", "Good day.")]
    ),
    "add a prompt": lambda home, _: home.prompts.add_prompt("Safety", "Be careful.", 1),
    "change a prompt": lambda home, _: home.prompts.change_prompt(1, content="Be brief."),
    "remove a prompt": lambda home, _: home.prompts.remove_prompt(1),
    "undo": lambda home, _: home.changes.undo(latest_change(home)),
}


def filled(home: Home) -> str:
    thread = home.threads.create_thread("Trip").id
    home.memories.remember([NewMemory("One."), NewMemory("Two."), NewMemory("Three.", thread_id=thread)])
    home.memories.remember([NewMemory("Four.")])
    home.lifecycle.forget([4])
    home.prompts.add_prompt("Tone", "Be kind.", 0)
    home.messages.save(thread, [NewMessage("user", "Where to?")])
    return thread


def state(home: Home) -> tuple[Any, ...]:
    """Return what a home holds, without its log."""
    threads = home.threads.list_threads(100, None)
    return (
        {(m.id, m.content, m.thread_id) for m in home.lifecycle.list_memories(limit=100)},
        {(t.id, t.title, t.system_prompt) for t in threads},
        {(p.id, p.name, p.content) for p in home.prompts.list_prompts(include_inactive=True)},
        {(m.id, m.content) for t in threads for m in home.messages.list_messages(t.id, 100).messages},
    )


class Cut:
    """Ends the connection of the statement of a number, from the side of the database."""

    def __init__(self, at: int, other: psycopg.Connection[Any]) -> None:
        self.left = at

        def cutting(connection: psycopg.Connection[Any], *asked: Any, **named: Any) -> Any:
            self.left -= 1
            if self.left == 0:
                pid = connection.info.backend_pid
                execute(other, "SELECT pg_terminate_backend(%s, 5000)", [pid])
            return execute(connection, *asked, **named)

        self.execute = cutting


@pytest.mark.parametrize(
    "every", [9, pytest.param(1, marks=pytest.mark.campaign)], ids=["short", "long"]
)
@pytest.mark.parametrize("name", CALLS)
def test_a_call_whose_connection_is_lost_at_any_statement_is_done_or_not_at_all(
    name: str, every: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outcomes = set()
    with (
        psycopg.connect(database_url(), autocommit=True) as other,
        closing(opened(tmp_path / "home", database_url())) as home,
    ):
        thread = filled(home)
        for at in itertools.count(1, every):
            before, log = state(home), latest_change(home)
            cut = Cut(at, other)
            with monkeypatch.context() as patched:
                patched.setattr(psycopg.Connection, "execute", cut.execute)
                is_done = was_done(partial(CALLS[name], home, thread))
            latest = latest_change(home)
            assert (latest == log + 1) == is_done == (state(home) != before), at
            if is_done:
                home.changes.undo(latest)
                assert state(home) == before
            assert home.check() == []
            outcomes.add(is_done)
            if cut.left > 0:
                break
    assert outcomes == {True, False}


def was_done(work: Callable[[], object]) -> bool:
    """Return whether a call was done: else it was told that nothing was written."""
    try:
        work()
    except StoreUnreachableError:
        return False
    return True


# The whole server goes away, or has no room


@pytest.fixture(scope="module")
def server() -> Iterator[OwnServer]:
    made = OwnServer({"max_connections": "12"})
    yield made
    made.end()


@dataclass
class Said:
    """What writers were told of each memory."""

    kept: set[str] = field(default_factory=set)
    refused: set[str] = field(default_factory=set)
    unknown: set[str] = field(default_factory=set)
    is_over: threading.Event = field(default_factory=threading.Event)

    def write(self, home: Home, number: int) -> None:
        for turn in itertools.count():
            if self.is_over.is_set():
                return
            said = f"Number {turn} of {number}."
            told = self.kept
            try:
                home.memories.remember([NewMemory(said)])
            except StoreUnreachableError:
                told = self.refused
            except CommitUnknownError:
                told = self.unknown
            told.add(said)

    def restart(self, server: OwnServer, times: int) -> None:
        try:
            for turn in range(times):
                before = len(self.kept)
                while len(self.kept) < before + 5:
                    pass
                server.control("restart", "-m", ("fast", "immediate")[turn % 2])
        finally:
            self.is_over.set()


@pytest.mark.parametrize("restarts", [2, pytest.param(20, marks=pytest.mark.campaign)])
def test_a_restart_under_work_loses_nothing_acknowledged_and_keeps_nothing_refused(
    restarts: int, server: OwnServer, tmp_path: Path
) -> None:
    said = Said()
    with closing(opened(tmp_path / "home", server.url)) as home:
        with ThreadPoolExecutor(3) as pool:
            writing = [pool.submit(said.write, home, number) for number in range(3)]
            said.restart(server, restarts)
        for one in writing:
            one.result()
        home.memories.remember([NewMemory("Afterwards.")])
        found = contents(home.repository)
        assert said.kept <= found
        assert not said.refused & found
        assert found <= said.kept | said.unknown | {"Afterwards."}
        assert home.check() == []


def test_a_server_without_a_free_connection_is_waited_for_and_then_named(
    server: OwnServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ExitStack() as stack:
        store = stack.enter_context(closing(PostgresRepository(server.url, owner_of(tmp_path), DAYS)))
        held = stack.enter_context(ExitStack())
        with suppress(psycopg.OperationalError):
            while True:
                held.enter_context(psycopg.connect(server.url))
        with ThreadPoolExecutor(6) as pool:
            list(pool.map(lambda number: keep(store, f"Number {number}."), range(12)))
        assert len(contents(store)) == 12
        with pytest.raises(StoreUnreachableError, match="too many clients"):
            PostgresRepository(f"{server.url}&application_name=other", "other", DAYS)
        lent = store._database.server
        monkeypatch.setattr(lent._pool, "timeout", 0.2)

        def use_up(taken: ExitStack) -> None:
            while True:
                taken.enter_context(lent.connection())

        with ExitStack() as taken, pytest.raises(StoreUnreachableError, match="too many clients"):
            use_up(taken)
        held.close()
        monkeypatch.undo()
        assert len(contents(store)) == 12
        PostgresRepository(f"{server.url}&application_name=other", "other", DAYS).close()


def test_after_a_failover_it_goes_on_at_the_server_that_took_over(tmp_path: Path) -> None:
    with ExitStack() as stack:
        first = OwnServer({"synchronous_standby_names": "'*'", "synchronous_commit": "local"})
        stack.callback(first.end)
        second = OwnServer(copy_of=first)
        stack.callback(second.end)
        url = f"postgresql://postgres@/postgres?host={first.host},{second.host}"
        store = stack.enter_context(closing(PostgresRepository(url, owner_of(tmp_path), DAYS)))
        with psycopg.connect(first.url, autocommit=True) as operator:
            operator.execute("ALTER SYSTEM SET synchronous_commit = remote_apply")
            operator.execute("SELECT pg_reload_conf()")
        acknowledged = {f"Number {number}." for number in range(10)}
        for said in acknowledged:
            keep(store, said)
        first.control("stop", "-m", "immediate")
        second.control("promote")
        assert acknowledged <= contents(store)
        keep(store, "Afterwards.")
        assert contents(store) == acknowledged | {"Afterwards."}
        assert store.check(vectors_expected=False) == []


@pytest.mark.parametrize("standby", [{}, {"primary_slot_name": "kept"}])
def test_what_a_prepared_transaction_or_a_standby_may_read_is_not_erased_yet(
    standby: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def is_left(store: Repository) -> bool:
        with monkeypatch.context() as patched:
            patched.setattr(connections, "READERS_S", 0.0)
            return not store.erase()

    with ExitStack() as stack:
        first = OwnServer({"max_prepared_transactions": "1", "wal_receiver_status_interval": "1s"})
        stack.callback(first.end)
        store = stack.enter_context(closing(PostgresRepository(first.url, owner_of(tmp_path), DAYS)))
        operator = stack.enter_context(psycopg.connect(first.url, autocommit=True))
        operator.execute("BEGIN; CREATE TABLE later (id bigint); PREPARE TRANSACTION 'later'")
        assert is_left(store)
        operator.execute("ROLLBACK PREPARED 'later'")
        assert store.erase()

        operator.execute("SELECT pg_create_physical_replication_slot('kept')")
        second = OwnServer({"hot_standby_feedback": "on"} | standby, copy_of=first)
        stack.callback(second.end)
        reader = stack.enter_context(psycopg.connect(second.url))
        reader.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ; SELECT 1")
        told = (
            "SELECT (SELECT count(backend_xmin) FROM pg_stat_replication),"
            " (SELECT count(xmin) FROM pg_replication_slots)"
        )
        while operator.execute(told).fetchone() != (not standby, bool(standby)):
            pass
        keep(store, "Written meanwhile.")
        assert is_left(store)
        reader.rollback()
        assert store.erase()


# What the database rolls back


def test_writers_take_turns_whatever_isolation_is_the_database_s_default(tmp_path: Path) -> None:
    url = f"{database_url()}&options=-c%20default_transaction_isolation%3Dserializable"
    with closing(PostgresRepository(url, owner_of(tmp_path), DAYS)) as store:
        with ThreadPoolExecutor(12) as pool:
            ids = [i for (i,) in pool.map(lambda n: keep(store, f"Number {n}."), range(36))]
        assert sorted(ids) == list(range(1, 37))
        assert store.check(vectors_expected=False) == []


def test_a_deadlock_with_another_program_is_told_and_nothing_was_written(tmp_path: Path) -> None:
    url = new_database()
    with (
        closing(PostgresRepository(url, "local", DAYS)) as store,
        psycopg.connect(url) as other,
        ThreadPoolExecutor(1) as pool,
    ):
        keep(store, "Before.")
        other.execute("SET deadlock_timeout = '60s'")  # so that it is the other who gives up
        other.execute("LOCK TABLE memories_fts IN ACCESS EXCLUSIVE MODE")
        keeping = pool.submit(keep, store, "Lost.")
        locked = "SELECT count(*) FROM pg_locks WHERE NOT granted"
        with psycopg.connect(url, autocommit=True) as looking:
            while looking.execute(locked).fetchone() != (1,):
                assert not keeping.done()
        other.execute("UPDATE owners SET revision = revision")
        with pytest.raises(StoreBusyError):
            keeping.result()
        other.rollback()
        assert contents(store) == {"Before."}
        assert keep(store, "Later.") == [2]
        assert store.check(vectors_expected=False) == []


def test_a_commit_that_the_database_refuses_is_told_as_refused() -> None:
    url = new_database()
    with closing(PostgresRepository(url, "local", DAYS)) as store:
        with psycopg.connect(url, autocommit=True) as other:
            other.execute(
                "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
                " RAISE EXCEPTION 'could not serialize access' USING ERRCODE = '40001'; END $$"
            )
            other.execute(
                "CREATE CONSTRAINT TRIGGER refuse AFTER INSERT ON memories DEFERRABLE"
                " INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION refuse()"
            )
            with pytest.raises(StoreBusyError):
                keep(store, "Refused.")
            assert contents(store) == set()
            other.execute("DROP TRIGGER refuse ON memories")
        assert keep(store, "Kept.") == [1]


def test_a_commit_that_another_server_answers_for_is_not_taken_for_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def losing(self: psycopg.Connection[Any], query: Any, *rest: Any, **more: Any) -> Any:
        if query == "COMMIT":
            execute(self, "COMMIT")
            self.close()
            self.timeline = "0000000F"  # type: ignore[attr-defined]
        return execute(self, query, *rest, **more)

    with closing(PostgresRepository(database_url(), owner_of(tmp_path), DAYS)) as store:
        monkeypatch.setattr(psycopg.Connection, "execute", losing)
        with pytest.raises(CommitUnknownError):
            keep(store, "Perhaps.")


# The tables of the accounts


def test_accounts_of_a_later_soulkeep_are_refused_and_left_as_they_are() -> None:
    url = new_database()
    PostgresTables(url).close()
    with psycopg.connect(url, autocommit=True) as other:
        other.execute("UPDATE accounts_schema SET version = 99")
        with pytest.raises(SchemaTooNewError, match=f"99 and this soulkeep knows {len(STEPS)}"):
            PostgresTables(url)
        assert other.execute("SELECT version FROM accounts_schema").fetchall() == [(99,)]


@pytest.mark.parametrize("is_done", [True, False])
def test_a_write_of_accounts_whose_commit_is_lost_is_asked_for(
    is_done: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def losing(self: psycopg.Connection[Any], query: Any, *rest: Any, **more: Any) -> Any:
        if query == "COMMIT":
            if is_done:
                execute(self, "COMMIT")
            self.close()
        return execute(self, query, *rest, **more)

    added = "INSERT INTO clients (id, metadata, created_at) VALUES ('one', '', '')"
    with closing(PostgresTables(new_database())) as tables:
        monkeypatch.setattr(psycopg.Connection, "execute", losing)
        assert was_done(lambda: tables.run(added, {})) == is_done
        monkeypatch.undo()
        assert tables.run("SELECT id FROM clients", {}) == ([("one",)] if is_done else [])
