"""The prompts, the user's global ones among them, and completions of arguments and addresses."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Annotated, TypeVar

import anyio.to_thread
from mcp import MCPError
from mcp.server.mcpserver import Context
from mcp.types import (
    INTERNAL_ERROR,
    INVALID_PARAMS,
    Completion,
    CompletionArgument,
    CompletionContext,
    GetPromptResult,
    Prompt,
    PromptArgument,
    PromptMessage,
    PromptReference,
    ResourceTemplateReference,
    TextContent,
)
from pydantic import Field

from soulkeep.errors import SoulkeepError, excerpt
from soulkeep.fence import one_line, visible
from soulkeep.mcp_server.arguments import given_id
from soulkeep.mcp_server.calls import CheckedServer
from soulkeep.models import MEMORY_TYPES, PromptOffer
from soulkeep.search.words import same_title
from soulkeep.service.home import Home
from soulkeep.service.validation import MAX_NAME
from soulkeep.wording import fill_placeholders

_Result = TypeVar("_Result")

START = "start"


def register(server: CheckedServer, home: Home) -> None:
    """Add the prompt `start` to a server and offer the home's global prompts beside it."""
    server.user_prompts = UserPrompts(home)
    server.prompt(name=START, title="Start")(_start)


async def _start(
    ctx: Context[Home],
    thread_id: Annotated[str, Field(description="The thread to go on with")] = "",
    query: Annotated[str, Field(description="What the conversation will be about")] = "",
) -> str:
    """Begin a conversation with what is known: identity, instructions, notes, logs, memories."""
    from soulkeep.mcp_server.answers.notes import ContextAnswer

    home = ctx.request_context.lifespan_context
    try:
        context = await anyio.to_thread.run_sync(
            lambda: home.contexts.assemble(thread_id=given_id(thread_id), query=query or None)
        )
    except SoulkeepError as error:
        raise _refusal(str(error)) from error
    return ContextAnswer.of(context).as_text()


@dataclass(frozen=True, slots=True)
class UserPrompts:
    """The active global prompts of a home, read from the store at each request."""

    home: Home

    async def list_prompts(self) -> list[Prompt]:
        """Return the prompts, highest priority first.

        Raises:
            MCPError: The store cannot be read.
        """
        return [_prompt(offer) for offer in await _read(self.home.prompts.list_offers)]

    async def get_prompt(
        self, name: str, arguments: Mapping[str, str], built_in: Sequence[Prompt]
    ) -> GetPromptResult | None:
        """Fill in a prompt; None where the name is that of one of `built_in`, whose arguments fit.

        Raises:
            MCPError: There is no such prompt, an argument is missing or unknown, or the store cannot be
                read.
        """
        offers = {offer.name: offer for offer in await _read(self.home.prompts.list_offers)}
        prompts = {prompt.name: prompt for prompt in [*built_in, *map(_prompt, offers.values())]}
        if name not in prompts:
            raise _refusal(_unknown(name, list(prompts)))
        _require_arguments(prompts[name], arguments)
        return _filled(offers[name], arguments) if name in offers else None


async def _read(work: Callable[[], _Result]) -> _Result:
    try:
        return await anyio.to_thread.run_sync(work)
    except SoulkeepError as error:
        raise MCPError(code=INTERNAL_ERROR, message=str(error)) from error


def _prompt(offer: PromptOffer) -> Prompt:
    return Prompt(
        name=offer.name,
        title=one_line(offer.prompt.name, MAX_NAME),
        description=one_line(offer.description),
        arguments=[PromptArgument(name=name, required=True) for name in offer.arguments],
    )


def _filled(offer: PromptOffer, arguments: Mapping[str, str]) -> GetPromptResult:
    # The user agreed to what they could see.
    text = visible(fill_placeholders(offer.prompt.content, arguments))
    message = PromptMessage(role="user", content=TextContent(type="text", text=text))
    return GetPromptResult(description=one_line(offer.description), messages=[message])


def _require_arguments(prompt: Prompt, given: Mapping[str, str]) -> None:
    known = [argument.name for argument in prompt.arguments or ()]
    for name in given:
        if name not in known:
            takes = f"it takes {', '.join(known)}" if known else "send it without arguments"
            raise _refusal(f"{prompt.name} has no argument {excerpt(name)}; {takes}.")
    missing = [
        argument.name
        for argument in prompt.arguments or ()
        if argument.required and argument.name not in given
    ]
    if missing:
        raise _refusal(
            f"{prompt.name} was not filled in; send the missing {', '.join(missing)} as text."
        )


def _unknown(name: str, known: Sequence[str]) -> str:
    close = get_close_matches(name[:100], known, n=1)
    hint = f"did you mean {close[0]}? " if close else ""
    return f"There is no prompt {excerpt(name)}; {hint}prompts/list names what there is."


def _refusal(message: str) -> MCPError:
    return MCPError(code=INVALID_PARAMS, message=message)


MOST = 100
"""How many values the protocol lets an answer hold."""

_Reference = PromptReference | ResourceTemplateReference


def register_completions(server: CheckedServer, home: Home) -> None:
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
