"""`soulkeep threads`: conversations and their messages."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import TextIO

import click
from pydantic import TypeAdapter

from soulkeep.cli import (
    Group,
    current_days,
    home_option,
    home_to_read,
    json_option,
    opened_home,
    yes_option,
)
from soulkeep.cli.terminal import (
    confirm,
    cut,
    memories_shape,
    message_shape,
    one_line,
    print_json,
    print_quoted,
    print_table,
    read_text,
    report,
    say,
)
from soulkeep.errors import InvalidInputError
from soulkeep.mcp_server.answers.changes import line_text
from soulkeep.models import Message, NewMessage, Thread
from soulkeep.service.threads import FATES
from soulkeep.wording import counted

_SHOWN = 500
"""How many columns of a memory `show` takes; `soulkeep memories show` has it whole."""

_thread_argument = click.argument("thread_id", metavar="ID")


@click.group(cls=Group)
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
        started = home.threads.start(title, system_prompt, new=True)
    others = [f"  {_line(thread)}" for thread in started.namesakes]
    heading = ["There are others of this title:"] if others else []
    report(as_json, asdict(started.thread), f"Created {_line(started.thread)}", *heading, *others)


@threads.command("list")
@click.option("--archived", is_flag=True, help="Those that are archived instead.")
@click.option("--limit", type=int, default=100, show_default=True, help="How many, 1 to 1,000.")
@json_option
@home_option
def list_(limit: int, *, archived: bool, as_json: bool) -> None:
    """List threads, latest activity first."""
    with home_to_read() as home:
        found = home.threads.list_threads(limit, archived)
    if as_json:
        print_json({"threads": [asdict(thread) for thread in found]})
    elif found:
        date = current_days().date_text
        print_table(("ID", "ACTIVE", "TITLE"), [(t.id, date(t.last_active_at), t.title) for t in found])
    else:
        say(f"There are no {'archived' if archived else 'active'} threads.")


@threads.command()
@_thread_argument
@click.option("--messages", type=int, default=10, show_default=True, help="How many, 0 to 100.")
@json_option
@home_option
def show(thread_id: str, messages: int, *, as_json: bool) -> None:
    """Show a thread: its prompt, its memories, decisions first, and its last messages."""
    with home_to_read() as home:
        digest = home.threads.resume(thread_id, messages)
    if as_json:
        messages_shape = {"messages": [message_shape(one) for one in digest.messages]}
        print_json(asdict(digest.thread) | memories_shape(digest.memories) | messages_shape)
        return
    thread = digest.thread
    say(f"Thread {_line(thread)}", bold=True)
    if thread.system_prompt:
        say("Its prompt:", bold=True)
        say(thread.system_prompt)
    if digest.memories:
        say("Its memories, decisions first:", bold=True)
        for memory in digest.memories:
            content = cut(one_line(memory.content), _SHOWN)
            say(f"| #{memory.id} {memory.memory_type}: {content}")
    if digest.messages:
        say("Its last messages:", bold=True)
        _print_messages(digest.messages)


@threads.command()
@_thread_argument
@click.option("--limit", type=int, default=50, show_default=True, help="How many, 1 to 200.")
@click.option(
    "--before", type=int, metavar="ID", help="Only messages with ids under this: the page before."
)
@json_option
@home_option
def messages(thread_id: str, limit: int, before: int | None, *, as_json: bool) -> None:
    """Print the last messages of a thread, oldest first."""
    with home_to_read() as home:
        page = home.messages.list_messages(thread_id, limit, before)
    if as_json:
        shapes = [message_shape(message) for message in page.messages]
        print_json({"messages": shapes, "has_more": page.has_more})
        return
    _print_messages(page.messages)
    if not page.messages:
        say("There are no messages.")
    if page.has_more:
        say(f"There are older ones: add --before {page.messages[0].id}.")


@threads.command()
@_thread_argument
@click.argument("file", type=click.File(encoding="utf-8"), default="-")
@json_option
@home_option
def save(thread_id: str, file: TextIO, *, as_json: bool) -> None:
    """Append messages from a FILE or stdin, each once.

    FILE holds a JSON list of objects with role, content and, if known, created_at.
    """
    try:
        new = TypeAdapter(list[NewMessage]).validate_python(json.load(file))
    except ValueError as error:
        rule = "must be a JSON list of objects with role and content"
        raise InvalidInputError("file", rule) from error
    with opened_home() as home:
        saved = home.messages.save(thread_id, new)
    ids = [one.id for one in saved if one.stored]
    span = f"id {ids[0]}" if len(ids) == 1 else f"ids {ids[0]} to {ids[-1]}" if ids else ""
    stored = f"Stored {counted(len(ids), 'message')} ({span})." if ids else ""
    known = len(saved) - len(ids)
    there = f"Not stored: the first {known:,}, which the thread has already." if known else ""
    report(as_json, {"messages": [asdict(one) for one in saved]}, f"{stored} {there}".strip())


@threads.command()
@_thread_argument
@click.argument("title")
@json_option
@home_option
def rename(thread_id: str, title: str, *, as_json: bool) -> None:
    """Give a thread another title."""
    with opened_home() as home:
        thread = home.threads.rename(thread_id, title)
    report(as_json, asdict(thread), f"Renamed: {_line(thread)}")


@threads.command()
@_thread_argument
@click.argument("content", required=False)
@click.option("--remove", is_flag=True, help="Take the prompt away.")
@click.option("--agree", is_flag=True, help="Make the prompt that an agent proposed your instruction.")
@json_option
@home_option
def prompt(thread_id: str, content: str | None, *, remove: bool, agree: bool, as_json: bool) -> None:
    """Give a thread its own system prompt; a single - for CONTENT reads it from stdin."""
    if (content is not None) + remove + agree != 1:
        raise click.UsageError("Give either CONTENT, --remove or --agree.")
    text = None if content is None else read_text(content)
    with opened_home() as home:
        threads = home.threads
        thread = threads.agree_to_prompt(thread_id) if agree else threads.set_prompt(thread_id, text)
    done = "Prompt set" if thread.system_prompt else "Prompt removed"
    report(as_json, asdict(thread), f"{done}: {_line(thread)}")


@threads.command()
@_thread_argument
@json_option
@home_option
def archive(thread_id: str, *, as_json: bool) -> None:
    """Take a thread out of the lists; its memories stay in recall."""
    with opened_home() as home:
        thread = home.threads.set_archived(thread_id, archived=True)
    report(as_json, asdict(thread), f"Archived: {_line(thread)}")


@threads.command()
@_thread_argument
@json_option
@home_option
def unarchive(thread_id: str, *, as_json: bool) -> None:
    """Take a thread back into the lists."""
    with opened_home() as home:
        thread = home.threads.set_archived(thread_id, archived=False)
    report(as_json, asdict(thread), f"Unarchived: {_line(thread)}")


@threads.command()
@_thread_argument
@click.option(
    "--memories",
    type=click.Choice(FATES),
    required=True,
    help="Keep its memories as global ones, or move them to the trash.",
)
@yes_option
@json_option
@home_option
def delete(thread_id: str, memories: str, *, yes: bool, as_json: bool) -> None:
    """Delete a thread with its messages."""
    if not yes:
        confirm(f"Delete thread {thread_id}? `soulkeep threads archive` would keep it.")
    with opened_home() as home:
        deleted = home.threads.delete(thread_id, memories)
    became = "became global" if deleted.fate == "global" else "went to the trash"
    report(
        as_json,
        asdict(deleted.thread) | {"change_id": deleted.change_id},
        f"Deleted thread {_line(deleted.thread)}",
        f"{counted(deleted.message_count, 'message')} went with it;"
        f" {counted(len(deleted.memory_ids), 'memory')} {became}."
        f" To have it all back: `soulkeep undo {deleted.change_id}`.",
        *map(line_text, deleted.lines),
    )


def _line(thread: Thread) -> str:
    state = " · archived" if thread.archived else ""
    active = current_days().date_text(thread.last_active_at)
    return f"{thread.id} · {active}{state} · {one_line(thread.title)}"


def _print_messages(shown: Sequence[Message]) -> None:
    minute = current_days().minute_text
    for message in shown:
        say(f"{message.id} · {minute(message.created_at)} · {one_line(message.role)}", bold=True)
        print_quoted(message.content)
