"""From a protocol call to a service call: whose it is, its worker thread, its progress, its errors.

A call may put a question to the user in the middle of it, in both protocol eras.
"""

import re
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import CancelledError
from contextlib import suppress
from dataclasses import dataclass
from inspect import cleandoc
from types import MappingProxyType
from typing import Annotated, Any, Generic, TypeVar

import anyio
import anyio.from_thread
import anyio.to_thread
from mcp import MCPError
from mcp.server import MCPServer
from mcp.server.context import CallNext, HandlerResult, ServerRequestContext
from mcp.server.elicitation import render_elicitation_schema
from mcp.server.lowlevel.helper_types import ReadResourceContents
from mcp.server.mcpserver import Context
from mcp.server.mcpserver.exceptions import (
    ResourceError,
    ResourceNotFoundError,
    ToolError,
    UnexpectedToolError,
)
from mcp.server.session import ServerSession
from mcp.shared.message import ServerMessageMetadata
from mcp.types import (
    CallToolResult,
    ElicitRequest,
    ElicitRequestFormParams,
    ElicitResult,
    InputRequiredResult,
    Resource,
    TextContent,
    Tool,
    ToolAnnotations,
)
from pydantic import AnyUrl, BaseModel, Field, ValidationError

from soulkeep.errors import (
    HALF_A_PAIR,
    InvalidInputError,
    NotFoundError,
    SoulkeepError,
    ThreadNotFoundError,
)
from soulkeep.mcp_server.answers import View
from soulkeep.mcp_server.arguments import compact, outline, read_arguments
from soulkeep.mcp_server.homes import MODERN, Caller, access_of
from soulkeep.models import Access, ConsentState, Session
from soulkeep.progress import told_to
from soulkeep.service.callers import MAX_ID
from soulkeep.service.home import Home
from soulkeep.wording import plain, quoted

# Hints that are left out have their defaults in the protocol: not only reading, not idempotent.
READS = ToolAnnotations(read_only_hint=True, open_world_hint=False)
ADDS = ToolAnnotations(destructive_hint=False, open_world_hint=False)
KEEPS = ToolAnnotations(destructive_hint=False, idempotent_hint=True, open_world_hint=False)
CHANGES = ToolAnnotations(destructive_hint=True, open_world_hint=False)
SETS = ToolAnnotations(destructive_hint=True, idempotent_hint=True, open_world_hint=False)

FIRST = {"anthropic/alwaysLoad": True}
"""On tools that a conversation begins with: Claude Code has others looked for before they are used."""

LARGE = {"anthropic/maxResultSizeChars": 100_000}
"""On tools that can be asked for long answers, which Claude Code would put into a file instead."""

Id = Annotated[int, Field(ge=0, le=MAX_ID)]
"""An id of a row, or a place in a list of such; 0 stands for none."""

REPORT_S = 0.5
"""How long one and the same work goes on between two reports, and how long a client may hold one up."""


_Result = TypeVar("_Result")

_SHOWN_PROBLEMS = 3
_SHOWN_NAMES = 5
_PLAIN = re.compile(r"[A-Za-z0-9_.-]{1,60}")

_RULES = {
    "missing": "is missing",
    "string_type": "must be text",
    "string_unicode": HALF_A_PAIR,
    "string_too_long": "may have at most {max_length:,} characters; shorten or split it",
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_parsing_size": "must be a whole number of fewer digits",
    "int_from_float": "must be a whole number",
    "finite_number": "must be a whole number",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "greater_than_equal": "must be at least {ge:,}",
    "less_than_equal": "must be at most {le:,}",
    "literal_error": "must be one of {expected}",
    "list_type": "must be a list",
    "too_long": "may hold at most {max_length:,} items; give several lists",
    "model_type": "must be an object with the fields that the tool's schema names",
}
"""What a caller is told, by the kinds of pydantic's errors."""


