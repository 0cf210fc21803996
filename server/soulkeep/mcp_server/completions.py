"""Completions: what may stand in an argument of a prompt or in an address of a resource."""

from collections.abc import Callable

import anyio.to_thread
from mcp import MCPError
from mcp.types import (
    INTERNAL_ERROR,
    INVALID_PARAMS,
    Completion,
    CompletionArgument,
    CompletionContext,
    PromptReference,
    ResourceTemplateReference,
)

from soulkeep.errors import SoulkeepError, excerpt
from soulkeep.mcp_server.calls import CheckedServer
from soulkeep.models import MEMORY_TYPES
from soulkeep.search.words import same_title
from soulkeep.service.home import Home

MOST = 100
"""How many values the protocol lets an answer hold."""

_Reference = PromptReference | ResourceTemplateReference


def register(server: CheckedServer, home: Home) -> None:
    """Answer the completion requests to a server with what is in the home."""

    # The SDK's decorator has no types.
    @server.completion()  # type: ignore[no-untyped-call, untyped-decorator]
    async def complete(
        ref: _Reference, argument: CompletionArgument, _: CompletionContext | None
    ) -> Completion:
        if argument.name not in await _arguments(server, ref):
            return Completion(values=[], total=0, has_more=False)
        try:
            return await anyio.to_thread.run_sync(_complete, home, argument.name, argument.value)
        except SoulkeepError as error:
            raise MCPError(code=INTERNAL_ERROR, message=str(error)) from error


async def _arguments(server: CheckedServer, ref: _Reference) -> list[str]:
    if isinstance(ref, ResourceTemplateReference):
        return [name for name in _SOURCES if f"{{{name}}}" in ref.uri]
    for prompt in await server.list_prompts():
        if prompt.name == ref.name:
            return [argument.name for argument in prompt.arguments or ()]
    message = f"There is no prompt {excerpt(ref.name)}; prompts/list names what there is."
    raise MCPError(code=INVALID_PARAMS, message=message)


def _complete(home: Home, argument: str, typed: str) -> Completion:
    found = _SOURCES[argument](home, typed) if argument in _SOURCES else []
    return Completion(values=found[:MOST], total=len(found), has_more=len(found) > MOST)


def _thread_ids(home: Home, typed: str) -> list[str]:
    return home.threads.find_threads(containing=typed)


def _memory_ids(home: Home, typed: str) -> list[str]:
    return [str(memory_id) for memory_id in home.lifecycle.find_ids(typed)]


def _dates(home: Home, typed: str) -> list[str]:
    return [str(day) for day in reversed(home.documents.list_daily()) if typed in str(day)]


def _sections(home: Home, typed: str) -> list[str]:
    from soulkeep.documents.markdown import list_sections

    titles = [section.title for section in list_sections(home.documents.read("MEMORY.md"))]
    sought = same_title(typed)
    return [title for title in dict.fromkeys(titles) if sought in same_title(title)]


def _memory_types(_: Home, typed: str) -> list[str]:
    return [memory_type for memory_type in MEMORY_TYPES if typed.casefold() in memory_type]


_SOURCES: dict[str, Callable[[Home, str], list[str]]] = {
    "thread_id": _thread_ids,
    "memory_id": _memory_ids,
    "date": _dates,
    "section": _sections,
    "memory_type": _memory_types,
}
