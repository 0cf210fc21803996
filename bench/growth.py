"""What grows with the years: many logs, many threads, a very long MEMORY.md, long memories."""

import argparse
import random
import resource
import sys
import tempfile
from collections.abc import Callable
from contextlib import closing
from datetime import date, timedelta
from pathlib import Path
from time import perf_counter, sleep

from report import print_machine, print_table
from soulkeep.app import open_home
from soulkeep.models import NewMemory, Thread, timestamp, utc_now
from soulkeep.service.home import Home

ROUNDS = 30
CONTENT = 99_000
PER_LIST = 10
QUERY = "Which colour has the kettle?"


def milliseconds(work: Callable[[], object], rounds: int = ROUNDS) -> float:
    """Return how long a call takes on average."""
    begin = perf_counter()
    for _ in range(rounds):
        work()
    return (perf_counter() - begin) / rounds * 1_000


def peak() -> float:
    """Return the largest resident memory of this process so far, in MB."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def recall(home: Home) -> float:
    """Return how long one recall takes."""
    return milliseconds(lambda: home.memories.recall(QUERY), 1)


def measure_logs(home: Home, count: int) -> list[list[object]]:
    """Time recalls before logs are there, in the first call, while they are indexed, and later."""
    rows: list[list[object]] = [["recall, no logs", milliseconds(lambda: home.memories.recall(QUERY))]]
    for place in range(count):
        day = date(2026, 11, 1) - timedelta(days=place)
        text = f"# {day}\n\n## 10:00\n\n- Worked on part {place} of the harbour with Tom.\n"
        (home.path / "daily" / f"{day}.md").write_text(text, encoding="utf-8")
    home.entries.note_change()
    begin = perf_counter()
    rows.append([f"the first with {count:,} logs", recall(home)])
    slowest = 0.0
    while home.memories.recall(QUERY).remarks:
        slowest = max(slowest, recall(home))
        sleep(0.05)
    rows.append(["the slowest while they are indexed", slowest])
    rows.append(["until all are indexed", (perf_counter() - begin) * 1_000])
    return [*rows, ["later", milliseconds(lambda: home.memories.recall(QUERY))]]


def measure_threads(home: Home, count: int) -> list[list[object]]:
    """Time listing the latest ten of many threads."""
    now = timestamp(utc_now())
    with home.repository.recording():
        for place in range(count):
            home.repository.threads.add_thread(
                Thread(
                    f"{place:012x}",
                    f"Thread {place}",
                    None,
                    archived=False,
                    created_at=now,
                    last_active_at=now,
                )
            )
    return [[f"ten of {count:,} threads", milliseconds(lambda: home.threads.list_threads(10))]]


def measure_long_document(home: Home, megabytes: int) -> list[list[object]]:
    """Time the first recall with a very long MEMORY.md, and one after it is indexed."""
    line = "- The lantern number {} hangs over the copper door of the harbour.\n"
    with (home.path / "MEMORY.md").open("w", encoding="utf-8") as file:
        file.write("# Long-Term Memory\n\n## User Facts\n")
        file.writelines(line.format(place) for place in range(megabytes * 1_000_000 // len(line)))
    home.entries.note_change()
    rows: list[list[object]] = [[f"the first with a MEMORY.md of {megabytes} MB", recall(home)]]
    while any("still to be indexed" in remark for remark in home.memories.recall(QUERY).remarks):
        sleep(0.1)
    return [*rows, ["later", milliseconds(lambda: home.memories.recall(QUERY))]]


def measure_long_memories(home: Home, count: int) -> list[list[object]]:
    """Keep long memories of words that nothing repeats, and bring them back."""
    chance = random.Random(1)  # noqa: S311 - repeatable test data

    def text() -> str:
        letters = "".join(chance.choices("abcdefghijklmnopqrstuvwxyz", k=CONTENT))
        return " ".join(letters[at : at + 6] for at in range(0, CONTENT, 7))

    def keep() -> None:
        for _ in range(count // PER_LIST):
            home.memories.remember([NewMemory(text()) for _ in range(PER_LIST)])

    kept = milliseconds(keep, 1)
    return [[f"{count} memories of {CONTENT // 1000} kB kept", kept], ["a recall of them", recall(home)]]


def main() -> None:
    """Measure each in a home of its own and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--logs", type=int, default=3_650)
    parser.add_argument("--threads", type=int, default=20_000)
    options = parser.parse_args()
    print_machine()
    rows: list[list[object]] = []
    for measure, size in (
        (measure_logs, options.logs),
        (measure_threads, options.threads),
        (measure_long_document, 50),
        (measure_long_memories, 150),
    ):
        with tempfile.TemporaryDirectory() as folder, closing(open_home(Path(folder))) as home:
            home.serve()
            home.memories.remember([NewMemory("The kettle is green.")])
            recall(home)
            rows += [[*row, peak()] for row in measure(home, size)]
    print_table("A home in a server", ["", "ms", "peak MB"], rows)


if __name__ == "__main__":
    main()
