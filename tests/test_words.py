"""Words, and what recall makes of numbers, versions, identifiers and names with signs."""

import threading
import unicodedata
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine import another_program
from soulkeep.models import NewMemory
from soulkeep.search.questions import query_terms
from soulkeep.search.words import (
    TEXT_RULES,
    fold,
    is_exact,
    same_title,
    split_query,
    split_words,
)
from soulkeep.service.home import Home
from soulkeep.wording import in_one_form

PIECES = st.sampled_from(
    """C C++ C# .NET F# A* node.js 12,500 12.500 1,5 500 3.2.11 v2.0 HARB-1042 HARB1042 GPT-4o 5km 15%
    a@b.de 10.0.0.1:80 2026-07-25 25.07.2026 (555) 123-4567 R&D -_ . ++ # * @ ' word Wort größe 花生
    हिन्दी ١٢ \u2009 \u0301 \u200d İ ß""".split()
)
TEXTS = (
    st.text() | st.lists(PIECES, max_size=8).map(" ".join) | st.lists(PIECES, max_size=8).map("".join)
)


@pytest.mark.parametrize("embedder", [pytest.param("auto", marks=pytest.mark.embedder), "none"])
@pytest.mark.parametrize(
    ("query", "answer", "others"),
    [
        (
            "order 100218",
            "Order 100218 is a lamp.",
            ["Order 100821 is a desk.", "Order 100812 is a bed."],
        ),
        (
            "release 3.2.11",
            "Release 3.2.11 is out.",
            ["Release 3.11.2 is out.", "Release 3.2.1 is out."],
        ),
        ("invoice 12500", "The invoice is over 12,500 euros.", ["The invoice is over 15,200 euros."]),
        ("a rent of 1,200", "They pay a rent of 1200.", ["They pay a rent of 2100."]),
        (
            "HARB1042",
            "HARB-1042 is about tides.",
            ["HARB-1024 is about tides.", "HARB-1402 is about tides."],
        ),
        ("harb 1042", "HARB1042 is about tides.", ["HARB1024 is about tides."]),
        ("Who writes C#?", "Ada writes C#.", ["Ben writes C.", "Eva writes C++.", "Kim writes F#."]),
        (
            "Who writes C?",
            "Ben writes C.",
            ["Ada writes C#.", "Eva writes C++.", "Uma writes Objective-C."],
        ),
        ("Who writes C++?", "Eva writes C++.", ["Ben writes C.", "Ada writes C#."]),
        (
            "a .NET course",
            "Ada gave a .NET course.",
            ["Ada gave a net course.", "Ada gave a NET course."],
        ),
        ("Who writes R?", "Kim writes R.", ["Ann writes R&D plans."]),
        ("a lecture on A*", "Ida gave a lecture on A*.", ["Ida gave a lecture on A."]),
        ("Who writes c sharp?", "Ada writes C#.", ["Ben writes C.", "A sharp knife for C."]),
        ("Who writes C#?", "Ada writes csharp.", ["Ben writes C.", "Eva writes cpp.", "Ida writes F#."]),
        ("Who writes cpp?", "Eva writes C++.", ["Ben writes C.", "Ada writes C#."]),
        ("Who writes dotnet?", "Kim writes .NET.", ["Ann writes on the net.", "Ben draws a dot."]),
        ("Who writes golang?", "Ada writes Go.", ["Ben writes as they go.", "Go on, wrote Eva."]),
        ("Who writes Go?", "Ada writes golang.", ["Ben writes C.", "Eva writes Rust."]),
        (
            "Who writes objective c?",
            "Uma writes Objective-C.",
            ["Ben writes C.", "An objective of Eva."],
        ),
        ("GPT-4", "Tom uses GPT-4.", ["Tom uses GPT-4o.", "Tom uses GPT-3."]),
        ("call +49 151 23456789", "Call +4915123456789.", ["Call +49 151 23456798.", "Call 0151 49."]),
        (
            "device 00:1a:2b:3c:4d:5e",
            "Device 00-1A-2B-3C-4D-5E is a lamp.",
            ["Device 00:1A:2B:3C:5E:4D is a desk.", "Device 00:1A:2B:4D:3C:5E is a bed."],
        ),
        ("codes 4711 8158", "The code is 4711.", ["The code is 1174.", "The code is 8185."]),
        ("call 555-0199-123", "Call (555) 0199 123.", ["Call 555-0199-132.", "Call 555-0991-123."]),
        (
            "host 10.0.12.7",
            "The host is 10.0.12.7.",
            ["The host is 10.0.7.12.", "The host is 10.0.12.70."],
        ),
        ("section 4.2.1", "See section 4.2.1 on leave.", ["See section 4.1.2 on leave."]),
        ("commit 3f2a9c1", "Fixed in 3f2a9c1d4e5b6a7c8d9e0f11.", ["Fixed in 9c1f2a3d4e5b6a7c8d9e0f11."]),
        (
            "ISBN 978-3-16-148410-0",
            "ISBN 9783161484100.",
            ["ISBN 9783161484010.", "ISBN 9783161844100."],
        ),
        ("runs of 5 km", "Runs of 5km.", ["Runs of 15 km.", "Runs of 50km."]),
        ("15 % off", "There was 15% off.", ["There was 51% off."]),
        (
            "the file plan_2.pdf",
            "It is in plan_2.pdf.",
            ["It is in plan_3.pdf.", "It is in plan-12.pdf."],
        ),
    ],
)
def test_what_is_asked_for_by_its_number_or_name_comes_first(
    make_home: Callable[..., Home], embedder: str, query: str, answer: str, others: list[str]
) -> None:
    home = make_home(embedder=embedder)
    # What was kept last would win a tie.
    home.memories.remember([NewMemory(text) for text in (answer, *others)])

    first, *following = home.memories.recall(query).matches

    assert first.memory.content == answer
    assert all(match.relevance < first.relevance for match in following)


