"""What every engine has to do: the interface of stores, tested through nothing but itself.

Another engine is added to `ENGINES`, with how one of its stores is opened; `traces` returns
all bytes that a store is kept in, for engines where they can be looked at.
"""

import math
import random
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import UTC
from operator import mul
from pathlib import Path

import psycopg
import pytest

from database_server import database_url, owner_of, rows_of_all
from forks import run_code
from soulkeep.days import Days
from soulkeep.errors import (
    BackupDamagedError,
    ChangeNotFoundError,
    DimensionMismatchError,
    EmbedderError,
    IdTooLargeError,
    InvalidInputError,
    OwnerGoneError,
    PromptNotFoundError,
    StoreBusyError,
    ThreadNotFoundError,
    UndoConflictError,
)
from soulkeep.models import (
    Backup,
    ChangedRow,
    DocumentEdit,
    GlobalPrompt,
    Memory,
    MemoryFilter,
    NewMemory,
    NewMessage,
    QueryVector,
    Session,
    Thread,
    Usage,
    Vector,
    Waiting,
)
from soulkeep.repository import ROWS, Copies, Repository, StoredCopies, UnrecordedChangeError
from soulkeep.repository.postgres import PostgresRepository
from soulkeep.repository.postgres.copies import PostgresCopies
from soulkeep.repository.sqlite import SqliteCopies, SqliteRepository
from soulkeep.search.questions import query_terms

DAYS = Days(UTC)
NOW = "2026-03-01T12:00:00.000Z"
SESSION = Session("tests", "tests", "tests", NOW)
EVERY = MemoryFilter()
TEST = "test:4:unit"


@dataclass(frozen=True)
class Engine:
    """How a store at a path is opened, and what its bytes are."""

    open: Callable[[Path], Repository]
    traces: Callable[[Path], bytes]


ENGINES = {
    "sqlite": Engine(
        lambda path: SqliteRepository(path / "store.db", days=DAYS),
        lambda path: b"".join(file.read_bytes() for file in path.glob("store.db*")),
    ),
    "postgres": Engine(
        lambda path: PostgresRepository(database_url(), owner_of(path), DAYS),
        lambda path: rows_of_all(),
    ),
}


ON_EACH_ENGINE = [
    pytest.param(name, marks=() if name == "sqlite" else getattr(pytest.mark, name)) for name in ENGINES
]
"""Those that need a server are marked by their name: each is a run of its own."""


@pytest.fixture(params=ON_EACH_ENGINE)
def engine(request: pytest.FixtureRequest) -> Engine:
    return ENGINES[request.param]


@pytest.fixture
def store(engine: Engine, tmp_path: Path) -> Iterator[Repository]:
    with closing(engine.open(tmp_path)) as store:
        yield store


@pytest.fixture
def other(engine: Engine, tmp_path: Path, store: Repository) -> Iterator[Repository]:
    """The same store, as another process has it."""
    with closing(engine.open(tmp_path)) as other:
        yield other


def vector(*values: float) -> Vector:
    length = math.hypot(*values)
    packed = struct.pack(f"<{len(values)}f", *(value / length for value in values))
    return Vector(packed, f"test:{len(values)}:unit")


def keep(
    store: Repository, *memories: NewMemory | str, vectors: list[Vector | None] | None = None
) -> list[int]:
    new = [NewMemory(m) if isinstance(m, str) else m for m in memories]
    with store.recording() as recording:
        ids = store.memories.add_memories(new, vectors or [None] * len(new), NOW)
        recording.save("kept", SESSION, NOW, recording.rows(), [])
    return ids


def thread(store: Repository, thread_id: str, title: str = "Work", used: str = NOW) -> Thread:
    made = Thread(thread_id, title, None, False, NOW, used)
    with store.recording() as recording:
        store.threads.add_thread(made)
        recording.save("made", SESSION, NOW, recording.rows(), [])
    return made


def changed(store: Repository, work: Callable[[], object], *undone: int) -> int:
    """Record what some work changes; return the id of the change."""
    with store.recording() as recording:
        work()
        return recording.save("changed", SESSION, NOW, recording.rows(), undone)


def found(store: Repository, question: str, allowed: MemoryFilter = EVERY, limit: int = 10) -> list[int]:
    return [i for i, _ in store.memories.matching(query_terms(question), allowed, limit)]


def undo(store: Repository, change_id: int) -> int:
    def put_back() -> None:
        for row in store.changes.rows_of(change_id):
            store.changes.put_back(row, None, NOW)

    return changed(store, put_back, change_id)


# Texts, ids and what is missing


@pytest.mark.parametrize(
    "text", ["Zürich", "Zu\u0308rich", "家", "👩‍👩‍👧 \t\n 'quoted' \"%_", "x" * 100_000]
)
def test_a_text_comes_back_as_it_was_given(store: Repository, text: str) -> None:
    (memory_id,) = keep(store, NewMemory(text, subject=text[:50]))
    memory = store.memories.list_by_ids([memory_id])[memory_id]
    assert (memory.content, memory.subject) == (text, text[:50])
    assert (memory.created_at, memory.occurred_at) == (NOW, NOW)


def test_what_no_text_can_hold_is_refused_and_changes_nothing(store: Repository) -> None:
    with pytest.raises(InvalidInputError):
        store.threads.get_thread("\ud800")
    with pytest.raises(InvalidInputError):
        keep(store, "One.", "\ud800")
    with pytest.raises(InvalidInputError), store.transaction():
        store.put_fact("name", "\udfff")
    assert (store.count_rows()["memories"], store.find_saying(["\ud800"])) == (0, [])


@pytest.mark.parametrize("too_large", [2**63, 2**70])
def test_an_id_that_nothing_can_have_is_refused(store: Repository, too_large: int) -> None:
    with pytest.raises(IdTooLargeError):
        store.changes.get_change(too_large)
    with pytest.raises(IdTooLargeError):
        store.prompts.get_prompt(too_large)
    with pytest.raises(IdTooLargeError):
        changed(store, lambda: store.memories.delete_memories([too_large]))
    assert store.memories.list_by_ids([too_large]) == {}
    assert store.changes.latest_ids([too_large]) == {too_large: too_large}


