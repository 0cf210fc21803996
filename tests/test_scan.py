import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import count, product
from pathlib import Path
from typing import Any

import pytest

from soulkeep.models import MEMORY_TYPES, MemoryFilter, QueryVector
from soulkeep.repository.sqlite import codes, scan
from soulkeep.repository.sqlite.database import Database
from soulkeep.repository.sqlite.indexes import VectorTable
from soulkeep.repository.sqlite.scan import VectorScan
from soulkeep.repository.sqlite.schema import bootstrap
from soulkeep.repository.values import padded

np = pytest.importorskip("numpy")
kernel = pytest.importorskip("numkong")

SIZE = 2_500
DIMENSIONS = 64
IDENTITY = f"test:{DIMENSIONS}:unit"
EVERYTHING = MemoryFilter()
SEEDS = count(5)


class Store:
    """A real store of random unit vectors, written with plain SQL as several programs would."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.database = Database(path)
        bootstrap(self.database)
        self.random = np.random.default_rng(next(SEEDS))

    def set_up(self, identity: str = IDENTITY) -> None:
        with self.database.transaction():
            self.database.execute("INSERT INTO store_facts VALUES ('embedder', ?)", (identity,))
            for name in "abc":
                self.database.execute("INSERT INTO threads VALUES (?, ?, NULL, 0, '', '')", (name, name))

    def unit(self, count: int, dimensions: int = DIMENSIONS) -> Any:
        vectors = self.random.standard_normal((count, dimensions)).astype("<f4")
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    def query(self) -> bytes:
        return bytes(self.unit(1)[0].tobytes())

    def add(self, vectors: Any, threads: Sequence[str | None] = (None,)) -> list[int]:
        ids = []
        with self.database.transaction():
            for at, vector in enumerate(vectors):
                day, hour = divmod(at, 24)
                moment = f"2026-{1 + day // 28 % 12:02}-{1 + day % 28:02}T{hour:02}:30:00.123Z"
                rows = self.database.execute(
                    "INSERT INTO memories (thread_id, content, memory_type, created_at)"
                    " VALUES (?, ?, ?, ?) RETURNING id",
                    (threads[at % len(threads)], f"{at}", MEMORY_TYPES[at % 4], moment),
                )
                ids.append(rows[0][0])
                self.add_vector(ids[-1], vector)
        return ids

    def add_vector(self, memory_id: int, vector: Any) -> None:
        self.database.execute(
            "INSERT INTO vec_memories VALUES (?, ?)", (memory_id, padded(vector.tobytes()))
        )

    def matrix(self) -> Any:
        """All vectors in the order of their ids, zeros where there is none."""
        rows = self.database.execute("SELECT memory_id, content_embedding FROM vec_memories")
        found = np.zeros((max(row[0] for row in rows), 1536), "<f4")
        for memory_id, vector in rows:
            found[memory_id - 1] = np.frombuffer(vector, "<f4")
        return found

    def delete(self, ids: Sequence[int]) -> None:
        with self.database.transaction():
            for memory_id in ids:
                self.database.execute("DELETE FROM vec_memories WHERE memory_id = ?", (memory_id,))
                self.database.execute("DELETE FROM memories WHERE id = ?", (memory_id,))
                self.note_change(memory_id)

    def replace(self, memory_id: int, vector: Any) -> None:
        with self.database.transaction():
            self.database.execute("DELETE FROM vec_memories WHERE memory_id = ?", (memory_id,))
            self.add_vector(memory_id, vector)
            self.note_change(memory_id)

    def note_change(self, memory_id: int) -> None:
        self.database.execute("INSERT INTO memory_changes (memory_id) VALUES (?)", (memory_id,))

    def exact(self, query: bytes, allowed: MemoryFilter, limit: int) -> list[tuple[int, float]]:
        """Measure every vector that the filter lets pass, with no index and no limit on the way."""
        rows = self.database.execute(
            "SELECT m.id, vec_distance_cosine(v.content_embedding, :vector) AS distance"
            " FROM memories AS m CROSS JOIN vec_memories AS v ON v.memory_id = m.id"
            " WHERE (:thread IS NULL OR m.thread_id = :thread OR m.thread_id IS NULL)"
            " AND (:type IS NULL OR m.memory_type = :type)"
            " AND (:since IS NULL OR ifnull(m.occurred_at, m.created_at) >= :since)"
            " AND (:until IS NULL OR ifnull(m.occurred_at, m.created_at) <= :until)"
            " ORDER BY distance, m.id LIMIT :limit",
            {
                "vector": padded(query),
                "thread": allowed.thread_id,
                "type": allowed.memory_type,
                "since": allowed.since,
                "until": allowed.until,
                "limit": limit,
            },
        )
        return [(row[0], row[1]) for row in rows]


class Refusing(VectorTable):
    """A table whose exact search must not be asked."""

    def nearest(self, *_: object) -> list[tuple[int, float]]:
        raise AssertionError("the exact search was asked")


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    store = Store(tmp_path_factory.mktemp("filled") / "soulkeep.db")
    store.set_up()
    store.add(store.unit(SIZE), ("a", "b", None, "a"))
    store.database.close()
    return store.path


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Callable[[], Store]]:
    """Open a connection of its own to the same store, at each call."""
    stores: list[Store] = []

    def open_one() -> Store:
        stores.append(Store(tmp_path / "soulkeep.db"))
        return stores[-1]

    yield open_one
    for store in stores:
        store.database.close()


@pytest.fixture
def store(filled: Path, tmp_path: Path, opened: Callable[[], Store]) -> Store:
    shutil.copyfile(filled, tmp_path / "soulkeep.db")
    return opened()


@pytest.fixture
def vectors(store: Store) -> VectorScan:
    return VectorScan(store.database, Refusing(store.database))


@pytest.fixture(scope="module")
def unchanged(filled: Path) -> Iterator[tuple[VectorScan, Store]]:
    """One store, and its codes in memory, for tests that only ask."""
    store = Store(filled)
    yield VectorScan(store.database, Refusing(store.database)), store
    store.database.close()


def agrees(
    vectors: VectorScan, store: Store, allowed: MemoryFilter = EVERYTHING, limit: int = 10
) -> bool:
    query = store.query()
    return vectors.nearest(query, allowed, limit) == store.exact(query, allowed, limit)


@pytest.mark.parametrize(
    ("thread", "kind", "since", "until"),
    [
        *product(
            (None, "a", "c", "unknown"),
            (None, "fact", "unknown"),
            (None, "2026-02-01T05:30:00.123Z"),
            (None, "2026-03-01T05:30:00.123Z", "2026-03-01T05:30:00.122Z"),
        )
    ],
)
def test_a_scan_answers_what_measuring_every_vector_answers(
    unchanged: tuple[VectorScan, Store],
    thread: str | None,
    kind: str | None,
    since: str | None,
    until: str | None,
) -> None:
    assert agrees(*unchanged, MemoryFilter(thread, kind, since, until))


@pytest.mark.parametrize("limit", [1, 3, 10, 100])
def test_any_limit_gives_the_exact_order_and_distances(
    unchanged: tuple[VectorScan, Store], limit: int
) -> None:
    assert all(agrees(*unchanged, limit=limit) for _ in range(8))


@pytest.mark.parametrize("limit", [200, 1_000, 4_096])
def test_a_limit_that_reaches_most_of_the_store_is_searched_exactly(store: Store, limit: int) -> None:
    asking = VectorScan(store.database, VectorTable(store.database))
    query = store.query()
    assert [i for i, _ in asking.nearest(query, EVERYTHING, limit)] == [
        i for i, _ in store.exact(query, EVERYTHING, limit)
    ]


def test_a_filter_that_few_pass_gives_fewer_than_the_limit(store: Store, vectors: VectorScan) -> None:
    (rare,) = store.add(store.unit(1), ("c",))
    allowed = MemoryFilter("c", "fact", "2026-01-01T00:00:00.000Z", "2026-01-01T00:30:00.123Z")
    assert agrees(vectors, store, allowed)
    assert rare in [i for i, _ in vectors.nearest(store.query(), allowed, 10)]


def test_equal_vectors_come_in_the_order_of_their_ids(store: Store, vectors: VectorScan) -> None:
    same = store.unit(1)[0]
    ids = store.add([same] * 300)
    found = vectors.nearest(same.tobytes(), EVERYTHING, 10)
    assert [i for i, _ in found] == ids[:10]


def test_the_time_something_happened_counts_before_the_time_it_was_kept(
    store: Store, vectors: VectorScan
) -> None:
    store.database.execute("UPDATE memories SET occurred_at = '2020-05-05T00:00:00.000Z' WHERE id = 7")
    allowed = MemoryFilter(until="2020-05-05T00:00:00.000Z")
    assert [i for i, _ in vectors.nearest(store.query(), allowed, 10)] == [7]


@pytest.mark.parametrize("size", [40, SIZE])
def test_vectors_that_came_newest_first_are_followed_too(opened: Callable[[], Store], size: int) -> None:
    store = opened()
    store.set_up()
    every, (first, *later), ids = store.unit(size), store.unit(4), list(range(1, size + 1))
    with store.database.transaction():
        for n in range(size):
            store.database.execute(
                "INSERT INTO memories (content, memory_type, created_at) VALUES (?, 'fact', ?)",
                (f"{n}", "2026-03-01T12:00:00.000Z"),
            )
        for memory_id in reversed(ids[3:]):
            store.add_vector(memory_id, every[memory_id - 1])
    asking = VectorScan(store.database, Refusing(store.database))

    def cosines() -> dict[int, tuple[float, ...]]:
        question = QueryVector(store.query(), IDENTITY, [DIMENSIONS], [(1.0,)])
        return asking.compare(question, EVERYTHING, 1, ids)

    assert cosines().keys() == set(ids[3:])
    store.delete([ids[5]])
    store.replace(ids[7], first)
    assert agrees(asking, store)
    with store.database.transaction():  # those that waited the longest, the last of them first
        for memory_id, vector in zip(reversed(ids[:3]), later, strict=True):
            store.add_vector(memory_id, vector)
            store.note_change(memory_id)
    assert cosines().keys() == set(ids) - {ids[5]}
    assert asking.nearest(first.tobytes(), EVERYTHING, 1)[0][0] == ids[7]
    assert agrees(asking, store)


def test_own_memories_are_found_at_once(store: Store, vectors: VectorScan) -> None:
    vectors.nearest(store.query(), EVERYTHING, 1)
    for _ in range(3):
        new = store.unit(1)
        (added,) = store.add(new)
        assert vectors.nearest(new[0].tobytes(), EVERYTHING, 1)[0][0] == added
    assert agrees(vectors, store)


def asked(vector: bytes, parts: Sequence[int] = (DIMENSIONS,)) -> QueryVector:
    return QueryVector(vector, IDENTITY, parts, [[1.0] * len(parts)])


@pytest.mark.parametrize("parts", [(64,), (24, 40), (16, 16, 32)])
def test_parts_are_compared_by_codes_as_their_vectors_are(
    store: Store, vectors: VectorScan, monkeypatch: pytest.MonkeyPatch, parts: Sequence[int]
) -> None:
    monkeypatch.setattr(codes, "CENTRING", 0.0)
    everything, query = {*range(1, SIZE + 1)}, store.query()
    matrix = store.matrix()[:, :DIMENSIONS]
    found = vectors.compare(asked(query, parts), EVERYTHING, 50, everything)
    assert found.keys() == everything
    ends = np.cumsum(parts)[:-1]
    for own, part, place in zip(
        np.split(np.frombuffer(query, "<f4"), ends), np.split(matrix, ends, axis=1), count()
    ):
        exact = part @ own * len(parts)
        assert (
            max(abs(found[i + 1][place] - exact[i]) for i in range(SIZE))
            < (1 + len(parts)) * scan.CODE_ERROR
        )


@pytest.mark.parametrize(
    "rows",
    [range(SIZE + 1, 10 * SIZE), range(SIZE), range(SIZE + 3), range(SIZE, 10 * SIZE)],
    ids=["too few to be held", "too many", "too many at last", "held"],
)
def test_cosines_are_those_of_the_vectors_to_a_ten_thousandth_wherever_they_are_measured(
    store: Store, vectors: VectorScan, monkeypatch: pytest.MonkeyPatch, rows: range
) -> None:
    monkeypatch.setattr(codes, "CENTRING", 0.0)
    monkeypatch.setattr(codes, "FINE_ROWS", rows)
    query, read, were_read = np.frombuffer(store.query(), "<f4"), store.database.read_pieces, set()

    def noted(*asked: Any) -> list[bytes]:
        were_read.add(len(store.matrix()))
        return read(*asked)

    monkeypatch.setattr(store.database, "read_pieces", noted)

    def compared() -> dict[int, tuple[float, ...]]:
        return vectors.compare(asked(query.tobytes(), (24, 40)), EVERYTHING, 5, range(1, SIZE + 9))

    def exact() -> dict[int, Any]:
        matrix = store.matrix()[:, :DIMENSIONS]
        sums = [2 * matrix[:, part] @ query[part] for part in (slice(24), slice(24, DIMENSIONS))]
        known = np.flatnonzero(matrix.any(axis=1))
        return {int(i) + 1: pytest.approx([part[i] for part in sums], abs=1e-4) for i in known}

    assert compared() == exact()
    store.replace(7, store.unit(1)[0])
    store.delete([8])
    assert compared() == exact()
    store.add(store.unit(5))
    assert compared() == exact()
    assert were_read == {size for size in (SIZE, SIZE + 5) if SIZE not in rows or size not in rows}


def test_a_few_vectors_more_do_not_move_all_that_were_read(store: Store, vectors: VectorScan) -> None:
    vectors.load([DIMENSIONS])
    before = vectors.memory_used()
    assert before < 1.2 * SIZE * (2 * DIMENSIONS + 50)
    store.add(store.unit(200))
    assert agrees(vectors, store)
    assert vectors.memory_used() == before


def test_what_all_vectors_share_says_nothing_of_any(opened: Callable[[], Store]) -> None:
    store = opened()
    store.set_up()
    common, own = store.unit(1)[0], store.unit(1_000)
    vectors = own + common
    store.add((vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype("<f4"))
    scanned = VectorScan(store.database, Refusing(store.database))
    found = scanned.compare(asked(common.tobytes()), EVERYTHING, 10, range(1, 1_001))
    plain = store.matrix()[:, :DIMENSIONS] @ common
    assert np.mean([cosine for (cosine,) in found.values()]) < 0.7 * plain.mean()


def test_compared_are_the_nearest_by_each_weighting_and_the_memories_asked_for(
    store: Store, vectors: VectorScan, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(codes, "CENTRING", 0.0)
    store.delete([1])
    query = np.frombuffer(store.query(), "<f4")
    weightings = [(1.0, 1.0), (0.0, 1.0)]
    scores = [store.matrix()[:, :32] @ query[:32], store.matrix()[:, 32:64] @ query[32:]]
    far = 1 + int(np.argmin(scores[1]))
    found = vectors.compare(
        QueryVector(query.tobytes(), IDENTITY, (32, 32), weightings), EVERYTHING, 50, {1, 10**9, far}
    )
    assert far in found
    assert not {1, 10**9} & found.keys()
    for first, second in weightings:
        order = np.argsort(-(first * scores[0] + second * scores[1])) + 1
        assert {*order[:40].tolist()} - {1} <= found.keys()
    assert len(found) <= 101


@pytest.mark.parametrize(
    "allowed",
    [
        MemoryFilter(since="2026-02-01T00:00:00.000Z", until="2026-02-03T00:00:00.000Z"),
        MemoryFilter("a", "fact", "2026-01-01T00:00:00.000Z", "2026-01-04T00:00:00.000Z"),
        MemoryFilter(memory_type="unknown"),
    ],
)
def test_where_few_pass_a_filter_they_are_compared_as_among_all(
    store: Store, vectors: VectorScan, allowed: MemoryFilter
) -> None:
    query, also = asked(store.query(), (24, 40)), {7, SIZE}
    among_all = vectors.compare(query, EVERYTHING, 1, range(1, SIZE + 1))
    found = vectors.compare(query, allowed, 10, also)
    passing = store.exact(query.embedding, allowed, SIZE)
    best = sorted((i for i, _ in passing), key=lambda i: -sum(among_all[i]))[:10]
    assert found == {i: pytest.approx(among_all[i], abs=1e-6) for i in {*best, *also}}


def test_codes_scanned_whole_are_compared_by_part_and_kept_up_afterwards(
    store: Store, vectors: VectorScan
) -> None:
    loaded = VectorScan(store.database, Refusing(store.database))
    loaded.load((24, 40))
    vectors.nearest(store.query(), EVERYTHING, 1)
    for parts in ((24, 40), (64,), (24, 40)):
        query = asked(store.query(), parts)
        everything = range(1, SIZE + 10)
        expected = loaded.compare(query, EVERYTHING, 5, everything)
        found = vectors.compare(query, EVERYTHING, 5, everything)
        assert found == {i: pytest.approx(cosines, abs=1e-6) for i, cosines in expected.items()}
        store.add(store.unit(3))
        store.replace(50, store.unit(1)[0])
        store.delete([SIZE - len(parts)])
        assert agrees(vectors, store)


def test_where_codes_cannot_be_held_the_vectors_themselves_are_compared(
    store: Store, vectors: VectorScan, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(codes, "CENTRING", 0.0)
    query, also = store.query(), [3, 5]
    quick = vectors.compare(asked(query, (24, 40)), EVERYTHING, 20, also)
    monkeypatch.setattr(scan, "MAXIMUM_ROWS", 10)
    whole = VectorScan(store.database, VectorTable(store.database))
    exact = whole.compare(asked(query, (24, 40)), EVERYTHING, 20, also)
    assert len(exact.keys() & quick.keys()) >= 20
    for i in exact.keys() & quick.keys():
        assert sum(exact[i]) == pytest.approx(sum(quick[i]), abs=0.6)


def test_searching_takes_no_references_from_the_interpreter(vectors: VectorScan, store: Store) -> None:
    query = store.query()
    vectors.nearest(query, EVERYTHING, 10)
    before = sys.getrefcount(None)
    for _ in range(1_000):
        vectors.nearest(query, EVERYTHING, 10)
    assert sys.getrefcount(None) > before - 100


def test_what_another_connection_adds_replaces_and_deletes_is_seen(
    store: Store, vectors: VectorScan, opened: Callable[[], Store]
) -> None:
    vectors.nearest(store.query(), EVERYTHING, 1)
    other, moved = opened(), store.unit(1)[0]
    added = other.add(store.unit(1_500), ("c", None))
    assert agrees(vectors, store)
    other.replace(42, moved)
    other.delete([*range(100, 200), added[0], added[-1]])
    assert vectors.nearest(moved.tobytes(), EVERYTHING, 1)[0][0] == 42
    for allowed in (EVERYTHING, MemoryFilter("a"), MemoryFilter("c"), MemoryFilter(memory_type="fact")):
        assert agrees(vectors, store, allowed)


def test_a_memory_added_and_deleted_between_two_searches_is_not_found(
    store: Store, vectors: VectorScan
) -> None:
    vectors.nearest(store.query(), EVERYTHING, 1)
    new = store.unit(2)
    ids = store.add(new)
    store.replace(ids[0], new[1])
    store.delete(ids[1:])
    assert vectors.nearest(new[1].tobytes(), EVERYTHING, 1)[0][0] == ids[0]
    assert agrees(vectors, store)


def test_what_was_rolled_back_is_not_found(store: Store, vectors: VectorScan) -> None:
    vectors.nearest(store.query(), EVERYTHING, 1)

    def delete_and_fail() -> None:
        with store.database.transaction():
            store.database.execute("DELETE FROM vec_memories WHERE memory_id = 9")
            store.note_change(9)
            raise KeyError(9)

    with pytest.raises(KeyError):
        delete_and_fail()
    assert agrees(vectors, store)


def test_a_store_embedded_anew_is_loaded_anew(
    store: Store, vectors: VectorScan, opened: Callable[[], Store]
) -> None:
    vectors.nearest(store.query(), EVERYTHING, 1)
    other = opened()
    anew = store.unit(SIZE, 96)
    with other.database.transaction():
        other.database.execute("DELETE FROM vec_memories")
        other.database.execute("UPDATE store_facts SET value = 'other:96:unit'")
        for memory_id, vector in enumerate(anew, 1):
            other.add_vector(memory_id, vector)
    query = store.unit(1, 96)[0].tobytes()
    assert vectors.nearest(query, EVERYTHING, 10) == store.exact(query, EVERYTHING, 10)


def test_very_many_changes_load_the_store_anew(
    store: Store, vectors: VectorScan, monkeypatch: pytest.MonkeyPatch
) -> None:
    vectors.nearest(store.query(), EVERYTHING, 1)
    monkeypatch.setattr(scan, "RELOAD_CHANGES", 3)
    store.delete(range(1, 400))
    assert agrees(vectors, store)


def test_holes_and_vectors_without_a_memory_are_left_out(store: Store, vectors: VectorScan) -> None:
    store.delete([1, 2, 3, *range(1_020, 1_030), SIZE])
    orphan = store.unit(1)[0]
    store.add_vector(9_999, orphan)
    assert agrees(vectors, store)
    assert vectors.nearest(orphan.tobytes(), EVERYTHING, 1)[0][0] != 9_999


def test_a_zero_vector_or_one_with_nan_never_comes_first(store: Store, vectors: VectorScan) -> None:
    for memory_id, value in ((11, 0.0), (12, float("nan")), (13, float("inf"))):
        vector = np.zeros(1536, "<f4")
        vector[0] = value
        store.database.execute("DELETE FROM vec_memories WHERE memory_id = ?", (memory_id,))
        store.database.execute("INSERT INTO vec_memories VALUES (?, ?)", (memory_id, vector.tobytes()))
    found = {i for i, _ in vectors.nearest(store.query(), EVERYTHING, 50)}
    assert len(found) == 50
    assert not found & {11, 12, 13}


def test_shadow_tables_of_another_shape_are_read_through_the_virtual_table(
    store: Store, vectors: VectorScan, monkeypatch: pytest.MonkeyPatch
) -> None:
    def strange(self: VectorScan) -> Iterator[object]:
        raise ValueError("another shape")

    monkeypatch.setattr(VectorScan, "_chunks", strange)
    assert agrees(vectors, store)
    assert agrees(vectors, store, MemoryFilter("a"))


@pytest.mark.parametrize("holds", [("no_such_table", "vectors"), ("vec_memories_chunks", "validity")])
def test_where_vectors_are_not_where_they_were_they_are_compared_through_the_virtual_table(
    store: Store, vectors: VectorScan, holds: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(codes, "FINE_ROWS", range(0))
    query, also = asked(store.query(), (24, 40)), range(1, 200)
    usual = vectors.compare(query, EVERYTHING, 10, also)
    monkeypatch.setattr(scan, "_VECTORS", holds)
    assert vectors.compare(query, EVERYTHING, 10, also) == usual


@pytest.mark.parametrize("is_busy", [False, True])
def test_a_large_scan_is_shared_and_does_not_wait_for_a_helper_that_is_busy(
    store: Store, vectors: VectorScan, monkeypatch: pytest.MonkeyPatch, *, is_busy: bool
) -> None:
    query, also, done = asked(store.query(), (24, 40)), range(1, 200), threading.Event()
    usual = vectors.compare(query, EVERYTHING, 10, also)
    monkeypatch.setattr(codes, "_SCANNED", 100)
    if is_busy:
        codes._helper().submit(done.wait, 60)
    try:
        assert vectors.compare(query, EVERYTHING, 10, also) == usual
        assert all(agrees(vectors, store, allowed) for allowed in (EVERYTHING, MemoryFilter("a")))
        assert not done.is_set()
    finally:
        done.set()


@pytest.mark.parametrize("missing", ["numpy", "numkong"])
def test_without_the_kernel_the_answers_are_the_same(
    store: Store, missing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    query = store.query()
    monkeypatch.setitem(sys.modules, missing, None)
    monkeypatch.delitem(sys.modules, "soulkeep.repository.sqlite.codes", raising=False)
    plain = VectorScan(store.database, VectorTable(store.database))
    for allowed in (EVERYTHING, MemoryFilter("a"), MemoryFilter(memory_type="fact")):
        assert plain.nearest(query, allowed, 10) == store.exact(query, allowed, 10)


def test_a_store_too_large_for_memory_is_searched_exactly(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scan, "MAXIMUM_ROWS", SIZE - 1)
    with pytest.raises(AssertionError, match="exact search"):
        VectorScan(store.database, Refusing(store.database)).nearest(store.query(), EVERYTHING, 10)


@pytest.mark.parametrize("identity", ["none:0:none", "unnamed", "a:b:c"])
def test_an_embedder_of_unknown_width_is_searched_exactly(
    opened: Callable[[], Store], identity: str
) -> None:
    store = opened()
    store.set_up(identity)
    store.add(store.unit(1_001))
    with pytest.raises(AssertionError, match="exact search"):
        VectorScan(store.database, Refusing(store.database)).nearest(store.query(), EVERYTHING, 10)


def test_wide_vectors_are_ranked_by_their_first_dimensions_and_measured_whole(
    opened: Callable[[], Store],
) -> None:
    store = opened()
    store.set_up("wide:1536:unit")
    wide = store.unit(1_200, 1536) * np.geomspace(1, 1e-3, 1536).astype("<f4")
    wide = (wide / np.linalg.norm(wide, axis=1, keepdims=True)).astype("<f4")
    store.add(wide)
    vectors = VectorScan(store.database, Refusing(store.database))
    for vector in wide[:10]:
        query = vector.tobytes()
        assert vectors.nearest(query, EVERYTHING, 10) == store.exact(query, EVERYTHING, 10)


def test_threads_search_side_by_side_while_another_writes(store: Store, vectors: VectorScan) -> None:
    queries = [store.query() for _ in range(40)]
    batches = [store.unit(20) for _ in range(5)]
    with ThreadPoolExecutor(4) as pool:
        writing = pool.submit(lambda: [store.add(batch) for batch in batches])
        found = list(pool.map(lambda query: vectors.nearest(query, EVERYTHING, 10), queries))
        writing.result()
    assert all(len(answer) == 10 for answer in found)
    assert agrees(vectors, store)


def test_importing_the_scan_imports_neither_numpy_nor_the_kernel() -> None:
    loaded = "sys.exit(bool({'numpy', 'numkong'} & {*sys.modules}))"
    code = f"import soulkeep.repository.sqlite.scan, sys; {loaded}"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