async def served(
    ctx: Context[Caller], work: Callable[[Home, Session], _Result], *, reads: bool = False
) -> _Result:
    """Do `work` for a tool call, in a worker thread, with the home and the caller's session.

    Work that only `reads` finds a thread however many writes wait for one another.

    Raises:
        ToolError: The service refused, in its own words, which reach the model. Any other error is a
            fault of ours and reaches only the log.
    """
    caller = ctx.request_context.lifespan_context

    def in_session() -> _Result:
        try:
            return work(caller.home, caller.session())
        except ThreadNotFoundError as error:
            raise _with_namesake(error, caller.home) from error

    try:
        if reads:
            async with caller.reads.one(caller.access.account):
                return await anyio.to_thread.run_sync(in_session)
        async with caller.writes.one(caller.access.account), caller.writing:
            return await anyio.to_thread.run_sync(in_session, limiter=caller.writers)
    except SoulkeepError as error:
        raise ToolError(str(error)) from error


def _with_namesake(error: ThreadNotFoundError, home: Home) -> SoulkeepError:
    """Name the thread whose title was given for its id: who is told to make one makes another."""
    with suppress(SoulkeepError):
        for thread in home.threads.namesakes(error.thread_id)[:1]:
            rule = f"is the title of the thread {plain(thread.id)}; pass that id. Nothing was done"
            return InvalidInputError("thread_id", rule)
    return error


async def read(ctx: Context[Caller], work: Callable[[Home], _Result]) -> _Result:
    """Do `work` for who reads a resource, in a worker thread.

    Raises:
        ResourceError: The service refused, in its own words.
    """
    caller = ctx.request_context.lifespan_context
    try:
        async with caller.reads.one(caller.access.account):
            return await anyio.to_thread.run_sync(work, caller.home)
    except NotFoundError as error:
        raise ResourceNotFoundError(str(error)) from error
    except SoulkeepError as error:
        raise ResourceError(str(error)) from error


def unknown_resource(uri: str) -> NotFoundError:
    """Return the error of an address at which there is nothing."""
    remedy = "resources/list and resources/templates/list name what there is"
    return NotFoundError(f"There is no resource {quoted(uri)}", remedy)


def answer(view: View, meta: dict[str, Any] | None = None) -> CallToolResult:
    """Give a view in both channels: clients hand a model the text, or the structured content alone.

    `meta` is for programs: no client hands it to a model.
    """
    return CallToolResult(
        content=[TextContent(type="text", text=view.as_text())],
        structured_content=view.as_data(),
        _meta=meta,
    )