@pytest.mark.embedder
@pytest.mark.parametrize(
    ("query", "other"),
    [
        ("100218", "100821"),
        ("3.2.11", "3.11.2"),
        ("20260725", "2026-05-27"),
        ("1.5", "5,1"),
    ],
)
def test_another_number_of_the_same_digits_has_nothing_of_it(home: Home, query: str, other: str) -> None:
    home.memories.remember([NewMemory(other)])

    assert [match.relevance for match in home.memories.recall(query).matches] == [0]


@pytest.mark.embedder
@pytest.mark.parametrize(
    ("query", "answer", "others"),
    [
        ("order 100218", "Order 100218 was sent.", ("Order 100821 was sent.", "Order 100812 was lost.")),
        ("release 3.2.11", "Release 3.2.11 broke the login.", ("Release 3.11.2 broke the login.",)),
        ("ticket HARB-1042", "Ticket HARB-1042 is open.", ("Ticket HARB-1024 is open.",)),
        # A date beside it changes nothing of that.
        ("order 100218 in May 2026", "Order 100218 was sent.", ("Order 100821 was sent.",)),
        ("order 100218 last week", "Order 100218 was sent.", ("Order 100821 was sent.",)),
    ],
)
def test_what_has_another_number_hardly_fits_beside_what_has_the_one_asked_for(
    home: Home, query: str, answer: str, others: tuple[str, ...]
) -> None:
    home.memories.remember([NewMemory(text) for text in (*others, answer)])

    first, *following = home.memories.recall(query).matches

    assert first.memory.content == answer
    assert first.relevance > 0.9
    assert all(match.relevance < 0.5 for match in following)


@pytest.mark.embedder
def test_a_number_that_counts_is_not_missed(home: Home) -> None:
    home.memories.remember([NewMemory("The user is allergic to peanuts and shellfish.")])

    plain, counted = (
        home.memories.recall(query).matches[0].relevance
        for query in ("Which foods make me sick?", "Which 2 foods make me sick?")
    )

    assert counted > 0.8 * plain


