"""A home written out: a file of JSON lines with all that is in it, and pages in Markdown for people.

Each line of the file is a row of a table, or a document with its name; the first says what it is, and
the last has the SHA-256 of all before it. An empty home that takes it in is the same afterwards.
"""

import base64
import hashlib
import json
import os
import re
import secrets
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import chain, groupby, islice
from pathlib import Path
from typing import Any

from soulkeep.days import Days
from soulkeep.disk import make_folder, sync_folder
from soulkeep.documents import DOCUMENTS, Documents
from soulkeep.documents.files import original
from soulkeep.errors import InvalidInputError, SourceError
from soulkeep.imports.own import MARK, ROWS_FILE
from soulkeep.models import Clock, timestamp
from soulkeep.progress import tell
from soulkeep.repository import Repository
from soulkeep.repository.values import COLUMNS, DIMENSIONS, PLACE, THREAD_KEY
from soulkeep.wording import one_line, quoted

VERSION = 1
"""Of the form of the file; one of a later version is refused."""

_OF_USERS = ("memories", "threads", "messages", "global_prompts")
"""A home without rows in these is empty."""

_IN_PAGES = (*_OF_USERS, "threads", "sessions", "changed_rows", "changes")
"""The tables that are read again for pages."""

_PAGE = 200
"""So many rows are in memory at a time, the longest of them together a hundred megabytes."""
_TITLE = 50
"""Characters of a thread's title in the name of its page, which may have 255 bytes with its id."""
_DOCUMENT = re.compile(
    r"((history/)?(SOUL|MEMORY)\.md(/[\dTZ.:-]+\.md)?|daily/\d{4}-\d\d-\d\d\.md)", re.ASCII
)
_PART, _LOCK = "soulkeep-export", ".lock"
"""What an export is called while it is written, and what is locked meanwhile, in a folder beside it."""
_PLACE_OF_PART = re.compile(r"\.(.+)\.[0-9a-f]{8}\.part", re.DOTALL)
_FIRST = 1_000
"""Bytes of the first line in which the mark of an export is looked for."""
_UNSAFE = re.compile(r"[^\w -]+")
_FLOAT = 4


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written, or taken in: rows by table, how many documents and former texts of them."""

    path: Path
    rows: Mapping[str, int]
    documents: int
    former_texts: int


@dataclass(eq=False)
class Exports:
    """The service behind `soulkeep export`, and behind the import of what that wrote."""

    _repository: Repository
    _documents: Documents
    _clock: Clock
    _days: Days
    _read: int = field(default=0, init=False)
    """How many rows were read for the export that is being written, of `_to_read`."""
    _to_read: int = field(default=0, init=False)

    def write(self, target: Path) -> Exported:
        """Write the home to a new file that ends in .jsonl, or to a new folder with pages too.

        Its rows are of one moment, and it is there when it is whole; others may use the home meanwhile.

        Raises:
            InvalidInputError: There is something at `target` already, or it cannot be written.
            StoreError: The store cannot be read.
            DocumentError: A former text cannot be read.
        """
        target = Path(os.path.realpath(target.expanduser()))  # what a link leads to
        is_file = target.suffix.lower() == ".jsonl"
        try:
            with _part_beside(target) as part, self._repository.snapshot():
                _require_free(target)
                texts, tables = self._texts(), [*COLUMNS, *(() if is_file else _IN_PAGES)]
                self._read, self._to_read = 0, sum(map(self._repository.rows.count, tables))
                if is_file:
                    rows = self._write_rows(part, texts)
                else:
                    make_folder(part)
                    rows = self._write_rows(part / ROWS_FILE, texts)
                    self._write_pages(part, texts)
                tell("Exporting", 1)
                _require_free(target)  # this took its time
                if target.is_dir():
                    target.rmdir()  # on Windows nothing may take its place
                part.replace(target)
                sync_folder(target.parent)
        except OSError as error:
            raise InvalidInputError("path", f"{target} cannot be written ({error.strerror})") from error
        former = sum(name.startswith("history/") for name in texts)
        return Exported(target, rows, len(texts) - former, former)

    def is_empty_for(self, source: Path) -> bool:
        """Whether the home holds nothing of its own, or of its documents only what an export has."""
        counts = self._repository.count_rows()
        if any(counts[name] for name in _OF_USERS) or self._repository.changes.list_changes(1):
            return False
        coming = dict(_texts_in(source))
        there = self._texts()
        return all(
            text == coming.get(name) or (name in DOCUMENTS and text == original(name))
            for name, text in there.items()
        )

    def take_in(self, source: Path) -> Exported:
        """Make an empty home what an export says, all of it or nothing.

        Raises:
            SourceError: The file is not whole, or of a later version.
            StoreError: The store cannot be written.
            DocumentError: A document cannot be written.
        """
        about = _checked(source)
        counts = Counter[str]()
        with self._documents.texts.locked(), self._repository.recording():
            self._repository.rows.clear()
            for table, page in _pages(source):
                self._repository.rows.add(table, page)
                counts[table] += len(page)
            self._repository.rows.continue_ids(about["ids"])
            self._repository.rebuild_full_text()
            # Before the rows are there for good: a home that has these still counts as empty.
            coming = dict(_texts_in(source))
            former = {name: text for name, text in coming.items() if name.startswith("history/")}
            found = {name: text for name, text in coming.items() if name not in former}
            self._documents.replace_all(found, self._documents.read_all()[0], ())
            for name in set(self._documents.list_history()) - former.keys():
                self._documents.texts.remove(name)
            for name, text in former.items():
                self._documents.texts.put(name, text)
        return Exported(source, counts, len(found), len(former))

    def _texts(self) -> dict[str, bytes]:
        """Return documents and their former texts by their names in the home."""
        return self._documents.read_all()[0] | dict(self._documents.read_history())

    def _write_rows(self, path: Path, texts: Mapping[str, bytes]) -> dict[str, int]:
        rows, counts, digest = self._repository.rows, Counter[str](), hashlib.sha256()
        about = {MARK: VERSION, "made_at": timestamp(self._clock()), "ids": rows.last_ids()}
        with _new(path) as file:

            def put(lines: Iterable[Mapping[str, Any]]) -> None:
                for line in lines:
                    written = json.dumps(line, ensure_ascii=False) + "\n"
                    encoded = written.encode("utf-8", "surrogatepass")
                    digest.update(encoded)
                    file.write(encoded)

            put([about])
            for table in COLUMNS:
                for page in self._rows(table):
                    put({"table": table, "row": row} for row in page)
                    counts[table] += len(page)
            put(_line_of(name, text) for name, text in texts.items())
            file.write(f'{{"sha256": "{digest.hexdigest()}"}}\n'.encode())
        return dict(counts)

    def _rows(self, table: str) -> Iterator[list[dict[str, Any]]]:
        """Yield the rows of a table by columns, some at a time."""
        keys, others = COLUMNS[table]
        after: Sequence[Any] = ()
        while page := self._repository.rows.read(table, after, _PAGE):
            after = page[-1][: len(keys)]
            self._read += len(page)
            tell("Exporting", min(self._read / self._to_read, 1))
            rows = [dict(zip((*keys, *others), row, strict=True)) for row in page]
            for row in rows:
                row.pop(PLACE, None)
                if isinstance(vector := row.get("content_embedding"), bytes):
                    row["content_embedding"] = _packed(vector)
            yield rows

    def _all(self, table: str) -> Iterator[dict[str, Any]]:
        return chain.from_iterable(self._rows(table))

    def _write_pages(self, folder: Path, texts: Mapping[str, bytes]) -> None:
        for name, text in texts.items():
            make_folder((folder / name).parent, parents=True)
            with _new(folder / name) as file:
                file.write(text)
        titles = {row["id"]: row["title"] for row in self._all("threads")}
        kept = (row for row in self._all("memories") if row["document"] is None)
        for month, rows in groupby(kept, lambda row: str(row["created_at"])[:7]):
            self._page(
                folder / "memories" / f"{month}.md",
                f"Memories kept in {month}",
                (self._memory(row, titles) for row in rows),
            )
        self._write_threads(folder / "threads")
        self._page(folder / "prompts.md", "Global prompts", map(_prompt, self._all("global_prompts")))
        former = map(_former, self._all("changed_rows"))
        self._page(folder / "former.md", "What was changed or deleted", filter(None, former))
        self._page(folder / "changes.md", "Changes", map(self._changes, self._rows("changes")))
        self._page(folder / "README.md", "An export of soulkeep", [_README.format(file=ROWS_FILE)])

    def _page(self, path: Path, title: str, parts: Iterable[str]) -> None:
        """Add parts to a page, which begins with its title; without any there is no page."""
        parts = iter(parts)
        if (first := next(parts, None)) is None:
            return
        make_folder(path.parent)
        with _new(path, append=True) as file:
            if not file.tell():
                file.write(f"# {title}\n".encode())
            for part in chain([first], parts):
                file.write(f"\n{part}\n".encode("utf-8", "replace"))

    def _write_threads(self, folder: Path) -> None:
        minute, said = self._days.minute_text, dict[str, Path]()
        sessions = {row["id"]: row["session_key"] for row in self._all("sessions")}
        for row in self._all("threads"):
            name = " ".join(_UNSAFE.sub("", f"{row['title'][:_TITLE]} {row['id']}").split())
            path = said[THREAD_KEY + row["id"]] = folder / f"{name}.md"
            state = f"Begun {minute(row['created_at'])}{', archived' if row['archived'] else ''}"
            prompt = row["system_prompt"]
            about = [state, *([f"Its system prompt:\n\n{_cited(prompt)}"] if prompt else [])]
            self._page(path, one_line(row["title"]), about)
        for session, rows in groupby(self._all("messages"), lambda row: row["session_id"]):
            if (of_thread := said.get(sessions.get(session, ""))) is not None:
                parts = (
                    f"**{row['role']}**, {minute(row['created_at'])}:\n\n{_cited(row['content'])}"
                    for row in rows
                )
                self._page(of_thread, "", parts)

    def _memory(self, row: Mapping[str, Any], titles: Mapping[str, str]) -> str:
        said = {
            "about": row["subject"],
            "thread": titles.get(row["thread_id"], row["thread_id"]),
            "from": row["source"],
            "of": row["occurred_at"] and self._days.minute_text(row["occurred_at"]),
            "until": row["expires_at"] and self._days.minute_text(row["expires_at"]),
        }
        named = "; ".join(f"{name} {one_line(str(value))}" for name, value in said.items() if value)
        head = f"## {row['id']} {row['memory_type']}, {self._days.minute_text(row['created_at'])}"
        return "\n\n".join(part for part in (head, named, _cited(row["content"])) if part)

    def _changes(self, rows: Sequence[Mapping[str, Any]]) -> str:
        lines = []
        for row in rows:
            made = self._days.minute_text(row["made_at"])
            undone = f", undone by {row['undone_by']}" if row["undone_by"] else ""
            lines.append(f"- {row['id']}: {row['action']} by {row['agent_id']}, {made}{undone}")
        return "\n".join(lines)


_README = """Written by `soulkeep export`. The documents are as they were, with their former texts in
`history/`; memories are in `memories/` by the month they were kept in, threads with their messages in
`threads/`.

