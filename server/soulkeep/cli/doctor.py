"""`soulkeep doctor` checks and repairs, `soulkeep reindex` rebuilds, `soulkeep compact` shrinks."""

import platform
import stat
import sys
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

import click

from soulkeep import __version__
from soulkeep.cli.commands import Command
from soulkeep.cli.options import home_option, json_option, opened_home
from soulkeep.cli.tables import print_facts
from soulkeep.cli.terminal import print_json, progress_shown, say, size_text
from soulkeep.embedders import NO_EMBEDDER
from soulkeep.errors import EmbedderMismatchError
from soulkeep.models import Fault
from soulkeep.service.home import Home
from soulkeep.wording import counted


@click.command(cls=Command)
@click.option(
    "--repair", is_flag=True, help="Rebuild all that is derived from the memories and the documents."
)
@json_option
@home_option
def doctor(*, repair: bool, as_json: bool) -> None:
    """Check the store, and say what to do about each fault.

    Versions, paths and counts are shown too.
    """
    with opened_home() as home:
        sys.exit(_repair(home, as_json) if repair else _examine(home, as_json))


def _examine(home: Home, as_json: bool) -> int:
    usage = home.repository.ledger.usage_totals()
    rows, space = home.repository.count_rows(), home.repository.measure_space()
    faults = [*home.check(), *_embedder_faults(home), *_permission_faults(home)]
    if as_json:
        document = {"versions": _versions(home), "paths": _paths(home), "rows": rows}
        print_json({**document, "usage": asdict(usage), "faults": [asdict(f) for f in faults]})
        return 1 if faults else 0
    print_facts("Versions", _versions(home))
    print_facts("Paths", _paths(home))
    print_facts("Rows", {name: f"{count:,}" for name, count in rows.items()})
    if space.is_wasteful:
        say(f"  {counted(space.places - space.taken, 'place')} for vectors empty: `soulkeep compact`")
    print_facts("Usage", {"tokens": f"{usage.input_tokens:,}", "cost": f"${usage.cost:.2f}"})
    _print_faults(faults)
    say(f"{counted(len(faults), 'fault')} found." if faults else "Everything is in order.")
    return 1 if faults else 0


def _repair(home: Home, as_json: bool) -> int:
    with progress_shown():
        repaired = home.repairs.repair()
    if as_json:
        print_json(asdict(repaired))
        return 1 if repaired.left else 0
    say("Found:" if repaired.found else "Found no fault; everything was rebuilt all the same.")
    for fault in repaired.found:
        say(f"  {fault.name}: {fault.detail}")
    print_facts("Rebuilt", {name: f"{count:,}" for name, count in repaired.rebuilt.items()})
    _print_faults(repaired.left)
    left = len(repaired.left)
    say(f"{counted(left, 'fault')} could not be mended." if left else "Everything is in order.")
    return 1 if left else 0


def _print_faults(faults: Sequence[Fault]) -> None:
    for fault in faults:
        say(f"FAULT {fault.name}: {fault.detail}; {fault.remedy}.")


@click.command(cls=Command)
@home_option
def reindex() -> None:
    """Build the search indexes anew with the embedder in use."""
    with opened_home() as home:
        with progress_shown():
            indexed = home.indexes.reindex()
        identity = home.indexes.embedder_identity
    say(f"Indexed {counted(indexed, 'memory')} with {identity}.")


@click.command(cls=Command)
@home_option
def compact() -> None:
    """Give back the space of deleted vectors.

    Others can go on using the store meanwhile.
    """
    with opened_home() as home, progress_shown():
        freed = home.indexes.compact()
    say(f"The store is {size_text(freed)} smaller." if freed else "There is nothing to give back.")


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
        "store": f"{home.repository.path} ({size_text(home.repository.path.stat().st_size)})",
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
