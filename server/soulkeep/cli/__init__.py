"""The command line: its groups and commands, which options several take, and how refusals are said.

`soulkeep serve`, also the default, is what clients start.
"""

import gc
import io
import os
import re
import shutil
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from difflib import get_close_matches
from importlib import import_module
from keyword import iskeyword
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import click
from pydantic import ValidationError

from soulkeep import __version__
from soulkeep.app import Settings
from soulkeep.cli.terminal import one_line, say
from soulkeep.days import Days
from soulkeep.errors import (
    ChangeNotFoundError,
    InvalidInputError,
    MemoryForgottenError,
    MemoryNotFoundError,
    NotFoundError,
    SoulkeepError,
    StoreError,
    StoreNotWritableError,
    ThreadNotFoundError,
)
from soulkeep.models import MEMORY_TYPES

if TYPE_CHECKING:
    from soulkeep.service.home import Home

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


class _Formatter(click.HelpFormatter):
    """Help as wide as the terminal is; click's own needs 50 columns."""

    def __init__(self, **_: Any) -> None:
        wide = min(shutil.get_terminal_size().columns, _WIDEST)
        super().__init__(width=max(wide - 2, _NARROWEST))

    def write_dl(self, rows: Iterable[tuple[str, str]], col_max: int = 30, col_spacing: int = 2) -> None:
        """Write names with their descriptions, on a narrow terminal below long names."""
        super().write_dl(list(rows), min(col_max, self.width // 3), col_spacing)


class _Context(click.Context):
    formatter_class = _Formatter


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
            said = str(error)
            if isinstance(error, InvalidInputError):
                typed = {"stdin": "stdin"}
                for parameter in self.params:
                    is_option = isinstance(parameter, click.Option)
                    metavar = parameter.make_metavar(ctx).strip("[].")
                    typed[parameter.name or ""] = max(parameter.opts, key=len) if is_option else metavar
                said = _ARGUMENT.sub(lambda found: typed.get(found[1], found[0]), said)
            elif isinstance(error, NotFoundError):
                remedy = _REMEDIES.get(type(error))
                remedy = remedy.format_map(vars(error)) if remedy else error.remedy
                said = f"{error.problem}; {remedy}."
            elif HOME in ctx.meta:
                said = said.replace("set SOULKEEP_HOME to", "set --home to")
            raise Refused(said) from error


class Group(click.Group):
    """Commands that are listed with their whole descriptions, in the order of their sections.

    Those of other modules are imported when they are used, to keep `serve` fast.
    """

    context_class = _Context
    command_class = Command
    group_class = type

    def __init__(
        self, *args: Any, modules: Mapping[str, Mapping[str, str]] | None = None, **kwargs: Any
    ) -> None:
        """Take, for each section, the module of each command; "" for those of the group itself."""
        super().__init__(*args, **kwargs)
        self._modules = modules or {}
        self.sections: Mapping[str, Collection[str]] = modules or {"Commands": self.commands}
        """The names of the commands under the titles of their sections."""

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a command, imported if need be."""
        for modules in self._modules.values():
            if module := modules.get(cmd_name):
                attribute = f"{cmd_name}_" if iskeyword(cmd_name) else cmd_name
                command: click.Command = getattr(import_module(module), attribute)
                return command
        return super().get_command(ctx, cmd_name)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all commands, as a shell completes them."""
        return sorted(name for names in self.sections.values() for name in names)

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
        for title, names in self.sections.items():
            commands = [(name, self.get_command(ctx, name)) for name in names]
            with formatter.section(title):
                formatter.write_dl(
                    [(name, found.get_short_help_str(limit=1_000)) for name, found in commands if found]
                )


Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


def _keep_home(context: click.Context, _: click.Parameter, value: str | None) -> None:
    if value is None:
        return
    if not value.strip():  # as from "$UNSET"
        raise click.BadParameter("It names no folder; write the whole path, or leave it out.")
    context.meta[HOME] = Path(value)


home_option: Decorator = click.option(
    "--home",
    type=click.Path(),
    callback=_keep_home,
    expose_value=False,
    help="Folder of the store and the documents (default: SOULKEEP_HOME, or the user data folder).",
)

json_option: Decorator = click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON object, for scripts."
)
type_option: Decorator = click.option(
    "--type", "memory_type", type=click.Choice(MEMORY_TYPES), help="The type of memory."
)
since_option: Decorator = click.option(
    "--since", metavar="DATE", help="Only from this date or time on, such as 2026-11-22."
)
until_option: Decorator = click.option(
    "--until", metavar="DATE", help="Only up to the end of this date, or this time."
)
yes_option: Decorator = click.option("--yes", is_flag=True, help="Do not ask.")


def limit_option(default: int, highest: int) -> Decorator:
    """Return the option that says how many rows are listed."""
    return click.option(
        "--limit", type=int, default=default, show_default=True, help=f"How many, 1 to {highest:,}."
    )


def before_option(name: str = "before") -> Decorator:
    """Return the option that leads to the next page of a list."""
    return click.option(
        f"--{name}", type=int, metavar="ID", help="Only those with ids under this: the next page."
    )


def current_settings(*, for_client: bool = False) -> Settings:
    """Return the settings of the command that is running.

    By hand, `--home` may be relative to the current folder; a client starts its server in any.

    Raises:
        WrongSetting: One of them is wrong; it is named as the user gave it.
    """
    home: Path | None = click.get_current_context().meta.get(HOME)
    if home is not None and not for_client and str(home)[0] not in "~$%\"'":
        home = Path.cwd() / home
    try:
        return Settings() if home is None else Settings(home=home)
    except ValidationError as error:
        problem = error.errors(include_url=False, include_context=False, include_input=False)[0]
        field = "_".join(map(str, problem["loc"]))
        name = "--home" if home and field == "home" else f"SOULKEEP_{field.upper()}"
        rule = problem["msg"].removeprefix("Value error, ")
        of_ours = rule != problem["msg"]
        said = f"{name} {rule}." if of_ours else f"{name}: {rule}; correct it or unset it."
        raise WrongSetting(said) from error


def current_days() -> Days:
    """Return the days of the user who runs the command."""
    return Days(current_settings().options.timezone)


@contextmanager
def opened_home(*, read_only: bool = False) -> "Iterator[Home]":
    """Open the home of the command that is running, and close it after the block."""
    from soulkeep.app import open_home

    settings = current_settings()
    opened = open_home(
        settings.home,
        options=settings.options,
        read_only=read_only,
        is_named=settings.is_home_named,
    )
    with closing(opened) as home:
        yield home
        if home.announcement:  # after an error, that is the one line
            click.echo(f"soulkeep: {home.announcement}", err=True)


@contextmanager
def home_to_read() -> "Iterator[Home]":
    """Open the home as `opened_home` does, or only to be read where it cannot be written."""
    with ExitStack() as stack:
        try:
            home = stack.enter_context(opened_home())
        except StoreNotWritableError as refused:
            try:
                home = stack.enter_context(opened_home(read_only=True))
            except StoreError:
                raise refused from None
        yield home


LAST_STREAM = 2
"""The number of stderr; 0 and 1 are stdin and stdout."""

_MODULES = {
    "Connect an agent": {
        "install": "soulkeep.cli.install",
        "uninstall": "soulkeep.cli.install",
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
    "Several people": {
        "accounts": "soulkeep.cli.accounts",
        "teams": "soulkeep.cli.accounts",
    },
    "Upkeep": {
        "doctor": "soulkeep.cli.upkeep",
        "backup": "soulkeep.cli.upkeep",
        "backups": "soulkeep.cli.upkeep",
        "restore": "soulkeep.cli.upkeep",
        "copy": "soulkeep.cli.upkeep",
        "import": "soulkeep.cli.imports",
        "export": "soulkeep.cli.imports",
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
@click.option(
    "--http", "over_http", is_flag=True, help="Serve over HTTP instead, any number of clients."
)
@click.option("--host", default="127.0.0.1", show_default=True, help="Where to listen.")
@click.option(
    "--port", type=click.IntRange(0, 65_535), default=8765, show_default=True, help="The port."
)
@click.option("--ssl-certfile", type=click.Path(), help="A certificate, to encrypt without a proxy.")
@click.option("--ssl-keyfile", type=click.Path(), help="Its key, where that is in a file of its own.")
@home_option
def serve(
    host: str, port: int, ssl_certfile: str | None, ssl_keyfile: str | None, *, over_http: bool
) -> None:
    """Serve an MCP client over stdin and stdout (what clients start), or with --http all that come."""
    if over_http:
        from soulkeep.cli.connect import serve_over_http

        serve_over_http(host, port, ssl_certfile, ssl_keyfile)
        return
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