`{file}` has everything, also what was deleted and can still be brought back: `soulkeep import` of it, or
of this folder, makes an empty home the same, and adds to another what it lacks."""


def _require_free(target: Path) -> None:
    """Check that nothing is at a place, or an empty folder.

    Raises:
        InvalidInputError: There is.
    """
    if target.exists() and not (target.is_dir() and not any(target.iterdir())):
        raise InvalidInputError("path", f"{target} is there already; name a new file or folder")


@contextmanager
def _part_beside(target: Path) -> Iterator[Path]:
    """Name a place for what becomes the target, on its disk, and remove it after the block.

    It is in a folder of its own, which is locked while it is in use: the end of the process unlocks it,
    however it ends.
    """
    from filelock import FileLock

    make_folder(target.parent, parents=True)
    drop_unfinished(target.parent, target.name)
    folder = target.parent / f".{target.name}.{secrets.token_hex(4)}.part"
    folder.mkdir(mode=0o700)
    try:
        with FileLock(folder / _LOCK, mode=0o600):
            yield folder / _PART
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def list_unfinished(folder: Path, name: str | None = None) -> list[Path]:
    """Return what killed exports left: of those to a name in a folder, or of all in it and below.

    What anybody else put there is none of it, and neither is what is being written.
    """
    from filelock import FileLock, Timeout

    places, found = list[Path](), list[Path]()
    with suppress(OSError):  # where nothing can be listed, nothing can be removed
        places = sorted(folder.rglob("*.part") if name is None else folder.glob("*.part"))
    for place in places:
        form = _PLACE_OF_PART.fullmatch(place.name)
        if not form or name not in (None, form[1]) or place.is_symlink():
            continue
        with suppress(Timeout, OSError):
            if {_LOCK} <= {inside.name for inside in place.iterdir()} <= {_LOCK, _PART}:
                with FileLock(place / _LOCK, timeout=0):
                    found.append(place)
    return found


def drop_unfinished(folder: Path, name: str | None = None) -> list[Path]:
    """Remove what `list_unfinished` returns, and return what of it is gone."""
    found = list_unfinished(folder, name)
    for place in found:
        shutil.rmtree(place, ignore_errors=True)
    return [place for place in found if not place.exists()]


def export_file(path: Path) -> Path | None:
    """Return the file with all rows of an export, given that or its folder; None for anything else."""
    file = path / ROWS_FILE if path.is_dir() else path
    try:
        with file.open("rb") as stream:
            return file if stream.readline(_FIRST).startswith(f'{{"{MARK}"'.encode()) else None
    except OSError:
        return None


def _line_of(name: str, content: bytes) -> dict[str, str]:
    try:
        return {"document": name, "text": content.decode()}
    except UnicodeDecodeError:
        return {"document": name, "base64": base64.b64encode(content).decode()}


def _packed(vector: bytes) -> str:
    """Write a vector without the zeros that it was padded with, as base64 of little-endian float32."""
    bare = vector.rstrip(b"\0")
    return base64.b64encode(bare.ljust(-(-len(bare) // _FLOAT) * _FLOAT, b"\0")).decode()


@contextmanager
def _new(path: Path, *, append: bool = False) -> Iterator[Any]:
    with path.open("ab" if append else "xb") as file:
        path.chmod(0o600)
        yield file


def _cited(text: str) -> str:
    return "\n".join(f"> {line}" for line in text.split("\n"))


def _prompt(row: Mapping[str, Any]) -> str:
    state = "on" if row["is_active"] else "off"
    return (
        f"## {one_line(row['name'])}\n\nPriority {row['priority']}, {state}\n\n{_cited(row['content'])}"
    )


def _former(row: Mapping[str, Any]) -> str | None:
    """Return what a row said before a change of it; None where there was nothing."""
    before = json.loads(row["before"]) if row["before"] else {}
    text = before.get("content") or before.get("system_prompt") or before.get("title")
    kind = row["kind"].replace("_", " ").removesuffix("s").replace("memorie", "memory")
    return (
        f"## Before change {row['change_id']}, {kind} {row['key']}\n\n{_cited(text)}" if text else None
    )


def _lines(path: Path, *, told: bool = False) -> Iterator[dict[str, Any]]:
    """Yield the lines of an export between the first and the last; tell how far that is, if wanted.

    Raises:
        SourceError: One is neither a row nor a document.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        done = len(next(file))
        for number, written in enumerate(file, start=2):
            done += len(written)
            if told:
                tell("Importing", done / size)
            try:
                line = json.loads(written.decode("utf-8", "surrogatepass"))
            except ValueError:
                line = None
            match line:
                case {"table": str(), "row": dict() as row} if not any(
                    isinstance(value, dict | list) for value in row.values()
                ):
                    yield line
                case {"document": str(), "text": str()} | {"document": str(), "base64": str()}:
                    yield line
                case {"sha256": _}:
                    continue
                case _:
                    raise SourceError(path, f"line {number} of it is none of an export", "export again")


