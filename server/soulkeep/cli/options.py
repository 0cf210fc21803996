"""Options that several commands take."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from pydantic import ValidationError

from soulkeep.cli.commands import HOME, WrongSetting
from soulkeep.days import Days
from soulkeep.errors import StoreError, StoreNotWritableError
from soulkeep.models import MEMORY_TYPES
from soulkeep.settings import Settings

if TYPE_CHECKING:
    from soulkeep.service.home import Home

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
        embedder=settings.embedder,
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
