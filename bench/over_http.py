"""A server over HTTP: what that costs beside a pipe, and one process under many accounts at once.

python bench/over_http.py                      both, the second for 20 seconds
python bench/over_http.py --seconds 180        the full form
python bench/over_http.py --accounts 20 --memories 50 --clients 8 --seconds 5

Clients are people's: each thinks for a while after an answer, from none to twice the mean, and keeps to
one account for ten calls. They come one after another at first; their first calls, each to a home that
is closed until then, count as all others. Without pauses each of 64 would wait for the other 63, however
quick the server. What they ask for altogether, and how busy that keeps the server, is printed.
"""

import argparse
import asyncio
import json
import os
import random
import re
import shutil
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import IO, Any, cast

import httpx2

from filling import open_filling
from report import print_machine, print_table
from server_process import ServerProcess, cpu_ms_of, resident_mib, soulkeep_command
from soulkeep.app import open_accounts
from soulkeep.models import NewMemory

CALLS = 200
"""Recalls that are timed over each way."""

CONVERSATION = 10
"""So many calls a client makes for one account before it goes on with another."""

HEADERS = {
    "accept": "application/json, text/event-stream",
    "content-type": "application/json",
    "mcp-protocol-version": "2026-07-28",
    "mcp-method": "tools/call",
}
META = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientCapabilities": {},
    "io.modelcontextprotocol/clientInfo": {"name": "bench", "version": "1"},
}
SUBJECTS = "roof kitchen garden violin ledger invoice beagle passport slates gutter oven".split()
VERBS = "repaired painted sold moved measured bought forgot cleaned".split()


class HttpProcess:
    """`soulkeep serve --http` as a process."""

    def __init__(self, home: Path, **settings: str) -> None:
        """Start it on a free port."""
        environment = {k: v for k, v in os.environ.items() if not k.startswith("SOULKEEP_")}
        self._process = subprocess.Popen(
            [*soulkeep_command(home), "--http", "--port", "0"],
            stderr=subprocess.PIPE,
            env=environment | settings,
        )
        stderr = cast(IO[bytes], self._process.stderr)
        line = stderr.readline().decode()
        found = re.search(r"http://[^/]+", line)
        if found is None:
            raise RuntimeError(line + stderr.read().decode())
        self.url = found[0]

    def resident(self) -> float:
        """Return how much memory it has now, in MiB."""
        return resident_mib(self._process.pid) or 0

    def cpu_s(self) -> float:
        """Return how much processor time it has taken, in seconds."""
        return (cpu_ms_of(self._process.pid) or 0) / 1000

    def close(self) -> int:
        """End it as a person would; return its exit code."""
        self._process.terminate()
        return self._process.wait(timeout=90)


@contextmanager
def serving(home: Path, **settings: str) -> Iterator[HttpProcess]:
    """Give a server, and end it."""
    server = HttpProcess(home, **settings)
    try:
        yield server
    finally:
        server.close()


def body(tool: str, arguments: dict[str, Any]) -> tuple[dict[str, str], dict[str, Any]]:
    """Return the headers and the body of a call of the modern era."""
    params = {"name": tool, "arguments": arguments, "_meta": META}
    request = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
    return {**HEADERS, "mcp-name": tool}, request


def answer_of(response: httpx2.Response) -> dict[str, Any]:
    """Return the structured content of an answer, whichever way it came.

    Raises:
        RuntimeError: It is an error.
    """
    text = response.text
    if "text/event-stream" in response.headers.get("content-type", ""):
        text = [line[6:] for line in text.splitlines() if line.startswith("data: ")][-1]
    message = json.loads(text)
    if response.status_code != 200 or "error" in message or message["result"].get("isError"):
        raise RuntimeError(f"{response.status_code}: {text[:300]}")
    found: dict[str, Any] = message["result"]["structuredContent"]
    return found


def question(chance: random.Random) -> str:
    """Return something that one might ask."""
    return f"Who {chance.choice(VERBS)} the {chance.choice(SUBJECTS)}?"


def fill(folder: Path, memories: int, owner: str) -> None:
    """Make a home of so many memories, each of which says whose it is."""
    home = open_filling(folder)
    chance = random.Random(owner)  # noqa: S311 - no secret
    for begin in range(0, memories, 250):
        some = range(begin, min(begin + 250, memories))
        home.memories.remember(
            [
                NewMemory(f"{owner} {chance.choice(VERBS)} the {chance.choice(SUBJECTS)} number {n}.")
                for n in some
            ]
        )
    home.queue.work_off()
    home.close()


