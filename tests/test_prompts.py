"""Threads and global prompts, without a server."""

import json
import re
from collections.abc import Callable
from dataclasses import replace

import pytest

from engine import database_of
from soulkeep.errors import InvalidInputError, PromptNotFoundError, ThreadNotFoundError
from soulkeep.service.home import Home
from soulkeep.service.prompts import fingerprint


def test_a_thread_keeps_its_title_and_system_prompt(home: Home) -> None:
    thread = home.threads.create_thread("  Trip to Rome ", "Answer in Italian.")

    assert home.repository.threads.get_thread(thread.id) == thread
    assert (thread.title, thread.system_prompt, thread.archived) == (
        "Trip to Rome",
        "Answer in Italian.",
        False,
    )
    assert thread.created_at == thread.last_active_at


def test_thread_ids_are_short_random_and_safe_in_a_url(home: Home) -> None:
    ids = {home.threads.create_thread("Same title").id for _ in range(20)}

    assert len(ids) == 20
    assert all(re.fullmatch("[0-9a-f]{12}", thread_id) for thread_id in ids)


def test_a_thread_that_does_not_exist_is_a_typed_error(home: Home) -> None:
    with pytest.raises(ThreadNotFoundError) as raised:
        home.repository.threads.get_thread("x" * 500)

    assert raised.value.thread_id == "x" * 500
    assert len(str(raised.value)) < 200


@pytest.mark.parametrize("title", ["", "  ", "x" * 201, "nul\0", "half \ud83d"])
def test_a_title_that_breaks_a_rule_makes_no_thread(title: str, home: Home) -> None:
    with pytest.raises(InvalidInputError, match="title"):
        home.threads.create_thread(title)

    assert home.repository.count_rows()["threads"] == 0


def test_threads_are_listed_latest_activity_first_and_found_by_title_or_id(home: Home) -> None:
    first, second, third = (home.threads.create_thread(title) for title in ("One", "Two", "ÜBER one"))
    with home.repository.transaction():
        home.repository.threads.change_threads([first.id], last_active_at="2026-03-02T00:00:00.000Z")

    listed = home.threads.list_threads()

    assert [thread.id for thread in listed] == [first.id, third.id, second.id]
    assert listed[1:] == [third, second]
    assert home.threads.list_threads(limit=2, containing="ONE") == [listed[0], third]
    assert home.threads.list_threads(containing="über") == [third]
    assert home.threads.find_threads(containing=second.id[3:]) == [second.id]
    assert home.threads.list_threads(containing="%") == []


def test_archived_threads_are_listed_when_asked_for(home: Home) -> None:
    kept = home.threads.create_thread("Kept")
    gone = replace(home.threads.create_thread("Gone"), id="gone", archived=True)
    with home.repository.recording():
        home.repository.threads.add_thread(gone)

    assert gone.id not in home.threads.find_threads()
    assert home.threads.list_threads(archived=True) == [gone]
    assert {kept.id, gone.id} <= {*home.threads.find_threads(archived=None)}


@pytest.mark.parametrize("limit", [0, -1, 1001])
def test_a_limit_that_breaks_a_rule_lists_nothing(limit: int, home: Home) -> None:
    with pytest.raises(InvalidInputError, match="limit"):
        home.threads.list_threads(limit=limit)


def test_prompts_are_added_changed_switched_and_removed(home: Home) -> None:
    prompt = home.prompts.add_prompt("Tone", "Be brief.", priority=3)

    renamed = home.prompts.change_prompt(prompt.id, name="Voice")
    off = home.prompts.change_prompt(prompt.id, is_active=False)

    assert (renamed.name, renamed.content, renamed.priority) == ("Voice", "Be brief.", 3)
    assert not off.is_active
    assert home.prompts.list_prompts() == []
    assert home.prompts.list_prompts(include_inactive=True) == [off]
    assert home.prompts.change_prompt(prompt.id, is_active=True).is_active
    assert home.prompts.remove_prompt(prompt.id).content == "Be brief."
    assert home.prompts.list_prompts(include_inactive=True) == []


@pytest.mark.parametrize("field", [{"name": " "}, {"content": ""}, {"priority": 10**7}])
def test_a_change_that_breaks_a_rule_changes_nothing(field: dict[str, object], home: Home) -> None:
    prompt = home.prompts.add_prompt("Tone", "Be brief.")

    with pytest.raises(InvalidInputError):
        home.prompts.change_prompt(prompt.id, **field)  # type: ignore[arg-type]

    assert home.prompts.list_prompts() == [prompt]


def test_a_prompt_that_does_not_exist_is_a_typed_error(home: Home) -> None:
    for attempt in (home.prompts.remove_prompt, home.prompts.change_prompt):
        with pytest.raises(PromptNotFoundError) as raised:
            attempt(5)
        assert raised.value.prompt_id == 5


def test_a_prompt_that_two_processes_set_at_once_is_one_prompt(make_home: Callable[..., Home]) -> None:
    one, other = make_home(), make_home()

    created = one.prompts.set_prompt("Tone", "Be brief.")
    changed = other.prompts.set_prompt(" tone", "Be kind.", priority=2)

    assert (created.outcome, changed.outcome) == ("created", "changed")
    assert changed.former == created.prompt
    assert one.prompts.list_prompts() == [changed.prompt]


def test_the_audit_log_tells_of_a_set_prompt_without_its_text(home: Home) -> None:
    home.prompts.set_prompt("Tone", "Be brief.", is_active=False)
    home.prompts.set_prompt("Tone", "Be kind.", is_active=True)
    home.prompts.set_prompt("Tone", remove=True)

    log = database_of(home).execute("SELECT event, details FROM audit_log ORDER BY id")
    assert [event for event, _ in log][-3:] == ["prompt.created", "prompt.changed", "prompt.removed"]
    assert json.loads(log[-2][1]) == {"prompt_id": 1, "fields": ["content", "is_active"]}
    assert "Be " not in json.dumps(log)


def test_the_fingerprint_changes_exactly_when_clients_would_see_something_else(
    make_home: Callable[..., Home],
) -> None:
    home, watcher = make_home(), make_home()
    first = home.prompts.add_prompt("Tone", "Be brief.\nAlways, in {{language}}.")
    second = home.prompts.add_prompt("Old", "Forget.", priority=-1)

    def changes(**fields: object) -> bool:
        before = fingerprint(watcher.prompts.list_offers())
        home.prompts.change_prompt(first.id, **fields)  # type: ignore[arg-type]
        return fingerprint(watcher.prompts.list_offers()) != before

    assert changes(name="Voice")
    assert changes(content="Be kind.\nAlways, in {{language}}.")
    assert not changes(content="Be kind.\nNever, except in {{language}}.")
    assert changes(content="Be kind.\nAlways, in {{tongue}}.")
    assert not changes(priority=5)
    assert changes(priority=-5)
    assert changes(is_active=False)
    assert not changes(content="Unseen.")
    before = fingerprint(watcher.prompts.list_offers())
    home.prompts.remove_prompt(second.id)
    assert fingerprint(watcher.prompts.list_offers()) != before
