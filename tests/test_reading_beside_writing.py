"""Reading beside writing: no read waits for a writer, and each sees what was committed before."""

import ast
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import apsw
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

import soulkeep.repository.sqlite
from conftest import TickingClock
from engine import another_program, database_of, file_of
from examples import DEAR
from forks import run_code
from soulkeep.app import open_home
from soulkeep.engines import STORE_NAME
from soulkeep.errors import StoreBusyError, StoreError, StoreNotWritableError, StoreOverwrittenError
from soulkeep.models import NewMemory
from soulkeep.repository.sqlite import connections
from soulkeep.repository.sqlite.database import Database
from soulkeep.repository.sqlite.schema import bootstrap
from soulkeep.service.home import Home
from test_overwritten import overwrite, read
from wire import Wire

WRITES = 50

HOLDING = """
import sys, apsw
connection = apsw.Connection(sys.argv[1])
connection.set_busy_timeout(60_000)
connection.execute("BEGIN IMMEDIATE")
print("held", flush=True)
sys.stdin.read()
connection.execute("ROLLBACK")
"""

INSERT = "INSERT INTO memories (content, memory_type, created_at) VALUES (?, 'fact', '2026-03-01')"


@contextmanager
def held_by_another_process(store: Path) -> Iterator[Callable[[], None]]:
    """Keep the write lock in another process; give what lets go of it."""
    with run_code(HOLDING, store) as process:
        assert process.stdout
        assert process.stdout.readline() == "held\n"

        def let_go() -> None:
            process.communicate()

        try:
            yield let_go
        finally:
            process.kill()


class Waiting:
    """Lets writes of a home wait for the write lock until told to go on, and says that they do."""

    def __init__(self, home: Home) -> None:
        self.begun, self.may_go = threading.Event(), threading.Event()
        database_of(home)._connection.set_busy_handler(self._wait)

    def _wait(self, _: int) -> bool:
        self.begun.set()
        return self.may_go.wait(60)


def keep(home: Home, content: str) -> int:
    (receipt,) = home.memories.remember([NewMemory(content)])
    return receipt.id


def contents(home: Home) -> set[str]:
    return {memory.content for memory in home.lifecycle.list_memories(limit=1000)}


def contents_in(database: Database) -> list[str]:
    return [row[0] for row in database.query("SELECT content FROM memories ORDER BY id")]


def reads(home: Home, memory_id: int, thread_id: str) -> dict[str, Callable[[], object]]:
    """Everything that only reads, by what a client calls it."""
    return {
        "recall": lambda: home.memories.recall("lighthouse").matches,
        "recall in a thread": lambda: home.memories.recall("keys", thread_id=thread_id).matches,
        "list_memories": lambda: home.lifecycle.list_memories(),
        "get_memory": lambda: home.lifecycle.get_memory(memory_id),
        "find_ids": lambda: home.lifecycle.find_ids("lighthouse"),
        "history": lambda: home.lifecycle.history(memory_id) == [],
        "trash": lambda: home.lifecycle.list_trash() == [],
        "list_threads": lambda: home.threads.list_threads(),
        "resume_thread": lambda: home.threads.resume(thread_id),
        "list_messages": lambda: home.messages.list_messages(thread_id) is not None,
        "list_prompts": lambda: home.prompts.list_prompts(),
        "list_changes": lambda: home.changes.list_changes(),
        "get_context": lambda: home.contexts.assemble().parts,
        "stats": lambda: home.statistics.figures(),
        "check": lambda: home.check() == [],
        "signs of change": lambda: home.repository.revision(),
    }


def filled(home: Home) -> dict[str, Callable[[], object]]:
    """Fill a home with something of everything; return what reads it."""
    thread = home.threads.create_thread("Harbour")
    memory_id = keep(home, "The lighthouse is closed.")
    home.memories.remember([NewMemory("The keys are at Anna's.", thread_id=thread.id)])
    home.prompts.add_prompt("Tone", "Be brief.")
    home.memories.recall("lighthouse")
    return reads(home, memory_id, thread.id)


