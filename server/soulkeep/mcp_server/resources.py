"""What clients read without a tool: resources and their list, prompts, completions of arguments.

Pages of the list neither repeat nor leave out one when another is added.
"""

import base64
import binascii
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime
from difflib import get_close_matches
from itertools import islice
from typing import Literal, TypeVar, cast

from mcp import MCPError
from mcp.server.mcpserver import Context
from mcp.server.mcpserver.exceptions import ResourceNotFoundError
from mcp.types import (
    INVALID_PARAMS,
    Annotations,
    CompleteRequestParams,
    CompleteResult,
    Completion,
    GetPromptRequestParams,
    GetPromptResult,
    ListPromptsResult,
    PaginatedRequestParams,
    Prompt,
    PromptArgument,
    PromptMessage,
    Resource,
    ResourceTemplateReference,
    TextContent,
)

from soulkeep.documents import DOCUMENTS
from soulkeep.errors import InvalidInputError, MemoryForgottenError, NotFoundError
from soulkeep.mcp_server.arguments import given_thread
from soulkeep.mcp_server.calls import CheckedServer, read, unknown_resource
from soulkeep.mcp_server.homes import Caller, Request, looked_up
from soulkeep.models import MEMORY_TYPES, Memory, PromptOffer, timestamp
from soulkeep.search.words import same_title
from soulkeep.service.callers import MAX_NAME
from soulkeep.service.home import Home
from soulkeep.wording import DATA, fenced, fill_placeholders, one_line, plain, quoted, visible

CONTEXT_URI = "soulkeep://context"
STATS_URI = "soulkeep://stats"
MARKDOWN = "text/markdown"
_RECENT = 50
_LONGEST_TITLE = 200
_SHOWN = 1_000
"""How many characters of a memory a thread shows; its own resource has it whole."""
SCHEME = "soulkeep://"
_WHOLE_NUMBER = re.compile("0|-?[1-9][0-9]{0,99}")

_EVERYONE: list[Literal["user", "assistant"]] = ["user", "assistant"]

_Result = TypeVar("_Result")


def _context_text(home: Home, thread_id: str | None = None, query: str | None = None) -> str:
    # Imported when it is read: nothing of it is needed for the first answer.
    from soulkeep.mcp_server.answers.memories import ContextAnswer

    return ContextAnswer.of(home.contexts.assemble(thread_id=thread_id, query=query)).as_text()


def _stats_text(home: Home) -> str:
    # Without the sizes of tables, for which the whole store would be read.
    return json.dumps(asdict(home.statistics.figures(tables=False)))


FIXED: tuple[tuple[Resource, Callable[[Home], str]], ...] = (
    (
        Resource(
            uri="soulkeep://SOUL.md",
            name="SOUL.md",
            title="Agent identity",
            description="Who the agent is: values, style, learned preferences, boundaries.",
            mime_type=MARKDOWN,
            annotations=Annotations(audience=_EVERYONE, priority=1.0),
        ),
        lambda home: home.documents.read("SOUL.md"),
    ),
    (
        Resource(
            uri="soulkeep://MEMORY.md",
            name="MEMORY.md",
            title="Long-term memory",
            description="Curated notes: facts, project context, preferences, decisions.",
            mime_type=MARKDOWN,
            annotations=Annotations(audience=_EVERYONE, priority=1.0),
        ),
        lambda home: home.documents.read("MEMORY.md"),
    ),
    (
        Resource(
            uri=CONTEXT_URI,
            name="context",
            title="Context",
            description="What a conversation starts with; the tool get_context takes a thread and a"
            " budget.",
            mime_type=MARKDOWN,
            annotations=Annotations(audience=["assistant"], priority=0.9),
        ),
        _context_text,
    ),
    (
        Resource(
            uri=STATS_URI,
            name="stats",
            title="Statistics",
            description="Memories and recalls by day, types, tokens and cost of embedders, sizes on"
            " disk.",
            mime_type="application/json",
            annotations=Annotations(audience=["user"], priority=0.1),
        ),
        _stats_text,
    ),
)
"""What every home has, and how it is read."""

