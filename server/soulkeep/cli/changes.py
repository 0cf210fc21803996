"""`soulkeep changes`, `undo`, `trash` and `purge`: taking back what was changed, or erasing it."""

from collections.abc import Sequence
from dataclasses import asdict

import click

from soulkeep.cli import (
    Command,
    before_option,
    current_days,
    home_option,
    home_to_read,
    json_option,
    limit_option,
    opened_home,
    since_option,
    yes_option,
)
from soulkeep.cli.terminal import (
    changes_shape,
    confirm,
    past_shape,
    print_json,
    print_table,
    progress_shown,
    report,
    say,
)
from soulkeep.mcp_server.answers.changes import cleared_text, did_text, newer_text
from soulkeep.models import Change
from soulkeep.service.changes import MAX_LISTED, ChangeSummary
from soulkeep.service.home import Home
from soulkeep.service.lifecycle import MAX_PAGE
from soulkeep.service.purge import Purged
from soulkeep.wording import counted

_SHOWN_CHANGES = 50


@click.command(cls=Command)
@limit_option(50, MAX_LISTED)
@before_option()
@since_option
@json_option
@home_option
def changes(limit: int, before: int | None, since: str | None, *, as_json: bool) -> None:
    """List what was changed, latest first; `undo` takes it back."""
    with home_to_read() as home:
        found = home.changes.summarize(home.changes.list_changes(limit, before, since))
    if as_json:
        print_json(changes_shape(found))
    elif not found:
        say("Nothing was changed.")
    else:
        _print_changes(found)
        if len(found) == limit:
            say(f"There may be more: add --before {found[-1].change.id} for the next page.")


@click.command(cls=Command)
@limit_option(50, MAX_PAGE)
@before_option()
@json_option
@home_option
def trash(limit: int, before: int | None, *, as_json: bool) -> None:
    """List the memories that can be brought back, the latest first."""
    with home_to_read() as home:
        gone = home.lifecycle.list_trash(limit, before)
        whens = {past.change_id: home.changes.get_change(past.change_id) for past in gone}
    if as_json:
        shapes = [past_shape(past) | {"gone_at": whens[past.change_id].made_at} for past in gone]
        print_json({"trash": shapes})
    elif not gone:
        say("The trash is empty.")
    else:
        minute = current_days().minute_text
        rows = [
            (past.memory.id, minute(when.made_at), when.action, past.replaced_by, past.memory.content)
            for past in gone
            for when in [whens[past.change_id]]
        ]
        print_table(("ID", "GONE", "BY", "REPLACED BY", "TEXT"), rows)
        say("`soulkeep memories restore ID` brings one back.")


@click.command(cls=Command)
@click.argument("change_id", type=int, required=False)
@click.option("--since", metavar="DATE", help="Take back all since this date or time instead.")
@yes_option
@json_option
@home_option
def undo(change_id: int | None, since: str | None, *, yes: bool, as_json: bool) -> None:
    """Take back a change; without an id, the latest in force.

    `soulkeep changes` lists them with their ids.
    An undo is a change too, and taking it back does again what it undid.
    """
    if change_id is not None and since is not None:
        raise click.UsageError("Give either CHANGE_ID or --since.")
    with opened_home() as home:
        if since is not None:
            wanted = home.changes.list_since(since)
        elif change_id is not None:
            wanted = [home.changes.get_change(change_id)]
        else:
            wanted = list(filter(None, [home.changes.latest_in_force()]))
        if not wanted:
            report(as_json, changes_shape([]), "There is nothing to undo.")
            return
        if not yes:
            _print_wanted(home, wanted)
            confirm(f"Undo {counted(len(wanted), 'change')}?")
        with progress_shown():
            if since:
                undone = home.changes.undo_since(since, last=wanted[0].id)
            else:
                undone = home.changes.undo(wanted[0].id)
        by = home.changes.get_change(undone[0].id).undone_by
        summaries = home.changes.summarize(undone)
        cleared = home.changes.without_expiry(undone)
    what = ", ".join(f"change {change.id} ({change.action})" for change in undone[:10])
    more = f" and {len(undone) - 10:,} more" if len(undone) > 10 else ""
    report(
        as_json,
        changes_shape(summaries) | {"undone_by": by, "expiry_cleared": cleared},
        f"Undone: {what}{more}.",
        *map(cleared_text, cleared),
        f"`soulkeep undo {by}` does it again.",
    )


def _print_changes(found: Sequence[ChangeSummary]) -> None:
    minute = current_days().minute_text
    rows = [
        (c.id, minute(c.made_at), c.agent_id, c.undone_by, c.action, did_text(summary))
        for summary in found
        for c in [summary.change]
    ]
    print_table(("CHANGE", "WHEN", "BY", "UNDONE", "WHAT", "DID"), rows)


def _print_wanted(home: Home, wanted: Sequence[Change]) -> None:
    shown = wanted[:_SHOWN_CHANGES]
    summaries = home.changes.summarize(shown)
    _print_changes(summaries)
    if len(wanted) == 1:  # in a narrow table it may have been cut
        say(f"  {did_text(summaries[0])}")
    if len(wanted) > len(shown):
        more, before = len(wanted) - len(shown), shown[-1].id
        say(f"and {more:,} before them: `soulkeep changes --before {before}` lists them")


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
        chosen = [made.id for made in home.backups.list_backups()] if all_backups else backups
        if trash and not yes:
            confirm("Erase all that was deleted or changed, and all former texts? There is no way back.")
        elif memory_ids and not yes:
            plan, day = home.purges.plan(memory_ids, chosen), current_days().date_text
            rows = [(m.id, day(m.occurred_at), m.memory_type, m.content) for m in plan.versions]
            print_table(("ID", "DATE", "TYPE", "TEXT"), rows)
            if chosen:
                say(f"Out of {counted(len(chosen), 'backup')} too: {', '.join(chosen)}")
            confirm("Erase all of this for good? There is no way back.")
        with progress_shown():
            if memory_ids:
                purged: Purged | None = home.purges.purge(memory_ids, chosen)
            elif trash:
                purged = home.purges.empty_trash()
            else:
                purged = home.purges.finish()
    _report(purged, as_json=as_json)


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
        say(newer_text(*pair, "had become"))
    for backup in purged.backups:
        say(f"Written anew without them: backup {backup}")
    if purged.kept_in:
        say(f"May still hold it: {', '.join(purged.kept_in)}")
    if not purged.is_final:
        say("Other processes were reading: `soulkeep purge` again once they are closed.")