def test_everything_that_reads_is_answered_while_a_write_waits_for_another_process(home: Home) -> None:
    reading = filled(home)
    waiting = Waiting(home)

    with (
        held_by_another_process(file_of(home)) as let_go,
        ThreadPoolExecutor(1) as writer,
    ):
        kept = writer.submit(keep, home, "The ferry leaves at nine.")
        assert waiting.begun.wait(60)
        answered = {name: bool(read()) for name, read in reading.items()}
        assert not kept.done()
        assert "The ferry leaves at nine." not in contents(home)
        let_go()
        waiting.may_go.set()
        kept.result(60)

    assert all(answered.values()), answered
    assert "The ferry leaves at nine." in contents(home)
    assert home.check() == []


@pytest.mark.embedder("universal")
def test_everything_that_reads_is_answered_in_the_middle_of_a_write_of_another_thread(
    home: Home,
) -> None:
    reading = filled(home)
    begun, may_go = threading.Event(), threading.Event()

    def write() -> None:
        with home.repository.recording():
            home.repository.memories.delete_memories([1])
            begun.set()
            assert may_go.wait(60)

    with ThreadPoolExecutor(1) as writer:
        written = writer.submit(write)
        assert begun.wait(60)
        answered = {name: bool(read()) for name, read in reading.items()}
        assert home.memories.recall("beacon").matches[0].memory.id == 1
        may_go.set()
        written.result(60)

    assert all(answered.values()), answered
    assert 1 not in [m.memory.id for m in home.memories.recall("beacon").matches]
    assert home.check() == []


def test_a_server_answers_what_reads_before_what_waits_to_write(tmp_path: Path) -> None:
    wire = Wire(tmp_path / "home", SOULKEEP_EMBEDDER="none", SOULKEEP_TOOLS="full")
    asked: list[tuple[str, dict[str, Any]]] = [
        ("tools/call", {"name": "recall", "arguments": {"query": "lighthouse"}}),
        ("tools/call", {"name": "get_context", "arguments": {}}),
        ("tools/call", {"name": "browse_memories", "arguments": {}}),
        ("tools/call", {"name": "list_prompts", "arguments": {}}),
        ("resources/read", {"uri": "soulkeep://memories/1"}),
        ("resources/read", {"uri": "soulkeep://context"}),
        ("resources/list", {}),
        ("prompts/list", {}),
    ]
    try:
        wire.initialize()
        wire.call("remember", content="The lighthouse is closed.")
        with held_by_another_process(tmp_path / "home" / STORE_NAME) as let_go:
            # More than there are worker threads.
            for number in range(WRITES):
                arguments = {"content": f"Late fact {number}."}
                wire.send("tools/call", {"name": "remember", "arguments": arguments}, id=f"{number}")
            replies = [wire.request(method, params) for method, params in asked]
            let_go()
            late = [wire.receive() for _ in range(WRITES)]
        _, stderr, code = wire.finish()
    finally:
        wire.kill()

    assert [r for r in replies if "error" in r or r["result"].get("isError")] == []
    assert {reply["id"] for reply in late} == {f"{number}" for number in range(WRITES)}
    assert [reply for reply in late if reply["result"].get("isError")] == []
    assert (stderr, code) == ("", 0)


def test_bookkeeping_and_work_beside_calls_wait_for_no_other_thread(home: Home) -> None:
    keep(home, "The lighthouse is closed.")
    waiting, repository = Waiting(home), home.repository

    with held_by_another_process(file_of(home)) as let_go, ThreadPoolExecutor(1) as writer:
        kept = writer.submit(keep, home, "The ferry leaves at nine.")
        assert waiting.begun.wait(60)
        with pytest.raises(StoreBusyError), repository.transaction(waiting=False):
            pytest.fail("somebody else writes")
        assert not repository.in_transaction()
        let_go()
        waiting.may_go.set()
        kept.result(60)

    with repository.transaction(waiting=False):
        assert repository.in_transaction()


def test_a_write_of_another_thread_still_waits_while_one_thread_does_not(home: Home) -> None:
    repository = home.repository
    with ThreadPoolExecutor(1) as writer:
        with repository.transaction(waiting=False):
            kept = writer.submit(keep, home, "The ferry leaves at nine.")
            assert contents(home) == set()
        kept.result(60)

    assert contents(home) == {"The ferry leaves at nine."}


def test_a_thread_sees_what_it_writes_and_others_what_is_committed(home: Home) -> None:
    database = database_of(home)
    with ThreadPoolExecutor(1) as other:
        with home.repository.recording():
            database.execute(INSERT, ("Mine.",))
            assert contents_in(database) == ["Mine."]
            with home.repository.snapshot():
                assert contents_in(database) == ["Mine."]
            assert other.submit(contents_in, database).result(60) == []
        assert other.submit(contents_in, database).result(60) == ["Mine."]


