"""A store moves to another embedder by itself, and serves meanwhile with what it has."""

import gzip
import json
import random
import shutil
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from conftest import Run
from engine import another_program, database_of, file_of
from soulkeep.app import open_home
from soulkeep.embedders import Embedded
from soulkeep.embedders.wordllama import WordLlama
from soulkeep.errors import EmbedderUnavailableError, StoreBusyError, UndoConflictError
from soulkeep.models import NewMemory
from soulkeep.service.home import Home
from wire import Wire

pytestmark = [
    pytest.mark.embedder,
    pytest.mark.skipif(find_spec("wordllama") is None, reason="wordllama has no wheel for this Python"),
]

np = pytest.importorskip("numpy")

MakeHome = Callable[..., Home]

FROZEN = Path(__file__).parent / "stores" / "first_release"
IDENTITIES = ("wordllama-l2_supercat-sif:256:unit", "later:256:unit")


class Later(WordLlama):
    """A later model, whose vectors do not compare with the former's; it counts what it embeds."""

    identity = IDENTITIES[1]

    def __init__(self) -> None:
        super().__init__()
        self.embedded: list[str] = []

    def embed(self, texts: Sequence[str]) -> Embedded:
        self.embedded += texts
        return super().embed([text[::-1] for text in texts])


class Broken(Later):
    """A later model with a file that is damaged."""

    def embed(self, texts: Sequence[str]) -> Embedded:
        self.embedded += texts
        raise EmbedderUnavailableError("later", "its file is damaged", "install it again")


@pytest.fixture
def frozen(tmp_path: Path) -> Path:
    """A copy of the home of the first release, whose schema has no place for new vectors."""
    home = tmp_path / "home"
    shutil.copytree(FROZEN, home)
    packed = home / "soulkeep.db.gz"
    (home / "soulkeep.db").write_bytes(gzip.decompress(packed.read_bytes()))
    packed.unlink()
    for path in (home, *home.iterdir()):
        path.chmod(0o700 if path.is_dir() else 0o600)
    return home


def later(home: Home, embedder: Later | None = None) -> Later:
    """Set another embedder than that of the store."""
    home.indexes.configured = embedder or Later()
    return home.indexes.configured


def kept(home: Home) -> dict[int, str]:
    found = home.repository.memories.list_by_ids(range(1, 1_000))
    return {memory.id: memory.content for memory in found.values()}


def vectors(home: Home) -> dict[int, bytes]:
    return dict(database_of(home).execute("SELECT memory_id, content_embedding FROM vec_memories"))


def made(home: Home) -> dict[int, bytes]:
    return dict(database_of(home).execute("SELECT * FROM next_vectors"))


def ids_of(found: Any) -> list[int]:
    return [match.memory.id for match in found.matches]


def test_a_store_of_the_last_release_serves_before_during_and_after(
    frozen: Path, make_home: MakeHome, tmp_path: Path
) -> None:
    shutil.copytree(frozen, tmp_path / "reindexed")
    home = make_home()
    later(home)
    before, former = kept(home), vectors(home)
    question = "What must the children not have at dinner?"
    found = home.memories.recall(question)
    steps = 0
    while home.reembedding.step():
        steps += 1
        recall = home.memories.recall(question)
        assert ids_of(recall) == ids_of(found)
        assert recall.mode == "hybrid"
        (remark,) = recall.remarks
        assert f"{min(20 * steps, 40)} of 40 memories have their new vectors" in remark
        assert vectors(home) == former
        assert home.check() == []

    other = make_home("reindexed")
    later(other)
    other.indexes.reindex()
    assert (steps, len(before), len(former)) == (2, 40, 40)
    assert kept(home) == before
    assert vectors(home) == vectors(other) != former
    assert home.repository.vectors.recorded_embedder() == IDENTITIES[1]
    assert (home.check(), made(home)) == ([], {})
    recall = home.memories.recall(question)
    assert (recall.mode, recall.remarks) == ("hybrid", ())
    assert [b.label for b in home.backups.list_backups()] == ["before migration from schema 5"]


