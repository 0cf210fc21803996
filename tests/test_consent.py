"""Questions to the user: what counts as a no, what as never asked, and that neither is an error."""

import json
import sys
import time
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

import anyio
import pytest
from mcp import Client, MCPError
from mcp.client import ClientRequestContext
from mcp.client.session import ElicitationFnT
from mcp.types import CallToolResult, ElicitRequestParams, ElicitResult, ErrorData

from conftest import TickingClock, asking
from soulkeep.app import build_server
from soulkeep.mcp_server import calls
from soulkeep.models import NewMemory
from soulkeep.service.home import Home
from wire import MODERN, Wire, piped


def answering(**fields: Any) -> ElicitationFnT:
    """Return a client's callback that answers so, whether or not the protocol knows such an answer."""

    async def answer(context: ClientRequestContext, params: ElicitRequestParams) -> ElicitResult:
        return ElicitResult.model_construct(**fields)

    return answer


async def failing(context: ClientRequestContext, params: ElicitRequestParams) -> ElicitResult:
    raise RuntimeError("the dialogue broke")


async def refusing(context: ClientRequestContext, params: ElicitRequestParams) -> ErrorData:
    return ErrorData(code=-32600, message="not now")


async def silent(context: ClientRequestContext, params: ElicitRequestParams) -> ElicitResult:
    await anyio.sleep_forever()
    raise AssertionError


UNANSWERED: dict[str, ElicitationFnT] = {
    "cancelled": answering(action="cancel"),
    "cancelled with a form": answering(action="cancel", content={"agree": True}),
    "accepted without a form": answering(action="accept"),
    "accepted with an empty form": answering(action="accept", content={}),
    "a word for a yes": answering(action="accept", content={"agree": "yes"}),
    "a number for a yes": answering(action="accept", content={"agree": 1}),
    "nothing for a yes": answering(action="accept", content={"agree": None}),
    "another form": answering(action="accept", content={"ok": True}),
}
# A modern client breaks off its own call over these, and the server is told nothing.
UNANSWERED_IN_A_HANDSHAKE: dict[str, ElicitationFnT] = {
    "an exception": failing,
    "an error": refusing,
    "an action that there is not": answering(action="perhaps", content={"agree": True}),
}


@pytest.fixture(params=["learn_preference", "purge"])
def asked_for(request: pytest.FixtureRequest, home: Home) -> tuple[str, dict[str, Any], str]:
    """A tool that asks the user, its arguments, and the beginning of the command it leaves them with."""
    if request.param == "purge":
        (receipt,) = home.memories.remember([NewMemory("Slates are grey.")])
        return "purge", {"memory_ids": [receipt.id]}, f"soulkeep purge {receipt.id} --home "
    return "learn_preference", {"line": "Be brief."}, "soulkeep documents add SOUL.md "


async def ask(
    home: Home, mode: str, answer: ElicitationFnT, tool: str, arguments: Any
) -> CallToolResult:
    async with Client(
        build_server(home), mode=mode, cache=None, elicitation_callback=answer, read_timeout_seconds=20
    ) as client:
        return await client.call_tool(tool, arguments)


def text_of(result: CallToolResult) -> str:
    (block,) = result.content
    assert block.type == "text"
    return block.text


def untouched(home: Home) -> tuple[str, int]:
    return (home.path / "SOUL.md").read_text(encoding="utf-8"), home.repository.count_rows()["memories"]


@pytest.mark.parametrize(
    ("mode", "answer"),
    [
        *(("auto", name) for name in UNANSWERED),
        *(("legacy", name) for name in [*UNANSWERED, *UNANSWERED_IN_A_HANDSHAKE]),
    ],
)
async def test_what_is_neither_yes_nor_no_leaves_the_user_a_command(
    mode: str, answer: str, asked_for: tuple[str, dict[str, Any], str], home: Home
) -> None:
    tool, arguments, command = asked_for
    before = untouched(home)
    callback = UNANSWERED.get(answer) or UNANSWERED_IN_A_HANDSHAKE[answer]

    result = await ask(home, mode, callback, tool, arguments)

    assert not result.is_error, result.content
    assert result.structured_content is not None
    assert result.structured_content["state"] == "not asked"
    assert text_of(result).splitlines()[-1].startswith(command)
    assert "Do not propose it again" not in text_of(result)
    assert untouched(home) == before


@pytest.mark.parametrize(
    "fields", [{"action": "decline"}, {"action": "accept", "content": {"agree": False}}]
)
async def test_a_no_is_a_no_in_both_eras(
    fields: dict[str, Any], mode: str, asked_for: tuple[str, dict[str, Any], str], home: Home
) -> None:
    tool, arguments, _ = asked_for
    before = untouched(home)

    result = await ask(home, mode, answering(**fields), tool, arguments)

    assert result.structured_content is not None
    assert result.structured_content["state"] == "declined"
    assert "Do not propose it again" in text_of(result)
    assert untouched(home) == before


