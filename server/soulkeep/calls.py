"""From a protocol call to a service call: whose it is, the worker thread it runs in, its errors."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from difflib import get_close_matches
from inspect import cleandoc
from types import MappingProxyType
from typing import Any, Protocol, TypeVar

import anyio.to_thread
from mcp.server import MCPServer
from mcp.server.context import CallNext, HandlerResult, ServerRequestContext
from mcp.server.mcpserver import Context
from mcp.server.mcpserver.exceptions import ToolError
from mcp.types import (
    CallToolResult,
    ElicitResult,
    GetPromptResult,
    InputRequiredResult,
    Prompt,
    TextContent,
    Tool,
    ToolAnnotations,
)
from pydantic import BaseModel, ValidationError

from soulkeep.answers import View
from soulkeep.errors import SoulkeepError, excerpt
from soulkeep.models import Session
from soulkeep.service.home import Home

# Hints that are left out have their defaults in the protocol: not only reading, not idempotent.
READS = ToolAnnotations(read_only_hint=True, open_world_hint=False)
ADDS = ToolAnnotations(destructive_hint=False, open_world_hint=False)
KEEPS = ToolAnnotations(destructive_hint=False, idempotent_hint=True, open_world_hint=False)
CHANGES = ToolAnnotations(destructive_hint=True, open_world_hint=False)
SETS = ToolAnnotations(destructive_hint=True, idempotent_hint=True, open_world_hint=False)

_Result = TypeVar("_Result")

# A tool call opens it by itself.
_OPENS_SESSION = frozenset({"notifications/initialized", "resources/read"})
_SHOWN_PROBLEMS = 3

# What pydantic writes into schemas and no model needs: what breaks these rules is refused in words.
_IN_ARGUMENTS = frozenset({"title", "maxLength", "maxItems", "additionalProperties"})
# All fields of an answer are always there, so none has to be called required.
_IN_ANSWERS = frozenset({"title", "description", "required"})
_UNSAID: tuple[object, ...] = ("", None, [], 0, -1)
"""Defaults that stand for nothing given, False among them."""


async def open_session(ctx: ServerRequestContext[Home, Any], call_next: CallNext) -> HandlerResult:
    """Give each client connection its row in sessions: SDK middleware.

    A modern connection has no handshake, so its first real request opens the session. A process that
    a client starts only to probe the protocol leaves no row of that client.
    """
    if ctx.method in _OPENS_SESSION:
        agent_id = _agent_id(ctx)
        await anyio.to_thread.run_sync(ctx.lifespan_context.sessions.current, agent_id)
    return await call_next(ctx)


async def read_answers(ctx: ServerRequestContext[Home, Any], call_next: CallNext) -> HandlerResult:
    """Let an answer that is none to our question count as cancelled: SDK middleware.

    The SDK would refuse the whole call for it.
    """
    answers = (ctx.params or {}).get("inputResponses")
    if ctx.method == "tools/call" and answers is not None:
        given = answers if isinstance(answers, dict) else {}
        read = {name: _read_answer(value) for name, value in given.items()}
        ctx = replace(ctx, params={**(ctx.params or {}), "inputResponses": read})
    return await call_next(ctx)


def _read_answer(value: object) -> object:
    try:
        ElicitResult.model_validate(value)
    except ValidationError:
        return {"action": "cancel"}
    return value


def _agent_id(ctx: ServerRequestContext[Home, Any]) -> str:
    client = ctx.session.client_params
    return client.client_info.name if client else ""


async def served(ctx: Context[Home], work: Callable[[Home, Session], _Result]) -> _Result:
    """Do `work` for a tool call, in a worker thread, with the home and the caller's session.

    Raises:
        ToolError: The service refused, in its own words, which reach the model. Any other error is a
            fault of ours and reaches only the log.
    """
    home, agent_id = ctx.request_context.lifespan_context, _agent_id(ctx.request_context)
    try:
        return await anyio.to_thread.run_sync(lambda: work(home, home.sessions.current(agent_id)))
    except SoulkeepError as error:
        raise ToolError(str(error)) from error


def answer(view: View) -> CallToolResult:
    """Give a view in both channels: clients hand a model the text, or the structured content alone."""
    return CallToolResult(
        content=[TextContent(type="text", text=view.as_text())], structured_content=view.as_data()
    )


def answer_both(text: str, structured: BaseModel) -> CallToolResult:
    """Give the model compact text and programs typed data, each once."""
    return CallToolResult(
        content=[TextContent(type="text", text=text)],
        structured_content=structured.model_dump(mode="json"),
    )


class PromptSource(Protocol):
    """Prompts that may be others at each request, beside those that a server is built with."""

    async def list_prompts(self) -> list[Prompt]:
        """Return what there is now."""
        ...

    async def get_prompt(
        self, name: str, arguments: Mapping[str, str], built_in: Sequence[Prompt]
    ) -> GetPromptResult | None:
        """Fill in a prompt, or return None for one of `built_in` after a look at its arguments."""
        ...


class CheckedServer(MCPServer[Home]):
    """An MCPServer that names every wrong argument, without repeating what was in it.

    The SDK drops unknown arguments silently and describes the others in pydantic's words, values
    included.
    """

    user_prompts: PromptSource | None = None
    add_tools: Callable[[], None] | None = None
    """Adds the tools when a request first needs them: their schemas would hold up the first answer."""
    offered: Collection[str] | None = None
    """The names of the tools that are offered, where not all of them are."""
    _known: Mapping[str, list[str]] = MappingProxyType({})

    def add_tool(self, fn: Callable[..., Any], *args: Any, **options: Any) -> None:
        """Add a tool, unless it is not among those that are offered."""
        if self.offered is None or fn.__name__ in self.offered:
            super().add_tool(fn, *args, **options)

    def _complete(self) -> None:
        add_tools, self.add_tools = self.add_tools, None
        if add_tools is not None:
            add_tools()

    async def list_tools(self) -> list[Tool]:
        """Return the tools with compact schemas and descriptions."""
        self._complete()
        tools = await super().list_tools()
        for tool in tools:
            tool.description = cleandoc(tool.description or "")
            tool.input_schema = _compact(tool.input_schema)
            tool.output_schema = _compact(tool.output_schema or {}, _IN_ANSWERS)
            _join_types(tool.output_schema)
        return tools

    async def list_prompts(self) -> list[Prompt]:
        """Return the server's own prompts, then the user's."""
        built_in = await super().list_prompts()
        return built_in + await self.user_prompts.list_prompts() if self.user_prompts else built_in

    async def get_prompt(
        self,
        name: str,
        arguments: dict[str, Any] | None = None,
        context: Context[Home, Any] | None = None,
    ) -> GetPromptResult | InputRequiredResult:
        """Fill in a prompt: one of the user's, or one of the server's own."""
        built_in = await super().list_prompts()
        if self.user_prompts and (
            filled := await self.user_prompts.get_prompt(name, arguments or {}, built_in)
        ):
            return filled
        return await super().get_prompt(name, arguments, context)

    async def _arguments(self) -> Mapping[str, list[str]]:
        """Return the arguments of each tool; a server's tools stay what they are."""
        if not self._known:
            self._complete()
            tools = await super().list_tools()
            self._known = {tool.name: list(tool.input_schema["properties"]) for tool in tools}
        return self._known

    async def call_tool(
        self, name: str, arguments: dict[str, Any], context: Context[Home, Any] | None = None
    ) -> CallToolResult | InputRequiredResult:
        """Call a tool; an argument that is null counts as left out."""
        known = await self._arguments()
        if name not in known:
            raise ToolError(f"There is no tool {excerpt(name)}; there are {', '.join(known)}.")
        _require_known(name, arguments, known[name])
        given = {key: value for key, value in arguments.items() if value is not None}
        try:
            return await super().call_tool(name, given, context)
        except ToolError as error:
            if isinstance(error.__cause__, ValidationError):
                raise ToolError(_explained(name, error.__cause__)) from error
            raise


