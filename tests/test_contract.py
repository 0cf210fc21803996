"""Each row of the schema that the owner asked for."""

from collections.abc import Callable
from pathlib import Path

import apsw
import pytest

from engine import another_program, database_of, file_of
from soulkeep.models import NewMemory, NewMessage
from soulkeep.repository.sqlite import schema
from soulkeep.repository.sqlite.database import Database
from soulkeep.service.home import Home

VEC_DDL = (
    "CREATE VIRTUAL TABLE vec_memories USING vec0("
    "memory_id INTEGER PRIMARY KEY, content_embedding FLOAT[1536] distance_metric=cosine)"
)
# name: (type, not null, default, primary key)
COLUMNS = {
    "threads": {
        "id": ("TEXT", True, None, True),
        "title": ("TEXT", True, None, False),
        "system_prompt": ("TEXT", False, None, False),
        "archived": ("INTEGER", False, "0", False),
        "created_at": ("TEXT", True, None, False),
        "last_active_at": ("TEXT", True, None, False),
    },
    "memories": {
        "id": ("INTEGER", False, None, True),
        "thread_id": ("TEXT", False, None, False),
        "content": ("TEXT", True, None, False),
        "memory_type": ("TEXT", True, None, False),
        "source": ("TEXT", False, None, False),
        "created_at": ("TEXT", True, None, False),
        # Added by a later migration, with defaults.
        "subject": ("TEXT", False, None, False),
        "occurred_at": ("TEXT", False, None, False),
        "document": ("TEXT", False, None, False),
        "expires_at": ("TEXT", False, None, False),
    },
    "global_prompts": {
        "id": ("INTEGER", False, None, True),
        "name": ("TEXT", True, None, False),
        "content": ("TEXT", True, None, False),
        "is_active": ("INTEGER", False, "1", False),
        "priority": ("INTEGER", False, "0", False),
        "created_at": ("TEXT", True, None, False),
    },
    "audit_log": {
        "id": ("INTEGER", False, None, True),
        "timestamp": ("TEXT", True, None, False),
        "event": ("TEXT", True, None, False),
        "provider": ("TEXT", False, None, False),
        "source_ip": ("TEXT", False, None, False),
        "source_app": ("TEXT", False, None, False),
        "details": ("TEXT", False, None, False),
    },
    "sessions": {
        "id": ("TEXT", True, None, True),
        "session_key": ("TEXT", True, None, False),
        "agent_id": ("TEXT", True, "'default'", False),
        "model": ("TEXT", True, None, False),
        "created_at": ("TEXT", True, None, False),
        "last_active_at": ("TEXT", True, None, False),
    },
    "messages": {
        "id": ("INTEGER", False, None, True),
        "session_id": ("TEXT", True, None, False),
        "role": ("TEXT", True, None, False),
        "content": ("TEXT", True, None, False),
        "created_at": ("TEXT", True, None, False),
        "token_count": ("INTEGER", False, None, False),
    },
    "usage_records": {
        "id": ("INTEGER", False, None, True),
        "session_id": ("TEXT", True, None, False),
        "model": ("TEXT", True, None, False),
        "input_tokens": ("INTEGER", True, None, False),
        "output_tokens": ("INTEGER", True, None, False),
        "total_tokens": ("INTEGER", True, None, False),
        "cost": ("REAL", True, None, False),
        "timestamp": ("TEXT", True, None, False),
    },
}


@pytest.fixture
def file(home: Home) -> apsw.Connection:
    """The store as another program sees it: plain SQLite, without sqlite-vec."""
    return another_program(file_of(home))


def test_s1_sqlite_vec_answers_its_version_on_a_python_without_loadable_extensions(home: Home) -> None:
    assert home.repository.versions()["sqlite-vec"].startswith("v0.1")


def test_s2_the_journal_is_a_write_ahead_log_before_the_first_table_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from soulkeep.repository import sqlite

    modes: list[str] = []

    def watched(database: Database, **_: object) -> None:
        assert database.execute("SELECT count(*) FROM sqlite_master") == [(0,)]
        modes.append(database.execute("PRAGMA journal_mode")[0][0])
        schema.bootstrap(database)

    monkeypatch.setattr(sqlite, "bootstrap", watched)
    sqlite.SqliteRepository(tmp_path / "new.db").close()

    assert modes == ["wal"]