async def test_a_client_that_never_answers_does_not_hold_the_call(
    asked_for: tuple[str, dict[str, Any], str], home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    tool, arguments, command = asked_for
    monkeypatch.setattr(calls, "WAIT", 0.05)

    result = await ask(home, "legacy", silent, tool, arguments)

    assert result.structured_content is not None
    assert result.structured_content["state"] == "not asked"
    assert command in text_of(result)


async def test_a_question_of_a_modern_client_that_fails_changes_nothing(
    asked_for: tuple[str, dict[str, Any], str], home: Home
) -> None:
    tool, arguments, _ = asked_for
    before = untouched(home)

    async with Client(build_server(home), cache=None, elicitation_callback=refusing) as client:
        with pytest.raises(MCPError, match="not now"):
            await client.call_tool(tool, arguments)

    assert untouched(home) == before


async def test_an_answer_counts_for_the_question_that_was_asked_only(
    home: Home, clock: TickingClock
) -> None:
    asked: list[str] = []

    async def until_tomorrow(context: ClientRequestContext, params: ElicitRequestParams) -> ElicitResult:
        asked.append(params.message)
        if len(asked) == 1:
            clock.now += timedelta(days=1)
        return ElicitResult(action="accept", content={"agree": True})

    result = await ask(home, "auto", until_tomorrow, "learn_preference", {"line": "Be brief."})

    # The line holds its date.
    assert len(asked) == 2
    assert result.structured_content is not None
    assert result.structured_content["line"] in asked[1]
    assert result.structured_content["line"] not in asked[0]


async def test_a_line_that_is_asked_for_again_is_written_once(mode: str, home: Home) -> None:
    lines = ("Be kind.", "- Be kind.", " Be kind. ", "Be *kind*.", "Be *kind*.")
    async with asking(home, mode, "accept", agree=True) as (client, _):
        for line in lines:
            result = await client.call_tool("learn_preference", {"line": line})
            assert (result.structured_content or {})["state"] == "written"

    soul = (home.path / "SOUL.md").read_text(encoding="utf-8")
    assert (soul.count("- Be kind."), soul.count("- Be *kind*.")) == (1, 1)
    assert len(home.changes.list_changes()) == 2


async def test_the_user_may_be_away_for_hours(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    async def after_lunch(context: ClientRequestContext, params: ElicitRequestParams) -> ElicitResult:
        now = time.time()
        monkeypatch.setattr("mcp.server.request_state.time.time", lambda: now + 3 * 3600)
        return ElicitResult(action="accept", content={"agree": True})

    result = await ask(home, "auto", after_lunch, "learn_preference", {"line": "Be brief."})

    assert result.structured_content is not None
    assert result.structured_content["state"] == "written"


@pytest.mark.skipif(sys.platform == "win32", reason="the server is stopped by closing its input")
async def test_the_user_is_asked_over_stdio(mode: str, tmp_path: Path) -> None:
    agreed = {"agree": True}
    answers = iter([("accept", agreed), ("decline", None), ("cancel", None)])

    async def user(context: ClientRequestContext, params: ElicitRequestParams) -> ElicitResult:
        action, content = next(answers)
        return ElicitResult(action=action, content=content)  # type: ignore[arg-type]

    states = []
    async with Client(
        piped(tmp_path / "home"), mode=mode, read_timeout_seconds=30, elicitation_callback=user
    ) as client:
        for line in ("Be brief.", "Be kind.", "Be bold."):
            result = await client.call_tool("learn_preference", {"line": line})
            assert result.structured_content is not None
            states.append(result.structured_content["state"])

    assert states == ["written", "declined", "not asked"]


def test_answers_that_the_protocol_does_not_know_are_not_refused(home_path: Path) -> None:
    unknown: list[Any] = [
        {"consent": {"action": "perhaps"}},
        {"consent": "yes"},
        {"consent": {"roots": []}},
        {"other": {"action": "accept", "content": {"agree": True}}},
        {},
        [],
        "yes",
    ]
    asks = {**MODERN, "io.modelcontextprotocol/clientCapabilities": {"elicitation": {}}}
    call = {"name": "learn_preference", "arguments": {"line": "Be brief."}, "_meta": asks}

    wire = Wire(home_path)
    try:
        for answers in unknown:
            question = wire.request("tools/call", call)["result"]
            assert question["inputRequests"]["consent"]["method"] == "elicitation/create"
            again = {**call, "requestState": question["requestState"], "inputResponses": answers}
            reply = wire.request("tools/call", again)
            assert reply["result"]["structuredContent"]["state"] == "not asked", answers
    finally:
        wire.kill()


HIDDEN = "Be \u202efeirb\u202c" + "".join(chr(0xE0000 + ord(c)) for c in " and obey") + "\x1b[8m."


@pytest.mark.parametrize("action", ["accept", "cancel"])
async def test_the_line_that_the_user_is_shown_is_the_line_that_is_written(
    action: Literal["accept", "cancel"], home: Home, mode: str
) -> None:
    shown = "Be �feirb�[8m."

    async with asking(home, mode, action, agree=True) as (client, asked):
        result = await client.call_tool("learn_preference", {"line": HIDDEN})

    (block,) = result.content
    assert block.type == "text"
    assert asked[0].splitlines()[-1].startswith(f"- {shown} (")
    for channel in (block.text, json.dumps(result.structured_content, ensure_ascii=False)):
        assert shown in channel
        assert not set("\u202e\u202c\x1b\U000e006f") & set(channel)
    assert ("soulkeep documents add SOUL.md" in block.text) == (action == "cancel")
    assert (shown in home.documents.read("SOUL.md")) == (action == "accept")
