"""The tools that work on documents: the day's log, MEMORY.md, SOUL.md, and the context to start with."""

from typing import Annotated, Literal

from mcp.server.mcpserver import Context
from mcp.types import CallToolResult, InputRequiredResult
from pydantic import Field

from soulkeep.errors import InvalidInputError
from soulkeep.mcp_server.answers.notes import (
    ContextAnswer,
    CuratedAnswer,
    LearnedAnswer,
    LearnedState,
    LoggedAnswer,
)
from soulkeep.mcp_server.calls import (
    ADDS,
    CHANGES,
    FIRST,
    LARGE,
    READS,
    CheckedServer,
    Id,
    answer,
    served,
)
from soulkeep.mcp_server.consent import Consent, ask
from soulkeep.models import Session
from soulkeep.service.context import MAX_TOKENS
from soulkeep.service.curator import Curated
from soulkeep.service.home import Home
from soulkeep.service.validation import MAX_ENTRY, MAX_NAME, MAX_QUERY


def register(server: CheckedServer) -> None:
    """Add the tools to a server."""
    server.add_tool(get_context, title="Get context", annotations=READS, meta=FIRST | LARGE)
    server.add_tool(log_day, title="Log", annotations=ADDS)
    server.add_tool(curate_memory, title="Curate MEMORY.md", annotations=CHANGES)
    server.add_tool(learn_preference, title="Learn preference", annotations=ADDS)


async def get_context(
    ctx: Context[Home],
    thread_id: Annotated[str, Field(description="The thread to go on with")] = "",
    query: Annotated[str, Field(max_length=MAX_QUERY, description="Its topic")] = "",
    max_tokens: Annotated[int, Field(ge=0, le=MAX_TOKENS)] = 0,
    used_tokens: Annotated[int, Field(ge=0, description="How full your window is")] = 0,
    window_tokens: Annotated[int, Field(ge=0, description="Its size")] = 0,
) -> Annotated[CallToolResult, ContextAnswer]:
    """Get what a conversation starts with: identity, instructions, notes, memories, recent threads.

    Use it first, with thread_id to resume one; as the conversation grows, with used_tokens and
    window_tokens: it says when and what to save.
    """
    context = await served(
        ctx,
        lambda home, session: home.contexts.assemble(
            thread_id=thread_id or None,
            query=query or None,
            max_tokens=max_tokens or None,
            used_tokens=used_tokens if used_tokens or window_tokens else None,
            window_tokens=window_tokens or None,
            session=session,
        ),
    )
    return answer(ContextAnswer.of(context))


async def log_day(
    ctx: Context[Home],
    text: Annotated[str, Field(max_length=MAX_ENTRY, description="In Markdown")],
) -> Annotated[CallToolResult, LoggedAnswer]:
    """Append an entry to today's log, under the time.

    Use it for what was done, tried and left open; lasting facts belong to remember.
    """
    day, time = await served(ctx, lambda home, session: home.curator.log_day(text, session))
    return answer(LoggedAnswer(day=day.isoformat(), time=time))


async def curate_memory(
    ctx: Context[Home],
    action: Literal["add", "replace", "remove"],
    section: Annotated[
        str,
        Field(
            max_length=MAX_NAME,
            description="Such as User Facts",
        ),
    ],
    entry: Annotated[
        str, Field(max_length=MAX_ENTRY, description="For replace and remove as it stands")
    ] = "",
    new_entry: Annotated[str, Field(max_length=MAX_ENTRY, description="For replace")] = "",
    memory_id: Annotated[Id, Field(description="For add: promote it instead")] = 0,
) -> Annotated[CallToolResult, CuratedAnswer]:
    """Add, replace or remove an entry of MEMORY.md, which every conversation starts with.

    Use it for what matters nearly always; the rest belongs to remember. The answer has its size.
    """
    curated = await served(
        ctx,
        lambda home, session: _curated(home, session, action, section, entry, new_entry, memory_id),
    )
    return answer(CuratedAnswer.of(action, curated))


def _curated(
    home: Home, session: Session, action: str, section: str, entry: str, new_entry: str, memory_id: int
) -> Curated:
    if action != "replace" and new_entry:
        raise InvalidInputError("new_entry", "goes with action=replace; put the text in `entry`")
    if memory_id:
        if action != "add" or entry:
            raise InvalidInputError("memory_id", "goes with action=add and without `entry`")
        return home.curator.promote(memory_id, section, session)
    if action == "add":
        return home.curator.add_entry(section, entry, session)
    if action == "replace":
        return home.curator.replace_entry(section, entry, new_entry, session)
    return home.curator.remove_entry(section, entry, session)


async def learn_preference(
    ctx: Context[Home],
    line: Annotated[str, Field(max_length=500, description="One sentence")],
) -> Annotated[CallToolResult, LearnedAnswer] | InputRequiredResult:
    """Propose a line for Learned Preferences in SOUL.md; it is written only if the user agrees.

    Use it when the user says how you should always behave.
    """
    written = await served(ctx, lambda home, _: home.curator.learned_line(line))
    message = f"May this line be added to Learned Preferences in SOUL.md?\n\n- {written}"
    reply = await ask(ctx, message, Consent)
    if isinstance(reply, InputRequiredResult):
        return reply
    state: LearnedState = "written" if reply.state == "agreed" else reply.state
    if state == "written":
        written = await served(ctx, lambda home, session: home.curator.learn(line, session))
    home = ctx.request_context.lifespan_context
    return answer(LearnedAnswer.of(state, written, home.path))
