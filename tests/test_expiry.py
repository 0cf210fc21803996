"""When a memory's time is over, and what keeps it from vanishing at once."""

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from conftest import TickingClock
from engine import database_of
from soulkeep.app import open_home
from soulkeep.errors import InvalidInputError
from soulkeep.models import NewMemory, Options
from soulkeep.service.home import Home

CLOSED = NewMemory("The shop is closed.", expires_at="2026-03-02T12:00:00Z")


@pytest.fixture
def home(make_home: Callable[..., Home]) -> Home:
    return make_home(embedder="none")


@pytest.fixture
def expired(home: Home, clock: TickingClock) -> Home:
    """A home with a memory whose time has passed, in the trash."""
    home.memories.remember([CLOSED])
    clock.now += timedelta(days=2)
    assert recalled(home) == []
    return home


def recalled(home: Home) -> list[str]:
    return [match.memory.content for match in home.memories.recall("shop").matches]


def last(home: Home) -> int:
    return home.changes.list_changes(1)[0].id


@pytest.fixture(params=["America/Los_Angeles", "Pacific/Kiritimati", "Asia/Kolkata"])
def abroad(
    home_path: Path, clock: TickingClock, request: pytest.FixtureRequest
) -> Iterator[tuple[Home, ZoneInfo]]:
    zone = ZoneInfo(request.param)
    options = Options(timezone=zone)
    with closing(open_home(home_path, embedder="none", clock=clock, options=options)) as home:
        yield home, zone


def test_an_expiry_that_is_a_date_is_the_end_of_that_day_of_the_user(
    abroad: tuple[Home, ZoneInfo], clock: TickingClock
) -> None:
    home, zone = abroad
    today = clock.now.astimezone(zone).date()
    home.memories.remember([NewMemory("The shop is closed.", expires_at=today.isoformat())])

    clock.now = clock.now.astimezone(zone).replace(hour=23, minute=59, second=50)
    assert recalled(home) == ["The shop is closed."]
    clock.now += timedelta(seconds=15)
    assert recalled(home) == []


@pytest.mark.parametrize(
    "past", ["2026-02-28", "2026-03-01T11:59:00Z", "2020-01-01", "2026-02-28T23:59"]
)
def test_an_expiry_that_has_passed_is_refused(home: Home, past: str) -> None:
    with pytest.raises(InvalidInputError, match="has passed already"):
        home.memories.remember([NewMemory("Too late.", expires_at=past)])
    home.memories.remember([NewMemory("Here to stay.")])
    with pytest.raises(InvalidInputError, match="has passed already"):
        home.lifecycle.revise(1, expires_at=past)

    assert [memory.content for memory in home.lifecycle.list_memories()] == ["Here to stay."]


@pytest.mark.parametrize("how", ["restore", "undo", "undo since"])
def test_what_comes_back_after_its_time_stays(expired: Home, how: str) -> None:
    if how == "restore":
        (memory,) = expired.lifecycle.restore([1]).memories
        assert memory.expires_at is None
    elif how == "undo":
        expired.changes.undo(last(expired))
    else:
        expired.changes.undo_since(expired.changes.list_changes(1)[0].made_at)

    assert recalled(expired) == ["The shop is closed."]
    assert expired.lifecycle.get_memory(1).expires_at is None
    assert expired.check() == []


def test_what_came_back_after_its_time_can_be_taken_back_further(
    home: Home, clock: TickingClock
) -> None:
    thread = home.threads.create_thread("Work").id
    home.memories.remember([CLOSED])
    moved = home.lifecycle.move([1], thread).change_id
    clock.now += timedelta(days=2)
    assert recalled(home) == []
    home.changes.undo(last(home))

    home.changes.undo(moved)

    assert home.lifecycle.get_memory(1).thread_id is None
    home.changes.undo_since("2020-01-01")
    assert home.lifecycle.list_memories() == []
    home.changes.undo(last(home))
    assert recalled(home) == ["The shop is closed."]
    assert home.check() == []


