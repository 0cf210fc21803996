"""`soulkeep remember` and `soulkeep recall`: the tools by hand."""

from collections.abc import Sequence
from typing import Any

import click

from soulkeep.cli.commands import Command
from soulkeep.cli.options import (
    current_days,
    home_option,
    home_to_read,
    json_option,
    limit_option,
    opened_home,
    since_option,
    type_option,
    until_option,
)
from soulkeep.cli.shapes import recall_shape, receipts_shape
from soulkeep.cli.terminal import print_json, print_quoted, read_text, report, say
from soulkeep.mcp_server.answers.memories import DEFAULT_TOKENS, MatchAnswer, RecallAnswer
from soulkeep.mcp_server.answers.receipts import RememberAnswer
from soulkeep.models import MEMORY_TYPES, Match, NewMemory, Recall
from soulkeep.search.terms import query_terms
from soulkeep.search.words import split_words
from soulkeep.service.receipts import Receipt

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
    report(as_json, receipts_shape(receipts), *_receipt_lines(receipts[0], memory))


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
        view = RecallAnswer.of(found, home.days, query_terms(query), max_tokens)
    if as_json:
        print_json(recall_shape(found))
    else:
        _print_recall(query, found, view)


def _receipt_lines(receipt: Receipt, memory: NewMemory) -> list[str]:
    (answer,) = RememberAnswer.of([receipt], [memory], current_days()).receipts
    notes = list(answer.notes)
    similar = [f"| {close.as_text()}" for close in answer.similar]
    heading = ["Similar memories that are kept already:"] if similar else []
    return [answer.first(), *notes, *heading, *similar]


def _print_recall(query: str, found: Recall, view: RecallAnswer) -> None:
    """Tell a person what fits, best first: how well, why, since when, about whom, and its text."""
    if view.nothing_fits:
        say("Nothing known fits. The nearest memories:" if view.matches else "Nothing known fits.")
    words = query_terms(query)
    for match, shown in zip(found.matches, view.matches, strict=False):
        say(f"#{shown.id} {_fit(shown)}: {_reasons(match, words)}", bold=True)
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


def _fit(shown: MatchAnswer) -> str:
    if shown.hardly_fits:
        return "hardly fits"
    return "fits well" if shown.relevance >= FITS_WELL else "fits in part"


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
