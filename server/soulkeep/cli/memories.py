"""`soulkeep remember`, `recall` and `memories`: what is kept, found, looked at and changed."""

from collections.abc import Sequence
from typing import Any

import click

from soulkeep.cli import (
    Command,
    Group,
    before_option,
    current_days,
    current_settings,
    home_option,
    home_to_read,
    json_option,
    limit_option,
    opened_home,
    since_option,
    type_option,
    until_option,
    yes_option,
)
from soulkeep.cli.terminal import (
    changed_shape,
    confirm,
    memories_shape,
    one_line,
    past_shape,
    print_facts,
    print_json,
    print_quoted,
    print_table,
    read_text,
    recall_shape,
    receipts_shape,
    report,
    say,
)
from soulkeep.mcp_server.answers.changes import ChangedAnswer, newer_text, notes_of
from soulkeep.mcp_server.answers.memories import (
    DEFAULT_TOKENS,
    MatchAnswer,
    RecallAnswer,
    RememberAnswer,
)
from soulkeep.models import MEMORY_TYPES, Match, Memory, NewMemory
from soulkeep.search.questions import query_terms
from soulkeep.search.words import split_words
from soulkeep.service.lifecycle import MAX_PAGE
from soulkeep.wording import counted

FITS_WELL = 0.5
"""The relevance from which on a memory is said to fit well: more likely than not, it answers."""

LEAST_SHARE = 0.05
"""A reason with a smaller share of the score is not worth a word."""

_REASONS = {
    "semantic": "its meaning",
    "subject": "whom it is about",
    "date": "its date",
    "neighbour": "what stands beside it in its thread",
}


@click.command(cls=Command)
@click.argument("content")
@click.option(
    "--type",
    "memory_type",
    type=click.Choice(MEMORY_TYPES),
    default="fact",
    show_default=True,
    help="The type of memory.",
)
@click.option("--thread", "thread_id", help="Keep it in this thread instead of globally.")
@click.option("--source", help="Where it comes from.")
@click.option("--subject", help="Who or what it is about.")
@click.option("--occurred-at", metavar="DATE", help="When it happened, a date or time; unset, now.")
@click.option("--expires-at", metavar="DATE", help="Until when it holds: the end of a date, or a time.")
@click.option(
    "--replaces",
    type=int,
    multiple=True,
    metavar="ID",
    help="A memory that it replaces; may be repeated.",
)
@json_option
@home_option
def remember(content: str, replaces: tuple[int, ...], *, as_json: bool, **fields: Any) -> None:
    """Keep a memory; a single - for CONTENT reads it from stdin."""
    text = read_text(content)
    memory = NewMemory(text, **fields)
    with opened_home() as home:
        receipts = home.memories.remember([memory], replaces=replaces)
    (answer,) = RememberAnswer.of(receipts, [memory], current_days()).receipts
    similar = [f"| {close.as_text()}" for close in answer.similar]
    heading = ["Similar memories that are kept already:"] if similar else []
    report(as_json, receipts_shape(receipts), answer.first(), *answer.notes, *heading, *similar)


@click.command(cls=Command)
@click.argument("query")
@limit_option(10, 100)
@click.option("--thread", "thread_id", help="Only this thread's memories and the global ones.")
@type_option
@since_option
@until_option
@click.option(
    "--max-tokens",
    type=click.IntRange(100),
    default=DEFAULT_TOKENS,
    show_default=True,
    help="How long the texts may be together.",
)
@click.option("--messages", "include_messages", is_flag=True, help="Also messages of threads.")
@json_option
@home_option
def recall(query: str, max_tokens: int, *, as_json: bool, limit: int, **filters: Any) -> None:
    """Bring back the memories that fit QUERY, best first."""
    with home_to_read() as home:
        found = home.memories.recall(query, limit=limit, **filters)
        words = query_terms(query)
        view = RecallAnswer.of(found, home.days, words, max_tokens)
    if as_json:
        print_json(recall_shape(found))
        return
    if view.nothing_fits:
        say("Nothing known fits. The nearest memories:" if view.matches else "Nothing known fits.")
    for match, shown in zip(found.matches, view.matches, strict=False):
        fit = "well" if shown.relevance >= FITS_WELL else "in part"
        fits = "hardly fits" if shown.hardly_fits else f"fits {fit}"
        say(f"#{shown.id} {fits}: {_reasons(match, words)}", bold=True)
        say(f"   {_facts(shown)}")
        print_quoted(shown.content)
    if view.not_shown:
        rest = f" and {view.more} more" if view.more else ""
        say(f"No room for {', '.join(f'#{i}' for i in view.not_shown)}{rest}: raise --max-tokens.")
    for said in view.messages:
        say(f"Message {said.id} of thread {said.thread_id}", bold=True)
        say(f"   {said.role} · {said.created_at}")
        print_quoted(said.content)
    for remark in view.remarks:
        say(remark)
    if view.mode == "lexical":
        say("Searched by words alone; `soulkeep doctor` says why.")


