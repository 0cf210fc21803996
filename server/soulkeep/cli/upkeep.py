"""Looking after a home: its health, its copies, what happened in it, and completion in a shell."""

import platform
import sys
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict
from importlib.metadata import version

import click
from click.shell_completion import BashComplete, FishComplete, ShellComplete, ZshComplete

from soulkeep import __version__
from soulkeep.cli import (
    Command,
    current_days,
    current_settings,
    home_option,
    home_to_read,
    json_option,
    limit_option,
    opened_home,
    since_option,
    yes_option,
)
from soulkeep.cli.install import Connection, list_connections
from soulkeep.cli.terminal import (
    confirm,
    print_bars,
    print_days,
    print_facts,
    print_json,
    print_table,
    progress_shown,
    report,
    say,
    size_text,
)
from soulkeep.documents import Documents, Folder
from soulkeep.embedders import NO_EMBEDDER, missing_packages
from soulkeep.engines import STORE_NAME
from soulkeep.errors import DocumentError, StoreError, StoreFullError, StoreNotWritableError
from soulkeep.models import MODEL_USED, Backup, Fault
from soulkeep.service.backups import Backups
from soulkeep.service.home import Home, backup_faults
from soulkeep.service.upkeep import MAX_LOG, fault_of, home_faults
from soulkeep.wording import counted


@click.command(cls=Command)
@click.option(
    "--repair", is_flag=True, help="Rebuild all that is derived from the memories and the documents."
)
@json_option
@home_option
def doctor(*, repair: bool, as_json: bool) -> None:
    """Check the store, the documents, the backups and the disk, and say what to do about each fault.

    Versions, paths and counts are shown too. Where nothing can be written it says what it can read.
    """
    from soulkeep.service.exports import list_unfinished

    if repair:
        with opened_home() as home:
            sys.exit(_repair(home, as_json))
    with ExitStack() as stack:
        opened, kept_from = None, list[Fault]()
        try:
            opened = stack.enter_context(opened_home())
        except (StoreError, DocumentError) as error:
            kept_from = [fault_of(error)]
            if isinstance(error, StoreNotWritableError | StoreFullError | DocumentError):
                with suppress(StoreError):
                    opened = stack.enter_context(opened_home(read_only=True))
        if opened is None:
            settings = current_settings()
            is_here = not settings.store.get_secret_value()
            documents = Documents(Folder(settings.home), timezone=settings.options.timezone)
            found = home_faults(settings.home, documents, 0) if is_here else []
            found += backup_faults(settings.home, _opened_backups()) if is_here else []
        else:
            found = opened.faults()
        connections, broken = list_connections(current_settings())
        removing = "run `soulkeep doctor --repair`, which removes it"
        left = [
            Fault("export", f"{place} is left of an export that was cut off", removing)
            for place in list_unfinished(current_settings().home)
        ]
        faults = list(dict.fromkeys([*kept_from, *found, *left, *broken]))
        _report(opened, connections, faults, as_json=as_json)
    sys.exit(1 if faults else 0)


def _report(
    home: Home | None, connections: Sequence[Connection], faults: Sequence[Fault], *, as_json: bool
) -> None:
    rows = home.count_rows() if home else {}
    usage = home.statistics.usage_totals() if home else None
    if as_json:
        moving = home.reembedding.progress() if home else None
        document = {
            "versions": _versions(home),
            "paths": _paths(),
            "rows": rows,
            "usage": asdict(usage) if usage else None,
            "new_vectors": asdict(moving) if moving else None,
            "waiting_vectors": asdict(home.queue.waiting()) if home else None,
            "clients": [asdict(connection) for connection in connections],
            "faults": [asdict(fault) for fault in faults],
        }
        print_json(document)
        return
    print_facts("Versions", _versions(home))
    print_facts("Paths", _paths())
    if connections:
        said = dict[str, list[str]]()
        for one in connections:
            where = "" if one.is_usual else f"in {one.file}: "
            said.setdefault(one.client, []).append(f"{where}{one.remark or 'connected'}")
        print_facts("Clients", {name: "; ".join(parts) for name, parts in said.items()})
    if home and usage:
        print_facts("Rows", {name: f"{count:,}" for name, count in rows.items()})
        if wasted := home.wasted():
            say(f"  {size_text(wasted)} of deleted vectors to give back: `soulkeep compact`")
        for remark in (*home.reembedding.remarks(), *home.queue.remarks()):
            say(f"  {remark}")
        print_facts("Usage", {"tokens": f"{usage.input_tokens:,}", "cost": _dollars(usage.cost)})
    _print_faults(faults)
    say(f"{counted(len(faults), 'fault')} found." if faults else "Everything is in order.")


