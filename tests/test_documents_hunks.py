"""Edits of texts as hunks, and taking them back."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from soulkeep.documents.markdown import Hunk, find_hunks, hunk_at

TEXT = "# M\n\n## Facts\n- one\n- two\n\n## Plans\n- one\n- three\n"

ends = st.sampled_from(["\n", "\r\n", "\r"])
snippets = st.sampled_from(["", "- a", "- b", "# A", "ü", " ", "aa"])
mixed_texts = st.lists(st.tuples(snippets, ends)).map(lambda lines: "".join(map("".join, lines)))
texts = st.one_of(mixed_texts, mixed_texts.map(lambda text: text + "- a"), st.text("ab- \n\r\ufeff"))


def hunk(before: str, after: str) -> Hunk:
    (found,) = find_hunks(before, after)
    return found


def taken_back(before: str, after: str, now: str) -> str | None:
    taken = hunk(before, after).take_back(now)
    return None if taken is None else taken[0]


@given(before=texts, after=texts)
def test_an_edit_and_taking_it_back_are_each_taken_back_to_the_character(
    before: str, after: str
) -> None:
    for edit in find_hunks(before, after):
        taken = edit.take_back(after)
        assert taken is not None
        assert taken[0] == before
        again = taken[1].take_back(before)
        assert again is not None
        assert again[0] == after


numbered = st.lists(st.integers(0, 99), unique=True)
hands = st.lists(st.sampled_from(["", "by hand", "z"]))


@given(before=numbered, after=numbered, above=hands, below=hands, end=ends)
def test_what_a_hand_wrote_before_and_after_the_place_stays(
    before: list[int], after: list[int], above: list[str], below: list[str], end: str
) -> None:
    def written(numbers: list[int]) -> str:
        return "".join(f"{line}{end}" for line in ["first", *numbers, "last"])

    head, tail = ("".join(f"{line}{end}" for line in lines) for lines in (above, below))
    for edit in find_hunks(written(before), written(after)):
        taken = edit.take_back(head + written(after) + tail)
        assert taken is not None
        assert taken[0] == head + written(before) + tail


def test_an_edit_that_changes_nothing_is_no_hunk() -> None:
    assert find_hunks(TEXT, TEXT) == []


def test_a_hunk_is_small_and_of_whole_lines() -> None:
    long = TEXT + "word\n" * 100_000

    found = hunk(long, long.replace("- three", "- thirty"))

    assert (found.removed, found.added) == ("- three", "- thirty")
    assert (found.above, found.below) == ("- one\n", "\nword")
    assert len(hunk("x" * 9_000 + "\n", "x" * 9_000 + "\n- a\n").above) == 0


@pytest.mark.parametrize(
    ("after", "now", "expected"),
    [
        # The neighbours were edited, or went away.
        (TEXT.replace("- two", "- 2"), TEXT.replace("- two", "- 2").replace("one", "1"), "- 1\n- two\n"),
        (TEXT.replace("- two", "- 2"), "- 2", "- two"),
        # Lines came between the place and its neighbours.
        (TEXT.replace("- two\n", "- two\n- new\n"), "- two\n- new\n- mine\n", "- two\n- mine\n"),
        # What was taken away comes back beside the neighbour that is left.
        (TEXT.replace("- two\n", ""), "- one\n- mine\n", "- one\n- two\n- mine\n"),
        (TEXT.replace("- three\n", ""), "## Plans\n- mine\n- one", "- mine\n- one\n- three"),
        (
            "# M\n\n## Facts\n- one\n- two\n\n## Plans\n- three\n",
            "- 3\n- three\n",
            "- 3\n- one\n- three\n",
        ),
    ],
)
def test_a_place_is_found_again(after: str, now: str, expected: str) -> None:
    assert expected in (taken_back(TEXT, after, now) or "")


@pytest.mark.parametrize(
    "now",
    [
        TEXT.replace("- two", "- 2 by hand"),  # edited
        TEXT.replace("- two", "- 22"),  # only begins like it
        TEXT.replace("- two", "-- 2"),  # only ends like it
        "",
    ],
)
def test_what_no_longer_stands_there_is_not_taken_back(now: str) -> None:
    assert taken_back(TEXT, TEXT.replace("- two", "- 2"), now) is None


def test_what_was_taken_away_does_not_come_back_where_both_its_neighbours_are_gone() -> None:
    assert taken_back(TEXT, TEXT.replace("- two\n", ""), "# M\n\n## Mine\n- by hand\n") is None


def test_of_several_the_one_with_the_same_neighbours_is_taken_back() -> None:
    before = "## A\n- x\n\n## B\n- y\n\n## C\n- x\n"
    after = before.replace("- y\n", "- y\n- x\n")

    assert taken_back(before, after, "- x\n" * 9 + after) == "- x\n" * 9 + before


@pytest.mark.parametrize("more", ["- x\n", "- x\n" * 9, "by hand\n" * 9])
def test_of_several_alike_the_nearest_is_taken_back_counted_from_either_end(more: str) -> None:
    before = "- x\n" * 3 + "- y\n" * 3 + "- x\n" * 3
    after = before.replace("- y\n" * 3, "- y\n- y\n- z\n- y\n")
    edit = hunk(before, after)
    again = "- z\n- y\n- y\n"

    for now, expected in ((more + after + again, more + before + again), (after + more, before + more)):
        taken = edit.take_back(now)
        assert taken is not None
        assert taken[0] == expected


def test_a_double_that_a_hand_wrote_is_not_taken_for_what_the_hand_took_away() -> None:
    before = "## A\n- x\n\n## B\n- y\n"
    after = before + "- x\n"

    assert taken_back(before, after, "## A\n- x\n\n## B\n- by hand\n") is None


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_text_whose_line_ends_were_all_changed_keeps_the_new_ones(end: str) -> None:
    other = "\r\n" if end == "\n" else "\n"
    before, now = (TEXT.replace("\n", e) for e in (end, other))

    for word in ("- two", "- two\n", "- one\n- two\n"):
        less = TEXT.replace(word, "")
        assert taken_back(before, less.replace("\n", end), less.replace("\n", other)) == now
        assert taken_back(less.replace("\n", end), before, now) == less.replace("\n", other)


def test_a_last_line_end_that_a_hand_took_away_stays_away() -> None:
    text, added = "# M\n", "\n## 12:00\n\n- one\n"
    edit = hunk_at(text + added, len(text), "", added)

    taken = edit.take_back("# M\n\n## 12:00\n\n- one")

    assert taken is not None
    assert taken[0] == "# M"
    again = taken[1].take_back("# M")
    assert again is not None
    assert again[0] == "# M\n\n## 12:00\n\n- one"


def test_a_byte_order_mark_and_a_missing_last_line_end_survive() -> None:
    before, after = "\ufeff# M\r\n- one", "\ufeff# M\r\n- one\r\n- two"

    assert (hunk(before, after).removed, hunk(before, after).added) == ("", "\r\n- two")
    assert taken_back(before, after, after + "\r\n- mine") == before + "\r\n- mine"
