"""Edits on the disk: hand edits win, nothing is torn, and every former text can come back."""

import os
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest

from conftest import TickingClock
from soulkeep.documents import MAX_VERSIONS, Documents, Folder, log_name
from soulkeep.documents.markdown import add_entry, replace_entry
from soulkeep.errors import (
    DocumentChangedError,
    DocumentError,
    InvalidInputError,
    SectionNotFoundError,
    VersionNotFoundError,
)

Change = Callable[[str], str]


def _add(entry: str, section: str = "Facts") -> Change:
    return lambda text: add_entry(text, section, entry)


def folder_of(documents: Documents) -> Path:
    return Path(documents.texts.place)


@pytest.fixture
def documents(tmp_path: Path, clock: TickingClock) -> Documents:
    return Documents(Folder(tmp_path), clock, UTC)


@pytest.fixture
def memory(documents: Documents) -> Path:
    path = folder_of(documents) / "MEMORY.md"
    path.write_bytes(b"# Memory\n\n## Facts\n- one\n")
    return path


def _before(change: Change, *hands: Callable[[], object]) -> Change:
    """Let each hand act once, while an edit is between reading and writing."""
    waiting = list(hands)

    def changed(text: str) -> str:
        new = change(text)
        if waiting:
            waiting.pop(0)()
        return new

    return changed


def test_an_edit_returns_and_writes_the_new_text(documents: Documents, memory: Path) -> None:
    text = documents.edit("MEMORY.md", _add("two"))

    assert text == memory.read_text(encoding="utf-8") == "# Memory\n\n## Facts\n- one\n- two\n"


def test_a_missing_document_is_seeded_before_it_is_edited(documents: Documents) -> None:
    assert "- Lives in Graz." in documents.edit("MEMORY.md", _add("Lives in Graz.", "User Facts"))


def test_an_edit_that_changes_nothing_writes_nothing(documents: Documents, memory: Path) -> None:
    before = memory.stat()

    documents.edit("MEMORY.md", lambda text: text)

    now = memory.stat()
    assert (now.st_ino, now.st_size) == (before.st_ino, before.st_size)
    assert (now.st_mtime_ns, now.st_ctime_ns) == (before.st_mtime_ns, before.st_ctime_ns)
    assert documents.list_versions("MEMORY.md") == []


def test_an_edit_that_fails_leaves_no_trace(documents: Documents, memory: Path) -> None:
    with pytest.raises(SectionNotFoundError, match="'Memory', 'Facts'"):
        documents.edit("MEMORY.md", _add("x", "Wishes"))
    with pytest.raises(InvalidInputError, match="surrogate"):
        documents.edit("MEMORY.md", lambda text: text + "\ud800")

    assert memory.read_bytes() == b"# Memory\n\n## Facts\n- one\n"
    assert list(folder_of(documents).glob(".*.part")) == []


def test_bytes_are_kept_as_they_are(documents: Documents, memory: Path) -> None:
    memory.write_bytes("\ufeff# A\r\n\r\n## Facts\r\n- ü".encode())

    documents.edit("MEMORY.md", _add("ö"))

    assert memory.read_bytes() == "\ufeff# A\r\n\r\n## Facts\r\n- ü\r\n- ö".encode()


@pytest.mark.parametrize("mode", [0o600, 0o644, 0o660])
def test_permissions_are_kept(mode: int, documents: Documents, memory: Path) -> None:
    memory.chmod(mode)

    documents.edit("MEMORY.md", _add("two"))

    assert memory.stat().st_mode & 0o777 == mode
    assert (folder_of(documents) / ".documents.lock").stat().st_mode & 0o777 == 0o600


def test_a_read_only_document_is_left_alone(documents: Documents, memory: Path) -> None:
    memory.chmod(0o444)

    with pytest.raises(DocumentError, match=r"MEMORY\.md: it is read-only"):
        documents.edit("MEMORY.md", _add("two"))

    assert memory.read_bytes() == b"# Memory\n\n## Facts\n- one\n"


