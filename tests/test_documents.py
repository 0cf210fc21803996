"""SOUL.md and MEMORY.md on the disk: seeded once, then the user's."""

from pathlib import Path

import pytest

from soulkeep.documents import Documents, Folder
from soulkeep.errors import DocumentError

ORIGINALS = Path(__file__).parents[1] / "memory_files"


@pytest.mark.parametrize("name", ["SOUL.md", "MEMORY.md"])
def test_first_use_copies_the_shipped_original_byte_for_byte(name: str, tmp_path: Path) -> None:
    assert Documents(Folder(tmp_path)).seed() == ["SOUL.md", "MEMORY.md"]

    assert (tmp_path / name).read_bytes() == (ORIGINALS / name).read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["MEMORY.md", "SOUL.md", "daily"]


def test_a_document_of_the_users_is_never_overwritten(tmp_path: Path) -> None:
    (tmp_path / "SOUL.md").write_text("Mine.", encoding="utf-8")
    documents = Documents(Folder(tmp_path))

    assert documents.seed() == ["MEMORY.md"]
    assert documents.seed() == []

    assert documents.read("SOUL.md") == "Mine."


def test_a_document_is_read_fresh_each_time(tmp_path: Path) -> None:
    documents = Documents(Folder(tmp_path))
    documents.seed()

    (tmp_path / "MEMORY.md").write_text("# Edited\r\nby hand: ü", encoding="utf-8", newline="")

    assert documents.read("MEMORY.md") == "# Edited\r\nby hand: ü"


def test_a_document_that_was_deleted_is_seeded_again(tmp_path: Path) -> None:
    documents = Documents(Folder(tmp_path))
    documents.seed()
    (tmp_path / "SOUL.md").unlink()

    assert documents.read("SOUL.md").startswith("# Agent Identity")


def test_a_file_that_appears_while_seeding_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    documents = Documents(Folder(tmp_path))
    monkeypatch.setattr("os.path.lexists", lambda _: False)
    (tmp_path / "SOUL.md").write_text("Just written by another process.", encoding="utf-8")

    assert documents.seed() == ["MEMORY.md"]

    monkeypatch.undo()
    assert documents.read("SOUL.md") == "Just written by another process."
    assert list(tmp_path.glob(".*")) == []


def test_bytes_that_are_not_utf_8_are_an_error_that_leaves_the_file_alone(tmp_path: Path) -> None:
    (tmp_path / "SOUL.md").write_bytes(b"caf\xe9")

    with pytest.raises(DocumentError, match="byte 3 is not UTF-8"):
        Documents(Folder(tmp_path)).read("SOUL.md")

    assert (tmp_path / "SOUL.md").read_bytes() == b"caf\xe9"


def test_a_folder_or_a_dangling_link_in_a_documents_place_is_an_error_that_leaves_it_alone(
    tmp_path: Path,
) -> None:
    (tmp_path / "SOUL.md").mkdir()
    (tmp_path / "MEMORY.md").symlink_to(tmp_path / "gone")
    documents = Documents(Folder(tmp_path))

    assert documents.seed() == []
    for name in ("SOUL.md", "MEMORY.md"):
        with pytest.raises(DocumentError, match=name):
            documents.read(name)

    assert (tmp_path / "SOUL.md").is_dir()
    assert (tmp_path / "MEMORY.md").is_symlink()


def test_a_home_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "daily").write_text("in the way", encoding="utf-8")

    with pytest.raises(DocumentError, match="SOULKEEP_HOME"):
        Documents(Folder(tmp_path)).seed()


def test_a_file_system_without_links_is_seeded_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr("os.link", refuse)

    assert Documents(Folder(tmp_path)).seed() == ["SOUL.md", "MEMORY.md"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["MEMORY.md", "SOUL.md", "daily"]
