"""How long a recall takes beside writers, against an idle store, in turns of one run.

Once another process keeps memories one after another without pause; once one holds the write lock for
some seconds, for which a `remember` of the recalling server waits.
"""

import argparse
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from contextlib import closing, contextmanager
from multiprocessing import get_context
from multiprocessing.synchronize import Event
from pathlib import Path
from statistics import median, quantiles
from threading import Timer
from time import perf_counter

import apsw

from report import print_machine, print_table
from server_process import ServerProcess, soulkeep_command, stored_id
from soulkeep.app import open_home
from soulkeep.engines import STORE_NAME
from speed import Texts, fill

IDLE, WRITING = "nobody writes", "another process writes without pause"
HELD = "a remember waits for another process"
HELD_S = 3.0

Timings = dict[str, list[float]]


def keep_on_writing(path: Path, may_write: Event, is_done: Event) -> None:
    """Keep memories one after another whenever they may be written."""
    texts = Texts(seed=11)
    with closing(open_home(path)) as home:
        while not is_done.is_set():
            if may_write.wait(0.1):
                home.memories.remember([texts.memory()])


@contextmanager
def writing(may_write: Event) -> Iterator[None]:
    """Let the other process write during the block."""
    may_write.set()
    try:
        yield
    finally:
        may_write.clear()


@contextmanager
def held(store: Path, server: ServerProcess, texts: Texts) -> Iterator[None]:
    """Hold the write lock during the block, at most for some seconds, and let the server wait for it.

    Raises:
        RuntimeError: The write was refused.
    """
    with closing(apsw.Connection(str(store))) as connection:
        connection.set_busy_timeout(10_000)
        connection.execute("BEGIN IMMEDIATE")
        timer = Timer(HELD_S, lambda: connection.execute("ROLLBACK"))
        timer.start()
        waits = server.call("remember", content=texts.memory().content)
        try:
            yield
        finally:
            timer.cancel()
            timer.join()
            if connection.in_transaction:
                connection.execute("ROLLBACK")
    if stored_id(server.reply(waits)) is None:
        raise RuntimeError("a remember failed")


def measure(path: Path, size: int, rounds: int, calls: int) -> Timings:
    """Time recalls in a store of `size` memories, `calls` in each condition in each of the rounds.

    Raises:
        RuntimeError: A call failed, a recall found nothing, or the store is not whole.
    """
    texts, timings = Texts(), defaultdict(list)
    with closing(open_home(path)) as home:
        fill(home, texts, [None], 0, size)
        home.queue.work_off()
    processes = get_context("spawn")
    may_write, is_done = processes.Event(), processes.Event()
    writer = processes.Process(target=keep_on_writing, args=(path, may_write, is_done))
    writer.start()
    with ServerProcess(soulkeep_command(path)) as server:
        server.initialize()

        def recall(condition: str) -> None:
            for _ in range(calls):
                began = perf_counter()
                reply = server.reply(server.call("recall", query=texts.question()))
                timings[condition].append((perf_counter() - began) * 1000)
                if not reply["result"].get("structuredContent", {}).get("matches"):
                    raise RuntimeError(f"a recall found nothing: {reply}")

        with writing(may_write):
            recall("warm")
        for _ in range(rounds):
            recall(IDLE)
            with writing(may_write):
                recall(WRITING)
            with held(path / STORE_NAME, server, texts):
                recall(HELD)
    is_done.set()
    writer.join()
    with closing(open_home(path)) as home:
        if faults := home.check():
            raise RuntimeError(f"the store is not whole: {faults}")
    return timings


def main() -> None:
    """Measure and print; a failed call or a damaged store raises, which is exit code 1."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=2_000, help="number of memories")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each condition")
    parser.add_argument("--calls", type=int, default=40, help="recalls in each turn")
    options = parser.parse_args()
    print_machine()
    with tempfile.TemporaryDirectory() as folder:
        timings = measure(Path(folder) / "home", options.size, options.rounds, options.calls)
    idle = median(timings[IDLE])
    rows = [
        [name, median(took), quantiles(took, n=20)[-1], max(took), median(took) / idle]
        for name in (IDLE, WRITING, HELD)
        for took in [timings[name]]
    ]
    title = f"ms of {options.rounds * options.calls} recalls over stdio among {options.size:,} memories"
    print_table(title, ["while", "median", "p95", "longest", "x idle"], rows)


if __name__ == "__main__":
    main()