def against_stdio(folder: Path, memories: int) -> None:
    """Time a recall over a pipe and over HTTP, of the same home, one after the other."""
    fill(folder, memories, "anna")
    chance = random.Random(1)  # noqa: S311
    questions = [question(chance) for _ in range(CALLS)]
    times: dict[str, list[float]] = defaultdict(list)
    pipe = ServerProcess(soulkeep_command(folder))
    pipe.initialize()
    with (
        serving(folder, SOULKEEP_HTTP_REQUESTS="1000000") as server,
        httpx2.Client(base_url=server.url) as http,
    ):
        session = _session(http)
        for number, asked in enumerate([*questions[:20], *questions]):
            for way in ("stdio", "HTTP, handshake era", "HTTP, modern era"):
                begin = time.perf_counter()
                if way == "stdio":
                    pipe.reply(pipe.call("recall", query=asked))
                elif way == "HTTP, modern era":
                    headers, request = body("recall", {"query": asked})
                    answer_of(http.post("/mcp", headers=headers, json=request))
                else:
                    params = {"name": "recall", "arguments": {"query": asked}}
                    request = {"jsonrpc": "2.0", "id": number, "method": "tools/call", "params": params}
                    answer_of(http.post("/mcp", headers=session, json=request))
                if number >= 20:
                    times[way].append(1000 * (time.perf_counter() - begin))
    pipe.close()
    base = statistics.median(times["stdio"])
    rows = [
        (
            way,
            statistics.median(each),
            sorted(each)[int(len(each) * 0.99)],
            statistics.median(each) / base,
        )
        for way, each in times.items()
    ]
    print_table(
        f"Recall in a home of {memories:,} memories, {CALLS} times",
        ("", "p50 ms", "p99 ms", "x stdio"),
        rows,
    )


def _session(http: httpx2.Client) -> dict[str, str]:
    about = {
        "protocolVersion": "2025-11-25",
        "capabilities": {},
        "clientInfo": META["io.modelcontextprotocol/clientInfo"],
    }
    headers = {"accept": HEADERS["accept"]}
    opened = http.post(
        "/mcp",
        headers=headers,
        json={"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": about},
    )
    headers |= {"mcp-session-id": opened.headers["mcp-session-id"], "mcp-protocol-version": "2025-11-25"}
    http.post("/mcp", headers=headers, json={"jsonrpc": "2.0", "method": "notifications/initialized"})
    return headers


class Crowd:
    """Clients that call at the same time, each for one account after another."""

    def __init__(
        self, url: str, tokens: dict[str, str], seconds: float, pause: float, arrival: float = 0
    ) -> None:
        self._url, self._tokens, self._end = url, tokens, time.monotonic() + seconds
        self._pause, self._arrival = pause, arrival
        self.times: dict[str, list[float]] = defaultdict(list)
        self.errors: list[str] = []
        self.crossings: list[str] = []

    async def one(self, number: int) -> None:
        """Call until the time is over."""
        chance = random.Random(number)  # noqa: S311
        names = list(self._tokens)
        name, calls = chance.choice(names), 0
        await asyncio.sleep(self._arrival * chance.random())
        async with httpx2.AsyncClient(base_url=self._url, timeout=60) as http:
            while time.monotonic() < self._end:
                await asyncio.sleep(2 * self._pause * chance.random())
                calls += 1
                if calls % CONVERSATION == 0:
                    name = chance.choice(names)
                await self._call(http, name, *self._some(chance, name))

    def _some(self, chance: random.Random, name: str) -> tuple[str, dict[str, Any]]:
        drawn = chance.random()
        if drawn < 0.6:
            return "recall", {"query": question(chance)}
        if drawn < 0.75:
            return "get_context", {"max_tokens": 1_000}
        if drawn < 0.95:
            subject = chance.choice(SUBJECTS)
            return "remember", {"content": f"{name} saw the {subject} {chance.randrange(10**9)} today."}
        return "log_day", {"text": f"{name} logged {chance.randrange(10**9)}."}

    async def _call(
        self, http: httpx2.AsyncClient, name: str, tool: str, arguments: dict[str, Any]
    ) -> None:
        headers, request = body(tool, arguments)
        headers["authorization"] = f"Bearer {self._tokens[name]}"
        begin = time.perf_counter()
        try:
            said = answer_of(await http.post("/mcp", headers=headers, json=request))
        except (RuntimeError, httpx2.HTTPError, ValueError) as error:
            self.errors.append(f"{tool}: {error!r}")
            return
        self.times[tool].append(1000 * (time.perf_counter() - begin))
        for other in re.findall(r"account-\d+", json.dumps(said)):
            if other != name:
                self.crossings.append(f"{name} was told of {other} by {tool}")


