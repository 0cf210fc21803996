"""Connecting an agent: what to paste into its client, what its model is told, and a demonstration."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from soulkeep import __version__
from soulkeep.app import Settings
from soulkeep.cli import (
    Command,
    Refused,
    current_settings,
    home_option,
    home_to_read,
    json_option,
)
from soulkeep.cli.terminal import print_facts, report, say
from soulkeep.clients import CLIENTS, hook_answer
from soulkeep.wording import command_line, counted

if TYPE_CHECKING:
    from mcp import Client

_FOR = (
    "soulkeep is a long-term memory for AI agents. Your agent's program (Claude Desktop, Claude Code,"
    " Cursor, VS Code and others) starts it and talks to it over stdin and stdout. To connect one, put"
    " this into its configuration of MCP servers:"
)

_BY_HAND = {
    "soulkeep install": "connect a program by its own configuration file",
    "soulkeep demo": "see it at work in a temporary folder",
    'soulkeep remember "TEXT"': "keep a memory",
    'soulkeep recall "QUESTION"': "bring back what fits",
    "soulkeep doctor": "see where all is kept, and whether it is in order",
    "soulkeep --help": "see all commands",
}

WAITING = (
    "soulkeep: waiting for an MCP client on stdin; clients start this command by themselves."
    " Ctrl-C ends it, and `soulkeep` alone says how to connect a client."
)


def client_command(home: Path | None = None) -> list[str]:
    """Return the command with which a client serves a home; without one, the one it would choose."""
    script = Path(sys.executable).with_name("soulkeep.exe" if sys.platform == "win32" else "soulkeep")
    start = [str(script)] if script.exists() else [sys.executable, "-m", "soulkeep"]
    start = _from_cache(script) or start
    return [*start, "serve", *(["--home", str(home)] if home else [])]


def _from_cache(script: Path) -> list[str]:
    """Return what starts it again where uvx or pipx runs it from a cache, in which it does not last."""
    parts = {part.lower() for part in script.parts}
    if "archive-v0" in parts:
        uvx, uv = shutil.which("uvx"), os.environ.get("UV") or shutil.which("uv")
        python = ".".join(map(str, sys.version_info[:2]))
        run = [uvx] if uvx else [uv, "tool", "run"] if uv else []
        return [*run, "--python", python, f"soulkeep@{__version__}"] if run else []
    is_kept_by_pipx = "pipx" in parts and not parts.isdisjoint({"cache", ".cache", "caches"})
    pipx = shutil.which("pipx") if is_kept_by_pipx else None
    return [pipx, "run", "--spec", f"soulkeep=={__version__}", "soulkeep"] if pipx else []


_CHECK_S = 60
_REQUESTS = (
    {
        "id": 1,
        "method": "initialize",
        "params": {
            "protocolVersion": "2025-11-25",
            "capabilities": {},
            "clientInfo": {"name": "soulkeep install", "version": __version__},
        },
    },
    {"method": "notifications/initialized"},
    {"id": 2, "method": "tools/list", "params": {}},
)


def check_start(words: list[str], environment: Mapping[str, str], starter: str) -> int:
    """Start the server as a program would, and return how many tools it lists.

    Raises:
        Refused: It does not answer.
    """
    sent = "".join(json.dumps({"jsonrpc": "2.0", **request}) + "\n" for request in _REQUESTS)
    said = ""
    try:
        done = subprocess.run(  # noqa: S603 - our own command
            words,
            input=sent.encode(),
            env=environment,
            cwd=os.path.abspath(os.sep),  # noqa: PTH100
            capture_output=True,
            timeout=_CHECK_S,
            check=False,
        )
        said = done.stderr.decode(errors="replace").strip().rpartition("\n")[2]
        answers = {answer.get("id"): answer for answer in map(json.loads, done.stdout.splitlines())}
        if "result" in answers.get(1, {}) and (tools := answers[2]["result"]["tools"]):
            return len(tools)
    except subprocess.TimeoutExpired:
        said = f"no answer within {_CHECK_S} s"
    except (OSError, ValueError, KeyError) as error:
        said = said or str(error)
    command = command_line(words)
    raise Refused(f"{command} does not answer as {starter} would start it ({said}). Nothing changed.")


def client_block(home: Path | None = None) -> str:
    """Return the block of JSON to paste into a client's configuration."""
    command, *arguments = client_command(home)
    entry = {"type": "stdio", "command": command, "args": arguments}
    return json.dumps({"mcpServers": {"soulkeep": entry}}, indent=2)


