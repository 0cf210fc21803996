"""`soulkeep demo`: a real client keeps memories in a real server and asks for them in other words."""

import json
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import click

if TYPE_CHECKING:
    from mcp import Client

GLOBAL, KITCHEN, TRIP = "global", "Kitchen renovation", "Birthday trip to Lisbon"

MEMORIES = (
    (KITCHEN, "decision", "The oven will be electric, because gas lines are forbidden in our building."),
    (KITCHEN, "decision", "Marble worktops stain, so the counters will be oak."),
    (KITCHEN, "fact", "Carlos the plumber starts on the third of March."),
    (KITCHEN, "fact", "Tiles cost 2,400 euros including delivery."),
    (KITCHEN, "preference", "The cabinets should be painted dark green."),
    (KITCHEN, "summary", "Week one: the old floor is out and all sockets are moved."),
    (KITCHEN, "fact", "The refrigerator must be at least 70 cm wide."),
    (TRIP, "fact", "We fly to Lisbon on the ninth of May and come back a week later."),
    (TRIP, "fact", "The apartment near the river sleeps six."),
    (TRIP, "fact", "Grandma cannot climb stairs, so every restaurant has to be at street level."),
    (TRIP, "decision", "Museums on weekdays only, the queues are shorter."),
    (TRIP, "fact", "Anna is bringing her violin for the birthday evening."),
    (TRIP, "decision", "Renting a car was rejected; trains and trams are enough."),
    (GLOBAL, "fact", "The user is allergic to peanuts."),
    (GLOBAL, "fact", "The user's daughter Lena plays football on Saturdays."),
    (GLOBAL, "fact", "Their dog, a beagle called Biscuit, is afraid of thunder."),
    (GLOBAL, "fact", "The user works as a nurse on night shifts."),
    (GLOBAL, "preference", "Prefers short answers with bullet points."),
    (GLOBAL, "preference", "Never schedule meetings before ten in the morning."),
    (GLOBAL, "preference", "Python code is formatted with four spaces, never tabs."),
    (GLOBAL, "fact", "The backup disk is encrypted and kept at the office."),
    (GLOBAL, "fact", "The family speaks German at home."),
    (GLOBAL, "fact", "Salary arrives on the last working day of each month."),
    (GLOBAL, "fact", "Learning the piano again after twenty years."),
)
"""Thread, type and content of each memory."""

QUESTIONS = (
    (GLOBAL, "Which pet lives with us, and what scares it?", "beagle"),
    (GLOBAL, "Which food could make me sick?", "peanuts"),
    (GLOBAL, "When do I get paid?", "Salary"),
    (GLOBAL, "What is my job?", "nurse"),
    (GLOBAL, "Indentation style for source files", "four spaces"),
    (KITCHEN, "Fridge size", "refrigerator"),
    (KITCHEN, "Price, ceramic wall covering", "Tiles"),
    (KITCHEN, "Kitchen surface material", "Marble"),
    (TRIP, "What instrument at this music party?", "violin"),
    (TRIP, "Public transport instead of driving", "trains"),
)
"""Where it is asked, the question, and a word of the memory that answers it.

No question shares a word with its answer.
"""


@dataclass(frozen=True, slots=True)
class _Answer:
    question: str
    first: str
    rank: int | None
    milliseconds: float


@click.command()
def demo() -> None:
    """Watch memories being kept and brought back by meaning, in a temporary folder."""
    with tempfile.TemporaryDirectory(prefix="soulkeep-demo-") as folder:
        answers, mode = anyio.run(_play, Path(folder))
    for answer in answers:
        found = "not found" if answer.rank is None else f"rank {answer.rank}"
        click.echo(f"  {click.style('?', bold=True)} {answer.question}")
        click.echo(f"    {answer.first}  ({found}, {answer.milliseconds:.1f} ms)")
    first = sum(answer.rank == 1 for answer in answers)
    middle = sorted(answer.milliseconds for answer in answers)[len(answers) // 2]
    click.echo(f"\n{first} of {len(answers)} answers came first; median {middle:.1f} ms, {mode} search.")
    if mode == "lexical":
        click.echo(
            "Without an embedder only shared words are found: `soulkeep doctor` says what is in use."
        )
    click.echo(
        "\nNothing was kept and nothing left this machine. To use soulkeep, add this to your client:"
    )
    click.echo(json.dumps(_client_block(), indent=2))


def _server_command() -> list[str]:
    script = Path(sys.executable).with_name("soulkeep.exe" if sys.platform == "win32" else "soulkeep")
    return [str(script)] if script.exists() else [sys.executable, "-m", "soulkeep"]


def _client_block() -> dict[str, Any]:
    command, *arguments = _server_command()
    return {"mcpServers": {"soulkeep": {"command": command, "args": [*arguments, "serve"]}}}


async def _play(home: Path) -> tuple[list[_Answer], str]:
    from mcp import Client, StdioServerParameters, stdio_client

    command, *arguments = _server_command()
    server = StdioServerParameters(command=command, args=[*arguments, "serve", "--home", str(home)])
    started = time.perf_counter()
    async with Client(stdio_client(server)) as client:
        click.echo(f"A server started over stdio in {time.perf_counter() - started:.2f} s.")
        threads = {GLOBAL: ""}
        for title in (KITCHEN, TRIP):
            threads[title] = (await _call(client, "create_thread", title=title))["id"]
        kept = [
            {"content": content, "memory_type": memory_type, "thread_id": threads[title]}
            for title, memory_type, content in MEMORIES
        ]
        stored = (await _call(client, "remember", memories=kept))["stored"]
        click.echo(f"{stored} memories kept, in two threads and globally. Asked in other words:\n")
        # The first search loads the embedder, which is once per process and not what is timed here.
        mode = (await _call(client, "recall", query="warm up"))["mode"]
        return [await _ask(client, threads[t], q, word) for t, q, word in QUESTIONS], mode


async def _ask(client: "Client", thread_id: str, question: str, word: str) -> _Answer:
    started = time.perf_counter()
    found = await _call(client, "recall", query=question, thread_id=thread_id)
    elapsed = (time.perf_counter() - started) * 1000
    contents = [match["content"] for match in found["matches"]]
    rank = next((i for i, content in enumerate(contents, start=1) if word in content), None)
    return _Answer(question, contents[0] if contents else "nothing", rank, elapsed)


async def _call(client: "Client", tool: str, **arguments: Any) -> dict[str, Any]:
    result = await client.call_tool(tool, arguments)
    if result.is_error or result.structured_content is None:
        raise click.ClickException(f"{tool} failed: {result.content}")
    structured: dict[str, Any] = result.structured_content
    return structured
