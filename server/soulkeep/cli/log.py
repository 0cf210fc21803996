"""`soulkeep log` and `soulkeep stats`: what happened, and how much of it."""

from dataclasses import asdict

import click

from soulkeep.cli.commands import Command
from soulkeep.cli.options import (
    current_days,
    home_option,
    home_to_read,
    json_option,
    limit_option,
    since_option,
)
from soulkeep.cli.tables import print_bars, print_days, print_facts, print_table
from soulkeep.cli.terminal import print_json, say, size_text
from soulkeep.records import LogEntry, ModelUsage
from soulkeep.repository.sqlite.ledger import MODEL_USED
from soulkeep.service.statistics import MAX_LOG, Figures
from soulkeep.wording import counted


@click.command(cls=Command)
@limit_option(50, MAX_LOG)
@since_option
@click.option("--agent", help="Only what this client did; `soulkeep` is the command line.")
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
        rows = [(minute(entry.at), entry.agent_id, entry.event, _details(entry)) for entry in found]
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
    else:
        _print_figures(figures)


def _print_figures(figures: Figures) -> None:
    print_days("Memories kept", figures.memories_by_day)
    print_days("Recalls", figures.recalls_by_day)
    if figures.memories_by_type:
        print_bars("Memories by type", figures.memories_by_type)
    if figures.usage:
        print_facts("Embedders", {usage.model: _usage_text(usage) for usage in figures.usage})
    if progress := figures.new_vectors:
        done = f"{progress.made:,} of {counted(progress.memories, 'memory')}"
        print_facts("New vectors", {progress.embedder: done})
    print_facts("On disk", {name: size_text(size) for name, size in figures.sizes.items()})
    tables = figures.table_sizes or {}
    print_facts("Tables", {name: size_text(size) for name, size in tables.items()})


def _usage_text(usage: ModelUsage) -> str:
    tokens = usage.input_tokens + usage.output_tokens
    return f"{counted(usage.uses, 'use')}, {counted(tokens, 'token')}, ${usage.cost:.2f}"


def _details(entry: LogEntry) -> str:
    # A model on this machine costs nothing and answers nothing, which is not worth a column.
    shown = {
        k: v for k, v in entry.details.items() if v is not None and (v or entry.event != MODEL_USED)
    }
    return " ".join(f"{name}={value}" for name, value in shown.items())