@pytest.mark.parametrize("table", COLUMNS)
def test_s3_to_s6_each_table_has_exactly_the_columns_asked_for(
    table: str, file: apsw.Connection
) -> None:
    found = {
        name: (kind, bool(not_null), default, bool(key))
        for _, name, kind, not_null, default, key in file.execute(f"PRAGMA table_info({table})")
    }

    assert found == COLUMNS[table]


@pytest.mark.parametrize(
    "table", ["memories", "global_prompts", "audit_log", "messages", "usage_records"]
)
def test_s4_to_s6_integer_ids_are_never_used_twice(table: str, file: apsw.Connection) -> None:
    (sql,) = next(file.execute("SELECT sql FROM sqlite_master WHERE name = ?", (table,)))

    assert "AUTOINCREMENT" in sql


def test_s3_and_s5_defaults_are_not_archived_active_and_priority_zero(file: apsw.Connection) -> None:
    file.execute(
        "INSERT INTO threads (id, title, created_at, last_active_at) VALUES ('t', 'T', 'now', 'now')"
    )
    file.execute("INSERT INTO global_prompts (name, content, created_at) VALUES ('n', 'c', 'now')")

    assert list(file.execute("SELECT archived FROM threads")) == [(0,)]
    assert list(file.execute("SELECT is_active, priority FROM global_prompts")) == [(1, 0)]


def test_s4_a_program_that_knows_only_the_asked_for_columns_adds_a_memory_that_recall_finds(
    make_home: Callable[..., Home], file: apsw.Connection
) -> None:
    file.execute(
        "INSERT INTO memories (content, memory_type, created_at)"
        " VALUES ('The lighthouse is closed.', 'fact', '2026-03-01T00:00:00.000Z')"
    )
    lexical = make_home(embedder="none")

    (match,) = lexical.memories.recall("lighthouse").matches

    assert match.memory.thread_id is None
    assert match.memory.source is None


def test_s5_prompts_come_highest_priority_first(home: Home) -> None:
    for name, priority in (("low", -1), ("high", 10), ("middle", 5)):
        home.prompts.add_prompt(name, "Be kind.", priority)

    assert [prompt.name for prompt in home.prompts.list_prompts()] == ["high", "middle", "low"]


def test_s6_session_keys_are_unique_and_messages_and_usage_belong_to_sessions(
    file: apsw.Connection,
) -> None:
    file.execute("PRAGMA foreign_keys = ON")
    insert = (
        "INSERT INTO sessions (id, session_key, model, created_at, last_active_at)"
        " VALUES (?, ?, '', '', '')"
    )
    file.execute(insert, ("one", "key"))

    with pytest.raises(apsw.ConstraintError, match="session_key"):
        file.execute(insert, ("two", "key"))
    with pytest.raises(apsw.ConstraintError, match="FOREIGN KEY"):
        file.execute(
            "INSERT INTO messages (session_id, role, content, created_at) VALUES ('x', '', '', '')"
        )
    with pytest.raises(apsw.ConstraintError, match="FOREIGN KEY"):
        file.execute("INSERT INTO usage_records VALUES (NULL, 'x', '', 0, 0, 0, 0, '')")
    assert list(file.execute("SELECT agent_id FROM sessions WHERE id = 'one'")) == [("default",)]


def test_s6_messages_are_written_and_read_in_order_and_in_pages(
    home: Home, file: apsw.Connection
) -> None:
    thread = home.threads.create_thread("Greetings")
    said = [NewMessage("user", "Hello"), NewMessage("assistant", "Hi"), NewMessage("user", "Bye")]
    home.messages.save(thread.id, said)

    last = home.messages.list_messages(thread.id, limit=2)
    first = home.messages.list_messages(thread.id, limit=2, before=last.messages[0].id)

    read = [(message.role, message.content) for message in (*first.messages, *last.messages)]
    assert read == [(message.role, message.content) for message in said]
    query = "SELECT role, content FROM messages WHERE token_count > 0 ORDER BY id"
    assert file.execute(query).fetchall() == read