def print_welcome(settings: Settings) -> None:
    """Say what soulkeep is for and how to connect a client to the home of the settings."""
    # A client does not see what this shell's environment says.
    home = settings.home if settings.is_home_named else None
    command = command_line(client_command(home))
    say(f"{_FOR}\n")
    click.echo(f"{client_block(home)}\n")
    say("Claude Code takes a command instead:\n")
    click.echo(f"  claude mcp add --scope user soulkeep -- {command}\n")
    print_facts("By hand you can try it and look after what it keeps:", _BY_HAND)


def serve_over_http(host: str, port: int, ssl_certfile: str | None, ssl_keyfile: str | None) -> None:
    """Serve over HTTP until a signal comes.

    Raises:
        SoulkeepError: It cannot.
    """
    from soulkeep.serving import Address, serve_http

    settings = current_settings()
    address = Address(host, port, ssl_certfile, ssl_keyfile)

    def announce(url: str) -> None:
        click.echo(f"soulkeep: serving {url}/mcp (Ctrl+C ends it)", err=True)
        if not (address.is_local or url.startswith("https:")):
            say(UNENCRYPTED, err=True)

    serve_http(settings, address, announce)


UNENCRYPTED = (
    "Tokens and memories travel unencrypted: give --ssl-certfile, or put a proxy with TLS in front of"
    " this server and set SOULKEEP_URL to the proxy's https address."
)


_WITH_HOOKS = [client.name for client in CLIENTS.values() if client.hooks]
_HOOK_TOKENS, _FEWEST_TOKENS = 2_000, 100
_HOOK_CHARACTERS = 9_500
"""Claude Code hands on 10,000 characters of what a hook prints."""
_LONGEST_EVENT = 1_000_000


