"""A home in PostgreSQL: over stdio, beside other processes, and where the database goes away."""

import os
import random
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path

import psycopg
import pytest
from mcp import Client, StdioServerParameters, stdio_client
from psycopg.pq import TransactionStatus
from pydantic import SecretStr

from database_server import database_url, new_database, owner_of
from soulkeep.app import open_home
from soulkeep.errors import (
    NotAStoreError,
    SchemaTooNewError,
    StoreBusyError,
    StoreError,
    StoreFullError,
)
from soulkeep.models import MemoryFilter, NewMemory, Options, QueryVector
from soulkeep.progress import told_to
from soulkeep.repository import CommitUnknownError, StoreUnreachableError
from soulkeep.repository.accounts import STEPS as ACCOUNT_STEPS
from soulkeep.repository.postgres import PostgresRepository, accounts, connections, nearest, schema
from soulkeep.repository.postgres.accounts import PostgresTables
from soulkeep.repository.postgres.schema import STEPS
from soulkeep.repository.sqlite import SqliteRepository
from soulkeep.search.questions import query_terms
from soulkeep.service.home import Home
from test_store_contract import DAYS, EVERY, NOW, changed, keep, undo, vector
from wire import COMMAND, OFFLINE

pytestmark = pytest.mark.postgres

ALL = MemoryFilter()
PROCESS = f"soulkeep-{os.getpid()}"
"""What the connections of this process are called, so that those of others can be left alone."""


@pytest.fixture
def store(tmp_path: Path) -> Iterator[PostgresRepository]:
    url = f"{database_url()}&application_name={PROCESS}"
    with closing(PostgresRepository(url, owner_of(tmp_path), DAYS)) as store:
        yield store


def opened(path: Path, owner: str = "local", url: str | None = None) -> Home:
    options = Options(store=SecretStr(url or new_database()))
    return open_home(path, embedder="none", options=options, owner=owner)


def contents(store: PostgresRepository) -> set[str]:
    return {memory.content for memory in store.memories.list_memories(EVERY, -1)}


def end_connections() -> None:
    """End all connections of this process from the side of the database."""
    with psycopg.connect(database_url(), autocommit=True) as other:
        other.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = %s",
            [PROCESS],
        )


# The whole product over it


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_a_client_keeps_and_recalls_over_stdio(tmp_path: Path, mode: str) -> None:
    server = StdioServerParameters(
        command=str(COMMAND),
        args=["serve", "--home", str(tmp_path / "home")],
        env=OFFLINE | {"SOULKEEP_EMBEDDER": "none", "SOULKEEP_STORE": new_database()},
    )
    async with Client(stdio_client(server), mode=mode, read_timeout_seconds=30) as client:
        await client.call_tool("remember", {"content": "The ferry to Gozo leaves at seven."})
        found = await client.call_tool("recall", {"query": "When does the ferry leave?"})
        assert "at seven" in str(found.structured_content)
    assert not (tmp_path / "home" / "soulkeep.db").exists()


def test_a_home_is_backed_up_restored_and_purged(tmp_path: Path) -> None:
    with closing(opened(tmp_path / "home")) as home:
        home.memories.remember([NewMemory("One."), NewMemory("The code is kingfisher.")])
        backup = home.backups.make("by hand", on_demand=True)
        home.memories.remember([NewMemory("Two.")])
        home.backups.restore(backup.id)
        kept = home.repository.memories.list_memories(ALL, -1)
        assert {memory.content for memory in kept} == {"One.", "The code is kingfisher."}
        receipt = home.memories.remember([NewMemory("Three.")])[0]
        assert receipt.id > 3
        assert home.check() == []


def test_two_homes_of_one_database_share_nothing(tmp_path: Path) -> None:
    url = new_database()
    with (
        closing(opened(tmp_path / "a", "anna", url)) as anna,
        closing(opened(tmp_path / "b", "bob", url)) as bob,
    ):
        anna.memories.remember([NewMemory("The ferry of Anna.")])
        seen = bob.revision()
        bob.memories.remember([NewMemory("The ferry of Bob.", source="web")])
        assert [m.memory.content for m in anna.memories.recall("ferry").matches] == [
            "The ferry of Anna."
        ]
        assert [m.memory.content for m in bob.memories.recall("ferry").matches] == ["The ferry of Bob."]
        assert anna.repository.memories.count_and_frequencies(["ferry"]) == (1, {"ferry": 1})
        assert bob.repository.count_rows()["memories"] == 1
        assert bob.revision() != seen
        assert (anna.check(), bob.check()) == ([], [])


