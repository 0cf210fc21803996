"""Edits of Markdown text: at the smallest place, and never out of it."""

import re
from datetime import date, time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from soulkeep.documents.blocks import split_lines
from soulkeep.documents.markdown import (
    add_entry,
    as_item,
    date_footer,
    list_daily_entries,
    list_entries,
    list_sections,
    log_addition,
    replace_entry,
)
from soulkeep.errors import EntryNotFoundError, InvalidInputError, SectionNotFoundError

SHIPPED = (Path(__file__).parents[1] / "memory_files" / "MEMORY.md").read_text(encoding="utf-8")

DAY = date(2026, 11, 22)

HOSTILE = [
    "# Not a heading",
    "Title\n---",
    "Title\n===\nrest",
    "---",
    "- - -",
    "***",
    "```\nnever closed",
    "~~~ python\n## inside\n",
    "<!-- never closed",
    "<div>\n\n## x\n</div",
    "one\n\n\n## two\n\nthree",
    "1. one\n2. two",
    "- a\n  - b\n- c",
    "> quote\n## no",
    "a | b\n--- | ---\n1 | 2",
    "[x]: /y",
    "*Last updated: never*",
    "(in parentheses)",
    "ends with two spaces  \nand goes on",
    "line one\r\nline two\rline three",
    "\tindented\n\t\tmore",
    "## 14:32",
    "+",
    "1)",
]

texts = st.one_of(
    st.sampled_from(HOSTILE),
    st.text(st.sampled_from("ab#-*+>`~|:=_<!()[]1.) \t\n\r"), max_size=30),
    st.text(st.characters(codec="utf-8"), max_size=20),
).filter(lambda text: bool(text.strip()))

documents = st.lists(
    st.sampled_from(
        [
            "# Top",
            "## Facts",
            "## Facts ##",
            "Facts\n-----",
            "",
            "",
            "- a",
            "* b",
            "  - nested",
            "3. three",
            "para",
            "(hint)",
            "```",
            "    code",
            "> quote",
            "---",
            "*Last updated: x*",
            "<!-- note -->",
            "<!--",
            "<div>",
            "a | b",
            "--- | ---",
            "[x]: /y",
        ]
    ),
    max_size=14,
)
endings = st.sampled_from(["\n", "\r\n", "\r"])


def _plain(text: str) -> str:
    return re.sub(r"\r\n|\r", "\n", text.strip())


def test_the_first_entry_takes_the_place_of_the_placeholder() -> None:
    once = add_entry(SHIPPED, "User Facts", "Lives in Graz.")
    twice = add_entry(once, "User Facts", "Has a cat.")

    assert once == SHIPPED.replace("(Durable facts about the user)", "- Lives in Graz.")
    assert twice == once.replace("- Lives in Graz.\n", "- Lives in Graz.\n- Has a cat.\n")


def test_the_last_sections_entries_stand_before_the_rule_and_the_footer() -> None:
    text = add_entry(SHIPPED, "important decisions", "SQLite it is.")

    assert text.endswith(
        "## Important Decisions\n- SQLite it is.\n\n---\n" + SHIPPED.splitlines()[-1] + "\n"
    )


def test_the_footer_is_dated_and_a_removed_one_stays_away() -> None:
    dated = date_footer(SHIPPED, "2026-11-22")

    assert dated.endswith("\n---\n*Last updated: 2026-11-22*\n")
    assert date_footer(dated, "2026-11-23").endswith("*Last updated: 2026-11-23*\n")
    assert date_footer("# Mine\n\n- a\n", "2026-11-22") == "# Mine\n\n- a\n"


def test_a_footer_inside_a_fence_is_left_alone() -> None:
    text = "# A\n\n```\n*Last updated: x*\n```\n"

    assert date_footer(text, "2026-11-22") == text


def test_an_entry_joins_the_users_list_with_the_users_marker_and_indentation() -> None:
    text = "## A\n\n * one\n * two\n   * nested\n\nThen a paragraph.\n"

    assert add_entry(text, "A", "three\nmore") == text.replace(
        "   * nested\n", "   * nested\n * three\n   more\n"
    )


