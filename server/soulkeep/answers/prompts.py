"""What is answered about global prompts: typed data for programs, and compact text for the model."""

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import BaseModel, WithJsonSchema

from soulkeep.models import GlobalPrompt, PromptChange
from soulkeep.service.offers import offer_prompts


class PromptAnswer(BaseModel):
    """A global prompt; `mcp_name` is its name among the MCP prompts, null while it is inactive."""

    id: int
    name: str
    content: str
    is_active: bool
    priority: int
    created_at: str
    mcp_name: str | None

    @classmethod
    def of(cls, prompt: GlobalPrompt, mcp_name: str | None) -> "PromptAnswer":
        """Build the answer from a prompt."""
        return cls(
            id=prompt.id,
            name=prompt.name,
            content=prompt.content,
            is_active=prompt.is_active,
            priority=prompt.priority,
            created_at=prompt.created_at,
            mcp_name=mcp_name,
        )


class PromptsAnswer(BaseModel):
    """Global prompts, highest priority first."""

    prompts: list[PromptAnswer]

    @classmethod
    def of(cls, prompts: Sequence[GlobalPrompt]) -> "PromptsAnswer":
        """Build the answer from prompts."""
        names = {offer.prompt.id: offer.name for offer in offer_prompts(prompts)}
        return cls(prompts=[PromptAnswer.of(prompt, names.get(prompt.id)) for prompt in prompts])


class PromptChangeAnswer(BaseModel):
    """What became of a global prompt; `former_content` is the text that was replaced, if one was."""

    outcome: Literal["created", "changed", "removed"]
    # Described in the answer of list_prompts.
    prompt: Annotated[PromptAnswer, WithJsonSchema({"type": "object"})]
    former_content: str | None

    @classmethod
    def of(cls, change: PromptChange) -> "PromptChangeAnswer":
        """Build the answer from a change."""
        return cls(
            outcome=change.outcome,
            prompt=PromptAnswer.of(change.prompt, change.offered_as),
            former_content=_replaced(change),
        )


def prompts_text(prompts: Sequence[GlobalPrompt]) -> str:
    """List the prompts with their whole text: unlike memories they are the user's instructions."""
    if not prompts:
        return "The user has no global prompts."
    return "\n\n".join(f"{_prompt_head(prompt)}\n{prompt.content}" for prompt in prompts)


def _prompt_head(prompt: GlobalPrompt) -> str:
    return f"{prompt.name} (priority {prompt.priority}{'' if prompt.is_active else ', inactive'})"


def prompt_change_text(change: PromptChange) -> str:
    """Say what became of a prompt, with the text that is no longer kept."""
    offered = f" Clients offer it as {change.offered_as}." if change.offered_as else ""
    first = f"{change.outcome.capitalize()}: {_prompt_head(change.prompt)}.{offered}"
    if change.outcome == "removed":
        return f"{first} Its text, to set it again:\n{change.prompt.content}"
    replaced = _replaced(change)
    return first if replaced is None else f"{first} Its text was:\n{replaced}"


def _replaced(change: PromptChange) -> str | None:
    former = change.former
    return former.content if former and former.content != change.prompt.content else None