def test_a_snapshot_stays_while_another_thread_writes_and_ends_with_the_block(home: Home) -> None:
    database = database_of(home)
    with ThreadPoolExecutor(1) as writer:
        with home.repository.snapshot():
            assert contents_in(database) == []
            writer.submit(keep, home, "Meanwhile.").result(60)
            with home.repository.snapshot():
                assert contents_in(database) == []
        assert contents_in(database) == ["Meanwhile."]
    assert database_of(home).empty_log()


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM memories",
        "UPDATE memories SET content = 'x' RETURNING id",
        "DROP TABLE memories",
        "PRAGMA user_version = 9",
        "INSERT INTO memories_fts (memories_fts) VALUES ('delete-all')",
    ],
)
def test_what_would_write_where_only_reading_is_asked_for_is_refused(home: Home, statement: str) -> None:
    keep(home, "The lighthouse is closed.")

    with pytest.raises(StoreNotWritableError):
        database_of(home).query(statement)

    assert contents(home) == {"The lighthouse is closed."}
    assert home.check() == []


def test_what_only_reads_is_never_asked_so_that_it_would_wait_for_a_writer() -> None:
    folder = Path(soulkeep.repository.sqlite.__file__).parent
    calls = [
        (path.name, node.lineno, ast.unparse(node.args[0]).lstrip("f'\""))
        for path in folder.glob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in ("execute", "execute_many")
        and ast.unparse(node.func.value) in ("database", "self._database")
    ]
    reading = [call for call in calls if call[2].startswith(("SELECT", "WITH"))]

    assert len(calls) > 50
    # The store is opened by one connection.
    assert sorted(name for name, *_ in reading) == ["__init__.py", "schema.py"], reading


def test_the_count_of_writes_changes_with_each_commit_of_any_thread_or_process(
    home: Home, make_home: Callable[..., Home]
) -> None:
    other = make_home()
    seen = [home.repository.revision()]
    for write in (
        lambda: keep(home, "Mine."),
        lambda: keep(other, "Of another connection."),
        lambda: home.lifecycle.forget([1]),
    ):
        write()
        seen.append(home.repository.revision())
        home.memories.recall("mine")
    assert len(set(seen)) == len(seen)
    home.sessions.flush()
    settled = home.repository.revision()
    contents(home)
    assert home.repository.revision() == settled


