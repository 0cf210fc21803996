"""How the vector half of recall grows with the store, beside a brute-force query of the same store.

The store's vectors vary those of a few hundred real texts, as in `filling`; the questions' are real.
"""

import argparse
import random
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from math import ceil, floor, log10
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np

from filling import Filling
from report import print_machine, print_table
from soulkeep.embedders import choose_embedder
from soulkeep.models import Embedding, MemoryFilter, QueryVector
from soulkeep.repository.sqlite.database import Database
from soulkeep.repository.sqlite.indexes import VectorTable
from soulkeep.repository.sqlite.scan import VectorScan
from soulkeep.repository.sqlite.schema import bootstrap
from soulkeep.repository.values import padded

LIMIT = 10
COMPARED = 50
THREADS = 1_000
"""Memories take turns in so many threads: a thread holds 0.1 % of them."""

PARTS = (384, 512)
BATCH = 5_000
TYPES = ("fact", "preference", "decision", "summary")
WHO = (
    "Ada Bruno Chidi Dana Emil Farah Goran Hana Ivo Jun Kira Luis Mina Noor Olga Pavel Quinn Rosa Sven"
).split()
DOES = (
    "prefers,bought,cancelled,repaired,explained,postponed,dislikes,painted,measured,translated,ordered,"
    "lost,praised,rebuilt,forgot,sold,compared,renewed,photographed,recommends"
).split(",")
WHAT = (
    "the electric bicycle,an almond cake,the database index,a train to Lisbon,the tax return,her violin,"
    "the login page,a garden fence,the swimming course,green tea,the insurance contract,a wool coat,"
    "the weather station,the parser tests,a chess club,the heating bill,an old camera,the vaccine card,"
    "the build server,a novel about whales,the dentist,a ceramic bowl,the night shift,the solar panels,"
    "the payroll script,a pair of skis,the school play,an olive tree,the guest list,the fuel pump"
).split(",")
WHY = (
    "after the storm,for the anniversary,since the price rose,before the audit,without telling anyone,"
    "on the doctor's advice,as a surprise,because of the noise,during the holidays,for the second time,"
    "with great care,to help a neighbour,in the old town,at the last minute,against all advice,"
    "while it rained,for half the price,with the new team,after a long talk,to save energy"
).split(",")

Embed = Callable[[Sequence[str]], list[Embedding]]


@dataclass(frozen=True)
class Result:
    """What was measured at one size; times are medians in ms, memory is this process's own in MB."""

    rows: int
    brute: float
    scan: float
    compare: float
    recall: float
    load: float
    brute_filtered: float
    scan_filtered: float
    memory: float | None

    @property
    def cells(self) -> list[object]:
        """The row of the table."""
        times = (self.brute, self.scan, self.brute / self.scan, self.compare)
        filtered = (self.brute_filtered, self.scan_filtered)
        return [f"{self.rows:,}", *times, f"{self.recall:.3f}", self.load, *filtered, self.memory]


HEADINGS = [
    "rows",
    "brute ms",
    "scan ms",
    "brute / scan",
    "by parts ms",
    f"recall@{LIMIT}",
    "load ms",
    "0.1 %: brute ms",
    "0.1 %: scan ms",
    "own MB",
]


def sentence(chance: random.Random) -> str:
    """Return a memory's text."""
    who, does, what, why = map(chance.choice, (WHO, DOES, WHAT, WHY))
    return f"{who} {does} {what} {why}, note {chance.randrange(10**6)}."


def question(chance: random.Random) -> str:
    """Return a question about what sentences say."""
    who, what, why = map(chance.choice, (WHO, WHAT, WHY))
    return chance.choice((f"What did {who} do about {what}?", f"Who {why} got {what}?", f"{what} {why}"))


def choose_source(*, at_random: bool) -> tuple[str, Embed, Embed]:
    """Return an embedder's identity, what makes the store's vectors and what a question's.

    They are random unit vectors where there is no embedder.
    """
    embedder = None if at_random else choose_embedder("auto")
    if embedder is not None:
        filling = Filling()
        return (
            embedder.identity,
            lambda texts: list(filling.embed(texts).embeddings),
            lambda texts: list(embedder.embed(texts).embeddings),
        )
    generator = np.random.default_rng(11)

    def embed(texts: Sequence[str]) -> list[Embedding]:
        vectors = generator.standard_normal((len(texts), sum(PARTS))).astype("<f4")
        return [(vector / np.linalg.norm(vector)).astype("<f4").tobytes() for vector in vectors]

    return f"random:{sum(PARTS)}:unit", embed, embed


