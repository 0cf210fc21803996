"""`soulkeep documents`: SOUL.md and MEMORY.md, and the texts they had before."""

import sys

import click

from soulkeep.cli.options import home_option, opened_home
from soulkeep.cli.terminal import printable
from soulkeep.documents import DOCUMENTS, DocumentName

_name_argument = click.argument("name", type=click.Choice(DOCUMENTS, case_sensitive=False))


@click.group()
def documents() -> None:
    """Show SOUL.md and MEMORY.md, add to them, and bring back what they said before."""


@documents.command()
@_name_argument
@home_option
def history(name: DocumentName) -> None:
    """List the versions kept of a document, newest first."""
    with opened_home() as home:
        versions = home.documents.list_versions(name)
    for version in versions:
        click.echo(f"{version.id}  {version.size:>9,} bytes")
    if not versions:
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
