"""The tools for the rest of a memory's life: looking through them, changing them, undoing changes."""

from typing import Annotated, Literal

from mcp.server.mcpserver import Context
from mcp.types import CallToolResult, ToolAnnotations
from pydantic import Field

from soulkeep.calls import CheckedServer, answer, served
from soulkeep.errors import InvalidInputError
from soulkeep.memory_answers import (
    BrowseAnswer,
    ChangedAnswer,
    UndoneAnswer,
    browse_text,
    changed_text,
    undone_text,
)
from soulkeep.models import Change, Memory, Session
from soulkeep.service.home import Home
from soulkeep.service.validation import MAX_BATCH, MAX_CONTENT, MAX_NAME

_CHANGES = ToolAnnotations(
    read_only_hint=False, destructive_hint=True, idempotent_hint=False, open_world_hint=False
)
_READS = ToolAnnotations(read_only_hint=True, open_world_hint=False)

View = Literal["memories", "history", "trash", "changes"]
Action = Literal["revise", "forget", "restore", "move"]

_Text = Annotated[str, Field(max_length=MAX_NAME)]


def register(server: CheckedServer) -> None:
    """Add the tools to a server."""
    server.add_tool(browse_memories, title="Browse memories", annotations=_READS)
    server.add_tool(change_memory, title="Change memories", annotations=_CHANGES)
    server.add_tool(undo, title="Undo", annotations=_CHANGES)


async def browse_memories(
    ctx: Context[Home],
    view: View = "memories",
    memory_id: Annotated[int, Field(ge=0, description="Whose history")] = 0,
    thread_id: _Text = "",
    memory_type: _Text = "",
    subject: _Text = "",
    source: _Text = "",
    since: Annotated[str, Field(max_length=MAX_NAME, description="ISO, as until")] = "",
    until: _Text = "",
    limit: Annotated[int, Field(ge=1, le=200)] = 20,
    below: Annotated[int, Field(ge=0, description="`next` of the last page")] = 0,
) -> Annotated[CallToolResult, BrowseAnswer]:
    """Look through memories, the history of one, the trash, or all changes, latest first.

    Use it to find what to correct or forget; to answer a question, use recall.
    """
    found = await served(
        ctx,
        lambda home, _: _browsed(
            home,
            view,
            memory_id,
            limit,
            below or None,
            {
                "thread_id": thread_id or None,
                "memory_type": memory_type or None,
                "subject": subject or None,
                "source": source or None,
                "since": since or None,
                "until": until or None,
            },
        ),
    )
    return answer(browse_text(view, found), found)


def _browsed(
    home: Home,
    view: View,
    memory_id: int,
    limit: int,
    below: int | None,
    filters: dict[str, str | None],
) -> BrowseAnswer:
    if view == "memories":
        return BrowseAnswer.of_memories(
            home.lifecycle.list_memories(limit=limit, below=below, **filters), limit
        )
    for name, value in filters.items():
        if value is not None and (view, name) != ("changes", "since"):
            raise InvalidInputError(name, f"goes with view=memories, not with {view}")
    if view == "history":
        return BrowseAnswer.of_past(home.lifecycle.history(memory_id), None)
    if view == "trash":
        return BrowseAnswer.of_past(home.lifecycle.list_trash(limit, below), limit)
    return BrowseAnswer.of_changes(home.changes.list_changes(limit, below, filters["since"]), limit)


async def change_memory(
    ctx: Context[Home],
    action: Action,
    memory_ids: Annotated[list[int], Field(max_length=MAX_BATCH)],
    content: Annotated[str, Field(max_length=MAX_CONTENT, description="For revise: the new text")] = "",
    thread_id: Annotated[str, Field(max_length=MAX_NAME, description="For move; empty: global")] = "",
) -> Annotated[CallToolResult, ChangedAnswer]:
    """Correct (revise), forget, restore from the trash, or move memories.

    Use it when something is wrong, over or private. What leaves recall can be brought back. Entries of
    documents are changed in their document.
    """
    memories = await served(
        ctx, lambda home, session: _changed(home, session, action, memory_ids, content, thread_id)
    )
    return answer(changed_text(action, memories), ChangedAnswer.of(memories))


def _changed(
    home: Home, session: Session, action: Action, memory_ids: list[int], content: str, thread_id: str
) -> list[Memory]:
    if content and action != "revise":
        raise InvalidInputError("content", "goes with action=revise")
    if thread_id and action != "move":
        raise InvalidInputError("thread_id", "goes with action=move")
    if action == "forget":
        return home.lifecycle.forget(memory_ids, session)
    if action == "move":
        return home.lifecycle.move(memory_ids, thread_id or None, session)
    if len(memory_ids) != 1:
        raise InvalidInputError("memory_ids", f"must hold one id to {action}")
    if action == "restore":
        return [home.lifecycle.restore(memory_ids[0], session)]
    receipt = home.lifecycle.revise(memory_ids[0], content, session=session)
    return [home.repository.memories.get_memory(receipt.id)]


async def undo(
    ctx: Context[Home],
    change_id: Annotated[int, Field(ge=0, description="As browse_memories lists them")] = 0,
    since: Annotated[str, Field(max_length=MAX_NAME, description="ISO date or time")] = "",
) -> Annotated[CallToolResult, UndoneAnswer]:
    """Take back a change of memories, threads, prompts, documents, or all since a moment the user names.

    An undo can be undone too.
    """
    changes = await served(ctx, lambda home, session: _undone(home, session, change_id, since))
    return answer(undone_text(changes), UndoneAnswer.of(changes))


def _undone(home: Home, session: Session, change_id: int, since: str) -> list[Change]:
    if bool(change_id) == bool(since):
        raise InvalidInputError("change_id", "or `since` must be given, and not both")
    if since:
        return home.changes.undo_since(since, session)
    return home.changes.undo(change_id, session)
