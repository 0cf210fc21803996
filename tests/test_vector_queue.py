"""Memories are kept and found at once; their vectors come later, each once, whatever happens."""

import hashlib
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, suppress
from datetime import timedelta

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from conftest import Run, TickingClock
from engine import another_program, database_of, store_of
from examples import DEAR
from soulkeep.app import open_home
from soulkeep.embedders import (
    Embedded,
    Embedder,
    KeyRefusedError,
    RateLimitedError,
    TextRefusedError,
    Weighting,
)
from soulkeep.errors import EmbedderError
from soulkeep.models import NewMemory
from soulkeep.service.home import Home

np = pytest.importorskip("numpy")

MakeHome = Callable[..., Home]

DIMENSIONS = 64


class Remote:
    """An embedder that is asked over a network: it counts what it is asked, and fails as it is told."""

    identity = f"remote:{DIMENSIONS}:unit"
    parts: Sequence[int] = (DIMENSIONS,)
    is_quick = is_local = False
    price: float | None = 0.02

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.questions: list[str] = []
        self.failing: Callable[[Sequence[str]], None] = lambda texts: None

    def weightings(self, query: str) -> Sequence[Weighting]:
        return [self.weighting(query, "")]

    def weighting(self, query: str, text: str) -> Weighting:
        return Weighting((1.0,), 1.0)

    def embed(self, texts: Sequence[str]) -> Embedded:
        self.failing(texts)
        self.asked += texts
        return Embedded(tuple(map(_embedding, texts)), 10 * len(texts))

    def embed_query(self, query: str) -> Embedded:
        self.failing([query])
        self.questions.append(query)
        return Embedded((_embedding(query),), 10)

    def load(self) -> None:
        """Do nothing: there is no model here."""

    def release(self) -> None:
        """Do nothing."""


def _embedding(text: str) -> bytes:
    """Return a unit vector in which each word of a text has its place."""
    vector = np.full(DIMENSIONS, 0.01, "<f4")
    for word in text.lower().split():
        vector[hashlib.sha256(word.encode()).digest()[0] % DIMENSIONS] += 1
    made: bytes = (vector / np.linalg.norm(vector)).astype("<f4").tobytes()
    return made


def refuse(bad: str) -> Callable[[Sequence[str]], None]:
    """Refuse each list with this text in it, as an endpoint does that does not say which it was."""

    def failing(texts: Sequence[str]) -> None:
        if bad in texts:
            raise TextRefusedError(texts.index(bad), len(bad), "too long")

    return failing


@pytest.fixture
def remote() -> Remote:
    return Remote()


@pytest.fixture
def open_with(make_home: MakeHome) -> Callable[[Embedder], Home]:
    """Open a home with an embedder."""

    def open_with(embedder: Embedder, name: str = "home") -> Home:
        home = make_home(name, embedder="none")
        home._embedder = embedder
        return home

    return open_with


@pytest.fixture
def home(open_with: Callable[[Embedder], Home], remote: Remote) -> Home:
    return open_with(remote)


def keep(home: Home, *contents: str) -> list[int]:
    return [r.id for r in home.memories.remember([NewMemory(content) for content in contents])]


def with_vectors(home: Home) -> list[int]:
    rows = database_of(home).execute("SELECT rowid FROM vec_memories_rowids ORDER BY 1")
    return [row[0] for row in rows]


def found(home: Home, query: str) -> list[str]:
    return [match.memory.content for match in home.memories.recall(query).matches]


def test_a_memory_is_found_by_its_words_at_once_and_gets_its_vector_later(
    home: Home, remote: Remote
) -> None:
    ids = keep(home, "The ferry leaves at nine.", "Bread is baked at dawn.")

    assert (remote.asked, with_vectors(home)) == ([], [])
    recall = home.memories.recall("ferry")
    assert recall.matches[0].memory.content == "The ferry leaves at nine."
    assert "2 memories wait for their vectors" in recall.remarks[0]
    assert remote.asked == []
    assert home.check() == []
    home.queue.work_off()
    assert with_vectors(home) == ids
    assert sorted(remote.asked) == ["Bread is baked at dawn.", "The ferry leaves at nine."]
    assert home.memories.recall("ferry").remarks == ()
    assert home.check() == []


