"""Several hands on the same documents: other processes, editors, and kill -9."""

import random
import tempfile
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from threading import Timer

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from conftest import TickingClock
from examples import DEAR
from forks import run_code
from soulkeep.documents import Documents, Folder
from soulkeep.documents.markdown import add_entry, list_daily_entries, list_entries, replace_entry
from soulkeep.errors import DocumentError, SectionNotFoundError

long = pytest.mark.campaign

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)

_SETUP = """
import sys
from datetime import UTC, datetime
from pathlib import Path
from soulkeep.documents import Documents, Folder
from soulkeep.documents.markdown import add_entry

home, name, count = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
documents = Documents(Folder(home), lambda: datetime(2026, 11, 22, 12, tzinfo=UTC), UTC)
"""

LOG = (
    _SETUP
    + """
for number in range(count):
    documents.append_daily(f"{name} {number}\\n## {'x' * (number % 97)}\\nend of {name} {number}")
"""
)

ADD = (
    _SETUP
    + """
for number in range(count):
    entry = f"{name} {number}" + " maple" * (number % 7 * 100)
    documents.edit("MEMORY.md", lambda text: add_entry(text, "User Facts", entry))
    print(entry, flush=True)
"""
)


EDITOR = """
import sys
from pathlib import Path

path, how, count = Path(sys.argv[1], "MEMORY.md"), sys.argv[2], int(sys.argv[3])
text = "# Memory\\n\\n## User Facts\\n"
for number in range(count):
    text += f"- by hand {number}\\n"
    if how == "rename":
        path.with_name("draft").write_text(text)
        path.with_name("draft").replace(path)
    else:
        path.write_text(text)
"""


@pytest.mark.parametrize("count", [100, pytest.param(1000, marks=long)])
def test_two_processes_logging_at_once_lose_and_tear_nothing(count: int, tmp_path: Path) -> None:
    with run_code(LOG, tmp_path, "a", count) as one, run_code(LOG, tmp_path, "b", count) as other:
        assert (one.wait(), other.wait()) == (0, 0)

    log = Documents(Folder(tmp_path)).read_daily(NOON.date()) or ""
    found = [entry.text for entry, at in list_daily_entries(NOON.date(), log) if at == NOON.time()]
    assert len(found) == 2 * count
    for name in ("a", "b"):
        assert [text for text in found if text.startswith(name)] == [
            f"{name} {number}\n## {'x' * (number % 97)}\nend of {name} {number}"
            for number in range(count)
        ]


@pytest.mark.parametrize("count", [25, pytest.param(250, marks=long)])
def test_two_processes_adding_at_once_lose_nothing(count: int, tmp_path: Path) -> None:
    with run_code(ADD, tmp_path, "a", count) as one, run_code(ADD, tmp_path, "b", count) as other:
        acknowledged = [process.communicate()[0].splitlines() for process in (one, other)]

    found = [entry.text for entry in list_entries(Documents(Folder(tmp_path)).read("MEMORY.md"))]
    assert len(found) == 2 * count
    for name, entries in zip("ab", acknowledged, strict=True):
        assert [text for text in found if text.startswith(name)] == entries


@pytest.mark.parametrize("how", ["rename", "in place"])
@pytest.mark.parametrize("count", [300, pytest.param(5000, marks=long)])
def test_an_editor_that_saves_all_the_time_finds_its_last_text_kept(
    count: int, how: str, tmp_path: Path
) -> None:
    documents = Documents(Folder(tmp_path), lambda: NOON, UTC)
    documents.seed()
    with run_code(EDITOR, tmp_path, how, count) as editor:
        while editor.poll() is None:
            # While it never stands still, or is empty between two steps of a slow editor.
            with suppress(DocumentError, SectionNotFoundError):
                documents.edit("MEMORY.md", lambda text: add_entry(text, "User Facts", "by tool"))

    found = {entry.text for entry in list_entries(documents.read("MEMORY.md"))}
    assert {f"by hand {number}" for number in range(count)} <= found


@pytest.mark.parametrize("kills", [4, pytest.param(50, marks=long)])
def test_after_kill_9_the_document_is_whole_and_has_all_that_was_acknowledged(
    kills: int, tmp_path: Path
) -> None:
    chance = random.Random(7)  # noqa: S311 - repeatable moments
    documents = Documents(Folder(tmp_path), lambda: NOON, UTC)
    acknowledged: list[str] = []
    for number in range(kills):
        with run_code(ADD, tmp_path, f"round {number}", 10_000) as process:
            assert process.stdout is not None
            acknowledged.append(process.stdout.readline().rstrip("\n"))
            killer = Timer(chance.uniform(0.0, 0.05), process.kill)
            killer.start()
            acknowledged += process.stdout.read().splitlines()
            killer.join()

        text = documents.read("MEMORY.md")
        assert text.endswith("---\n*Last updated: (auto-updated by memory curator)*\n")
        found = [entry.text for entry in list_entries(text)]
        assert [entry for entry in acknowledged if entry not in found] == []
        # At most one entry of each round was written and not acknowledged.
        assert len(found) <= len(acknowledged) + number + 1
    assert documents.edit("MEMORY.md", lambda text: add_entry(text, "Preferences", "The last"))
    assert list(tmp_path.glob(".*.part")) == []


