"""The prompts, the user's global ones among them, and completions of arguments and addresses."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from difflib import get_close_matches

from mcp import MCPError
from mcp.types import (
    INVALID_PARAMS,
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
    ResourceTemplateReference,
    TextContent,
)

from soulkeep.fence import one_line, visible
from soulkeep.mcp_server.arguments import given_id
from soulkeep.mcp_server.homes import Request, looked_up
from soulkeep.models import MEMORY_TYPES, PromptOffer
from soulkeep.search.words import same_title
from soulkeep.service.home import Home
from soulkeep.service.validation import MAX_NAME
from soulkeep.wording import fill_placeholders, quoted

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
    return ListPromptsResult(prompts=_prompts(await looked_up(ctx, _offers)))


async def get_prompt(ctx: Request, params: GetPromptRequestParams) -> GetPromptResult:
    """Answer prompts/get.

    Raises:
        MCPError: There is no such prompt, an argument is missing or unknown, or the store cannot be
            read.
    """
    offers, given = await looked_up(ctx, _offers), params.arguments or {}
    prompts = {prompt.name: prompt for prompt in _prompts(offers)}
    if params.name not in prompts:
        raise _refusal(_unknown(params.name, list(prompts)))
    _require_arguments(prompts[params.name], given)
    for offer in offers:
        if offer.name == params.name:
            # The user agreed to what they could see.
            text = visible(fill_placeholders(offer.prompt.content, given))
            return _said(one_line(offer.description), text)
    return _said(START.description, await looked_up(ctx, lambda home: _start_text(home, given)))


def _offers(home: Home) -> list[PromptOffer]:
    return home.prompts.list_offers()


def _prompts(offers: Iterable[PromptOffer]) -> list[Prompt]:
    return [START, *map(_prompt, offers)]


def _start_text(home: Home, given: Mapping[str, str]) -> str:
    from soulkeep.mcp_server.answers.notes import ContextAnswer

    thread_id, query = given_id(given.get("thread_id", "")), given.get("query") or None
    return ContextAnswer.of(home.contexts.assemble(thread_id=thread_id, query=query)).as_text()


def _said(description: str | None, text: str) -> GetPromptResult:
    message = PromptMessage(role="user", content=TextContent(type="text", text=text))
    return GetPromptResult(description=description, messages=[message])


def _prompt(offer: PromptOffer) -> Prompt:
    return Prompt(
        name=offer.name,
        title=one_line(offer.prompt.name, MAX_NAME),
        description=one_line(offer.description),
        arguments=[PromptArgument(name=name, required=True) for name in offer.arguments],
    )


def _require_arguments(prompt: Prompt, given: Mapping[str, str]) -> None:
    known = [argument.name for argument in prompt.arguments or ()]
    for name in given:
        if name not in known:
            takes = f"it takes {', '.join(known)}" if known else "send it without arguments"
            raise _refusal(f"{prompt.name} has no argument {quoted(name)}; {takes}.")
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
    return f"There is no prompt {quoted(name)}; {hint}prompts/list names what there is."


def _refusal(message: str) -> MCPError:
    return MCPError(code=INVALID_PARAMS, message=message)


async def complete(ctx: Request, params: CompleteRequestParams) -> CompleteResult:
    """Answer completion/complete with what is in the home.

    Raises:
        MCPError: There is no such prompt, or the store cannot be read.
    """
    name, typed = params.argument.name, params.argument.value
    if isinstance(params.ref, ResourceTemplateReference):
        is_known = f"{{{name}}}" in params.ref.uri
    else:
        prompts = {prompt.name: prompt for prompt in _prompts(await looked_up(ctx, _offers))}
        if params.ref.name not in prompts:
            raise _refusal(_unknown(params.ref.name, list(prompts)))
        is_known = name in [one.name for one in prompts[params.ref.name].arguments or ()]
    found: list[str] = []
    if is_known and name in _SOURCES:
        found = await looked_up(ctx, lambda home: _SOURCES[name](home, typed))
    found_first = Completion(values=found[:MOST], total=len(found), has_more=len(found) > MOST)
    return CompleteResult(completion=found_first)


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
