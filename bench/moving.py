"""Moving in: how many records a second are taken in from each kind of source, and in how much memory.

Each run is a process of its own, as the user starts it. One is killed half-way, and goes on.
"""

import argparse
import csv
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, suppress
from pathlib import Path
from time import perf_counter, sleep

import apsw

from report import print_machine, print_table

COMMAND = Path(sys.executable).with_name("soulkeep")
WORDS = """harbour kettle ledger kitchen train garden window letter market bridge river coffee winter
project meeting budget release server backup colour paint travel doctor school music violin""".split()
PER_CHAT = 20
TARGET, TARGET_MIB = 3_000, 300


def sentence(place: int) -> str:
    """Return a text of usual length that no other place has."""
    choice = random.Random(place)  # noqa: S311 - no secret
    return f"{place}: {' '.join(choice.choices(WORDS, k=12))}."


def lines(values: Iterator[object]) -> str:
    """Write values as JSON Lines."""
    return "".join(json.dumps(value) + "\n" for value in values)


def graph(path: Path, count: int) -> Path:
    """Write a memory.jsonl of the official memory server."""
    entities = (
        {
            "type": "entity",
            "name": f"Entity {place}",
            "entityType": "thing",
            "observations": [sentence(place + step) for step in range(10)],
        }
        for place in range(0, count, 10)
    )
    path.write_text(lines(entities), encoding="utf-8")
    return path


def mem0(path: Path, count: int) -> Path:
    """Write an export of mem0."""
    memories = [
        {"id": str(n), "memory": sentence(n), "user_id": "anna", "created_at": "2026-01-02T03:04:05Z"}
        for n in range(count)
    ]
    path.write_text(json.dumps({"results": memories}), encoding="utf-8")
    return path


def table(path: Path, count: int) -> Path:
    """Write a CSV."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["content", "tags", "created_at", "rating"])
        writer.writerows([sentence(n), "home,work", "2026-01-02", n % 5] for n in range(count))
    return path


def notes(path: Path, count: int) -> Path:
    """Write a vault of notes with 50 entries each."""
    path.mkdir()
    for first in range(0, count, 50):
        entries = "".join(f"- {sentence(first + step)}\n" for step in range(50))
        head = f"---\ntags: [home]\ncreated: 2026-01-02\n---\n# Note {first}\n\n"
        (path / f"note-{first}.md").write_text(head + entries, encoding="utf-8")
    return path


def database(path: Path, count: int) -> Path:
    """Write the table of mcp-memory-service's database that is read."""
    with closing(apsw.Connection(str(path))) as connection, connection:
        connection.execute(
            "CREATE TABLE memories (id INTEGER PRIMARY KEY, content_hash TEXT UNIQUE, content TEXT,"
            " tags TEXT, memory_type TEXT, metadata TEXT, created_at REAL, deleted_at REAL)"
        )
        connection.executemany(
            "INSERT INTO memories VALUES (NULL, ?, ?, 'home', 'observation', '{}', 1767225600, NULL)",
            ((f"{n:064x}", sentence(n)) for n in range(count)),
        )
    return path


def conversation(place: int, filling: str) -> dict[str, object]:
    """Return a conversation as ChatGPT exports it."""
    nodes: dict[str, object] = {}
    for step in range(PER_CHAT):
        key = f"{place}-{step}"
        message = {
            "id": key,
            "author": {"role": "user" if step % 2 == 0 else "assistant"},
            "create_time": 1_767_225_600 + step,
            "content": {"content_type": "text", "parts": [sentence(PER_CHAT * place + step) + filling]},
        }
        before, after = f"{place}-{step - 1}" if step else None, f"{place}-{step + 1}"
        children = [after] if step + 1 < PER_CHAT else []
        nodes[key] = {"id": key, "message": message, "parent": before, "children": children}
    last = f"{place}-{PER_CHAT - 1}"
    return {
        "conversation_id": str(place),
        "title": f"Chat {place}",
        "mapping": nodes,
        "current_node": last,
    }


