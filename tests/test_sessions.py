"""Sessions, usage records and the audit log: who did what, and never what it said."""

import json

import pytest

from conftest import Run
from engine import another_program, database_of, file_of
from soulkeep.models import NewMemory, Usage
from soulkeep.service.home import Home


def rows(home: Home, sql: str) -> list[tuple[object, ...]]:
    return database_of(home).execute(sql)


def test_each_connection_has_a_session_of_its_own_whatever_name_its_client_gives(home: Home) -> None:
    opened = [home.sessions.open(name) for name in ("claude", "cursor", "claude")]

    assert len({session.id for session in opened}) == 3
    assert home.sessions.current() == home.sessions.current()
    assert rows(home, "SELECT agent_id FROM sessions ORDER BY rowid") == [
        ("soulkeep",),  # what put the documents in the new home
        ("claude",),
        ("cursor",),
        ("claude",),
    ]


def test_a_client_without_a_name_is_the_default_agent_and_a_long_name_is_cut(home: Home) -> None:
    assert home.sessions.open("").agent_id == home.sessions.open("  ").agent_id == "default"
    assert home.sessions.open("x" * 500).agent_id == "x" * 100


@pytest.mark.embedder
def test_each_embedding_call_leaves_a_usage_record_that_costs_nothing(home: Home) -> None:
    session = home.sessions.open("claude")
    home.memories.remember([NewMemory("The cat is called Miso.")], session)
    home.memories.recall("pet", session=session)

    records = rows(
        home,
        "SELECT session_id, model, input_tokens > 0, output_tokens, total_tokens = input_tokens, cost"
        " FROM usage_records",
    )

    assert records == [(session.id, home.indexes.embedder_identity, 1, 0, 1, 0.0)] * 2
    assert home.statistics.usage_totals().input_tokens > 2


def test_a_cost_that_nobody_knows_is_null_and_so_is_each_sum_with_it(home: Home, run: Run) -> None:
    session = home.sessions.open("claude")
    for usage in (Usage("a", 5, cost=0.25), Usage("b", 5, cost=None), Usage("b", 5, cost=0.5)):
        home.sessions.record(session, usage)

    by_model = {usage.model: usage.cost for usage in home.repository.ledger.usage_by_model()}
    log = json.loads(run("log", "--event", "model", "--json")[1])
    doctor = json.loads(run("doctor", "--json")[1])

    assert by_model == {"a": 0.25, "b": None}
    assert home.statistics.usage_totals().cost is None
    assert sorted(str(entry["details"]["cost"]) for entry in log["log"]) == ["0.25", "0.5", "None"]
    assert doctor["usage"]["cost"] is None
    assert "$ unknown" in run("doctor")[1]
    assert "$0.25" in run("stats")[1]


def test_each_change_leaves_an_audit_row_without_what_was_said(home: Home) -> None:
    session = home.sessions.open("claude")
    thread = home.threads.create_thread("Secret title", "Secret prompt.", session)
    home.memories.remember([NewMemory("Secret words.", thread_id=thread.id)], session)
    prompt = home.prompts.add_prompt("Secret name", "Secret content.", session=session)
    home.prompts.change_prompt(prompt.id, content="Secret change.", session=session)
    home.prompts.remove_prompt(prompt.id, session)
    home.indexes.reindex(session)

    log = rows(home, "SELECT event, source_app, details FROM audit_log ORDER BY id")

    assert [event for event, _, _ in log] == [
        "documents.seeded",
        "thread.created",
        "memory.stored",
        "prompt.created",
        "prompt.changed",
        "prompt.removed",
        "store.reindexed",
    ]
    assert {app for _, app, _ in log[1:]} == {"claude"}
    assert "ecret" not in json.dumps(log)
    assert json.loads(str(log[2][2])) == {
        "memory_id": 1,
        "memory_type": "fact",
        "thread_id": thread.id,
        "characters": 13,
    }


def test_a_session_records_when_it_was_last_active(home: Home) -> None:
    session = home.sessions.open("claude")
    home.threads.create_thread("Later", session=session)

    ((created, active),) = rows(
        home, "SELECT created_at, last_active_at FROM sessions WHERE agent_id = 'claude'"
    )

    assert str(active) > str(created)


@pytest.mark.embedder
def test_recall_does_not_wait_for_another_writer_and_loses_no_usage(home: Home) -> None:
    home.memories.remember([NewMemory("The cat is called Miso.")])
    before = home.repository.count_rows()["usage_records"]
    blocker = another_program(file_of(home))
    blocker.execute("BEGIN IMMEDIATE")

    assert len(home.memories.recall("cat").matches) == 1

    assert home.repository.count_rows()["usage_records"] == before
    blocker.execute("ROLLBACK")
    home.sessions.flush()
    assert home.repository.count_rows()["usage_records"] == before + 1
    assert list(home.sessions.unwritten) == []


def test_closing_a_home_writes_what_was_not_written_yet(home: Home) -> None:
    blocker = another_program(file_of(home))
    blocker.execute("BEGIN IMMEDIATE")
    home.sessions.record(home.sessions.current(), Usage("model", 7))
    blocker.execute("ROLLBACK")

    home.close()

    assert list(blocker.execute("SELECT model, input_tokens FROM usage_records")) == [("model", 7)]


def test_closing_a_home_beside_a_writer_that_does_not_end_still_closes(
    home: Home,
) -> None:
    blocker = another_program(file_of(home))
    blocker.execute("BEGIN IMMEDIATE")
    home.sessions.record(home.sessions.current(), Usage("model", 7))

    home.close()

    blocker.execute("ROLLBACK")
    assert list(blocker.execute("SELECT count(*) FROM usage_records")) == [(0,)]


def test_a_clients_first_recall_does_not_wait_for_another_writer_either(home: Home) -> None:
    blocker = another_program(file_of(home))
    blocker.execute("BEGIN IMMEDIATE")

    session = home.sessions.open("claude")
    assert home.memories.recall("anything", session=session).matches == ()

    blocker.execute("ROLLBACK")
    home.sessions.close()
    assert rows(home, "SELECT id FROM sessions WHERE agent_id = 'claude'") == [(session.id,)]


def test_a_client_that_calls_itself_soulkeep_does_not_share_the_command_lines_session(
    home: Home,
) -> None:
    assert home.sessions.open("soulkeep").id != home.sessions.current().id


def test_bookkeeping_that_cannot_be_written_is_logged_and_fails_no_call(
    home: Home, caplog: pytest.LogCaptureFixture
) -> None:
    home.memories.remember([NewMemory("The cat is called Miso.")])
    database_of(home).execute("PRAGMA query_only = ON")

    assert len(home.memories.recall("cat").matches) == 1

    database_of(home).execute("PRAGMA query_only = OFF")
    if home.indexes.vectors_expected:
        assert "usage was not recorded" in caplog.text