def _repair(home: Home, as_json: bool) -> int:
    from soulkeep.service.exports import drop_unfinished

    with progress_shown():
        repaired = home.repairs.repair()
    removed = [str(place) for place in drop_unfinished(home.path)]
    if as_json:
        print_json(asdict(repaired) | {"removed": removed})
        return 1 if repaired.left else 0
    say("Found:" if repaired.found else "Found no fault; everything was rebuilt all the same.")
    for fault in repaired.found:
        say(f"  {fault.name}: {fault.detail}")
    print_facts("Rebuilt", {name: f"{count:,}" for name, count in repaired.rebuilt.items()})
    for place in removed:
        say(f"Removed what was left of an export that was cut off: {place}")
    _print_faults(repaired.left)
    left = len(repaired.left)
    say(f"{counted(left, 'fault')} could not be mended." if left else "Everything is in order.")
    return 1 if left else 0


def _dollars(cost: float | None) -> str:
    if cost is None:
        return "$ unknown"
    return "less than $0.01" if 0 < cost < 0.01 else f"${cost:,.2f}"


def _print_faults(faults: Sequence[Fault]) -> None:
    for fault in faults:
        # It may name what stands in a file that came with somebody's repository.
        text = f"FAULT {fault.name}: {fault.detail}; {fault.remedy}."
        say(" ".join(text.splitlines()))


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
@yes_option
@json_option
@home_option
def reembed(*, yes: bool, as_json: bool) -> None:
    """Give all memories vectors of the embedder that is set.

    How many there are, and what it costs, is said first. The former vectors serve until all have new
    ones; broken off, it goes on where it was. Texts that could not be embedded are tried again.
    """
    with opened_home() as home:
        plan = home.reembedding.plan()
        if plan.memories and not yes:
            cost = "at an unknown cost" if plan.cost is None else f"for about ${plan.cost:.2f}"
            where = "on this machine" if plan.is_local else f"{cost}; the texts are sent to its endpoint"
            say(f"{counted(plan.memories, 'memory')}, about {plan.tokens:,} tokens, {where}.")
            confirm(f"Make vectors of {plan.embedder}?")
        with progress_shown():
            home.reembedding.move()
            home.queue.retry()
        waiting = home.queue.waiting()
        document = {**asdict(plan), "waiting": asdict(waiting)}
        done = f"All memories have vectors of {plan.embedder}."
        report(as_json, document, *(home.queue.remarks() or [done]))


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
    return {**versions, **home.versions(), "embedder": embedder}


def _paths() -> dict[str, str]:
    home = current_settings().home
    store, size, documents = str(home / STORE_NAME), "", ""
    if current_settings().store.get_secret_value():
        store = documents = "in the database that SOULKEEP_STORE names"
    else:
        with suppress(OSError):
            documents = ", ".join(sorted(path.name for path in home.glob("*.md")))
            size = f" ({size_text((home / STORE_NAME).stat().st_size)})"
    return {
        "home": str(home),
        "store": f"{store}{size}",
        "documents": documents,
        "command": sys.argv[0],
    }


@click.command(cls=Command)
@click.option("--label", default="on demand", show_default=True, help="Why the backup is made.")
@json_option
@home_option
def backup(label: str, *, as_json: bool) -> None:
    """Back up the store and the documents together; others may use them meanwhile."""
    with opened_home() as home, progress_shown():
        made = home.backups.make(label, on_demand=True)
    report(as_json, asdict(made), f"Made {made.id}: {_contents(made)}")
    if made.left_out:
        say(f"Left out, since they cannot be read: {', '.join(sorted(made.left_out))}", err=True)


@click.command(cls=Command)
@json_option
@home_option
def backups(*, as_json: bool) -> None:
    """List the backups, newest first."""
    found = _opened_backups().list_backups()
    if as_json:
        print_json({"backups": [asdict(made) for made in found]})
    elif found:
        minute = current_days().minute_text
        rows = [
            (
                made.id,
                size_text(made.size),
                minute(made.made_at),
                f"{made.counts['memories']:,}",
                f"{made.label} (automatic)" if made.automatic else made.label,
            )
            for made in found
        ]
        print_table(("ID", "SIZE", "MADE AT", "MEMORIES", "WHY"), rows)
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
    document = asdict(restored) | {"kept": restored.kept and str(restored.kept)}
    report(as_json, document, f"Restored {chosen.id}: {_contents(chosen)}", former)
    if left := sorted({*restored.left, *chosen.left_out}):
        say(f"Left as they are: {', '.join(left)}", err=True)