def test_headings_in_fences_lists_and_quotes_are_no_sections() -> None:
    text = "# A\n\n```\n## B\n```\n\n- x\n  ## C\n\n> ## D\n\nE\n---\n"

    assert [(s.title, s.level, s.first, s.last) for s in list_sections(text)] == [
        ("A", 1, 1, 11),
        ("E", 2, 13, 13),
    ]


def test_an_entry_goes_under_a_setext_heading_and_into_the_first_of_two_sections_of_one_name() -> None:
    assert add_entry("Facts\n=====\nText\n", "Facts", "x") == "Facts\n=====\nText\n\n- x\n"
    assert add_entry("## A\n\n## A\n- b\n", "A", "x") == "## A\n- x\n\n## A\n- b\n"


def test_entries_are_list_items_and_other_blocks_but_not_what_stands_around_them() -> None:
    text = (
        "Before.\n\n# A\n(hint)\n\n- one\n  - nested\n-   two\n\n    more\n\nPara\nlines\n\n"
        "```\n# code\n```\n\n> quote\n\na | b\n--- | ---\n1 | 2\n\n<!-- note -->\n\n---\n"
        "*Last updated: x*\n"
    )

    assert [(entry.heading, entry.text) for entry in list_entries(text)] == [
        ("", "Before."),
        ("A", "one\n- nested"),
        ("A", "two\n\nmore"),
        ("A", "Para\nlines"),
        ("A", "```\n# code\n```"),
        ("A", "> quote"),
        ("A", "a | b\n--- | ---\n1 | 2"),
    ]


def test_replacing_and_removing_touch_nothing_else() -> None:
    text = "## A\n1. one\n2. two\n   more\n3. three\n\npara\n- item\n---\nend\n"

    assert replace_entry(text, "A", "two more", "2") == text.replace("2. two\n   more\n", "2. 2\n")
    assert replace_entry(text, "A", "two  more", None) == text.replace("2. two\n   more\n", "")
    assert replace_entry(text, "A", "item", None) == text.replace("- item\n", "\n")


def test_an_entry_that_is_not_there_is_an_error_that_names_near_ones() -> None:
    text = "## A\n- The cat is Miso\n- The dog is Rex\n- The dog is Rex\n"

    with pytest.raises(EntryNotFoundError, match="The cat is Miso") as missing:
        replace_entry(text, "A", "cat Miso", "x")
    with pytest.raises(EntryNotFoundError, match="There are 2 entries"):
        replace_entry(text, "A", "The dog is Rex", None)

    assert missing.value.near[0] == "The cat is Miso"


def test_a_section_that_is_not_there_is_an_error_that_lists_those_there_are() -> None:
    with pytest.raises(SectionNotFoundError, match="'Long-Term Memory', 'User Facts'"):
        add_entry(SHIPPED, "Facts", "x")