@pytest.mark.embedder("universal")
def test_a_quick_embedder_embeds_short_lists_in_the_call_and_long_ones_later(
    make_home: MakeHome,
) -> None:
    home = make_home()
    short = keep(home, *(f"Parcel {n} is in the shed." for n in range(20)))
    assert with_vectors(home) == short
    long = keep(home, *(f"Letter {n} is in the box." for n in range(21)))

    assert with_vectors(home) == short
    assert home.check() == []
    assert home.memories.recall("Where is the mail?").mode == "hybrid"
    assert with_vectors(home) == [*short, *long]


def test_one_text_that_is_refused_does_not_keep_others_back(
    home: Home, remote: Remote, clock: TickingClock
) -> None:
    contents = [f"Parcel {n} is in the shed." for n in range(50)]
    ids = keep(home, *contents)
    remote.failing = refuse(contents[17])
    home.queue.work_off()

    assert with_vectors(home) == [i for i in ids if i != ids[17]]
    assert sorted(remote.asked) == sorted(set(contents) - {contents[17]})
    waiting = home.queue.waiting()
    assert (waiting.pending, waiting.failed) == (0, 1)
    assert "too long" in waiting.reason
    (remark,) = home.memories.recall("parcel").remarks
    assert "1 memory could not be embedded" in remark
    assert "too long" in remark
    assert home.check() == []
    asked = len(remote.asked)
    home.queue.work_off()
    assert len(remote.asked) == asked
    remote.failing = lambda texts: None
    clock.now += timedelta(hours=2)
    home.queue.work_off()
    assert with_vectors(home) == ids
    assert home.memories.recall("parcel").remarks == ()


def test_a_refused_text_before_another_in_its_thread_does_not_keep_that_one_back(
    home: Home, remote: Remote
) -> None:
    thread = home.threads.create_thread("Sea").id
    texts = ["It is far too long.", "It is short.", "So is this."]
    ids = [r.id for r in home.memories.remember([NewMemory(t, thread_id=thread) for t in texts])]
    remote.failing = refuse(texts[0])
    home.queue.work_off()

    assert with_vectors(home) == ids[1:]
    assert home.queue.waiting().failed == 1


def test_an_embedder_that_is_down_is_asked_less_and_less_and_nothing_is_lost(
    home: Home, remote: Remote, clock: TickingClock
) -> None:
    tries = 0

    def down(texts: Sequence[str]) -> None:
        nonlocal tries
        tries += 1
        raise RateLimitedError("http://127.0.0.1", None)

    ids = keep(home, *(f"Parcel {n}." for n in range(150)))
    remote.failing = down
    for _ in range(1_000):  # the clock moves a second at each look
        home.queue.step()

    assert 5 < tries < 20
    assert home.queue.waiting().pending == 150
    assert "takes no more requests" in home.memories.recall("parcel").remarks[-1]
    assert home.check() == []
    remote.failing = lambda texts: None
    clock.now += timedelta(hours=1)
    home.queue.work_off()
    assert with_vectors(home) == ids
    assert len(remote.asked) == 150


def test_an_embedder_that_asks_to_be_left_alone_is_for_as_long(
    home: Home, remote: Remote, clock: TickingClock
) -> None:
    keep(home, "The ferry leaves at nine.")

    def limited(texts: Sequence[str]) -> None:
        raise RateLimitedError("http://127.0.0.1", 3_000.0)

    remote.failing = limited
    assert home.queue.step() == 3_000
    remote.failing = lambda texts: None
    clock.now += timedelta(seconds=2_900)
    assert (home.queue.step() or 0) > 0
    assert remote.asked == []
    clock.now += timedelta(seconds=200)
    assert home.queue.step() == 0
    assert remote.asked == ["The ferry leaves at nine."]


