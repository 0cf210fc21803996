"""Documents of a home, in its folder or in its database: the same to whoever reads and edits them."""

import json
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from mcp import Client
from mcp.types import ResourceTemplateReference

from conftest import TickingClock, asking
from database_server import place_in_postgres
from soulkeep.app import build_server, open_home
from soulkeep.documents import MAX_VERSIONS, Documents
from soulkeep.documents.markdown import add_entry
from soulkeep.errors import (
    DocumentChangedError,
    DocumentError,
    SectionNotFoundError,
    StoreBusyError,
    UndoConflictError,
    VersionNotFoundError,
)
from soulkeep.models import NewMemory
from soulkeep.service.copying import copy_documents
from soulkeep.service.home import Home

ORIGINALS = Path(__file__).parents[1] / "memory_files"
PLACES: dict[str, Callable[[Path], dict[str, Any]]] = {
    "folder": lambda path: {},
    "postgres": place_in_postgres,
}
KINDS = [pytest.param(name, marks=pytest.mark.postgres if name == "postgres" else ()) for name in PLACES]
MINE = "# Memory\r\n\r\n## Facts\r\n- one\r\n- two\r\n\r\n*Last updated: 2026-01-01*\r\n"


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def opened(kind: str, tmp_path: Path, clock: TickingClock) -> Iterator[Callable[..., Home]]:
    """Open a home of this kind, or the same again, as another process has it."""
    homes: list[Home] = []

    def open_it(name: str = "home") -> Home:
        where = PLACES[kind](tmp_path / name)
        homes.append(open_home(tmp_path / name, embedder="none", clock=clock, **where))
        return homes[-1]

    yield open_it
    for home in homes:
        home.close()


@pytest.fixture
def home(opened: Callable[..., Home]) -> Home:
    return opened()


def by_hand(home: Home, text: str, name: str = "MEMORY.md") -> None:
    """Write a text as somebody does who knows nothing of the log of changes."""
    texts = home.documents.texts
    texts.add([name], lambda _: b"")
    if texts.read(name) == b"":
        texts.remove(name)
        texts.add([name], lambda _: text.encode())
    texts.rewrite(name, lambda _: text.encode(), lambda _: None)


def memory(home: Home) -> str:
    return home.documents.read("MEMORY.md")


def found(home: Home, question: str) -> list[str]:
    return [match.memory.content for match in home.memories.recall(question).matches]


# Texts


def test_a_new_home_has_the_originals_to_the_byte(home: Home, opened: Callable[..., Home]) -> None:
    for name in ("SOUL.md", "MEMORY.md"):
        assert home.documents.texts.read(name) == (ORIGINALS / name).read_bytes()
    by_hand(home, MINE)
    assert opened().documents.seed() == []
    assert memory(home) == MINE


def test_what_is_edited_keeps_its_line_ends_and_its_former_text(home: Home) -> None:
    by_hand(home, MINE)
    home.curator.add_entry("Facts", "three")
    assert memory(home) == MINE.replace("- two\r\n", "- two\r\n- three\r\n").replace("01-01", "03-01")
    (version, *_) = home.documents.list_versions("MEMORY.md")
    assert home.documents.read_version("MEMORY.md", version.id) == MINE
    assert version.size == len(MINE)
    home.curator.restore("MEMORY.md", version.id)
    assert memory(home) == MINE
    with pytest.raises(VersionNotFoundError):
        home.documents.read_version("MEMORY.md", "2000-01-01T00-00-00.000Z")


def test_so_many_former_texts_are_kept_the_latest_first(home: Home) -> None:
    for number in range(MAX_VERSIONS + 5):
        home.documents.edit("SOUL.md", partial("{1}\n{0}".format, number))
    versions = [version.id for version in home.documents.list_versions("SOUL.md")]
    assert len(versions) == MAX_VERSIONS
    assert versions == sorted(versions, reverse=True)
    assert home.documents.read_version("SOUL.md", versions[0]).endswith(f"\n{MAX_VERSIONS + 3}")


def test_logs_are_begun_continued_and_listed_by_day(home: Home) -> None:
    home.curator.log_day("Rain.")
    home.curator.log_day("Sun.")
    by_hand(home, "# 2026-02-28\n\n- Snow.\n", "daily/2026-02-28.md")
    by_hand(home, "x", "daily/notes.md")
    assert [str(day) for day in home.documents.list_daily()] == ["2026-02-28", "2026-03-01"]
    log = home.documents.read_daily(datetime(2026, 3, 1, tzinfo=UTC).date()) or ""
    assert log.startswith("# 2026-03-01\n\n## 12:")
    assert log.index("- Rain.") < log.index("- Sun.")


def test_an_edit_without_its_place_or_after_a_hand_writes_nothing(home: Home) -> None:
    before, changes = memory(home), home.changes.list_changes()
    with pytest.raises(SectionNotFoundError):
        home.curator.add_entry("Nowhere", "x")
    assert (memory(home), home.changes.list_changes()) == (before, changes)
    assert home.documents.list_versions("MEMORY.md") == []

    def change(text: str) -> str:
        if "Facts" in text:
            by_hand(home, "# Mine\n")
        return add_entry(text, "Facts" if "Facts" in text else "Gone", "x")

    by_hand(home, MINE)
    with pytest.raises(DocumentChangedError):
        home.documents.edit("MEMORY.md", change)
    assert memory(home) == "# Mine\n"