@click.command(cls=Command)
@click.option("--thread", "thread_id", help="The thread that is continued.")
@click.option("--query", help="What the conversation will be about.")
@click.option("--max-tokens", type=int, help="How long it may be; unset, SOULKEEP_CONTEXT_TOKENS.")
@click.option(
    "--hook",
    type=click.Choice(_WITH_HOOKS),
    help="Answer a hook of this client, whose event is on stdin.",
)
@json_option
@home_option
def context(
    thread_id: str | None,
    query: str | None,
    max_tokens: int | None,
    hook: str | None,
    *,
    as_json: bool,
) -> None:
    """Print what agents get at the start of a conversation, for hooks and scripts."""
    from soulkeep.mcp_server.answers.memories import ContextAnswer

    def view(most: int | None) -> ContextAnswer:
        with home_to_read() as home:
            found = home.contexts.assemble(thread_id=thread_id, query=query, max_tokens=most)
        return ContextAnswer.of(found)

    def bounded() -> str:
        most = min(max_tokens or current_settings().context_tokens, _HOOK_TOKENS)
        while len(text := view(most).as_text()) > _HOOK_CHARACTERS and most > _FEWEST_TOKENS:
            most = max(most // 2, _FEWEST_TOKENS)
        return text

    if hook:
        try:
            event = json.loads(sys.stdin.buffer.read(_LONGEST_EVENT))
        except ValueError as error:
            raise Refused("stdin holds no event of a hook, which is a JSON object.") from error
        click.echo(hook_answer(CLIENTS[hook], event, bounded))
        return
    shown = view(max_tokens)
    report(as_json, shown.as_data() | {"text": shown.as_text()}, shown.as_text())


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


_PLACES = {1: "first", 2: "second", 3: "third"}


@dataclass(frozen=True, slots=True)
class _Answer:
    """What was recalled for a question; `place` is where in it the right memory stands, from 1."""

    question: str
    content: str | None
    place: int | None
    milliseconds: float


@click.command(cls=Command)
def demo() -> None:
    """Watch memories being kept and brought back by meaning, in a temporary folder."""
    current_settings()  # what is wrong in them is said here, not by the server
    answers, mode = _played()
    for answer in answers:
        say(f"  ? {answer.question}", bold=True)
        taken = f"{answer.milliseconds:.1f} ms"
        if answer.place is None:
            say(f"    not found ({taken})")
        else:
            came = _PLACES.get(answer.place, f"at place {answer.place}")
            say(f"    {answer.content}  (came {came}, {taken})")
    first = sum(answer.place == 1 for answer in answers)
    middle = sorted(answer.milliseconds for answer in answers)[len(answers) // 2]
    say(f"\n{first} of {len(answers)} answers came first; median {middle:.1f} ms, {mode} search.")
    if mode == "lexical":
        say(
            "Without an embedder a memory is found by its words alone, so each was asked for by one of"
            " them; `soulkeep doctor` says which embedder is in use."
        )
    say("\nNothing was kept and nothing left this machine. To use soulkeep, add this to your client:")
    click.echo(client_block())
    if missed := sum(answer.place is None for answer in answers):
        raise Refused(f"{counted(missed, 'answer')} not found.")


def _played() -> tuple[list[_Answer], str]:
    """Play the demo in a temporary folder.

    Raises:
        Refused: The server cannot be started, or does not do what it is asked.
    """
    import anyio
    from mcp import MCPError

    problem: BaseException | None = None
    try:
        with tempfile.TemporaryDirectory(prefix="soulkeep-demo-") as folder:
            return anyio.run(_play, Path(folder))
    except* (OSError, MCPError, Refused) as group:
        problem = group
        while isinstance(problem, BaseExceptionGroup):
            problem = problem.exceptions[0]
    raise Refused(f"the demo failed: {problem}")


async def _play(home: Path) -> tuple[list[_Answer], str]:
    from mcp import Client, StdioServerParameters, stdio_client

    command, *arguments = client_command(home)
    # The SDK hands on only some of the environment.
    chosen = {name: value for name, value in os.environ.items() if name.startswith("SOULKEEP_")}
    server = StdioServerParameters(command=command, args=arguments, env=chosen)
    started = time.perf_counter()
    async with Client(stdio_client(server)) as client:
        say(f"A server started over stdio in {time.perf_counter() - started:.2f} s.")
        threads = {GLOBAL: ""}
        for title in (KITCHEN, TRIP):
            threads[title] = (await _call(client, "create_thread", title=title))["id"]
        kept = [
            {"content": content, "memory_type": memory_type, "thread_id": threads[title]}
            for title, memory_type, content in MEMORIES
        ]
        stored = (await _call(client, "remember", memories=kept))["stored"]
        # The first search loads the embedder, which is once per process and not what is timed here.
        mode = (await _call(client, "recall", query="warm up"))["mode"]
        by_words = mode == "lexical"
        how = "by one of their words" if by_words else "in other words"
        say(f"{stored} memories kept, in two threads and globally. Asked for {how}:\n")
        answers = []
        for title, question, word in QUESTIONS:
            asked, started = word if by_words else question, time.perf_counter()
            found = await _call(client, "recall", query=asked, thread_id=threads[title])
            elapsed = (time.perf_counter() - started) * 1000
            contents = [match["content"] for match in found["matches"]]
            place = next((i for i, content in enumerate(contents, start=1) if word in content), None)
            answers.append(_Answer(asked, contents[place - 1] if place else None, place, elapsed))
        return answers, mode


async def _call(client: "Client", tool: str, **arguments: Any) -> dict[str, Any]:
    result = await client.call_tool(tool, arguments)
    if result.is_error or result.structured_content is None:
        said = " ".join(getattr(part, "text", "") for part in result.content)
        raise Refused(f"{tool} answered: {said}")
    structured: dict[str, Any] = result.structured_content
    return structured
