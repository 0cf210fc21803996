"""How long remember and recall take for a client over stdio, beside a bare vector query."""

import argparse
import random
import tempfile
from collections import defaultdict
from contextlib import closing
from pathlib import Path
from statistics import median, quantiles
from time import perf_counter
from typing import Any

import anyio
from mcp import Client, StdioServerParameters, stdio_client

from report import print_machine, print_table
from server_process import soulkeep_command
from soulkeep.app import open_home
from soulkeep.embedders import choose_embedder
from soulkeep.models import MemoryFilter

BATCH = 100
CANDIDATES = 100
"""How many neighbours recall asks the vector index for."""

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
TYPES = ("fact", "preference", "decision", "summary")

REMEMBER, RECALL, FILTERED = "remember one memory", "recall", "recall in a thread"
OVERHEAD, BARE = "list_prompts on none (overhead)", f"bare sqlite-vec query, k = {CANDIDATES}"
TARGETS = {REMEMBER: "p50 < 10", RECALL: "p50 < 8"}

Timings = dict[str, list[float]]


class Texts:
    """Varied memories, no two the same, and questions about them."""

    def __init__(self, seed: int = 7) -> None:
        self._random = random.Random(seed)  # noqa: S311 - repeatable test data
        self._count = 0

    def memory(self) -> dict[str, Any]:
        """Return the arguments of one memory."""
        self._count += 1
        who, does, what, why = map(self._random.choice, (PEOPLE, VERBS, THINGS, REASONS))
        content = f"{who} {does} {what} {why} (note {self._count}, {self._random.randrange(10**6)})."
        return {"content": content, "memory_type": self._random.choice(TYPES)}

    def question(self) -> str:
        """Return a question that memories answer."""
        who, what = map(self._random.choice, (PEOPLE, THINGS))
        return self._random.choice((f"What does {who} think of {what}?", f"{what} {who}", f"who {what}"))


async def call(client: Client, tool: str, **arguments: Any) -> Any:
    """Call a tool and return its structured data.

    Raises:
        RuntimeError: The tool refused.
    """
    result = await client.call_tool(tool, arguments)
    if result.is_error:
        raise RuntimeError(f"{tool} failed: {result.content}")
    return result.structured_content


async def fill(client: Client, texts: Texts, count: int) -> str:
    """Store `count` memories, every fourth of them in a thread; return the thread's id."""
    thread = await call(client, "create_thread", title="Latency")
    for begin in range(0, count, BATCH):
        batch = [texts.memory() for _ in range(min(BATCH, count - begin))]
        for memory in batch[::4]:
            memory["thread_id"] = thread["id"]
        await call(client, "remember", memories=batch)
    return str(thread["id"])


async def measure_calls(home: Path, texts: Texts, memories: int, rounds: int) -> Timings:
    """Fill a home and time each kind of call in turn, `rounds` times.

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
        thread_id = await fill(client, texts, memories)
        await call(client, "recall", query=texts.question())
        for _ in range(rounds):
            await timed(OVERHEAD, "list_prompts")
            await timed(REMEMBER, "remember", **texts.memory())
            found = await timed(RECALL, "recall", query=texts.question())
            within = await timed(FILTERED, "recall", query=texts.question(), thread_id=thread_id)
            if not (found["matches"] and within["matches"]):
                raise RuntimeError("a recall found nothing")
    return timings


def measure_bare(home: Path, texts: Texts, expected: int, rounds: int) -> list[float]:
    """Time the vector query alone on the same store; empty without an embedder.

    Raises:
        RuntimeError: The store does not hold what was stored.
    """
    with closing(open_home(home)) as opened:
        rows = opened.repository.count_rows()["memories"]
        if rows != expected or opened.check():
            raise RuntimeError(f"{rows} memories instead of {expected}; faults: {opened.check()}")
        embedder = choose_embedder("auto")
        timings = []
        for _ in range(rounds if embedder else 0):
            (embedding,) = embedder.embed([texts.question()]).embeddings if embedder else ()
            began = perf_counter()
            opened.repository.memories.nearest(embedding, MemoryFilter(), CANDIDATES)
            timings.append((perf_counter() - began) * 1000)
    return timings


def report(timings: Timings, memories: int, rounds: int) -> None:
    """Print the table; the ratio is to the overhead of a call that does nothing."""
    overhead = median(timings[OVERHEAD])
    rows = [
        [name, median(ms), quantiles(ms, n=20)[-1], median(ms) / overhead, TARGETS.get(name)]
        for name in (OVERHEAD, REMEMBER, RECALL, FILTERED, BARE)
        if (ms := timings[name])
    ]
    title = f"{rounds} calls each over stdio, on {memories} to {memories + rounds} memories"
    print_table(title, ["call", "p50 ms", "p95 ms", "p50 / overhead", "target"], rows)


def main() -> None:
    """Measure and print; a failed call or a missing memory raises, which is exit code 1."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--memories", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=200)
    options = parser.parse_args()
    print_machine()
    texts = Texts()
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / "home"
        timings = anyio.run(measure_calls, home, texts, options.memories, options.rounds)
        total = options.memories + options.rounds
        timings[BARE] = measure_bare(home, texts, total, options.rounds)
    report(timings, options.memories, options.rounds)


if __name__ == "__main__":
    main()