@pytest.mark.parametrize(
    "forms",
    [
        ["12500", "12,500", "12.500", "12 500", "12\u2009500", "12\u202f500", "12\u00a0500", "12'500"],
        ["12,500.75", "12.500,75", "12500.75", "12 500,75"],
        ["1,5", "1.5"],
        ["HARB-1042", "HARB1042", "harb_1042", "HARB\u20111042"],
        ["2026-07-25", "25.07.2026", "25.7.2026", "20260725"],
        ["555-123-4567", "(555) 123-4567", "5551234567", "555.123.4567"],
        ["DE89 3704 0044 0532 0130 00", "DE89370400440532013000"],
        ["node.js", "nodejs", "NodeJS"],
        ["snake_case", "snakeCase"],
        ["e-mail", "email"],
        ["v3.2.11", "3.2.11"],
        ["١٢٥٠٠", "12500", "\uff11\uff12\uff15\uff10\uff10"],
        ["F\u266f", "F#", "F sharp", "f-sharp", "FSharp", "fsharp"],
        ["C#", "csharp", "CSharp", "c sharp", "C-Sharp"],
        ["C++", "cpp", "CPP", "c plus plus", "cplusplus", "C plus plus"],
        ["C++17", "cpp17"],
        [".NET", "dotnet", "DotNet", "dot net", "dot-net"],
        ["Node.js", "node js", "node-js"],
        ["Objective-C", "objective c", "ObjC", "Obj-C"],
        ["golang", "Golang", "GoLang"],
        ["v1.2.3-rc1", "1.2.3-rc1", "V1.2.3rc1", "v1.2.3-RC.1"],
        ["1 000,50", "1.000,50", "1,000.50", "1000.50"],
        ["12,500.00", "12.500,00", "12 500,00", "12500"],
        ["2026-07-25", "2026.07.25", "2026/07/25", "25/07/2026", "7/25/2026", "25-07-2026"],
        ["+49 30 1234567", "0049 30 1234567", "+49 (0)30 1234567", "+49-30-1234567", "0049301234567"],
        ["GB29 NWBK 6016 1331 9268 19", "GB29NWBK60161331926819", "gb29 nwbk 6016 1331 9268 19"],
        ["IT60 X054 2811 1010 0000 0123 456", "IT60X0542811101000000123456"],
        ["00:1A:2B:3C:4D:5E", "00-1a-2b-3c-4d-5e", "001a2b3c4d5e"],
        ["2001:db8::1", "2001:0DB8::1", "2001:db8:0:0:0:0:0:1"],
        ["USB-C", "USB C", "USB\u2011C"],
        ["I/O", "i/o", "IO"],
        ["CI/CD", "ci/cd", "CICD"],
        ["B\u266d", "Bb"],
    ],
)
def test_one_number_or_name_is_found_however_it_is_written(forms: list[str]) -> None:
    for asked in forms:
        for written in forms:
            assert split_query(asked)[0] in split_words(written)


def test_a_number_is_also_found_by_the_word_beside_it() -> None:
    assert "harb1042" in split_words("harb 1042")
    assert "5km" in split_words("5 km")
    assert "in2024" not in split_words("in 2024")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("well-known", ["well", "known"]),
        ("It is **A** or *B*", ["it", "is", "a", "or", "b"]),
        ("1,2,3", ["1-2-3", "1", "2", "3"]),
        ("10-12 pages", ["10-12", "10", "12", "pages"]),
        (".env of .NET", [".env", "env", "of", ".net"]),
        ("Disney+ C+", ["disney+", "disney", "c+"]),
        ("e.g. this", ["eg", "this"]),
        ("iPhone15を", ["iphone15", "iphone", "phone", "15", "を"]),
        ("abcAbc 5, the 7", ["abcabc", "abc", "5", "abcabc5", "the", "7"]),
        ("csharp 7, MAX 12", ["c#", "7", "max", "12", "max12"]),
        ("2026-07-25T10:30", ["20260725", "2026", "07", "25", "10:30"]),
        ("an A/B test, C/C++, and/or", ["an", "ab", "test", "c", "c++", "and", "or"]),
        ("https://x.org/a/b", ["https", "xorg", "org", ".org", "a", "b"]),
        ("at 12:30:45", ["at", "12:30:45"]),
        ("04/05/2026", ["04052026", "04", "05", "2026"]),
        ("3.14.2026 and 31/31/2026", ["3.14.2026", "and", "31312026", "31", "2026"]),
        ("in the USA I met", ["in", "the", "usa", "i", "met"]),
        ("std::vector or A::B", ["std", "vector", "or", "a", "b"]),
        ("be42 that were 1234", ["be42", "be", "42", "that", "were", "1234"]),
        ("", []),
        ("... ++ #", []),
    ],
)
def test_a_text_becomes_words(text: str, words: list[str]) -> None:
    assert split_words(text) == words