def test_what_is_no_utf_8_is_told_and_left_alone(home: Home) -> None:
    home.documents.texts.rewrite("SOUL.md", lambda _: b"caf\xe9", lambda _: None)
    with pytest.raises(DocumentError, match=r"SOUL\.md: byte 3 is not UTF-8"):
        home.documents.read("SOUL.md")
    assert [fault.name for fault in home.faults()] == ["document"]
    assert home.documents.texts.read("SOUL.md") == b"caf\xe9"


# Recorded, undone, followed


def test_an_edit_is_undone_and_done_again_to_the_byte(home: Home, opened: Callable[..., Home]) -> None:
    by_hand(home, MINE)
    home.curator.add_entry("Facts", "three")
    after = memory(home)
    other = opened()
    other.changes.undo(home.changes.list_changes(1)[0].id)
    assert memory(home) == MINE.replace("01-01", "03-01")
    home.changes.undo(home.changes.list_changes(1)[0].id)
    assert memory(other) == after


def test_an_entry_that_a_hand_changed_is_a_conflict_that_changes_nothing(home: Home) -> None:
    by_hand(home, MINE)
    home.curator.add_entry("Facts", "three")
    by_hand(home, memory(home).replace("three", "four"))
    before = memory(home)
    with pytest.raises(UndoConflictError):
        home.changes.undo(home.changes.list_changes(1)[0].id)
    assert memory(home) == before


