"""The command line; `soulkeep serve`, also the default, is what clients start."""

import gc
import io
import os
import sys
from pathlib import Path

import click

from soulkeep import __version__
from soulkeep.cli.commands import Group, current_settings, home_option
from soulkeep.cli.terminal import say

LAST_STREAM = 2
"""The number of stderr; 0 and 1 are stdin and stdout."""

_MODULES = {
    "Connect an agent": {
        "serve": "",
        "demo": "soulkeep.cli.connect",
        "context": "soulkeep.cli.connect",
    },
    "Memories": {
        "remember": "soulkeep.cli.memories",
        "recall": "soulkeep.cli.memories",
        "memories": "soulkeep.cli.memories",
        "trash": "soulkeep.cli.changes",
        "changes": "soulkeep.cli.changes",
        "undo": "soulkeep.cli.changes",
        "purge": "soulkeep.cli.changes",
    },
    "Documents, prompts and threads": {
        "documents": "soulkeep.cli.documents",
        "prompts": "soulkeep.cli.documents",
        "threads": "soulkeep.cli.threads",
    },
    "Upkeep": {
        "doctor": "soulkeep.cli.upkeep",
        "backup": "soulkeep.cli.upkeep",
        "backups": "soulkeep.cli.upkeep",
        "restore": "soulkeep.cli.upkeep",
        "log": "soulkeep.cli.upkeep",
        "stats": "soulkeep.cli.upkeep",
        "reembed": "soulkeep.cli.upkeep",
        "reindex": "soulkeep.cli.upkeep",
        "compact": "soulkeep.cli.upkeep",
        "completion": "soulkeep.cli.upkeep",
    },
}


@click.group(
    cls=Group,
    modules=_MODULES,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(__version__, prog_name="soulkeep")
@home_option
@click.pass_context
def soulkeep(context: click.Context) -> None:
    """Long-term memory for any MCP client, in files you own.

    Without a command it serves a client over stdin and stdout; at a terminal it says how to connect
    one. The exit code is 0 when all was done, 1 when something was refused or found wrong, 2 after a
    wrong call.

    With --json a command prints one JSON object for scripts. A list stands in it under its noun
    (memories, threads, backups ...), and the same thing has the same names in all commands. What is
    refused is one line on stderr.
    """
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":  # https://no-color.org
        context.color = False
    if context.invoked_subcommand is None:
        if sys.stdin.isatty():
            from soulkeep.cli.connect import print_welcome

            print_welcome(current_settings())
        else:
            context.invoke(serve)


@soulkeep.command()
@home_option
def serve() -> None:
    """Serve an MCP client over stdin and stdout (what clients start)."""
    if sys.stdin.isatty():
        from soulkeep.cli.connect import WAITING

        say(WAITING, err=True)
    # Nothing that start-up makes becomes garbage, so collecting would only cost time.
    gc.disable()
    from soulkeep.app import serve as serve_client

    serve_client(current_settings(for_client=True))


def main() -> None:
    """Run the command line; an expected failure is one line on stderr."""
    # Without standard streams the next file that is opened, the store for one, would take their place:
    # then they lead nowhere.
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= LAST_STREAM:
        pass
    os.close(descriptor)
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open(mode, encoding="utf-8"))  # noqa: SIM115 - stays open
    if isinstance(sys.stdout, io.TextIOWrapper):
        # What an encoding lacks is shown as an escape.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        # On Windows click would put the value of a variable into a text that names one.
        soulkeep.main(prog_name="soulkeep", windows_expand_args=False)
    except OSError as error:
        if error.filename is not None:
            raise
        # Only writing to stdout is left: files are written below, where errors are translated.
        sys.stdout = io.StringIO()
        click.echo(f"soulkeep: the output cannot be written ({error.strerror}).", err=True)
        sys.exit(1)