_words = st.integers(0, 10**9).map(lambda number: f"word {number}")


class HandsMachine(RuleBasedStateMachine):
    """A document under an editor and soulkeep against a model: the lines that have to be there."""

    def __init__(self) -> None:
        super().__init__()
        self._folder = tempfile.TemporaryDirectory()
        self.path = Path(self._folder.name) / "MEMORY.md"
        self.documents = Documents(Folder(self.path.parent), TickingClock(), UTC)
        self.lines: list[str] = []

    @initialize(final=st.booleans(), ending=st.sampled_from(["\n", "\r\n"]))
    def begin(self, final: bool, ending: str) -> None:
        self.path.write_bytes(ending.join(["# A", "", "- first"]).encode() + ending.encode() * final)
        self.lines = ["# A", "- first"]

    def _by_hand(self, lines: list[str], how: str) -> None:
        content = "".join(lines).encode()
        if how == "rename":
            self.path.with_name("draft").write_bytes(content)
            self.path.with_name("draft").replace(self.path)
        else:
            self.path.write_bytes(content)

    def _read(self) -> list[str]:
        return self.path.read_bytes().decode().splitlines(keepends=True)

    def _insert(self, at: int, word: str, how: str) -> None:
        lines = self._read()
        at %= len(lines) + 1
        if at and not lines[at - 1].endswith("\n"):
            lines[at - 1] += "\n"
        self._by_hand([*lines[:at], f"{word} by hand\n", *lines[at:]], how)
        self.lines.append(f"{word} by hand")

    @rule(at=st.integers(0, 99), word=_words, how=st.sampled_from(["rename", "in place"]))
    def insert(self, at: int, word: str, how: str) -> None:
        self._insert(at, word, how)

    @rule(at=st.integers(1, 99), how=st.sampled_from(["rename", "in place"]))
    def delete(self, at: int, how: str) -> None:
        lines = self._read()
        spared = [number for number, line in enumerate(lines) if line.strip() != "# A"]
        if spared:
            gone = lines.pop(spared[at % len(spared)]).strip()
            if gone:
                self.lines.remove(gone)
            self._by_hand(lines, how)

    @rule(at=st.integers(1, 99), word=_words)
    def replace(self, at: int, word: str) -> None:
        self.delete(at, "in place")
        self._insert(at, word, "rename")

    @rule(windows=st.booleans())
    def convert(self, windows: bool) -> None:
        text = "".join(self._read()).replace("\r\n", "\n")
        self._by_hand([text.replace("\n", "\r\n") if windows else text], "in place")

    @rule(word=_words)
    def add(self, word: str) -> None:
        self.documents.edit("MEMORY.md", lambda text: add_entry(text, "A", word))
        self.lines.append(f"- {word}")

    @rule(word=_words, hand=_words, at=st.integers(0, 99), how=st.sampled_from(["rename", "in place"]))
    def add_while_a_hand_inserts(self, word: str, hand: str, at: int, how: str) -> None:
        hands = [hand]

        def change(text: str) -> str:
            new = add_entry(text, "A", word)
            if hands:
                self._insert(at, hands.pop(), how)
            return new

        self.documents.edit("MEMORY.md", change)
        self.lines.append(f"- {word}")

    @rule(word=_words)
    def add_and_remove(self, word: str) -> None:
        self.documents.edit("MEMORY.md", lambda text: add_entry(text, "A", f"gone {word}"))
        self.documents.edit("MEMORY.md", lambda text: replace_entry(text, "A", f"gone {word}", None))

    @rule()
    def restore(self) -> None:
        text = self.documents.read("MEMORY.md")
        self.documents.edit("MEMORY.md", lambda before: before + "\nNever mind\n")
        former = self.documents.read_version(
            "MEMORY.md", self.documents.list_versions("MEMORY.md")[0].id
        )
        self.documents.edit("MEMORY.md", lambda _: former)
        assert self.documents.read("MEMORY.md") == text

    @invariant()
    def every_line_is_there_once(self) -> None:
        found = sorted(line.strip() for line in self._read() if line.strip())
        assert found == sorted(self.lines)

    def teardown(self) -> None:
        self._folder.cleanup()


HandsMachine.TestCase.settings = DEAR
test_hands_and_tools_lose_no_line_of_each_other = HandsMachine.TestCase
