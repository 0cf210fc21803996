"""How soon a client that subscribed to MEMORY.md hears of an edit by hand, in both protocol eras."""

import argparse
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import anyio
from mcp import Client, StdioServerParameters, stdio_client
from mcp.types import ResourceUpdatedNotification

from report import print_machine, print_table
from server_process import soulkeep_command

URI = "soulkeep://MEMORY.md"
ERAS = {"handshake": "legacy", "modern": "auto"}
PATIENCE_S = 30.0
PAUSE_S = 1.0
"""Between two edits, so that each is told by itself."""

Heard = Callable[[], None]


def rename(path: Path, text: str) -> None:
    """Save as an editor does that writes a new file and puts it in place."""
    new = path.with_name("MEMORY.md~")
    new.write_text(text, encoding="utf-8")
    new.replace(path)


def rewrite(path: Path, text: str) -> None:
    """Save as an editor does that empties the file and fills it."""
    path.write_text(text, encoding="utf-8")


WAYS = {"renames": rename, "rewrites": rewrite}


@asynccontextmanager
async def listening(home: Path, mode: str, heard: Heard) -> AsyncIterator[None]:
    """Subscribe a client to MEMORY.md and call `heard` at each sign of a change."""
    command, *args = soulkeep_command(home)

    async def note(message: object) -> None:
        if isinstance(message, ResourceUpdatedNotification):
            heard()

    async def follow(subscription: Any) -> None:
        async for _ in subscription:
            heard()

    transport = stdio_client(StdioServerParameters(command=command, args=args))
    async with Client(transport, mode=mode, cache=None, message_handler=note) as client:
        if mode == "legacy":
            await client.subscribe_resource(URI)
            yield
            return
        async with (
            client.listen(resource_subscriptions=[URI]) as subscription,
            anyio.create_task_group() as tasks,
        ):
            tasks.start_soon(follow, subscription)
            yield
            tasks.cancel_scope.cancel()


async def measure(mode: str, rounds: int) -> dict[str, list[float]]:
    """Return for each way of saving how many ms passed until the client heard of it.

    Raises:
        TimeoutError: It never did.
    """
    took: dict[str, list[float]] = {way: [] for way in WAYS}
    notifications: list[anyio.Event] = [anyio.Event()]
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / "home"
        async with listening(home, mode, lambda: notifications[0].set()):
            for number in range(rounds):
                for way, save in WAYS.items():
                    await anyio.sleep(PAUSE_S)
                    notifications[0] = anyio.Event()
                    began = perf_counter()
                    save(home / "MEMORY.md", f"# {number}\n\n- An entry by {way}.\n")
                    with anyio.fail_after(PATIENCE_S):
                        await notifications[0].wait()
                    took[way].append((perf_counter() - began) * 1000)
    return took


def main() -> None:
    """Measure and print; a sign that never comes raises, which is exit code 1."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=10, help="edits of each kind in each era")
    options = parser.parse_args()
    print_machine()
    rows: list[list[object]] = []
    for era, mode in ERAS.items():
        took = anyio.run(partial(measure, mode, options.rounds))
        rows += [[era, f"an editor that {way}", median(ms), max(ms)] for way, ms in took.items()]
    print_table("from an edit by hand to its sign, ms", ["era", "saved by", "median", "longest"], rows)


if __name__ == "__main__":
    main()