def _bytes(path: Path, written: object) -> bytes:
    """Read base64.

    Raises:
        SourceError: It is none.
    """
    try:
        return base64.b64decode(str(written), validate=True)
    except ValueError as error:
        raise SourceError(
            path, f"there is no base64 where it has to be ({error})", "export again"
        ) from error


def _checked(path: Path) -> dict[str, Any]:
    """Return the first line of an export, having read all of it.

    Raises:
        SourceError: It is not whole, or of a later version.
    """
    digest, last = hashlib.sha256(), b""
    try:
        with path.open("rb") as file:
            about = json.loads(file.readline())
            file.seek(0)
            for line in file:
                digest.update(last)
                last = line
    except (OSError, ValueError) as error:
        raise SourceError(path, str(error), "name what `soulkeep export` wrote") from error
    match about:
        case {"ids": dict() as ids} if all(isinstance(last_id, int) for last_id in ids.values()):
            version = about.get(MARK)
        case _:
            version = None
    if not isinstance(version, int):
        raise SourceError(path, "its first line is none of an export", "export again")
    if version > VERSION:
        raise SourceError(path, f"it is of version {version}", "upgrade soulkeep")
    if last.strip() != f'{{"sha256": "{digest.hexdigest()}"}}'.encode():
        remedy = "export again, or add what is there with --format soulkeep"
        raise SourceError(path, "it ends too soon, or was changed", remedy)
    return dict(about)