def test_each_memory_is_embedded_once_and_the_newest_first(frozen: Path, make_home: MakeHome) -> None:
    home = make_home()
    embedder = later(home)
    home.reembedding.step()
    (newest,) = home.lifecycle.list_memories(limit=1)

    assert len(made(home)) == 20
    assert newest.id in made(home)
    assert min(made(home)) > min(kept(home).keys() - made(home).keys()) - 20
    home.reembedding.move()
    assert len(embedder.embedded) < 2 * 40
    assert vectors(home).keys() == kept(home).keys()


@pytest.mark.parametrize("embedder", ["none", "wordllama", "universal"])
def test_an_open_process_follows_when_another_one_lets_the_new_vectors_serve(
    frozen: Path, make_home: MakeHome, embedder: str
) -> None:
    home, other = make_home(embedder="universal"), make_home(embedder=embedder)
    question = "Are screens allowed at the table?"
    before = other.memories.recall(question)
    home.reembedding.move()
    other.memories.remember([NewMemory("Kept by the other process.")])
    after = other.memories.recall(question)

    assert before.mode == after.mode == ("lexical" if embedder == "none" else "hybrid")
    assert after.remarks == ()
    assert "No screens at the table." in [match.memory.content for match in after.matches]
    if embedder == "none":
        assert "use-multilingual-v3" in after.advice
    home.memories.recall(question)
    assert vectors(home).keys() == kept(home).keys()
    assert home.check() == other.check() == []


def test_a_long_memory_is_embedded_by_itself(frozen: Path, make_home: MakeHome) -> None:
    home = make_home()
    later(home)
    texts = ["The newest, a short one.", "Long. " * 10_000, "Before it."]
    ids = [r.id for r in home.memories.remember([NewMemory(text) for text in reversed(texts)])]

    sizes = [len(made(home)) for _ in range(3) if home.reembedding.step()]

    assert sizes == [1, 2, 22]
    assert set(ids) <= made(home).keys()


def test_calls_of_other_threads_meet_no_half_of_it(frozen: Path, make_home: MakeHome) -> None:
    home = make_home()
    later(home)
    home.memories.remember([NewMemory(f"Parcel {n} is in shed {n % 7}.") for n in range(100)])
    question, ended = "What must the children not have at dinner?", threading.Event()
    (first, *_) = ids_of(home.memories.recall(question))

    def ask() -> list[tuple[str, int]]:
        seen: list[tuple[str, int]] = []
        while not ended.is_set():
            recall = home.memories.recall(question)
            seen.append((recall.mode, ids_of(recall)[0]))
            home.memories.remember([NewMemory(f"Kept beside it: {len(seen)} {threading.get_ident()}.")])
        return seen

    with ThreadPoolExecutor(3) as pool:
        asking = [pool.submit(ask) for _ in range(3)]
        home.reembedding.move()
        ended.set()
        seen = {answer for future in asking for answer in future.result()}

    assert seen == {("hybrid", first)}
    home.memories.recall(question)
    assert home.check() == []
    assert vectors(home).keys() == kept(home).keys()
    assert home.repository.vectors.list_pending(10) == {}


def test_a_step_that_another_writer_holds_up_is_written_later_and_not_embedded_again(
    frozen: Path, make_home: MakeHome
) -> None:
    home = make_home()
    embedder = later(home)
    with closing(another_program(file_of(home))) as blocker:
        blocker.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreBusyError):
            home.reembedding.step()
        count = len(embedder.embedded)
        blocker.execute("ROLLBACK")

    assert home.reembedding.step()
    assert (len(made(home)), len(embedder.embedded)) == (20, count)


def test_what_is_changed_while_its_text_is_embedded_is_embedded_again(
    frozen: Path, make_home: MakeHome
) -> None:
    home, other = make_home(), make_home()
    (newest,) = other.lifecycle.list_memories(limit=1)

    class Slow(Later):
        def embed(self, texts: Sequence[str]) -> Embedded:
            if not self.embedded:
                other.lifecycle.forget([newest.id])
                other.memories.remember([NewMemory("Kept while others were embedded.")])
            return super().embed(texts)

    later(home, Slow())
    home.reembedding.step()
    assert newest.id not in made(home)
    home.reembedding.move()

    assert vectors(home).keys() == kept(home).keys()
    assert home.check() == []