def prepare_store(database: Database, identity: str) -> None:
    """Make the tables and the threads, and record whose vectors these are."""
    bootstrap(database)
    with database.transaction():
        database.execute("INSERT INTO store_facts (name, value) VALUES ('embedder', ?)", (identity,))
        for number in range(THREADS):
            database.execute(
                "INSERT INTO threads (id, title, created_at, last_active_at) VALUES (?, ?, '', '')",
                (f"t{number}", f"Thread {number}"),
            )


def fill(database: Database, begin: int, end: int, embed: Embed, chance: random.Random) -> None:
    """Add memories `begin` to `end` with their vectors, in large transactions."""
    for first in range(begin, end, BATCH):
        numbers = range(first, min(first + BATCH, end))
        texts = [sentence(chance) for _ in numbers]
        embeddings = embed(texts)
        with database.transaction(durable=False):
            for number, text, embedding in zip(numbers, texts, embeddings, strict=True):
                day = f"2026-{1 + number // 28 % 12:02}-{1 + number % 28:02}T12:00:00.000Z"
                database.execute(
                    "INSERT INTO memories (id, thread_id, content, memory_type, created_at)"
                    " VALUES (?, ?, ?, ?, ?)",
                    (number + 1, f"t{number % THREADS}", text, TYPES[number % 4], day),
                )
                database.execute(
                    "INSERT INTO vec_memories (memory_id, content_embedding) VALUES (?, ?)",
                    (number + 1, padded(embedding)),
                )


def timed(search: Callable[[], Any]) -> tuple[float, Any]:
    """Return how long a call took in ms, and its result."""
    began = perf_counter()
    result = search()
    return (perf_counter() - began) * 1000, result


def own_memory() -> float | None:
    """Return this process's memory in MB without pages of files, such as the mapped store."""
    if sys.platform != "linux":
        return None
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) / 1024
    return None


def by_parts(vectors: VectorScan, identity: str, query: Embedding) -> dict[int, tuple[float, ...]]:
    """Compare as a recall does: each part of the vectors, weighed in two ways."""
    asked = QueryVector(query, identity, PARTS, ((1.8, 0.9), (0.0, 3.0)))
    return vectors.compare(asked, MemoryFilter(), COMPARED, ())


def measure(database: Database, identity: str, rows: int, queries: Sequence[Embedding]) -> Result:
    """Time both searches, with and without a filter, and compare what they find.

    Raises:
        RuntimeError: A filtered search did not find what the exact one found.
    """
    table = VectorTable(database)
    vectors = VectorScan(database, table)
    load, _ = timed(partial(vectors.load, PARTS))
    searches = {
        (name, kind): partial(search, allowed=allowed, limit=LIMIT)
        for name, search in (("brute", table.nearest), ("scan", vectors.nearest))
        for kind, allowed in (("all", MemoryFilter()), ("thread", MemoryFilter(thread_id="t7")))
    }
    # One search after another, as neither runs in the other's caches where it is the only one.
    timings = {
        key: [timed(partial(search, query)) for query in queries] for key, search in searches.items()
    }
    half = {key: median(took for took, _ in runs) for key, runs in timings.items()}
    compared = median(timed(partial(by_parts, vectors, identity, query))[0] for query in queries)
    answers = {
        key: [{memory_id for memory_id, _ in answer} for _, answer in runs]
        for key, runs in timings.items()
    }
    if answers["brute", "thread"] != answers["scan", "thread"]:
        raise RuntimeError("a filtered search missed a memory")
    pairs = zip(answers["brute", "all"], answers["scan", "all"], strict=True)
    found = sum(len(expected & got) for expected, got in pairs)
    times = (half["brute", "all"], half["scan", "all"], compared)
    full = (*times, found / (LIMIT * len(queries)), load)
    return Result(rows, *full, half["brute", "thread"], half["scan", "thread"], own_memory())