def _require_known(tool: str, arguments: dict[str, Any], known: list[str]) -> None:
    for argument in arguments:
        if argument not in known:
            close = get_close_matches(argument[:100], known, n=1)
            hint = f"did you mean `{close[0]}`? " if close else ""
            raise ToolError(
                f"{tool} has no argument {excerpt(argument)}; {hint}"
                f"It takes {', '.join(known)}. Nothing was done."
            )


def _explained(tool: str, error: ValidationError) -> str:
    problems = error.errors(include_url=False, include_context=False, include_input=False)
    shown = "; ".join(
        f"`{'.'.join(_place(part) for part in problem['loc'])}`: {_rule(problem['msg'])}"
        for problem in problems[:_SHOWN_PROBLEMS]
    )
    more = f"; and {len(problems) - _SHOWN_PROBLEMS} more" if len(problems) > _SHOWN_PROBLEMS else ""
    return f"{tool} was not run: {shown}{more}. Nothing was done; correct this and call again."


def _place(part: int | str) -> str:
    return str(part) if isinstance(part, int) or part.isidentifier() else excerpt(part)


def _rule(message: str) -> str:
    if message == "Field required":
        return "is missing"
    if "unicode" in message:
        return "holds half of a surrogate pair; send whole Unicode characters"
    return message[0].lower() + message[1:]


def _compact(schema: dict[str, Any], dropped: frozenset[str] = _IN_ARGUMENTS) -> dict[str, Any]:
    """Leave out what pydantic adds to a schema and a model has to read with every request.

    Definitions are put where they are used: clients that check answers follow references slowly.
    """
    definitions = schema.get("$defs", {})

    def compact(part: Any) -> Any:
        if isinstance(part, list):
            return [compact(item) for item in part]
        if not isinstance(part, dict):
            return part
        if "$ref" in part:
            return compact(definitions[part["$ref"].removeprefix("#/$defs/")])
        # Under "properties" the keys are names of fields, and one of those may well be `title`.
        return {
            key: {name: compact(field) for name, field in value.items()}
            if key == "properties"
            else compact(value)
            for key, value in part.items()
            if key != "$defs"
            and not (key in dropped and not isinstance(value, dict))
            and not (key in ("default", "minimum") and value in _UNSAID)
        }

    compacted: dict[str, Any] = compact(schema)
    return compacted


def _join_types(part: Any) -> None:
    """Write a choice with null as one list of types, which clients check in half the time."""
    if isinstance(part, list):
        for item in part:
            _join_types(item)
    elif isinstance(part, dict):
        choices = part.get("anyOf", [])
        if len(choices) == 2 and choices[1] == {"type": "null"}:
            del part["anyOf"]
            part |= {**choices[0], "type": [choices[0]["type"], "null"]}
        for item in part.values():
            _join_types(item)