def test_a_set_that_another_embedder_began_is_made_anew(frozen: Path, make_home: MakeHome) -> None:
    class Third(Later):
        identity = "third:256:unit"

    home, other = make_home(), make_home()
    later(home)
    later(other, Third())
    home.reembedding.step()
    other.reembedding.step()

    assert home.repository.next_vectors.count("later:256:unit")[0] == 0
    assert len(made(home)) == 20
    other.reembedding.move()
    home.reembedding.move()  # begun from the first embedder: it does not undo the other's work
    assert home.repository.vectors.recorded_embedder() == "third:256:unit"
    recall = home.memories.recall("tram")
    assert recall.mode == "lexical"
    assert (
        "another SOULKEEP_EMBEDDER, left the store with vectors of third:256:unit" in recall.remarks[0]
    )
    assert home.reembedding.progress() is None


def test_going_back_before_all_is_done_leaves_the_former_vectors(
    frozen: Path, make_home: MakeHome
) -> None:
    home = make_home(embedder="wordllama")
    later(home)
    former = vectors(home)
    home.reembedding.step()
    home = make_home(embedder="wordllama")

    assert (home.reembedding.progress(), home.reembedding.announcement()) == (None, "")
    home.reembedding.move()
    assert vectors(home) == former
    later(home)
    assert home.indexes.reindex() == 40
    assert made(home) == {}
    home.indexes.configured = WordLlama()
    again = make_home(embedder="wordllama")
    again.reembedding.move()
    assert vectors(again) == former


@pytest.mark.parametrize("former", ["none:0:none", "former:128:unit"])
def test_where_the_former_embedder_is_not_to_be_had_words_serve_until_all_is_done(
    frozen: Path, make_home: MakeHome, former: str
) -> None:
    with closing(another_program(frozen / "soulkeep.db")) as store:
        store.execute("UPDATE store_facts SET value = ? WHERE name = 'embedder'", (former,))
    home = make_home()
    if former.startswith("none"):
        database_of(home).execute("DELETE FROM vec_memories_rowids")
        home.repository.next_vectors.take_over(former)
    home.memories.remember([NewMemory("The tram to the sea is number one.")])
    recall = home.memories.recall("tram")

    assert (recall.mode, len(recall.matches) > 0) == ("lexical", True)
    (remark,) = recall.remarks
    assert "by words alone: 0 of 41 memories" in remark
    assert "soulkeep reembed" in remark
    assert "until then search is by words alone" in home.reembedding.announcement()
    home.reembedding.move()
    assert home.memories.recall("tram").mode == "hybrid"
    assert vectors(home).keys() == kept(home).keys()
    assert (home.check(), home.repository.vectors.list_pending(10)) == ([], {})


def test_without_an_embedder_nothing_is_moved(frozen: Path, make_home: MakeHome) -> None:
    home = make_home(embedder="none")
    former = vectors(home)
    home.reembedding.move()

    assert home.reembedding.remarks() == []
    assert (vectors(home), made(home)) == (former, {})