def _opened_backups() -> Backups:
    from soulkeep.engines import open_backups

    settings = current_settings()
    return open_backups(settings.home, options=settings.options)


def _contents(made: Backup) -> str:
    return f"{counted(made.counts['memories'], 'memory')}, {size_text(made.size)}"


@click.command(cls=Command)
@click.argument("source", metavar="FROM")
@click.argument("target", metavar="TO")
@json_option
@home_option
def copy(source: str, target: str, *, as_json: bool) -> None:
    """Copy a home into another, empty one.

    FROM and TO are folders, or databases as SOULKEEP_STORE has them, with #NAME for the home of an
    account. The documents and their former texts go along. Cut off, it goes on when run again.
    """
    from soulkeep.app import copy_between

    with progress_shown():
        rows, documents = copy_between(source, target, current_settings())
    copied = {"rows": rows, "documents": documents}
    shown = f"{counted(rows['memories'], 'memory')}, {counted(sum(rows.values()), 'row')}"
    report(as_json, copied, f"Copied {shown} and {counted(documents, 'document')}, and compared them")


@click.command(cls=Command)
@limit_option(50, MAX_LOG)
@since_option
@click.option("--agent", help="Only what this client or account did; `soulkeep` is the command line.")
@click.option("--event", help="Only this event, such as memory.stored, or all of `memory`.")
@json_option
@home_option
def log(limit: int, since: str | None, agent: str | None, event: str | None, *, as_json: bool) -> None:
    """List who did what, newest first.

    The log holds ids and sizes, never what was said.
    """
    with home_to_read() as home:
        found = home.statistics.list_log(limit, since=since, agent=agent, event=event)
    if as_json:
        print_json({"log": [asdict(entry) for entry in found]})
    elif not found:
        say("Nothing in the log matches.")
    else:
        minute = current_days().minute_text
        rows = []
        for entry in found:
            # A model on this machine costs nothing and answers nothing, which is not worth a column.
            is_use, details = entry.event == MODEL_USED, entry.details.items()
            shown = [f"{k}={v}" for k, v in details if v or (v is not None and not is_use)]
            rows.append((minute(entry.at), entry.agent_id, entry.event, " ".join(shown)))
        print_table(("WHEN", "WHO", "EVENT", "DETAILS"), rows)


@click.command(cls=Command)
@json_option
@home_option
def stats(*, as_json: bool) -> None:
    """Chart what is kept and recalled, and what it costs."""
    with home_to_read() as home:
        figures = home.statistics.figures()
    if as_json:
        print_json(asdict(figures))
        return
    print_days("Memories kept", figures.memories_by_day)
    print_days("Recalls", figures.recalls_by_day)
    if figures.memories_by_type:
        print_bars("Memories by type", figures.memories_by_type)
    if figures.usage:
        used = {
            usage.model: f"{counted(usage.uses, 'use')},"
            f" {counted(usage.input_tokens + usage.output_tokens, 'token')}, {_dollars(usage.cost)}"
            for usage in figures.usage
        }
        print_facts("Embedders", used)
    if progress := figures.new_vectors:
        done = f"{progress.made:,} of {counted(progress.memories, 'memory')}"
        print_facts("New vectors", {progress.embedder: done})
    if waiting := {name: str(n) for name, n in asdict(figures.waiting_vectors).items() if n}:
        print_facts("Memories without a vector", waiting)
    print_facts("On disk", {name: size_text(size) for name, size in figures.sizes.items()})
    tables = figures.table_sizes or {}
    print_facts("Tables", {name: size_text(size) for name, size in tables.items()})


_SHELLS: dict[str, type[ShellComplete]] = {
    "bash": BashComplete,
    "zsh": ZshComplete,
    "fish": FishComplete,
}


_HELP = """Print what makes a SHELL complete commands and options.

\b
In bash, put into ~/.bashrc:
  eval "$(soulkeep completion bash)"
In zsh, put into ~/.zshrc:
  eval "$(soulkeep completion zsh)"
In fish, run once:
  soulkeep completion fish > \\
    ~/.config/fish/completions/soulkeep.fish
"""


@click.command(cls=Command, help=_HELP)
@click.argument("shell", type=click.Choice(list(_SHELLS)))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print the script for a shell."""
    complete = _SHELLS[shell](context.find_root().command, {}, "soulkeep", "_SOULKEEP_COMPLETE")
    click.echo(complete.source())