def test_a_link_inside_the_home_stays_and_its_target_is_written(
    documents: Documents, memory: Path
) -> None:
    (folder_of(documents) / "notes").mkdir()
    target = memory.rename(folder_of(documents) / "notes" / "mine.md")
    memory.symlink_to("notes/mine.md")

    documents.edit("MEMORY.md", _add("two"))

    assert memory.is_symlink()
    assert documents.read("MEMORY.md") == target.read_text(encoding="utf-8")
    assert target.read_text(encoding="utf-8").endswith("- two\n")


def test_a_link_out_of_the_home_is_an_error_that_leaves_both_alone(
    documents: Documents, memory: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    outside = tmp_path_factory.mktemp("outside") / "theirs.md"
    memory.rename(outside)
    memory.symlink_to(outside)
    documents.seed()
    (folder_of(documents) / log_name(documents.today())).symlink_to(outside)

    acts: list[Callable[[], object]] = [
        lambda: documents.read("MEMORY.md"),
        lambda: documents.edit("MEMORY.md", _add("two")),
    ]
    for act in acts:
        with pytest.raises(DocumentError, match=r"MEMORY\.md: a link .* leads out of the home"):
            act()
    with pytest.raises(DocumentError, match="leads out of the home"):
        documents.append_daily("x")
    with pytest.raises(DocumentError, match="leads out of the home"):
        documents.read_daily(documents.today())

    assert outside.read_bytes() == b"# Memory\n\n## Facts\n- one\n"


def test_a_link_that_leads_nowhere_is_an_error(documents: Documents, memory: Path) -> None:
    memory.unlink()
    memory.symlink_to("gone.md")

    with pytest.raises(DocumentError, match=r"MEMORY\.md: a link .* leads nowhere"):
        documents.edit("MEMORY.md", _add("two"))

    assert not (folder_of(documents) / "gone.md").exists()


def _make_folder(path: Path) -> None:
    path.mkdir()


def _make_pipe(path: Path) -> None:
    os.mkfifo(path)


def _make_latin(path: Path) -> None:
    path.write_bytes(b"## Facts\ncaf\xe9\n")


@pytest.mark.parametrize("make", [_make_folder, _make_pipe, _make_latin])
def test_what_is_no_text_is_an_error_that_names_it_and_leaves_it_alone(
    make: Callable[[Path], None], documents: Documents, memory: Path
) -> None:
    log = folder_of(documents) / log_name(documents.today())
    log.parent.mkdir()
    memory.unlink()
    make(memory)
    make(log)

    with pytest.raises(DocumentError, match=r"MEMORY\.md"):
        documents.edit("MEMORY.md", _add("two"))
    with pytest.raises(DocumentError, match=log.name):
        documents.append_daily("x")

    assert list(folder_of(documents).rglob("*.part")) == []
    if make is _make_latin:
        assert memory.read_bytes() == log.read_bytes() == b"## Facts\ncaf\xe9\n"


def test_a_home_that_cannot_be_locked_is_an_error(documents: Documents, memory: Path) -> None:
    (folder_of(documents) / ".documents.lock").mkdir()

    with pytest.raises(DocumentError, match="cannot be locked"):
        documents.edit("MEMORY.md", _add("two"))

    assert memory.read_bytes() == b"# Memory\n\n## Facts\n- one\n"


def test_a_history_that_cannot_be_kept_stops_the_edit(documents: Documents, memory: Path) -> None:
    (folder_of(documents) / "history").write_text("in the way", encoding="utf-8")

    with pytest.raises(DocumentError, match=r"MEMORY\.md: it cannot be written"):
        documents.edit("MEMORY.md", _add("two"))

    assert memory.read_bytes() == b"# Memory\n\n## Facts\n- one\n"


def test_an_editor_that_renames_meanwhile_is_joined(documents: Documents, memory: Path) -> None:
    def save() -> None:
        draft = memory.with_name("draft")
        draft.write_text("# Memory\n\n## Facts\n- by hand\n", encoding="utf-8")
        draft.replace(memory)

    text = documents.edit("MEMORY.md", _before(_add("two"), save))

    assert text == documents.read("MEMORY.md") == "# Memory\n\n## Facts\n- by hand\n- two\n"


def test_an_editor_that_rewrites_in_place_meanwhile_is_joined(
    documents: Documents, memory: Path
) -> None:
    def save(text: str) -> Callable[[], object]:
        return lambda: memory.write_text(text, encoding="utf-8")

    hands = save("# Memory\n\n## Facts\n- by hand\n"), save("## Facts\n- again\n")
    text = documents.edit("MEMORY.md", _before(_add("two"), *hands))

    assert text == documents.read("MEMORY.md") == "## Facts\n- again\n- two\n"


def _rewrite_at_the_rename(
    memory: Path, text: str, monkeypatch: pytest.MonkeyPatch, times: int = 1
) -> None:
    """Let an editor that has the file open truncate and rewrite it as the new one takes its place."""
    rename = os.replace
    left = [times]

    def replace(source: Path, target: Path) -> None:
        if target != memory or not left[0]:
            return rename(source, target)
        left[0] -= 1
        with memory.open("r+", encoding="utf-8") as editor:
            rename(source, target)
            editor.truncate(0)
            editor.write(text)
        return None

    monkeypatch.setattr("os.replace", replace)


def test_an_editor_that_rewrites_the_file_being_replaced_loses_nothing(
    documents: Documents, memory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _rewrite_at_the_rename(memory, "## Facts\n- by hand\n", monkeypatch)

    text = documents.edit("MEMORY.md", _add("two"))

    assert text == documents.read("MEMORY.md") == "## Facts\n- by hand\n- two\n"


def test_a_section_taken_away_by_hand_meanwhile_is_an_error_that_keeps_the_hands_text(
    documents: Documents, memory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _rewrite_at_the_rename(memory, "# Mine\n", monkeypatch)

    with pytest.raises(DocumentChangedError, match="read it again"):
        documents.edit("MEMORY.md", _add("two"))

    assert memory.read_text(encoding="utf-8") == "# Mine\n"


def test_an_editor_that_keeps_rewriting_has_the_last_word(
    documents: Documents, memory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _rewrite_at_the_rename(memory, "## Facts\n- by hand\n", monkeypatch, times=4)

    text = documents.edit("MEMORY.md", _add("two"))

    assert text == documents.read("MEMORY.md") == "## Facts\n- by hand\n- two\n"


def test_a_document_that_never_stands_still_is_an_error(documents: Documents, memory: Path) -> None:
    def changed(text: str) -> str:
        memory.write_text(text + "- more by hand\n", encoding="utf-8")
        return add_entry(text, "Facts", "two")

    with pytest.raises(DocumentError, match="another program keeps writing it"):
        documents.edit("MEMORY.md", changed)

    assert "two" not in memory.read_text(encoding="utf-8")


def test_a_git_checkout_meanwhile_is_joined(documents: Documents, memory: Path) -> None:
    def git(*arguments: str) -> None:
        command = ("git", "-c", "user.name=a", "-c", "user.email=a@b.c", *arguments)
        subprocess.run(command, cwd=folder_of(documents), check=True, capture_output=True)

    git("init")
    git("add", "MEMORY.md")
    git("commit", "-m", "one")
    memory.write_text("## Facts\n- other branch\n", encoding="utf-8")
    git("checkout", "-b", "other")
    git("commit", "-am", "two")

    text = documents.edit("MEMORY.md", _before(_add("two"), lambda: git("checkout", "HEAD~1")))

    assert text == documents.read("MEMORY.md") == "# Memory\n\n## Facts\n- one\n- two\n"


def test_each_former_text_is_kept_and_can_be_the_text_again(documents: Documents, memory: Path) -> None:
    first = memory.read_text(encoding="utf-8")
    second = documents.edit("MEMORY.md", _add("two"))
    documents.edit("MEMORY.md", lambda text: replace_entry(text, "Facts", "one", None))
    newest, oldest = documents.list_versions("MEMORY.md")

    assert documents.read_version("MEMORY.md", newest.id) == second
    former = documents.read_version("MEMORY.md", oldest.id)
    assert documents.edit("MEMORY.md", lambda _: former) == documents.read("MEMORY.md") == first
    assert oldest.size == len(first)

    undone = documents.list_versions("MEMORY.md")[0]
    assert documents.read_version("MEMORY.md", undone.id) == "# Memory\n\n## Facts\n- two\n"


@pytest.mark.parametrize("version", ["2026-03-01T12-00-00.000Z", "../../MEMORY", ""])
def test_a_version_that_is_not_kept_is_an_error(
    version: str, documents: Documents, memory: Path
) -> None:
    with pytest.raises(VersionNotFoundError, match=r"soulkeep documents history MEMORY\.md"):
        documents.read_version("MEMORY.md", version)

    assert memory.exists()


def test_the_history_is_bounded_and_in_order_even_if_the_clock_stands(
    tmp_path: Path, memory: Path
) -> None:
    documents = Documents(Folder(tmp_path), lambda: datetime(2026, 3, 1, tzinfo=UTC))

    for number in range(MAX_VERSIONS + 5):
        documents.edit("MEMORY.md", _add(f"entry {number}"))

    versions = documents.list_versions("MEMORY.md")
    assert len(versions) == MAX_VERSIONS
    assert documents.read_version("MEMORY.md", versions[0].id).endswith(f"- entry {MAX_VERSIONS + 3}\n")
    assert documents.read_version("MEMORY.md", versions[-1].id).endswith("- entry 4\n")


def test_other_files_in_the_history_are_left_alone(documents: Documents, memory: Path) -> None:
    documents.edit("MEMORY.md", _add("two"))
    other = folder_of(documents) / "history" / "MEMORY.md" / "before the move.md"
    other.write_text("mine", encoding="utf-8")

    assert len(documents.list_versions("MEMORY.md")) == 1


def test_a_log_is_begun_with_its_title_and_goes_on_with_times(tmp_path: Path) -> None:
    now = [datetime(2026, 11, 22, 13, 32, tzinfo=UTC)]
    documents = Documents(Folder(tmp_path), lambda: now[0], timezone(timedelta(hours=1)))

    assert documents.append_daily("Began.\n## With a heading")[:2] == (documents.today(), "14:32")
    now[0] += timedelta(minutes=28)
    documents.append_daily("Went on.")

    path = folder_of(documents) / log_name(documents.today())
    assert path.relative_to(tmp_path) == Path("daily/2026-11-22.md")
    assert path.stat().st_mode & 0o777 == 0o600
    assert documents.read_daily(documents.today()) == (
        "# 2026-11-22\n\n## 14:32\n\n- Began.\n  ## With a heading\n\n## 15:00\n\n- Went on.\n"
    )


def test_the_day_is_the_users_and_not_utcs(tmp_path: Path) -> None:
    late = datetime(2026, 11, 22, 23, 30, tzinfo=UTC)
    documents = Documents(Folder(tmp_path), lambda: late, timezone(timedelta(hours=1)))

    assert documents.append_daily("x")[:2] == (late.date() + timedelta(days=1), "00:30")
    assert documents.read_daily(late.date()) is None


def test_a_log_goes_on_whatever_a_hand_left_at_its_end(documents: Documents) -> None:
    path = folder_of(documents) / log_name(documents.today())
    path.parent.mkdir()

    path.write_bytes(b"By hand, no newline")
    documents.append_daily("one")
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    documents.append_daily("two")

    assert path.read_bytes() == (
        b"By hand, no newline\r\n\r\n## 12:00\r\n\r\n- one\r\n\r\n## 12:00\r\n\r\n- two\r\n"
    )


def test_a_blank_entry_makes_no_log(documents: Documents) -> None:
    with pytest.raises(InvalidInputError, match="`text` must not be blank"):
        documents.append_daily(" \n")

    assert documents.list_daily() == []


def test_days_are_listed_oldest_first_without_other_files(documents: Documents) -> None:
    documents.seed()
    for name in ("2026-11-22.md", "2026-02-30.md", "2025-01-01.md", "20261122.md", "notes.md", "a.txt"):
        (folder_of(documents) / "daily" / name).write_text("x", encoding="utf-8")

    assert [str(day) for day in documents.list_daily()] == ["2025-01-01", "2026-11-22"]
