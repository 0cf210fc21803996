"""Entries of MEMORY.md and of the daily logs among the memories, in step with their files."""

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import date
from pathlib import Path
from typing import Literal
from unicodedata import normalize
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conftest import TickingClock
from engine import another_program, database_of
from forks import run_code
from soulkeep.app import open_home
from soulkeep.documents.markdown import list_entries
from soulkeep.models import Memory, NewMemory, Options
from soulkeep.service.document_index import Passages
from soulkeep.service.home import Home

DOCUMENT = (
    "# Memory\n\n## User Facts\n\n- The cat is called Miso.\n\n## Preferences\n\n- Tea, never coffee.\n"
)


@pytest.fixture
def home(make_home: Callable[..., Home]) -> Home:
    """A home that searches by words alone: what is found then does not depend on a model."""
    return make_home(embedder="none")


@pytest.fixture
def memory(home: Home) -> Path:
    path = home.path / "MEMORY.md"
    path.write_text(DOCUMENT, encoding="utf-8")
    return path


def log(home: Home, day: str, text: str) -> Path:
    path = home.path / "daily" / f"{day}.md"
    path.write_text(text, encoding="utf-8")
    home.entries.note_change()
    return path


def found(home: Home, query: str, **filters: str) -> list[Memory]:
    return [match.memory for match in home.memories.recall(query, **filters).matches]  # type: ignore[arg-type]


def contents(home: Home, query: str, **filters: str) -> list[str]:
    return [memory.content for memory in found(home, query, **filters)]


@contextmanager
def another_writer(home: Home) -> Iterator[None]:
    with closing(another_program(home.path / "soulkeep.db")) as other:
        other.execute("BEGIN IMMEDIATE")
        yield


def test_an_entry_of_memory_md_is_found_with_its_file_heading_and_type(home: Home, memory: Path) -> None:
    (cat,) = found(home, "cat")
    (tea,) = found(home, "tea")

    assert (cat.content, cat.source, cat.document) == (
        "The cat is called Miso.",
        "MEMORY.md: User Facts",
        "MEMORY.md",
    )
    assert (cat.memory_type, tea.memory_type, cat.thread_id) == ("fact", "preference", None)
    assert cat.occurred_at == cat.created_at
    assert home.check() == []


def test_an_entry_of_a_log_is_found_with_its_day_and_time(tmp_path: Path, clock: TickingClock) -> None:
    options = Options(timezone=ZoneInfo("Asia/Tokyo"))
    with closing(open_home(tmp_path, embedder="none", clock=clock, options=options)) as home:
        log(
            home,
            "2026-02-27",
            "# 2026-02-27\n\n## 08:30\n\n- Fixed the roof.\n\n## Plans\n\nPaint a wall.\n",
        )

        (roof,), (wall,) = found(home, "roof"), found(home, "paint")

        assert (roof.source, roof.occurred_at) == (
            "daily/2026-02-27.md: 08:30",
            "2026-02-26T23:30:00.000Z",
        )
        assert (wall.source, wall.occurred_at) == (
            "daily/2026-02-27.md: Plans",
            "2026-02-27T03:00:00.000Z",
        )
        assert contents(home, "roof", until="2026-02-26") == []
        assert contents(home, "roof", since="2026-02-27", until="2026-02-27") == ["Fixed the roof."]


def test_what_the_tools_write_is_found_at_once(home: Home) -> None:
    home.curator.add_entry("User Facts", "Plays the violin.")
    home.curator.log_day("Tuned the piano.")
    assert contents(home, "violin") == ["Plays the violin."]
    assert contents(home, "piano") == ["Tuned the piano."]

    home.curator.replace_entry("User Facts", "Plays the violin.", "Plays the cello.")

    assert contents(home, "violin cello") == ["Plays the cello."]
    home.curator.replace_entry("User Facts", "Plays the cello.", None)
    assert contents(home, "violin cello") == []
    assert home.check() == []


def test_a_line_deleted_by_hand_is_found_no_more(home: Home, memory: Path) -> None:
    assert len(found(home, "cat tea")) == 2

    memory.write_text(DOCUMENT.replace("- The cat is called Miso.\n", ""), encoding="utf-8")

    assert contents(home, "cat tea") == ["Tea, never coffee."]
    memory.unlink()
    assert contents(home, "cat tea") == []
    assert home.check() == []


