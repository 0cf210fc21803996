"""Threads and global prompts, without a server."""

import re

import pytest

from soulkeep.errors import InvalidInputError, PromptNotFoundError, ThreadNotFoundError
from soulkeep.service.home import Home


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
