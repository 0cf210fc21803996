"""`soulkeep purge`: what is erased cannot be brought back."""

from collections.abc import Sequence
from dataclasses import asdict

import click

from soulkeep.cli.commands import Command
from soulkeep.cli.options import current_days, home_option, json_option, opened_home, yes_option
from soulkeep.cli.tables import print_table
from soulkeep.cli.terminal import confirm, print_json, progress_shown, say
from soulkeep.mcp_server.answers.lifecycle import became_text
from soulkeep.service.home import Home
from soulkeep.service.purge import Purged, PurgePlan
from soulkeep.wording import counted


@click.command(cls=Command)
@click.argument("memory_ids", type=int, nargs=-1, metavar="[ID]...")
@click.option("--trash", is_flag=True, help="All that was deleted or changed, instead of memories.")
@click.option(
    "--backup", "backups", multiple=True, metavar="ID", help="Out of this backup too; may be repeated."
)
@click.option("--all-backups", is_flag=True, help="Out of all backups too.")
@yes_option
@json_option
@home_option
def purge(
    memory_ids: tuple[int, ...],
    backups: tuple[str, ...],
    *,
    trash: bool,
    all_backups: bool,
    yes: bool,
    as_json: bool,
) -> None:
    """Erase memories from every file, without a way back.

    All their versions go, what they replaced, the lines of MEMORY.md promoted from them and its former
    texts. With --trash, all that was deleted or changed goes instead, and undoing ends there. Without
    either it goes on with a purge that was cut off.
    """
    if trash and (memory_ids or backups or all_backups):
        raise click.UsageError("Give either memories or --trash, which leaves backups as they are.")
    with opened_home() as home:
        chosen = _chosen(home, backups, every=all_backups)
        if trash:
            _confirm("Erase all that was deleted or changed, and all former texts?", yes=yes)
        elif memory_ids:
            _show(home.purges.plan(memory_ids, chosen), chosen, quiet=yes)
            _confirm("Erase all of this for good?", yes=yes)
        with progress_shown():
            if memory_ids:
                purged: Purged | None = home.purges.purge(memory_ids, chosen)
            elif trash:
                purged = home.purges.empty_trash()
            else:
                purged = home.purges.finish()
    _report(purged, as_json=as_json)


def _chosen(home: Home, backups: Sequence[str], *, every: bool) -> list[str]:
    return [backup.id for backup in home.backups.list_backups()] if every else list(backups)


def _show(plan: PurgePlan, backups: Sequence[str], *, quiet: bool) -> None:
    if quiet:
        return
    day = current_days().date_text
    rows = [(m.id, day(m.occurred_at), m.memory_type, m.content) for m in plan.versions]
    print_table(("ID", "DATE", "TYPE", "TEXT"), rows)
    if backups:
        say(f"Out of {counted(len(backups), 'backup')} too: {', '.join(backups)}")


def _confirm(question: str, *, yes: bool) -> None:
    if not yes:
        confirm(f"{question} There is no way back.")


def _report(purged: Purged | None, *, as_json: bool) -> None:
    if as_json:
        print_json({"purged": asdict(purged) if purged else None})
        return
    if purged is None:
        say("There is no purge to go on with. Say which memories, or --trash.")
        return
    gone = f"{counted(len(purged.memory_ids), 'memory')}, " if purged.memory_ids else ""
    took = f"{counted(purged.lines, 'line')} of MEMORY.md, {counted(purged.texts, 'former text')}"
    say(f"Erased: {gone}{took}.")
    for pair in purged.newer.items():
        say(became_text(*pair))
    for backup in purged.backups:
        say(f"Written anew without them: backup {backup}")
    if purged.kept_in:
        say(f"May still hold it: {', '.join(purged.kept_in)}")
    if not purged.is_final:
        say("Other processes were reading: `soulkeep purge` again once they are closed.")