def test_what_is_missing_is_an_error_of_its_kind(store: Repository) -> None:
    thread(store, "t")
    for read, error in (
        (lambda: store.threads.get_thread("none"), ThreadNotFoundError),
        (lambda: store.prompts.get_prompt(7), PromptNotFoundError),
        (lambda: store.changes.get_change(7), ChangeNotFoundError),
        (
            lambda: changed(store, lambda: store.threads.change_threads(["t", "none"], title="Other")),
            ThreadNotFoundError,
        ),
    ):
        with pytest.raises(error):
            read()
    assert store.threads.get_thread("t").title == "Work"
    assert store.memories.list_by_ids([7]) == {}


def test_an_id_is_never_given_twice(engine: Engine, tmp_path: Path) -> None:
    with closing(engine.open(tmp_path)) as store:
        assert keep(store, "One.", "Two.") == [1, 2]
        changed(store, lambda: store.memories.delete_memories([1, 2]))
    with closing(engine.open(tmp_path)) as again:
        assert keep(again, "Three.") == [3]


# Lists and filters


def test_memories_are_listed_in_the_orders_that_are_stated(store: Repository) -> None:
    thread(store, "t")
    dates = ["2026-01-02", "2026-01-01", "2026-01-02", "2026-01-03"]
    ids = keep(store, *(NewMemory(d, thread_id="t", occurred_at=f"{d}T00:00:00.000Z") for d in dates))
    entry = NewMemory("An entry.", document="MEMORY.md")
    with store.transaction():
        store.memories.add_memories([entry], [None], NOW)
    a, b, c, d = ids

    assert [m.id for m in store.memories.list_of_thread("t")] == [d, c, a, b]
    assert [m.id for m in store.memories.list_of_thread("t", 2)] == [d, c]
    assert [m.id for m in store.memories.list_memories(EVERY, 3)] == [d, c, b]
    assert [m.id for m in store.memories.list_memories(EVERY, 9, below=c)] == [b, a]
    assert store.memories.neighbours([a, d]) == {a: (b, c), d: (c, None)}
    assert store.memories.latest_in_threads({"t": "2026-01-02T23:00:00.000Z"})["t"].id == c
    assert store.count_rows()["memories"] == 5
    assert store.memories.count_by_type() == {"fact": 4}
    assert store.count_by_day("2026-03-01") == {"2026-03-01": 4}
    assert [m.id for m in store.documents.list_entries("MEMORY.md")] == [5]


def test_labels_are_compared_in_their_normal_form(store: Repository) -> None:
    keep(store, NewMemory("x", subject="Zu\u0308rich"), NewMemory("y", subject="Bern"))
    assert [m.id for m in store.memories.list_memories(EVERY, 9, subject="Zürich")] == [1]


def test_what_expires_now_has_expired(store: Repository) -> None:
    keep(store, NewMemory("x", expires_at=NOW), NewMemory("y", expires_at="2026-03-01T12:00:00.001Z"))
    assert store.memories.list_expired(NOW, 9) == [1]


FILTERS = {
    "thread": (MemoryFilter(thread_id="t"), {1, 2, 4}),
    "type": (MemoryFilter(memory_type="decision"), {2}),
    "since": (MemoryFilter(since="2026-02-02T00:00:00.000Z"), {2, 3, 4}),
    "until": (MemoryFilter(until="2026-02-02T00:00:00.000Z"), {1, 2}),
    "all": (MemoryFilter("t", "fact", "2026-02-01T00:00:00.000Z", NOW), {1, 4}),
}


@pytest.mark.parametrize("name", FILTERS)
def test_a_filter_lets_the_same_pass_in_both_halves_of_the_search(store: Repository, name: str) -> None:
    allowed, expected = FILTERS[name]
    thread(store, "t")
    thread(store, "u")
    days = ["2026-02-01T00:00:00.000Z", "2026-02-02T00:00:00.000Z", "2026-02-03T00:00:00.000Z"]
    memories = [
        NewMemory("A ferry.", thread_id="t", occurred_at=days[0]),
        NewMemory("A ferry.", "decision", occurred_at=days[1]),
        NewMemory("A ferry.", thread_id="u", occurred_at=days[2]),
        NewMemory("A ferry."),
    ]
    keep(store, *memories, vectors=[vector(1, n / 10, 0, 0) for n in range(4)])
    query = QueryVector(vector(1, 0, 0, 0).embedding, TEST, [4], [[1.0]])

    assert {*found(store, "ferry", allowed)} == expected
    assert store.memories.list_by_ids([1, 2, 3, 4, 9], allowed).keys() == expected
    assert {i for i, _ in store.vector_search.nearest(query.embedding, allowed, 9)} == expected
    assert store.vector_search.compare(query, allowed, 9, []).keys() == expected
    assert {m.id for m in store.memories.list_memories(allowed, 9)} == expected
    # It applies before the limit.
    assert found(store, "ferry", allowed, 1) == [min(expected)]
    assert [i for i, _ in store.vector_search.nearest(query.embedding, allowed, 1)] == [min(expected)]


# The halves of the search


def test_words_find_what_has_any_of_them_best_first_and_equals_by_id(store: Repository) -> None:
    keep(store, "The ferry.", "Ferries leave.", "A ferry and a lighthouse.", "Nothing.", "The ferry.")
    keep(store, NewMemory("She is allergic to peanuts.", subject="Ada of the lighthouse"))

    scores = store.memories.matching(query_terms("ferry lighthouse"), EVERY, 9)
    assert scores[0][0] == 3
    assert {i for i, _ in scores} == {1, 2, 3, 5, 6}
    assert all(score > 0 for _, score in scores)
    assert [score for _, score in scores] == sorted((score for _, score in scores), reverse=True)
    assert [i for i, _ in scores if i in (1, 5)] == [1, 5]
    assert store.memories.matching(["lighthouse"], EVERY, 9, in_subject=True)[0][0] == 6
    assert store.memories.matching([], EVERY, 9) == []
    count, frequencies = store.memories.count_and_frequencies(["ferry", "lighthouse", "none"])
    assert (count, frequencies) == (6, {"ferry": 4, "lighthouse": 2, "none": 0})


