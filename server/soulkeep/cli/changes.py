"""`soulkeep changes`, `undo` and `trash`: what was changed, and taking it back."""

from collections.abc import Mapping, Sequence

import click

from soulkeep.cli.commands import Command
from soulkeep.cli.options import (
    before_option,
    current_days,
    home_option,
    json_option,
    limit_option,
    opened_home,
    since_option,
    yes_option,
)
from soulkeep.cli.shapes import changes_shape, past_shape
from soulkeep.cli.tables import print_table
from soulkeep.cli.terminal import confirm, cut, one_line, print_json, report, say
from soulkeep.models import Change, ChangedRow
from soulkeep.service.changes import MAX_LISTED
from soulkeep.service.edits import hunks_of
from soulkeep.service.home import Home
from soulkeep.service.lifecycle import MAX_PAGE, Past
from soulkeep.wording import counted

_SHOWN_CHANGES = 50
_SHOWN_ROWS = 5
_SHOWN_COLUMNS = 200

_NOUNS = {
    "memories": "memory",
    "threads": "thread",
    "global_prompts": "prompt",
    "messages": "message",
}
_IN_DOCUMENTS = {"added": "to", "removed": "from", "changed": "in"}


@click.command(cls=Command)
@limit_option(50, MAX_LISTED)
@before_option()
@since_option
@json_option
@home_option
def changes(limit: int, before: int | None, since: str | None, *, as_json: bool) -> None:
    """List what was changed, latest first; `undo` takes it back."""
    with opened_home() as home:
        found = home.changes.list_changes(limit, before, since)
        if as_json:
            print_json(changes_shape(found, home.changes.row_counts(found)))
        elif not found:
            say("Nothing was changed.")
        else:
            _print_changes(home, found)
            if len(found) == limit:
                say(f"There may be more: add --before {found[-1].id} for the next page.")


@click.command(cls=Command)
@limit_option(50, MAX_PAGE)
@before_option()
@json_option
@home_option
def trash(limit: int, before: int | None, *, as_json: bool) -> None:
    """List the memories that can be brought back, the latest first."""
    with opened_home() as home:
        gone = home.lifecycle.list_trash(limit, before)
        whens = {past.change_id: home.repository.changes.get_change(past.change_id) for past in gone}
    if as_json:
        shapes = [past_shape(past) | {"gone_at": whens[past.change_id].made_at} for past in gone]
        print_json({"trash": shapes})
    elif not gone:
        say("The trash is empty.")
    else:
        _print_trash(gone, whens)


def _print_trash(gone: Sequence[Past], whens: Mapping[int, Change]) -> None:
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
        wanted = _wanted(home, change_id, since)
        if not wanted:
            report(as_json, changes_shape([], {}), "There is nothing to undo.")
            return
        if not yes:
            _print_wanted(home, wanted)
            confirm(f"Undo {counted(len(wanted), 'change')}?")
        if since:
            undone = home.changes.undo_since(since, last=wanted[0].id)
        else:
            undone = home.changes.undo(wanted[0].id)
        by = home.repository.changes.get_change(undone[0].id).undone_by
        counts = home.changes.row_counts(undone)
    what = ", ".join(f"{change.id} ({change.action})" for change in undone[:10])
    more = f" and {len(undone) - 10:,} more" if len(undone) > 10 else ""
    report(
        as_json,
        changes_shape(undone, counts) | {"undone_by": by},
        f"Undone: {what}{more}.",
        f"`soulkeep undo {by}` does it again.",
    )


def _wanted(home: Home, change_id: int | None, since: str | None) -> list[Change]:
    if since is not None:
        return home.changes.list_since(since)
    if change_id is not None:
        return [home.repository.changes.get_change(change_id)]
    latest = home.changes.latest_in_force()
    return [latest] if latest else []


def _print_changes(home: Home, found: Sequence[Change]) -> None:
    minute, counts = current_days().minute_text, home.changes.row_counts(found)
    rows = []
    for change in found:
        rest = counts.get(change.id, 0) - 1
        touched = [f"{_named(row)}: {_described(home, row)[1]}" for row in _first_rows(home, change, 1)]
        more = f" and {rest:,} more" if rest > 0 else ""
        shown = f"{cut(one_line(touched[0]), _SHOWN_COLUMNS)}{more}" if touched else None
        when = minute(change.made_at)
        rows.append((change.id, when, change.agent_id, change.undone_by, change.action, shown))
    print_table(("ID", "WHEN", "BY", "UNDONE BY", "WHAT", "TEXT"), rows)


def _print_wanted(home: Home, wanted: Sequence[Change]) -> None:
    shown = wanted[:_SHOWN_CHANGES]
    _print_changes(home, shown)
    if len(wanted) == 1:
        _print_rows(home, wanted[0])
    if len(wanted) > len(shown):
        more, before = len(wanted) - len(shown), shown[-1].id
        say(f"and {more:,} before them: `soulkeep changes --before {before}` lists them")


def _print_rows(home: Home, change: Change) -> None:
    """Show the beginning of what a change did: rows as they were, or are where they are new."""
    for row in _first_rows(home, change, _SHOWN_ROWS):
        what, text = _described(home, row)
        where = f"{_IN_DOCUMENTS[what]} " if row.kind == "documents" else ""
        say(f"  {cut(one_line(f'{what} {where}{_named(row)}: {text}'), _SHOWN_COLUMNS)}")
    rest = home.changes.row_counts([change]).get(change.id, 0) - _SHOWN_ROWS
    if rest > 0:
        say(f"  and {rest:,} more")


def _first_rows(home: Home, change: Change, count: int) -> Sequence[ChangedRow]:
    return home.changes.rows_of(change.id)[:count]


def _named(row: ChangedRow) -> str:
    return row.key if row.kind == "documents" else f"{_NOUNS[row.kind]} {row.key}"


def _described(home: Home, row: ChangedRow) -> tuple[str, str]:
    if row.kind == "documents":
        hunks = hunks_of(row)
        is_new, is_gone = not any(h.removed for h in hunks), not any(h.added for h in hunks)
        text = " ".join(hunk.added or hunk.removed for hunk in hunks)
    else:
        is_new, is_gone = row.before is None, row.after is None
        image = row.before or home.repository.changes.image(row.kind, row.key) or {}
        text = image.get("content") or image.get("title") or ""
    return "added" if is_new else "removed" if is_gone else "changed", text