def _texts_in(path: Path) -> Iterator[tuple[str, bytes]]:
    """Yield the documents of an export with their names in a home.

    Raises:
        SourceError: A name is none that a document can have.
    """
    for line in _lines(path):
        if (name := line.get("document")) is not None:
            if not _DOCUMENT.fullmatch(name):
                raise SourceError(path, f"{quoted(name)} is no name of a document", "export again")
            yield name, line["text"].encode() if "text" in line else _bytes(path, line["base64"])


def _pages(path: Path) -> Iterator[tuple[str, Sequence[Sequence[Any]]]]:
    """Yield the rows of an export table by table, some at a time, as `repository.Rows` takes them."""
    rows = (line for line in _lines(path, told=True) if line.get("table") in COLUMNS)
    for table, group in groupby(rows, lambda line: str(line["table"])):
        names = list(chain(*COLUMNS[table]))
        while page := [_values(path, line["row"], names) for line in islice(group, _PAGE)]:
            yield table, page


def _values(path: Path, row: Mapping[str, Any], names: Sequence[str]) -> list[Any]:
    vector = row.get("content_embedding")
    if vector is None:
        return [row.get(name) for name in names]
    whole = _bytes(path, vector).ljust(_FLOAT * DIMENSIONS, b"\0")
    return [row.get("memory_id"), whole]
