"""Keeping memories and bringing them back, without a server."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from conftest import TickingClock
from engine import by_another_program, database_of, store_of
from soulkeep.embedders.wordllama import WordLlama
from soulkeep.errors import (
    InvalidInputError,
    MemoryNotFoundError,
    StoreError,
    ThreadNotFoundError,
)
from soulkeep.models import Memory, NewMemory, Vector
from soulkeep.repository.values import padded
from soulkeep.service.callers import Receipt
from soulkeep.service.home import Home


def keep(home: Home, content: str, thread_id: str | None = None, memory_type: str = "fact") -> Receipt:
    (receipt,) = home.memories.remember([NewMemory(content, memory_type, thread_id)])
    return receipt


def contents(home: Home, query: str, **filters: object) -> list[str]:
    return [match.memory.content for match in home.memories.recall(query, **filters).matches]  # type: ignore[arg-type]


def test_an_empty_store_answers_with_an_empty_list(home: Home) -> None:
    assert home.memories.recall("anything").matches == ()


def test_a_memory_comes_back_as_it_was_kept(home: Home) -> None:
    thread = home.threads.create_thread("Pets")
    (receipt,) = home.memories.remember(
        [NewMemory("The cat is called Miso.", "preference", thread.id, "user_input")]
    )

    (match,) = home.memories.recall("cat").matches

    assert match.memory == Memory(
        id=receipt.id,
        thread_id=thread.id,
        content="The cat is called Miso.",
        memory_type="preference",
        source="user_input",
        created_at=match.memory.created_at,
        subject=None,
        occurred_at=match.memory.created_at,
    )
    assert match.memory.created_at.startswith("2026-03-01T12:00:")
    assert match.memory.created_at.endswith("Z")
    assert home.lifecycle.get_memory(receipt.id) == match.memory


@pytest.mark.embedder
def test_a_question_that_shares_no_word_with_the_answer_finds_it_by_meaning(home: Home) -> None:
    for content in (
        "The dog is afraid of thunder.",
        "Salary arrives on the last working day of each month.",
        "Python code is formatted with four spaces.",
    ):
        keep(home, content)

    recall = home.memories.recall("When do I get paid?")

    assert recall.mode == "hybrid"
    assert recall.matches[0].memory.content.startswith("Salary")
    assert [m.score for m in recall.matches] == sorted((m.score for m in recall.matches), reverse=True)


def test_a_rare_word_finds_its_memory_among_many_similar_ones(home: Home) -> None:
    home.memories.remember(
        [NewMemory(f"Invoice {number} was sent to a customer.") for number in range(50)]
    )
    keep(home, "Invoice XQ-7731 was sent to a customer.")

    assert contents(home, "What about XQ-7731?", limit=1) == ["Invoice XQ-7731 was sent to a customer."]


def test_with_a_thread_its_own_memories_and_the_global_ones_are_searched(home: Home) -> None:
    one, two = home.threads.create_thread("One"), home.threads.create_thread("Two")
    for thread_id, content in ((one.id, "Tea in one."), (two.id, "Tea in two."), (None, "Tea for all.")):
        keep(home, content, thread_id)

    assert sorted(contents(home, "tea", thread_id=one.id)) == ["Tea for all.", "Tea in one."]
    assert len(contents(home, "tea")) == 3


@pytest.mark.embedder("universal")
def test_a_filter_never_returns_fewer_than_exist(home: Home) -> None:
    thread = home.threads.create_thread("Rare")
    for batch in range(3):
        home.memories.remember([NewMemory(f"Common words {batch} {n}.", "fact") for n in range(100)])
    home.memories.remember([NewMemory(f"Other things {n}.", "decision", thread.id) for n in range(20)])

    assert len(contents(home, "common words", memory_type="decision", limit=20)) == 20
    assert len(contents(home, "common words", memory_type="decision", limit=100)) == 20
    assert len(contents(home, "common words", limit=100)) == 100


def test_dates_limit_what_is_found_and_are_inclusive(home: Home, clock: TickingClock) -> None:
    for day in (1, 2, 3):
        clock.now = clock.now.replace(day=day, hour=12, minute=0, second=0)
        keep(home, f"Note of day {day}.")

    assert sorted(contents(home, "note", since="2026-03-02")) == ["Note of day 2.", "Note of day 3."]
    assert sorted(contents(home, "note", until="2026-03-02")) == ["Note of day 1.", "Note of day 2."]
    assert contents(home, "note", since="2026-03-02", until="2026-03-02") == ["Note of day 2."]
    assert contents(home, "note", since="2026-03-03T13:00:00+02:00") == ["Note of day 3."]
    assert contents(home, "note", since="2026-03-03T14:30:00+02:00") == []


def test_an_exact_duplicate_in_the_same_scope_is_not_written_again(home: Home) -> None:
    thread = home.threads.create_thread("Scope")
    first = keep(home, "Same words.")
    before = home.repository.count_rows()["audit_log"]

    again = keep(home, "Same words.")

    assert (again.id, again.stored) == (first.id, False)
    assert home.repository.count_rows()["memories"] == 1
    assert home.repository.count_rows()["audit_log"] == before
    assert keep(home, "Same words.", thread.id).stored
    assert keep(home, "same words.").stored
    assert keep(home, "Same words.", memory_type="decision").stored


def test_long_texts_that_differ_only_at_the_end_are_no_duplicates(home: Home) -> None:
    start = "x" * 5_000

    assert keep(home, start + "a").stored
    assert keep(home, start + "b").stored
    assert not keep(home, start + "a").stored


@pytest.mark.embedder
def test_a_receipt_shows_the_most_similar_memories_and_merges_none(home: Home) -> None:
    old = keep(home, "The user likes tabs more than spaces.")
    keep(home, "The dog is afraid of thunder.")

    receipt = keep(home, "The user prefers tabs over spaces.")

    assert receipt.stored
    assert receipt.similar
    assert receipt.similar[0].memory.id == old.id
    assert receipt.similar[0].similarity is not None
    assert 0.6 < receipt.similar[0].similarity <= 1
    assert home.repository.count_rows()["memories"] == 3


def test_a_long_list_is_kept_with_its_duplicates_told_and_no_search_for_similar_ones(
    home: Home,
) -> None:
    old = keep(home, "Note 7 is about the harbour.")
    texts = [f"Note {number} is about the harbour." for number in (*range(30), 3)]

    receipts = home.memories.remember([NewMemory(text) for text in texts])

    assert [receipt.stored for receipt in receipts] == [
        n != 7 and i < 30 for i, n in enumerate((*range(30), 3))
    ]
    assert receipts[7].id == old.id
    assert receipts[30].id == receipts[3].id
    assert {receipt.similar for receipt in receipts} == {None}
    contents = home.repository.memories.list_by_ids([receipt.id for receipt in receipts])
    assert [contents[receipt.id].content for receipt in receipts] == texts
    assert home.check() == []


def test_a_list_is_kept_whole_or_not_at_all(home: Home) -> None:
    with pytest.raises(InvalidInputError):
        home.memories.remember([NewMemory("Good."), NewMemory(" ")])
    with pytest.raises(ThreadNotFoundError):
        home.memories.remember([NewMemory("Good."), NewMemory("Lost.", thread_id="nowhere")])

    assert home.repository.count_rows()["memories"] == 0


def test_a_long_list_for_a_thread_that_does_not_exist_names_it_and_changes_nothing(home: Home) -> None:
    thread = home.threads.create_thread("Work")
    threads = [thread.id, None, "nowhere", "elsewhere"] * 10
    memories = [NewMemory(f"Note {n}.", thread_id=each) for n, each in enumerate(threads)]

    with pytest.raises(ThreadNotFoundError, match="nowhere"):
        home.memories.remember(memories)

    assert home.repository.count_rows()["memories"] == 0
    assert home.threads.get_thread(thread.id) == thread
    assert [change.action for change in home.changes.list_changes()] == ["thread.created"]


def test_a_long_list_keeps_its_order_and_every_character(home: Home) -> None:
    texts = ["null", "12", '["a"]', 'A "quote" \\ \\u0041', "Tab\tand\r\nline", "Zoë 🏳️‍🌈 \u2028"]
    texts += [f"Note {number}." for number in reversed(range(30))]
    receipts = home.memories.remember([NewMemory(t, subject=t[:9].split("\n")[0]) for t in texts])

    ids = [receipt.id for receipt in receipts]
    kept = home.repository.memories.list_by_ids(ids)
    assert ids == list(range(ids[0], ids[0] + len(texts)))
    assert [kept[i].content for i in ids] == texts
    assert [receipt.id for receipt in home.memories.remember([NewMemory(t) for t in texts])] != ids
    again = home.memories.remember([NewMemory(t, subject=t[:9].split("\n")[0]) for t in texts])
    assert [(receipt.id, receipt.stored) for receipt in again] == [(i, False) for i in ids]


def test_a_list_that_fails_in_the_middle_of_writing_leaves_nothing(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = store_of(home)._vectors
    original = table.add_vectors

    def failing(memory_ids: list[int], vectors: list[Vector | None]) -> None:
        original(memory_ids[:2], vectors[:2])
        raise OSError

    monkeypatch.setattr(table, "add_vectors", failing)
    with pytest.raises(OSError):  # noqa: PT011
        home.memories.remember([NewMemory("First."), NewMemory("Second."), NewMemory("Third.")])

    counts = home.repository.count_rows()
    assert counts["memories"] == counts["vectors"] == counts["full-text entries"] == 0
    assert home.check() == []


def test_a_list_that_repeats_itself_stores_the_text_once(home: Home) -> None:
    first, second = home.memories.remember([NewMemory("Twice."), NewMemory("Twice.")])

    assert (first.stored, second.stored) == (True, False)
    assert first.id == second.id


def test_remembering_in_a_thread_moves_its_last_activity(home: Home) -> None:
    thread = home.threads.create_thread("Active")

    keep(home, "Something happened.", thread.id)

    assert home.repository.threads.get_thread(thread.id).last_active_at > thread.last_active_at


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ('"quoted', True),
        ("tea*", True),
        ("tea AND OR NOT", True),
        ("NEAR(tea", True),
        ("-tea", True),
        ("content:tea", True),
        ("tea^2 {}()[]:;'", True),
        ("???", True),
        ("🍵", True),
    ],
)
@pytest.mark.embedder
def test_the_syntax_of_full_text_search_is_plain_text_in_a_query(
    query: str, found: bool, home: Home
) -> None:
    keep(home, "The tea is quoted at two euros.")

    assert bool(home.memories.recall(query).matches) is found


def test_a_memory_that_does_not_exist_is_a_typed_error(home: Home) -> None:
    with pytest.raises(MemoryNotFoundError) as raised:
        home.lifecycle.get_memory(7)

    assert raised.value.memory_id == 7


def test_without_an_embedder_words_alone_are_searched_and_the_answer_says_so(
    make_home: Callable[..., Home],
) -> None:
    home = make_home(embedder="none")
    keep(home, "The cat is called Miso.")
    receipt = keep(home, "The cat sleeps.")

    recall = home.memories.recall("Miso")

    assert recall.mode == "lexical"
    assert [match.memory.content for match in recall.matches] == ["The cat is called Miso."]
    assert [(s.memory.id, s.similarity) for s in receipt.similar or ()] == [(1, None)]
    assert home.memories.recall("pet name").matches == ()
    assert home.repository.count_rows()["vectors"] == 0
    assert home.check() == []


@pytest.mark.embedder
def test_reindexing_gives_every_memory_its_vector_back(make_home: Callable[..., Home]) -> None:
    lexical = make_home(embedder="none")
    lexical.memories.remember([NewMemory(f"Memory {n}.") for n in range(100)])
    keep(lexical, "Salary arrives on the last working day.")
    home = make_home()

    assert home.indexes.reindex() == 101

    assert home.check() == []
    assert contents(home, "When do I get paid?", limit=1) == ["Salary arrives on the last working day."]


@pytest.mark.embedder("universal")
def test_threads_of_one_process_may_remember_and_recall_at_once(home: Home) -> None:
    def work(number: int) -> int:
        receipt = keep(home, f"Written by worker {number}.")
        home.memories.recall(f"worker {number}")
        return receipt.id

    with ThreadPoolExecutor(8) as pool:
        ids = list(pool.map(work, range(40)))

    assert len(set(ids)) == 40
    assert home.repository.count_rows()["vectors"] == 40
    assert home.check() == []


class Held:
    """A lock that says when it is wanted, and is given only when it may be."""

    def __init__(self) -> None:
        self.wanted, self.may_go = threading.Event(), threading.Event()

    def __enter__(self) -> None:
        self.wanted.set()
        assert self.may_go.wait(60)

    def __exit__(self, *_: object) -> None:
        pass


@pytest.mark.embedder("universal")
def test_a_recall_waits_for_no_other_whose_search_by_words_is_held_up(
    make_home: Callable[..., Home], monkeypatch: pytest.MonkeyPatch
) -> None:
    held, other = make_home("held"), make_home("other")
    for home in (held, other):
        keep(home, "The lighthouse is closed.")
    lock = Held()
    monkeypatch.setattr(store_of(held)._memories.frequencies, "_lock", lock)

    with ThreadPoolExecutor(2) as pool:
        waiting = pool.submit(contents, held, "lighthouse")
        assert lock.wanted.wait(60)
        try:
            found = pool.submit(contents, other, "lighthouse").result(60)
            assert not waiting.done()
        finally:
            lock.may_go.set()
        assert waiting.result(60) == ["The lighthouse is closed."]

    assert found == ["The lighthouse is closed."]


@pytest.mark.embedder("universal")
def test_a_damaged_index_of_words_is_told_although_vectors_would_answer(home: Home) -> None:
    keep(home, "The lighthouse is closed.")
    assert contents(home, "lighthouse") == ["The lighthouse is closed."]
    by_another_program(home, "DELETE FROM memories_fts_data")

    with pytest.raises(StoreError, match="doctor --repair"):
        home.memories.recall("lighthouse")


@pytest.mark.embedder("auto")
@pytest.mark.parametrize("with_vector", [False, True])
def test_a_memory_that_another_program_added_is_found_by_meaning(with_vector: bool, home: Home) -> None:
    keep(home, "The dog is afraid of thunder.")
    database = database_of(home)
    by_another_program(
        home,
        "INSERT INTO memories (content, memory_type, created_at)"
        " VALUES ('Salary arrives on the last working day.', 'fact', '2026-03-01T00:00:00.000Z')",
    )
    if with_vector:  # as a soulkeep of an earlier schema does
        (vector,) = WordLlama().embed(["Salary arrives on the last working day."]).embeddings
        database.execute("INSERT INTO vec_memories VALUES (2, ?)", (padded(vector),))

    assert contents(home, "When do I get paid?", limit=1) == ["Salary arrives on the last working day."]
    assert home.check() == []


@pytest.mark.embedder
def test_a_memory_says_who_it_is_about_and_when_it_happened(home: Home) -> None:
    home.memories.remember(
        [
            NewMemory("Moved to Lisbon.", subject="Anna", occurred_at="2024-05-08"),
            NewMemory("Moved to Lisbon.", "decision", subject="Ben", occurred_at="2025-06-01T10:00:00Z"),
        ]
    )

    (first, _) = home.memories.recall("When did Anna move to Lisbon?").matches

    assert (first.memory.subject, first.memory.occurred_at) == ("Anna", "2024-05-08T00:00:00.000Z")
    assert first.reasons["subject"] > 0
    assert len(contents(home, "Lisbon", since="2025-01-01")) == 1
    (dated, _) = home.memories.recall("What happened in June 2025?").matches
    assert dated.memory.subject == "Ben"
    assert dated.reasons["date"] > 0
    with pytest.raises(InvalidInputError, match="occurred_at"):
        home.memories.remember([NewMemory("Sometime.", occurred_at="last spring")])


@pytest.mark.embedder
def test_nothing_relevant_can_be_told_from_the_best_of_a_bad_lot(home: Home) -> None:
    keep(home, "The cat is called Miso.")
    keep(home, "Salary arrives on the last working day.")

    good = home.memories.recall("What is the cat called?").matches[0].relevance
    bad = max((m.relevance for m in home.memories.recall("quantum chromodynamics").matches), default=0.0)

    assert good > 0.9
    assert bad < 0.5


@pytest.mark.parametrize("moment", ["", "now", "2026-03-01 12:00:00", "1 March", "\U0001f375"])
def test_a_row_with_a_date_that_is_none_is_found_and_spoils_nothing(moment: str, home: Home) -> None:
    by_another_program(
        home,
        "INSERT INTO memories (content, memory_type, created_at) VALUES ('The lighthouse.', 'fact', ?)",
        (moment,),
    )

    assert contents(home, "lighthouse yesterday") == ["The lighthouse."]
    assert keep(home, "Another one.").stored
    home.indexes.reindex()
    assert home.check() == []


def test_in_a_large_store_what_has_two_of_the_words_is_found_before_what_has_the_rarest_alone(
    make_home: Callable[..., Home], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("soulkeep.search.questions.MAX_OCCURRENCES", 50)
    home = make_home(embedder="none")
    texts = ["Ada wrote note {}."] * 100 + ["The harbour at {}."] * 120 + ["Nothing of {}."] * 700
    home.memories.remember([NewMemory(text.format(n)) for n, text in enumerate(texts)])
    home.memories.remember([NewMemory("It was Ada, or so I heard, who first sailed from the harbour.")])

    assert "sailed" in contents(home, "Ada harbour")[0]
    assert "sailed" in contents(home, "Ada harbour heard")[0]
    # A word that no memory has leaves the others as they are.
    assert "sailed" in contents(home, "Ada harbour lighthouse")[0]
    assert "wrote" in contents(home, "Ada lighthouse")[0]
    assert len(contents(home, "Ada harbour", limit=100)) == 100
    assert home.memories.recall("Ada harbour", memory_type="decision").matches == ()
