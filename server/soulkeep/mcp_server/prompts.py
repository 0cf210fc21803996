"""The prompts, the user's global ones among them, and completions of arguments and addresses."""

from collections.abc import Callable, Mapping
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
    offered = await looked_up(ctx, _offered)
    return ListPromptsResult(prompts=[prompt for prompt, _ in offered.values()])


async def get_prompt(ctx: Request, params: GetPromptRequestParams) -> GetPromptResult:
    """Answer prompts/get.

    Raises:
        MCPError: There is no such prompt, an argument is missing or unknown, or the store cannot be
            read.
    """
    return await looked_up(ctx, lambda home: _filled(home, params.name, params.arguments or {}))


async def complete(ctx: Request, params: CompleteRequestParams) -> CompleteResult:
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
    raise _refusal(f"There is no prompt {quoted(name)}; {hint}prompts/list names what there is.")


def _filled(home: Home, name: str, given: Mapping[str, str]) -> GetPromptResult:
    prompt, offer = _named(home, name)
    _require_arguments(prompt, given)
    if offer is None:
        from soulkeep.mcp_server.answers.notes import ContextAnswer

        thread_id, query = given_id(given.get("thread_id", "")), given.get("query") or None
        context = home.contexts.assemble(thread_id=thread_id, query=query)
        text = ContextAnswer.of(context).as_text()
    else:
        # The user agreed to what they could see.
        text = visible(fill_placeholders(offer.prompt.content, given))
    message = PromptMessage(role="user", content=TextContent(type="text", text=text))
    return GetPromptResult(description=prompt.description, messages=[message])


def _require_arguments(prompt: Prompt, given: Mapping[str, str]) -> None:
    known = [argument.name for argument in prompt.arguments or ()]
    for name in given:
        if name not in known:
            takes = f"it takes {', '.join(known)}" if known else "send it without arguments"
            raise _refusal(f"{prompt.name} has no argument {quoted(name)}; {takes}.")
    required = [argument.name for argument in prompt.arguments or () if argument.required]
    if missing := [name for name in required if name not in given]:
        raise _refusal(
            f"{prompt.name} was not filled in; send the missing {', '.join(missing)} as text."
        )


def _refusal(message: str) -> MCPError:
    return MCPError(code=INVALID_PARAMS, message=message)


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