def many_accounts(folder: Path, chosen: argparse.Namespace) -> int:
    """Let many clients use the homes of many accounts in one process; return how much went wrong."""
    accounts, memories, clients = chosen.accounts, chosen.memories, chosen.clients
    seconds = chosen.seconds
    folder.mkdir()
    kept = open_accounts(folder)
    tokens = {f"account-{n}": kept.add(f"account-{n}") for n in range(accounts)}
    first = kept.home_path("account-0")
    fill(first, memories, "account-0")
    for name in list(tokens)[1:]:
        shutil.copytree(first, kept.home_path(name))
        with closing(sqlite3.connect(kept.home_path(name) / "soulkeep.db")) as store, store:
            store.execute(
                "UPDATE memories SET content = replace(content, 'account-0 ', ?)", (f"{name} ",)
            )
    kept.close()
    with serving(folder, SOULKEEP_HTTP_REQUESTS="1000000") as server:
        alone = Crowd(server.url, {"account-0": tokens["account-0"]}, 5, 0)
        asyncio.run(_all(alone, 1))
        crowd, before = Crowd(server.url, tokens, seconds, chosen.pause, chosen.arrival), server.cpu_s()
        most = asyncio.run(_all(crowd, clients, server))
        cpu_s = server.cpu_s() - before
    rows = []
    for tool, each in sorted({**crowd.times}.items()):
        each.sort()
        base = statistics.median(alone.times[tool])
        p99 = each[int(len(each) * 0.99)]
        rows.append((tool, len(each), base, statistics.median(each), p99, p99 / base))
    print_table(
        f"{accounts} accounts of {memories} memories, {clients} clients at once,"
        f" who think {chosen.pause:g} s and come within {chosen.arrival:g} s, for {seconds:g} s",
        ("", "calls", "alone p50 ms", "p50 ms", "p99 ms", "p99 / alone"),
        rows,
    )
    calls = sum(map(len, crowd.times.values()))
    print(
        f"\n  {calls / seconds:,.1f} calls a second, {1000 * cpu_s / calls:,.1f} ms of processor time"
        f" each: the server keeps {cpu_s / seconds:.0%} of one core busy\n  {len(crowd.errors)} errors;"
        f" {len(crowd.crossings)} crossings; at most {most:,.0f} MiB resident"
    )
    for said in (*crowd.errors[:5], *crowd.crossings[:5]):
        print(f"  {said}")
    return len(crowd.errors) + len(crowd.crossings)


async def _all(crowd: Crowd, clients: int, server: HttpProcess | None = None) -> float:
    most = 0.0
    tasks = [asyncio.create_task(crowd.one(n)) for n in range(clients)]
    while any(not task.done() for task in tasks):
        await asyncio.sleep(0.5)
        most = max(most, server.resident() if server else 0)
    await asyncio.gather(*tasks)
    return most


def main() -> int:
    """Run both."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--accounts", type=int, default=200)
    parser.add_argument("--memories", type=int, default=500)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument(
        "--pause", type=float, default=2, help="seconds that a client thinks, in the mean"
    )
    parser.add_argument("--arrival", type=float, default=10, help="seconds in which the clients come")
    parser.add_argument("--only", choices=("stdio", "accounts"))
    chosen = parser.parse_args()
    print_machine()
    folder = Path(tempfile.mkdtemp(prefix="soulkeep-http-"))
    wrong = 0
    try:
        if chosen.only != "accounts":
            against_stdio(folder / "one", 500)
        if chosen.only != "stdio":
            wrong = many_accounts(folder / "many", chosen)
    finally:
        shutil.rmtree(folder)
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