def test_a_process_that_ends_does_not_wait_for_a_long_embedding(
    frozen: Path,
    make_home: MakeHome,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr("soulkeep.service.upkeep.CLOSE_S", 0.0)
    began, go_on = threading.Event(), threading.Event()

    class Slow(Later):
        def embed(self, texts: Sequence[str]) -> Embedded:
            began.set()
            go_on.wait(20)
            return super().embed(texts)

    home = make_home()
    later(home, Slow())
    home.serve()
    home.background.start()
    assert began.wait(20)
    home.close()
    go_on.set()
    thread = home.background._embedding._thread
    assert thread
    thread.join(20)

    assert not thread.is_alive()
    assert caplog.records == []
    assert made(make_home()) == {}


def test_a_broken_embedder_is_said_once_and_the_former_serves_until_it_is_mended(
    frozen: Path, make_home: MakeHome, caplog: pytest.LogCaptureFixture
) -> None:
    home = make_home()
    broken = later(home, Broken())
    home.serve()
    home.background.start()
    assert home.background._embedding.wait(20)

    (line,) = (record.getMessage() for record in caplog.records)
    assert line.startswith("new vectors are not made until the next start: ")
    assert "its file is damaged" in line
    assert broken.embedded
    assert home.memories.recall("tram").mode == "hybrid"
    home.memories.remember([NewMemory("The tram is late.")])
    home = make_home()
    later(home)
    home.reembedding.move()
    assert vectors(home).keys() == kept(home).keys()


def test_a_purge_erases_the_vectors_to_come_too(frozen: Path, make_home: MakeHome) -> None:
    home = make_home()
    later(home)
    (receipt,) = home.memories.remember([NewMemory("The vault opens with a zanzibar quokka.")])
    home.reembedding.step()
    pieces = made(home)[receipt.id][:64], vectors(home)[receipt.id][:64]
    files = [path for path in home.path.iterdir() if path.name.startswith("soulkeep.db")]
    assert all(any(piece in path.read_bytes() for path in files) for piece in pieces)

    assert home.purges.purge([receipt.id]).is_final

    files = [path for path in home.path.rglob("*") if path.is_file()]
    assert not any(piece in path.read_bytes() for path in files for piece in (*pieces, b"zanzibar"))
    home.reembedding.move()
    assert home.check() == []


def test_check_and_reindex_know_the_vectors_to_come(frozen: Path, make_home: MakeHome) -> None:
    home = make_home()
    later(home)
    home.reembedding.step()
    with home.repository.transaction():
        database_of(home).execute("INSERT INTO next_vectors VALUES (9999, x'00')")

    (fault,) = home.check()
    assert fault.detail == "1 vector to come has no memory"
    assert "soulkeep reindex" in fault.remedy
    home.repairs.repair()
    assert (home.check(), made(home)) == ([], {})
    assert home.repository.vectors.recorded_embedder() == "later:256:unit"


def test_a_backup_of_a_store_on_its_way_goes_on_where_it_was(frozen: Path, make_home: MakeHome) -> None:
    home = make_home()
    later(home)
    home.reembedding.step()
    backup = home.backups.make("half way", on_demand=True)
    home.reembedding.move()
    home.close()
    home.backups.restore(backup.id)

    home = make_home()
    embedder = later(home)
    assert len(made(home)) == 20
    home.reembedding.move()
    assert len(set(embedder.embedded)) <= 20 + 3
    assert vectors(home).keys() == kept(home).keys()
    assert home.check() == []


CHANGES: Sequence[Callable[[Home, random.Random], object]] = (
    lambda home, dice: home.memories.remember([NewMemory(f"Number {dice.random()} was drawn.")]),
    lambda home, dice: home.lifecycle.forget([_any(home, dice)]),
    lambda home, dice: home.lifecycle.revise(_any(home, dice), f"It is {dice.random()} now."),
    lambda home, dice: home.lifecycle.move([_any(home, dice)], None),
    lambda home, dice: home.lifecycle.move([_any(home, dice)], home.threads.create_thread("New").id),
    lambda home, dice: _undo_the_last(home),
    lambda home, dice: home.curator.add_entry("User Facts", f"Has {dice.random()} pens."),
    lambda home, dice: _delete_a_thread(home, dice),
)


def _any(home: Home, dice: random.Random) -> int:
    own = [memory.id for memory in home.lifecycle.list_memories(limit=100) if memory.document is None]
    return dice.choice(own)


def _undo_the_last(home: Home) -> None:
    with suppress(UndoConflictError):
        home.changes.undo(home.changes.list_changes(limit=1)[0].id)


def _delete_a_thread(home: Home, dice: random.Random) -> None:
    if threads := home.threads.list_threads():
        home.threads.delete(dice.choice(threads).id, memories=dice.choice(["global", "forget"]))


@pytest.mark.parametrize(
    "seeds", [range(2), pytest.param(range(2, 60), marks=pytest.mark.campaign)], ids=["few", "many"]
)
def test_changes_while_it_moves_are_in_the_new_vectors(
    frozen: Path, tmp_path: Path, seeds: Sequence[int]
) -> None:
    for seed in seeds:
        dice = random.Random(seed)  # noqa: S311 - repeatable changes
        shutil.copytree(frozen, tmp_path / f"home{seed}")
        with closing(open_home(tmp_path / f"home{seed}")) as home:
            embedder = later(home)
            home.memories.recall("tram")
            for _ in range(12):
                dice.choice(CHANGES)(home, dice)
                home.memories.recall("tram")
                assert home.check() == []
                home.reembedding.step()
            home.reembedding.move()
            home.memories.recall("tram")
            assert home.repository.vectors.recorded_embedder() == IDENTITIES[1]
            assert (home.check(), made(home)) == ([], {})
            _assert_own_vectors(home, embedder)


def _assert_own_vectors(home: Home, embedder: Later) -> None:
    """Assert that each memory has the vector of its own text, perhaps turned by the one before."""
    rows = vectors(home)
    memories = home.repository.memories.list_by_ids(list(rows))
    texts = [f"{m.subject}: {m.content}" if m.subject else m.content for m in memories.values()]
    assert rows.keys() == kept(home).keys()
    for memory_id, own in zip(memories, embedder.embed(texts).embeddings, strict=True):
        cosine = np.frombuffer(own, "<f4") @ np.frombuffer(rows[memory_id], "<f4", 256)
        assert cosine > 0.85, memories[memory_id]


def test_doctor_and_stats_say_how_far_it_is_without_a_fault(
    frozen: Path, run: Run, make_home: MakeHome
) -> None:
    with closing(make_home()) as home:
        database_of(home).execute(
            "UPDATE store_facts SET value = 'former:128:unit' WHERE name = 'embedder'"
        )
        home.reembedding.step()
        identity = home.indexes.embedder_identity

    _, doctor, _ = run("doctor")
    code, out, _ = run("doctor", "--json")
    progress = {"embedder": identity, "made": 20, "memories": 40}
    assert (code, json.loads(out)["new_vectors"], json.loads(out)["faults"]) == (0, progress, [])
    assert "20 of 40 memories have their new vectors" in doctor
    assert "Everything is in order." in doctor
    assert json.loads(run("stats", "--json")[1])["new_vectors"] == progress
    assert "20 of 40 memories" in run("stats")[1]
    assert "20 of 40 memories" in run("recall", "tram")[1]


@pytest.fixture
def serve(frozen: Path) -> Iterator[Callable[[], Wire]]:
    """Starts servers on the frozen home, made larger, whose embedder is not to be had any more."""
    with closing(open_home(frozen, embedder="wordllama")) as home:
        home.memories.remember([NewMemory(f"Parcel {n} is in shed {n % 7}.") for n in range(160)])
        database_of(home).execute(
            "UPDATE store_facts SET value = 'former:128:unit' WHERE name = 'embedder'"
        )
    started: list[Wire] = []

    def start() -> Wire:
        started.append(Wire(frozen, SOULKEEP_EMBEDDER="wordllama"))
        started[-1].initialize()
        return started[-1]

    yield start
    for wire in started:
        wire.kill()


def ask(wire: Wire, method: str, **params: Any) -> Any:
    """Return the result of a request; what the server tells of meanwhile is passed over."""
    wire.last_id += 1
    wire.send(method, params, id=wire.last_id)
    while (reply := wire.receive()).get("id") != wire.last_id:
        pass
    return reply["result"]


def call(wire: Wire, tool: str, **arguments: Any) -> Any:
    return ask(wire, "tools/call", name=tool, arguments=arguments)


def figures(wire: Wire) -> Any:
    return json.loads(ask(wire, "resources/read", uri="soulkeep://stats")["contents"][0]["text"])


def wait_until_moved(wire: Wire) -> Any:
    for _ in range(10_000):
        found = figures(wire)
        if found["new_vectors"] is None:
            return found
    raise AssertionError(found)


def uses(found: Any) -> int:
    return sum(use["uses"] for use in found["usage"] if use["model"] == IDENTITIES[0])


def test_a_home_of_the_last_release_finds_by_meaning_once_the_default_embedder_has_read_it(
    frozen: Path,
) -> None:
    question = "Which food could make me sick?"
    wire = Wire(frozen, SOULKEEP_EMBEDDER="auto")
    try:
        wire.initialize()
        answer = call(wire, "recall", query=question)["structuredContent"]
        assert (answer["mode"], len(answer["matches"]) > 1) == ("hybrid", True)
        call(wire, "remember", content="A parcel came while the vectors were made.")
        wait_until_moved(wire)
        answer = call(wire, "recall", query=question)["structuredContent"]
        assert "peanuts" in answer["matches"][0]["content"]
        assert "remarks" not in answer
        _, err, code = wire.finish()
    finally:
        wire.kill()

    (line,) = err.splitlines()
    assert "40 memories get new vectors from minilm" in line
    assert "until then search uses the former ones" in line
    assert code == 0
    with closing(open_home(frozen)) as home:
        home.memories.recall("parcel")
        assert home.check() == []
        assert vectors(home).keys() == kept(home).keys()
        assert len(kept(home)) == 41
        assert "store.reembedded" in {entry.event for entry in home.statistics.list_log()}


def test_an_embedder_that_cannot_be_loaded_keeps_no_other_one_from_serving(
    frozen: Path, make_home: MakeHome, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = make_home()
    later(home)

    def damaged(self: WordLlama) -> None:
        if self.identity == IDENTITIES[0]:
            raise EmbedderUnavailableError("wordllama", "its file is damaged", "install it again")

    monkeypatch.setattr(WordLlama, "load", damaged)
    recall = home.memories.recall("tram")
    assert (recall.mode, "its file is damaged" in recall.advice) == ("lexical", True)
    assert "by words alone: 0 of 40" in recall.remarks[0]
    home.reembedding.move()

    recall = home.memories.recall("tram")
    assert (recall.mode, recall.advice, recall.remarks) == ("hybrid", "", ())


def test_of_two_servers_on_a_home_one_makes_the_vectors(serve: Callable[[], Wire]) -> None:
    before = uses(figures(first := serve()))
    second = serve()
    found = wait_until_moved(second)
    assert wait_until_moved(first)["new_vectors"] is None

    assert uses(found) <= before + 10
    assert first.finish()[2] == second.finish()[2] == 0


@pytest.mark.parametrize("kills", [2, pytest.param(60, marks=pytest.mark.campaign)])
def test_killed_at_any_moment_it_goes_on_where_it_was(
    frozen: Path, serve: Callable[[], Wire], kills: int
) -> None:
    with closing(open_home(frozen, embedder="none")) as home:
        texts, done = kept(home), 0
    dice = random.Random(kills)  # noqa: S311 - repeatable moments
    for _ in range(kills):
        wire = serve()
        killer = threading.Timer(dice.uniform(0, 0.25), wire.process.kill)
        killer.start()
        killer.join()
        wire.process.wait()
        with closing(open_home(frozen, embedder="wordllama")) as home:
            assert (home.check(), kept(home)) == ([], texts)
            progress = home.reembedding.progress()
            assert progress is None or (progress.made >= done and progress.made % 20 == 0)
            done = progress.made if progress else 200
            if progress is None:
                assert vectors(home).keys() == texts.keys()
                # So that the next ones have something to do as well.
                database_of(home).execute(
                    "UPDATE store_facts SET value = 'former:128:unit' WHERE name = 'embedder'"
                )
                done = 0
    wire = serve()
    wait_until_moved(wire)
    assert wire.finish()[2] == 0
    with closing(open_home(frozen, embedder="wordllama")) as home:
        assert (home.check(), kept(home), made(home)) == ([], texts, {})
        assert vectors(home).keys() == texts.keys()
