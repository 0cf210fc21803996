"""The resources: SOUL.md and MEMORY.md, read from the disk at each request."""

from functools import partial

import anyio.to_thread
from mcp.server import MCPServer
from mcp.server.mcpserver.exceptions import ResourceError
from mcp.types import Annotations

from soulkeep.documents import DocumentName, Documents
from soulkeep.errors import SoulkeepError
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


async def _read(documents: Documents, name: DocumentName) -> str:
    try:
        return await anyio.to_thread.run_sync(documents.read, name)
    except SoulkeepError as error:
        raise ResourceError(str(error)) from error