def test_a_key_that_is_refused_is_no_fault_of_the_texts(home: Home, remote: Remote) -> None:
    keep(home, *(f"Parcel {n}." for n in range(30)))
    tries: list[int] = []

    def refused(texts: Sequence[str]) -> None:
        tries.append(len(texts))
        raise KeyRefusedError("http://127.0.0.1", 401)

    remote.failing = refused
    home.queue.step()

    assert tries == [30]
    waiting = home.queue.waiting()
    assert (waiting.pending, waiting.failed) == (30, 0)
    assert "SOULKEEP_EMBEDDER_KEY" in waiting.reason


def test_what_is_forgotten_revised_or_moved_while_it_is_embedded_is_embedded_as_it_is_then(
    home: Home, remote: Remote, open_with: Callable[[Embedder], Home]
) -> None:
    other = open_with(Remote())
    gone, old, moved, same = keep(home, "Forgotten.", "Old text.", "Moved.", "The same.")
    thread = home.threads.create_thread("Sea").id

    def meanwhile(texts: Sequence[str]) -> None:
        remote.failing = lambda texts: None
        other.lifecycle.forget([gone])
        other.lifecycle.revise(old, "New text.")
        other.lifecycle.move([moved], thread)

    remote.failing = meanwhile
    home.queue.step()
    assert with_vectors(home) == [same]
    assert home.check() == []
    home.queue.work_off()

    assert with_vectors(home) == [moved, same, same + 1]
    assert remote.asked.count("New text.") == 1
    assert home.check() == []
    home.lifecycle.restore([gone])
    home.queue.work_off()
    assert with_vectors(home) == [gone, moved, same, same + 1]
    assert home.check() == []


