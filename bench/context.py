"""How long a context and a recall take over a long MEMORY.md and a year of daily logs."""

import argparse
import random
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from datetime import timedelta
from pathlib import Path

from report import print_machine, print_table
from soulkeep.app import open_home
from soulkeep.documents import log_name
from soulkeep.service.home import Home

ROUNDS = 5
DAYS = 365
WORDS = (
    "the user likes tea and coffee while working on a project with deadline budget meeting Anna Lisbon "
    "garden python server cache index oak kitchen violin train ticket friend doctor school river"
).split()


def write_documents(home: Home, megabytes: float, chance: random.Random) -> None:
    """Write a MEMORY.md of this size with a heading every hundred entries, and a log for each day."""
    text = ["# Long-Term Memory\n"]
    size = 0
    while size < megabytes * 1_000_000:
        entries = "".join(f"- {_sentence(chance)}\n" for _ in range(100))
        text.append(f"\n## Section {len(text)}\n\n{entries}")
        size += len(text[-1])
    (home.path / "MEMORY.md").write_text("".join(text), encoding="utf-8")
    for back in range(DAYS):
        day = home.documents.today() - timedelta(days=back)
        entries = "".join(f"\n## {hour:02}:15\n\n- {_sentence(chance)}\n" for hour in range(9, 14))
        (home.path / log_name(day)).write_text(f"# {day}\n{entries}", encoding="utf-8")


def edit_by_hand(home: Home, number: int) -> None:
    """Change one line in the middle of MEMORY.md."""
    path = home.path / "MEMORY.md"
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    lines[len(lines) // 2] = f"- Edited by hand, number {number}.\n"
    path.write_text("".join(lines), encoding="utf-8")


def measure(home: Home) -> list[list[object]]:
    """Return rows of a table: what was done, the first time and the median of the later ones, in ms."""
    rows = [
        _row("get_context", lambda _: home.contexts.assemble(query="violin in the garden")),
        _row("recall", lambda _: home.memories.recall("violin in the garden")),
    ]

    def edited(work: Callable[[], object]) -> Callable[[int], None]:
        return lambda number: _after_edit(home, number, work)

    for name, work in (
        ("recall after a hand edit", lambda: home.memories.recall("edited by hand")),
        ("get_context after a hand edit", lambda: home.contexts.assemble(query="edited by hand")),
    ):
        rows.append(_row(name, edited(work), prepare=lambda number: edit_by_hand(home, number)))
    return rows


def _after_edit(home: Home, number: int, work: Callable[[], object]) -> None:
    work()
    (found,) = home.memories.recall("edited by hand", limit=1).matches
    if found.memory.content != f"Edited by hand, number {number}.":
        raise SystemExit("an edit by hand was not found")


def _row(
    name: str, work: Callable[[int], object], prepare: Callable[[int], object] = lambda _: None
) -> list[object]:
    times = []
    for number in range(ROUNDS + 1):
        prepare(number)
        begun = time.perf_counter()
        work(number)
        times.append((time.perf_counter() - begun) * 1000)
    first, *later = times
    return [name, first, sorted(later)[len(later) // 2]]


def _sentence(chance: random.Random) -> str:
    return " ".join(chance.choices(WORDS, k=18)) + f" {chance.randrange(10**6)}."


def main() -> None:
    """Measure and print; an edit that is not found makes the exit code non-zero."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=float, default=1.5, help="size of MEMORY.md")
    options = parser.parse_args()
    print_machine()
    with (
        tempfile.TemporaryDirectory() as folder,
        closing(open_home(Path(folder) / "home")) as home,
    ):
        write_documents(home, options.megabytes, random.Random(1))  # noqa: S311 - repeatable test data
        rows = measure(home)
    title = f"MEMORY.md of {options.megabytes:g} MB and {DAYS} logs, milliseconds"
    print_table(title, ["", "first", "later, median"], rows)


if __name__ == "__main__":
    main()
