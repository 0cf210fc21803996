"""The command line; `soulkeep serve`, also the default, is what clients start."""

import gc
import sys
from importlib import import_module
from typing import ClassVar

import click
from pydantic import ValidationError

from soulkeep import __version__
from soulkeep.cli.options import current_settings, home_option
from soulkeep.errors import SoulkeepError


class _LazyGroup(click.Group):
    """A group that imports a command's module when the command is used, to keep `serve` fast."""

    commands_by_module: ClassVar[dict[str, tuple[str, ...]]] = {
        "soulkeep.cli.backups": ("backup", "backups", "restore"),
        "soulkeep.cli.changes": ("changes", "trash", "undo"),
        "soulkeep.cli.completion": ("completion",),
        "soulkeep.cli.context": ("context",),
        "soulkeep.cli.demo": ("demo",),
        "soulkeep.cli.doctor": ("compact", "doctor", "reindex"),
        "soulkeep.cli.documents": ("documents",),
        "soulkeep.cli.lifecycle": ("memories",),
        "soulkeep.cli.log": ("log", "stats"),
        "soulkeep.cli.memories": ("recall", "remember"),
        "soulkeep.cli.prompts": ("prompts",),
        "soulkeep.cli.purge": ("purge",),
        "soulkeep.cli.threads": ("threads",),
    }

    def list_commands(self, ctx: click.Context) -> list[str]:
        lazy = [name for names in self.commands_by_module.values() for name in names]
        return sorted([*super().list_commands(ctx), *lazy])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        for module, names in self.commands_by_module.items():
            if cmd_name in names:
                command: click.Command = getattr(import_module(module), cmd_name)
                return command
        return super().get_command(ctx, cmd_name)


@click.group(cls=_LazyGroup, invoke_without_command=True)
@click.version_option(__version__, prog_name="soulkeep")
@home_option
@click.pass_context
def soulkeep(context: click.Context) -> None:
    """Long-term memory for any MCP client, in files you own.

    Without a command it serves a client over stdin and stdout.
    The exit code is 0 when all was done, 1 when something was refused or found wrong, 2 after a wrong
    call.
    """
    if context.invoked_subcommand is None:
        context.invoke(serve)


@soulkeep.command()
@home_option
def serve() -> None:
    """Serve an MCP client over stdin and stdout (what clients start)."""
    # Nothing that start-up makes becomes garbage, so collecting would only cost time.
    gc.disable()
    from soulkeep.app import serve as serve_client

    serve_client(current_settings())


def main() -> None:
    """Run the command line; an expected failure is one line on stderr and exit code 1."""
    try:
        soulkeep.main(prog_name="soulkeep")
    except SoulkeepError as error:
        _fail(str(error), 1)
    except ValidationError as error:
        problem = error.errors(include_url=False, include_context=False, include_input=False)[0]
        name = "_".join(["SOULKEEP", *(str(part).upper() for part in problem["loc"])])
        _fail(f"{name}: {problem['msg']}; correct it or unset it.", 2)


def _fail(message: str, code: int) -> None:
    click.echo(f"soulkeep: {' '.join(message.split())}", err=True)
    sys.exit(code)
