"""Keeping now and embedding later: how quick, beside a slow embedder, killed, and by two processes."""

import argparse
import hashlib
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from pathlib import Path
from statistics import median
from threading import Timer
from time import perf_counter

import numpy as np

from filling import open_with
from report import print_machine, print_table
from soulkeep.app import open_home
from soulkeep.embedders import Embedded, Weighting
from soulkeep.models import MemoryFilter
from soulkeep.service.home import Home
from soulkeep.service.vectors import SENT_AT_ONCE as AT_ONCE
from speed import BATCH, Texts

SPAWNED: Callable[..., BaseProcess] = get_context("spawn").Process

DIMENSIONS = 64

SLOW_S = 3.0
"""How long the slow embedder takes for a call, whatever is in it."""

STEPS = 20
"""So many parts of what waits are really embedded to see how quick that is."""

RECALLS = 100

MOMENT_S = (0.0, 0.15)
"""When the kill comes, counted from the first text that a process embeds."""


class Remote:
    """An embedder that is asked over a network: a call takes its time, and each text is noted."""

    identity = f"bench:{DIMENSIONS}:unit"
    parts: Sequence[int] = (DIMENSIONS,)
    is_quick = is_local = False
    price: float | None = None

    def __init__(self, seconds: float = 0.0, log: Path | None = None) -> None:
        self._seconds = seconds
        self._log = log

    def weightings(self, query: str) -> Sequence[Weighting]:
        """Compare all alike."""
        return [self.weighting(query, "")]

    def weighting(self, query: str, text: str) -> Weighting:
        """Compare all alike."""
        return Weighting((1.0,), 1.0)

    def embed(self, texts: Sequence[str]) -> Embedded:
        """Make vectors of the digests of texts, after a while."""
        if self._log is not None:
            with self._log.open("a", encoding="utf-8") as log:
                log.writelines(f"{text}\n" for text in texts)
        time.sleep(self._seconds)
        return Embedded(tuple(map(_embedding, texts)), 10 * len(texts))

    def embed_query(self, query: str) -> Embedded:
        """Embed a question, after the same while."""
        time.sleep(self._seconds)
        return Embedded((_embedding(query),), 10)

    def load(self) -> None:
        """Do nothing: there is no model here."""

    def release(self) -> None:
        """Do nothing."""


def _embedding(text: str) -> bytes:
    digest = hashlib.blake2b(text.encode(), digest_size=DIMENSIONS).digest()
    vector = np.frombuffer(digest, np.uint8).astype("<f4") - 127.5
    made: bytes = (vector / np.linalg.norm(vector)).astype("<f4").tobytes()
    return made


@dataclass(slots=True)
class Fire:
    """What became of memories that waited while processes that embedded them were killed."""

    kills: int = 0
    lost: int = 0
    left: int = 0
    embedded_again: int = 0
    faults: list[str] = field(default_factory=list)


def embed_under_fire(
    path: Path,
    *,
    memories: int,
    kills: int,
    seed: int,
    processes: int = 1,
    process: Callable[..., BaseProcess] = SPAWNED,
) -> Fire:
    """Let processes embed what waits, kill all of them `kills` times, and let others end it.

    Args:
        path: The home.
        memories: So many wait at first.
        kills: How often.
        seed: Decides the moments.
        processes: So many embed at a time.
        process: Makes one; by itself a new one, which imports all that it needs.
    """
    chance, fire, log = random.Random(seed), Fire(), path.with_suffix(".log")  # noqa: S311
    texts = [f"Note {number} of the heap." for number in range(memories)]
    with closing(open_with(path, Remote())) as home:
        _keep(home, texts)
    log.touch()
    for _ in range(kills):
        _work(path, log, processes, chance.uniform(*MOMENT_S), process)
        fire.kills += 1
        fire.faults += _inspect(path)
    _work(path, log, processes, None, process)
    fire.faults += _inspect(path)
    with closing(open_with(path, Remote())) as home:
        fire.left = home.queue.waiting().pending
        kept = home.repository.memories.list_memories(MemoryFilter(), -1)
        fire.lost = len(set(texts) - {memory.content for memory in kept})
        fire.lost += memories - home.repository.count_rows()["vectors"]
    noted = Counter(log.read_text(encoding="utf-8").splitlines())
    fire.embedded_again = noted.total() - len(noted)
    return fire


def _keep(home: Home, texts: Sequence[str]) -> None:
    # Without a look at them: to close the home would embed some.
    from soulkeep.models import NewMemory

    for begin in range(0, len(texts), BATCH):
        home.memories.remember([NewMemory(text) for text in texts[begin : begin + BATCH]])