def test_more_threads_than_connections_read_and_what_is_idle_is_given_back(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep(home, "The lighthouse is closed.")
    opened: list[object] = []
    open_beside = connections.open_beside

    def counted(path: Path) -> apsw.Connection:
        opened.append(path)
        return open_beside(path)

    home.repository.release_memory()
    monkeypatch.setattr(connections, "open_beside", counted)
    together = threading.Barrier(3 * connections.READERS)

    def read(_: int) -> set[str]:
        together.wait(60)
        return contents(home)

    with home.repository.transaction(), ThreadPoolExecutor(3 * connections.READERS) as threads:
        found = list(threads.map(read, range(3 * connections.READERS)))

    assert found == [{"The lighthouse is closed."}] * len(found)
    assert 1 <= len(opened) <= connections.READERS
    home.repository.release_memory()
    assert database_of(home)._readers._idle == []
    # While nobody writes, none of them is needed.
    assert contents(home) == {"The lighthouse is closed."}
    assert database_of(home)._readers._idle == []


def test_closing_while_threads_read_answers_or_refuses_and_leaves_the_store_whole(
    make_home: Callable[..., Home],
) -> None:
    home = make_home()
    for n in range(20):
        keep(home, f"Fact {n}.")
    reading = threading.Semaphore(0)

    def read_until_closed() -> int:
        with suppress(StoreError):
            while True:
                assert len(contents_in(database_of(home))) == 20
                reading.release()
        return 1

    number = connections.READERS - 1  # what closes reads too, and would wait for a turn among more
    with ThreadPoolExecutor(number) as threads:
        readers = [threads.submit(read_until_closed) for _ in range(number)]
        for _ in range(40):
            assert reading.acquire(timeout=60)
        home.close()
        assert sum(each.result(60) for each in readers) == number

    assert not file_of(home).with_name(f"{STORE_NAME}-wal").exists()
    again = make_home()
    assert len(contents(again)) == 20
    assert again.check() == []


def test_who_begins_to_read_after_the_log_was_deleted_sees_all_that_was_kept(home: Home) -> None:
    for n in range(5):
        keep(home, f"Fact {n}.")
    home.repository.release_memory()
    for suffix in ("-wal", "-shm"):
        (home.path / f"{STORE_NAME}{suffix}").unlink()

    assert len(contents(home)) == 5
    keep(home, "Fact 5.")
    assert len(contents(home)) == 6
    assert home.check() == []


@pytest.mark.parametrize("garbage", [b"no database\n" * 1000, bytes(65536), b"SQLite format 3\0" * 900])
def test_who_begins_to_read_what_was_written_over_is_refused_as_all_others(
    home: Home, garbage: bytes
) -> None:
    keep(home, "The lighthouse is closed.")
    home.repository.release_memory()
    former = read(file_of(home))
    overwrite(file_of(home), garbage)

    for _ in range(2):
        with pytest.raises(StoreOverwrittenError):
            home.lifecycle.list_memories()
        with pytest.raises(StoreOverwrittenError):
            home.repository.revision()
    assert read(file_of(home)) == garbage

    overwrite(file_of(home), former)
    assert contents(home) == {"The lighthouse is closed."}
    assert home.check() == []


class Busy:
    """Threads that read a home without pause while a test does other things to it."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self._stop = threading.Event()
        self._threads = ThreadPoolExecutor(4)
        self.rounds = threading.Semaphore(0)

    def _read(self, number: int) -> int:
        count = 0
        while not self._stop.is_set():
            if number % 2:
                self._home.memories.recall("fact")
            else:
                self._home.contexts.assemble()
                found = self._home.lifecycle.list_memories(limit=1000)
                assert [m.id for m in found] == sorted((m.id for m in found), reverse=True)
            count += 1
            self.rounds.release()
        return count

    def __enter__(self) -> "Busy":
        self._running = [self._threads.submit(self._read, n) for n in range(4)]
        return self

    def wait_for(self, rounds: int) -> None:
        for _ in range(rounds):
            assert self.rounds.acquire(timeout=60)

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self.counts = [each.result(60) for each in self._running]
        self._threads.shutdown()


def test_what_is_kept_is_read_at_once_by_every_thread_beside_many_others(home: Home) -> None:
    def write(writer: int) -> None:
        for n in range(12):
            memory_id = keep(home, f"Fact {n} of {writer}.")
            assert home.lifecycle.get_memory(memory_id).content == f"Fact {n} of {writer}."

    with Busy(home) as busy, ThreadPoolExecutor(2) as writers:
        for written in [writers.submit(write, writer) for writer in range(2)]:
            written.result(60)
        busy.wait_for(4)

    assert all(busy.counts)
    assert len(contents(home)) == 24
    assert home.check() == []


def test_a_purge_goes_on_beside_readers_and_leaves_nothing(home: Home) -> None:
    ids = [keep(home, f"Fact {n} about Zanzibar.") for n in range(10)]

    with Busy(home) as busy:
        busy.wait_for(4)
        purged = home.purges.purge(ids[:5])
        busy.wait_for(8)

    assert purged.is_final or home.purges.finish()
    assert len(contents(home)) == 5
    assert home.check() == []


def test_a_restore_shows_to_readers_beside_it(home: Home) -> None:
    keep(home, "Fact of before.")
    backup = home.backups.make("one", on_demand=True)
    keep(home, "Fact of after.")

    with Busy(home) as busy:
        busy.wait_for(4)
        home.backups.restore(backup.id)
        assert contents(home) == {"Fact of before."}
        busy.wait_for(8)
        keep(home, "Fact of now.")

    assert contents(home) == {"Fact of before.", "Fact of now."}
    assert home.check() == []


def test_a_compaction_and_an_emptied_log_go_on_beside_readers(home: Home) -> None:
    ids = [keep(home, f"Fact {n}.") for n in range(10)]
    home.lifecycle.forget(ids[5:])

    with Busy(home) as busy:
        busy.wait_for(4)
        for _ in home.repository.tidy():
            pass
        assert database_of(home).empty_log()
        busy.wait_for(4)

    log = file_of(home).with_name(f"{STORE_NAME}-wal")
    assert log.stat().st_size < 1_000_000
    assert home.check() == []


def test_a_copy_put_in_place_under_many_readers_is_what_all_read_from_then_on(
    home: Home, tmp_path: Path
) -> None:
    keep(home, "Fact of the copy.")
    with closing(another_program(file_of(home))) as source:
        source.execute("VACUUM INTO ?", (str(tmp_path / "copy.db"),))
    keep(home, "Fact that the copy lacks.")
    home.memories.recall("fact")  # takes in the documents, which would be refused while the copy comes

    with Busy(home) as busy:
        busy.wait_for(4)
        (tmp_path / "copy.db").replace(file_of(home))
        assert contents(home) == {"Fact of the copy."}
        busy.wait_for(8)
        keep(home, "Fact of now.")
        busy.wait_for(4)

    assert contents(home) == {"Fact of the copy.", "Fact of now."}
    assert home.check() == []
    home.close()
    with closing(open_home(home.path, embedder="none", clock=TickingClock())) as again:
        assert contents(again) == {"Fact of the copy.", "Fact of now."}
        assert again.check() == []


class Actors(RuleBasedStateMachine):
    """A writer and two readers, each a thread of its own, against a model of what each has to see."""

    readers = st.integers(0, 1)

    @initialize()
    def open(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.database = Database(Path(self.folder.name, STORE_NAME))
        bootstrap(self.database)
        self.threads = [ThreadPoolExecutor(1) for _ in range(3)]
        self.committed: list[str] = []
        self.written: list[str] | None = None
        self.seen: list[list[str] | None] = [None, None]
        self.open_blocks: dict[int, ExitStack] = {}

    def _in_thread(self, number: int, work: Callable[[], Any]) -> Any:
        return self.threads[number].submit(work).result(60)

    def _enter(self, number: int, block: AbstractContextManager[None]) -> None:
        stack = self.open_blocks[number] = ExitStack()
        self._in_thread(number, lambda: stack.enter_context(block))

    def _leave(self, number: int) -> None:
        self._in_thread(number, self.open_blocks.pop(number).close)

    @precondition(lambda self: self.written is None)
    @rule()
    def begin(self) -> None:
        self._enter(2, self.database.transaction())
        self.written = list(self.committed)

    @precondition(lambda self: self.written is not None)
    @rule(text=st.sampled_from(["tea", "coffee"]))
    def write(self, text: str) -> None:
        assert self.written is not None
        self.written.append(text)
        self._in_thread(2, lambda: self.database.execute(INSERT, (text,)))
        assert self._in_thread(2, lambda: contents_in(self.database)) == self.written

    @precondition(lambda self: self.written is not None)
    @rule()
    def commit(self) -> None:
        assert self.written is not None
        self._leave(2)
        self.committed, self.written = self.written, None

    @precondition(lambda self: self.written is not None)
    @rule()
    def roll_back(self) -> None:
        def fail() -> None:
            with pytest.raises(KeyError), self.open_blocks.pop(2):
                raise KeyError

        self._in_thread(2, fail)
        self.written = None

    @rule(reader=readers)
    def read(self, reader: int) -> None:
        if reader in self.open_blocks and self.seen[reader] is None:
            self.seen[reader] = self.committed  # the first look is the moment
        expected = self.committed if self.seen[reader] is None else self.seen[reader]
        assert self._in_thread(reader, lambda: contents_in(self.database)) == expected

    @rule(reader=readers)
    def take_or_end_a_snapshot(self, reader: int) -> None:
        if reader in self.open_blocks:
            self._leave(reader)
        else:
            self._enter(reader, self.database.snapshot())
        self.seen[reader] = None

    @precondition(lambda self: not self.open_blocks)
    @rule()
    def empty_the_log(self) -> None:
        assert self._in_thread(2, self.database.empty_log)

    @precondition(lambda self: not self.open_blocks)
    @rule()
    def release_memory(self) -> None:
        self._in_thread(0, self.database.release_memory)

    def teardown(self) -> None:
        if not hasattr(self, "folder"):
            return
        for number in list(self.open_blocks):
            self._leave(number)
        self.database.close()
        for thread in self.threads:
            thread.shutdown()
        self.folder.cleanup()


Actors.TestCase.settings = DEAR
TestReadersBesideAWriter = Actors.TestCase
