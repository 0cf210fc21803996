"""What is the same statement and what is another one: nothing that was said is dropped."""

import unicodedata
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from conftest import TickingClock
from soulkeep.models import NewMemory
from soulkeep.service.callers import Receipt
from soulkeep.service.home import Home

RAN = NewMemory("Tom ran 5 km.", "fact", subject="Tom", occurred_at="2026-03-01")


@pytest.fixture
def home(make_home: Callable[..., Home]) -> Home:
    return make_home(embedder="none")


def keep(home: Home, memory: NewMemory, *replaces: int) -> Receipt:
    (receipt,) = home.memories.remember([memory], replaces=replaces)
    return receipt


def became(receipt: Receipt) -> tuple[int, bool, tuple[int, ...]]:
    return receipt.id, receipt.stored, receipt.replaced


def live(home: Home) -> list[int]:
    return [memory.id for memory in home.lifecycle.list_memories(limit=1000)]


@pytest.mark.parametrize(
    "other",
    [
        {"subject": "Ada"},
        {"subject": "Tom B."},
        {"subject": None},
        {"occurred_at": "2026-03-02"},
        {"occurred_at": "2026-03-01T07:00:00Z"},
        {"occurred_at": None},
        {"expires_at": "2027-03-01"},
        {"memory_type": "summary"},
        {"content": "Tom ran 5 km!"},
    ],
    ids=str,
)
def test_the_same_words_about_another_one_or_day_are_another_statement(
    home: Home, other: dict[str, Any]
) -> None:
    first = keep(home, RAN)
    second = keep(home, replace(RAN, **other))

    assert (first.stored, second.stored) == (True, True)
    assert live(home) == [2, 1]
    both = home.memories.remember([replace(RAN, content="In a list."), replace(RAN, **other)])
    assert [receipt.stored for receipt in both] == [True, False]
    assert home.check() == []


def test_in_one_list_only_the_same_statements_are_kept_once(home: Home) -> None:
    days = [replace(RAN, occurred_at=f"2026-03-0{day}") for day in (1, 2, 1, 3)]

    receipts = home.memories.remember([*days, replace(RAN, subject="Ada")])

    assert [(receipt.id, receipt.stored) for receipt in receipts] == [
        (1, True),
        (2, True),
        (1, False),
        (3, True),
        (4, True),
    ]


def test_a_renewed_permit_is_kept_beside_the_one_that_ends(home: Home, clock: TickingClock) -> None:
    permit = NewMemory("Ada may park in the yard.", expires_at="2026-03-10")
    keep(home, permit)
    assert not keep(home, permit).stored

    assert keep(home, replace(permit, expires_at="2026-04-10")).stored
    clock.now += timedelta(days=20)

    assert [match.memory.id for match in home.memories.recall("park").matches] == [2]


@pytest.mark.parametrize("source", [None, "email", "conversation"])
def test_where_a_statement_comes_from_does_not_make_it_another(home: Home, source: str | None) -> None:
    keep(home, replace(RAN, source="conversation"))

    assert keep(home, replace(RAN, source=source)) == Receipt(1, stored=False)


@pytest.mark.parametrize("text", ["Zoë lives in Kraków.", "Ñandú, Ångström", "한국어 기억", "plain"])
@pytest.mark.parametrize("stored", ["NFC", "NFD"])
@pytest.mark.parametrize("sent", ["NFC", "NFD"])
def test_the_form_of_accents_does_not_make_another_statement(
    home: Home, text: str, stored: Any, sent: Any
) -> None:
    first = NewMemory(unicodedata.normalize(stored, text), subject=unicodedata.normalize(sent, "Zoë"))
    again = NewMemory(unicodedata.normalize(sent, text), subject=unicodedata.normalize(stored, "Zoë"))
    keep(home, first)

    assert keep(home, again) == Receipt(1, stored=False)
    other = [replace(memory, content=f"{memory.content}!") for memory in (first, again)]
    assert [receipt.stored for receipt in home.memories.remember(other)] == [True, False]
    assert home.lifecycle.get_memory(1).content == first.content


def test_what_is_said_already_takes_the_place_of_what_it_is_to_replace(home: Home) -> None:
    keep(home, NewMemory("The plan is a draft."))
    known = keep(home, NewMemory("The plan is final."))

    receipt = keep(home, NewMemory("The plan is final."), 1)

    assert became(receipt) == (known.id, False, (1,))
    assert live(home) == [known.id]
    assert home.lifecycle.get_memory(1).content == "The plan is final."
    assert [past.replaced_by for past in home.lifecycle.list_trash()] == [known.id]
    home.changes.undo(home.changes.list_changes(1)[0].id)
    assert live(home) == [known.id, 1]
    assert home.check() == []


def test_a_memory_is_not_replaced_by_its_own_repetition(home: Home) -> None:
    for content in ("One.", "Two.", "Three."):
        keep(home, NewMemory(content))

    assert became(keep(home, NewMemory("Two."), 2)) == (2, False, ())
    assert home.changes.list_changes(1)[0].action == "memory.stored"
    assert became(keep(home, NewMemory("Two."), 1, 2, 1)) == (2, False, (1,))
    assert live(home) == [3, 2]
    assert keep(home, NewMemory("Two.", source="the minutes"), 2).replaced == (2,)
    assert live(home) == [4, 3]
    assert home.check() == []


def test_ids_that_are_named_twice_count_once(home: Home) -> None:
    keep(home, NewMemory("One."))

    assert keep(home, NewMemory("Two."), 1, 1, 1).replaced == (1,)
    assert home.lifecycle.forget([2, 2, 1]).memories == (home.lifecycle.list_trash()[0].memory,)