def test_of_two_processes_on_one_queue_each_text_is_embedded_once(
    home: Home, remote: Remote, open_with: Callable[[Embedder], Home]
) -> None:
    second = Remote()
    other = open_with(second)
    ids = keep(home, *(f"Parcel {n}." for n in range(1_000)))

    def work(one: Home) -> None:
        while one.queue.step() is not None:
            pass

    threads = [threading.Thread(target=work, args=(one,)) for one in (home, other)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(remote.asked + second.asked) == sorted(f"Parcel {n}." for n in range(1_000))
    assert with_vectors(home) == ids
    assert home.check() == other.check() == []


def test_what_cannot_be_written_now_is_not_embedded_again(home: Home, remote: Remote) -> None:
    keep(home, "The ferry leaves at nine.")
    with closing(another_program(store_of(home).path)) as blocker:
        blocker.execute("BEGIN IMMEDIATE")
        assert (home.queue.step() or 0) > 0
        blocker.execute("ROLLBACK")
    assert (remote.asked, with_vectors(home)) == (["The ferry leaves at nine."], [])

    home.queue.work_off()

    assert len(remote.asked) == 1
    assert len(with_vectors(home)) == 1


def test_doctor_and_stats_say_what_waits_and_find_no_fault(home: Home, remote: Remote) -> None:
    contents = [f"Parcel {n}." for n in range(30)]
    keep(home, *contents)
    remote.failing = refuse(contents[3])
    home.queue.work_off()
    keep(home, "One more.")

    assert home.check() == []
    assert home.statistics.figures().waiting_vectors == home.queue.waiting()
    assert (home.queue.waiting().pending, home.queue.waiting().failed) == (1, 1)
    home.queue.retry()
    assert len(with_vectors(home)) == 30
    remote.failing = lambda texts: None
    home.queue.retry()
    assert len(with_vectors(home)) == 31


@pytest.fixture
def slow(home: Home, remote: Remote) -> Iterator[threading.Event]:
    """Let the embedder answer only when told to."""
    go_on = threading.Event()

    def wait(texts: Sequence[str]) -> None:
        go_on.wait(20)

    remote.failing = wait
    yield go_on
    go_on.set()


def test_a_recall_goes_by_words_where_the_question_takes_long_and_by_meaning_when_asked_again(
    home: Home, remote: Remote, slow: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("soulkeep.service.memories.PATIENCE_S", 0.0)
    keep(home, "The ferry leaves at nine.")

    recalls = [home.memories.recall("ferry") for _ in range(3)]
    assert [recall.mode for recall in recalls] == ["lexical"] * 3
    assert all(recall.matches for recall in recalls)
    assert "takes long" in recalls[0].remarks[0]
    under_way = list(home.memories._questions._under_way.values())
    slow.set()
    assert [asked.result(20) for asked in under_way]
    recall = home.memories.recall("ferry")
    assert (recall.mode, remote.questions) == ("hybrid", ["ferry"])


def test_a_question_that_fails_is_answered_by_words_and_not_sent_again_at_once(
    home: Home, remote: Remote
) -> None:
    keep(home, "The ferry leaves at nine.")
    asked: list[str] = []

    def down(texts: Sequence[str]) -> None:
        asked.extend(texts)
        raise KeyRefusedError("http://127.0.0.1", 401)

    remote.failing = down
    recalls = [home.memories.recall(f"ferry {n}") for n in range(6)]

    assert [recall.mode for recall in recalls] == ["lexical"] * 6
    assert all("refuses the key" in " ".join(recall.remarks) for recall in recalls)
    assert len(asked) < 6
    assert all(recall.matches for recall in recalls)


def test_questions_that_are_kept_are_bounded(
    home: Home, remote: Remote, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("soulkeep.service.memories.QUESTIONS", 3)
    keep(home, "The ferry leaves at nine.")
    for n in (1, 2, 1, 3, 4, 1):
        home.memories.recall(f"ferry {n}")

    assert remote.questions == [f"ferry {n}" for n in (1, 2, 3, 4)]


def test_a_server_does_not_move_a_store_to_an_embedder_that_costs_money(
    home: Home, remote: Remote, open_with: Callable[[Embedder], Home]
) -> None:
    class Other(Remote):
        identity = f"other:{DIMENSIONS}:unit"

    ids = keep(home, "The ferry leaves at nine.", "Bread is baked at dawn.")
    home.queue.work_off()
    other = Other()
    later = open_with(other)
    later.serve()
    later.background.start()
    assert later.background._embedding.wait(20)

    assert other.asked == []
    assert "soulkeep reembed" in later.reembedding.announcement()
    plan = later.reembedding.plan()
    assert (plan.memories, plan.tokens, plan.is_local) == (2, 12, False)
    assert plan.cost == pytest.approx(12 * 0.02 / 1e6)
    later.reembedding.move()
    assert sorted(other.asked) == ["Bread is baked at dawn.", "The ferry leaves at nine."]
    assert later.repository.vectors.recorded_embedder() == other.identity
    assert with_vectors(later) == ids
    assert later.check() == []


def test_a_text_that_the_new_embedder_refuses_does_not_keep_it_from_serving(
    home: Home, open_with: Callable[[Embedder], Home]
) -> None:
    class Other(Remote):
        identity = f"other:{DIMENSIONS}:unit"

    contents = [f"Parcel {n}." for n in range(250)]
    ids = keep(home, *contents)
    home.queue.work_off()
    other = Other()
    other.failing = refuse(contents[120])
    later = open_with(other)
    later.reembedding.move()

    assert with_vectors(later) == [i for i in ids if i != ids[120]]
    assert later.queue.waiting().failed == 1
    assert "too long" in later.queue.waiting().reason
    assert later.check() == []


@pytest.mark.embedder("universal")
def test_one_command_moves_a_store_and_says_first_what_that_takes(run: Run) -> None:
    run("remember", "The ferry leaves at nine.")
    code, out, _ = run("reembed")
    assert (code, "All memories have vectors of use-multilingual-v3" in out) == (0, True)


@pytest.mark.embedder("universal")
def test_one_command_asks_before_it_moves_a_store(run: Run, make_home: MakeHome) -> None:
    with closing(make_home(embedder="none")) as home:
        home.memories.remember([NewMemory("The ferry leaves at nine.")])
    code, out, _ = run("reembed", typed="n\n")
    assert (code, "1 memory, about 7 tokens, on this machine" in out) == (1, True)

    code, out, _ = run("reembed", "--yes")

    assert (code, "All memories have vectors" in out) == (0, True)
    assert "Searched by words" not in run("recall", "ferry")[1]
    assert run("doctor")[0] == 0


class QueueMachine(RuleBasedStateMachine):
    """Memories that come, go, and wait, while embedders fail and change and the process is killed."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.clock = TickingClock()
        self.opened: list[Home] = []
        self.failing: Callable[[Sequence[str]], None] = lambda texts: None
        self.name, self.number = "first", 0
        self.texts: dict[int, str] = {}
        self.kill()

    def embedder(self) -> Remote:
        embedder = Remote()
        embedder.identity = f"{self.name}:{DIMENSIONS}:unit"
        embedder.failing = lambda texts: self.failing(texts)
        return embedder

    @rule()
    def kill(self) -> None:
        """Go on with what is on disk alone."""
        home = open_home(self.folder.name, embedder="none", clock=self.clock)
        home._embedder = self.embedder()
        self.home = home
        self.opened.append(home)

    @rule(name=st.sampled_from(["first", "second"]))
    def switch(self, name: str) -> None:
        self.name = name
        self.kill()

    @rule(count=st.integers(1, 25), bad=st.booleans())
    def remember(self, count: int, bad: bool) -> None:
        begin = self.number
        self.number += count
        contents = [f"{'bad ' * bad}Parcel {n}" for n in range(begin, self.number)]
        self.texts |= dict(zip(keep(self.home, *contents), contents, strict=True))

    @rule(steps=st.integers(1, 3))
    def embed(self, steps: int) -> None:
        for _ in range(steps):
            self.home.queue.step()

    @rule()
    def move(self) -> None:
        with suppress(EmbedderError):
            self.home.reembedding.work()

    @rule(how=st.sampled_from(["works", "is down", "refuses the key", "refuses some"]))
    def fail(self, how: str) -> None:
        def failing(texts: Sequence[str]) -> None:
            bad = [place for place, text in enumerate(texts) if text.startswith("bad")]
            if how == "is down":
                raise RateLimitedError("http://127.0.0.1", 5.0)
            if how == "refuses the key":
                raise KeyRefusedError("http://127.0.0.1", 401)
            if how == "refuses some" and bad:
                raise TextRefusedError(bad[0], 10, "bad")

        self.failing = failing

    @precondition(lambda self: self.texts)
    @rule(data=st.data())
    def forget(self, data: st.DataObject) -> None:
        gone = data.draw(st.sampled_from(sorted(self.texts)))
        self.home.lifecycle.forget([gone])
        del self.texts[gone]

    @rule()
    def undo(self) -> None:
        if changes := self.home.changes.list_changes(limit=1):
            self.home.changes.undo(changes[0].id)
            listed = self.home.lifecycle.list_memories(limit=1_000)
            self.texts = {memory.id: memory.content for memory in listed}

    @rule(hours=st.integers(1, 48))
    def wait(self, hours: int) -> None:
        self.clock.now += timedelta(hours=hours)

    @invariant()
    def each_has_a_vector_or_waits(self) -> None:
        assert self.home.check() == []

    def teardown(self) -> None:
        """Let all be done, and look whether each memory has one vector, and all are of one embedder."""
        self.failing = lambda texts: None
        self.kill()
        self.home.reembedding.move()
        self.home.queue.retry()
        assert self.home.check() == []
        assert with_vectors(self.home) == sorted(self.texts)
        if self.texts:
            recorded = self.home.repository.vectors.recorded_embedder()
            assert recorded == f"{self.name}:{DIMENSIONS}:unit"
        for home in self.opened:
            home.close()
        self.folder.cleanup()


TestQueue = QueueMachine.TestCase
TestQueue.settings = DEAR