def _work(
    path: Path,
    log: Path,
    processes: int,
    killed_after_s: float | None,
    process: Callable[..., BaseProcess],
) -> None:
    """Embed what waits in other processes until nothing does, or they are killed at their work."""
    size = log.stat().st_size
    started = [process(target=work, args=(path, log)) for _ in range(processes)]
    for one in started:
        one.start()
    if killed_after_s is not None:
        while log.stat().st_size == size and any(one.is_alive() for one in started):
            time.sleep(0.002)
        for one in started:
            killer = Timer(killed_after_s, one.kill)
            killer.start()
    for one in started:
        one.join()


def _inspect(path: Path) -> list[str]:
    with closing(open_home(path, embedder="none")) as home:
        faults = home.repository.check(vectors_expected=True)
    return [f"{fault.name}: {fault.detail}" for fault in faults]


def work(path: Path, log: Path) -> None:
    """Embed all that waits in a home."""
    with closing(open_with(path, Remote(0.005, log))) as home:
        while (pause := home.queue.step(waiting=True)) is not None:
            time.sleep(pause)


def measure_keeping(folder: Path, memories: int) -> list[list[object]]:
    """Return rows of a table: kept a second until the answer, and embedded a second after it."""
    rows: list[list[object]] = []
    for name in ("none", "auto", "slow"):
        path, texts = folder / name, Texts()
        opened = open_with(path, Remote(SLOW_S)) if name == "slow" else open_home(path, embedder=name)
        with closing(opened) as home:
            home.memories.remember([texts.memory()])  # loads what the first call does
            batches = [[texts.memory() for _ in range(BATCH)] for _ in range(memories // BATCH)]
            began = perf_counter()
            for batch in batches:
                home.memories.remember(batch)
            kept, began = memories / (perf_counter() - began), perf_counter()
            embedded: float | None = None
            if name == "auto":
                left = home.queue.waiting().pending
                for _ in range(STEPS):
                    home.queue.step()
                embedded = (left - home.queue.waiting().pending) / (perf_counter() - began)
            rows.append([name, round(kept), None if embedded is None else round(embedded)])
    return rows


def measure_recalls(folder: Path) -> list[list[object]]:
    """Return a row for each embedder: recalls while memories wait, in turns, and their ratio."""
    timings: dict[str, list[float]] = {"none": [], "slow": []}
    with ExitStack() as stack:
        homes = {
            "none": stack.enter_context(closing(open_home(folder / "words", embedder="none"))),
            "slow": stack.enter_context(closing(open_with(folder / "slow", Remote(SLOW_S)))),
        }
        for home in homes.values():
            home.serve()
            texts = Texts()
            for _ in range(2):
                home.memories.remember([texts.memory() for _ in range(BATCH)])
        for _ in range(RECALLS):
            question = texts.question()
            for name, home in homes.items():
                began = perf_counter()
                home.memories.recall(question)
                timings[name].append((perf_counter() - began) * 1_000)
    by_words = median(timings["none"])
    return [[n, median(each), sum(each), median(each) / by_words] for n, each in timings.items()]


def main() -> None:
    """Measure and print; exit code 1 where anything is lost, wrong, or embedded again without need."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--memories", type=int, default=10_000)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--seed", type=int, default=5)
    options = parser.parse_args()
    print_machine()
    rows: list[list[object]] = []
    is_right = True
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        # Recalls first: what the other homes left in the process is no part of them.
        headings = ["embedder", "median ms", "all ms", "ratio"]
        print_table(f"{RECALLS} recalls while memories wait", headings, measure_recalls(folder))
        kept = measure_keeping(folder / "keeping", min(options.memories, 10_000))
        print_table("in lists of 1,000", ["embedder", "kept / s", "embedded / s"], kept)
        for processes, kills in ((1, options.kills), (2, 0), (2, options.kills)):
            path = folder / f"fire{processes}-{kills}"
            fire = embed_under_fire(
                path, memories=options.memories, kills=kills, seed=options.seed, processes=processes
            )
            again = fire.embedded_again
            rows.append([processes, fire.kills, fire.lost, fire.left, again, len(fire.faults)])
            is_right &= not (fire.lost or fire.left or fire.faults) and again <= AT_ONCE * kills
    headings = ["processes", "kills", "lost", "left", "embedded again", "faults"]
    print_table(f"{options.memories:,} memories that wait, killed at random moments", headings, rows)
    sys.exit(0 if is_right else 1)


if __name__ == "__main__":
    main()