@given(TEXTS)
def test_a_text_is_found_by_all_that_it_asks_for(text: str) -> None:
    assert set(split_query(text)) <= set(split_words(text))


@given(TEXTS)
def test_any_text_gives_words_without_spaces_that_fts5_can_hold(text: str) -> None:
    for word in split_words(text):
        assert word
        assert not any(sign.isspace() or sign in "\"'()" for sign in word)
        assert is_exact(word) or not any(sign.isdigit() and sign.isascii() for sign in word)


@given(TEXTS)
def test_texts_that_look_the_same_have_the_same_words(text: str) -> None:
    assert fold(fold(text)) == fold(text)
    for form in ("NFC", "NFD"):
        other = unicodedata.normalize(form, text)
        assert in_one_form(in_one_form(text)) == in_one_form(text) == in_one_form(other)
        assert same_title(same_title(text)) == same_title(text) == same_title(other)


def test_each_number_of_a_long_list_is_found() -> None:
    numbers = [str(number) for number in range(1_000)]

    assert set(numbers) <= set(split_words(" ".join(numbers)))
    assert set(numbers) <= set(split_words(", ".join(numbers)))


def test_a_query_of_stop_words_keeps_them() -> None:
    assert query_terms("The Who") == ["the", "who"]


def _as_by_older_rules(home: Path) -> None:
    store = another_program(home / "soulkeep.db")
    store.execute("DELETE FROM store_facts WHERE name = 'text_rules'")
    store.execute("DELETE FROM memories_fts")
    store.execute(
        "INSERT INTO memories_fts (rowid, content, subject, day) VALUES (1, 'c 12 500', '', '')"
    )
    store.close()


def _words_found(home: Home, *queries: str) -> list[int]:
    return [len(home.memories.recall(query).matches) for query in queries]


def test_a_store_that_older_rules_indexed_is_indexed_anew_once(
    make_home: Callable[..., Home], home_path: Path
) -> None:
    home = make_home(embedder="none")
    home.memories.remember([NewMemory("C# costs 12,500.")])
    home.close()
    _as_by_older_rules(home_path)

    again = make_home(embedder="none")

    assert _words_found(again, "C#", "12500", "C") == [1, 1, 0]
    assert again.check() == []
    store = another_program(home_path / "soulkeep.db")
    rows = store.execute("SELECT value FROM store_facts WHERE name = 'text_rules'").fetchall()
    store.close()
    assert rows == [(str(TEXT_RULES),)]


def test_several_that_open_such_a_store_at_once_all_find_by_the_new_words(
    make_home: Callable[..., Home], home_path: Path
) -> None:
    home = make_home(embedder="none")
    home.memories.remember([NewMemory("C# costs 12,500.")])
    home.close()
    _as_by_older_rules(home_path)
    found: list[list[int]] = []

    def open_and_look() -> None:
        found.append(_words_found(make_home(embedder="none"), "C#", "12500", "C"))

    threads = [threading.Thread(target=open_and_look) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert found == [[1, 1, 0]] * 4


def test_a_store_that_cannot_be_written_while_it_is_opened_still_serves(
    make_home: Callable[..., Home], home_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = make_home(embedder="none")
    home.memories.remember([NewMemory("C# costs 12,500.")])
    home.close()
    _as_by_older_rules(home_path)
    monkeypatch.setattr("soulkeep.repository.sqlite.database.Database._patience_ms", 0)
    store = another_program(home_path / "soulkeep.db")
    store.execute("BEGIN IMMEDIATE")
    try:
        assert _words_found(make_home(embedder="none"), "C") == [1]
    finally:
        store.close()