_FIXED_URIS = frozenset(resource.uri for resource, _ in FIXED)


def register(server: CheckedServer) -> None:
    """Add the resources to a server."""
    server.fixed = {resource.uri: (resource, text_of) for resource, text_of in FIXED}
    server.resource(
        "soulkeep://daily/{date}",
        name="daily log",
        title="Daily log",
        description="The log of a day, by its date: 2026-11-22.",
        mime_type=MARKDOWN,
    )(_read_log)
    server.resource(
        "soulkeep://threads/{thread_id}",
        name="thread",
        title="Thread",
        description="A thread's title, prompt and latest memories.",
        mime_type=MARKDOWN,
    )(_read_thread)
    server.resource(
        "soulkeep://memories/{memory_id}",
        name="memory",
        title="Memory",
        description="One memory in full, by the id that recall shows.",
        mime_type="text/plain",
    )(_read_memory)


async def _read_memory(memory_id: str, ctx: Context[Caller]) -> str:
    memory = await read(ctx, lambda home: _memory(home, memory_id))
    if str(memory.id) == memory_id:
        return visible(memory.content)
    heading = f"#{memory_id} was replaced by #{memory.id}, which says:"
    return f"{heading}\n\n{fenced(memory.content)}"


async def _read_log(date: str, ctx: Context[Caller]) -> str:
    text = await read(ctx, lambda home: home.documents.read_daily(_day(date)))
    if text is None:
        raise ResourceNotFoundError(f"There is no log of {date}; the tool log_day starts today's.")
    return text


async def _read_thread(thread_id: str, ctx: Context[Caller]) -> str:
    return await read(ctx, lambda home: _thread_text(home, thread_id))


def _memory(home: Home, memory_id: str) -> Memory:
    # With all that Python takes for a number, one memory would have many addresses.
    if not _WHOLE_NUMBER.fullmatch(memory_id):
        problem = f"{quoted(memory_id)} is no id of a memory"
        raise NotFoundError(problem, "use a number that recall shows")
    return home.lifecycle.get_memory(int(memory_id))


def _day(text: str) -> date:
    try:
        day = date.fromisoformat(text)
    except ValueError:
        day = None
    if day is None or day.isoformat() != text:
        raise NotFoundError(f"{quoted(text)} is no date", "write it like 2026-11-22")
    return day


def _thread_text(home: Home, thread_id: str) -> str:
    thread = home.threads.get_thread(thread_id)
    state = "archived" if thread.archived else "active"
    lines = [
        f"# {plain(thread.title, _LONGEST_TITLE)}",
        "",
        f"{plain(thread.id)}, {state} {plain(thread.last_active_at)}",
    ]
    if thread.system_prompt and thread.is_agreed:
        lines += ["", "## Its prompt", "", visible(thread.system_prompt)]
    elif thread.system_prompt:
        from soulkeep.service.threads import unagreed_note

        note = unagreed_note(thread.prompt_by)
        lines += ["", f"## {note} ({DATA})", "", fenced(thread.system_prompt)]
    if latest := home.threads.latest_memories(thread.id, _RECENT):
        lines += ["", f"## Latest memories ({DATA})", ""]
        dated = [(memory, home.days.date_text(memory.occurred_at)) for memory in latest]
        lines += [fenced(f"#{m.id} {day} {one_line(m.content, _SHOWN)}") for m, day in dated]
    return "\n".join(lines)


