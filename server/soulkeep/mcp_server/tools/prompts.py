"""The tools for the user's global prompts."""

from typing import Annotated

from mcp.server.mcpserver import Context
from mcp.types import CallToolResult, InputRequiredResult
from pydantic import Field, WithJsonSchema

from soulkeep.fence import plain, visible
from soulkeep.mcp_server.answers.prompts import (
    PromptChangeAnswer,
    PromptsAnswer,
    agreement_command,
)
from soulkeep.mcp_server.calls import READS, SETS, CheckedServer, Id, answer, served
from soulkeep.mcp_server.consent import PromptConsent, ask
from soulkeep.models import ConsentState, GlobalPrompt, PromptChange
from soulkeep.service.home import Home
from soulkeep.service.validation import MAX_CONTENT, MAX_NAME

_Integer = Annotated[int | None, WithJsonSchema({"type": "integer"})]
_Switch = Annotated[bool | None, WithJsonSchema({"type": "boolean"})]


def register(server: CheckedServer) -> None:
    """Add the tools to a server."""
    server.add_tool(list_prompts, title="List global prompts", annotations=READS)
    server.add_tool(set_prompt, title="Set global prompt", annotations=SETS)


async def list_prompts(
    ctx: Context[Home],
    include_inactive: bool = False,
    after: Annotated[int, Field(ge=0, description="`next` of a page")] = 0,
) -> Annotated[CallToolResult, PromptsAnswer]:
    """List the user's own standing instructions, highest priority first.

    Use it when a conversation starts without get_context, and follow the active ones.
    """
    prompts = await served(
        ctx, lambda home, _: home.prompts.list_prompts(include_inactive=include_inactive)
    )
    return answer(PromptsAnswer.of(prompts, after))


async def set_prompt(
    ctx: Context[Home],
    name: Annotated[str, Field(max_length=MAX_NAME)] = "",
    content: Annotated[
        str, Field(max_length=MAX_CONTENT, description="{{argument}} is filled in on use")
    ] = "",
    priority: Annotated[_Integer, Field(description="Higher is loaded first")] = None,
    is_active: _Switch = None,
    remove: bool = False,
    prompt_id: Id = 0,
) -> Annotated[CallToolResult, PromptChangeAnswer] | InputRequiredResult:
    """Create, change, switch or remove a global prompt, by its name; what is left out stays.

    Use it only at the user's express wish; they are asked to agree.
    """
    wanted = await served(
        ctx,
        lambda home, _: home.prompts.find_unagreed(
            name,
            content,
            priority=priority,
            is_active=is_active,
            remove=remove,
            prompt_id=prompt_id or None,
        ),
    )
    state: ConsentState | None = None
    if wanted is not None:
        reply = await ask(ctx, _question(wanted), PromptConsent)
        if isinstance(reply, InputRequiredResult):
            return reply
        state = reply.state
        if state == "declined":
            return answer(PromptChangeAnswer.of(PromptChange("kept", wanted), state))
    change = await served(
        ctx,
        lambda home, session: home.prompts.set_prompt(
            name,
            content,
            priority=priority,
            is_active=is_active,
            remove=remove,
            prompt_id=prompt_id or None,
            session=session,
            agreed=state == "agreed",
        ),
    )
    home = ctx.request_context.lifespan_context
    how = agreement_command(change, wanted, home.path) if wanted and state == "not asked" else ""
    return answer(PromptChangeAnswer.of(change, state, how))


def _question(prompt: GlobalPrompt) -> str:
    return (
        f"May this be your standing instruction to agents, named '{plain(prompt.name)}'?"
        f"\n\n{visible(prompt.content)}"
    )
