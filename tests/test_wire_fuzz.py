"""Whatever a client sends, the server goes on: messages made up at random, through the transport."""

import json
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mcp.types import CONNECTION_CLOSED

from soulkeep.app import open_home
from soulkeep.service.home import Home
from wire import MODERN, served

INITIALIZE = {
    "jsonrpc": "2.0",
    "id": "first",
    "method": "initialize",
    "params": {
        "protocolVersion": "2025-11-25",
        "capabilities": {"elicitation": {}},
        "clientInfo": {"name": "fuzz", "version": "1"},
    },
}
INITIALIZED = {"jsonrpc": "2.0", "method": "notifications/initialized"}
LAST = {"jsonrpc": "2.0", "id": "last", "method": "tools/call"}
RECALL = {"name": "recall", "arguments": {"query": "anything"}}
SUBSCRIPTION = {
    "method": "subscriptions/listen",
    "params": {"_meta": MODERN, "notifications": {"resourceSubscriptions": ["soulkeep://SOUL.md"]}},
}
QUESTION = {
    "method": "tools/call",
    "params": {"name": "learn_preference", "arguments": {"line": "Be kind."}},
}
"""What waits for the client, whose stdin is closed by then."""
METHODS = [
    "initialize",
    "server/discover",
    "ping",
    "tools/list",
    "tools/call",
    "resources/list",
    "resources/read",
    "resources/subscribe",
    "resources/unsubscribe",
    "resources/templates/list",
    "subscriptions/listen",
    "prompts/list",
    "prompts/get",
    "completion/complete",
    "logging/setLevel",
    "notifications/initialized",
    "notifications/cancelled",
    "notifications/progress",
    "notifications/roots/list_changed",
    "no/such/method",
    "",
]
KEYS = [
    *("requestId", "progressToken", "progress", "total", "name", "arguments", "uri", "cursor", "ref"),
    *("argument", "value", "_meta", "notifications", "resourceSubscriptions", "protocolVersion"),
    *("capabilities", "clientInfo", "inputResponses", "requestState", "query", "content", "action"),
]

odd_numbers = st.sampled_from([0, -1, 1.5, 2**31, 2**63, -(2**64), 10**40, 10**400, 1e308])
odd_texts = st.sampled_from(["", "1", "soulkeep://SOUL.md", "\0", "\ud83d", "é" * 50, "recall", "-0"])
leaves = st.one_of(st.none(), st.booleans(), st.integers(-3, 3), odd_numbers, odd_texts)
values = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.sampled_from(KEYS), inner, max_size=4)
    ),
    max_leaves=8,
)
parameters = st.one_of(
    values,
    st.dictionaries(st.sampled_from(KEYS), values, max_size=4),
    st.builds(lambda given: {**given, "_meta": MODERN}, st.dictionaries(st.sampled_from(KEYS), values)),
    st.builds(lambda part: {"_meta": part}, values),
    st.builds(lambda token: {**RECALL, "_meta": {"progressToken": token}}, values),
    st.builds(lambda cursor: {"cursor": cursor}, values),
)
ids = st.one_of(st.integers(0, 3), leaves, values)
messages = st.one_of(
    st.fixed_dictionaries(
        {"jsonrpc": st.just("2.0"), "method": st.sampled_from(METHODS)},
        optional={"id": ids, "params": parameters},
    ),
    st.builds(
        lambda request_id: {
            "jsonrpc": "2.0",
            "method": "notifications/cancelled",
            "params": {"requestId": request_id},
        },
        ids,
    ),
    st.fixed_dictionaries(
        {"jsonrpc": st.just("2.0"), "id": ids}, optional={"result": values, "error": values}
    ),
    values,
)
depths = st.integers(1, 3_000)
lines = st.one_of(
    messages.map(json.dumps),
    messages.map(json.dumps).flatmap(lambda text: st.integers(0, len(text)).map(lambda n: text[:n])),
    depths.map(lambda n: '{"jsonrpc":"2.0","id":1,"result":' + "[" * n + "]" * n + "}"),
    depths.map(lambda n: '{"jsonrpc":"2.0","method":"x","params":{"a":' + "[" * n + "]" * n + "}}"),
    st.sampled_from(["NaN", '{"jsonrpc":"2.0","id":1e400,"method":"ping"}', "1" * 5_000]),
)


@pytest.fixture(scope="module")
def kept() -> Iterator[Home]:
    with (
        tempfile.TemporaryDirectory() as folder,
        closing(open_home(Path(folder), embedder="none")) as home,
    ):
        yield home


def in_order(*opening: dict[str, Any]) -> list[str]:
    return [json.dumps(message) for message in opening]


@pytest.mark.parametrize("examples", [20, pytest.param(2_000, marks=pytest.mark.campaign)])
@pytest.mark.parametrize("era", ["handshake", "modern", "neither"])
def test_no_message_ends_the_server_or_keeps_the_next_from_its_answer(
    era: str, examples: int, kept: Home
) -> None:
    opening = {"handshake": in_order(INITIALIZE, INITIALIZED)}.get(era, [])
    last = json.dumps({**LAST, "params": RECALL | ({"_meta": MODERN} if era == "modern" else {})})
    waiting = QUESTION if era == "handshake" else SUBSCRIPTION
    end = json.dumps({"jsonrpc": "2.0", "id": "end", **waiting})

    @settings(
        max_examples=examples,
        derandomize=True,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(st.lists(lines, min_size=1, max_size=8))
    def check(sent: list[str]) -> None:
        answers = served(kept, [*opening, *sent, last, end])

        assert all(answer["jsonrpc"] == "2.0" for answer in answers)
        assert {"last", "end"} <= {answer.get("id") for answer in answers}
        codes = [answer["error"]["code"] for answer in answers if "error" in answer]
        assert CONNECTION_CLOSED not in codes

    check()
