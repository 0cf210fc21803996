"""The memory of servers: one from its start to its rest, and several side by side; on Linux."""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from pathlib import Path

from filling import open_filling
from report import print_machine, print_table
from server_process import ServerProcess, resident_mib, soulkeep_command
from speed import Texts, fill

QUICK_TO_REST = """\
import sys
from soulkeep.mcp_server import notifications
from soulkeep.cli import main
from soulkeep.service import indexes

notifications.REST_S, indexes.IDLE_S = 1.0, 5.0
sys.argv[1:] = ["serve", "--home", sys.argv[1]]
main()
"""
"""A server that gives memory back after seconds instead of minutes."""

CALLS = 30
SERVERS = 8
WAIT_S = 60.0
FREED_MIB = 20.0


def proportional_mib(pid: int) -> float:
    """Return the memory of a process in MiB, what it shares divided among those that share it."""
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii")
    (line,) = (line for line in rollup.splitlines() if line.startswith("Pss:"))
    return int(line.split()[1]) / 1024


def use(server: ServerProcess, texts: Texts) -> None:
    """Let a server remember and recall.

    Raises:
        RuntimeError: A recall found nothing.
    """
    for _ in range(CALLS):
        server.reply(server.call("remember", content=texts.memory().content))
        found = server.reply(server.call("recall", query=texts.question()))
        if not found["result"]["structuredContent"]["matches"]:
            raise RuntimeError("a recall found nothing")


def settled(server: ServerProcess, has_settled: Callable[[float], bool]) -> float:
    """Return the resident memory once it is as it should become.

    Raises:
        TimeoutError: It does not become so.
    """
    deadline = time.monotonic() + WAIT_S
    while time.monotonic() < deadline:
        if has_settled(resident := resident_mib(server.process.pid) or 0.0):
            time.sleep(1)
            return resident_mib(server.process.pid) or resident
        time.sleep(0.2)
    raise TimeoutError("memory was not taken or not given back")


def measure_one(home: Path, texts: Texts) -> Iterator[float]:
    """Yield the resident MiB of a server at its first answer, in use, idle, and used again."""
    with ServerProcess([sys.executable, "-c", QUICK_TO_REST, str(home)]) as server:
        server.initialize()
        yield resident_mib(server.process.pid) or 0.0
        use(server, texts)
        used = resident_mib(server.process.pid) or 0.0
        yield used
        yield settled(server, lambda now: now < used - FREED_MIB)
        use(server, texts)
        yield resident_mib(server.process.pid) or 0.0


def measure_several(home: Path, texts: Texts) -> Iterator[tuple[int, float]]:
    """Yield the MiB of several servers of one home together, one more each time, all in use."""
    with ExitStack() as stack:
        servers = []
        for count in range(1, SERVERS + 1):
            servers.append(stack.enter_context(ServerProcess(soulkeep_command(home))))
            servers[-1].initialize()
            use(servers[-1], texts)
            if count in (1, 2, SERVERS):
                yield count, sum(proportional_mib(server.process.pid) for server in servers)


def measure(home: Path, sizes: Sequence[int]) -> Iterator[list[object]]:
    """Grow one home through the sizes; yield a row of the table at each."""
    texts = Texts()
    for size in sizes:
        with closing(open_filling(home)) as opened:
            fill(opened, texts, [None], opened.repository.count_rows()["memories"], size)
        one = list(measure_one(home, texts))
        yield [f"{size:,}", *one, *(total for _, total in measure_several(home, texts))]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", default="100,10000,100000", help="numbers of memories")
    sizes = sorted(int(size) for size in parser.parse_args().sizes.split(","))
    print_machine()
    with tempfile.TemporaryDirectory() as folder:
        rows = list(measure(Path(folder) / "home", sizes))
    print_table(
        "MiB: resident of one server; in proportion (PSS) of several on one home, all in use",
        [
            "memories",
            "first answer",
            "in use",
            "idle",
            "used again",
            *(f"PSS of {n}" for n in (1, 2, SERVERS)),
        ],
        rows,
    )


if __name__ == "__main__":
    main()
