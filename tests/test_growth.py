"""What grows with use has a bound: rows, records in memory, and the memory that long texts take."""

from collections.abc import Callable, Sequence
from datetime import UTC

import pytest

from engine import another_program, database_of, file_of, store_of
from soulkeep.days import Days
from soulkeep.embedders import choose_embedder, wordllama
from soulkeep.embedders.meaning import MAX_NEAR, MAX_WORDS, Meaning
from soulkeep.embedders.wordllama import MAX_CHARACTERS, WordLlama
from soulkeep.models import Memory, NewMemory, NewMessage, Usage
from soulkeep.repository.sqlite.indexes import KEPT_CHANGES
from soulkeep.service import indexes
from soulkeep.service.callers import MAX_WAITING
from soulkeep.service.home import Home
from soulkeep.service.memories import WordCache


def number(home: Home, sql: str, *values: object) -> int:
    return int(database_of(home).execute(sql, values)[0][0])


def test_old_uses_of_models_are_added_up_and_old_events_go(home: Home) -> None:
    session = home.sessions.open("claude")
    for tokens in range(30):
        home.sessions.record(session, Usage(f"model {tokens % 2}", tokens, cost=0.5))
        home.sessions.record(session, Usage("dear", tokens, cost=None if tokens == 3 else 0.5))
        home.sessions.record(session, ("memory.recalled", {"matches": tokens}))
    before, models = home.statistics.usage_totals(), home.repository.ledger.usage_by_model()

    for _ in range(2):
        with home.repository.transaction():
            home.repository.ledger.drop_old(10)

    after = home.repository.ledger.usage_by_model()
    assert home.statistics.usage_totals() == before
    assert {m.model: (m.input_tokens, m.cost) for m in after} == {
        m.model: (m.input_tokens, m.cost) for m in models
    }
    assert {m.model for m in after if m.cost is None} == {"dear"}
    assert number(home, "SELECT count(*) FROM usage_records") <= 10 + 4
    assert number(home, "SELECT count(*) FROM audit_log") == 10
    assert number(home, "SELECT details ->> 'matches' FROM audit_log ORDER BY id DESC LIMIT 1") == 29


