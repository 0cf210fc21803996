"""A home is copied between engines, whole or not at all, and goes on where it was cut off."""

import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from pydantic import SecretStr

from conftest import Run
from database_server import new_database
from soulkeep.app import open_home
from soulkeep.errors import StoreError
from soulkeep.models import MemoryFilter, NewMemory, Options, Usage
from soulkeep.repository import Repository
from soulkeep.repository.values import COLUMNS, PLACE
from soulkeep.service.copying import copy_store
from soulkeep.service.home import Home
from test_store_contract import ENGINES, changed, keep, undo, vector

ALL = MemoryFilter()
PAIRS = [
    pytest.param(
        (one, other),
        id=f"{one}-{other}",
        marks=() if one == other == "sqlite" else pytest.mark.postgres,
    )
    for one in ENGINES
    for other in ENGINES
]


@pytest.fixture(params=PAIRS)
def stores(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Repository, Repository]]:
    """A store that holds something of everything, and an empty one."""
    places = [tmp_path / "from", tmp_path / "to"]
    for place in places:
        place.mkdir()
    source, target = (ENGINES[n].open(place) for n, place in zip(request.param, places, strict=True))
    with closing(source), closing(target):
        with closing(open_home(tmp_path / "home", embedder="none")) as home:
            session = home.sessions.current()
        keep(
            source, "One.", NewMemory("Zu\u0308rich 👩‍👩‍👧", subject="Ada"), vectors=[vector(1, 0), None]
        )
        keep(source, *(f"Number {n}." for n in range(2_100)))
        changed(source, lambda: source.memories.delete_memories([3, 4]))
        undo(source, 3)
        changed(source, lambda: source.memories.delete_memories([5]))
        with source.transaction():
            source.ledger.touch_session(session, session.created_at)
            source.ledger.add_usage(session.id, Usage("m", 3, 1, None), session.created_at)
            source.put_fact("colour", "green")
        yield source, target


def rows_of(store: Repository) -> dict[str, list[object]]:
    """Return all rows, without the place that each engine gives them."""
    return {
        table: [tuple(row)[keys.count(PLACE) :] for row in store.rows.read(table, limit=9_999)]
        for table, (keys, _) in COLUMNS.items()
    }


def test_all_rows_are_the_same_in_the_other_store(stores: tuple[Repository, Repository]) -> None:
    source, target = stores
    counts = copy_store(source, target)

    assert counts["memories"] == 2_101
    assert rows_of(target) == rows_of(source)
    assert target.check(vectors_expected=True) == []
    assert [i for i, _ in target.memories.matching(["zurich"], ALL, 9)] == [2]
    undo(target, 5)
    assert keep(target, "New.") == [2_103]
    assert target.changes.get_change(3).undone_by == 4


def test_a_copy_that_was_cut_off_goes_on(
    stores: tuple[Repository, Repository], monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target = stores
    add, pages = target.rows.add, []

    def failing(table: str, rows: object) -> None:
        pages.append(table)
        if table == "memories" and pages.count(table) == 2:
            raise StoreError("here", "cut off", "go on")
        add(table, rows)  # type: ignore[arg-type]

    monkeypatch.setattr(target.rows, "add", failing)
    with pytest.raises(StoreError, match="cut off"):
        copy_store(source, target)
    assert target.count_rows()["memories"] == 1_000
    copy_store(source, target)
    assert pages.count("threads") <= 1
    assert pages.count("memories") == 4
    assert rows_of(target) == rows_of(source)


def test_a_home_that_holds_something_is_left_as_it_is(
    stores: tuple[Repository, Repository],
) -> None:
    source, target = stores
    keep(target, "Mine.")
    with pytest.raises(StoreError, match="holds something already"):
        copy_store(source, target)
    assert [m.content for m in target.memories.list_memories(ALL, 9)] == ["Mine."]


def test_a_copy_that_is_not_the_same_is_told(
    stores: tuple[Repository, Repository], monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target = stores
    add = target.rows.add
    monkeypatch.setattr(target.rows, "add", lambda table, rows: add(table, rows[:5]))
    with pytest.raises(StoreError, match="not the same"):
        copy_store(source, target)


@pytest.mark.postgres
def test_a_home_moves_to_a_database_and_back_by_hand(run: Run, tmp_path: Path, home: Home) -> None:
    home.memories.remember([NewMemory("The ferry leaves at seven.")])
    (home.path / "daily").mkdir(exist_ok=True)
    (home.path / "daily" / "2026-03-01.md").write_text("# 2026-03-01\n\n- Rain.\n", encoding="utf-8")
    url = new_database()

    code, out, _ = run("copy", str(home.path), f"{url}#anna", "--json")
    assert (code, json.loads(out)["rows"]["memories"]) == (0, 1)
    code, out, _ = run("copy", f"{url}#anna", str(tmp_path / "back"), "--json")
    assert (code, json.loads(out)["documents"]) == (0, 3)
    with closing(open_home(tmp_path / "back", embedder="none")) as back:
        assert [m.memory.content for m in back.memories.recall("ferry").matches] == [
            "The ferry leaves at seven."
        ]
        assert back.documents.read("MEMORY.md") == home.documents.read("MEMORY.md")
        assert back.check() == []
    assert run("copy", str(tmp_path / "nowhere"), url)[0] != 0
    options = Options(store=SecretStr(url))
    with closing(open_home(tmp_path / "other", embedder="none", options=options)) as local:
        assert local.repository.count_rows()["memories"] == 0