def test_s7_the_vector_table_is_made_by_the_asked_for_statement_to_the_letter(
    file: apsw.Connection,
) -> None:
    assert VEC_DDL.replace("TABLE ", "TABLE IF NOT EXISTS ") == schema.VEC_MEMORIES
    (sql,) = next(file.execute("SELECT sql FROM sqlite_master WHERE name = 'vec_memories'"))
    assert sql.replace("IF NOT EXISTS ", "") == VEC_DDL


@pytest.mark.embedder
def test_s7_a_vector_is_the_embedding_padded_with_zeros_under_the_memorys_id(home: Home) -> None:
    (receipt,) = home.memories.remember([NewMemory("The cat is called Miso.")])

    ((blob,),) = database_of(home).execute(
        "SELECT content_embedding FROM vec_memories WHERE memory_id = ?", (receipt.id,)
    )

    assert len(blob) == 1536 * 4
    dimensions = int(home.indexes.embedder_identity.split(":")[1])
    assert any(blob[4 * dimensions - 4 : 4 * dimensions])
    assert not any(blob[4 * dimensions :])


def test_s8_one_module_holds_the_definition_of_every_table(file: apsw.Connection) -> None:
    made = {name for (name,) in file.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    statements = " ".join(statement for step in schema.STEPS for statement in step)
    shadows = ("sqlite_", "vec_memories_", "memories_fts_", "messages_fts_")

    for name in made:
        assert name.startswith(shadows) or f" {name} " in statements


@pytest.mark.parametrize(
    ("name", "title", "sections"),
    [
        (
            "SOUL.md",
            "# Agent Identity",
            ["Core Values", "Communication Style", "Learned Preferences", "Boundaries"],
        ),
        (
            "MEMORY.md",
            "# Long-Term Memory",
            ["User Facts", "Project Context", "Preferences", "Important Decisions"],
        ),
    ],
)
def test_s9_and_s10_the_originals_have_the_asked_for_title_and_sections(
    name: str, title: str, sections: list[str], home: Home
) -> None:
    lines = (home.path / name).read_text(encoding="utf-8").splitlines()

    assert lines[0] == title
    assert [line[3:] for line in lines if line.startswith("## ")] == sections


def test_s10_the_memory_document_ends_with_its_footer(home: Home) -> None:
    text = (home.path / "MEMORY.md").read_text(encoding="utf-8")

    assert text.endswith("---\n*Last updated: (auto-updated by memory curator)*\n")


def test_s11_the_folder_of_daily_logs_is_in_the_checkout_and_in_a_home(home: Home) -> None:
    assert (Path(__file__).parents[1] / "memory_files" / "daily" / ".gitkeep").is_file()
    assert (home.path / "daily").is_dir()


def test_s12_one_bootstrap_makes_all_tables_and_running_it_again_keeps_what_is_there(
    make_home: Callable[..., Home],
) -> None:
    first = make_home()
    thread = first.threads.create_thread("Old and new")
    first.memories.remember([NewMemory("One bootstrap.", thread_id=thread.id)])
    before = first.repository.count_rows()

    second = make_home()

    assert second.repository.count_rows() == before
    assert set(COLUMNS) | {"vectors", "full-text entries"} == set(before)
    assert second.check() == []


def test_s12_old_and_new_tables_work_together_in_one_transaction(home: Home) -> None:
    session = home.sessions.open("claude")
    thread = home.threads.create_thread("Together", session=session)
    home.memories.remember([NewMemory("A fact.", thread_id=thread.id)], session)

    rows = database_of(home).execute(
        "SELECT a.event, s.agent_id FROM audit_log AS a JOIN sessions AS s ON s.agent_id = a.source_app"
        " WHERE s.id = ? ORDER BY a.id",
        (session.id,),
    )

    assert rows == [("thread.created", "claude"), ("memory.stored", "claude")]