def test_a_log_deleted_by_hand_is_found_no_more(home: Home) -> None:
    path = log(home, "2026-02-20", "- Planted tulips.\n")
    assert contents(home, "tulips") == ["Planted tulips."]

    path.unlink()
    home.entries.note_change()

    assert contents(home, "tulips") == []


def test_an_edit_of_the_same_length_in_the_same_instant_is_noticed(home: Home, memory: Path) -> None:
    assert contents(home, "cat") == ["The cat is called Miso."]
    before = memory.stat()

    memory.write_text(DOCUMENT.replace("cat", "dog"), encoding="utf-8")
    os.utime(memory, ns=(before.st_atime_ns, before.st_mtime_ns))

    assert contents(home, "cat dog") == ["The dog is called Miso."]


@pytest.mark.parametrize("shift", [-3600, 3600])
def test_a_file_that_did_not_change_lately_is_not_read_again(
    shift: int, home: Home, memory: Path
) -> None:
    now = memory.stat().st_mtime + shift
    os.utime(memory, (now, now))
    assert contents(home, "cat") == ["The cat is called Miso."]
    before = memory.stat()

    memory.write_text(DOCUMENT.replace("cat", "dog"), encoding="utf-8")
    os.utime(memory, ns=(before.st_atime_ns, before.st_mtime_ns))

    assert contents(home, "cat") == ["The cat is called Miso."]


def test_equal_lines_twice_are_two_and_one_of_them_deleted_leaves_one(home: Home, memory: Path) -> None:
    memory.write_text("# M\n\n- Twice.\n- Twice.\n", encoding="utf-8")
    first = found(home, "twice")
    assert [m.content for m in first] == ["Twice.", "Twice."]

    memory.write_text("# M\n\n- Twice.\n", encoding="utf-8")

    (left,) = found(home, "twice")
    assert left.id in [m.id for m in first]


def test_an_entry_keeps_its_id_and_date_while_others_change(home: Home, memory: Path) -> None:
    (before,) = found(home, "miso")

    memory.write_text(f"{DOCUMENT}\n## More\n\n- New.\n", encoding="utf-8")

    assert found(home, "miso") == [before]


def test_soul_md_is_not_recalled(home: Home) -> None:
    (home.path / "SOUL.md").write_text("# Soul\n\n- Zanzibar forever.\n", encoding="utf-8")

    assert found(home, "zanzibar") == []


