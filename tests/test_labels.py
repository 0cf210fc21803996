"""Titles, names, subjects and sources: what nobody sees makes no other of them."""

import unicodedata
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from soulkeep.errors import InvalidInputError
from soulkeep.models import NewMemory
from soulkeep.service.home import Home
from soulkeep.wording import in_one_form, without_hidden

HIDDEN = [
    "\u200b",
    "\ufeff",
    "\u2060",
    "\u00ad",
    "\u202e",
    "\u2066",
    "\u200e",
    "\u034f",
    "\u3164",
    "\ufe0f",
    "\u200d",
    "\u0007",
    "\U000e0041",
    "\U000e0100",
]

SHOWN = [
    "\U0001f468\u200d\U0001f469\u200d\U0001f467 Family",
    "\U0001f3f3\ufe0f\u200d\U0001f308 Parade",
    "\U0001f44d\U0001f3fd\u200d\u2640 ok",
    "\u2764\ufe0f Ana",
    "1\ufe0f\u20e3 First",
    "\U0001f3f4\U000e0067\U000e0062\U000e0073\U000e0063\U000e0074\U000e007f Trip",
    "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645",
    "\u0915\u094d\u200d\u0937",
    "\u0dc1\u0dca\u200d\u0dbb\u0dd3",
    "\u05e9\u05dc\u05d5\u05dd C++\u200e",
    "plain, with a dash \u2013 and caf\u00e9",
]
"""Texts that are written with such characters: emoji, Persian, Hindi, Sinhala, Hebrew."""


@pytest.mark.parametrize("hidden", HIDDEN)
def test_titles_that_look_the_same_are_one(make_home: Callable[..., Home], hidden: str) -> None:
    home = make_home(embedder="none")
    kitchen = home.threads.start(f"Kit{hidden}chen").thread

    assert home.threads.start("Kitchen").thread.id == kitchen.id
    assert home.threads.start(f"{hidden}KITCHEN{hidden}").thread.id == kitchen.id
    (listed,) = home.threads.list_threads(containing=f"kitch{hidden}en")
    assert listed.title.split() in (["Kitchen"], ["Kit", "chen"])
    assert home.threads.rename(kitchen.id, f"Gar{hidden}den").title.replace(" ", "") == "Garden"


@pytest.mark.parametrize("hidden", HIDDEN)
def test_labels_of_memories_and_prompts_are_kept_as_they_look(
    make_home: Callable[..., Home], hidden: str
) -> None:
    home = make_home(embedder="none")
    labels = {"subject": f"To{hidden}m", "source": f"chat{hidden}"}
    (receipt,) = home.memories.remember([NewMemory("Rows.", **labels)])
    prompt = home.prompts.add_prompt(f"To{hidden}ne", "Be brief.")

    kept = home.lifecycle.get_memory(receipt.id)
    assert ((kept.subject or "").replace(" ", ""), kept.source) == ("Tom", "chat")
    assert not home.memories.remember([NewMemory("Rows.", **labels)])[0].stored
    assert prompt.name.replace(" ", "") == "Tone"
    assert home.prompts.set_prompt(prompt.name, priority=2).prompt.id == prompt.id
    assert [m.id for m in home.lifecycle.list_memories(subject=f"To{hidden}m")] == [receipt.id]


@pytest.mark.parametrize("text", SHOWN)
def test_what_words_and_emoji_are_written_with_stays(make_home: Callable[..., Home], text: str) -> None:
    home = make_home(embedder="none")

    thread = home.threads.start(text).thread

    assert thread.title == without_hidden(text) == text
    assert home.threads.start(unicodedata.normalize("NFD", text)).thread.id == thread.id


@pytest.mark.parametrize("text", ["\u200b", "\ufeff \u2060", "\u202e\u202c", "\U000e0041"])
def test_a_label_of_which_nothing_shows_is_refused(make_home: Callable[..., Home], text: str) -> None:
    home = make_home(embedder="none")

    for act in (
        lambda: home.threads.create_thread(text),
        lambda: home.memories.remember([NewMemory("Rows.", subject=text)]),
        lambda: home.prompts.add_prompt(text, "Be brief."),
    ):
        with pytest.raises(InvalidInputError, match="must not be blank"):
            act()
    assert home.threads.list_threads() == []


def test_a_title_of_several_lines_is_kept_on_one(make_home: Callable[..., Home]) -> None:
    home = make_home(embedder="none")

    assert (
        home.threads.create_thread(" Kitchen\r\nplans\u2028for\u0085now ").title
        == "Kitchen plans for now"
    )


def test_a_section_is_found_whatever_hides_in_its_heading(make_home: Callable[..., Home]) -> None:
    home = make_home(embedder="none")
    path = home.path / "MEMORY.md"
    path.write_text("## Pre\u200bferences\ufeff\n\n- Tea.\n", encoding="utf-8")

    home.curator.add_entry("Preferences", "Mate.")

    assert path.read_text(encoding="utf-8") == "## Pre\u200bferences\ufeff\n\n- Tea.\n- Mate.\n"


@given(
    st.text() | st.lists(st.sampled_from([*HIDDEN, *SHOWN, "a", "\u0301", " ", "\u0628"])).map("".join)
)
def test_a_label_without_hidden_characters_stays_as_it_is(text: str) -> None:
    shown = without_hidden(text)

    assert without_hidden(shown) == shown
    assert in_one_form(in_one_form(text)) == in_one_form(text) == in_one_form(shown)
    assert in_one_form(unicodedata.normalize("NFD", text)) == in_one_form(text)