def _reasons(match: Match, words: Sequence[str]) -> str:
    own = set(split_words(match.memory.content))
    shared = ", ".join(word for word in words if word in own)
    said = {"lexical": f"the words {shared}" if shared else "its words"} | _REASONS
    weighty = sorted((-share, name) for name, share in match.reasons.items() if share >= LEAST_SHARE)
    return ", ".join(said[name] for _, name in weighty) or "its words"


def _facts(shown: MatchAnswer) -> str:
    where = f"thread {shown.thread_id}" if shown.thread_id else "global"
    facts = [
        f"{shown.memory_type} about {shown.subject}" if shown.subject else shown.memory_type,
        shown.occurred_at,
        where,
        f"from {shown.source}" if shown.source else "",
        f"expires {shown.expires_at}" if shown.expires_at else "",
        f"in part, whole by `soulkeep memories show {shown.id}`" if shown.whole_at else "",
    ]
    return " · ".join(fact for fact in facts if fact)


_HEADINGS = ("ID", "DATE", "TYPE", "THREAD", "ABOUT", "FROM", "TEXT")

_ids_argument = click.argument("memory_ids", type=int, nargs=-1, required=True, metavar="ID...")
_id_argument = click.argument("memory_id", type=int, metavar="ID")


@click.group(cls=Group)
def memories() -> None:
    """List, show, revise, move, forget and restore memories."""


@memories.command("list")
@limit_option(50, MAX_PAGE)
@before_option("below")
@click.option("--thread", "thread_id", help="Only this thread's memories and the global ones.")
@type_option
@click.option("--subject", help="Only what is about exactly this.")
@click.option("--source", help="Only what comes from exactly this.")
@since_option
@until_option
@json_option
@home_option
def list_(*, as_json: bool, limit: int, **filters: Any) -> None:
    """List memories, the latest kept first."""
    with home_to_read() as home:
        found = home.lifecycle.list_memories(limit=limit, **filters)
    if as_json:
        print_json(memories_shape(found))
    elif not found:
        say("No memories match. `soulkeep remember TEXT` keeps one.")
    else:
        print_table(_HEADINGS, [_cells(memory) for memory in found])
        if len(found) == limit:
            say(f"There may be more: add --below {found[-1].id} for the next page.")


@memories.command()
@_ids_argument
@json_option
@home_option
def show(memory_ids: tuple[int, ...], *, as_json: bool) -> None:
    """Show memories in full."""
    with home_to_read() as home:
        found = [home.lifecycle.get_memory(memory_id) for memory_id in memory_ids]
    if as_json:
        print_json(memories_shape(found))
        return
    minute = current_days().minute_text
    for place, (asked, memory) in enumerate(zip(memory_ids, found, strict=True)):
        click.echo("\n" * bool(place), nl=False)
        if asked != memory.id:
            say(newer_text(asked, memory.id))
        facts = {
            "type": memory.memory_type,
            "thread": memory.thread_id or "global",
            "about": memory.subject,
            "from": memory.source,
            "happened": minute(memory.occurred_at),
            "kept": minute(memory.created_at),
            "expires": memory.expires_at and minute(memory.expires_at),
            "entry of": memory.document,
        }
        print_facts(f"Memory #{memory.id}", {name: value for name, value in facts.items() if value})
        say(memory.content)


