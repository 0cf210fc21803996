"""`soulkeep backup`, `backups` and `restore`: copies of the store and the documents together."""

from collections.abc import Iterable
from dataclasses import asdict

import click

from soulkeep.cli.commands import Command
from soulkeep.cli.options import (
    current_days,
    current_settings,
    home_option,
    json_option,
    opened_home,
    yes_option,
)
from soulkeep.cli.tables import print_table
from soulkeep.cli.terminal import confirm, print_json, progress_shown, report, say, size_text
from soulkeep.records import Backup
from soulkeep.service.backups import Backups
from soulkeep.wording import counted


@click.command(cls=Command)
@click.option("--label", default="on demand", show_default=True, help="Why the backup is made.")
@json_option
@home_option
def backup(label: str, *, as_json: bool) -> None:
    """Back up the store and the documents together; others may use them meanwhile."""
    with opened_home() as home, progress_shown():
        made = home.backups.make(label, on_demand=True)
    report(as_json, asdict(made), f"Made {made.id}: {_contents(made)}")
    _warn_of("Left out, since they cannot be read", made.left_out)


@click.command(cls=Command)
@json_option
@home_option
def backups(*, as_json: bool) -> None:
    """List the backups, newest first."""
    found = _opened_backups().list_backups()
    if as_json:
        print_json({"backups": [asdict(made) for made in found]})
    elif found:
        print_table(("ID", "SIZE", "MADE AT", "MEMORIES", "WHY"), [_row(made) for made in found])
    else:
        say("There are no backups; `soulkeep backup` makes one.")


@click.command(cls=Command)
@click.argument("wanted", metavar="ID|MOMENT")
@yes_option
@json_option
@home_option
def restore(wanted: str, *, yes: bool, as_json: bool) -> None:
    """Set the store and the documents back to a backup; what they hold now is backed up first.

    A moment such as 2026-11-20 or 2026-11-20T12:00 takes the latest backup not after it.
    """
    kept = _opened_backups()
    chosen = kept.find(wanted)
    if not yes:
        confirm(f"Replace the store and the documents by {chosen.id} ({_contents(chosen)})?")
    with progress_shown():
        restored = kept.restore(chosen.id)
    former = (
        f"The store was damaged; its files are kept in {restored.kept}"
        if restored.former is None
        else f"To undo: soulkeep restore {restored.former.id}"
    )
    document = asdict(restored) | {"kept": str(restored.kept)}
    report(as_json, document, f"Restored {chosen.id}: {_contents(chosen)}", former)
    _warn_of("Left as they are", {*restored.left, *chosen.left_out})


def _opened_backups() -> Backups:
    from soulkeep.app import open_backups

    settings = current_settings()
    return open_backups(settings.home, options=settings.options)


def _row(made: Backup) -> tuple[str, ...]:
    why = f"{made.label} (automatic)" if made.automatic else made.label
    moment = current_days().minute_text(made.made_at)
    return made.id, size_text(made.size), moment, f"{made.counts['memories']:,}", why


def _contents(made: Backup) -> str:
    return f"{counted(made.counts['memories'], 'memory')}, {size_text(made.size)}"


def _warn_of(what: str, names: Iterable[str]) -> None:
    if listed := ", ".join(sorted(names)):
        say(f"{what}: {listed}", err=True)