def state_of(home: Home, uri: str) -> str:
    """Return a text that changes whenever the resource with this address does; "" where a file tells.

    A log may still be to come, and a thread or memory gone: that is a state too.

    Raises:
        NotFoundError: There is no such resource, and was none.
        StoreError: The store cannot be read.
    """
    if uri == STATS_URI:
        return _stats_text(home)
    if uri in _FIXED_URIS:
        return ""
    kind, _, key = uri.removeprefix(SCHEME).partition("/")
    if uri.startswith(SCHEME) and kind == "threads":
        return _thread_text(home, key)
    if uri.startswith(SCHEME) and kind == "daily":
        _day(key)
        return ""
    if uri.startswith(SCHEME) and kind == "memories":
        try:
            return repr(_memory(home, key))
        except MemoryForgottenError as error:
            return str(error)
    raise unknown_resource(uri)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a list goes on: below the log of a day, or below a thread by its place in the store."""

    kind: Literal["log", "thread"]
    key: str


def list_page(
    caller: Caller, fixed: Sequence[Resource], limit: int, cursor: str | None
) -> tuple[list[Resource], str | None]:
    """Return up to `limit` resources from a cursor on, and the cursor of the next page if there is one.

    First come documents and what is `fixed`, then logs by day and active threads by when they were made,
    latest first.

    Raises:
        InvalidInputError: The cursor is none that was given.
        StoreError: The store cannot be read.
    """
    home, after = caller.home, None if cursor is None else _place(caller, cursor)
    first = [] if after else [_dated(home, one) if one.name in DOCUMENTS else one for one in fixed]
    room = limit - len(first)
    found = list(islice(_following(home, after, limit), room + 1))
    more = _cursor(caller, found[room - 1][0]) if len(found) > room else None
    return [*first, *(resource for _, resource in found[:room])], more


def _following(home: Home, after: Place | None, limit: int) -> Iterator[tuple[Place, Resource]]:
    if after is None or after.kind == "log":
        for day in reversed(home.documents.list_daily()):
            if after is None or day.isoformat() < after.key:
                log = Resource(
                    uri=f"{SCHEME}daily/{day}",
                    name=f"daily/{day.isoformat()}.md",
                    title=f"Log of {day.isoformat()}",
                    mime_type=MARKDOWN,
                    annotations=Annotations(audience=_EVERYONE, priority=0.5),
                )
                yield Place("log", day.isoformat()), _dated(home, log)
    below = int(after.key) if after and after.kind == "thread" else None
    for place, thread in home.threads.list_made(limit + 1, below):
        about = Annotations(audience=_EVERYONE, priority=0.3, last_modified=thread.last_active_at)
        yield (
            Place("thread", str(place)),
            Resource(
                uri=f"{SCHEME}threads/{thread.id}",
                name=thread.id,
                title=one_line(thread.title, MAX_NAME),
                mime_type=MARKDOWN,
                annotations=about,
            ),
        )


def _dated(home: Home, resource: Resource) -> Resource:
    """Return a resource with the size and date of the file of its name, if that can be looked at."""
    try:
        status = (home.path / resource.name).stat()
    except OSError:
        return resource
    modified = timestamp(datetime.fromtimestamp(status.st_mtime, UTC))
    about = (resource.annotations or Annotations()).model_copy(update={"last_modified": modified})
    return resource.model_copy(update={"size": status.st_size, "annotations": about})


def _cursor(caller: Caller, place: Place) -> str:
    """Write a place so that only the connection that it is given to can go on there."""
    text = f"{place.kind} {place.key}"
    return base64.urlsafe_b64encode(f"{text} {caller.mark(text)}".encode()).decode()


def _place(caller: Caller, cursor: str) -> Place:
    try:
        text, mark = base64.urlsafe_b64decode(cursor.encode()).decode().rsplit(" ", 1)
        kind, key = text.split(" ")
    except (ValueError, binascii.Error):
        text = mark = kind = key = ""
    if not caller.is_marked(text, mark):
        raise InvalidInputError("cursor", "is none of ours; list without one")
    return Place(cast(Literal["log", "thread"], kind), key)


MOST = 100
"""How many values the protocol lets an answer hold."""

START = Prompt(
    name="start",
    title="Start",
    description="Begin a conversation with what is known: identity, instructions, notes, logs,"
    " memories.",
    arguments=[
        PromptArgument(name="thread_id", description="The thread to go on with", required=False),
        PromptArgument(name="query", description="What the conversation will be about", required=False),
    ],
)


async def list_prompts(ctx: Request, _: PaginatedRequestParams) -> ListPromptsResult:
    """Answer prompts/list: the prompt `start`, then the user's, highest priority first."""
    offered = await looked_up(ctx, _offered)
    return ListPromptsResult(prompts=[prompt for prompt, _ in offered.values()])


