"""The resources: SOUL.md and MEMORY.md, read from the disk at each request, and single memories."""

from functools import partial

import anyio.to_thread
from mcp.server import MCPServer
from mcp.server.mcpserver import Context
from mcp.server.mcpserver.exceptions import ResourceError, ResourceNotFoundError
from mcp.types import Annotations

from soulkeep.documents import DocumentName, Documents
from soulkeep.errors import NotFoundError, SoulkeepError
from soulkeep.service.home import Home

_DESCRIPTIONS: dict[DocumentName, tuple[str, str]] = {
    "SOUL.md": (
        "Agent identity",
        "Who the agent is: values, style, learned preferences, boundaries.",
    ),
    "MEMORY.md": (
        "Long-term memory",
        "Curated notes: facts, project context, preferences, decisions.",
    ),
}


def register(server: MCPServer[Home], documents: Documents) -> None:
    """Add the resources to a server."""
    for name, (title, description) in _DESCRIPTIONS.items():
        server.resource(
            f"soulkeep://{name}",
            name=name,
            title=title,
            description=description,
            mime_type="text/markdown",
            annotations=Annotations(audience=["user", "assistant"], priority=1.0),
        )(partial(_read, documents, name))

    server.resource(
        "soulkeep://memories/{memory_id}",
        name="memory",
        title="Memory",
        description="One memory in full, by the id that recall shows.",
        mime_type="text/plain",
    )(_read_memory)


async def _read_memory(memory_id: int, ctx: Context[Home]) -> str:
    home = ctx.request_context.lifespan_context
    try:
        memory = await anyio.to_thread.run_sync(home.repository.memories.get_memory, memory_id)
    except NotFoundError as error:
        raise ResourceNotFoundError(str(error)) from error
    except SoulkeepError as error:
        raise ResourceError(str(error)) from error
    return memory.content


async def _read(documents: Documents, name: DocumentName) -> str:
    try:
        return await anyio.to_thread.run_sync(documents.read, name)
    except SoulkeepError as error:
        raise ResourceError(str(error)) from error
