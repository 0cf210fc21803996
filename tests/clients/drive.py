"""Drives a server with a Python client, and prints what its user sees as one JSON object.

python drive.py CLIENT COMMAND [ARGUMENT...], where CLIENT is fastmcp or pydantic-ai, over stdio;
python drive.py fastmcp-oauth ADDRESS, over HTTP, with the token in the environment variable TOKEN;
python drive.py browser ADDRESS is what that opens, and logs in as its user would.
"""

import asyncio
import json
import os
import re
import shlex
import sys
import time
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


async def with_fastmcp_and_oauth(address: str, _: list[str]) -> dict[str, Any]:
    """Be let in by the user in a browser, and call tools; then come again with what was given."""
    from fastmcp import Client

    os.environ["BROWSER"] = shlex.join([sys.executable, __file__, "browser", "%s"]) + " &"
    client = Client(address, auth="oauth")
    async with client:
        tools = await client.list_tools()
        await client.call_tool("remember", {"content": CONTENT})
    os.environ["BROWSER"] = "false"
    async with client:
        recalled = await client.call_tool("recall", QUESTION)
    return {"tools": [tool.name for tool in tools], "model": recalled.structured_content}


async def browse(address: str, _: list[str]) -> dict[str, Any]:
    """Do what a person does: give the token on the page, and be sent back to the program."""
    import httpx2

    with httpx2.Client() as client:
        page = client.get(address, follow_redirects=True)
        form = {"form": re.findall(r'name=form value="([^"]+)"', page.text)[0]}
        form |= {"token": os.environ["TOKEN"], "answer": "allow"}
        back = client.post(page.url, data=form).headers["location"]
        for _attempt in range(100):
            try:
                return {"status": client.get(back).status_code}
            except httpx2.ConnectError:  # the program does not listen yet
                time.sleep(0.1)
    return {}


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


CLIENTS = {
    "fastmcp": with_fastmcp,
    "pydantic-ai": with_pydantic_ai,
    "fastmcp-oauth": with_fastmcp_and_oauth,
    "browser": browse,
}

if __name__ == "__main__":
    client, command, *rest = sys.argv[1:]
    print(json.dumps(asyncio.run(CLIENTS[client](command, rest)), default=str))
