"""`soulkeep context`: what the tool get_context gives a model, by hand."""

import click

from soulkeep.cli.commands import Command
from soulkeep.cli.options import home_option, home_to_read, json_option
from soulkeep.cli.terminal import report


@click.command(cls=Command)
@click.option("--thread", "thread_id", help="The thread that is continued.")
@click.option("--query", help="What the conversation will be about.")
@click.option("--max-tokens", type=int, help="How long it may be; unset, SOULKEEP_CONTEXT_TOKENS.")
@json_option
@home_option
def context(thread_id: str | None, query: str | None, max_tokens: int | None, *, as_json: bool) -> None:
    """Print what agents get at the start of a conversation, for hooks and scripts."""
    from soulkeep.mcp_server.answers.notes import ContextAnswer

    with home_to_read() as home:
        found = home.contexts.assemble(thread_id=thread_id, query=query, max_tokens=max_tokens)
    view = ContextAnswer.of(found)
    report(as_json, view.as_data() | {"text": view.as_text()}, view.as_text())