@pytest.mark.parametrize("entry", ["", " \n\t", "- " * 120 + "x"])
def test_an_entry_that_is_blank_or_nested_beyond_sense_is_refused(entry: str) -> None:
    with pytest.raises(InvalidInputError, match="entry"):
        add_entry(SHIPPED, "Preferences", entry)


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
@pytest.mark.parametrize("final", ["", "end"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_line_endings_byte_order_mark_and_final_newline_are_kept(
    ending: str, final: str, mark: str
) -> None:
    text = mark + "# A\n- one\n- two".replace("\n", ending) + (ending if final else "")

    added = add_entry(text, "A", "three\nlines")

    expected = "# A\n- one\n- two\n- three\n  lines".replace("\n", ending)
    assert added == mark + expected + (ending if final else "")
    assert replace_entry(added, "A", "three lines", None) == text


def test_a_file_of_mixed_line_endings_keeps_each() -> None:
    assert add_entry("# A\r\n- one\n\r\n## B\r\n", "A", "x") == "# A\r\n- one\n- x\r\n\r\n## B\r\n"


@pytest.mark.parametrize("entry", HOSTILE)
def test_hostile_text_is_one_item_and_comes_back_to_the_letter(entry: str) -> None:
    text = add_entry(SHIPPED, "Preferences", entry)

    found = [e.text for e in list_entries(text) if e.heading == "Preferences"]
    assert found == [_plain(entry)]
    assert [s.title for s in list_sections(text)] == [s.title for s in list_sections(SHIPPED)]
    assert date_footer(text, "x") != text
    assert replace_entry(text, "Preferences", entry, None).count("\n") == SHIPPED.count("\n") - 1


@given(lines=documents, ending=endings, entry=texts, mark=st.sampled_from(["", "\ufeff"]))
def test_an_added_entry_is_found_again_and_nothing_else_is_changed(
    lines: list[str], ending: str, entry: str, mark: str
) -> None:
    text = mark + "\n".join(lines).replace("\n", ending)
    try:
        added = add_entry(text, "Facts", entry)
    except (SectionNotFoundError, InvalidInputError):
        return

    before = [(e.heading, e.text) for e in list_entries(text)]
    after = [(e.heading, e.text) for e in list_entries(added)]
    new = ("Facts", _plain(entry))
    assert new in after
    after.remove(new)
    assert after == before
    assert [s.title for s in list_sections(added)] == [s.title for s in list_sections(text)]
    kept = [line.strip("\r\n") for line in split_lines(text)]
    rest = iter(line.strip("\r\n") for line in split_lines(added))
    assert all(line in rest for line in kept if line != "(hint)")


def _said(text: str) -> list[tuple[str, str]]:
    # What moves up to the place of a placeholder counts as one.
    return [(e.heading, e.text) for e in list_entries(text) if e.text != "(hint)"]


@given(lines=documents, ending=endings, entry=texts, pick=st.integers(0, 20))
def test_a_replaced_entry_becomes_the_new_one_and_a_removed_one_is_gone(
    lines: list[str], ending: str, entry: str, pick: int
) -> None:
    text = "# Facts\n\n".replace("\n", ending) + "\n".join(lines).replace("\n", ending)
    if not (entries := _said(text)):
        return
    at = pick % len(entries)
    heading, old = entries[at]
    try:
        replaced, removed = (
            replace_entry(text, heading, old, entry),
            replace_entry(text, heading, old, None),
        )
    except (EntryNotFoundError, InvalidInputError):
        return

    assert _said(replaced) == [*entries[:at], (heading, _plain(entry)), *entries[at + 1 :]]
    assert _said(removed) == entries[:at] + entries[at + 1 :]
    titles = [section.title for section in list_sections(text)]
    for changed in (replaced, removed):
        assert [section.title for section in list_sections(changed)] == titles


@given(entries=st.lists(texts, min_size=1, max_size=5))
def test_what_was_logged_comes_back_to_the_letter_with_its_time(entries: list[str]) -> None:
    text = f"# {DAY.isoformat()}\n"
    kept = []
    for number, entry in enumerate(entries):
        try:
            item = as_item(entry)
        except InvalidInputError:
            continue
        text += log_addition(text, f"14:{number:02}", item)
        kept.append((_plain(entry), time(14, number)))

    assert [(entry.text, at) for entry, at in list_daily_entries(DAY, text)] == kept


def test_a_log_edited_by_hand_is_read_with_the_times_it_has() -> None:
    text = (
        "# 2026-11-22\n\nAwake.\n\n## 9:05 Stand-up\nTalked.\n### Notes\n- one\n\n## Ideas\n- two\n\n"
        "```\nnever closed\n## 14:32\n\n- three\n"
    )

    found = [(e.heading, e.text, e.first, at) for e, at in list_daily_entries(DAY, text)]

    assert found == [
        ("2026-11-22", "Awake.", 2, None),
        ("Stand-up", "Talked.", 5, time(9, 5)),
        ("Notes", "- one"[2:], 7, time(9, 5)),
        ("Ideas", "two", 10, None),
        ("Ideas", "```\nnever closed", 12, None),
        ("2026-11-22", "three", 16, time(14, 32)),
    ]


@pytest.mark.parametrize("count", [5_000, pytest.param(100_000, marks=pytest.mark.campaign)])
def test_a_large_document_is_read_and_edited(count: int) -> None:
    lines = [f"- Statement {number} about maples and copper lanterns" for number in range(count)]
    text = "# Memory\n\n## Facts\n" + "\n".join(lines) + "\n"

    added = add_entry(text, "Facts", "The last one")

    assert added == text + "- The last one\n"
    assert len(list_entries(added)) == count + 1
