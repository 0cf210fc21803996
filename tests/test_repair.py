"""`soulkeep doctor --repair`: whatever is derived comes back from what the user said."""

import json
import shutil
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from conftest import Run, TickingClock
from engine import another_program, database_of, file_of
from soulkeep.app import open_home
from soulkeep.errors import EmbedderMismatchError
from soulkeep.models import NewMemory, NewMessage
from soulkeep.progress import told_to
from soulkeep.service.home import Home

pytestmark = pytest.mark.embedder("universal")

DAMAGES = {
    "a vector is missing": "DELETE FROM vec_memories WHERE memory_id = 1",
    "a vector has no memory": (
        "INSERT INTO vec_memories SELECT 77, content_embedding FROM vec_memories LIMIT 1"
    ),
    "an entry of the full text has no memory": (
        "INSERT INTO memories_fts (rowid, content) VALUES (88, 'stray')"
    ),
    "an entry of the full text is missing": "DELETE FROM memories_fts WHERE rowid = 2",
    "a row of vec0's list is gone": "DELETE FROM vec_memories_rowids WHERE rowid = 1",
    "a chunk of vectors is gone": "DELETE FROM vec_memories_vector_chunks00",
    "the description of a chunk is gone": "DELETE FROM vec_memories_chunks",
    "a chunk of vectors is cut short": (
        "UPDATE vec_memories_vector_chunks00 SET vectors = substr(vectors, 1, 6144)"
    ),
    "a chunk of vectors is too long": (
        "UPDATE vec_memories_vector_chunks00 SET vectors = CAST(vectors || x'00' AS BLOB)"
    ),
    "a chunk of vectors is a text": "UPDATE vec_memories_vector_chunks00 SET vectors = 'oops'",
    "a chunk no longer says whose vectors it holds": (
        "UPDATE vec_memories_chunks SET rowids = zeroblob(8192)"
    ),
    "a chunk no longer says which places are taken": (
        "UPDATE vec_memories_chunks SET validity = zeroblob(128)"
    ),
    "the size of a chunk is wrong": "UPDATE vec_memories_chunks SET size = 7",
    "two vectors are in one place": "UPDATE vec_memories_rowids SET chunk_offset = 0",
    "the vectors are gone": "DROP TABLE vec_memories",
    "a table of vec0 is gone": "DROP TABLE vec_memories_vector_chunks00",
    "the list of vec0 is gone": "DROP TABLE vec_memories_rowids",
    "the embedder is forgotten": "DELETE FROM store_facts",
}


WORD_DAMAGES = {
    "an entry has nothing to belong to": "INSERT INTO {table} (rowid, content) VALUES (888, 'stray')",
    "an entry is missing": "DELETE FROM {table} WHERE rowid = 2",
    "the words are gone": "DROP TABLE {table}_data",
    "the words are deleted": "DELETE FROM {table}_data WHERE id > 10",
    "the words are garbled": "UPDATE {table}_data SET block = x'00' WHERE id > 10",
    "the structure is deleted": "DELETE FROM {table}_data WHERE id = 10",
    "the structure leads nowhere": "UPDATE {table}_data SET block = zeroblob(7) WHERE id = 10",
    "the totals are deleted": "DELETE FROM {table}_data WHERE id = 1",
    "the totals are garbled": "UPDATE {table}_data SET block = x'01' WHERE id = 1",
    "the sizes are gone": "DROP TABLE {table}_docsize",
    "the sizes are garbled": "UPDATE {table}_docsize SET sz = x'ff'",
    "the sizes are no numbers": "UPDATE {table}_docsize SET sz = NULL",
    "a size is wrong": "UPDATE {table}_docsize SET sz = x'010000' WHERE id = 2",
    "the way to the words is gone": "DROP TABLE {table}_idx",
    "the way to the words is deleted": "DELETE FROM {table}_idx",
    "the way to the words is wrong": "UPDATE {table}_idx SET pgno = 99",
    "the version is gone": "DROP TABLE {table}_config",
    "the version is deleted": "DELETE FROM {table}_config",
    "the version is unknown": "UPDATE {table}_config SET v = 99",
    "all of it is gone": "DROP TABLE {table}",
}


def damage(home: Home, statement: str) -> None:
    home.close()
    with closing(another_program(file_of(home))) as file:
        # As another program with sqlite-vec would, or as a fault of the disk.
        from soulkeep.repository.sqlite.connections import load_vectors

        load_vectors(file)
        file.execute(statement)


def contents(home: Home) -> set[str]:
    return {match.memory.content for match in home.memories.recall("memory", limit=100).matches}


@pytest.fixture
def kept(home: Home) -> Home:
    home.memories.remember([NewMemory(f"Memory {number}.") for number in range(3)])
    return home


