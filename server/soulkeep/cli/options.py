"""Options that every command takes."""

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from soulkeep.settings import Settings

if TYPE_CHECKING:
    from soulkeep.service.home import Home

_HOME = "soulkeep.home"


def _keep_home(context: click.Context, _: click.Parameter, value: Path | None) -> None:
    if value is not None:
        context.meta[_HOME] = value


home_option: Callable[[Callable[..., Any]], Callable[..., Any]] = click.option(
    "--home",
    type=click.Path(path_type=Path),
    callback=_keep_home,
    expose_value=False,
    help="Folder of the store and the documents (default: SOULKEEP_HOME, or the user data folder).",
)


def current_settings() -> Settings:
    """Return the settings of the command that is running."""
    home = click.get_current_context().meta.get(_HOME)
    return Settings() if home is None else Settings(home=home)


@contextmanager
def opened_home() -> "Iterator[Home]":
    """Open the home of the command that is running, and close it after the block."""
    from soulkeep.app import open_home

    settings = current_settings()
    opened = open_home(settings.home, embedder=settings.embedder, options=settings.options)
    with closing(opened) as home:
        yield home
