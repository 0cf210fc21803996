from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from soulkeep.models import MemoryFilter
from soulkeep.repository.sqlite.database import Database
from soulkeep.repository.sqlite.indexes import VectorTable
from soulkeep.repository.sqlite.scan import VectorScan
from soulkeep.repository.sqlite.schema import bootstrap
from soulkeep.repository.sqlite.upkeep import Upkeep
from soulkeep.repository.values import padded

np = pytest.importorskip("numpy")
pytest.importorskip("numkong")

SIZE = 4_500
DIMENSIONS = 32
EVERYTHING = MemoryFilter()
RANDOM = np.random.default_rng(8)


def unit() -> bytes:
    vector = RANDOM.standard_normal(DIMENSIONS).astype("<f4")
    return bytes((vector / np.linalg.norm(vector)).astype("<f4").tobytes())


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Callable[[], Database]]:
    """Open a connection of its own to the same store, at each call."""
    databases: list[Database] = []

    def open_one() -> Database:
        databases.append(Database(tmp_path / "soulkeep.db"))
        bootstrap(databases[-1])
        return databases[-1]

    yield open_one
    for database in databases:
        database.close()


@pytest.fixture
def database(opened: Callable[[], Database]) -> Database:
    """A store of which two thirds of the vectors were deleted, but none of one chunk in the middle."""
    made = opened()
    with made.transaction():
        made.execute("INSERT INTO store_facts VALUES ('embedder', ?)", (f"test:{DIMENSIONS}:unit",))
        made.execute_many(
            "INSERT INTO memories (content, memory_type, created_at) VALUES (?, 'fact', ?)",
            ((f"{n}", "2026-01-01T00:00:00.000Z") for n in range(SIZE)),
        )
        made.execute_many(
            "INSERT INTO vec_memories VALUES (?, ?)", ((n + 1, padded(unit())) for n in range(SIZE))
        )
    with made.transaction():
        gone = [n for n in range(1, SIZE + 1) if n % 3 and not 2048 < n <= 3072]
        made.execute_many("DELETE FROM vec_memories WHERE memory_id = ?", ((n,) for n in gone))
        made.execute_many("DELETE FROM memories WHERE id = ?", ((n,) for n in gone))
    return made


def vectors(database: Database) -> dict[int, bytes]:
    return dict(database.execute("SELECT memory_id, content_embedding FROM vec_memories"))


def places(database: Database) -> tuple[int, int]:
    """Return how many places for vectors the chunks have, and how many of them are taken."""
    chunks, taken = (
        database.execute(f"SELECT {what}")[0][0]
        for what in ("sum(size) FROM vec_memories_chunks", "count(*) FROM vec_memories_rowids")
    )
    return chunks, taken


def pages(database: Database) -> int:
    return int(database.execute("PRAGMA page_count")[0][0])


def test_sparse_chunks_are_emptied_and_the_file_shrinks(database: Database, tmp_path: Path) -> None:
    before, kept, size = places(database), vectors(database), pages(database)
    assert Upkeep(database).wasted() == (before[0] - before[1]) * 4 * 1536

    steps = list(Upkeep(database).tidy())

    assert before == (5 * 1024, len(kept))
    assert places(database) == (3 * 1024, len(kept))
    assert Upkeep(database).wasted() == 0
    assert vectors(database) == kept
    assert max(steps) <= 500 * 16384
    assert sum(steps) == (size - pages(database)) * 16384
    assert pages(database) < 0.75 * size
    database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    assert (tmp_path / "soulkeep.db").stat().st_size == pages(database) * 16384
    assert database.execute("PRAGMA integrity_check")[0][0] == "ok"


def test_a_search_of_another_process_is_not_disturbed(
    database: Database, opened: Callable[[], Database]
) -> None:
    other = opened()
    scan = VectorScan(other, VectorTable(other))
    query = unit()
    expected = scan.nearest(query, EVERYTHING, 20)
    for _ in Upkeep(database).tidy():
        assert scan.nearest(query, EVERYTHING, 20) == expected
    fresh = VectorScan(other, VectorTable(other))
    assert fresh.nearest(query, EVERYTHING, 20) == expected


def test_others_write_between_the_steps(database: Database, opened: Callable[[], Database]) -> None:
    other, written = opened(), 0
    for _ in Upkeep(database).tidy():
        with other.without_waiting(), other.transaction():
            other.execute("INSERT INTO store_facts VALUES (?, '')", (f"{written}",))
        written += 1
    assert written > 10


def test_a_compaction_that_was_broken_off_leaves_every_vector_and_can_go_on(
    database: Database, opened: Callable[[], Database]
) -> None:
    kept = vectors(database)
    steps = Upkeep(database).tidy()
    for _ in range(5):
        next(steps)
    del steps
    assert vectors(opened()) == kept
    assert sum(Upkeep(opened()).tidy()) > 0
    assert places(database)[0] == 3 * 1024
    assert vectors(database) == kept


def test_a_dense_store_is_left_alone(opened: Callable[[], Database]) -> None:
    database = opened()
    with database.transaction():
        database.execute_many(
            "INSERT INTO vec_memories VALUES (?, ?)", ((n + 1, padded(unit())) for n in range(1_500))
        )
    assert Upkeep(database).wasted() == 0
    assert list(Upkeep(database).tidy()) == []


def test_a_store_of_an_older_soulkeep_without_a_map_of_its_pages_can_be_used_and_compacted(
    tmp_path: Path,
) -> None:
    import apsw

    path = tmp_path / "old.db"
    with closing(apsw.Connection(str(path))) as plain:
        plain.execute("PRAGMA journal_mode = wal; CREATE TABLE t (x); DROP TABLE t")
        plain.execute("PRAGMA application_id = 0x534B4550")
    with closing(Database(path)) as database:
        bootstrap(database)
        database.execute_many(
            "INSERT INTO vec_memories VALUES (?, ?)", ((n + 1, padded(unit())) for n in range(1_100))
        )
        database.execute("DELETE FROM vec_memories WHERE memory_id < 900")
        kept = vectors(database)
        assert list(Upkeep(database).tidy()) == [0, 0]
        assert vectors(database) == kept
