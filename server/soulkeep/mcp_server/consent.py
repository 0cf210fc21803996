"""Questions that a tool puts to the user, in both protocol eras: one place for all of them."""

from dataclasses import dataclass
from typing import Generic, TypeVar

from mcp import MCPError
from mcp.server.elicitation import render_elicitation_schema
from mcp.server.mcpserver import Context
from mcp.shared.message import ServerMessageMetadata
from mcp.types import ElicitRequest, ElicitRequestFormParams, ElicitResult, InputRequiredResult
from pydantic import BaseModel, Field, ValidationError

from soulkeep.mcp_server.homes import MODERN, Caller
from soulkeep.models import ConsentState

WAIT = 300.0
"""For how many seconds the user's answer is waited for; later than that the user was not asked."""

LONGEST = 8_000
"""How many characters a question may have: nobody can agree to what is not shown, so it is not asked."""

_QUESTION = "consent"


class Consent(BaseModel):
    """What the user fills in; a question may ask for more."""

    agree: bool = Field(description="Agree?")


class PromptConsent(Consent):
    """What the user is asked before a text becomes an instruction."""

    agree: bool = Field(description="Make it your instruction?")


_Form = TypeVar("_Form", bound=Consent)


@dataclass(frozen=True, slots=True)
class Reply(Generic[_Form]):
    """What the user said, and the form where they agreed.

    `declined` is a no. `not asked` is everything else: a client that cannot ask, that gave up, failed or
    took too long, and an answer that does not fit the form.
    """

    state: ConsentState
    form: _Form | None = None


def can_ask(ctx: Context[Caller]) -> bool:
    """Whether the client can put a question to its user."""
    client = ctx.client_capabilities
    asks = None if client is None else client.elicitation
    # A capability without a mode is that of a client from before there were two.
    return asks is not None and (asks.form is not None or asks.url is None)


async def ask(
    ctx: Context[Caller], message: str, form: type[_Form]
) -> Reply[_Form] | InputRequiredResult:
    """Ask the user; whatever goes wrong in it is `not asked`, never an error of the call.

    An InputRequiredResult is to be returned by the tool as it is: the client asks, and calls again. A
    tool must not have changed anything by then.
    """
    if not can_ask(ctx) or len(message) > LONGEST:
        return Reply("not asked")
    params = ElicitRequestFormParams(message=message, requested_schema=render_elicitation_schema(form))
    request = ElicitRequest(params=params)
    if (ctx.protocol_version or "") < MODERN:
        return _understood(await _answered(ctx, request), form)
    # The client gives it back, sealed: an answer counts for the very question that was asked, over this
    # connection and about this home.
    asked = ctx.request_context.lifespan_context.mark(params.model_dump_json())
    if ctx.request_state != asked:
        return InputRequiredResult(input_requests={_QUESTION: request}, request_state=asked)
    answer = (ctx.input_responses or {}).get(_QUESTION)
    return _understood(answer if isinstance(answer, ElicitResult) else None, form)


async def _answered(ctx: Context[Caller], request: ElicitRequest) -> ElicitResult | None:
    try:
        answer: ElicitResult = await ctx.session.send_request(
            request,
            ElicitResult,
            request_read_timeout_seconds=WAIT,
            metadata=ServerMessageMetadata(related_request_id=ctx.request_id),
        )
    except (MCPError, ValidationError):
        return None
    return answer


def _understood(answer: ElicitResult | None, form: type[_Form]) -> Reply[_Form]:
    if answer is None or answer.action == "cancel":
        return Reply("not asked")
    if answer.action == "decline":
        return Reply("declined")
    try:
        # Strictly: "no" in quotation marks must not be read as a yes.
        filled = form.model_validate(answer.content, strict=True)
    except ValidationError:
        return Reply("not asked")
    return Reply("agreed", filled) if filled.agree else Reply("declined")