class CheckedServer(MCPServer[Any]):
    """An MCPServer that names every wrong argument, without repeating what was in it.

    The SDK drops unknown arguments silently and describes the others in pydantic's words, values
    included.
    """

    fixed: Mapping[str, tuple[Resource, Callable[[Home], str]]] = MappingProxyType({})
    """The resources that every home has, by their addresses, and how each is read."""
    add_tools: Callable[[], None] | None = None
    """Adds the tools when a request first needs them: their schemas would hold up the first answer."""
    offered: Collection[str] | None = None
    """The names of the tools that are offered, where not all of them are."""
    _known: Mapping[str, dict[str, Any]] = MappingProxyType({})
    _reading: Sequence[str] = ()
    """The names of the tools that change nothing."""

    def add_tool(self, fn: Callable[..., Any], *args: Any, **options: Any) -> None:
        """Add a tool, unless it is not among those that are offered."""
        if self.offered is None or fn.__name__ in self.offered:
            super().add_tool(fn, *args, **options)

    async def list_tools(self) -> list[Tool]:
        """Return the tools with compact schemas and descriptions."""
        await self._schemas()
        tools = await super().list_tools()
        for tool in tools:
            tool.description = cleandoc(tool.description or "")
            tool.input_schema = compact(tool.input_schema)
            tool.output_schema = outline(tool.output_schema or {})
        return tools

    async def read_resource(
        self, uri: AnyUrl | str, context: Context[Any, Any] | None = None
    ) -> Iterable[ReadResourceContents] | InputRequiredResult:
        """Read a resource; to read a fixed one the SDK does not say who asks."""
        if context is None or str(uri) not in self.fixed:
            try:
                return await super().read_resource(uri, context)
            except ResourceNotFoundError as error:
                if str(error) != f"Unknown resource: {uri}":
                    raise
                raise ResourceNotFoundError(str(unknown_resource(str(uri)))) from error
        resource, text_of = self.fixed[str(uri)]
        return [ReadResourceContents(content=await read(context, text_of), mime_type=resource.mime_type)]

    async def _schemas(self) -> Mapping[str, dict[str, Any]]:
        """Return the schema of each tool's arguments; once added the tools stay what they are."""
        if not self._known:
            add_tools, self.add_tools = self.add_tools, None
            if add_tools is not None:
                add_tools()
            tools = await super().list_tools()
            self._known = {tool.name: tool.input_schema for tool in tools}
            self._reading = [
                tool.name for tool in tools if tool.annotations and tool.annotations.read_only_hint
            ]
        return self._known

    async def call_tool(
        self, name: str, arguments: dict[str, Any], context: Context[Any, Any] | None = None
    ) -> CallToolResult | InputRequiredResult:
        """Call a tool with what its caller means by `arguments`; the answer names what it ignored."""
        known = await self._schemas()
        if name not in known:
            raise ToolError(f"There is no tool {quoted(name)}; there are {', '.join(known)}.")
        access: Access | None = context.request_context.lifespan_context.access if context else None
        if access is not None and not access.may_write and name not in self._reading:
            raise ToolError(
                f"{name} was not run: {access.account} may read the memory of {access.home}, but not"
                f" change it. Whoever looks after it can allow that; until then use"
                f" {', '.join(self._reading)}."
            )
        try:
            sent = read_arguments(name, known[name], arguments)
        except SoulkeepError as error:
            raise ToolError(str(error)) from error
        # The first names, quoted where they could be anything; they are the caller's.
        first = sent.ignored[:_SHOWN_NAMES]
        ignored = [one if _PLAIN.fullmatch(one) else quoted(one) for one in first]
        if more := len(sent.ignored) - len(first):
            ignored.append(f"{more} more")
        said = f"\nIgnored, since {name} has no such argument: {', '.join(ignored)}." if ignored else ""
        try:
            result = await super().call_tool(name, sent.arguments, context)
        except UnexpectedToolError:
            raise
        except ToolError as error:
            wrong = error.__cause__
            why = _explained(name, wrong) if isinstance(wrong, ValidationError) else str(error)
            raise ToolError(why + said) from error
        if ignored and isinstance(result, CallToolResult):
            (block,) = [block for block in result.content if isinstance(block, TextContent)]
            block.text += said
            result.structured_content = {**(result.structured_content or {}), "ignored": ignored}
        return result


def _explained(tool: str, error: ValidationError) -> str:
    """Say in plain words why a tool was not run, whatever pydantic calls the rules that are broken."""
    problems = error.errors(include_url=False, include_input=False)
    said: list[str] = []
    for problem in problems[:_SHOWN_PROBLEMS]:
        parts = [str(part) for part in problem["loc"]]
        place = ".".join(p if p.isdigit() or p.isidentifier() else quoted(p) for p in parts)
        rule = _RULES.get(problem["type"], "is not what this argument takes; see the tool's schema")
        said.append(f"`{place}`: {rule.format_map(problem.get('ctx', {}))}")
    shown = "; ".join(said)
    more = f"; and {len(problems) - _SHOWN_PROBLEMS} more" if len(problems) > _SHOWN_PROBLEMS else ""
    return f"{tool} was not run: {shown}{more}. Nothing was done; correct this and call again."