def test_undoing_a_renewal_after_the_first_time_has_passed_loses_nothing(
    home: Home, clock: TickingClock
) -> None:
    home.memories.remember([CLOSED])
    home.lifecycle.revise(1, expires_at="2026-04-01")
    clock.now += timedelta(days=2)

    home.changes.undo(last(home))

    assert recalled(home) == ["The shop is closed."]


def test_a_revision_changes_what_is_given_and_keeps_the_rest(home: Home) -> None:
    home.memories.remember(
        [
            NewMemory(
                "Tom ran.",
                "fact",
                source="chat",
                subject="Tom",
                occurred_at="2026-02-03",
                expires_at="2026-05-01",
            )
        ]
    )
    before = home.lifecycle.get_memory(1)

    home.lifecycle.revise(1, "Tom ran 5 km.")
    assert home.lifecycle.get_memory(1) == before._replace(id=2, content="Tom ran 5 km.")
    home.lifecycle.revise(
        2,
        memory_type="summary",
        source="a letter",
        subject="Ada",
        occurred_at="2026-02-04T08:00:00Z",
        expires_at="Never",
    )
    now = home.lifecycle.get_memory(1)
    assert (now.content, now.memory_type, now.source) == ("Tom ran 5 km.", "summary", "a letter")
    assert (now.subject, now.occurred_at, now.expires_at) == ("Ada", "2026-02-04T08:00:00.000Z", None)
    assert home.check() == []


def test_a_memory_without_a_date_keeps_the_one_of_when_it_was_said(
    home: Home, clock: TickingClock
) -> None:
    home.memories.remember([NewMemory("Tom ran.")])
    said = home.lifecycle.get_memory(1)
    clock.now += timedelta(days=3)

    home.lifecycle.revise(1, "Tom ran 5 km.")

    assert home.lifecycle.get_memory(1) == said._replace(id=2, content="Tom ran 5 km.")
    assert not home.memories.remember([NewMemory("Tom ran 5 km.")])[0].stored


@pytest.mark.parametrize(
    "fields", [{"content": "Tom ran."}, {"memory_type": "fact"}, {"source": "chat"}]
)
def test_a_revision_that_changes_nothing_leaves_the_memory_as_it_is(
    home: Home, fields: dict[str, str]
) -> None:
    home.memories.remember([NewMemory("Tom ran.", source="chat")])
    before = last(home)

    receipt = home.lifecycle.revise(1, **fields)  # type: ignore[arg-type]

    assert (receipt.id, receipt.stored, receipt.replaced) == (1, False, ())
    assert last(home) == before


def test_a_revision_has_to_say_what_to_revise(home: Home) -> None:
    home.memories.remember([NewMemory("Tom ran.")])
    with pytest.raises(InvalidInputError, match="must be given"):
        home.lifecycle.revise(1)
    with pytest.raises(InvalidInputError, match="blank"):
        home.lifecycle.revise(1, " ")


def test_what_has_expired_is_in_no_list_digest_or_context(home: Home, clock: TickingClock) -> None:
    thread = home.threads.create_thread("Shop").id
    home.memories.remember([replace(CLOSED, thread_id=thread)])
    home.curator.promote(1, "User Facts")
    looks: list[Callable[[], object]] = [
        lambda: home.lifecycle.list_memories(),
        lambda: home.threads.resume(thread),
        lambda: home.contexts.assemble(),
        lambda: home.contexts.assemble(thread_id=thread),
    ]
    for look in looks:
        assert CLOSED.content in str(look())
        clock.now += timedelta(days=2)
        assert CLOSED.content not in str(look())
        clock.now -= timedelta(days=2)
        home.changes.undo(last(home))


def test_a_store_that_cannot_be_written_is_read_although_something_has_expired(
    home: Home, clock: TickingClock
) -> None:
    home.memories.remember([CLOSED, NewMemory("The shop sells bread.")])
    clock.now += timedelta(days=2)
    database_of(home).execute("PRAGMA query_only = ON")

    assert [memory.id for memory in home.lifecycle.list_memories()] == [2]
    assert home.lifecycle.list_trash() == []
    database_of(home).execute("PRAGMA query_only = OFF")
    assert [memory.id for memory in home.lifecycle.list_memories()] == [2]