def run(folder: Path, sizes: Sequence[int], rounds: int, *, at_random: bool) -> Iterator[Result]:
    """Grow one store through the sizes and measure at each."""
    identity, embed, embed_questions = choose_source(at_random=at_random)
    print(f"vectors: {identity}")
    chance = random.Random(3)  # noqa: S311 - repeatable test data
    with closing(Database(folder / "soulkeep.db")) as database:
        prepare_store(database, identity)
        filled = 0
        for size in sorted(sizes):
            fill(database, filled, size, embed, chance)
            filled = size
            asked = max(5, min(rounds, rounds * 200_000 // size))
            yield measure(
                database, identity, size, embed_questions([question(chance) for _ in range(asked)])
            )


LEFT, TOP, WIDTH, HEIGHT = 90, 60, 560, 300
CURVES = (("brute force in SQLite", "#b3541e"), ("scan of codes, then exact", "#1e6fb3"))


def svg(results: Sequence[Result]) -> str:
    """Draw both medians over the number of memories, both axes logarithmic."""
    values = [value for result in results for value in (result.brute, result.scan)]
    low, high = floor(log10(min(values))), ceil(log10(max(values)))
    first, last = log10(results[0].rows), log10(max(results[-1].rows, results[0].rows * 10))

    def at(rows: float, ms: float) -> tuple[float, float]:
        across, up = (log10(rows) - first) / (last - first), (log10(ms) - low) / (high - low)
        return round(LEFT + WIDTH * across, 1), round(TOP + HEIGHT * (1 - up), 1)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {LEFT + WIDTH + 40} {TOP + HEIGHT + 60}"'
        ' font-family="sans-serif" font-size="13">',
        '<rect width="100%" height="100%" fill="white"/>',
        f'<text x="{LEFT}" y="22" font-size="15">Nearest {LIMIT} memories: median ms by memories</text>',
    ]
    for power in range(low, high + 1):
        _, y = at(results[0].rows, 10.0**power)
        parts.append(f'<path d="M{LEFT} {y}h{WIDTH}" stroke="#ddd"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{y + 4}" text-anchor="end">{10.0**power:,g} ms</text>')
    for result in results:
        x, _ = at(result.rows, values[0])
        parts.append(
            f'<text x="{x}" y="{TOP + HEIGHT + 24}" text-anchor="middle">{result.rows:,}</text>'
        )
    for number, (name, colour) in enumerate(CURVES):
        points = [at(r.rows, (r.brute, r.scan)[number]) for r in results]
        parts += _curve(points, colour)
        parts.append(f'<text x="{LEFT + 200 * number}" y="44" fill="{colour}">{name}</text>')
    return "\n".join([*parts, "</svg>", ""])


def _curve(points: Sequence[tuple[float, float]], colour: str) -> list[str]:
    line = " ".join(f"{x},{y}" for x, y in points)
    return [
        f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="2"/>',
        *(f'<circle cx="{x}" cy="{y}" r="3" fill="{colour}"/>' for x, y in points),
    ]


def main() -> None:
    """Measure and print; a search that misses a memory is exit code 1."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", default="1000,10000,100000", help="numbers of memories")
    parser.add_argument(
        "--rounds", type=int, default=100, help="queries; fewer from 200,000 memories on"
    )
    parser.add_argument("--random", action="store_true", help="random vectors instead of an embedder's")
    parser.add_argument("--svg", type=Path, help="write the curve to this file")
    options = parser.parse_args()
    sizes = [int(size) for size in options.sizes.split(",")]
    print_machine()
    with tempfile.TemporaryDirectory() as folder:
        results = list(run(Path(folder), sizes, options.rounds, at_random=options.random))
    title = f"nearest {LIMIT} memories; 0.1 %: in a thread that holds one memory of {THREADS}"
    print_table(title, HEADINGS, [result.cells for result in results])
    if options.svg:
        options.svg.write_text(svg(results), encoding="utf-8")
    if any(result.recall < 1 for result in results):
        raise SystemExit("the scan missed one of the nearest memories")


if __name__ == "__main__":
    main()
