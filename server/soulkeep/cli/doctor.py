"""`soulkeep doctor` says what is there and whether it is whole; `soulkeep reindex` rebuilds indexes."""

import platform
import stat
import sys
from importlib.metadata import version
from pathlib import Path

import click

from soulkeep import __version__
from soulkeep.cli.options import home_option, opened_home
from soulkeep.embedders import NO_EMBEDDER
from soulkeep.errors import EmbedderMismatchError
from soulkeep.models import Fault
from soulkeep.service.home import Home


@click.command()
@home_option
def doctor() -> None:
    """Show versions, paths and counts, check the store, and say what to do about each fault."""
    with opened_home() as home:
        _show("Versions", _versions(home))
        _show("Paths", _paths(home))
        _show("Rows", {name: f"{count:,}" for name, count in home.repository.count_rows().items()})
        usage = home.repository.ledger.usage_totals()
        space = home.repository.measure_space()
        if space.is_wasteful:
            click.echo(
                f"  {space.places - space.taken:,} places of vectors are empty: `soulkeep compact`"
            )
        _show("Usage", {"tokens": f"{usage.input_tokens:,}", "cost": f"${usage.cost:.2f}"})
        faults = [*home.check(), *_embedder_faults(home), *_permission_faults(home)]
    for fault in faults:
        click.echo(f"FAULT {fault.name}: {fault.detail}; {fault.remedy}.")
    click.echo(f"{len(faults)} faults found." if faults else "Everything is in order.")
    sys.exit(1 if faults else 0)


@click.command()
@home_option
def reindex() -> None:
    """Build the search indexes anew from the memories, with the embedder in use."""
    with opened_home() as home:
        count = home.indexes.reindex()
        identity = home.indexes.embedder_identity
    click.echo(f"Indexed {count:,} memories with {identity}.")


@click.command()
@home_option
def compact() -> None:
    """Give back the space of deleted vectors; others can go on using the store meanwhile."""
    with opened_home() as home:
        freed = home.indexes.compact()
    click.echo(f"The store is {freed:,} bytes smaller." if freed else "There is nothing to give back.")


def _show(title: str, rows: dict[str, str]) -> None:
    click.secho(title, bold=True)
    width = max(len(name) for name in rows)
    for name, value in rows.items():
        click.echo(f"  {name:{width}}  {value}")


def _versions(home: Home) -> dict[str, str]:
    lexical = home.indexes.embedder_identity == NO_EMBEDDER
    return {
        "soulkeep": __version__,
        "Python": f"{platform.python_version()} on {platform.system()} {platform.machine()}",
        **{name: version(name) for name in ("mcp", "apsw")},
        **home.repository.versions(),
        "embedder": "none: searching by words alone" if lexical else home.indexes.embedder_identity,
    }


def _paths(home: Home) -> dict[str, str]:
    return {
        "home": str(home.path),
        "store": f"{home.repository.path} ({home.repository.path.stat().st_size:,} bytes)",
        "documents": ", ".join(sorted(path.name for path in home.path.glob("*.md"))),
        "command": sys.argv[0],
    }


def _embedder_faults(home: Home) -> list[Fault]:
    try:
        home.indexes.require_embedder()
    except EmbedderMismatchError as error:
        return [Fault("embedder", error.problem, error.remedy)]
    return []


def _permission_faults(home: Home) -> list[Fault]:
    if sys.platform == "win32":
        return []
    open_to_others = [path for path in (home.path, *home.path.iterdir()) if _readable_by_others(path)]
    return [
        Fault("permissions", f"others may read {path}", f"run `chmod go-rwx '{path}'`")
        for path in open_to_others
    ]


def _readable_by_others(path: Path) -> bool:
    return bool(path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO))