async def get_prompt(ctx: Request, params: GetPromptRequestParams) -> GetPromptResult:
    """Answer prompts/get.

    Raises:
        MCPError: There is no such prompt, an argument is missing or unknown, or the store cannot be
            read.
    """
    return await looked_up(ctx, lambda home: _filled(home, params.name, params.arguments or {}))


async def complete_argument(ctx: Request, params: CompleteRequestParams) -> CompleteResult:
    """Answer completion/complete with what is in the home.

    Raises:
        MCPError: There is no such prompt, or the store cannot be read.
    """
    found = await looked_up(ctx, lambda home: _values(home, params))
    first = Completion(values=found[:MOST], total=len(found), has_more=len(found) > MOST)
    return CompleteResult(completion=first)


def _offered(home: Home) -> dict[str, tuple[Prompt, PromptOffer | None]]:
    """Return the prompts by their names, those of the user with what is in them."""
    offered: dict[str, tuple[Prompt, PromptOffer | None]] = {START.name: (START, None)}
    for offer in home.prompts.list_offers():
        prompt = Prompt(
            name=offer.name,
            title=one_line(offer.prompt.name, MAX_NAME),
            description=one_line(offer.description),
            arguments=[PromptArgument(name=name, required=True) for name in offer.arguments],
        )
        offered[offer.name] = prompt, offer
    return offered


def _named(home: Home, name: str) -> tuple[Prompt, PromptOffer | None]:
    offered = _offered(home)
    if name in offered:
        return offered[name]
    close = get_close_matches(name[:100], offered, n=1)
    hint = f"did you mean {close[0]}? " if close else ""
    raise MCPError(
        INVALID_PARAMS, f"There is no prompt {quoted(name)}; {hint}prompts/list names what there is."
    )


def _filled(home: Home, name: str, given: Mapping[str, str]) -> GetPromptResult:
    prompt, offer = _named(home, name)
    known = [argument.name for argument in prompt.arguments or ()]
    for other in [other for other in given if other not in known]:
        takes = f"it takes {', '.join(known)}" if known else "send it without arguments"
        raise MCPError(INVALID_PARAMS, f"{prompt.name} has no argument {quoted(other)}; {takes}.")
    required = [argument.name for argument in prompt.arguments or () if argument.required]
    if missing := [needed for needed in required if needed not in given]:
        raise MCPError(
            INVALID_PARAMS,
            f"{prompt.name} was not filled in; send the missing {', '.join(missing)} as text.",
        )
    if offer is None:
        text = _context_text(home, given_thread(given.get("thread_id", "")), given.get("query") or None)
    else:
        # The user agreed to what they could see.
        text = visible(fill_placeholders(offer.prompt.content, given))
    message = PromptMessage(role="user", content=TextContent(type="text", text=text))
    return GetPromptResult(description=prompt.description, messages=[message])


def _values(home: Home, params: CompleteRequestParams) -> list[str]:
    name, ref = params.argument.name, params.ref
    if isinstance(ref, ResourceTemplateReference):
        is_known = f"{{{name}}}" in ref.uri
    else:
        is_known = name in [argument.name for argument in _named(home, ref.name)[0].arguments or ()]
    return _SOURCES[name](home, params.argument.value) if is_known and name in _SOURCES else []


def _sections(home: Home, typed: str) -> list[str]:
    from soulkeep.documents.markdown import list_sections

    titles = [section.title for section in list_sections(home.documents.read("MEMORY.md"))]
    sought = same_title(typed)
    return [title for title in dict.fromkeys(titles) if sought in same_title(title)]


_SOURCES: dict[str, Callable[[Home, str], list[str]]] = {
    "thread_id": lambda home, typed: home.threads.find_threads(containing=typed),
    "memory_id": lambda home, typed: [str(i) for i in home.lifecycle.find_ids(typed)],
    "date": lambda home, typed: [
        str(day) for day in reversed(home.documents.list_daily()) if typed in str(day)
    ],
    "section": _sections,
    "memory_type": lambda _, typed: [kind for kind in MEMORY_TYPES if typed.casefold() in kind],
}