def test_a_change_that_fails_after_the_text_was_written_leaves_it(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    by_hand(home, MINE)
    home.curator.log_day("Rain.")
    log = home.documents.texts.read("daily/2026-03-01.md")

    def fail(*_: object) -> None:
        raise StoreBusyError(home.repository.place)

    monkeypatch.setattr(home.sessions, "audit", fail)
    with pytest.raises(StoreBusyError):
        home.curator.add_entry("Facts", "three")
    with pytest.raises(StoreBusyError):
        home.curator.log_day("Sun.")
    monkeypatch.undo()
    assert memory(home).replace("03-01", "01-01") == MINE
    assert home.documents.texts.read("daily/2026-03-01.md") == log
    assert [change.action for change in home.changes.list_changes()] == ["log.appended"]


def test_a_promoted_line_follows_its_memory(home: Home) -> None:
    (receipt,) = home.memories.remember([NewMemory("Anna lives in Graz.")])
    home.curator.promote(receipt.id, "User Facts")
    assert f"Anna lives in Graz. ([memory {receipt.id}]" in memory(home)
    home.lifecycle.forget([receipt.id])
    assert "Graz" not in memory(home)
    home.changes.undo(home.changes.list_changes(1)[0].id)
    assert "Graz" in memory(home)


def test_what_expires_takes_its_promoted_line_along(home: Home, clock: TickingClock) -> None:
    soon = NewMemory("The code is 12.", expires_at="2026-03-01T13:00:00.000Z")
    (receipt,) = home.memories.remember([soon])
    home.curator.promote(receipt.id, "User Facts")
    clock.now = clock.now.replace(hour=14)
    home.changes.drop_expired()
    assert "The code is 12." not in memory(home)


# Searched, shown, counted


def test_entries_are_recalled_as_they_come_and_go(home: Home, opened: Callable[..., Home]) -> None:
    other = opened()
    by_hand(home, "# Memory\n\n## Facts\n- The ferry leaves at seven.\n")
    by_hand(home, "# 2026-02-28\n\n- The ferry was late.\n", "daily/2026-02-28.md")
    both = {"The ferry leaves at seven.", "The ferry was late."}
    assert set(found(home, "ferry")) == set(found(other, "ferry")) == both
    by_hand(other, "# Memory\n\n## Facts\n- The ferry leaves at eight.\n")
    assert "The ferry leaves at eight." in found(home, "ferry")
    assert "The ferry leaves at seven." not in found(home, "ferry")
    assert home.check() == []


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_a_client_reads_edits_completes_and_lists_them(home: Home, mode: str) -> None:
    by_hand(home, MINE)
    async with Client(build_server(home), mode=mode, cache=None) as client:
        text = await client.read_resource("soulkeep://MEMORY.md")
        assert text.contents[0].text == MINE  # type: ignore[union-attr]
        await client.call_tool("log_day", {"text": "Rain."})
        arguments = {"action": "add", "section": "Facts", "entry": "three"}
        await client.call_tool("curate_memory", arguments)
        log = await client.read_resource("soulkeep://daily/2026-03-01")
        assert "Rain." in log.contents[0].text  # type: ignore[union-attr]
        listed = [str(resource.uri) for resource in (await client.list_resources()).resources]
        assert "soulkeep://daily/2026-03-01" in listed
        template = ResourceTemplateReference(type="ref/resource", uri="soulkeep://daily/{date}")
        days = await client.complete(template, {"name": "date", "value": "2026"})
        assert days.completion.values == ["2026-03-01"]
        context = await client.call_tool("get_context", {})
        assert "three" in str(context.structured_content)


async def test_a_line_of_soul_md_is_learned_with_the_users_yes(home: Home) -> None:
    async with asking(home, "auto", "accept", agree=True) as (client, asked):
        await client.call_tool("learn_preference", {"line": "Answer in German."})
    assert len(asked) == 1
    assert "Answer in German." in home.documents.read("SOUL.md")


def test_figures_and_the_check_know_them(home: Home) -> None:
    before = home.statistics.figures().sizes["documents"]
    by_hand(home, "# Memory\n\n- " + "long " * 1_000)
    home.documents.edit("MEMORY.md", lambda text: text + "\n- more\n")
    assert home.statistics.figures().sizes["documents"] > before + 8_000
    assert home.faults() == []


# Backed up, purged, copied


def test_a_backup_brings_them_back_and_keeps_what_came_since(home: Home) -> None:
    by_hand(home, MINE)
    by_hand(home, "# 2026-02-28\n\n- Snow.\n", "daily/2026-02-28.md")
    home.memories.remember([NewMemory("One.")])
    backup = home.backups.make("by hand", on_demand=True)
    if not home.documents.texts.in_store:
        assert (home.path / "backups" / backup.id / "MEMORY.md").read_bytes() == MINE.encode()

    home.curator.add_entry("Facts", "three")
    after = memory(home)
    by_hand(home, "# 2026-02-27\n", "daily/2026-02-27.md")
    home.documents.texts.remove("daily/2026-02-28.md")
    home.backups.restore(backup.id)

    assert memory(home) == MINE
    assert [str(day) for day in home.documents.list_daily()] == ["2026-02-28"]
    newest = home.documents.list_versions("MEMORY.md")[0]
    assert home.documents.read_version("MEMORY.md", newest.id) == after
    assert set(found(home, "three")) == set()
    assert home.check() == []


def test_a_restore_that_fails_leaves_rows_and_documents(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    by_hand(home, MINE)
    backup = home.backups.make("by hand", on_demand=True)
    home.curator.add_entry("Facts", "three")
    home.memories.remember([NewMemory("The kettle is blue.")])
    before = memory(home)
    replace_all = Documents.replace_all

    def failing(self: Documents, *given: Any) -> None:
        replace_all(self, *given)
        if not failed:
            failed.append(1)
            raise StoreBusyError(home.repository.place)

    failed: list[int] = []
    monkeypatch.setattr(Documents, "replace_all", failing)
    with pytest.raises(StoreBusyError):
        home.backups.restore(backup.id)
    assert memory(home) == before
    assert found(home, "kettle") == ["The kettle is blue."]


def test_a_purge_takes_lines_and_former_texts(home: Home) -> None:
    (receipt,) = home.memories.remember([NewMemory("The password is kingfisher.")])
    home.curator.promote(receipt.id, "User Facts")
    home.documents.edit("MEMORY.md", lambda text: text + "\n")
    assert home.purges.purge([receipt.id]).lines == 1
    every = [home.documents.texts.read("MEMORY.md"), *dict(home.documents.read_history()).values()]
    assert not [text for text in every if text and b"kingfisher" in text]
    assert len(every) > 2
    home.purges.empty_trash()
    assert list(home.documents.read_history()) == []


@pytest.mark.parametrize("target", KINDS)
def test_they_are_copied_with_their_history(
    home: Home, target: str, tmp_path: Path, clock: TickingClock
) -> None:
    by_hand(home, MINE)
    home.curator.add_entry("Facts", "three")
    home.curator.log_day("Rain.")
    home.documents.texts.rewrite("SOUL.md", lambda _: b"caf\xe9 \0", lambda _: None)
    where = PLACES[target](tmp_path / "other")
    with closing(open_home(tmp_path / "other", embedder="none", clock=clock, **where)) as other:
        assert copy_documents(home.documents, other.documents) == 3
        assert other.documents.read_all() == home.documents.read_all()
        ours, theirs = (dict(each.documents.read_history()) for each in (home, other))
        assert ours.items() <= theirs.items()
        assert copy_documents(home.documents, other.documents) == 3


def test_their_state_is_told_as_data(home: Home) -> None:
    by_hand(home, MINE)
    before = home.documents.texts.stamps(["MEMORY.md", "SOUL.md", "daily/2026-01-01.md"])
    assert before.keys() == {"MEMORY.md", "SOUL.md"}
    assert before["MEMORY.md"][1] == len(MINE)
    home.curator.add_entry("Facts", "three")
    after = home.documents.texts.stamps(["MEMORY.md", "SOUL.md"])
    assert after["MEMORY.md"] != before["MEMORY.md"]
    assert after["SOUL.md"][:2] == before["SOUL.md"][:2]
    assert json.dumps(after)
