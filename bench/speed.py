"""How long keeping and recalling take, over stdio and in bulk, at several sizes of the store.

Beyond the first thousand, memories get vectors that vary those of a few hundred real texts, as in
`filling`: to embed 100,000 takes ten minutes. Whatever is timed embeds for itself.
"""

import argparse
import gc
import random
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from statistics import median, quantiles
from time import perf_counter
from typing import Any

import anyio
from mcp import Client, StdioServerParameters, stdio_client

from filling import open_filling
from report import print_machine, print_table
from server_process import ServerProcess, resident_mib, soulkeep_command
from soulkeep.app import open_home
from soulkeep.embedders import choose_embedder
from soulkeep.models import MEMORY_TYPES, MemoryFilter, NewMemory
from soulkeep.repository.sqlite.indexes import VectorTable
from soulkeep.service.home import Home

BATCH = 1_000
NEAREST = 10
EMBEDDED = 1_000
"""Up to this size all memories are embedded, and timed."""

THREADS = 1_000
"""Memories take turns in so many threads: from 1,000 on, a thread holds 0.1 % of them."""

PEOPLE = "Ada Bruno Chidi Dana Emil Farah Goran Hana Ivo Jun Kira Luis Mina Noor Olga Pavel".split()
VERBS = "prefers,decided on,dropped,tested,documented,asked about,paid for,finished".split(",")
THINGS = (
    "the billing service,dark roast coffee,the PostgreSQL upgrade,weekly reviews,a standing desk,"
    "the Kyoto trip,the release checklist,unit tests in Rust,the kitchen renovation,trail running,"
    "the onboarding guide,feature flags,the water invoice,a second monitor,backup rotation,jazz piano"
).split(",")
REASONS = (
    "because it saves time,after the outage,to keep costs low,since the team agreed,for the spring,"
    "although the deadline moved,because the old way failed twice,on the advice of a friend"
).split(",")
NOTHING, REMEMBER, RECALL, FILTERED = "list_prompts on none", "remember", "recall", "recall in a thread"
BARE = f"bare sqlite-vec query, k = {NEAREST}"

Timings = dict[str, list[float]]


class Texts:
    """Varied memories, no two the same, and questions about them."""

    def __init__(self, seed: int = 7) -> None:
        self._random = random.Random(seed)  # noqa: S311 - repeatable test data
        self._count = 0

    def memory(self, thread_id: str | None = None) -> NewMemory:
        """Return a memory."""
        self._count += 1
        who, does, what, why = map(self._random.choice, (PEOPLE, VERBS, THINGS, REASONS))
        content = f"{who} {does} {what} {why} (note {self._count})."
        return NewMemory(content, self._random.choice(MEMORY_TYPES), thread_id)

    def question(self) -> str:
        """Return a question that memories answer."""
        who, what = map(self._random.choice, (PEOPLE, THINGS))
        return self._random.choice((f"What does {who} think of {what}?", f"{what} {who}", f"who {what}"))


def fill(home: Home, texts: Texts, threads: Sequence[str | None], begin: int, end: int) -> float:
    """Keep memories `begin` to `end` in lists of 1,000, and embed them.

    Return how many a second were kept, until the answer: their vectors come later.
    """
    took = 0.0
    for first in range(begin, end, BATCH):
        numbers = range(first, min(first + BATCH, end))
        batch = [texts.memory(threads[number % len(threads)]) for number in numbers]
        began = perf_counter()
        home.memories.remember(batch)
        took += perf_counter() - began
    home.queue.work_off()
    return (end - begin) / took


async def call(client: Client, tool: str, **arguments: Any) -> Any:
    """Call a tool and return its structured data.

    Raises:
        RuntimeError: The tool refused.
    """
    result = await client.call_tool(tool, arguments)
    if result.is_error:
        raise RuntimeError(f"{tool} failed: {result.content}")
    return result.structured_content


