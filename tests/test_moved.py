"""A store that is moved, deleted or replaced under a running server: nothing acknowledged is lost."""

import shutil
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from conftest import TickingClock
from engine import another_program, file_of
from soulkeep.app import open_home
from soulkeep.engines import STORE_NAME
from soulkeep.errors import (
    HomeGoneError,
    NotAStoreError,
    StoreCorruptError,
    StoreError,
    StoreGoneError,
    StoreNotWritableError,
    StoreReplacedError,
)
from soulkeep.models import NewMemory
from soulkeep.service.home import Home
from wire import Wire


@pytest.fixture
def home(make_home: Callable[..., Home]) -> Home:
    return make_home(embedder="none")


def keep(home: Home, content: str) -> int:
    (receipt,) = home.memories.remember([NewMemory(content)])
    return receipt.id


def contents(home: Home) -> list[str]:
    return [memory.content for memory in home.lifecycle.list_memories()]


def contents_of(store: Path) -> list[str]:
    """What a file holds for who opens it anew."""
    connection = another_program(store)
    found = [row[0] for row in connection.execute("SELECT content FROM memories ORDER BY id")]
    connection.close()
    return found


def files_of(home: Home) -> list[Path]:
    return sorted(home.path.glob(f"{STORE_NAME}*"))


def copied(home: Home, target: Path) -> Path:
    """A copy of the store, whole in one file."""
    source = another_program(file_of(home))
    source.execute("VACUUM INTO ?", (str(target),))
    source.close()
    return target


def move_store(home: Home, target: Path) -> None:
    file_of(home).rename(target)


def move_store_and_log(home: Home, target: Path) -> None:
    for path in files_of(home):
        path.rename(target.with_name(path.name.replace(STORE_NAME, target.name)))


def delete_store(home: Home, target: Path) -> None:
    file_of(home).unlink()


def delete_store_and_log(home: Home, target: Path) -> None:
    for path in files_of(home):
        path.unlink()


def rename_home(home: Home, target: Path) -> None:
    home.path.rename(home.path.with_name("elsewhere"))


@pytest.mark.parametrize(
    "go", [move_store, move_store_and_log, delete_store, delete_store_and_log, rename_home]
)
def test_what_would_be_lost_is_refused_and_nothing_is_answered_from_what_is_gone(
    home: Home, tmp_path: Path, go: Callable[[Home, Path], None]
) -> None:
    keep(home, "The lighthouse is closed.")
    go(home, tmp_path / "moved.db")

    with pytest.raises(StoreGoneError, match=r"moved or deleted.*put it back, or restart"):
        keep(home, "Into nowhere.")
    with pytest.raises(StoreGoneError):
        home.memories.recall("lighthouse")
    with pytest.raises(StoreGoneError):
        home.lifecycle.list_memories()
    assert not file_of(home).exists()
    home.close()


def test_what_was_kept_until_then_is_whole_where_the_store_was_moved_to(
    home: Home, tmp_path: Path
) -> None:
    texts = [f"Fact {n}." for n in range(20)]
    for text in texts:
        keep(home, text)
    move_store(home, tmp_path / "moved.db")

    with pytest.raises(StoreGoneError):
        keep(home, "Into nowhere.")

    assert contents_of(tmp_path / "moved.db") == texts
    assert files_of(home) == []


@pytest.mark.parametrize("move", [move_store, move_store_and_log])
def test_a_store_that_is_moved_back_goes_on(
    home: Home, tmp_path: Path, move: Callable[[Home, Path], None]
) -> None:
    keep(home, "Before.")
    move(home, tmp_path / "moved.db")
    with pytest.raises(StoreGoneError):
        keep(home, "Meanwhile.")

    for path in sorted(tmp_path.glob("moved.db*")):
        path.rename(home.path / path.name.replace("moved.db", STORE_NAME))
    keep(home, "After.")

    assert contents(home) == ["After.", "Before."]
    assert home.check() == []
    home.close()
    assert contents_of(file_of(home)) == ["Before.", "After."]