def test_a_process_looks_now_and_then_whether_there_are_too_many_records(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("soulkeep.service.callers.KEPT", 50)
    monkeypatch.setattr("soulkeep.service.callers.LOOKED_EACH", 20)
    home.sessions._until_look = 0
    home.memories.remember([NewMemory("The kettle is green.")])

    for _ in range(200):
        home.memories.recall("kettle")

    for table in ("audit_log", "usage_records"):
        assert 50 <= home.repository.count_rows()[table] <= 80


def test_old_sessions_go_unless_something_belongs_to_them(home: Home) -> None:
    used = home.sessions.open("with usage")
    home.sessions.record(used, Usage("model", 7, cost=0.0))
    thread = home.threads.create_thread("Kitchen").id
    home.messages.save(thread, [NewMessage("user", "Is the kettle green?")])
    emptied = home.threads.create_thread("Cellar").id
    home.messages.save(emptied, [NewMessage("user", "It is dark.")])
    with home.repository.recording():
        home.repository.messages.delete_messages([2])
    latest = [home.sessions.open(f"client {n}").id for n in range(30)][-10:]

    for _ in range(2):
        with home.repository.transaction():
            home.repository.ledger.drop_old(10)

    kept = [row[0] for row in database_of(home).execute("SELECT id FROM sessions")]
    assert set(latest) | {used.id} <= set(kept)
    conversations = "SELECT count(*) FROM sessions WHERE session_key GLOB 'thread:*'"
    assert number(home, conversations) == 2
    assert len(kept) == 10 + 1 + 2
    assert home.check() == []


def test_a_session_that_went_comes_back_when_its_client_calls_again(home: Home) -> None:
    early = home.sessions.open("early")
    for place in range(5):
        home.sessions.open(f"client {place}")
    with home.repository.transaction():
        home.repository.ledger.drop_old(2)
    assert number(home, "SELECT count(*) FROM sessions WHERE id = ?", early.id) == 0

    home.memories.remember([NewMemory("The kettle is green.")], early)
    home.sessions.record(early, Usage("model", 7, cost=0.0))

    assert number(home, "SELECT count(*) FROM sessions WHERE id = ?", early.id) == 1
    assert number(home, "SELECT count(*) FROM usage_records WHERE session_id = ?", early.id) >= 1
    assert home.check() == []


@pytest.mark.parametrize("connections", [1, 400])
def test_each_connection_may_drop_the_sessions_of_many_before_it(
    make_home: Callable[..., Home], monkeypatch: pytest.MonkeyPatch, connections: int
) -> None:
    monkeypatch.setattr("soulkeep.service.callers.KEPT", 50)
    home = make_home(embedder="none")
    for place in range(connections):
        home.sessions.open(f"client {place}")
    home.close()
    again = make_home(embedder="none")
    again.sessions.open("the next")

    assert number(again, "SELECT count(*) FROM sessions") == min(connections + 2, 50)


def test_what_waits_while_another_process_writes_is_bounded_and_the_latest_is_kept(home: Home) -> None:
    session = home.sessions.open("claude")
    blocker = another_program(file_of(home))
    blocker.execute("BEGIN IMMEDIATE")

    for place in range(MAX_WAITING + 500):
        home.sessions.record(session, ("memory.recalled", {"matches": place}))
    assert len(home.sessions.unwritten) == MAX_WAITING
    blocker.execute("ROLLBACK")
    home.sessions.flush()

    assert not home.sessions.unwritten
    kept = "SELECT {}(details ->> 'matches') FROM audit_log WHERE event = 'memory.recalled'"
    assert number(home, kept.format("count")) == MAX_WAITING
    assert (number(home, kept.format("min")), number(home, kept.format("max"))) == (
        500,
        MAX_WAITING + 499,
    )


def test_of_deleted_vectors_only_the_latest_are_named_to_other_processes(home: Home) -> None:
    for begin in (0, 1_500, 3_000):
        with home.repository.transaction():
            store_of(home)._vectors.note_changes(range(begin, begin + 1_500))

    assert number(home, "SELECT count(*) FROM memory_changes") == KEPT_CHANGES
    assert number(home, "SELECT max(memory_id) FROM memory_changes") == 4_499
    home.indexes.reindex()
    assert number(home, "SELECT count(*) FROM memory_changes") <= KEPT_CHANGES


@pytest.mark.parametrize("archived", [False, True, None])
def test_the_latest_threads_are_read_in_the_order_of_an_index(home: Home, archived: bool | None) -> None:
    for place in range(30):
        home.threads.create_thread(f"Thread {place}")

    plan = " ".join(
        str(row)
        for row in database_of(home).execute(
            "EXPLAIN QUERY PLAN SELECT id, title FROM threads WHERE :archived IS NULL"
            " OR (archived IS TRUE) = :archived ORDER BY last_active_at DESC, rowid DESC LIMIT :limit",
            {"archived": archived, "limit": 10},
        )
    )
    assert "threads_by_activity" in plan
    assert "TEMP B-TREE" not in plan
    assert [t.title for t in home.threads.list_threads(3)] == ["Thread 29", "Thread 28", "Thread 27"]
    assert [t.title for t in home.threads.list_threads(2, containing="thread 1")] == [
        "Thread 19",
        "Thread 18",
    ]


def test_words_are_kept_up_to_a_number_of_characters() -> None:
    words = WordCache(Days(UTC), most=1_000)

    def memory(content: str, subject: str | None = None) -> Memory:
        return Memory(1, None, content, "fact", None, "", subject, "2026-05-03T10:00:00Z", None, None)

    for place in range(50):
        found = words.words_of({7: memory(f"{place} green kettles" + " x" * 100)})
        assert {str(place), "green", "kettles"} <= {*found[7]}
        assert words.characters <= 1_000
    long = {1: memory("y" * 5_000, "Tom"), 2: memory("May", "Tom")}
    assert words.words_of(long) == words.words_of(long)
    assert {"tom", "2026"} <= {*words.words_of(long)[2]}
    assert words.characters <= 1_000

    words.release()
    assert words.characters == 0
    assert words.words_of(long)[2] == ("may", *words.words_of(long)[2][1:])


@pytest.mark.embedder
def test_a_model_stays_as_long_as_one_of_the_homes_of_a_process_uses_it(
    make_home: Callable[..., Home], monkeypatch: pytest.MonkeyPatch
) -> None:
    idle, busy = make_home("idle", embedder="auto"), make_home("busy", embedder="auto")
    for home in (idle, busy):
        home.memories.remember([NewMemory("The cat is Miso.")])
        home.memories.recall("How is the pet called?")
    embedder = choose_embedder("auto")
    assert isinstance(embedder, Meaning)

    idle.indexes._used = -indexes.IDLE_S
    idle.memories.rest()
    assert store_of(idle)._scan._codes is None
    assert store_of(busy)._scan._codes is not None
    assert embedder._minilm._model is not None
    monkeypatch.setattr(indexes, "IDLE_S", 0.0)
    idle.memories.rest()  # nobody uses it any more, whoever did last
    assert embedder._minilm._model is None
    assert busy.memories.recall("How is the pet called?").mode == "hybrid"
    assert embedder._minilm._model is not None


@pytest.mark.embedder("auto")
def test_what_a_search_needs_is_given_back_after_long_disuse_and_read_again(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = [receipt.id for receipt in home.memories.remember([NewMemory("The cat is Miso.")])]
    home.indexes.get_ready()
    before = home.memories.recall("How is the pet called?")

    home.memories.rest()
    assert store_of(home)._scan._codes is not None
    assert home.memories._words.characters > 0
    monkeypatch.setattr(indexes, "IDLE_S", 0.0)
    home.memories.rest()

    assert store_of(home)._scan._codes is None
    assert home.memories._words.characters == 0
    embedder = choose_embedder("auto")
    assert isinstance(embedder, Meaning)
    assert embedder._minilm._model is None
    assert embedder._universal._model is None
    after = home.memories.recall("How is the pet called?")
    assert [match.memory.id for match in after.matches] == ids
    assert after.mode == before.mode == "hybrid"
    assert after.matches == before.matches


@pytest.mark.embedder
def test_long_texts_are_turned_into_tokens_a_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    list_tokens = wordllama._Model.list_tokens

    def counted(model: wordllama._Model, texts: Sequence[str]) -> list[list[int]]:
        sizes.append(sum(map(len, texts)))
        return list_tokens(model, texts)

    monkeypatch.setattr(wordllama._Model, "list_tokens", counted)
    texts = [f"{word} " * 8_000 for word in ("tea", "green", "kettle", "boat")] + ["tea"]

    together = WordLlama().embed(texts)
    alone = [WordLlama().embed([text]) for text in texts]

    assert max(sizes) <= MAX_CHARACTERS
    assert together.embeddings == tuple(one.embeddings[0] for one in alone)
    assert together.tokens == sum(one.tokens for one in alone)


@pytest.mark.embedder
def test_the_words_of_long_texts_are_compared_with_a_bounded_matrix() -> None:
    embedder = WordLlama()
    texts = [[f"w{place:x}{number:x}" for number in range(9_000)] + ["cat"] for place in range(12)]
    texts.append(["cats", "boat"])

    strengths = embedder.strengths(["cat"], texts)

    assert [row[0] for row in strengths[:12]] == [1.0] * 12
    assert strengths[12] == pytest.approx(embedder.strengths(["cat"], [texts[12]])[0], abs=1e-6)
    assert 0 < strengths[12][0] < 1
    kept = embedder.strengths._kept
    assert kept is not None
    assert len(kept) <= 2 * MAX_WORDS
    assert MAX_NEAR < 9_000