def test_two_homes_over_one_folder_index_an_entry_once(
    make_home: Callable[..., Home], memory: Path
) -> None:
    homes = [make_home(embedder="none") for _ in range(3)]
    memory.write_text("# M\n\n" + "".join(f"- Goose {i}.\n" for i in range(200)), encoding="utf-8")

    threads = [threading.Thread(target=home.entries.catch_up) for home in homes for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    for home in homes:
        home.entries.catch_up()
    assert homes[0].repository.count_rows()["memories"] == 200
    assert homes[0].check() == []


def test_several_processes_index_an_entry_once(
    home: Home, memory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOULKEEP_EMBEDDER", "none")
    command = "from soulkeep.cli import main; import sys; sys.argv[0] = 'soulkeep'; main()"
    running = [run_code(command, "--home", home.path, "recall", "cat") for _ in range(2)]
    answers = [process.communicate(timeout=60)[0] for process in running]

    assert {process.returncode for process in running} == {0}
    # A process that meets another one at work answers from what is there already.
    assert any("| The cat is called Miso." in answer for answer in answers)
    assert contents(home, "cat") == ["The cat is called Miso."]
    assert home.repository.count_rows()["memories"] == 2


def test_an_unreadable_document_leaves_its_former_entries_and_says_so_once(
    home: Home, memory: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert contents(home, "cat") == ["The cat is called Miso."]

    memory.write_bytes(b"caf\xe9")

    assert contents(home, "cat") == ["The cat is called Miso."]
    assert contents(home, "cat") == ["The cat is called Miso."]
    (record,) = caplog.records
    assert "not indexed" in record.message
    memory.write_text("# M\n\n- The cat ran away.\n", encoding="utf-8")
    assert contents(home, "cat") == ["The cat ran away."]


def test_a_writer_at_work_fails_no_recall_and_delays_the_entries_only(home: Home, memory: Path) -> None:
    home.memories.remember([NewMemory("A cat flap is in the door.")])
    memory.write_text(DOCUMENT.replace("Miso", "Sushi"), encoding="utf-8")

    with another_writer(home):
        assert contents(home, "cat") == ["A cat flap is in the door."]

    assert len(found(home, "cat")) == 2
    assert home.check() == []


def test_a_store_that_takes_no_writes_fails_no_recall(
    home: Home, memory: Path, caplog: pytest.LogCaptureFixture
) -> None:
    home.memories.remember([NewMemory("A cat flap is in the door.")])
    database_of(home).execute("PRAGMA query_only = ON")

    assert contents(home, "cat") == ["A cat flap is in the door."]
    assert "MEMORY.md is not indexed" in caplog.text


def test_a_memory_that_says_what_an_entry_says_is_stored_all_the_same(home: Home, memory: Path) -> None:
    assert len(found(home, "cat")) == 1

    (receipt,) = home.memories.remember([NewMemory("The cat is called Miso.")])

    assert receipt.stored
    assert len(found(home, "cat")) == 2


def test_an_entry_is_global_and_found_in_every_thread(home: Home, memory: Path) -> None:
    thread = home.threads.create_thread("Garden")

    assert contents(home, "cat", thread_id=thread.id) == ["The cat is called Miso."]


@pytest.mark.parametrize(
    "content", ["Anna moved to Lisbon.", " Anna:\r\n\r\n\tmoved\n  - to Lisbon ", "- Anna\n- Lisbon"]
)
def test_a_promoted_memory_is_found_once_as_itself(content: str, home: Home) -> None:
    (receipt,) = home.memories.remember([NewMemory(content)])

    home.curator.promote(receipt.id, "User Facts")

    assert [m.id for m in found(home, "Anna Lisbon")] == [receipt.id]


def test_a_promoted_line_that_the_user_rewrote_is_found_beside_the_memory(home: Home) -> None:
    (receipt,) = home.memories.remember([NewMemory("Anna moved to Lisbon.")])
    home.curator.promote(receipt.id, "User Facts")
    path = home.path / "MEMORY.md"

    path.write_text(path.read_text(encoding="utf-8").replace("Lisbon", "Porto"), encoding="utf-8")

    assert {m.document for m in found(home, "Anna moved")} == {None, "MEMORY.md"}


def test_a_memory_promoted_from_one_thread_is_known_in_all(home: Home) -> None:
    kitchen, garden = (home.threads.create_thread(title) for title in ("Kitchen", "Garden"))
    (receipt,) = home.memories.remember([NewMemory("Anna moved to Lisbon.", thread_id=kitchen.id)])
    home.curator.promote(receipt.id, "User Facts")

    assert [m.id for m in found(home, "Lisbon", thread_id=kitchen.id)] == [receipt.id]
    assert [m.document for m in found(home, "Lisbon", thread_id=garden.id)] == ["MEMORY.md"]


@pytest.mark.embedder("universal")
def test_entries_are_found_by_meaning_too(make_home: Callable[..., Home]) -> None:
    home = make_home("other")
    home.curator.add_entry("User Facts", "Salary arrives on the last working day of each month.")

    assert "Salary" in contents(home, "When do I get paid?")[0]
    assert home.check() == []


def test_a_folder_in_the_place_of_a_log_fails_no_recall(home: Home, memory: Path) -> None:
    (home.path / "daily" / "2026-02-01.md").mkdir()
    (home.path / "daily" / "notes.md").write_text("- cat", encoding="utf-8")
    home.entries.note_change()

    assert contents(home, "cat") == ["The cat is called Miso."]


LINES = st.sampled_from(
    [
        "- one",
        "- two",
        "- two",
        "  - nested",
        "## Facts",
        "## Preferences",
        "# Not closed by a blank line",
        "<div>",
        "    indented",
        "[a link]:",
        "~~~~",
        "Setext",
        "===",
        "(nothing yet)",
        "A paragraph.",
        "> a quote",
        "```",
        "",
        "",
        "1. first",
        "<!-- a comment -->",
        "| a | b |",
        "---",
        "*Last updated: never*",
        "nul \0 and \u2028 strange\u200b",
        "([memory 1](soulkeep://memories/1))",
    ]
)


@given(edits=st.lists(st.lists(LINES, max_size=12), min_size=1, max_size=4))
def test_after_any_edits_the_memories_are_the_entries_of_the_file(
    edits: list[list[str]], home: Home, make_home: Callable[..., Home]
) -> None:
    path = home.path / "MEMORY.md"
    text = ""
    for lines in edits:
        text = "\n".join(lines)
        path.write_text(text, encoding="utf-8")
        home.entries.catch_up()

    stored = home.repository.documents.list_entries("MEMORY.md")
    assert sorted((m.source or "", m.content) for m in stored) == sorted(
        (f"MEMORY.md: {e.heading}" if e.heading else "MEMORY.md", e.text) for e in list_entries(text)
    )
    assert home.check() == []


@given(texts=st.lists(st.lists(LINES, max_size=16).map("\n".join), min_size=1, max_size=3))
def test_passages_have_the_entries_of_the_whole_text(texts: list[str]) -> None:
    passages = Passages()
    for text in [*texts, *texts]:
        assert [(e.heading, e.text) for e in passages.list_entries(text)] == [
            (e.heading, e.text) for e in list_entries(text)
        ]


def test_a_fence_that_nobody_closed_hides_what_it_hides_in_the_whole_text() -> None:
    for closing_line in ("", "```\n"):
        text = "# A\n\n- a\n\n```\n" + "# B\n\n- b\n" * 50 + closing_line + "# C\n\n- c\n"
        found = [(e.heading, e.text) for e in Passages().list_entries(text)]
        assert found == [(e.heading, e.text) for e in list_entries(text)]


def test_days_without_a_log_and_logs_of_long_ago_are_no_trouble(home: Home) -> None:
    log(home, "0001-01-01", "## 00:05\n\n- Genesis.\n")
    log(home, date.max.isoformat(), "## 23:59\n\n- Omega.\n")

    assert contents(home, "genesis omega")
    assert home.check() == []


SECTIONS = """# Long-Term Memory

## preferences

- Tea, never coffee.

### Food

- No coriander.

#### In summer

- Cold soups.

## Project Context

### Decisions so far

- The harbour model is in Rust.

## USER FACTS

- Lives in Kiel.

# important decisions:

- Postgres, not MySQL.

### Preferences

- Small commits.

## Else

- Rents a boat.
"""


def test_a_section_gives_its_type_to_all_in_it_in_any_case_and_at_any_level(home: Home) -> None:
    (home.path / "MEMORY.md").write_text(SECTIONS, encoding="utf-8")

    types = {
        memory.content: memory.memory_type
        for query in ("tea coriander soups", "harbour Kiel", "Postgres commits boat")
        for memory in found(home, query)
    }

    assert types == {
        "Tea, never coffee.": "preference",
        "No coriander.": "preference",
        "Cold soups.": "preference",
        "The harbour model is in Rust.": "fact",
        "Lives in Kiel.": "fact",
        "Postgres, not MySQL.": "decision",
        "Small commits.": "preference",
        "Rents a boat.": "decision",
    }


MARKED = [
    "## **Preferences**",
    "## __Preferences__",
    "## _Preferences_",
    "## *Preferences*",
    "## ***Preferences***",
    "## `Preferences`",
    "## [Preferences](#preferences)",
    "## Preferences ##",
    "## Preferences:",
    "## **Preferences:**",
    "## **Preferences**:",
    "## 1. Preferences",
    "## \U0001f3af Preferences",
    "## \u2764\ufe0f Preferences \U0001f44d\U0001f3fd",
    "## Preferences {#prefs}",
    "##Preferences",
    "##**Preferences**",
    "#Preferences",
    "#Preferences\r",
    "Preferences\n-----------",
]


@pytest.mark.parametrize("head", MARKED)
def test_the_marks_around_a_heading_change_nothing(home: Home, head: str) -> None:
    path = home.path / "MEMORY.md"
    path.write_bytes(f"# Notes\n\n{head}\n\n- No coriander.\n".encode())

    (entry,) = found(home, "coriander")
    home.curator.add_entry("Preferences", "Tea.")

    assert entry.memory_type == "preference"
    assert contents(home, "Preferences") == []
    assert path.read_bytes().startswith(f"# Notes\n\n{head}\n\n- No coriander.\n- Tea.".encode())


@pytest.mark.parametrize(
    ("title", "memory_type"),
    [
        ("User Preferences", "preference"),
        ("Vorlieben", "preference"),
        ("### Pre\u0301fe\u0301rences", "preference"),
        ("⭐ PREFERENCIAS:", "preference"),
        ("Decisions", "decision"),
        ("wichtige entscheidungen", "decision"),
        ("重要决定", "decision"),
        ("Decisions of others", "fact"),
    ],
)
def test_a_section_has_its_type_in_other_words_and_languages(
    home: Home, title: str, memory_type: str
) -> None:
    head = title if title.startswith("#") else f"## {title}"
    (home.path / "MEMORY.md").write_text(f"{head}\n\n- No coriander.\n", encoding="utf-8")

    assert [entry.memory_type for entry in found(home, "coriander")] == [memory_type]


@pytest.mark.parametrize(
    "section",
    [
        "**Preferences**",
        "_preferences_",
        "# Preferences",
        "## Preferences ##",
        "#Preferences",
        "preferences ",
        " Preferences:",
        "**Preferences:**",
        "`Preferences`",
        "\U0001f3af Preferences",
    ],
)
def test_a_section_is_reached_whatever_marks_its_name_comes_with(home: Home, section: str) -> None:
    path = home.path / "MEMORY.md"
    for head in ("Preferences", "**Preferences**", "Preferences:"):
        path.write_text(f"## {head}\n\n- Tea.\n", encoding="utf-8")

        home.curator.replace_entry(section, "Tea.", "Mate.")

        assert path.read_text(encoding="utf-8") == f"## {head}\n\n- Mate.\n"


def test_a_heading_of_the_very_name_comes_before_one_with_other_marks(home: Home) -> None:
    path = home.path / "MEMORY.md"
    path.write_text("## Plans:\n\n- a\n\n## Plans\n\n- b\n", encoding="utf-8")

    home.curator.add_entry("Plans", "c")

    assert path.read_text(encoding="utf-8") == "## Plans:\n\n- a\n\n## Plans\n\n- b\n- c\n"


@pytest.mark.parametrize(
    "text",
    [
        "#1 of the list",
        "#sailing on the fjord",
        "##",
        "Far\n#out\nthere",
        "####### Seven",
        "#42",
        "C#\nD",
    ],
)
def test_what_begins_with_a_mark_but_heads_nothing_stays_an_entry(home: Home, text: str) -> None:
    from soulkeep.documents.markdown import list_entries, list_sections

    document = f"# Notes\n\n{text}\n"

    assert [section.title for section in list_sections(document)][:1] == ["Notes"]
    assert text == "##" or [entry.text for entry in list_entries(document)] == [text]


def test_a_title_of_nothing_but_marks_is_still_a_title() -> None:
    from soulkeep.documents.blocks import plain_title

    assert [plain_title(title) for title in ("\U0001f3af", ":", "**", "C++", "Q&A", "Café", "_")] == [
        "\U0001f3af",
        ":",
        "**",
        "C++",
        "Q&A",
        "Café",
        "_",
    ]
    assert plain_title("**a** and **b**") == "**a** and **b**"
    assert plain_title(normalize("NFD", "Café")) == normalize("NFD", "Café")


def test_an_entry_changes_its_type_with_the_section_around_it(home: Home) -> None:
    path = home.path / "MEMORY.md"
    path.write_text("## Plans\n\n### Food\n\n- No coriander.\n", encoding="utf-8")
    (before,) = found(home, "coriander")
    path.write_text("## Preferences\n\n### Food\n\n- No coriander.\n", encoding="utf-8")
    (after,) = found(home, "coriander")

    assert (before.memory_type, after.memory_type) == ("fact", "preference")
    assert home.check() == []


@pytest.mark.parametrize(
    "head",
    [
        "---\ntitle: Notes\ntags: [notes, tea]\n---\n",
        "---\ntitle: Notes\naliases:\n  - Notebook\n- more\n# of the notes\n...\n",
        "\ufeff---\r\ntitle: Notes\r\n---\r\n",
        '+++\ntitle = "Notes"\n\n[extra]\nnotes = true\n+++\n',
        '{\n  "title": "Notes",\n  "extra": {"notes": true}\n}\n',
        '\ufeff{"title": "Notes"}\r\n',
    ],
)
def test_front_matter_is_no_fact_and_stays_as_it_is(home: Home, head: str) -> None:
    path = home.path / "MEMORY.md"
    newline = "\r\n" if "\r\n" in head else "\n"
    path.write_bytes((head + DOCUMENT.replace("\n", newline)).encode())

    assert contents(home, "title notes aliases extra tea") == ["Tea, never coffee."]

    home.curator.add_entry("Preferences", "Notes in pencil.")

    assert path.read_bytes().decode().startswith(head)
    assert set(contents(home, "notes tea")) == {"Notes in pencil.", "Tea, never coffee."}


def test_front_matter_of_a_log_is_no_entry(home: Home) -> None:
    log(home, "2026-02-28", "---\ntitle: Notes\n---\n# 2026-02-28\n\n## 09:00\n\n- Wrote notes.\n")

    assert contents(home, "notes") == ["Wrote notes."]


@pytest.mark.parametrize(
    "text",
    [
        "---\n\n# Notes\n\n- Tea.\n\n---\n\n- Coffee.\n",
        "---\n# Notes\n- Tea.\n---\n- Coffee.\n",
        "---\nTea: green.\n\n- Coffee.\n\n---\n",
        "---\nTea: green.\n- Coffee.\n",
        "---\n- Tea.\n---\n\n- Coffee.\n",
        "+++\n- Tea.\n\nCoffee.\n",
        '{"Tea": "green", "Coffee": "black"}\n',
        '{"Tea": "green"} or not\n\n- Coffee.\n',
        "{\n\n- Tea.\n- Coffee.\n",
        "{}\n\n- Tea.\n- Coffee.\n",
    ],
)
def test_what_only_begins_like_front_matter_is_read(home: Home, text: str) -> None:
    (home.path / "MEMORY.md").write_text(text, encoding="utf-8")

    said = " ".join(contents(home, "tea coffee"))

    assert "Tea" in said
    assert "Coffee" in said


def test_what_is_no_statement_is_no_entry_and_lists_code_and_tables_are(home: Home) -> None:
    (home.path / "MEMORY.md").write_text(
        "# Memory\n\n<!-- buoy:\n\n- hidden buoy -->\n\n[buoy]: https://example.com/buoy\n\n"
        "- [ ] Paint the buoy.\n- [x] Buy a buoy.\n\n```yaml\nbuoy: red\n```\n\n"
        "| buoy | colour |\n|---|---|\n| north | red |\n",
        encoding="utf-8",
    )

    assert set(contents(home, "buoy")) == {
        "[ ] Paint the buoy.",
        "[x] Buy a buoy.",
        "```yaml\nbuoy: red\n```",
        "| buoy | colour |\n|---|---|\n| north | red |",
    }


@pytest.mark.parametrize(("kept", "asked"), [("NFD", "NFC"), ("NFC", "NFD")])
def test_sections_and_entries_are_found_however_their_accents_are_written(
    home: Home, kept: Literal["NFC", "NFD"], asked: Literal["NFC", "NFD"]
) -> None:
    path = home.path / "MEMORY.md"
    path.write_text(normalize(kept, "## Préférences\n\n- Thé glacé à la crème.\n"), encoding="utf-8")

    (entry,) = found(home, normalize(asked, "glacé"))
    home.curator.replace_entry(
        normalize(asked, "préférences"), normalize(asked, "Thé glacé à la crème."), "Café noir."
    )

    assert entry.content == normalize(kept, "Thé glacé à la crème.")
    assert path.read_text(encoding="utf-8") == normalize(kept, "## Préférences\n\n") + "- Café noir.\n"
    home.curator.replace_entry(normalize(asked, "PRÉFÉRENCES"), normalize(asked, "Café noir."), None)
    assert contents(home, "café") == []


def test_a_thread_is_found_however_the_accents_of_its_title_are_written(home: Home) -> None:
    thread = home.threads.create_thread(normalize("NFD", "Café"))

    (listed,) = home.threads.list_threads(containing=normalize("NFC", "CAFÉ"))

    assert listed.id == thread.id


def test_documents_are_read_again_where_older_rules_read_them(
    make_home: Callable[..., Home], home_path: Path
) -> None:
    home = make_home(embedder="none")
    (home_path / "MEMORY.md").write_text("## preferences\n\n- No coriander.\n", encoding="utf-8")
    assert found(home, "coriander")
    home.close()
    with closing(another_program(home_path / "soulkeep.db")) as store:
        store.execute("DELETE FROM store_facts WHERE name = 'text_rules'")
        store.execute("UPDATE memories SET memory_type = 'fact'")

    (entry,) = found(make_home(embedder="none"), "coriander")

    assert entry.memory_type == "preference"
