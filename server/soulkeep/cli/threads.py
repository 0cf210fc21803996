"""`soulkeep threads`: conversations and their messages."""

import json
import sys
from typing import TextIO

import click
from pydantic import TypeAdapter

from soulkeep.answers.threads import (
    ManagedAnswer,
    PageAnswer,
    ThreadLine,
    deleted_text,
    digest_text,
    managed_text,
    page_text,
    saved_text,
    thread_line,
)
from soulkeep.cli.options import home_option, json_option, opened_home, yes_option
from soulkeep.cli.terminal import print_json, print_table, printable
from soulkeep.errors import InvalidInputError
from soulkeep.models import NewMessage
from soulkeep.service.threads import FATES

_thread_argument = click.argument("thread_id")


@click.group()
def threads() -> None:
    """Create, list, read, rename, archive and delete threads, and set their prompts."""


@threads.command()
@click.argument("title")
@click.option("--prompt", "system_prompt", help="Its own system prompt.")
@json_option
@home_option
def create(title: str, system_prompt: str | None, *, as_json: bool) -> None:
    """Create a thread, for memories and messages to belong to."""
    with opened_home() as home:
        thread = home.threads.create_thread(title, system_prompt)
    if as_json:
        print_json(ThreadLine.of(thread).model_dump())
    else:
        click.echo(printable(f"Created {thread_line(thread)}"))


@threads.command("list")
@click.option("--archived", is_flag=True, help="Those that are archived instead.")
@click.option("--limit", type=int, default=100, show_default=True, help="1 to 1,000.")
@json_option
@home_option
def list_(limit: int, *, archived: bool, as_json: bool) -> None:
    """List threads, latest activity first."""
    with opened_home() as home:
        found = home.threads.list_threads(limit, archived)
    if as_json:
        print_json({"threads": [ThreadLine.of(thread).model_dump() for thread in found]})
        return
    if found:
        rows = [(t.id, t.last_active_at[:10], t.title) for t in found]
        print_table(("ID", "ACTIVE", "TITLE"), rows)
    else:
        click.echo(f"There are no {'archived' if archived else 'active'} threads.")


@threads.command()
@_thread_argument
@click.option("--messages", type=int, default=10, show_default=True, help="How many, 0 to 100.")
@json_option
@home_option
def show(thread_id: str, messages: int, *, as_json: bool) -> None:
    """Show what to go on from: prompt, weightiest memories, last messages."""
    with opened_home() as home:
        digest = home.threads.resume(thread_id, messages)
    if as_json:
        print_json(ManagedAnswer.of_digest(digest).model_dump())
    else:
        click.echo(printable(digest_text(digest)))


@threads.command()
@_thread_argument
@click.argument("title")
@home_option
def rename(thread_id: str, title: str) -> None:
    """Give a thread another title."""
    with opened_home() as home:
        thread = home.threads.rename(thread_id, title)
    click.echo(printable(managed_text("rename", thread)))


@threads.command()
@_thread_argument
@click.argument("content", required=False)
@click.option("--remove", is_flag=True, help="Take the prompt away.")
@home_option
def prompt(thread_id: str, content: str | None, *, remove: bool) -> None:
    """Give a thread its own system prompt; CONTENT - reads it from stdin."""
    if (content is None) != remove:
        raise click.UsageError("Give either CONTENT or --remove.")
    text = sys.stdin.read() if content == "-" else content
    with opened_home() as home:
        thread = home.threads.set_prompt(thread_id, text)
    click.echo(printable(managed_text("set_prompt", thread)))


@threads.command()
@_thread_argument
@home_option
def archive(thread_id: str) -> None:
    """Take a thread out of the lists; its memories stay in recall."""
    with opened_home() as home:
        thread = home.threads.set_archived(thread_id, archived=True)
    click.echo(printable(managed_text("archive", thread)))


@threads.command()
@_thread_argument
@home_option
def unarchive(thread_id: str) -> None:
    """Take a thread back into the lists."""
    with opened_home() as home:
        thread = home.threads.set_archived(thread_id, archived=False)
    click.echo(printable(managed_text("unarchive", thread)))


@threads.command()
@_thread_argument
@click.option(
    "--memories",
    type=click.Choice(FATES),
    required=True,
    help="Keep its memories as global ones, or move them to the trash.",
)
@yes_option
@home_option
def delete(thread_id: str, memories: str, *, yes: bool) -> None:
    """Delete a thread with its messages."""
    if not yes:
        click.confirm(f"Delete thread {thread_id}? `archive` would keep it", abort=True)
    with opened_home() as home:
        deleted = home.threads.delete(thread_id, memories)
    click.echo(printable(deleted_text(deleted)))


@threads.command()
@_thread_argument
@click.option("--limit", type=int, default=50, show_default=True, help="1 to 200.")
@click.option("--before", type=int, help="Only messages with ids below this one.")
@json_option
@home_option
def messages(thread_id: str, limit: int, before: int | None, *, as_json: bool) -> None:
    """Print the last messages of a thread."""
    with opened_home() as home:
        page = home.messages.list_messages(thread_id, limit, before)
    if as_json:
        print_json(PageAnswer.of(page).model_dump())
    else:
        click.echo(printable(page_text(page)))


@threads.command()
@_thread_argument
@click.argument("file", type=click.File(encoding="utf-8"), default="-")
@home_option
def save(thread_id: str, file: TextIO) -> None:
    """Append messages from a FILE or stdin, each once.

    It holds a JSON list of objects with role, content and, if known, created_at.
    """
    try:
        messages = TypeAdapter(list[NewMessage]).validate_python(json.load(file))
    except ValueError as error:
        rule = "must be a JSON list of objects with role and content"
        raise InvalidInputError("FILE", rule) from error
    with opened_home() as home:
        saved = home.messages.save(thread_id, messages)
    click.echo(saved_text(saved))