def test_a_large_home_is_searched_over_its_index_as_if_it_were_whole(
    store: PostgresRepository, monkeypatch: pytest.MonkeyPatch
) -> None:
    chance = random.Random(3)  # noqa: S311 - no secret
    asked, *vectors = (vector(*(chance.gauss() for _ in range(32))) for _ in range(2_001))
    keep(store, *map(str, range(2_000)), vectors=[*vectors])
    query = QueryVector(asked.embedding, asked.made_by, [16, 16], [[1.0, 1.0], [0.0, 3.0]])
    search = store.vector_search
    whole = search.compare(query, EVERY, 10, [7]), search.nearest(asked.embedding, EVERY, 10)

    monkeypatch.setattr(nearest, "EXACT", 100)
    monkeypatch.setattr(nearest, "_LOOKED_THROUGH", (300, 900))
    search.load([])
    for thread in threading.enumerate():
        if thread.name == "soulkeep-index":
            thread.join()

    looked = "SELECT current_setting('hnsw.ef_search')"
    for one_in, through in ((5, "400"), (1, "900"), (500, "300")):
        monkeypatch.setattr(nearest, "_ONE_IN", one_in)
        with store.snapshot():
            found = search.compare(query, EVERY, 10, [7]), search.nearest(asked.embedding, EVERY, 10)
            assert store.database.query(looked) == [(through,)]
        assert found == whole
    assert store.database.query(looked) != [("300",)]


def test_words_rank_as_in_the_other_engine(store: PostgresRepository, tmp_path: Path) -> None:
    chance = random.Random(3)  # noqa: S311 - no secret
    words = "ferry ferries harbour C++ v2.5.1 allergic peanuts Граце живёт naïve running runs"
    memories = [
        NewMemory(
            " ".join(chance.choices(words.split(), k=chance.randint(1, 40)))
            + chance.choice(["", " 我住在格拉茨。"]),
            subject=chance.choice([None, "Ada of the ferry", "harbour"]),
            occurred_at=f"2026-0{chance.randint(1, 9)}-01T00:00:00.000Z",
        )
        for _ in range(300)
    ]
    with closing(SqliteRepository(tmp_path / "store.db", days=DAYS)) as file:
        for kept in (store, file):
            keep(kept, *memories)
            changed(kept, partial(kept.memories.delete_memories, list(range(1, 300, 7))))
        for question in (
            "ferry",
            "running to the harbour",
            "C++ 2.5.1",
            "Граце",
            "格拉茨",
            "住 peanuts",
            "March",
        ):
            terms = query_terms(question)
            for in_subject in (False, True):
                ours, theirs = (
                    kept.memories.matching(terms, EVERY, 500, in_subject=in_subject)
                    for kept in (store, file)
                )
                assert dict(ours) == pytest.approx(dict(theirs), rel=1e-6), (question, in_subject)
            assert store.memories.count_and_frequencies(terms) == file.memories.count_and_frequencies(
                terms
            )


# The database goes away


def test_what_reads_goes_on_over_another_connection(store: PostgresRepository) -> None:
    keep(store, "Stays.")
    end_connections()
    assert contents(store) == {"Stays."}
    end_connections()
    assert keep(store, "Also.") == [2]


def test_a_connection_lost_inside_a_change_leaves_nothing_of_it(store: PostgresRepository) -> None:
    def lose() -> None:
        with store.recording():
            store.memories.add_memories([NewMemory("Lost.")], [None], NOW)
            end_connections()
            store.memories.add_memories([NewMemory("Lost too.")], [None], NOW)

    with pytest.raises(StoreUnreachableError, match="nothing was written"):
        lose()
    assert contents(store) == set()
    assert keep(store, "Later.") == [1]
    assert store.check(vectors_expected=False) == []