def chats(path: Path, count: int, filling: str = "") -> Path:
    """Write the .zip that ChatGPT exports, with so many messages."""
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open("conversations.json", "w", force_zip64=True) as file,
    ):
        for place in range(count // PER_CHAT):
            text = json.dumps(conversation(place, filling))
            file.write(f"{',' if place else '['}{text}".encode())
        file.write(b"]")
    return path


def records(path: Path, count: int, filling: str = "") -> Path:
    """Write JSON Lines."""
    with path.open("w", encoding="utf-8") as file:
        file.writelines(f"{json.dumps({'content': sentence(n) + filling})}\n" for n in range(count))
    return path


def large(work: Path, megabytes: int) -> list[list[object]]:
    """Import and export a few long conversations and many short records of so many megabytes."""
    filling, rows = f" {' '.join(WORDS)}" * 40, list[list[object]]()
    long, short = (megabytes * 1_000_000 // (len(one) + 300) for one in (filling, filling[:200]))
    for name, source, count in (
        ("conversations", chats(work / "large.zip", long, filling), long),
        ("records", records(work / "large.jsonl", short, filling[:200]), short),
    ):
        home = work / f"home-large-{name}"
        for doing, arguments in (
            ("shown", ("import", source, "--dry-run")),
            ("imported", ("import", source)),
            ("exported", ("export", work / f"export-{name}")),
            ("undone", ("undo", "--yes")),
        ):
            seconds, memory = run(home, *arguments)
            rows.append(
                [f"{megabytes:,} MB of {name}, {doing}", seconds, round(count / seconds), memory]
            )
    return rows


def start(home: Path, *arguments: object) -> subprocess.Popen[bytes]:
    """Start the command as a user does."""
    command = [str(COMMAND), *map(str, arguments), "--home", str(home)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def run(home: Path, *arguments: object) -> tuple[float, float]:
    """Run the command; return how many seconds it took, and MiB of its memory at most."""
    begin = perf_counter()
    process = start(home, *arguments)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{arguments} ended with {process.returncode}")
    unit = 1024 * 1024 if sys.platform == "darwin" else 1024
    return perf_counter() - begin, usage.ru_maxrss / unit


def counts(home: Path) -> tuple[int, int, int]:
    """Return how many memories, messages and changes in force a home has."""
    flags = apsw.SQLITE_OPEN_READONLY
    with closing(apsw.Connection(str(home / "soulkeep.db"), flags=flags)) as connection:
        connection.set_busy_timeout(10_000)
        (row,) = connection.execute(
            "SELECT (SELECT count(*) FROM memories), (SELECT count(*) FROM messages),"
            " (SELECT count(*) FROM changes WHERE undone_by IS NULL AND action <> 'undo')"
        )
    return row[0], row[1], row[2]


def measure(work: Path, name: str, source: Path, count: int) -> list[list[object]]:
    """Import a source, import it again, and undo that."""
    home = work / f"home-{name}"
    rows: list[list[object]] = []
    for doing, arguments in (
        ("first time", ("import", source)),
        ("nothing new", ("import", source)),
        ("undo", ("undo", "--yes")),
    ):
        seconds, memory = run(home, *arguments)
        rows.append([f"{name}, {doing}", seconds, round(count / seconds), memory])
    if counts(home)[:2] != (0, 0):
        raise SystemExit(f"{name}: not all was undone")
    return rows


def kill(work: Path, source: Path, count: int) -> list[list[object]]:
    """Kill an import half-way, and go on."""
    home, begin = work / "home-killed", perf_counter()
    process = start(home, "import", source)
    half = 0
    while half < count // 2:
        sleep(0.1)
        with suppress(apsw.Error):  # until the store is there
            half = sum(counts(home)[:2])
    process.send_signal(signal.SIGKILL)
    process.wait()
    half, took = sum(counts(home)[:2]), perf_counter() - begin
    seconds, memory = run(home, "import", source)
    memories, messages, changes = counts(home)
    if memories + messages != count or changes != 1:
        raise SystemExit(f"after the kill: {memories} memories, {messages} messages, {changes} changes")
    rest = count - half
    return [
        [f"killed after {half:,}", took, round(half / took), None],
        [f"gone on, {rest:,} left", seconds, round(rest / seconds), memory],
    ]


def main(arguments: Sequence[str] | None = None) -> None:
    """Print seconds, records a second and memory for each kind of source."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=int, default=100_000)
    parser.add_argument(
        "--megabytes", type=int, default=0, help="of further sources, imported, exported and undone"
    )
    options = parser.parse_args(arguments)
    count: int = options.records
    kinds: dict[str, Callable[[Path, int], Path]] = {
        "memory.jsonl": graph,
        "mem0.json": mem0,
        "table.csv": table,
        "notes": notes,
        "sqlite_vec.db": database,
        "chatgpt.zip": chats,
    }
    print_machine()
    headings = ("source", "seconds", "records a second", "MiB at most")
    with tempfile.TemporaryDirectory() as folder:
        work, rows = Path(folder), list[list[object]]()
        for name, make in kinds.items():
            source = make(work / name, count)
            rows += measure(work, name, source, count)
        rows += kill(work, work / "mem0.json", count)
        title = f"{count:,} records (bars: {TARGET:,} a second, {TARGET_MIB} MiB)"
        print_table(title, headings, rows)
        if options.megabytes:
            print_table("A large source", headings, large(work, options.megabytes))


if __name__ == "__main__":
    main()
