"""Many servers on one home: started at once on a new one, and writing at once."""

import argparse
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from itertools import chain, repeat
from pathlib import Path
from time import perf_counter

from report import print_machine, print_table
from server_process import Message, NoReplyError, ServerProcess, soulkeep_command, stored_id
from soulkeep.app import open_home
from soulkeep.models import EmbedderName

IN_FLIGHT = 4
"""How many calls a client has under way at a time."""


@dataclass(slots=True)
class Starts:
    """What became of servers that were started together."""

    started: int = 0
    failures: list[str] = field(default_factory=list)
    stderr_lines: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    @property
    def correct(self) -> bool:
        """Whether every server answered, said nothing on stderr, and the stores are whole."""
        return not (self.failures or self.stderr_lines or self.faults)


@dataclass(frozen=True, slots=True)
class Writes:
    """What a store holds after several servers wrote to it at once."""

    expected: int
    expected_vectors: int
    acknowledged: int
    rows: int
    vectors: int
    full_text: int
    errors: list[str]
    faults: list[str]
    stderr_lines: list[str]
    seconds: float

    @property
    def correct(self) -> bool:
        """Whether every call was served and everything is there exactly once."""
        counts = (self.acknowledged, self.rows, self.full_text)
        complete = set(counts) == {self.expected} and self.vectors == self.expected_vectors
        return complete and not (self.errors or self.faults or self.stderr_lines)


def start_together(folder: Path, rounds: int, processes: int, embedder: EmbedderName = "auto") -> Starts:
    """Start `processes` servers at once on a brand-new home inside `folder`, `rounds` times."""
    starts = Starts()
    for number in range(rounds):
        home = folder / f"home-{number}"
        _start_round(home, processes, embedder, starts)
        with closing(open_home(home, embedder=embedder)) as opened:
            starts.faults += [f"{fault.name}: {fault.detail}" for fault in opened.check()]
        missing = {"SOUL.md", "MEMORY.md"} - {path.name for path in home.iterdir()}
        starts.faults += [f"{name} is missing" for name in sorted(missing)]
    return starts


def _start_round(home: Path, processes: int, embedder: EmbedderName, starts: Starts) -> None:
    command = soulkeep_command(home)
    with ExitStack() as running:
        fleet = [running.enter_context(ServerProcess(command, embedder)) for _ in range(processes)]
        with ThreadPoolExecutor(processes) as clients:
            starts.failures += filter(None, clients.map(_failure_to_start, fleet))
    starts.started += processes
    for server in fleet:
        starts.stderr_lines += server.stderr_lines
        if server.process.returncode:
            starts.failures.append(f"exit code {server.process.returncode}")
        starts.failures += [f"not JSON on stdout: {line!r}" for line in server.strays]


def _failure_to_start(server: ServerProcess) -> str | None:
    try:
        server.initialize()
    except (NoReplyError, BrokenPipeError) as error:
        return str(error)
    return None


def write_together(
    home: Path, writes: int, processes: int = 2, embedder: EmbedderName = "auto"
) -> Writes:
    """Start `processes` servers at once on one new home and let each store `writes` memories.

    Raises:
        NoReplyError: A server ended or did not answer.
        BrokenPipeError: A server ended.
    """
    began = perf_counter()
    with ExitStack() as running:
        command = soulkeep_command(home)
        fleet = [running.enter_context(ServerProcess(command, embedder)) for _ in range(processes)]
        with ThreadPoolExecutor(processes) as clients:
            replies = list(chain(*clients.map(_write, fleet, range(processes), repeat(writes))))
        seconds = perf_counter() - began
    acknowledged = {stored_id(reply) for reply in replies} - {None}
    with closing(open_home(home, embedder=embedder)) as opened:
        counts = opened.repository.count_rows()
        faults = [f"{fault.name}: {fault.detail}" for fault in opened.check()]
        has_vectors = opened.indexes.vectors_expected
    return Writes(
        expected=processes * writes,
        expected_vectors=processes * writes if has_vectors else 0,
        acknowledged=len(acknowledged),
        rows=counts["memories"],
        vectors=counts["vectors"],
        full_text=counts["full-text entries"],
        errors=[str(reply) for reply in replies if stored_id(reply) is None],
        faults=faults,
        stderr_lines=[line for server in fleet for line in server.stderr_lines],
        seconds=seconds,
    )


def _write(server: ServerProcess, client: int, writes: int) -> list[Message]:
    server.initialize()
    replies: list[Message] = []
    for begin in range(0, writes, IN_FLIGHT):
        numbers = range(begin, min(begin + IN_FLIGHT, writes))
        texts = [f"Client {client} noted item {number} of its own list." for number in numbers]
        requests = [server.call("remember", content=text) for text in texts]
        replies += [server.reply(request) for request in requests]
    return replies


def report_starts(starts: Starts, rounds: int, processes: int) -> None:
    """Print what became of the starts."""
    print_table(
        f"{rounds} times {processes} servers at once on a brand-new home",
        ["started", "failures", "stderr lines", "store faults"],
        [[starts.started, len(starts.failures), len(starts.stderr_lines), len(starts.faults)]],
    )
    for line in (*starts.failures, *starts.stderr_lines, *starts.faults):
        print(f"  {line}")


def report_writes(writes: Writes) -> None:
    """Print what the store holds."""
    print_table(
        f"2 servers at once on a new home, {writes.expected} writes in {writes.seconds:.1f} s",
        ["expected", "acknowledged", "rows", "vectors", "full text", "errors", "faults", "stderr lines"],
        [
            [
                writes.expected,
                writes.acknowledged,
                writes.rows,
                writes.vectors,
                writes.full_text,
                len(writes.errors),
                len(writes.faults),
                len(writes.stderr_lines),
            ]
        ],
    )
    for line in (*writes.errors, *writes.faults, *writes.stderr_lines):
        print(f"  {line}")


def main() -> None:
    """Run both and print; exit code 1 on any failure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--processes", type=int, default=6)
    parser.add_argument("--writes", type=int, default=500)
    options = parser.parse_args()
    print_machine()
    with tempfile.TemporaryDirectory() as folder:
        starts = start_together(Path(folder), options.rounds, options.processes)
        report_starts(starts, options.rounds, options.processes)
        writes = write_together(Path(folder) / "shared", options.writes)
        report_writes(writes)
    correct = starts.correct and writes.correct
    print("\nEverything is there." if correct else "\nINCORRECT: see above.")
    sys.exit(0 if correct else 1)


if __name__ == "__main__":
    main()