@pytest.mark.parametrize("is_done", [True, False])
def test_a_connection_lost_in_the_commit_tells_what_became_of_it(
    store: PostgresRepository, is_done: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    execute = psycopg.Connection.execute

    def losing(self: psycopg.Connection, query: object, *rest: object, **more: object) -> object:
        if query == "COMMIT":
            if is_done:
                execute(self, "COMMIT")
            self.close()
        return execute(self, query, *rest, **more)  # type: ignore[call-overload]

    monkeypatch.setattr(psycopg.Connection, "execute", losing)
    if is_done:
        keep(store, "Kept.")
    else:
        with pytest.raises(StoreUnreachableError):
            keep(store, "Kept.")
    monkeypatch.undo()
    assert contents(store) == ({"Kept."} if is_done else set())


def test_who_cannot_be_asked_about_a_commit_says_so(
    store: PostgresRepository, monkeypatch: pytest.MonkeyPatch
) -> None:
    execute = psycopg.Connection.execute

    def losing(self: psycopg.Connection, query: object, *rest: object, **more: object) -> object:
        if query == "COMMIT" or b"pg_xact_status" in (query if isinstance(query, bytes) else b""):
            self.close()
        return execute(self, query, *rest, **more)  # type: ignore[call-overload]

    monkeypatch.setattr(psycopg.Connection, "execute", losing)
    with pytest.raises(CommitUnknownError, match="look whether it is there"):
        keep(store, "Perhaps.")


def test_all_connections_in_use_are_waited_for_and_then_told(
    store: PostgresRepository, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = store._database.server
    with ExitStack() as stack:
        for _ in range(connections.CONNECTIONS):
            stack.enter_context(server.connection())
        monkeypatch.setattr(server._pool, "timeout", 0.1)
        with pytest.raises(StoreBusyError, match="connections of this process"):
            contents(store)
    assert contents(store) == set()


def test_many_threads_take_turns_on_few_connections(store: PostgresRepository) -> None:
    with ThreadPoolExecutor(24) as pool:
        ids = [i for (i,) in pool.map(lambda n: keep(store, f"Number {n}."), range(48))]
    assert sorted(ids) == list(range(1, 49))


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://user:secret@127.0.0.1:9/none",
        "postgresql://u:se@cret@/@@@:x/y",
        "host=nowhere.invalid",
    ],
)
def test_who_does_not_answer_is_named_without_the_password(url: str) -> None:
    with pytest.raises(StoreError) as told:
        PostgresRepository(url, "local", DAYS)
    assert "secret" not in str(told.value)
    assert "cret" not in str(told.value)


