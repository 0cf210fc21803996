"""`soulkeep remember` and `soulkeep recall`: the tools by hand."""

import sys
from typing import Any

import click

from soulkeep.answers.memories import DEFAULT_TOKENS, RecallAnswer, RememberAnswer
from soulkeep.cli.options import (
    home_option,
    json_option,
    limit_option,
    opened_home,
    since_option,
    type_option,
    until_option,
)
from soulkeep.cli.terminal import print_json, printable
from soulkeep.models import MEMORY_TYPES, NewMemory
from soulkeep.ranking import query_terms


@click.command()
@click.argument("content")
@click.option(
    "--type", "memory_type", type=click.Choice(MEMORY_TYPES), default="fact", show_default=True
)
@click.option("--thread", "thread_id", help="Keep it in this thread instead of globally.")
@click.option("--source", help="Where it comes from.")
@click.option("--subject", help="Who or what it is about.")
@click.option("--occurred-at", help="When it happened: ISO date or time; unset, now.")
@click.option("--expires-at", help="When it is to leave: ISO date or time.")
@click.option(
    "--replaces", type=int, multiple=True, metavar="ID", help="Comes in its place; may be repeated."
)
@json_option
@home_option
def remember(content: str, replaces: tuple[int, ...], *, as_json: bool, **fields: Any) -> None:
    """Keep CONTENT; a single - reads it from stdin."""
    text = sys.stdin.read() if content == "-" else content
    memory = NewMemory(text, **fields)
    with opened_home() as home:
        view = RememberAnswer.of(home.memories.remember([memory], replaces=replaces), [memory])
    if as_json:
        print_json(view.as_data())
    else:
        click.echo(printable(view.as_text()))


@click.command()
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
    help="How long the text may be.",
)
@click.option("--messages", "include_messages", is_flag=True, help="Also messages of threads.")
@json_option
@home_option
def recall(query: str, max_tokens: int, *, as_json: bool, limit: int, **filters: Any) -> None:
    """Bring back the memories that fit QUERY, best first."""
    with opened_home() as home:
        found = home.memories.recall(query, limit=limit, **filters)
        view = RecallAnswer.of(found, home.days, query_terms(query), max_tokens)
    if as_json:
        print_json(view.as_data())
    else:
        click.echo(printable(view.as_text()))
