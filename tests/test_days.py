"""One notion of day: what the user calls today is today in filters, questions, logs and figures."""

import time
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from mcp import Client

from conftest import Run
from soulkeep.app import build_server, open_home
from soulkeep.days import Days
from soulkeep.errors import MemoryErasedError
from soulkeep.models import NewMemory, NewMessage, Options
from soulkeep.service.home import Home

ZONES = ["America/Los_Angeles", "Pacific/Auckland", "Pacific/Kiritimati", "Asia/Kathmandu"]

At = Callable[[str, str], Home]


class SetClock:
    """A clock that stands where it is put."""

    def __init__(self) -> None:
        self.now = datetime(2026, 11, 25, 12, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
def set_clock() -> SetClock:
    return SetClock()


@pytest.fixture
def at(tmp_path: Path, set_clock: SetClock) -> Iterator[At]:
    """Open the home in a zone, at a local time there."""
    homes: list[Home] = []

    def opened(zone: str, local: str) -> Home:
        set_clock.now = datetime.fromisoformat(local).replace(tzinfo=ZoneInfo(zone)).astimezone(UTC)
        options = Options(timezone=ZoneInfo(zone))
        homes.append(open_home(tmp_path / "home", embedder="none", clock=set_clock, options=options))
        return homes[-1]

    yield opened
    for home in homes:
        home.close()


def keep(home: Home, content: str, **fields: str) -> int:
    (receipt,) = home.memories.remember([NewMemory(content, **fields)])
    return receipt.id


@pytest.mark.parametrize("zone", ZONES)
@pytest.mark.parametrize("local", ["2026-11-25T00:01", "2026-11-25T12:00", "2026-11-25T23:59"])
def test_what_is_kept_and_logged_today_is_found_by_the_date_of_today(
    at: At, zone: str, local: str
) -> None:
    home = at(zone, local)
    kept = keep(home, "The roof was mended.")
    home.curator.log_day("The roof leaked again.")

    found = home.memories.recall("roof", since="2026-11-25", until="2026-11-25").matches

    assert {m.memory.content for m in found} == {"The roof was mended.", "The roof leaked again."}
    assert [m.id for m in home.lifecycle.list_memories(since="2026-11-25")] == [kept]
    assert home.memories.recall("roof", until="2026-11-24").matches == ()
    assert home.memories.recall("roof", since="2026-11-26").matches == ()


@pytest.mark.parametrize("zone", ZONES)
@pytest.mark.parametrize("local", ["2026-11-25T00:30", "2026-11-25T23:30"])
@pytest.mark.parametrize(
    ("question", "day"),
    [
        ("Which dish was it today?", "2026-11-25"),
        ("Which dish was it yesterday?", "2026-11-24"),
        ("Welches dish war es vorgestern?", "2026-11-23"),
    ],
)
def test_a_day_in_a_question_is_the_users(
    at: At, zone: str, local: str, question: str, day: str
) -> None:
    home = at(zone, local)
    meals = {
        f"2026-11-{n}": keep(home, f"Ate dish {n}.", occurred_at=f"2026-11-{n}T12:00")
        for n in range(15, 27)
    }

    (best,) = home.memories.recall(question, limit=1).matches

    assert best.memory.id == meals[day]


@pytest.mark.parametrize("zone", ZONES)
def test_a_date_given_for_a_memory_is_the_day_it_is_shown_and_found_at(at: At, zone: str) -> None:
    home = at(zone, "2026-11-25T12:00")
    memory_id = keep(home, "Tom ran 5 km.", occurred_at="2026-07-25")
    timed = keep(home, "Tom swam.", occurred_at="2026-07-25T23:50")

    found = home.memories.recall("Tom", since="2026-07-25", until="2026-07-25").matches

    assert {m.memory.id for m in found} == {memory_id, timed}
    assert {home.days.date_text(m.memory.occurred_at) for m in found} == {"2026-07-25"}
    assert home.memories.recall("Tom", until="2026-07-24").matches == ()
    assert home.memories.recall("Tom", since="2026-07-26").matches == ()
    (best, *_) = home.memories.recall("What happened on 25 July 2026?").matches
    assert best.reasons["date"] > 0
    assert best.reasons["lexical"] > 0  # the words of the day are indexed with it


@pytest.mark.parametrize("zone", ZONES)
def test_figures_count_by_the_users_days(at: At, set_clock: SetClock, zone: str) -> None:
    home = at(zone, "2026-11-24T23:59")
    keep(home, "Before midnight.")
    home.memories.recall("midnight")
    set_clock.now += timedelta(minutes=2)
    keep(home, "After midnight.")
    home.memories.recall("midnight")
    home.memories.recall("midnight")

    figures = home.statistics.figures(tables=False)

    assert list(figures.memories_by_day.items())[-2:] == [("2026-11-24", 1), ("2026-11-25", 1)]
    assert list(figures.recalls_by_day.items())[-2:] == [("2026-11-24", 1), ("2026-11-25", 2)]
    assert [e.event for e in home.statistics.list_log(since="2026-11-25", event="memory.stored")] == [
        "memory.stored"
    ]


@pytest.mark.parametrize("zone", ZONES)
def test_changes_and_backups_are_found_by_the_users_day(at: At, set_clock: SetClock, zone: str) -> None:
    home = at(zone, "2026-11-24T23:59")
    keep(home, "Before midnight.")
    first = home.backups.make("evening")
    set_clock.now += timedelta(minutes=2)
    late = keep(home, "After midnight.")
    home.backups.make("morning")

    assert home.backups.find("2026-11-24").id == first.id
    assert home.backups.find("2026-11-25").label == "morning"
    assert len(home.changes.list_changes(since="2026-11-25")) == 1
    home.changes.undo_since("2026-11-25")
    assert late not in [m.id for m in home.lifecycle.list_memories()]
    assert [m.content for m in home.lifecycle.list_memories()] == ["Before midnight."]


@pytest.mark.parametrize(
    ("zone", "day", "hours"),
    [
        ("America/Los_Angeles", "2026-11-01", 25),
        ("America/Los_Angeles", "2026-03-08", 23),
        ("Pacific/Auckland", "2026-09-27", 23),
        ("Pacific/Auckland", "2026-04-05", 25),
        ("America/Santiago", "2026-09-06", 23),  # midnight itself is skipped
        ("America/Havana", "2026-11-01", 25),  # midnight comes twice
        ("Pacific/Kiritimati", "2026-11-25", 24),
    ],
)
def test_a_day_is_as_long_as_the_clocks_make_it(zone: str, day: str, hours: int) -> None:
    days, wanted = Days(ZoneInfo(zone)), date.fromisoformat(day)
    first, last = days.first_moment(wanted), days.last_moment(wanted)

    assert last - first + timedelta(microseconds=1) == timedelta(hours=hours)
    assert days.day_of(first.isoformat()) == days.day_of(last.isoformat()) == wanted
    assert days.day_of((first - timedelta(seconds=1)).isoformat()) == wanted - timedelta(days=1)
    assert days.day_of((last + timedelta(seconds=1)).isoformat()) == wanted + timedelta(days=1)


@pytest.mark.parametrize("zone", [None, UTC, *map(ZoneInfo, ZONES)])
@pytest.mark.parametrize("day", [date.min, date(1850, 1, 1), date(2040, 2, 29), date.max])
def test_every_day_of_the_calendar_has_a_beginning_and_an_end(zone: ZoneInfo | None, day: date) -> None:
    days = Days(zone)

    assert days.first_moment(day) < days.last_moment(day)


def test_what_is_no_timestamp_is_shown_as_it_is() -> None:
    days = Days(ZoneInfo("Asia/Tokyo"))

    assert days.day_of("last spring") is None
    assert days.date_text("last spring") == "last sprin"
    assert days.minute_text("2026-11-24T20:30:00.000Z") == "2026-11-25 05:30"
    assert days.minute_text("once") == "once"


@pytest.mark.parametrize("zone", ZONES)
@pytest.mark.parametrize("local", ["2026-11-25T00:30", "2026-11-25T23:30"])
async def test_every_answer_shows_the_users_day(at: At, zone: str, local: str) -> None:
    home = at(zone, local)
    thread = home.threads.create_thread("Roof").id
    keep(home, "The roof was mended.", thread_id=thread)
    home.messages.save(thread, [NewMessage("user", "The roof?")])
    asked: list[tuple[str, dict[str, object]]] = [
        ("recall", {"query": "roof", "include_messages": True}),
        ("browse_memories", {}),
        ("browse_memories", {"view": "changes"}),
        ("get_context", {"query": "roof"}),
        ("get_context", {}),
        ("manage_thread", {"action": "list"}),
        ("read_messages", {"thread_id": thread}),
    ]
    async with Client(build_server(home), cache=None) as client:
        for tool, arguments in asked:
            answer = await client.call_tool(tool, arguments)
            shown = str(answer.content) + str(answer.structured_content)
            assert "2026-11-25" in shown, (tool, shown)
            assert "2026-11-24" not in shown, (tool, shown)
            assert "2026-11-26" not in shown, (tool, shown)
        read = await client.read_resource(f"soulkeep://threads/{thread}")
        assert "2026-11-25" in str(read.contents)


@pytest.mark.parametrize("zone", ZONES)
def test_commands_show_the_users_day(
    zone: str, monkeypatch: pytest.MonkeyPatch, run: Run, home_path: Path
) -> None:
    monkeypatch.setenv("SOULKEEP_TIMEZONE", zone)
    monkeypatch.setenv("SOULKEEP_EMBEDDER", "none")
    run("remember", "The roof was mended.", "--occurred-at", "2026-07-25")

    for command in (
        ("recall", "roof", "--since", "2026-07-25", "--until", "2026-07-25"),
        ("memories", "list", "--since", "2026-07-25", "--until", "2026-07-25"),
        ("memories", "show", "1"),
    ):
        code, out, _ = run(*command)
        assert (code, "2026-07-25" in out) == (0, True), out
    assert "2026-07-25" in run("purge", "1", typed="n\n")[1]
    today = datetime.now(ZoneInfo(zone)).date()
    shown = run("changes")[1] + run("log")[1]
    assert f"{today}" in shown or f"{datetime.now(ZoneInfo(zone)).date()}" in shown


@pytest.mark.parametrize(
    ("zone", "local"), [(ZONES[0], "2026-11-24T20:15"), (ZONES[2], "2026-11-26T01:15")]
)
def test_when_a_memory_was_erased_is_said_as_the_users_clocks_show_it(
    at: At, zone: str, local: str
) -> None:
    home = at(zone, local)
    kept = keep(home, "The roof was mended.")
    home.purges.purge([kept])

    with pytest.raises(MemoryErasedError, match=f"at {local.replace('T', ' ')};"):
        home.purges.purge([kept])


@pytest.mark.skipif(not hasattr(time, "tzset"), reason="Windows has no TZ")
@pytest.mark.parametrize("zone", ZONES)
@pytest.mark.parametrize("hour", [0, 23])
def test_without_a_setting_the_day_is_the_machines(
    zone: str, hour: int, monkeypatch: pytest.MonkeyPatch, set_clock: SetClock, tmp_path: Path
) -> None:
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        set_clock.now = datetime(2026, 11, 25, hour, 30, tzinfo=ZoneInfo(zone)).astimezone(UTC)
        with closing(open_home(tmp_path / "home", embedder="none", clock=set_clock)) as home:
            home.curator.log_day("The roof leaked.")
            kept = keep(home, "The roof was mended.", occurred_at="2026-11-24")

            today = home.memories.recall("roof", since="2026-11-25", until="2026-11-25").matches
            (yesterday, *_) = home.memories.recall("What of the roof yesterday?").matches

            assert [match.memory.document for match in today] == ["daily/2026-11-25.md"]
            assert yesterday.memory.id == kept
            assert home.days.date_text(yesterday.memory.occurred_at) == "2026-11-24"
    finally:
        monkeypatch.undo()
        time.tzset()
