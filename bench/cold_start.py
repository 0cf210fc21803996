"""How long a client waits for soulkeep's first answer, against a bare server of the same SDK.

Runs on Linux and macOS; resident memory is read where /proc is.
"""

import argparse
import resource
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from time import perf_counter

from report import print_machine, print_table
from server_process import ServerProcess, cpu_ms_of, resident_mib, soulkeep_command, stored_id

BARE = '''\
from mcp.server import MCPServer

server = MCPServer("bare")


@server.tool()
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


server.run()
'''


@dataclass(frozen=True, slots=True)
class Start:
    """One start: wall and processor time until the answer to `initialize`, and until the end."""

    wall_ms: float
    cpu_ms: float | None
    life_cpu_ms: float
    rss_mib: float | None


def measure_start(command: Sequence[str]) -> Start:
    """Start a server, shake hands, and let it end."""
    cpu_before = _children_cpu_ms()
    began = perf_counter()
    with ServerProcess(command) as server:
        server.initialize()
        wall_ms = (perf_counter() - began) * 1000
        cpu_ms, rss_mib = cpu_ms_of(server.process.pid), resident_mib(server.process.pid)
    return Start(wall_ms, cpu_ms, _children_cpu_ms() - cpu_before, rss_mib)


def _children_cpu_ms() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (usage.ru_utime + usage.ru_stime) * 1000


def measure_memory(home: Path) -> tuple[float | None, float | None]:
    """Return soulkeep's resident MiB before the first recall, and after a remember and a recall.

    Raises:
        RuntimeError: What was remembered is not recalled.
    """
    with ServerProcess(soulkeep_command(home)) as server:
        server.initialize()
        server.reply(server.request("tools/list"))
        before = resident_mib(server.process.pid)
        stored = stored_id(
            server.reply(server.call("remember", content="The office cat is called Miso."))
        )
        found = server.reply(server.call("recall", query="What is the name of the cat?"))
        after = resident_mib(server.process.pid)
    matches = found["result"]["structuredContent"]["matches"]
    if stored is None or stored not in [match["id"] for match in matches]:
        raise RuntimeError("the memory just stored was not recalled")
    return before, after


def measure_pairs(folder: Path, runs: int) -> list[tuple[Start, Start]]:
    """Start the bare server and soulkeep in turn, `runs` times after a warm-up of each."""
    script = folder / "bare.py"
    script.write_text(BARE)
    bare, soulkeep = [sys.executable, str(script)], soulkeep_command(folder / "home")
    measure_start(bare), measure_start(soulkeep)
    return [(measure_start(bare), measure_start(soulkeep)) for _ in range(runs)]


def report(pairs: list[tuple[Start, Start]], memory: tuple[float | None, float | None]) -> None:
    """Print both tables."""
    bare, own = ([pair[side] for pair in pairs] for side in (0, 1))
    fields = ("wall_ms", "cpu_ms", "life_cpu_ms")
    print_table(
        f"Spawn to the answer to initialize, median of {len(pairs)} interleaved pairs",
        ["server", "wall ms", "CPU ms", "CPU ms until exit"],
        [
            ["bare MCPServer", *(_median(bare, field) for field in fields)],
            ["soulkeep serve", *(_median(own, field) for field in fields)],
            ["ratio (median of pairs)", *(_median_ratio(pairs, field) for field in fields)],
            ["target", "<= 1.10", None, None],
        ],
    )
    print_table(
        "Resident memory",
        ["moment", "MiB", "target"],
        [
            ["bare MCPServer after initialize", _median(bare, "rss_mib"), None],
            ["soulkeep after initialize", _median(own, "rss_mib"), "<= 80"],
            ["soulkeep after tools/list, loading the model", memory[0], None],
            ["soulkeep after a remember and a recall", memory[1], "<= 220"],
        ],
    )


def _median(starts: Sequence[Start], field: str) -> float | None:
    values = [getattr(start, field) for start in starts]
    return None if None in values else float(median(values))


def _median_ratio(pairs: Sequence[tuple[Start, Start]], field: str) -> float | None:
    values = [(getattr(bare, field), getattr(own, field)) for bare, own in pairs]
    return None if None in values[0] else float(median(own / bare for bare, own in values))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=15)
    runs = parser.parse_args().runs
    print_machine()
    with tempfile.TemporaryDirectory() as folder:
        pairs = measure_pairs(Path(folder), runs)
        report(pairs, measure_memory(Path(folder) / "home"))


if __name__ == "__main__":
    main()
