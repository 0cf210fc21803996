"""Drives a server over stdio with a Python client, and prints what its user sees as one JSON object.

python drive.py CLIENT COMMAND [ARGUMENT...], where CLIENT is fastmcp or pydantic-ai.
"""

import asyncio
import json
import sys
from typing import Any

CONTENT = "Zoë keeps the café's ledger in Kraków 📒"
QUESTION = {"query": "Who keeps the ledger?"}


async def with_fastmcp(command: str, arguments: list[str]) -> dict[str, Any]:
    """Call tools as a program does; it sees structured content, and the text beside it."""
    from fastmcp import Client
    from fastmcp.client.transports import StdioTransport

    async with Client(StdioTransport(command, arguments)) as client:
        tools = await client.list_tools()
        await client.call_tool("remember", {"content": CONTENT})
        recalled = await client.call_tool("recall", QUESTION)
    return {
        "tools": [tool.name for tool in tools],
        "text": recalled.content[0].text,
        "model": recalled.structured_content,
    }


async def with_pydantic_ai(command: str, arguments: list[str]) -> dict[str, Any]:
    """Let an agent with a stub for a model call a tool; the stub sees what a model would."""
    from fastmcp.client.transports import StdioTransport
    from pydantic_ai import Agent
    from pydantic_ai.mcp import MCPToolset
    from pydantic_ai.messages import ModelResponse, TextPart, ToolCallPart, ToolReturnPart
    from pydantic_ai.models.function import FunctionModel

    seen: dict[str, Any] = {}
    calls = [("remember", {"content": CONTENT}), ("recall", QUESTION)]

    def model(messages: list[Any], info: Any) -> ModelResponse:
        seen["tools"] = [tool.name for tool in info.function_tools]
        returned = [p for m in messages for p in m.parts if isinstance(p, ToolReturnPart)]
        if len(returned) < len(calls):
            return ModelResponse(parts=[ToolCallPart(*calls[len(returned)])])
        seen["model"] = returned[-1].content
        return ModelResponse(parts=[TextPart("done")])

    toolset = MCPToolset(StdioTransport(command, arguments))
    async with Agent(FunctionModel(model), toolsets=[toolset]) as agent:
        await agent.run("Who keeps the ledger?")
    return seen


CLIENTS = {"fastmcp": with_fastmcp, "pydantic-ai": with_pydantic_ai}

if __name__ == "__main__":
    client, command, *rest = sys.argv[1:]
    print(json.dumps(asyncio.run(CLIENTS[client](command, rest)), default=str))
