"""`soulkeep doctor` checks and repairs, `soulkeep reindex` rebuilds, `soulkeep compact` shrinks."""

import platform
import sys
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict
from importlib.metadata import version

import click

from soulkeep import __version__
from soulkeep.app import STORE_NAME
from soulkeep.cli.commands import Command
from soulkeep.cli.options import current_settings, home_option, json_option, opened_home
from soulkeep.cli.tables import print_facts
from soulkeep.cli.terminal import print_json, progress_shown, report, say, size_text
from soulkeep.documents import Documents
from soulkeep.embedders import NO_EMBEDDER, missing_packages
from soulkeep.errors import DocumentError, StoreError, StoreFullError, StoreNotWritableError
from soulkeep.models import Fault
from soulkeep.service.examination import embedder_faults, fault_of, home_faults
from soulkeep.service.home import Home
from soulkeep.wording import counted


@click.command(cls=Command)
@click.option(
    "--repair", is_flag=True, help="Rebuild all that is derived from the memories and the documents."
)
@json_option
@home_option
def doctor(*, repair: bool, as_json: bool) -> None:
    """Check the store, the documents and the disk, and say what to do about each fault.

    Versions, paths and counts are shown too. Where nothing can be written it says what it can read.
    """
    if repair:
        with opened_home() as home:
            sys.exit(_repair(home, as_json))
    with ExitStack() as stack:
        opened, kept_from = _opened(stack)
        faults = list(dict.fromkeys([*kept_from, *_faults(opened)]))
        _report(opened, faults, as_json=as_json)
    sys.exit(1 if faults else 0)


def _opened(stack: ExitStack) -> tuple[Home | None, list[Fault]]:
    """Open the home as far as that can be done, and say what kept it from being opened to write."""
    try:
        return stack.enter_context(opened_home()), []
    except (StoreError, DocumentError) as error:
        faults = [fault_of(error)]
        if isinstance(error, StoreNotWritableError | StoreFullError | DocumentError):
            with suppress(StoreError):
                return stack.enter_context(opened_home(read_only=True)), faults
    return None, faults


def _faults(home: Home | None) -> list[Fault]:
    if home is None:
        settings = current_settings()
        documents = Documents(settings.home, timezone=settings.options.timezone)
        return home_faults(documents, settings.home / STORE_NAME)
    around = home_faults(home.documents, home.repository.path)
    if home.repository.only_reads:
        around = [fault_of(StoreFullError(home.repository.path)), *around]
    try:
        return [*home.check(), *embedder_faults(home.indexes), *around]
    except StoreError as error:
        return [fault_of(error), *around]


def _report(home: Home | None, faults: Sequence[Fault], *, as_json: bool) -> None:
    rows = home.repository.count_rows() if home else {}
    usage = home.repository.ledger.usage_totals() if home else None
    if as_json:
        moving = home.reembedding.progress() if home else None
        document = {
            "versions": _versions(home),
            "paths": _paths(),
            "rows": rows,
            "usage": asdict(usage) if usage else None,
            "new_vectors": asdict(moving) if moving else None,
            "faults": [asdict(fault) for fault in faults],
        }
        print_json(document)
        return
    print_facts("Versions", _versions(home))
    print_facts("Paths", _paths())
    if home and usage:
        print_facts("Rows", {name: f"{count:,}" for name, count in rows.items()})
        space = home.repository.measure_space()
        if space.is_wasteful:
            empty = counted(space.places - space.taken, "place")
            say(f"  {empty} for vectors empty: `soulkeep compact`")
        for remark in home.reembedding.remarks():
            say(f"  {remark}")
        print_facts("Usage", {"tokens": f"{usage.input_tokens:,}", "cost": f"${usage.cost:.2f}"})
    _print_faults(faults)
    say(f"{counted(len(faults), 'fault')} found." if faults else "Everything is in order.")


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
@json_option
@home_option
def reindex(*, as_json: bool) -> None:
    """Build the search indexes anew with the embedder in use."""
    with opened_home() as home:
        with progress_shown():
            indexed = home.indexes.reindex()
        identity = home.indexes.embedder_identity
    document = {"indexed": indexed, "embedder": identity}
    report(as_json, document, f"Indexed {counted(indexed, 'memory')} with {identity}.")


@click.command(cls=Command)
@json_option
@home_option
def compact(*, as_json: bool) -> None:
    """Give back the space of deleted vectors.

    Others can go on using the store meanwhile.
    """
    with opened_home() as home, progress_shown():
        freed = home.repairs.compact()
    smaller = f"The store is {size_text(freed)} smaller."
    report(as_json, {"freed": freed}, smaller if freed else "There is nothing to give back.")


def _versions(home: Home | None) -> dict[str, str]:
    versions = {
        "soulkeep": __version__,
        "Python": f"{platform.python_version()} on {platform.system()} {platform.machine()}",
        **{name: version(name) for name in ("mcp", "apsw")},
    }
    if home is None:
        return versions
    embedder = home.indexes.embedder_identity
    if embedder == NO_EMBEDDER:
        missing = missing_packages() if current_settings().embedder == "auto" else []
        why = f", for want of {', '.join(missing)}" if missing else ""
        embedder = f"none: searching by words alone{why}"
    return {**versions, **home.repository.versions(), "embedder": embedder}


def _paths() -> dict[str, str]:
    home = current_settings().home
    store, size, documents = home / STORE_NAME, "", ""
    with suppress(OSError):
        documents = ", ".join(sorted(path.name for path in home.glob("*.md")))
        size = f" ({size_text(store.stat().st_size)})"
    return {
        "home": str(home),
        "store": f"{store}{size}",
        "documents": documents,
        "command": sys.argv[0],
    }
