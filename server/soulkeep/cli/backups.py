"""`soulkeep backup`, `backups` and `restore`: copies of the store and the documents together."""

from collections.abc import Iterable
from dataclasses import asdict

import click

from soulkeep.cli.options import current_settings, home_option, json_option, opened_home
from soulkeep.cli.terminal import print_json, printable, progress_shown, size_text
from soulkeep.records import Backup
from soulkeep.service.backups import Backups
from soulkeep.wording import counted


@click.command()
@click.option("--label", default="on demand", show_default=True, help="Why it is made.")
@json_option
@home_option
def backup(label: str, *, as_json: bool) -> None:
    """Back up the store and the documents together; others may use them meanwhile."""
    with opened_home() as home, progress_shown():
        made = home.backups.make(label, on_demand=True)
    if as_json:
        print_json(asdict(made))
        return
    click.echo(printable(f"Made {made.id}: {_contents(made)}"))
    _warn_of("Left out, since they cannot be read", made.left_out)


@click.command()
@json_option
@home_option
def backups(*, as_json: bool) -> None:
    """List the backups, newest first."""
    found = _opened_backups().list_backups()
    if as_json:
        print_json({"backups": [asdict(made) for made in found]})
    elif found:
        rows = [("ID", "SIZE", "MADE AT", "MEMORIES", "WHY"), *map(_row, found)]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        for row in rows:
            cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
            click.echo(printable("  ".join(cells).rstrip()))
    else:
        click.echo("There are no backups; `soulkeep backup` makes one.")


@click.command()
@click.argument("wanted", metavar="ID|MOMENT")
@click.option("--yes", is_flag=True, help="Do not ask.")
@home_option
def restore(wanted: str, *, yes: bool) -> None:
    """Set the store and the documents back to a backup; what they hold now is backed up first.

    A moment such as 2026-11-20 or 2026-11-20T12:00 takes the latest backup not after it.
    """
    kept = _opened_backups()
    chosen = kept.find(wanted)
    if not yes:
        question = f"Replace the store and the documents by {chosen.id} ({_contents(chosen)})?"
        click.confirm(printable(question), abort=True)
    with progress_shown():
        restored = kept.restore(chosen.id)
    click.echo(printable(f"Restored {chosen.id}: {_contents(chosen)}"))
    if restored.former is None:
        click.echo(f"The store was damaged; its files are kept in {restored.kept}")
    else:
        click.echo(f"To undo: soulkeep restore {restored.former.id}")
    _warn_of("Left as they are", {*restored.left, *chosen.left_out})


def _opened_backups() -> Backups:
    from soulkeep.app import open_backups

    settings = current_settings()
    return open_backups(settings.home, options=settings.options)


def _row(made: Backup) -> tuple[str, ...]:
    why = f"{made.label} (automatic)" if made.automatic else made.label
    moment = made.made_at[:19].replace("T", " ")
    return made.id, f"{made.size:,}", moment, f"{made.counts['memories']:,}", why


def _contents(made: Backup) -> str:
    return f"{counted(made.counts['memories'], 'memory')}, {size_text(made.size)}"


def _warn_of(what: str, names: Iterable[str]) -> None:
    if listed := ", ".join(sorted(names)):
        click.echo(printable(f"{what}: {listed}"), err=True)
