"""How commands are grouped, found and listed, and how what they refuse is said."""

import re
import shutil
from collections.abc import Collection, Iterable, Mapping
from difflib import get_close_matches
from importlib import import_module
from typing import IO, Any

import click

from soulkeep.cli.terminal import one_line
from soulkeep.errors import (
    ChangeNotFoundError,
    InvalidInputError,
    MemoryForgottenError,
    MemoryNotFoundError,
    NotFoundError,
    SoulkeepError,
    ThreadNotFoundError,
)

_REMEDIES: Mapping[type[NotFoundError], str] = {
    ThreadNotFoundError: "`soulkeep threads list` shows their ids",
    MemoryNotFoundError: "`soulkeep memories list` and `soulkeep trash` show their ids",
    MemoryForgottenError: "`soulkeep memories restore {memory_id}` brings it back",
    ChangeNotFoundError: "`soulkeep changes` shows their ids",
}
"""What to do next in a shell, where an error says it for agents, who have tools instead."""

_WIDEST, _NARROWEST = 80, 20

_ARGUMENT = re.compile(r"`(\w+)`")

HOME = "soulkeep.home"
"""Under which key of a context's `meta` the value of --home is."""


class Refused(click.ClickException):
    """What soulkeep reports on purpose: one line on stderr, and exit code 1."""

    def show(self, file: IO[Any] | None = None) -> None:
        """Print the line."""
        click.echo(one_line(f"soulkeep: {self.message}"), file=file, err=True)


class WrongSetting(Refused):
    """A setting that cannot be meant; the exit code is that of a wrong call."""

    exit_code = 2


def in_shell(error: SoulkeepError, context: click.Context) -> str:
    """Return what an error says, with the options and commands that a person at a shell has."""
    if isinstance(error, InvalidInputError):
        return _ARGUMENT.sub(lambda found: _as_typed(found[1], context), str(error))
    if isinstance(error, NotFoundError):
        remedy = _REMEDIES.get(type(error))
        return f"{error.problem}; {remedy.format_map(vars(error)) if remedy else error.remedy}."
    if HOME in context.meta:
        return str(error).replace("set SOULKEEP_HOME to", "set --home to")
    return str(error)


def _as_typed(argument: str, context: click.Context) -> str:
    for parameter in context.command.params:
        if parameter.name == argument:
            if isinstance(parameter, click.Option):
                return max(parameter.opts, key=len)
            return parameter.make_metavar(context).strip("[].")
    return argument if argument == "stdin" else f"`{argument}`"


class _Formatter(click.HelpFormatter):
    """Help as wide as the terminal is; click's own needs 50 columns."""

    def __init__(self) -> None:
        wide = min(shutil.get_terminal_size().columns, _WIDEST)
        super().__init__(width=max(wide - 2, _NARROWEST))

    def write_dl(self, rows: Iterable[tuple[str, str]], col_max: int = 30, col_spacing: int = 2) -> None:
        """Write names with their descriptions, on a narrow terminal below long names."""
        super().write_dl(list(rows), min(col_max, self.width // 3), col_spacing)


class _Context(click.Context):
    def make_formatter(self) -> click.HelpFormatter:
        return _Formatter()


class Command(click.Command):
    """A command whose refusals are said in its own options."""

    context_class = _Context

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command.

        Raises:
            Refused: It reports an error of soulkeep.
        """
        try:
            return super().invoke(ctx)
        except SoulkeepError as error:
            raise Refused(in_shell(error, ctx)) from error


class Group(click.Group):
    """Commands that are listed with their whole descriptions, in the order of their sections."""

    context_class = _Context
    command_class = Command
    group_class = type

    def sections(self) -> Mapping[str, Collection[str]]:
        """Return the names of the commands under the titles of their sections."""
        return {"Commands": self.commands}

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all commands, as a shell completes them."""
        return sorted(name for names in self.sections().values() for name in names)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the command that is meant.

        Raises:
            UsageError: There is none of that name; one of a name like it is named.
        """
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            close = get_close_matches(args[0], self.list_commands(ctx), 1)
            if not close:
                raise
            raise click.UsageError(f"{error.message} Did you mean {close[0]}?", ctx) from error

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the sections of the help; click would cut each description to one line."""
        for title, names in self.sections().items():
            commands = [(name, self.get_command(ctx, name)) for name in names]
            with formatter.section(title):
                formatter.write_dl([(name, _described(command)) for name, command in commands])


class LazyGroup(Group):
    """A group that imports a command's module when the command is used, to keep `serve` fast."""

    def __init__(self, *args: Any, modules: Mapping[str, Mapping[str, str]], **kwargs: Any) -> None:
        """Take, for each section, the module of each command; "" for those of the group itself."""
        super().__init__(*args, **kwargs)
        self._modules = modules

    def sections(self) -> Mapping[str, Collection[str]]:
        """Return the names of the commands under the titles of their sections."""
        return self._modules

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a command, imported if need be."""
        for modules in self._modules.values():
            if module := modules.get(cmd_name):
                command: click.Command = getattr(import_module(module), cmd_name)
                return command
        return super().get_command(ctx, cmd_name)


def _described(command: click.Command | None) -> str:
    return command.get_short_help_str(limit=1_000) if command else ""
