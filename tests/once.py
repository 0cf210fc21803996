"""What the SDK makes of our functions is made once in a process: it takes most of a test's time.

The process that forks makes all of it: those that are forked from it have it already.
"""

import gc
import tempfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import anyio
from mcp.server.mcpserver.prompts import Prompt
from mcp.server.mcpserver.resources import ResourceTemplate
from mcp.server.mcpserver.tools import Tool

from soulkeep.app import build_server, open_home


def _make_once(kind: type[Tool] | type[Prompt] | type[ResourceTemplate]) -> None:
    made: dict[Callable[..., Any], Any] = {}
    make = kind.from_function

    def make_once(function: Callable[..., Any], **options: Any) -> Any:
        if function not in made:
            made[function] = make(function, **options)
        return made[function]

    kind.from_function = make_once  # type: ignore[method-assign, assignment]


def make_all() -> None:
    """Make it now, and keep the search for cycles from what there is."""
    with (
        tempfile.TemporaryDirectory() as name,
        closing(open_home(Path(name), embedder="none")) as home,
    ):
        anyio.run(build_server(home, tools_offered="full").list_tools)
    gc.collect()
    gc.freeze()


# Looking for cycles among a test's many short-lived objects takes a tenth of its time.
gc.set_threshold(100_000, 50, 100)
_make_once(Tool)
_make_once(Prompt)
_make_once(ResourceTemplate)
