"""A store with vectors of another embedder serves by words, loses nothing and says so."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from mcp import Client

from conftest import Run
from engine import database_of
from soulkeep.app import build_server
from soulkeep.embedders import Embedded
from soulkeep.embedders.wordllama import WordLlama
from soulkeep.errors import EmbedderMismatchError
from soulkeep.models import NewMemory
from soulkeep.service.home import Home
from wire import Wire

pytestmark = pytest.mark.embedder

MakeHome = Callable[..., Home]


def keep(home: Home, content: str, **fields: str) -> int:
    (receipt,) = home.memories.remember([NewMemory(content, **fields)])
    return receipt.id


def contents(home: Home, query: str) -> list[str]:
    return [match.memory.content for match in home.memories.recall(query).matches]


def vectors(home: Home) -> set[int]:
    rows = database_of(home).execute("SELECT rowid FROM vec_memories_rowids")
    return {row[0] for row in rows}


@pytest.mark.embedder("auto")
def test_a_store_with_vectors_serves_by_words_where_there_is_no_embedder(make_home: MakeHome) -> None:
    first = keep(make_home(), "The ferry leaves at nine.")
    home = make_home(embedder="none")

    second = keep(home, "The ferry returns at noon.")
    home.curator.add_entry("User Facts", "Takes the ferry.")
    recall = home.memories.recall("ferry")

    assert {m.memory.content for m in recall.matches} == {
        "The ferry leaves at nine.",
        "The ferry returns at noon.",
        "Takes the ferry.",
    }
    assert recall.mode == "lexical"
    assert "no embedder is in use now; the user can start it as before" in recall.advice
    assert "or run `soulkeep reindex`, which deletes them" in recall.advice
    assert vectors(home) == {first}
    assert home.check() == []
    with pytest.raises(EmbedderMismatchError, match="soulkeep reindex") as raised:
        home.indexes.require_embedder()
    assert raised.value.stored.startswith("minilm")
    assert second not in vectors(home)


def test_what_was_kept_meanwhile_is_embedded_once_its_embedder_is_back(make_home: MakeHome) -> None:
    keep(make_home(), "Bread is baked at dawn.")
    lexical = make_home(embedder="none")
    thread = lexical.threads.create_thread("Sea").id
    kept = keep(lexical, "The ferry leaves at nine.", thread_id=thread)
    gone = keep(lexical, "Forgotten at once.")
    lexical.lifecycle.forget([gone])
    moved = keep(lexical, "A glacier is melting.")
    lexical.lifecycle.move([moved], thread)

    home = make_home()
    recall = home.memories.recall("When does the boat depart?")

    assert (recall.mode, recall.advice) == ("hybrid", "")
    assert {kept, moved} <= vectors(home)
    assert gone not in vectors(home)
    assert any(m.reasons.get("semantic") for m in recall.matches if m.memory.id == kept)
    assert home.check() == []
    assert home.repository.vectors.list_pending(10) == {}


def test_a_store_begun_without_an_embedder_serves_by_words_until_it_is_indexed(
    make_home: MakeHome,
) -> None:
    keep(make_home(embedder="none"), "The ferry leaves at nine.")
    home = make_home()

    keep(home, "The ferry returns at noon.")
    recall = home.memories.recall("ferry")

    assert (recall.mode, len(recall.matches)) == ("lexical", 2)
    assert recall.advice == ""
    assert "by words alone: 0 of 2 memories have their new vectors" in recall.remarks[0]
    assert "`soulkeep reembed`" in recall.remarks[0]
    assert vectors(home) == set()
    assert home.check() == []

    assert home.indexes.reindex() == 2
    assert home.memories.recall("boat").mode == "hybrid"
    assert vectors(home) == {1, 2}
    assert home.check() == []


def test_an_open_server_follows_a_reindexing_of_another_process(make_home: MakeHome) -> None:
    home, other = make_home(), make_home(embedder="none")
    keep(home, "The ferry leaves at nine.")
    assert home.memories.recall("ferry").mode == "hybrid"

    other.indexes.reindex()

    assert home.memories.recall("ferry").mode == "lexical"
    keep(home, "The ferry returns at noon.")
    assert vectors(home) == set()
    assert home.check() == []
    home.indexes.reindex()
    assert home.memories.recall("ferry").mode == "hybrid"
    assert other.memories.recall("ferry").mode == "lexical"


class _Later(WordLlama):
    """A later model of the same width, whose vectors do not compare with the former's."""

    identity = "later:256:unit"

    def embed(self, texts: list[str]) -> Embedded:  # type: ignore[override]
        return super().embed([text[::-1] for text in texts])


@pytest.mark.embedder("auto")
def test_vectors_of_two_embedders_never_meet(make_home: MakeHome) -> None:
    keep(make_home(), "The ferry leaves at nine.")
    home = make_home()
    home.indexes.configured = _Later()

    keep(home, "The ferry returns at noon.")
    receipt = home.memories.remember([NewMemory("A ferry sank.")])[0]

    assert home.memories.recall("ferry").mode == "hybrid"
    assert all(s.similarity is not None for s in receipt.similar or ())
    assert home.repository.vectors.recorded_embedder() == "minilm-l6-v2+use-multilingual-v3:896:unit"
    home.indexes.reindex()
    receipt = home.memories.remember([NewMemory("A ferry burned.")])[0]
    assert all(s.similarity is not None for s in receipt.similar or ())
    assert home.repository.vectors.recorded_embedder() == "later:256:unit"
    assert vectors(home) == {1, 2, 3, 4}
    other = make_home()
    receipt = other.memories.remember([NewMemory("A ferry was found.")])[0]
    assert other.memories.recall("ferry").mode == "lexical"
    assert [s.similarity for s in receipt.similar or ()] == [None] * len(receipt.similar or ())
    assert vectors(home) == {1, 2, 3, 4}


@pytest.mark.parametrize(("begun", "served"), [("none", "auto"), ("auto", "none")])
async def test_the_answer_says_what_to_do_in_both_channels(
    make_home: MakeHome, mode: str, begun: str, served: str
) -> None:
    keep(make_home(embedder=begun), "The ferry leaves at nine.")
    async with Client(build_server(make_home(embedder=served)), mode=mode, cache=None) as client:
        for query in ("ferry", "Nothing of this"):
            answer = await client.call_tool("recall", {"query": query})
            remedy = "soulkeep reembed" if begun == "none" else "soulkeep reindex"
            assert remedy in answer.content[0].text  # type: ignore[union-attr]
            assert remedy in json.dumps(answer.structured_content)


def test_the_server_starts_and_says_on_stderr_what_to_do(run: Run, tmp_path: Path) -> None:
    run("remember", "With a vector.")
    wire = Wire(tmp_path / "home", SOULKEEP_EMBEDDER="none")
    try:
        wire.initialize()
        _, err, code = wire.finish()
    finally:
        wire.kill()

    assert code == 0
    assert len(err.splitlines()) == 1
    assert "search is by words alone" in err
    assert "soulkeep reindex" in err