def test_of_what_has_a_frequent_word_and_one_beside_it_the_latest_are_found(
    store: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep(store, "The ferry.", "A ferry and a lighthouse.", "A lighthouse.", "Ferry, pier, lighthouse.")
    keep(store, "The pier.", NewMemory("A ferry.", "decision", subject="The lighthouse"))
    keep(store, *(f"Nothing of note {n}." for n in range(20)))
    decisions = MemoryFilter(memory_type="decision")
    beside = query_terms("lighthouse pier")
    alone = dict(store.memories.matching(["ferry"], EVERY, 9))

    def latest(*beside: str, allowed: MemoryFilter = EVERY, limit: int = 9) -> list[int]:
        return [i for i, _ in store.memories.matching_latest("ferry", beside, allowed, limit)]

    assert latest(*beside)[0] == 4
    assert {*latest(*beside)} == {2, 4, 6}
    assert {*latest()} == {1, 2, 4, 6}
    assert latest("none") == []
    assert latest(*beside, limit=1) == [4]
    assert latest(*beside, allowed=decisions) == [6]
    both = store.memories.matching_latest("ferry", beside, EVERY, 9)
    assert all(score > alone[i] for i, score in both)
    assert store.memories.matching_latest("ferry", (), EVERY, 9) == list(alone.items())

    for engine in ("sqlite.memories", "postgres.words"):
        monkeypatch.setattr(f"soulkeep.repository.{engine}.LATEST", 2)
    assert {*latest(*beside)} == {4, 6}
    assert {*latest()} == {4, 6}
    assert {*latest(allowed=MemoryFilter(memory_type="fact"))} == {2, 4}


def test_words_of_every_script_find_what_has_them(store: Repository) -> None:
    keep(store, "我住在格拉茨。", "Она живёт в Граце.", "Version 2.5.1 of C++ broke.")
    assert [found(store, text) for text in ("格拉茨", "Граце", "C++", "2.5.1")] == [[1], [2], [3], [3]]


@pytest.mark.parametrize(("a", "b", "c", "d", "e"), ["人木水山川", "งกขคด", "いかさたな"])
def test_a_single_character_counts_at_every_place_where_a_word_begins_with_it(
    store: Repository, a: str, b: str, c: str, d: str, e: str
) -> None:
    keep(store, f"{a}{b}{c}{a}{d}", f"{a}{a}{a}{d}{e}", f"{c}{a}{b}{d}{e}")

    scores = store.memories.matching([a], EVERY, 9)

    assert [i for i, _ in scores] == [2, 1, 3]
    shares = [score / scores[-1][1] for _, score in scores]
    # By BM25, with k1 = 1.2, of texts that are all of the same length.
    assert shares == pytest.approx([3 / (3 + 1.2) * 2.2, 2 / (2 + 1.2) * 2.2, 1], rel=1e-6)


def test_vectors_find_the_nearest_first_and_equals_by_id(store: Repository) -> None:
    vectors = [vector(0, 1, 0, 0), vector(1, 0, 0, 0), vector(1, 1, 0, 0), vector(1, 0, 0, 0)]
    keep(store, "a", "b", "c", "d", vectors=[*vectors])

    nearest = store.vector_search.nearest(vector(1, 0, 0, 0).embedding, EVERY, 3)
    assert [i for i, _ in nearest] == [2, 4, 3]
    assert [distance for _, distance in nearest] == pytest.approx([0, 0, 1 - 0.5**0.5], abs=0.003)


def test_parts_of_vectors_are_compared_to_a_ten_thousandth(store: Repository) -> None:
    chance = random.Random(1)  # noqa: S311 - no secret

    def any_vector() -> Vector:
        # The parts of an embedder's vectors are of one length.
        parts = [[chance.gauss() for _ in range(128)] for _ in range(2)]
        return vector(*(value / math.hypot(*part) for part in parts for value in part))

    keep(store, *map(str, range(20)), vectors=[any_vector() for _ in range(20)])
    asked = any_vector()
    query = QueryVector(asked.embedding, asked.made_by, [128, 128], [[1.0, 1.0]], False)

    exact = store.vectors.compare(asked.embedding, [128, 128], list(range(1, 21)))
    by_worth = sorted(exact, key=lambda i: -sum(exact[i]))
    compared = store.vector_search.compare(query, EVERY, 3, [by_worth[-1]])
    assert {*compared} >= {*by_worth[:3], by_worth[-1]}
    for memory_id, cosines in compared.items():
        assert cosines == pytest.approx(exact[memory_id], abs=0.0001)
    assert store.vector_search.compare(replace(query, made_by="other:256:unit"), EVERY, 9, [1]) == {}
    assert store.vectors.compare(vector(1, 0).embedding, [1, 1], [99]) == {}


@pytest.mark.parametrize("seed", range(3))
def test_the_vectors_decide_which_of_much_the_same_are_the_nearest(store: Repository, seed: int) -> None:
    chance = random.Random(seed)  # noqa: S311 - no secret
    question = [chance.gauss() for _ in range(128)]
    length = math.hypot(*question)
    # Each is further from the question than the one before by less than a byte a dimension can tell.
    angles = [0.5 + place / 2_000 for place in range(12)]
    memories = []
    for angle in angles:
        other = [chance.gauss() for _ in question]
        along = sum(map(mul, other, question)) / length**2
        aside = [own - along * asked for own, asked in zip(other, question, strict=True)]
        across = math.tan(angle) * length / math.hypot(*aside)
        memories.append([asked + across * own for asked, own in zip(question, aside, strict=True)])
    order = chance.sample(range(12), 12)
    keep(store, *map(str, order), vectors=[vector(*memories[place]) for place in order])

    asked = vector(*question)
    query = QueryVector(asked.embedding, asked.made_by, [128], [[1.0]], False)
    compared = store.vector_search.compare(query, EVERY, 4, [])

    by_worth = sorted(compared, key=lambda i: -compared[i][0])
    assert [order[i - 1] for i in by_worth] == [0, 1, 2, 3]
    cosines = [compared[i][0] for i in by_worth]
    assert cosines == pytest.approx([math.cos(angle) for angle in angles[:4]], abs=0.0001)


def test_a_vector_that_is_none_is_refused_and_nothing_is_kept(store: Repository) -> None:
    long = Vector(struct.pack("<1537f", 1, *[0] * 1536), "long:1537:unit")
    for bad, error in (
        (Vector(struct.pack("<4f", 2, 0, 0, 0), TEST), EmbedderError),
        (Vector(struct.pack("<4f", math.nan, 0, 0, 0), TEST), EmbedderError),
        (long, DimensionMismatchError),
    ):
        with pytest.raises(error):
            keep(store, "x", vectors=[bad])
    assert store.count_rows()["memories"] == 0
    assert store.vectors.recorded_embedder() is None


def test_who_has_no_vector_of_the_stores_embedder_waits_for_it(store: Repository) -> None:
    keep(
        store,
        "a",
        "b",
        "c",
        vectors=[vector(1, 0), None, Vector(vector(1, 0).embedding, "other:2:unit")],
    )

    assert store.vectors.recorded_embedder() == "test:2:unit"
    assert list(store.vectors.list_pending()) == [3, 2]
    with store.transaction():
        store.vectors.add_pending({2: vector(0, 1), 3: vector(0, 1), 99: vector(0, 1)})
    assert store.vectors.list_pending(9) == {}
    assert store.check(vectors_expected=True) == []


def test_who_waits_is_put_off_counted_and_tried_again(store: Repository) -> None:
    keep(store, "a", "b", "c", "d", vectors=[vector(1, 0), None, None, None])
    table, later = store.vectors, "2026-03-01T13:00:00.000Z"
    assert (list(table.list_pending(9)), table.list_pending(2)) == ([4, 3, 2], {4: 0, 3: 0})
    with store.transaction():
        table.put_off({2: "too long"}, "failed", later)
        table.put_off({3: "nobody answers", 99: "gone"}, "pending", later)
    with store.transaction():
        table.put_off({3: "still nobody"}, "pending", later)

    assert (table.list_pending(9, NOW), list(table.list_pending(9, later))) == ({4: 0}, [4, 3, 2])
    assert table.list_pending(among=[1, 2, 3, 99]) == {2: 1, 3: 2}
    waiting = table.waiting()
    assert (waiting.pending, waiting.failed, waiting.reason) == (2, 1, "still nobody")
    assert store.check(vectors_expected=True) == []
    assert store.next_vectors.measure_missing("test:2:unit") == (3, 3)
    assert store.next_vectors.measure_missing("other:2:unit") == (4, 4)
    with store.transaction():
        table.retry_pending()
    changed(store, lambda: store.memories.delete_memories([4]))
    assert (table.list_pending(9, NOW), table.list_pending(among=[])) == ({3: 0, 2: 0}, {})
    assert table.waiting() == Waiting(2)
    with store.transaction():
        store.next_vectors.take_over("other:2:unit")
    assert list(table.list_pending(9)) == [3, 2, 1]
    with store.transaction():
        store.next_vectors.take_over("none:0:none")
    assert (table.list_pending(9), table.waiting()) == ({}, Waiting())


def test_a_new_set_of_vectors_serves_once_it_takes_over(store: Repository) -> None:
    keep(store, "a", "b", vectors=[vector(1, 0), vector(0, 1)])
    first, second = store.memories.list_by_ids([1, 2]).values()
    new = Vector(vector(0, 1).embedding, "next:2:unit")
    with store.transaction():
        store.next_vectors.add({first: new}, "next:2:unit")
    assert store.next_vectors.count("next:2:unit")[0] == 1
    assert store.next_vectors.list_missing("next:2:unit", 2**62, 9) == [second]
    assert store.vectors.recorded_embedder() == "test:2:unit"
    assert [i for i, _ in store.vector_search.nearest(vector(1, 0).embedding, EVERY, 1)] == [1]

    with store.transaction():
        store.next_vectors.take_over("next:2:unit")
    assert store.vectors.recorded_embedder() == "next:2:unit"
    assert list(store.vectors.list_pending(9)) == [2]
    nearest = store.vector_search.nearest(vector(0, 1).embedding, EVERY, 9)
    assert [(i, round(distance, 2)) for i, distance in nearest] == [(1, 0.0)]
    assert store.next_vectors.count("next:2:unit")[0] == 0
    assert store.check(vectors_expected=True) == []


def test_a_duplicate_states_the_same_wherever_it_comes_from(store: Repository) -> None:
    thread(store, "t")
    first = NewMemory("Zürich", subject="Ada", expires_at="2027-01-01T00:00:00.000Z")
    keep(store, first, replace(first, source="web"), NewMemory("x", occurred_at=NOW))
    with store.transaction():
        store.memories.add_memories([NewMemory("entry", document="MEMORY.md")], [None], NOW)
    asked = {
        replace(first, content="Zu\u0308rich", source="chat"): 1,
        replace(first, subject=None): None,
        replace(first, expires_at=None): None,
        replace(first, memory_type="decision"): None,
        replace(first, thread_id="t"): None,
        replace(first, occurred_at=NOW): None,
        NewMemory("x", occurred_at=NOW): 3,
        NewMemory("x", occurred_at=NOW, subject=""): 3,
        NewMemory("x"): None,
        NewMemory("entry"): None,
    }
    assert store.memories.find_duplicates([*asked]) == [*asked.values()]


# Threads, messages, prompts


def test_threads_are_listed_by_their_use_and_found_by_title_or_id(store: Repository) -> None:
    for thread_id, title, hour in (("a1", "ÄPFEL", "09"), ("b2", "Work", "11"), ("c3", "Äpfel", "10")):
        thread(store, thread_id, title, f"2026-03-01T{hour}:00:00.000Z")
    changed(store, lambda: store.threads.change_threads(["b2"], archived=1))

    listed = store.threads.list_threads
    assert [t.id for t in listed(9)] == ["c3", "a1"]
    assert [t.id for t in listed(9, None)] == ["b2", "c3", "a1"]
    assert [t.id for t in listed(1, None)] == ["b2"]
    assert [t.id for t in listed(-1, True)] == ["b2"]
    assert [t.id for t in listed(-1, None, "äpf")] == ["c3", "a1"]
    assert [t.id for t in listed(-1, None, "B2")] == ["b2"]
    assert [t.id for _, t in store.threads.list_made(9)] == ["c3", "a1"]
    assert store.threads.count() == (2, 1)


def test_a_thread_that_something_belongs_to_stays(store: Repository) -> None:
    thread(store, "t")
    keep(store, NewMemory("x", thread_id="t"))
    with pytest.raises(OwnerGoneError):
        changed(store, lambda: store.threads.delete_thread("t"))
    with pytest.raises(OwnerGoneError):
        keep(store, NewMemory("x", thread_id="gone"))
    assert store.threads.get_thread("t").title == "Work"
    assert store.count_rows()["memories"] == 1


def test_messages_are_read_in_order_and_found_by_their_words(store: Repository) -> None:
    thread(store, "t")
    said = [NewMessage("user", f"Ferry {n}.", f"2026-03-0{n}T00:00:00.000Z") for n in (1, 2, 3)]
    changed(store, lambda: store.messages.add_messages("t", "agent", said, [2, 2, 2], NOW))

    assert [m.content for m in store.messages.list_of_thread("t", 2)] == ["Ferry 2.", "Ferry 3."]
    assert [m.id for m in store.messages.list_of_thread("t", 9, before=3)] == [1, 2]
    assert [m.id for m in store.messages.list_of_thread("t", 9, first=2)] == [2, 3]
    assert [m.id for m in store.messages.list_of_thread("t", 1, first=2)] == [2]
    assert [m.id for m in store.messages.list_of_thread("t")] == [1, 2, 3]
    assert store.messages.find_same("t", said[1]) == [2]
    matches = store.messages.matching(["ferry"], MemoryFilter(since="2026-03-02T00:00:00.000Z"), 9)
    assert [(match.message.id, match.thread_id) for match in matches] == [(3, "t"), (2, "t")]
    assert store.messages.matching(["ferry"], MemoryFilter(thread_id="u"), 9) == []
    assert store.find_saying(["rry 2"]) == [(False, "threads", "t")]


def test_prompts_are_listed_by_priority_and_know_who_agreed(store: Repository) -> None:
    add = store.prompts.add_prompt
    changed(
        store, lambda: [add(n, "c", p, NOW, is_active=True) for n, p in (("a", 0), ("b", 5), ("c", 5))]
    )
    outline = store.prompts.outline()
    assert [p.name for p in store.prompts.list_prompts()] == ["b", "c", "a"]
    (first, *_) = store.prompts.list_prompts()
    with store.transaction():
        store.consents.note("global_prompts", first.id, first.agreed_text, "claude", agreed=False)
    assert store.prompts.get_prompt(first.id) == replace(first, prompt_by="claude", is_agreed=False)
    with store.transaction():
        store.consents.note("global_prompts", first.id, first.agreed_text, "another", agreed=True)
    assert store.prompts.get_prompt(first.id) == replace(first, prompt_by="claude", is_agreed=True)
    assert store.consents.origin("global_prompts", first.id, first.agreed_text) == ("claude", True)
    assert store.consents.origin("global_prompts", first.id, "another text") == (None, False)
    assert store.consents.origin("threads", "unknown", "a text") == (None, True)
    changed(store, lambda: store.prompts.update_prompt(replace(first, content="other")))
    assert not store.prompts.get_prompt(first.id).is_agreed
    assert store.prompts.outline() != outline


def test_the_log_tells_what_happened_and_what_it_cost(store: Repository) -> None:
    early, late = "2026-03-01T10:00:00.000Z", "2026-03-02T10:00:00.000Z"
    with store.transaction():
        store.ledger.touch_session(SESSION, early)
        store.ledger.add_audit("memory.stored", "tests", [{"memory_id": 1}, {"memory_id": 2}], early)
        store.ledger.add_usage(SESSION.id, Usage("m", 5, 1, 0.5), late)
        store.ledger.add_audit("memory.purged", "tests", [{"memory_ids": [7]}], late)

    listed = store.ledger.list_log(9, "", None, None)
    assert [entry.event for entry in listed[2:]] == ["memory.stored", "memory.stored"]
    assert {entry.event for entry in listed[:2]} == {"memory.purged", "model.used"}
    assert len(store.ledger.list_log(9, late, None, "memory")) == 1
    assert store.ledger.list_log(9, "", "nobody", None) == []
    assert store.count_by_day(early, "memory.stored") == {"2026-03-01": 2}
    assert store.news(None) == ((3, 0), set(), False)
    assert store.news((2, 0)) == ((3, 0), {"memory.purged"}, False)
    assert (store.ledger.erased_at(7), store.ledger.erased_at(8)) == (late, None)
    (before,) = store.ledger.usage_by_model()
    assert (before.input_tokens, before.output_tokens, before.cost) == (5, 1, 0.5)
    with store.transaction():
        store.ledger.drop_old(1)
    (after,) = store.ledger.usage_by_model()
    assert (after.input_tokens, after.output_tokens, after.cost) == (5, 1, 0.5)
    assert [entry.event for entry in store.ledger.list_log(9, "", None, "memory")] == ["memory.purged"]


# Changes and taking them back


def test_what_a_change_does_is_noted_by_the_store_itself(store: Repository) -> None:
    thread(store, "t")
    keep(store, "One.", "Two.", "Three.")

    def work() -> None:
        store.memories.delete_memories([1])
        store.memories.move_memories([2], "t", [None])
        store.memories.move_memories([3], None, [None])  # where it is
        store.threads.change_threads(["t"], last_active_at="2026-03-02T00:00:00.000Z")
        store.memories.add_memories([NewMemory("Entry.", document="MEMORY.md")], [None], NOW)
        (gone,) = store.memories.add_memories([NewMemory("Gone at once.")], [None], NOW)
        store.memories.delete_memories([gone])
        store.prompts.add_prompt("p", "c", 0, NOW, is_active=True)

    rows = {(r.kind, r.key): r for r in store.changes.rows_of(changed(store, work))}
    assert rows.keys() == {("memories", "1"), ("memories", "2"), ("global_prompts", "1")}
    gone, moved, added = (rows["memories", "1"], rows["memories", "2"], rows["global_prompts", "1"])
    assert isinstance(gone.before, Memory)
    assert (gone.before.content, gone.after) == ("One.", None)
    assert isinstance(moved.before, Memory)
    assert (moved.before.thread_id, moved.after is None) == (None, False)
    assert (added.before, added.after is None) == (None, False)
    now = store.changes.after(moved)
    assert isinstance(now, Memory)
    assert now.thread_id == "t"


WRITES: dict[str, Callable[[Repository], object]] = {
    "add a memory": lambda s: s.memories.add_memories([NewMemory("x")], [None], NOW),
    "delete a memory": lambda s: s.memories.delete_memories([1]),
    "move a memory": lambda s: s.memories.move_memories([1], "t", [None]),
    "add a thread": lambda s: s.threads.add_thread(Thread("v", "V", None, False, NOW, NOW)),
    "change a thread": lambda s: s.threads.change_threads(["t"], title="Other"),
    "delete a thread": lambda s: s.threads.delete_thread("u"),
    "add a message": lambda s: s.messages.add_messages("t", "a", [NewMessage("user", "x")], [1], NOW),
    "delete a message": lambda s: s.messages.delete_messages([1]),
    "add a prompt": lambda s: s.prompts.add_prompt("q", "c", 0, NOW, is_active=True),
    "change a prompt": lambda s: s.prompts.update_prompt(GlobalPrompt(1, "q", "c", True, 0, NOW)),
    "delete a prompt": lambda s: s.prompts.delete_prompt(1),
}


def filled(store: Repository) -> dict[str, int]:
    thread(store, "t")
    thread(store, "u")
    keep(store, "One.")
    changed(store, lambda: store.messages.add_messages("t", "a", [NewMessage("user", "Hi")], [1], NOW))
    changed(store, lambda: store.prompts.add_prompt("p", "c", 0, NOW, is_active=True))
    return store.count_rows()


@pytest.mark.parametrize("what", WRITES)
def test_what_can_be_undone_is_written_in_a_recording_alone(store: Repository, what: str) -> None:
    before = filled(store)
    with pytest.raises(UnrecordedChangeError), store.transaction():
        WRITES[what](store)
    assert store.count_rows() == before
    change_id = changed(store, lambda: WRITES[what](store))
    assert len(store.changes.rows_of(change_id)) == 1
    with store.recording():
        store.memories.delete_memories([1])
    assert store.changes.list_changes(1)[0].id == change_id


@pytest.mark.parametrize("what", WRITES)
def test_each_change_can_be_taken_back_and_done_again(store: Repository, what: str) -> None:
    before = filled(store)
    memories, threads = store.memories.list_memories(EVERY, 9), store.threads.list_threads(9, None)
    prompts, messages = store.prompts.list_prompts(), store.messages.list_of_thread("t", 9)
    change_id = changed(store, lambda: WRITES[what](store))
    after = store.count_rows()

    again = undo(store, change_id)
    assert {name: store.count_rows()[name] for name in before if name != "sessions"} == {
        name: count for name, count in before.items() if name != "sessions"
    }
    assert store.memories.list_memories(EVERY, 9) == memories
    assert store.threads.list_threads(9, None) == threads
    assert (store.prompts.list_prompts(), store.messages.list_of_thread("t", 9)) == (prompts, messages)
    assert found(store, "one") == [1]
    assert [m.message.id for m in store.messages.matching(["hi"], EVERY, 9)] == [1]
    assert store.changes.get_change(change_id).undone_by == again
    undo(store, again)
    assert store.changes.get_change(change_id).undone_by is None
    assert store.count_rows() == after
    assert store.check(vectors_expected=False) == []


def test_what_was_changed_since_or_is_held_is_not_taken_back(store: Repository) -> None:
    keep(store, "One.")
    thread(store, "t")
    made = store.changes.list_changes(1)[0].id
    moved = changed(store, lambda: store.memories.move_memories([1], "t", [None]))
    with pytest.raises(UndoConflictError) as held:
        undo(store, made)
    assert held.value.held_by == (("memories", "1"),)
    back = changed(store, lambda: store.memories.move_memories([1], None, [None]))
    with pytest.raises(UndoConflictError):
        undo(store, moved)
    changed(store, lambda: store.threads.delete_thread("t"))
    with pytest.raises(UndoConflictError) as gone:
        undo(store, back)
    assert gone.value.held_by == (("threads", "t"),)
    assert store.changes.latest_of([("memories", "1")], 0, []) == [back]


def test_an_expiry_that_has_passed_does_not_come_back(store: Repository) -> None:
    keep(store, NewMemory("x", expires_at=NOW), NewMemory("y", expires_at="2027-01-01T00:00:00.000Z"))
    undo(store, changed(store, lambda: store.memories.delete_memories([1, 2])))
    kept = store.memories.list_by_ids([1, 2])
    assert (kept[1].expires_at, kept[2].expires_at) == (None, "2027-01-01T00:00:00.000Z")


def test_an_id_leads_to_what_took_its_place_also_when_changes_are_forgotten(store: Repository) -> None:
    keep(store, "One.", "Two.", "Three.")
    for former, later in ((1, 2), (2, 3)):
        with store.recording() as recording:
            store.memories.delete_memories([former])
            rows = [replace(row, replaced_by=later) for row in recording.rows()]
            recording.save("replaced", SESSION, NOW, rows, [])

    assert store.changes.latest_ids([1, 2, 3, 9]) == {1: 3, 2: 3, 3: 3, 9: 9}
    assert store.changes.replaced_by([3]) == {2}
    assert [r.key for r in store.changes.list_trash(9)] == ["2", "1"]
    assert [r.key for r in store.changes.rows_about("memories", "1", "2") if r.after is None] == [
        "1",
        "2",
    ]
    assert store.find_saying(["wo.", "ee."]) == [(False, "memories", "3"), (True, "memories", "2")]
    with store.transaction():
        assert store.changes.delete_before(NOW) == 0
        assert store.changes.delete_before(None) == 3
    assert store.changes.latest_ids([1]) == {1: 3}
    assert store.changes.list_changes(9) == []


def test_a_change_may_be_made_bit_by_bit(store: Repository) -> None:
    change_id = changed(store, lambda: keep_inside(store))
    hunk = {"removed": "", "added": "- a\n"}
    for hunks in ((hunk,), (hunk, hunk)):
        with store.recording() as recording:
            keep_inside(store)
            edit = ChangedRow("documents", "MEMORY.md", DocumentEdit(hunks), "edited")
            rows = [edit, *recording.rows()]
            assert recording.save("changed", SESSION, NOW, rows, [], change_id) == change_id

    assert [(c.id, c.rows) for c in store.changes.list_changes(9)] == [(change_id, 4)]
    (document,) = store.changes.rows_about("documents", "MEMORY.md")
    assert document.before == DocumentEdit((hunk, hunk))
    keys = [row.key for row in store.changes.rows_of(change_id) if row.kind == "memories"]
    assert keys == ["1", "2", "3"]


def test_a_change_of_more_rows_than_are_in_memory_at_a_time_has_them_all(
    store: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    for engine in ("sqlite", "postgres"):
        monkeypatch.setattr(f"soulkeep.repository.{engine}.changes._PAGE", 2)
    ids = keep(store, *(f"Number {n}." for n in range(12)))
    gone = changed(store, lambda: store.memories.delete_memories(ids))

    rows = list(store.changes.each_row(gone, "memories"))

    assert [row.key for row in rows] == [str(i) for i in ids]
    assert [row.before.content for row in rows if isinstance(row.before, Memory)][::11] == [
        "Number 0.",
        "Number 11.",
    ]
    assert list(store.changes.each_row(gone, "threads")) == []
    undo(store, gone)
    assert store.memories.list_by_ids(ids).keys() == set(ids)


def test_what_was_imported_is_known_until_its_change_is_undone(store: Repository) -> None:
    kept, undone = (changed(store, lambda: keep_inside(store)) for _ in range(2))
    with store.transaction():
        store.changes.note_imported(["a", "b"], kept)
        store.changes.note_imported(["c", "d"], undone)
        store.changes.note_imported(["e"], 0)
    assert store.changes.imported(["a", "c", "e", "f"]) == {"a", "c", "e"}

    undo(store, undone)
    assert store.changes.imported(["a", "b", "c", "d", "e"]) == {"a", "b", "e"}
    with store.transaction():
        store.changes.note_imported(["c"], kept)
    assert store.changes.imported(["c", "d"]) == {"c"}
    with store.transaction():
        store.changes.delete_before(None)
    assert store.changes.imported(["a", "b", "c", "d", "e"]) == {"a", "b", "c", "e"}


def test_what_fails_in_a_recording_leaves_nothing(store: Repository) -> None:
    keep(store, "One.")

    def fail() -> None:
        with store.recording() as recording:
            store.memories.delete_memories([1])
            recording.save("failed", SESSION, NOW, recording.rows(), [])
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert (found(store, "one"), store.changes.list_changes(1)[0].id) == ([1], 1)
    assert len(store.changes.rows_of(changed(store, lambda: keep_inside(store)))) == 1


def keep_inside(store: Repository) -> None:
    store.memories.add_memories([NewMemory("Two.")], [None], NOW)


# Erasure and copies


def test_what_is_erased_leaves_no_trace(store: Repository, engine: Engine, tmp_path: Path) -> None:
    keep(store, "The password is kingfisher.", "Stays.")
    assert b"kingfisher" in engine.traces(tmp_path)
    with store.recording():
        store.memories.delete_memories([1])
        store.changes.delete_rows(store.changes.rows_about("memories", "1"))
    assert store.erase()
    assert b"kingfisher" not in engine.traces(tmp_path)
    assert [m.content for m in store.memories.list_memories(EVERY, 9)] == ["Stays."]


IN_FILES = pytest.mark.parametrize("engine", ["sqlite"], indirect=True)
IN_THE_STORE = pytest.mark.parametrize(
    "engine", [pytest.param("postgres", marks=pytest.mark.postgres)], indirect=True
)
"""Copies of a store are files, or kept beside it in its database."""


@IN_FILES
def test_a_copy_holds_one_moment_and_takes_the_stores_place(
    store: Repository, other: Repository, tmp_path: Path
) -> None:
    folder = tmp_path / "copy"
    copies: Copies = SqliteCopies(tmp_path / "store.db", DAYS)
    folder.mkdir()
    keep(store, "One.")
    with copies.snapshot() as moment:
        keep(store, "Two.")
        moment.copy_to(folder)
        assert moment.counts["memories"] == 1
    assert copies.is_there()
    assert copies.examine(folder)[1] == dict(moment.counts)
    with copies.opened(folder) as copy:
        keep(copy, "Of the copy.")
    assert copies.examine(folder)[1]["memories"] == 2

    with pytest.raises(RuntimeError), copies.replacing(folder, continuing=True):
        raise RuntimeError
    assert [m.content for m in other.memories.list_memories(EVERY, 9)] == ["Two.", "One."]
    with copies.replacing(folder, continuing=True) as staged:
        keep(staged, "Staged.")
        with pytest.raises(StoreBusyError), other.transaction(waiting=False):
            pytest.fail("somebody else writes")
    kept = ["Staged.", "Of the copy.", "One."]
    assert [m.content for m in other.memories.list_memories(EVERY, 9)] == kept
    assert store.check(vectors_expected=False) == []
    assert keep(store, "New.")[0] > 3


@IN_FILES
def test_a_copy_that_is_not_whole_is_refused(store: Repository, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    copies: Copies = SqliteCopies(tmp_path / "store.db", DAYS)
    folder.mkdir()
    with copies.snapshot() as moment:
        moment.copy_to(folder)
    for file in folder.iterdir():
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.raises(BackupDamagedError):
        copies.examine(folder)


@IN_THE_STORE
def test_a_stored_copy_holds_one_moment_and_takes_the_stores_place(
    store: Repository, other: Repository, tmp_path: Path
) -> None:
    copies: StoredCopies = PostgresCopies(database_url(), owner_of(tmp_path), DAYS)
    keep(store, "One.", vectors=[vector(3, 4)])

    def documents() -> dict[str, bytes]:
        keep(store, "Two.")
        return {"SOUL.md": b"caf\xe9 \0"}

    made = copies.add(Backup("first", NOW, "why", automatic=True, size=0, counts={}), documents)
    assert made.counts["memories"] == 1
    assert copies.list_copies() == [made]
    with copies.opened("first") as (copy, texts):
        keep(copy, "Of the copy.")
        texts["MEMORY.md"] = b"More."
    with pytest.raises(OwnerGoneError), copies.opened("first") as (copy, texts):
        keep(copy, NewMemory("Lost.", thread_id="none"))
    assert [each.counts["memories"] for each in copies.list_copies()] == [2]

    with pytest.raises(RuntimeError), copies.replacing("first"):
        raise RuntimeError
    assert [m.content for m in other.memories.list_memories(EVERY, 9)] == ["Two.", "One."]
    with copies.replacing("first") as (staged, texts):
        assert texts == {"SOUL.md": b"caf\xe9 \0", "MEMORY.md": b"More."}
        keep(staged, "Staged.")
        with pytest.raises(StoreBusyError), other.transaction(waiting=False):
            pytest.fail("somebody else writes")
    kept = ["Staged.", "Of the copy.", "One."]
    assert [m.content for m in other.memories.list_memories(EVERY, 9)] == kept
    assert store.count_rows()["vectors"] == 1
    assert keep(store, "New.")[0] > 3
    copies.drop("first")
    assert copies.list_copies() == []


@IN_THE_STORE
@pytest.mark.parametrize(
    "damage",
    [
        "DELETE FROM backup_parts WHERE owner = %s",
        "UPDATE backup_parts SET content = substring(content, 1, 40) WHERE owner = %s",
        "UPDATE backup_parts SET content = '\\x00'::bytea || content WHERE owner = %s",
        "UPDATE backups SET about = jsonb_set(about, '{counts,memories}', '7') WHERE owner = %s",
    ],
)
def test_a_stored_copy_that_is_not_whole_is_refused(
    store: Repository, tmp_path: Path, damage: str
) -> None:
    copies = PostgresCopies(database_url(), owner_of(tmp_path), DAYS)
    keep(store, "One.")
    copies.add(Backup("first", NOW, "why", automatic=True, size=0, counts={}), dict)
    keep(store, "Two.")
    with psycopg.connect(database_url(), autocommit=True) as connection:
        connection.execute(damage.encode(), [owner_of(tmp_path)])
    with pytest.raises(BackupDamagedError), copies.replacing("first"):
        pytest.fail("it was opened")
    assert len(store.memories.list_memories(EVERY, 9)) == 2
    with psycopg.connect(database_url(), autocommit=True) as connection:
        left = "SELECT count(*) FROM owners WHERE starts_with(owner, %s)"
        assert connection.execute(left, [owner_of(tmp_path)]).fetchone() == (1,)


@IN_THE_STORE
def test_who_is_killed_while_a_stored_copy_is_changed_leaves_it_as_it_was(
    store: Repository, tmp_path: Path
) -> None:
    copies = PostgresCopies(database_url(), owner_of(tmp_path), DAYS)
    keep(store, "One.")
    made = copies.add(Backup("first", NOW, "why", automatic=True, size=0, counts={}), dict)
    code = (
        "import os, sys; from datetime import UTC; from soulkeep.days import Days\n"
        "from soulkeep.repository.postgres.copies import PostgresCopies\n"
        "with PostgresCopies(sys.argv[1], sys.argv[2], Days(UTC)).opened('first') as (copy, _):\n"
        "    with copy.recording(): copy.memories.delete_memories([1])\n"
        "    os._exit(9)"
    )
    done = subprocess.run([sys.executable, "-c", code, database_url(), owner_of(tmp_path)], check=False)
    assert done.returncode == 9
    assert copies.list_copies() == [made]
    copies.drop_leftovers()
    with copies.opened("first") as (copy, _):
        assert copy.count_rows()["memories"] == 1


# Several at once


def test_others_see_what_is_committed_and_a_snapshot_stays_as_it_is(
    store: Repository, other: Repository
) -> None:
    seen = other.revision()
    with store.recording():
        keep_inside(store)
        assert (store.count_rows()["memories"], other.count_rows()["memories"]) == (1, 0)
        assert store.in_transaction()
    assert not store.in_transaction()
    assert other.revision() != seen
    with other.snapshot():
        assert other.count_rows()["memories"] == 1
        keep(store, "Another.")
        assert other.count_rows()["memories"] == 1
    assert (other.count_rows()["memories"], found(other, "another")) == (2, [2])


def test_one_writes_at_a_time_and_who_does_not_wait_is_told(
    store: Repository, other: Repository
) -> None:
    with store.recording():
        keep_inside(store)
        with pytest.raises(StoreBusyError), other.transaction(waiting=False):
            pytest.fail("somebody else writes")
    with ThreadPoolExecutor(4) as pool:
        each = [pool.submit(keep, each, f"{n}") for n in range(10) for each in (store, other)]
        assert len({future.result(60)[0] for future in each}) == 20
    assert store.check(vectors_expected=False) == []


def test_work_of_a_name_is_done_by_one_alone(store: Repository, other: Repository) -> None:
    with store.sole_worker("work") as is_alone, other.sole_worker("work") as is_second:
        assert (is_alone, is_second) == (True, False)
        with other.sole_worker("else") as is_other:
            assert is_other
    with other.sole_worker("work") as is_alone:
        assert is_alone


def test_facts_and_counts_are_shared(store: Repository, other: Repository) -> None:
    with store.transaction():
        store.put_fact("colour", "green")
    assert other.get_fact("colour") == "green"
    with other.transaction():
        other.put_fact("colour", None)
    assert store.get_fact("colour") is None
    assert {*ROWS, "vectors", "full-text entries"} == {*store.count_rows()}
    assert store.size() > 0
    assert list(store.tidy()) is not None
    assert store.versions()


WRITER = """
import sys, pathlib, test_store_contract as contract
store = contract.ENGINES[sys.argv[1]].open(pathlib.Path(sys.argv[2]))
contract.keep(store, "Acknowledged.")
with store.recording():
    contract.keep_inside(store)
    print("done", flush=True)
    sys.stdin.read()
"""


@pytest.mark.parametrize("name", ON_EACH_ENGINE)
def test_what_was_committed_survives_kill_9_and_nothing_else(name: str, tmp_path: Path) -> None:
    with run_code(WRITER, name, tmp_path) as writer:
        assert writer.stdout
        assert writer.stdout.readline() == "done\n"
        writer.kill()
    with closing(ENGINES[name].open(tmp_path)) as store:
        assert [m.content for m in store.memories.list_memories(EVERY, 9)] == ["Acknowledged."]
        assert store.check(vectors_expected=False) == []
        assert len(store.changes.list_changes(9)) == 1