async def measure_calls(home: Path, texts: Texts, thread_id: str, rounds: int) -> Timings:
    """Time each kind of call in turn, `rounds` times.

    Raises:
        RuntimeError: A call failed, or a recall came back empty.
    """
    command, *args = soulkeep_command(home)
    timings: Timings = defaultdict(list)

    async def timed(name: str, tool: str, **arguments: Any) -> Any:
        began = perf_counter()
        answer = await call(client, tool, **arguments)
        timings[name].append((perf_counter() - began) * 1000)
        return answer

    transport = stdio_client(StdioServerParameters(command=command, args=args))
    async with Client(transport, mode="legacy") as client:
        await call(client, "recall", query=texts.question())
        for _ in range(rounds):
            await timed(NOTHING, "list_prompts")
            await timed(REMEMBER, "remember", content=texts.memory().content)
            found = await timed(RECALL, "recall", query=texts.question())
            await timed(FILTERED, "recall", query=texts.question(), thread_id=thread_id)
            if not found["matches"]:
                raise RuntimeError("a recall found nothing")
    return timings


def measure_first_recall(home: Path, texts: Texts, rounds: int) -> tuple[float, float | None]:
    """Return how long a fresh server's first recall took in ms, and its resident MiB after `rounds`."""
    with ServerProcess(soulkeep_command(home)) as server:
        server.initialize()
        began = perf_counter()
        server.reply(server.call("recall", query=texts.question()))
        took = (perf_counter() - began) * 1000
        for _ in range(rounds):
            server.reply(server.call("recall", query=texts.question()))
        return took, resident_mib(server.process.pid)


def measure_bare(home: Home, texts: Texts, rounds: int) -> list[float]:
    """Time the vector query alone on the same store, which scans it; empty without an embedder."""
    embedder, vectors, timings = choose_embedder("auto"), home.repository.vectors, []
    if not isinstance(vectors, VectorTable):
        raise TypeError("the bare query is one of sqlite-vec")
    for _ in range(rounds if embedder else 0):
        (embedding,) = embedder.embed([texts.question()]).embeddings if embedder else ()
        began = perf_counter()
        vectors.nearest(embedding, MemoryFilter(), NEAREST)
        timings.append((perf_counter() - began) * 1000)
    return timings


def measure(path: Path, sizes: Sequence[int], rounds: int) -> Iterator[list[object]]:
    """Grow one home through the sizes; yield a row of the table at each.

    Raises:
        RuntimeError: A call failed, or the store does not hold what was kept.
    """
    texts, filled = Texts(), 0
    with closing(open_home(path)) as home:
        threads = [home.threads.create_thread(f"Thread {n}").id for n in range(min(THREADS, sizes[0]))]
    for size in sizes:
        with closing(open_home(path) if size <= EMBEDDED else open_filling(path)) as home:
            before = home.repository.count_rows()["memories"]
            rate = fill(home, texts, threads, before, size)
        first, resident = measure_first_recall(path, texts, rounds)
        timings = anyio.run(measure_calls, path, texts, threads[7], rounds)
        with closing(open_home(path)) as home:
            filled = home.repository.count_rows()["memories"]
            if filled != size + rounds:
                raise RuntimeError(f"{filled} memories instead of {size + rounds}")
            timings[BARE] = measure_bare(home, texts, min(rounds, 20))
        kept = round(rate) if size <= EMBEDDED else None
        yield [f"{size:,}", kept, first, resident, *_columns(timings)]


def _columns(timings: Timings) -> Iterator[float | None]:
    for name in (NOTHING, REMEMBER, RECALL):
        yield median(timings[name])
        if name == RECALL:
            yield quantiles(timings[name], n=20)[-1]
    yield median(timings[FILTERED])
    yield median(timings[BARE]) if timings[BARE] else None


HEADINGS = [
    "memories",
    "kept / s",
    "first recall ms",
    "resident MiB",
    NOTHING,
    REMEMBER,
    RECALL,
    "p95",
    FILTERED,
    BARE,
]


def main() -> None:
    """Measure and print; a failed call or a missing memory raises, which is exit code 1."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", default="1000,10000,100000", help="numbers of memories")
    parser.add_argument("--rounds", type=int, default=200, help="calls of each kind at each size")
    options = parser.parse_args()
    print_machine()
    gc.freeze()  # as a server does before it serves, so that no list pays for what imports made
    sizes = sorted(int(size) for size in options.sizes.split(","))
    with tempfile.TemporaryDirectory() as folder:
        rows = list(measure(Path(folder) / "home", sizes, options.rounds))
    title = f"median ms of {options.rounds} calls of each kind over stdio, taking turns"
    print_table(title, HEADINGS, rows)


if __name__ == "__main__":
    main()
