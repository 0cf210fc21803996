"""What the SDK makes of our functions is made once in a process: it takes most of a test's time.

The process that forks makes all of it: those that are forked from it have it already.
"""

import gc
import tempfile
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import anyio
from mcp.client.session import ClientSession
from mcp.server.mcpserver.prompts import Prompt
from mcp.server.mcpserver.resources import ResourceTemplate
from mcp.server.mcpserver.tools import Tool
from mcp.types import ListToolsResult

from soulkeep.app import build_server, open_home
from soulkeep.embedders.meaning import Meaning
from soulkeep.errors import EmbedderUnavailableError


def _make_once(kind: type[Tool] | type[Prompt] | type[ResourceTemplate]) -> None:
    made: dict[Callable[..., Any], Any] = {}
    make = kind.from_function

    def make_once(function: Callable[..., Any], **options: Any) -> Any:
        if function not in made:
            made[function] = make(function, **options)
        return made[function]

    kind.from_function = make_once  # type: ignore[method-assign, assignment]


def _list_once() -> None:
    """Let clients know the forms of answers that another one of this process has listed.

    Each would list all tools at its first call, to check the answer by the form that it then knows.
    """
    begin, learn = ClientSession.__init__, ClientSession._absorb_tool_listing
    forms: dict[str, Any] = {}
    checks: dict[str, Any] = {}

    def begin_with_known(session: ClientSession, *arguments: Any, **options: Any) -> None:
        begin(session, *arguments, **options)
        session._tool_output_schemas.update(forms)
        session._tool_output_validators = checks

    def learn_for_all(
        session: ClientSession, listed: ListToolsResult, **options: Any
    ) -> ListToolsResult:
        forms.update({tool.name: tool.output_schema for tool in listed.tools})
        return learn(session, listed, **options)

    ClientSession.__init__ = begin_with_known  # type: ignore[method-assign, assignment]
    ClientSession._absorb_tool_listing = learn_for_all  # type: ignore[method-assign, assignment]


def make_all() -> None:
    """Make it now, load the default embedder, and keep the search for cycles from what there is."""
    with (
        tempfile.TemporaryDirectory() as name,
        closing(open_home(Path(name), embedder="none")) as home,
    ):
        anyio.run(build_server(home, tools_offered="full").list_tools)
    with suppress(EmbedderUnavailableError):
        Meaning().load()
    gc.collect()
    gc.freeze()


# Looking for cycles among a test's many short-lived objects takes a tenth of its time.
gc.set_threshold(100_000, 50, 100)
_make_once(Tool)
_make_once(Prompt)
_make_once(ResourceTemplate)
_list_once()
