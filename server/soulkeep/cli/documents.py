"""`soulkeep documents`: SOUL.md and MEMORY.md, and the texts they had before."""

import sys
from dataclasses import asdict
from datetime import datetime

import click

from soulkeep.answers.notes import CuratedAnswer, LoggedAnswer
from soulkeep.cli.options import home_option, json_option, opened_home
from soulkeep.cli.terminal import print_json, print_table, printable, size_text
from soulkeep.documents import DOCUMENTS, DocumentName

_name_argument = click.argument("name", type=click.Choice(DOCUMENTS, case_sensitive=False))


@click.group()
def documents() -> None:
    """Show and change SOUL.md, MEMORY.md and the logs, and bring back what they said before."""


@documents.command()
@_name_argument
@json_option
@home_option
def history(name: DocumentName, *, as_json: bool) -> None:
    """List the versions kept of a document, newest first."""
    with opened_home() as home:
        versions = home.documents.list_versions(name)
    if as_json:
        print_json({"versions": [asdict(version) for version in versions]})
    elif versions:
        print_table(("VERSION", "SIZE"), [(version.id, size_text(version.size)) for version in versions])
    else:
        click.echo(f"There are no earlier versions of {name}; each edit by soulkeep keeps one.")


@documents.command()
@_name_argument
@click.option("--version", help="One that `history` lists, instead of the text of now.")
@home_option
def show(name: DocumentName, version: str | None) -> None:
    """Print a document."""
    with opened_home() as home:
        text = home.documents.read_version(name, version) if version else home.documents.read(name)
    click.echo(printable(text), nl=not text.endswith("\n"))


@documents.command()
@_name_argument
@click.argument("version")
@home_option
def restore(name: DocumentName, version: str) -> None:
    """Bring back a version that `history` lists; the text of now is kept as one too."""
    with opened_home() as home:
        home.curator.restore(name, version)
    click.echo(f"Restored {name} as it was until {version}")


@documents.command()
@_name_argument
@click.argument("section")
@click.argument("text")
@home_option
def add(name: DocumentName, section: str, text: str) -> None:
    """Add TEXT, or what stdin says for a single -, to a SECTION such as "Learned Preferences"."""
    entry = sys.stdin.read() if text == "-" else text
    with opened_home() as home:
        home.curator.add_to(name, section, entry)
    click.echo(printable(f"Added to {section} in {name}"))


@documents.command()
@click.argument("section")
@click.argument("entry")
@click.argument("new_entry")
@home_option
def replace(section: str, entry: str, new_entry: str) -> None:
    """Put NEW_ENTRY in the place of an ENTRY in a SECTION of MEMORY.md."""
    with opened_home() as home:
        curated = home.curator.replace_entry(section, entry, new_entry)
    click.echo(printable(CuratedAnswer.of("replace", curated).as_text()))


@documents.command()
@click.argument("section")
@click.argument("entry")
@home_option
def remove(section: str, entry: str) -> None:
    """Take an ENTRY out of a SECTION of MEMORY.md; `soulkeep undo` brings it back."""
    with opened_home() as home:
        curated = home.curator.remove_entry(section, entry)
    click.echo(printable(CuratedAnswer.of("remove", curated).as_text()))


@documents.command()
@click.argument("memory_id", type=int)
@click.argument("section")
@home_option
def promote(memory_id: int, section: str) -> None:
    """Add a memory's text to a SECTION of MEMORY.md, with a link to the memory."""
    with opened_home() as home:
        curated = home.curator.promote(memory_id, section)
    click.echo(printable(CuratedAnswer.of("add", curated).as_text()))


@documents.command()
@click.argument("text")
@home_option
def log(text: str) -> None:
    """Append TEXT, or what stdin says for a single -, to today's log."""
    entry = sys.stdin.read() if text == "-" else text
    with opened_home() as home:
        day, time = home.curator.log_day(entry)
    click.echo(LoggedAnswer.of(day, time).as_text())


@documents.command()
@click.argument("date", type=click.DateTime(["%Y-%m-%d"]), required=False)
@home_option
def day(date: datetime | None) -> None:
    """Print the log of a DATE such as 2026-11-24; without one, today's."""
    with opened_home() as home:
        wanted = home.documents.today() if date is None else date.date()
        text = home.documents.read_daily(wanted)
        days = home.documents.list_daily()
    if text is None:
        latest = f"; the latest is {days[-1]}" if days else ""
        click.echo(f"There is no log of {wanted}{latest}.")
    else:
        click.echo(printable(text), nl=not text.endswith("\n"))
