"""What clients read beside names and schemas: what to load first, how long a list lasts, the icon."""

import base64
import json
import tomllib
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from mcp import Client

from soulkeep import __version__
from soulkeep.app import build_server
from soulkeep.mcp_server.protocol import WEBSITE
from soulkeep.service.home import Home
from wire import HANDSHAKE, MODERN, served

SERVER_INFO = "io.modelcontextprotocol/serverInfo"
FIRST = {"get_context", "recall", "remember"}
LARGE = {"get_context", "recall", "browse_memories", "read_messages"}


async def test_tools_that_a_conversation_begins_with_are_loaded_at_once_and_long_answers_kept_whole(
    client: Client,
) -> None:
    hints = {tool.name: tool.meta or {} for tool in (await client.list_tools()).tools}

    assert {name for name, meta in hints.items() if meta.get("anthropic/alwaysLoad") is True} == FIRST
    sizes = {name: meta.get("anthropic/maxResultSizeChars") for name, meta in hints.items()}
    assert {name for name, size in sizes.items() if size} == LARGE
    # The largest budget, of 20,000 tokens of four characters, fits.
    assert set(sizes.values()) == {None, 100_000}


async def test_lists_that_stay_the_same_may_be_kept_and_others_may_not(home: Home) -> None:
    async with Client(build_server(home), cache=None) as client:
        tools, templates = await client.list_tools(), await client.list_resource_templates()
        resources, prompts = await client.list_resources(), await client.list_prompts()

    assert tools.ttl_ms == templates.ttl_ms == 3_600_000
    assert not resources.ttl_ms
    assert not prompts.ttl_ms


async def test_each_resource_says_whom_it_is_for_and_how_much_it_matters(
    client: Client, home: Home
) -> None:
    home.threads.create_thread("Roof")
    home.curator.log_day("Fixed the roof.")
    resources = (await client.list_resources()).resources

    annotated = {resource.uri: resource.annotations for resource in resources}
    assert all(each and each.audience and each.priority is not None for each in annotated.values())
    context, stats = annotated["soulkeep://context"], annotated["soulkeep://stats"]
    assert context is not None
    assert stats is not None
    assert (context.audience, stats.audience) == (["assistant"], ["user"])
    assert (stats.priority or 0) < 0.5 < (context.priority or 0)


@pytest.fixture
def infos(home: Home) -> list[dict[str, Any]]:
    """What a server says of itself when asked for the protocol and in a handshake, on one connection."""
    discovered, begun = served(
        home, [line("server/discover", {"_meta": MODERN}), line("initialize", HANDSHAKE)]
    )
    return [discovered["result"]["_meta"][SERVER_INFO], begun["result"]["serverInfo"]]


def line(method: str, params: dict[str, Any]) -> str:
    return json.dumps({"jsonrpc": "2.0", "id": method, "method": method, "params": params})


def test_a_server_has_an_icon_and_a_website_in_both_eras(infos: list[dict[str, Any]]) -> None:
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text("utf-8"))["project"]
    for info in infos:
        assert (info["name"], info["version"]) == ("soulkeep", __version__)
        assert info["websiteUrl"] == WEBSITE == project["urls"]["Homepage"]
        (icon,) = info["icons"]
        assert icon["mimeType"] == "image/svg+xml"
        kind, _, image = icon["src"].partition(",")
        assert kind == "data:image/svg+xml;base64"
        assert ElementTree.fromstring(base64.b64decode(image)).tag.endswith("}svg")  # noqa: S314 - our own
        assert len(icon["src"]) < 300


def test_results_of_the_modern_era_name_the_server_without_its_icon(home: Home) -> None:
    answers = served(
        home,
        [
            line(method, {"_meta": MODERN, **params})
            for method, params in (
                ("tools/list", {}),
                ("resources/read", {"uri": "soulkeep://SOUL.md"}),
                ("tools/call", {"name": "list_prompts", "arguments": {}}),
            )
        ],
    )

    short = {"name": "soulkeep", "version": __version__}
    assert [answer["result"]["_meta"][SERVER_INFO] for answer in answers] == [short] * 3