@memories.command()
@_id_argument
@json_option
@home_option
def history(memory_id: int, *, as_json: bool) -> None:
    """Show all versions of a memory, latest first.

    The id of any of them will do; the memories that it replaced are listed too.
    """
    with home_to_read() as home:
        pasts, now = home.lifecycle.history(memory_id), home.lifecycle.find_memory(memory_id)
    if as_json:
        document = {"now": now._asdict() if now else None, "past": [past_shape(p) for p in pasts]}
        print_json(document)
        return
    date = current_days().date_text
    versions = [("now", now), *((f"until change {past.change_id}", past.memory) for past in pasts)]
    rows = [
        (when, version.id, date(version.occurred_at), version.memory_type, version.content)
        if version
        else (when, "", "", "", "It is in the trash or gone.")
        for when, version in versions
    ]
    print_table(("", "ID", "DATE", "TYPE", "TEXT"), rows)


@memories.command()
@_id_argument
@click.argument("content", required=False)
@type_option
@click.option("--source", help="Where it comes from.")
@click.option("--subject", help="Who or what it is about.")
@click.option("--occurred-at", metavar="DATE", help="When it happened, a date or time.")
@click.option(
    "--expires-at",
    metavar="DATE",
    help="Until when it holds: the end of a date, or a time; `never` for no end.",
)
@json_option
@home_option
def revise(memory_id: int, content: str | None, *, as_json: bool, **fields: Any) -> None:
    """Put CONTENT or other facts in the place of a memory's; a single - reads it from stdin.

    What is not given stays. The old version goes to the trash and stays in the history.
    """
    text = None if content is None else read_text(content)
    with opened_home() as home:
        receipt = home.lifecycle.revise(memory_id, text, **fields)
        memory = home.lifecycle.get_memory(receipt.id)
        notes = ChangedAnswer.of_revision(memory_id, receipt, memory, home.days).notes
    undo = f"`soulkeep undo {receipt.change_id}` takes that back."
    report(as_json, receipts_shape([receipt]), *notes, undo if receipt.change_id else "Nothing changed.")


@memories.command()
@_ids_argument
@yes_option
@json_option
@home_option
def forget(memory_ids: tuple[int, ...], *, yes: bool, as_json: bool) -> None:
    """Move memories to the trash; `restore` brings them back."""
    with opened_home() as home:
        if not yes:
            found = [home.lifecycle.get_memory(memory_id) for memory_id in memory_ids]
            print_table(_HEADINGS, [_cells(memory) for memory in found])
            confirm(f"Move {counted(len(found), 'memory')} to the trash?")
        changed = home.lifecycle.forget(memory_ids)
    gone = changed.memories
    ids = " ".join(str(memory.id) for memory in gone)
    days = current_settings().retention_days
    kept = f"for {counted(days, 'day')}" if days else "at any time"
    report(
        as_json,
        changed_shape(changed),
        *notes_of(changed),
        f"Moved {counted(len(gone), 'memory')} to the trash.",
        f"`soulkeep memories restore {ids}` takes that back {kept}.",
    )


@memories.command()
@_ids_argument
@json_option
@home_option
def restore(memory_ids: tuple[int, ...], *, as_json: bool) -> None:
    """Bring memories back that `soulkeep trash` lists."""
    with opened_home() as home:
        changed = home.lifecycle.restore(memory_ids)
    lines = [f"Restored #{m.id}: {one_line(m.content)}" for m in changed.memories]
    report(as_json, changed_shape(changed), *lines, *notes_of(changed))


@memories.command()
@_ids_argument
@click.option("--thread", "thread_id", help="The thread to move them to.")
@click.option("--global", "to_all", is_flag=True, help="Make them global instead.")
@json_option
@home_option
def move(memory_ids: tuple[int, ...], thread_id: str | None, *, to_all: bool, as_json: bool) -> None:
    """Move memories to a thread, or make them global."""
    if to_all == (thread_id is not None):
        raise click.UsageError("Give either --thread or --global.")
    with opened_home() as home:
        changed = home.lifecycle.move(memory_ids, thread_id)
    if as_json:
        print_json(changed_shape(changed))
        return
    print_table(_HEADINGS, [_cells(memory) for memory in changed.memories])
    for note in notes_of(changed):
        say(note)


def _cells(memory: Memory) -> Sequence[object]:
    thread = memory.thread_id or "global"
    date, kind = current_days().date_text(memory.occurred_at), memory.memory_type
    return memory.id, date, kind, thread, memory.subject, memory.source, memory.content
