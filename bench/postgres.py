"""A store in PostgreSQL: recall in one account and beside many, and what a second process adds.

The server is one of its own (`database`), or with `--url` one that goes on after it: what is filled
there once is measured again without. Memories have vectors that vary those of some thousand real texts,
as in `filling`; questions have their own.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from statistics import median

# As in a server, where soulkeep comes before numpy: threads that spin take the core of the database.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
import numpy as np
import psycopg

from database import server
from filling import Filling
from report import print_machine, print_table
from scale import question, sentence
from soulkeep.app import open_backups
from soulkeep.days import Days
from soulkeep.documents import Documents
from soulkeep.embedders import Embedder
from soulkeep.embedders.meaning import Meaning
from soulkeep.engines import open_store
from soulkeep.models import MemoryFilter, NewMemory, Options, QueryVector, Vector, utc_now
from soulkeep.repository.postgres import PostgresRepository
from soulkeep.repository.postgres.nearest import EXACT
from soulkeep.service.callers import Sessions
from soulkeep.service.home import Home

BATCH = 2_000
EMBEDDED = 4_000
"""So many texts have real vectors, which those of all others vary."""

QUESTIONS = 40
BARS = {100_000: 60.0, 500_000: 120.0}
"""What recall may take in one account of that size, in ms."""

RECALL_BAR, MANY_BAR_MS, TWO_BAR = 0.98, 40.0, 1.6
EVERY = MemoryFilter()
KEPT_AT = "2026-03-01T12:00:00.000Z"


def fill(url: str, owner: str, size: int, filling: Filling, chance: random.Random) -> float:
    """Keep memories in a home until it has so many; its vectors are indexed afterwards.

    Return how many were kept a second: 0 where all are there.
    """
    began = time.perf_counter()
    with closing(PostgresRepository(url, owner, Days())) as store:
        filled = store.count_rows()["memories"]
        for first in range(filled, size, BATCH):
            texts = [sentence(chance) for _ in range(min(BATCH, size - first))]
            vectors = [Vector(v, filling.identity) for v in filling.embed(texts).embeddings]
            with store.recording():
                store.memories.add_memories([NewMemory(t) for t in texts], vectors, KEPT_AT)
    return max(0, size - filled) / (time.perf_counter() - began)


def index(url: str, owner: str, size: int) -> float:
    """Wait until the home has its index of vectors; return how many seconds it took."""
    began = time.perf_counter()
    named = "SELECT 'vec_memories_near_' || number FROM owners WHERE owner = %s"
    valid = f"SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass(({named}))"  # noqa: S608
    with (
        closing(PostgresRepository(url, owner, Days())) as store,
        psycopg.connect(url, autocommit=True) as connection,
    ):
        store.vector_search.load([])
        while size > EXACT and connection.execute(valid.encode(), [owner]).fetchone() != (True,):
            time.sleep(0.1)
        connection.execute("VACUUM ANALYZE")
    return time.perf_counter() - began


def opened(url: str, owner: str, folder: Path, embedder: Embedder) -> Home:
    """Open a home of the database with an embedder that no setting names."""
    from pydantic import SecretStr

    options = Options(store=SecretStr(url))
    repository, texts = open_store(folder, options, owner)
    documents = Documents(texts, utc_now, None)
    documents.seed()
    sessions = Sessions(repository, utc_now)
    backups = partial(open_backups, folder, options=options, owner=owner)
    return Home(folder, documents, repository, sessions, embedder, utc_now, options, backups)


def recall_ms(home: Home, chance: random.Random, count: int = QUESTIONS) -> list[float]:
    """Ask and return how long each answer took, in ms, after a few that are not counted."""
    times = []
    for number in range(count + 5):
        asked = question(chance)
        began = time.perf_counter()
        home.memories.recall(asked)
        if number >= 5:
            times.append(1000 * (time.perf_counter() - began))
    return times


def found_of_nearest(url: str, home: Home, owner: str, meaning: Meaning, chance: random.Random) -> float:
    """Return which share of the ten that are nearest by each weighting the vector half brings up."""
    found = []
    for _ in range(QUESTIONS):
        embedding = meaning.embed([question(chance)]).embeddings[0]
        query = QueryVector(embedding, meaning.identity, meaning.parts, [[1.0, 1.0]], False)
        compared = home.repository.vector_search.compare(query, EVERY, 200, [])
        best = sorted(compared, key=lambda i: -sum(compared[i]))[:10]
        whole = np.frombuffer(embedding, "<f4").tolist() + [0.0] * (1536 - len(embedding) // 4)
        with psycopg.connect(url) as connection:
            exact = connection.execute(
                "SELECT memory_id FROM vec_memories WHERE owner = %s"
                " ORDER BY content_embedding <=> %s::vector LIMIT 10",
                [owner, str(whole)],
            ).fetchall()
        found.append(len({row[0] for row in exact} & {*best}) / 10)
    return sum(found) / len(found)


def measure_one(
    url: str, sizes: Sequence[int], folder: Path, filling: Filling, *, only_times: bool
) -> list[list[object]]:
    """Return a row for each size of one account."""
    rows: list[list[object]] = []
    for size in sizes:
        chance, owner = random.Random(size), f"one-{size}"  # noqa: S311 - repeatable
        rate = fill(url, owner, size, filling, chance)
        indexed = index(url, owner, size)
        with closing(opened(url, owner, folder / owner, Meaning())) as home:
            times = recall_ms(home, chance)
            share = None if only_times else found_of_nearest(url, home, owner, Meaning(), chance)
        bar = BARS.get(size)
        is_found = share is None or share >= RECALL_BAR
        is_met = "" if bar is None else "yes" if median(times) <= bar and is_found else "NO"
        found = share and f"{share:.3f}"
        rows.append([f"{size:,}", rate, indexed, median(times), max(times), found, bar, is_met])
    return rows


def measure_many(
    url: str, counts: Sequence[int], each: int, folder: Path, filling: Filling
) -> list[list[object]]:
    """Return a row for each number of accounts that there are beside the one that is asked."""
    rows, made = [], 0
    for count in counts:
        chance = random.Random(count)  # noqa: S311 - repeatable
        for number in range(made, count):
            fill(url, f"many-{number}", each, filling, chance)
        made = count
        index(url, "many-0", each)
        with closing(opened(url, "many-0", folder / "many", Meaning())) as home:
            times = recall_ms(home, chance)
        is_met = "yes" if median(times) <= MANY_BAR_MS else "NO"
        rows.append([f"{count:,} x {each:,}", median(times), max(times), MANY_BAR_MS, is_met])
    return rows


WORKER = (
    f"import sys; sys.path[:0] = [{str(Path(__file__).parent)!r}];"
    " import postgres; postgres.work(*sys.argv[1:])"
)


def work(url: str, owners: str, folder: str, seconds: str) -> None:
    """Answer as many requests as there is time for, one of eight a write, and print how many."""
    chance, filling, done = random.Random(owners), Filling(), 0  # noqa: S311 - repeatable
    homes = [opened(url, owner, Path(folder) / owner, filling) for owner in owners.split(",")]
    for home in homes:
        recall_ms(home, chance, 1)
    print("ready", flush=True)
    sys.stdin.readline()
    until = time.perf_counter() + float(seconds)
    while time.perf_counter() < until:
        home = chance.choice(homes)
        if chance.random() < 1 / 8:
            home.memories.remember([NewMemory(sentence(chance))])
        else:
            home.memories.recall(question(chance))
        done += 1
    print(json.dumps(done), flush=True)
    for home in homes:
        home.close()


def measure_processes(url: str, folder: Path, filling: Filling, seconds: float) -> list[list[object]]:
    """Return a row for one process and for two, on the same homes."""
    owners = [f"process-{number}" for number in range(8)]
    chance = random.Random(8)  # noqa: S311 - repeatable
    for owner in owners:
        fill(url, owner, 1_000, filling, chance)
    rates = []
    for count in (1, 2):
        started = [
            subprocess.Popen(
                [
                    sys.executable,
                    "-c",
                    WORKER,
                    url,
                    ",".join(owners),
                    str(folder / f"p{n}"),
                    str(seconds),
                ],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            for n in range(count)
        ]
        for process in started:
            assert process.stdout  # noqa: S101 - a pipe was asked for
            process.stdout.readline()
        outputs = (
            [process.communicate("go\n")[0] for process in started] if count == 1 else _both(started)
        )
        rates.append(sum(json.loads(text) for text in outputs) / seconds)
    is_met = "yes" if rates[1] >= TWO_BAR * rates[0] else "NO"
    return [["1", rates[0], None, ""], ["2", rates[1], rates[1] / rates[0], is_met]]


def _both(started: Sequence["subprocess.Popen[str]"]) -> list[str]:
    for process in started:
        assert process.stdin  # noqa: S101 - a pipe was asked for
        process.stdin.write("go\n")
        process.stdin.flush()
    return [process.communicate()[0] for process in started]


def main() -> None:
    """Print the tables that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--one", type=int, nargs="*", default=[], help="sizes of one account")
    parser.add_argument("--many", type=int, nargs="*", default=[], help="numbers of accounts")
    parser.add_argument("--each", type=int, default=1_000, help="memories of each of those")
    parser.add_argument(
        "--only-times", action="store_true", help="leave out recall@10, which takes minutes to know"
    )
    parser.add_argument("--processes", action="store_true", help="two processes against one")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--memory", default="1GB", help="shared_buffers of a server of its own")
    parser.add_argument("--url", help="a database to fill, and to leave filled, instead")
    asked = parser.parse_args()
    print_machine()
    filling = Filling(EMBEDDED)
    chance = random.Random(EMBEDDED)  # noqa: S311 - repeatable
    filling.embed([sentence(chance) for _ in range(EMBEDDED)])
    with ExitStack() as stack:
        url = asked.url or stack.enter_context(server(asked.memory))
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        if asked.one:
            headings = [
                "memories",
                "kept/s",
                "index s",
                "recall p50 ms",
                "max",
                "recall@10",
                "bar",
                "met",
            ]
            print_table(
                f"One account (up to {EXACT:,} vectors are scanned)",
                headings,
                measure_one(url, asked.one, Path(folder), filling, only_times=asked.only_times),
            )
        if asked.many:
            rows = measure_many(url, asked.many, asked.each, Path(folder), filling)
            print_table("Many accounts", ["accounts", "recall p50 ms", "max", "bar", "met"], rows)
        if asked.processes:
            rows = measure_processes(url, Path(folder), filling, asked.seconds)
            print_table("Processes", ["processes", "requests/s", "ratio", "met"], rows)


if __name__ == "__main__":
    main()