async def offer_what_may_be_done(
    ctx: ServerRequestContext[Any, Any], call_next: CallNext
) -> HandlerResult:
    """List no tool that writes for whom may only read: SDK middleware."""
    result = await call_next(ctx)
    if ctx.method == "tools/list" and isinstance(result, dict) and not access_of(ctx).may_write:
        result["tools"] = [
            tool for tool in result["tools"] if tool.get("annotations", {}).get("readOnlyHint")
        ]
    return result


async def tell_progress(ctx: ServerRequestContext[Any, Any], call_next: CallNext) -> HandlerResult:
    """Tell the progress of worker threads to a request that asks for it: SDK middleware."""
    with told_to(_Reporter(ctx.session).report):
        return await call_next(ctx)


@dataclass(slots=True)
class _Reporter:
    """Sends what a worker thread says of its progress, but not too often."""

    session: ServerSession
    doing: str = ""
    sent_at: float = 0.0
    count: int = 0

    def report(self, doing: str, share: float | None) -> None:
        """Send a notification, unless the same was said a moment ago."""
        now = time.monotonic()
        if doing == self.doing and now - self.sent_at < REPORT_S:
            return
        self.doing, self.sent_at = doing, now
        # How much is still to come is unknown, so only the count grows.
        self.count += 1
        # The work goes on when its request is cancelled, but nobody waits for it any more.
        with suppress(CancelledError):
            anyio.from_thread.run(self._send, doing if share is None else f"{doing}: {share:.0%}")

    async def _send(self, message: str) -> None:
        with anyio.move_on_after(REPORT_S):
            await self.session.report_progress(self.count, None, message)


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


async def ask(
    ctx: Context[Caller], message: str, form: type[_Form]
) -> Reply[_Form] | InputRequiredResult:
    """Ask the user; whatever goes wrong in it is `not asked`, never an error of the call.

    An InputRequiredResult is to be returned by the tool as it is: the client asks, and calls again. A
    tool must not have changed anything by then.
    """
    client = ctx.client_capabilities
    asks = None if client is None else client.elicitation
    # A capability without a mode is that of a client from before there were two.
    if asks is None or (asks.form is None and asks.url is not None) or len(message) > LONGEST:
        return Reply("not asked")
    params = ElicitRequestFormParams(message=message, requested_schema=render_elicitation_schema(form))
    request = ElicitRequest(params=params)
    if (ctx.protocol_version or "") < MODERN:
        answer = await _answered(ctx, request)
        return Reply("not asked") if answer is None else _understood(answer, form)
    # The client gives it back, sealed: an answer counts for the very question that was asked, over this
    # connection and about this home.
    caller, text = ctx.request_context.lifespan_context, params.model_dump_json()
    if not caller.is_marked(text, ctx.request_state):
        return InputRequiredResult(input_requests={_QUESTION: request}, request_state=caller.mark(text))
    given = (ctx.input_responses or {}).get(_QUESTION)
    return _understood(given, form) if isinstance(given, ElicitResult) else Reply("not asked")


async def _answered(ctx: Context[Caller], request: ElicitRequest) -> ElicitResult | None:
    """Return what a client of the handshake era answers, if it does before the server stops."""
    questions, answer = ctx.request_context.lifespan_context.questions, None
    with anyio.CancelScope() as until_stopped:
        questions.add(until_stopped)
        try:
            answer = await ctx.session.send_request(
                request,
                ElicitResult,
                request_read_timeout_seconds=WAIT,
                metadata=ServerMessageMetadata(related_request_id=ctx.request_id),
            )
        except (MCPError, ValidationError):
            return None
        finally:
            questions.discard(until_stopped)
    return answer


def _understood(answer: ElicitResult, form: type[_Form]) -> Reply[_Form]:
    if answer.action == "cancel":
        return Reply("not asked")
    if answer.action == "decline":
        return Reply("declined")
    try:
        # Strictly: "no" in quotation marks must not be read as a yes.
        filled = form.model_validate(answer.content, strict=True)
    except ValidationError:
        return Reply("not asked")
    return Reply("agreed", filled) if filled.agree else Reply("declined")
