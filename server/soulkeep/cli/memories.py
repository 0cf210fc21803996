"""`soulkeep remember` and `soulkeep recall`: the tools by hand."""

import sys

import click

from soulkeep.answers import recall_text, receipts_text
from soulkeep.cli.options import home_option, opened_home
from soulkeep.cli.terminal import printable
from soulkeep.models import MEMORY_TYPES, NewMemory


@click.command()
@click.argument("content")
@click.option(
    "--type", "memory_type", type=click.Choice(MEMORY_TYPES), default="fact", show_default=True
)
@click.option("--thread", "thread_id", help="Keep it in this thread instead of globally.")
@click.option("--source", help="Where it comes from.")
@home_option
def remember(content: str, memory_type: str, thread_id: str | None, source: str | None) -> None:
    """Keep CONTENT; a single - reads it from stdin."""
    text = sys.stdin.read() if content == "-" else content
    memory = NewMemory(text, memory_type, thread_id, source)
    with opened_home() as home:
        receipts = home.memories.remember([memory])
    click.echo(printable(receipts_text(receipts, [memory])))


@click.command()
@click.argument("query")
@click.option("--limit", type=int, default=10, show_default=True, help="1 to 100.")
@click.option("--thread", "thread_id", help="Only this thread's memories and the global ones.")
@click.option("--type", "memory_type", type=click.Choice(MEMORY_TYPES))
@click.option("--since", help="ISO date or time, UTC, inclusive.")
@click.option("--until", help="ISO date or time, UTC, inclusive.")
@home_option
def recall(
    query: str,
    limit: int,
    thread_id: str | None,
    memory_type: str | None,
    since: str | None,
    until: str | None,
) -> None:
    """Bring back the memories that fit QUERY, best first."""
    with opened_home() as home:
        found = home.memories.recall(
            query,
            limit=limit,
            thread_id=thread_id,
            memory_type=memory_type,
            since=since,
            until=until,
        )
    click.echo(printable(recall_text(found)))