def test_a_home_that_is_renamed_and_named_back_goes_on(home: Home) -> None:
    keep(home, "Before.")
    elsewhere = home.path.with_name("elsewhere")
    home.path.rename(elsewhere)
    with pytest.raises(StoreGoneError):
        keep(home, "Meanwhile.")
    with pytest.raises(HomeGoneError, match="moved or deleted"):
        home.documents.append_daily("Meanwhile.")
    with pytest.raises(HomeGoneError, match="moved or deleted"):
        home.documents.edit("MEMORY.md", lambda text: text + "Meanwhile.")
    with pytest.raises(HomeGoneError, match="moved or deleted"):
        home.documents.read("SOUL.md")
    with pytest.raises(StoreError):
        home.backups.make("meanwhile")
    assert not home.path.exists()

    elsewhere.rename(home.path)
    keep(home, "After.")
    home.curator.log_day("After.")

    assert contents(home) == ["After.", "Before."]
    assert "Meanwhile" not in "".join(p.read_text("utf-8") for p in home.path.rglob("*.md"))


def test_a_copy_that_is_put_in_place_is_opened_and_nothing_of_the_former_one_shows(
    home: Home, tmp_path: Path
) -> None:
    keep(home, "The lighthouse is closed.")
    copy = copied(home, tmp_path / "copy.db")
    keep(home, "The lighthouse is open again.")
    assert len(home.memories.recall("lighthouse").matches) == 2

    copy.replace(file_of(home))

    assert [m.memory.content for m in home.memories.recall("lighthouse").matches] == [
        "The lighthouse is closed."
    ]
    keep(home, "The harbour too.")
    assert home.check() == []
    home.close()
    assert contents_of(file_of(home)) == ["The lighthouse is closed.", "The harbour too."]


@pytest.mark.embedder("universal")
def test_vectors_of_the_former_file_are_forgotten(
    make_home: Callable[..., Home], tmp_path: Path
) -> None:
    home = make_home()
    keep(home, "The ferry leaves at nine.")
    copy = copied(home, tmp_path / "copy.db")
    other = another_program(copy)
    keep(home, "Bread is baked at dawn.")
    assert home.memories.recall("loaf").matches
    # As many memories as here, and another one in the second place.
    with_other = open_home(tmp_path / "second", clock=TickingClock())
    with_other.close()
    other.close()
    shutil.copy2(copy, tmp_path / "second" / STORE_NAME)
    with_other = open_home(tmp_path / "second", clock=TickingClock())
    keep(with_other, "A glacier is melting.")
    with_other.close()

    (tmp_path / "second" / STORE_NAME).replace(file_of(home))

    found = home.memories.recall("ice").matches
    assert {m.memory.content for m in found} == {"The ferry leaves at nine.", "A glacier is melting."}
    assert found[0].memory.content == "A glacier is melting."


def test_another_store_is_not_taken_for_this_one(
    home: Home, make_home: Callable[..., Home], tmp_path: Path
) -> None:
    keep(home, "Mine.")
    with closing(open_home(tmp_path / "other", embedder="none")) as other:
        keep(other, "Yours.")
        foreign = copied(other, tmp_path / "foreign.db")
    before = foreign.read_bytes()
    file_of(home).rename(tmp_path / "mine.db")
    foreign.replace(file_of(home))

    with pytest.raises(StoreReplacedError, match="put the former one"):
        keep(home, "Into whose?")
    with pytest.raises(StoreReplacedError):
        home.memories.recall("mine")
    home.close()

    assert file_of(home).read_bytes() == before
    assert contents_of(tmp_path / "mine.db") == ["Mine."]
    restarted = make_home(embedder="none")
    assert contents(restarted) == ["Yours."]


def test_a_new_empty_store_of_another_process_is_not_taken_for_this_one(
    home: Home, make_home: Callable[..., Home], tmp_path: Path
) -> None:
    keep(home, "Mine.")
    for path in files_of(home):
        path.unlink()
    fresh = make_home(embedder="none")
    keep(fresh, "New.")

    with pytest.raises(StoreReplacedError):
        keep(home, "Into whose?")
    home.close()

    assert contents(fresh) == ["New."]
    keep(fresh, "Newer.")
    fresh.close()
    assert contents_of(file_of(fresh)) == ["New.", "Newer."]