@pytest.mark.parametrize("case", DAMAGES)
def test_each_damage_to_what_is_derived_is_found_and_mended(
    case: str, kept: Home, make_home: Callable[..., Home]
) -> None:
    damage(kept, DAMAGES[case])

    home = make_home()
    repaired = home.repairs.repair()

    assert repaired.found
    assert repaired.left == ()
    assert repaired.rebuilt["vectors"] == repaired.rebuilt["full-text entries"] == 3
    assert home.check() == []
    assert contents(home) == {"Memory 0.", "Memory 1.", "Memory 2."}
    assert home.memories.remember([NewMemory("Memory 3.")])[0].stored


@pytest.fixture(scope="module")
def lamps(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home of memories and messages whose words fill several pages, closed, to be copied."""
    path = tmp_path_factory.mktemp("lamps") / "home"
    texts = [f"Lamp {number} " + " ".join(f"w{number * n}" for n in range(15)) for number in range(50)]
    with closing(open_home(path, embedder="none", clock=TickingClock())) as home:
        home.memories.remember([NewMemory(text) for text in texts])
        thread = home.threads.create_thread("Lamps")
        home.messages.save(thread.id, [NewMessage("user", text) for text in texts])
    return path


@pytest.fixture
def said(lamps: Path, make_home: Callable[..., Home], home_path: Path) -> Home:
    shutil.copytree(lamps, home_path)
    return make_home(embedder="none")


@pytest.mark.parametrize(
    "table", ["memories_fts", pytest.param("messages_fts", marks=pytest.mark.campaign)]
)
@pytest.mark.parametrize("case", WORD_DAMAGES)
def test_each_damage_to_words_is_found_and_mended(
    case: str, table: str, said: Home, make_home: Callable[..., Home]
) -> None:
    damage(said, WORD_DAMAGES[case].format(table=table))

    home = make_home(embedder="none")
    repaired = home.repairs.repair()

    assert repaired.found
    assert not any("restore" in fault.remedy for fault in repaired.found)
    assert repaired.left == ()
    assert home.check() == []
    for number in (0, 27, 49):
        found = home.memories.recall(f"lamp {number}", include_messages=True)
        assert found.matches[0].memory.content.startswith(f"Lamp {number} ")
        assert any(m.message.content.startswith(f"Lamp {number} ") for m in found.messages)
    assert home.lifecycle.forget([1, 2, 3]).memories
    assert home.changes.undo(home.changes.list_changes()[0].id)
    assert home.check() == []


def test_words_that_no_index_knows_are_no_fault(home: Home) -> None:
    texts = [
        "🙂",
        "—",
        "\U0001e4d0\U0001e4d1 \U00011f04",  # letters younger than SQLite's tables
        "\U0001e4d0 and words",
        'quoted "words" AND (others) OR NOT near*',
        "日本語のメモ",
        "ภาษาไทย",
        "ÄÖÜ ß İstanbul",
        "camelCase_and snake_case HTTPServer",
        "x" * 500,
    ]
    home.memories.remember([NewMemory(text) for text in texts])
    thread = home.threads.create_thread("Odd")
    home.messages.save(thread.id, [NewMessage("user", text) for text in texts])

    assert home.check() == []


@pytest.mark.parametrize("changed", ["The kettle is blue.", "—"])
def test_a_text_that_another_program_changed_is_found_under_its_new_words(
    changed: str, home: Home, make_home: Callable[..., Home]
) -> None:
    home.memories.remember([NewMemory("The lamp is red.")])
    damage(home, f"UPDATE memories SET content = '{changed}'")  # noqa: S608

    other = make_home()
    (fault,) = other.repairs.repair().found

    assert (fault.name, other.check()) == ("full text", [])
    assert "1 is not found by their words" in fault.detail


def test_check_does_not_take_what_another_process_wrote_for_damage(
    make_home: Callable[..., Home],
) -> None:
    home, other = make_home(embedder="none"), make_home(embedder="none")
    for number in range(30):
        texts = [f"Memory {number} {n} " + "maple river copper " * 20 for n in range(7)]
        other.memories.remember([NewMemory(text) for text in texts])
        assert home.check() == []


def test_a_store_in_order_is_rebuilt_to_the_same(kept: Home) -> None:
    before = contents(kept)

    repaired = kept.repairs.repair()

    assert (repaired.found, repaired.left) == ((), ())
    assert contents(kept) == before


def test_an_open_process_sees_what_another_one_repaired(
    kept: Home, make_home: Callable[..., Home]
) -> None:
    before = contents(kept)
    make_home().repairs.repair()

    assert contents(kept) == before


def test_documents_are_read_again_and_entries_of_vanished_ones_leave(home: Home) -> None:
    home.documents.append_daily("The lighthouse was closed.")
    home.memories.recall("lighthouse")
    database = database_of(home)
    with home.repository.transaction():
        database.execute("DELETE FROM document_states")
        database.execute("UPDATE memories SET content = 'Another text.' WHERE document IS NOT NULL")
        database.execute(
            "INSERT INTO memories (content, memory_type, created_at, document)"
            " VALUES ('Of a vanished log.', 'fact', '2026-01-01', 'daily/2026-01-01.md')"
        )

    repaired = home.repairs.repair()

    assert repaired.left == ()
    assert repaired.rebuilt["documents"] >= 1
    assert "The lighthouse was closed." in {
        match.memory.content for match in home.memories.recall("lighthouse").matches
    }
    rows = {row[0] for row in database.execute("SELECT content FROM memories")}
    assert rows.isdisjoint({"Another text.", "Of a vanished log."})


def test_a_document_that_cannot_be_read_is_left_as_a_fault(home: Home) -> None:
    home.documents.edit("MEMORY.md", lambda text: f"{text}\n- The lighthouse is closed.\n")
    home.memories.recall("lighthouse")
    (home.path / "MEMORY.md").write_bytes(b"\xff\xfe\xff")

    (fault,) = home.repairs.repair().left

    assert (fault.name, fault.detail) == ("document", "MEMORY.md was not read")
    assert contents(home) is not None


def test_what_the_user_said_is_not_touched_so_a_fault_in_it_is_left(
    run: Run, kept: Home, home_path: Path
) -> None:
    damage(kept, "INSERT INTO messages (session_id, role, content, created_at) VALUES ('x', '', '', '')")

    code, out, _ = run("doctor", "--repair")

    assert code == 1
    assert "FAULT foreign keys: 1 row of messages" in out
    assert "1 fault could not be mended." in out


def test_vectors_of_another_embedder_are_not_thrown_away(
    kept: Home, make_home: Callable[..., Home]
) -> None:
    lexical = make_home(embedder="none")

    with pytest.raises(EmbedderMismatchError, match="reindex"):
        lexical.repairs.repair()

    assert kept.repository.count_rows()["vectors"] == 3


def test_the_command_says_what_it_found_and_rebuilt(run: Run, kept: Home) -> None:
    damage(kept, DAMAGES["a chunk of vectors is gone"])

    code, out, _ = run("doctor")
    assert code == 1
    assert "3 vectors are listed and lost; run `soulkeep doctor --repair`" in out
    code, out, _ = run("doctor", "--repair")
    assert code == 0
    assert "vectors: 3 vectors are listed and lost" in out
    assert "Everything is in order." in out
    assert run("doctor")[0] == 0


def test_where_a_table_is_gone_every_command_says_what_mends_it(run: Run, kept: Home) -> None:
    damage(kept, DAMAGES["the list of vec0 is gone"])

    for command in (("doctor",), ("recall", "memory")):
        code, out, err = run(*command)
        assert (code, out) == (1, "")
        assert "run `soulkeep doctor --repair`" in err
    assert run("doctor", "--repair")[0] == 0
    assert run("doctor")[0] == 0


def test_rebuilding_tells_how_far_it_is(kept: Home) -> None:
    told: list[tuple[str, float | None]] = []

    with told_to(lambda doing, share: told.append((doing, share))):
        kept.repairs.repair()
        kept.indexes.reindex()

    assert told.count(("Embedding all memories", 1)) == 2


def test_scripts_get_the_same_as_one_document(run: Run, kept: Home) -> None:
    damage(kept, DAMAGES["a vector is missing"])

    code, out, _ = run("doctor", "--json")
    assert code == 1
    assert set(json.loads(out)) == {
        *("versions", "paths", "rows", "usage", "new_vectors", "waiting_vectors", "faults", "clients")
    }
    code, out, _ = run("doctor", "--repair", "--json")
    assert code == 0
    repaired = json.loads(out)
    assert repaired["found"][0]["detail"] == "1 memory has no vector"
    assert repaired["left"] == []
    assert repaired["rebuilt"] == {"vectors": 3, "full-text entries": 3, "documents": 1}


def test_a_store_that_sqlite_cannot_read_is_one_line_and_a_failing_exit_code(
    run: Run, home_path: Path
) -> None:
    open_home(home_path).close()
    path = home_path / "soulkeep.db"
    content = bytearray(path.read_bytes())
    content[200 : 16384 * 2] = b"\xff" * (16384 * 2 - 200)
    path.write_bytes(content)

    code, out, err = run("doctor", "--repair")

    assert (code, out) == (1, "")
    assert err.count("\n") == 1
    assert "backup" in err
