"""How a client is told to start soulkeep, and what a person who starts it at a terminal reads."""

import json
import sys
from pathlib import Path

import click

from soulkeep.cli.tables import print_facts
from soulkeep.cli.terminal import say
from soulkeep.settings import Settings
from soulkeep.shells import command_line

_FOR = (
    "soulkeep is a long-term memory for AI agents. Your agent's program (Claude Desktop, Claude Code,"
    " Cursor, VS Code and others) starts it and talks to it over stdin and stdout. To connect one, put"
    " this into its configuration of MCP servers:"
)

_BY_HAND = {
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
    return [*start, "serve", *(["--home", str(home)] if home else [])]


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