def test_an_address_that_is_none_and_a_missing_package_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment = {**os.environ, "SOULKEEP_STORE": "mysql://x:secret@y/z"}
    done = subprocess.run([COMMAND, "stats"], env=environment, capture_output=True, check=False)
    assert done.returncode != 0
    assert b"SOULKEEP_STORE" in done.stderr
    assert b"secret" not in done.stderr
    url = new_database()
    for name in [name for name in sys.modules if name.startswith("soulkeep.repository.postgres")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(StoreError, match=r"install soulkeep\[postgres\]"):
        opened(tmp_path / "home", url=url)


def test_nothing_of_postgresql_is_imported_where_the_store_is_a_file(tmp_path: Path) -> None:
    code = (
        "import sys, soulkeep.app as app\n"
        f"app.open_home({str(tmp_path / 'home')!r}, embedder='none').close()\n"
        "print([name for name in sys.modules if 'psycopg' in name or 'postgres' in name])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert done.stdout.strip() == b"[]"


# Schema


def test_many_open_an_empty_database_at_once(tmp_path: Path) -> None:
    code = (
        "import sys; from soulkeep.repository.postgres import PostgresRepository\n"
        "PostgresRepository(sys.argv[1], sys.argv[2]).close()"
    )
    url = new_database()
    started = [
        subprocess.Popen([sys.executable, "-c", code, url, f"home {n % 2}"], stderr=subprocess.PIPE)
        for n in range(4)
    ]
    assert [(p.communicate()[1], p.returncode) for p in started] == [(b"", 0)] * 4
    with psycopg.connect(url) as connection:
        assert connection.execute("SELECT version FROM soulkeep_schema").fetchall() == [(len(STEPS),)]


def make_tables_of_a_store(url: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        schema.bootstrap(connection, url)


@pytest.mark.parametrize(
    ("lock", "table", "version", "make"),
    [
        (schema.LOCK, "soulkeep_schema", len(STEPS), make_tables_of_a_store),
        (accounts.LOCK, "accounts_schema", len(ACCOUNT_STEPS), lambda url: PostgresTables(url).close()),
    ],
    ids=["store", "accounts"],
)
def test_who_waits_while_another_makes_the_tables_sees_them(
    lock: int, table: str, version: int, make: Callable[[str], None]
) -> None:
    url = new_database()
    waiting = "SELECT FROM pg_locks WHERE NOT granted AND locktype = 'advisory' AND database ="
    waiting += " (SELECT oid FROM pg_database WHERE datname = current_database())"
    with ThreadPoolExecutor() as pool, psycopg.connect(url) as first:
        first.execute("SELECT pg_advisory_xact_lock(%s)", [lock])
        late = pool.submit(make, url)
        while not first.execute(waiting).fetchall():
            assert not late.done()
        first.execute(f"CREATE TABLE {table} AS SELECT {version} AS version".encode())
        first.commit()
        late.result()
        assert first.execute(f"TABLE {table}".encode()).fetchall() == [(version,)]


def test_a_database_of_others_or_of_a_later_soulkeep_is_left_alone() -> None:
    url = new_database()
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CREATE TABLE memories (id integer)")
    with pytest.raises(NotAStoreError):
        PostgresRepository(url, "local", DAYS)
    later = new_database()
    PostgresRepository(later, "local", DAYS).close()
    with psycopg.connect(later, autocommit=True) as connection:
        connection.execute("UPDATE soulkeep_schema SET version = 99")
    with pytest.raises(SchemaTooNewError):
        PostgresRepository(later, "local", DAYS)


@pytest.fixture
def former(monkeypatch: pytest.MonkeyPatch) -> str:
    """A database of the first schema, with the memory `Stays.` in it."""
    url = new_database()
    with monkeypatch.context() as patched:
        patched.setattr(schema, "STEPS", STEPS[:1])
        with closing(PostgresRepository(url, "local", DAYS)) as store:
            keep(store, "Stays.")
    return url


def test_an_older_database_is_copied_and_then_brought_to_the_present_schema(former: str) -> None:
    with psycopg.connect(former, autocommit=True) as other:
        with closing(PostgresRepository(former, "local", DAYS)) as store:
            assert contents(store) == {"Stays."}
            assert keep(store, "More.") == [2]
            assert store.check(vectors_expected=False) == []
        copied = "SELECT version, content FROM soulkeep_former.soulkeep_schema, soulkeep_former.memories"
        assert other.execute(copied).fetchall() == [(1, "Stays.")]
        assert other.execute("SELECT version FROM soulkeep_schema").fetchall() == [(len(STEPS),)]
        assert other.execute("SELECT to_regclass('soulkeep_former.vec_memories')").fetchone() == (None,)


def test_a_purge_takes_what_was_copied_before_a_migration_along(former: str, tmp_path: Path) -> None:
    with closing(opened(tmp_path / "home", url=former)) as home:
        home.purges.purge([1])
    with psycopg.connect(former) as other:
        assert other.execute("SELECT count(*) FROM soulkeep_former.memories").fetchone() == (0,)
        assert other.execute("SELECT count(*) FROM soulkeep_former.changed_rows").fetchone() == (0,)


def test_an_older_database_that_cannot_be_copied_stays_as_it_is(former: str) -> None:
    with psycopg.connect(former, autocommit=True) as other:
        other.execute(
            "CREATE FUNCTION fill() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN"
            " RAISE EXCEPTION 'no space left' USING ERRCODE = '53100'; END $$"
        )
        other.execute(
            "CREATE EVENT TRIGGER fill ON ddl_command_start WHEN TAG IN ('CREATE TABLE AS')"
            " EXECUTE FUNCTION fill()"
        )
        with pytest.raises(StoreFullError):
            PostgresRepository(former, "local", DAYS)
        assert other.execute("SELECT version FROM soulkeep_schema").fetchall() == [(1,)]
        other.execute("DROP EVENT TRIGGER fill")
        with closing(PostgresRepository(former, "local", DAYS)) as store:
            assert contents(store) == {"Stays."}


# What others may still read


TOLD = "The door opens to kingfisher."


def places_of_kingfisher(url: str) -> set[str]:
    """Return in whose files of a database the word is, whether a query shows it or not."""
    with psycopg.connect(url, autocommit=True) as other:
        other.execute("CHECKPOINT")
        files = other.execute(
            "SELECT relname, pg_read_binary_file(pg_relation_filepath(oid)) FROM pg_class"
            " WHERE relkind IN ('r', 't', 'i') AND pg_relation_filepath(oid) IS NOT NULL"
        )
        return {name for name, content in files if b"kingfisher" in content}


READS = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM memories"
WRITES = "CREATE TEMPORARY TABLE mine (id bigint)"


@pytest.mark.parametrize("work", [READS, WRITES])
def test_a_purge_is_final_only_once_nobody_may_read_what_was_deleted(
    work: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "READERS_S", 0.0)
    url = new_database()
    with closing(opened(tmp_path / "home", url=url)) as home, psycopg.connect(url) as other:
        (receipt, _) = home.memories.remember([NewMemory(TOLD), NewMemory("Stays.")])
        other.execute(work)

        assert not home.purges.purge([receipt.id]).is_final
        assert "memories" in places_of_kingfisher(url)
        other.rollback()
        monkeypatch.undo()
        finished = home.purges.finish()

        assert finished is not None
        assert finished.is_final
        assert "memories" not in places_of_kingfisher(url)
        assert [memory.content for memory in home.lifecycle.list_memories()] == ["Stays."]


def test_a_purge_waits_for_who_may_still_read_what_was_deleted(tmp_path: Path) -> None:
    url = new_database()
    with closing(opened(tmp_path / "home", url=url)) as home, psycopg.connect(url) as other:
        (receipt,) = home.memories.remember([NewMemory(TOLD)])
        other.execute(READS)

        def listen(doing: str, share: float | None) -> None:
            if doing.startswith("Waiting for others"):
                other.rollback()

        with told_to(listen):
            assert home.purges.purge([receipt.id]).is_final
        assert other.info.transaction_status == TransactionStatus.IDLE


# Processes side by side

OTHER = """
import sys
from test_store_contract import DAYS, keep, undo
from soulkeep.repository.postgres import PostgresRepository
store = PostgresRepository(sys.argv[1], sys.argv[2], DAYS)
for line in sys.stdin:
    what, _, said = line.strip().partition(" ")
    print(keep(store, said)[0] if what == "keep" else undo(store, int(said)), flush=True)
"""


class Other:
    """The same home in another process, which keeps and undoes what it is told to."""

    def __init__(self, owner: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", OTHER, database_url(), owner],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=Path(__file__).parent,
            text=True,
        )

    def tell(self, line: str) -> int:
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline())

    def end(self) -> None:
        self.process.kill()
        self.process.communicate()


def test_changes_are_undone_and_noticed_across_processes(
    store: PostgresRepository, tmp_path: Path
) -> None:
    other = Other(owner_of(tmp_path))
    try:
        change = changed(store, lambda: store.memories.add_memories([NewMemory("Here.")], [None], NOW))
        heard = threading.Event()
        before, told = store.revision(), store.news(None)[0]
        other.tell("keep There.")
        while store.revision() == before and not heard.wait(0.01):
            pass
        assert contents(store) == {"Here.", "There."}
        assert store.news(told)[0][1] == told[1] + 1
        undone_by = other.tell(f"undo {change}")
        assert contents(store) == {"There."}
        assert store.changes.get_change(change).undone_by == undone_by
        undo(store, undone_by)
        assert contents(store) == {"Here.", "There."}
    finally:
        other.end()


@pytest.mark.parametrize(
    "rounds", [2, pytest.param(30, marks=pytest.mark.campaign)], ids=["short", "long"]
)
def test_kill_9_of_one_of_three_processes_loses_nothing_acknowledged(
    store: PostgresRepository, tmp_path: Path, rounds: int
) -> None:
    acknowledged: set[str] = set()
    others = [Other(owner_of(tmp_path)) for _ in range(3)]
    try:
        for turn in range(rounds):
            killed = turn % 3
            ending = threading.Timer(0.02 * (turn % 7), others[killed].process.kill)

            def write(number: int, turn: int = turn) -> None:
                for n in range(20):
                    said = f"Number {n} of {number} in turn {turn}."
                    try:
                        others[number].tell(f"keep {said}")
                    except (OSError, ValueError):  # it was killed before it answered
                        return
                    acknowledged.add(said)

            threads = [threading.Thread(target=write, args=(number,)) for number in range(3)]
            for thread in threads:
                thread.start()
            ending.start()
            for thread in threads:
                thread.join()
            ending.join()
            others[killed].end()
            others[killed] = Other(owner_of(tmp_path))
            assert acknowledged <= contents(store)
        assert len(acknowledged) >= 40 * rounds
        assert store.check(vectors_expected=False) == []
    finally:
        for other in others:
            other.end()


def test_vectors_that_wait_are_embedded_by_one_process(store: PostgresRepository) -> None:
    keep(store, "a", "b", vectors=[vector(1, 0), None])
    with store.sole_worker("vectors") as is_alone:
        assert is_alone
        end_connections()  # it is free again, also where its holder does not know yet
    with store.sole_worker("vectors") as is_alone:
        assert is_alone