@pytest.mark.parametrize(
    "garbage", [b"", b"no database\n", bytes(4096), b"SQLite format 3\0" + bytes(84)]
)
def test_what_is_no_store_is_refused_and_keeps_its_bytes(
    home: Home, tmp_path: Path, garbage: bytes
) -> None:
    keep(home, "Mine.")
    (tmp_path / "garbage").write_bytes(garbage)
    (tmp_path / "garbage").replace(file_of(home))

    for _ in range(2):
        with pytest.raises((NotAStoreError, StoreReplacedError, StoreCorruptError)):
            keep(home, "Into what?")
        with pytest.raises((NotAStoreError, StoreReplacedError, StoreCorruptError)):
            home.lifecycle.list_memories()
    home.close()

    assert file_of(home).read_bytes() == garbage


def test_a_folder_in_the_stores_place_is_refused(home: Home, tmp_path: Path) -> None:
    keep(home, "Mine.")
    file_of(home).rename(tmp_path / "mine.db")
    file_of(home).mkdir()

    with pytest.raises(NotAStoreError):
        keep(home, "Into what?")


def test_a_deleted_log_costs_nothing_that_was_kept(home: Home) -> None:
    for n in range(5):
        keep(home, f"Fact {n}.")
    for suffix in ("-wal", "-shm"):
        (home.path / (STORE_NAME + suffix)).unlink()

    keep(home, "Fact 5.")

    assert contents(home) == [f"Fact {n}." for n in reversed(range(6))]
    home.close()
    assert contents_of(file_of(home)) == [f"Fact {n}." for n in range(6)]


def test_what_is_moved_in_the_middle_of_a_write_takes_nothing_along(home: Home, tmp_path: Path) -> None:
    keep(home, "Before.")

    def write_and_move() -> None:
        with home.repository.transaction():
            home.repository.vectors.retry_pending()
            move_store(home, tmp_path / "moved.db")

    with pytest.raises(StoreGoneError):
        write_and_move()

    move_back = tmp_path / "moved.db"
    move_back.rename(file_of(home))
    keep(home, "After.")
    assert contents(home) == ["After.", "Before."]


def test_after_a_restore_a_copy_of_the_store_is_still_known(home: Home, tmp_path: Path) -> None:
    keep(home, "First.")
    kept = home.backups.make("one", on_demand=True)
    keep(home, "Second.")
    home.backups.restore(kept.id)
    copy = copied(home, tmp_path / "copy.db")
    copy.replace(file_of(home))

    assert contents(home) == ["First."]


def test_a_server_refuses_while_its_store_is_away_and_goes_on_when_it_is_back(tmp_path: Path) -> None:
    wire = Wire(tmp_path / "home", SOULKEEP_EMBEDDER="none")
    store = tmp_path / "home" / STORE_NAME
    try:
        wire.initialize()
        assert not wire.call("remember", content="Before.").get("isError")
        store.rename(tmp_path / "away.db")
        away = [wire.call("remember", content="Away."), wire.call("recall", query="before")]
        (tmp_path / "away.db").rename(store)
        back = wire.call("remember", content="After.")
        _, _, code = wire.finish()
    finally:
        wire.kill()

    assert [answer["isError"] for answer in away] == [True, True]
    assert all("put it back" in answer["content"][0]["text"] for answer in away)
    assert not back.get("isError")
    assert code == 0
    assert contents_of(store) == ["Before.", "After."]


def test_a_home_opened_to_be_read_answers_and_refuses_to_write(home: Home) -> None:
    keep(home, "The lighthouse is closed.")
    home.close()

    reader = open_home(home.path, embedder="none", read_only=True)
    assert len(reader.memories.recall("lighthouse").matches) == 1
    with pytest.raises(StoreNotWritableError, match="opened to be read"):
        keep(reader, "More.")
    reader.close()

    assert contents_of(file_of(home)) == ["The lighthouse is closed."]
