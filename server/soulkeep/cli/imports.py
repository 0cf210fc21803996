"""`soulkeep import` and `export`: moving in from another memory server, and out."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import click

from soulkeep.cli import (
    Command,
    current_settings,
    home_option,
    home_to_read,
    json_option,
    opened_home,
)
from soulkeep.cli.terminal import print_json, print_quoted, print_table, progress_shown, report, say
from soulkeep.engines import opened_foreign
from soulkeep.imports import FORMATS
from soulkeep.service.exports import Exported, export_file
from soulkeep.service.imports import Imported
from soulkeep.wording import counted

if TYPE_CHECKING:
    from soulkeep.service.home import Home

_SHOWN = 10
"""How many broken records are told one by one."""


@click.command(cls=Command, name="import")
@click.argument("source", type=click.Path(path_type=Path))
@click.option(
    "--format", "named", type=click.Choice(list(FORMATS)), help="What it is; unset, found out."
)
@click.option("--dry-run", is_flag=True, help="Only show what would come.")
@json_option
@home_option
def import_(source: Path, named: str | None, *, dry_run: bool, as_json: bool) -> None:
    """Take in what another program remembers, from the file, folder or .zip SOURCE.

    Run again, it adds what is new, and goes on where it was cut off. All of it is one change for `undo`.
    A record that is broken is told and passed over.
    """
    with _home_for(dry_run=dry_run) as home, progress_shown():
        file = None if named else export_file(source)
        is_whole = file is not None and home.exports.is_empty_for(file)
        if file and is_whole and not dry_run:
            taken: Exported | Imported = home.exports.take_in(file)
        else:
            taken = home.imports.take(source, opened_foreign, named=named, dry_run=dry_run)
            taken = replace(taken, not_kept={}) if is_whole else taken
    if isinstance(taken, Exported):
        _report(taken, "Imported", as_json=as_json)
    elif as_json:
        print_json({"import": asdict(taken) | {"dry_run": dry_run}})
    else:
        _print(taken, dry_run=dry_run)
        if is_whole:
            say("This home is empty: it becomes what was exported, with its changes and former texts.")


@contextmanager
def _home_for(*, dry_run: bool) -> "Iterator[Home]":
    """Open the home; for a dry run where there is none, an empty one that is gone afterwards."""
    from soulkeep.app import open_home

    settings = current_settings()
    if dry_run and not (settings.home.exists() or settings.store.get_secret_value()):
        with (
            TemporaryDirectory(prefix="soulkeep-dry-run-") as folder,
            closing(open_home(Path(folder), options=settings.options)) as home,
        ):
            yield home
    else:
        with home_to_read() if dry_run else opened_home() as home:
            yield home


@click.command(cls=Command)
@click.argument("path", type=click.Path(path_type=Path))
@json_option
@home_option
def export(path: Path, *, as_json: bool) -> None:
    """Write all that is known into a new folder PATH: pages to read, and a file for `soulkeep import`.

    Where PATH ends in .jsonl it is that file alone. An empty home that takes it in is the same then.
    """
    with home_to_read() as home, progress_shown():
        exported = home.exports.write(path)
    _report(exported, "Exported", as_json=as_json)


def _report(moved: Exported, done: str, *, as_json: bool) -> None:
    rows, key = moved.rows, done.lower()
    shown = f"{counted(rows.get('memories', 0), 'memory')}, {counted(sum(rows.values()), 'row')}"
    documents = (
        f"{counted(moved.documents, 'document')} with {counted(moved.former_texts, 'former text')}"
    )
    where = f"to {moved.path}" if done == "Exported" else f"from {moved.path}"
    report(
        as_json,
        {key: asdict(moved) | {"path": str(moved.path)}},
        f"{done} {shown} and {documents} {where}",
    )


def _print(imported: Imported, *, dry_run: bool) -> None:
    kinds = {name: kind for name, kind in imported.kinds.items() if kind.found}
    title = FORMATS[imported.format].title
    say(f"{title[0].upper()}{title[1:]}{':' if kinds else ': nothing to keep.'}")
    rows = [
        (name, f"{k.found:,}", f"{k.added:,}", f"{k.found - k.added:,}") for name, k in kinds.items()
    ]
    if rows:
        print_table(("KIND", "FOUND", "NEW" if dry_run else "ADDED", "HERE ALREADY"), rows)
    for name, kind in kinds.items() if dry_run else ():
        if kind.examples:
            say(f"Of the {name}:")
            print_quoted("\n".join(kind.examples))
    _print_rest(imported)
    if imported.change_id:
        say(f"`soulkeep undo {imported.change_id}` takes all of it back.")


def _print_rest(imported: Imported) -> None:
    """Say what has no place here, and what could not be read."""
    if imported.not_kept:
        left = sorted(imported.not_kept.items(), key=lambda pair: -pair[1])
        say(f"Not kept: {', '.join(f'{name} {count:,}' for name, count in left)}.")
    if imported.problem_count:
        say(f"{counted(imported.problem_count, 'record')} passed over:")
    for problem in imported.problems[:_SHOWN]:
        say(f"  {problem.place}: {problem.reason}")
    if imported.problem_count > _SHOWN:
        say(f"  and {imported.problem_count - _SHOWN:,} more")
