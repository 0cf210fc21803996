"""The installed command over real pipes: the protocol, the shutdown, and lines that are no requests."""

import io
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from mcp import Client, StdioServerParameters, stdio_client

from engine import another_program
from forks import ForkedProcess
from soulkeep.app import open_home
from soulkeep.mcp_server.protocol import Exchange, parse_line
from soulkeep.service.home import Home
from wire import COMMAND, HANDSHAKE, MODERN, OFFLINE, Wire, piped, served


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Wire]]:
    started: list[Wire] = []

    def start(*, installed: bool = False, **environment: str) -> Wire:
        started.append(Wire(tmp_path / "home", installed=installed, **environment))
        return started[-1]

    yield start
    for server in started:
        server.kill()


@pytest.fixture
def wire(start: Callable[..., Wire]) -> Wire:
    return start()


@pytest.fixture(scope="module")
def lasting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Wire]:
    """One server after questions and a handshake, which nothing that is sent to it may end or fill."""
    server = Wire(tmp_path_factory.mktemp("lasting") / "home", SOULKEEP_EMBEDDER="none")
    for meta in (MODERN, {}, MODERN):
        server.request("server/discover", {"_meta": meta})
    server.request("initialize", HANDSHAKE)
    server.send("notifications/initialized")
    yield server
    ended = server.finish()
    server.kill()
    assert ended == ("", "", 0)


def request(request_id: Any, method: str, params: dict[str, Any] | None = None) -> str:
    fields = {} if params is None else {"params": params}
    return json.dumps({"jsonrpc": "2.0", "id": request_id, "method": method, **fields})


@pytest.mark.embedder
async def test_the_installed_command_keeps_and_recalls_in_both_eras(mode: str, tmp_path: Path) -> None:
    server = StdioServerParameters(
        command=str(COMMAND),
        args=["serve", "--home", str(tmp_path / "home")],
        env=OFFLINE | {"SOULKEEP_EMBEDDER": "auto"},
    )
    # The other era over the same pipes, of a process that is forked.
    pipes = stdio_client(server) if mode == "auto" else piped(tmp_path / "home")
    async with Client(pipes, mode=mode, read_timeout_seconds=30) as client:
        kept = await client.call_tool("remember", {"content": "Salary arrives on the last working day."})
        found = await client.call_tool("recall", {"query": "When do I get paid?"})
        soul = await client.read_resource("soulkeep://SOUL.md")

    assert kept.structured_content is not None
    assert found.structured_content is not None
    assert found.structured_content["matches"][0]["id"] == kept.structured_content["receipts"][0]["id"]
    assert "# Agent Identity" in str(soul.contents[0])


def test_the_handshake_names_the_server_and_nothing_but_json_rpc_comes_out(
    start: Callable[..., Wire],
) -> None:
    wire = start(installed=True)
    result = wire.initialize()["result"]
    wire.call("remember", content="One line in, one line out.")
    wire.call("recall", query="line")
    wire.call("recall", query="")

    assert wire.finish() == ("", "", 0)
    assert result["serverInfo"]["name"] == "soulkeep"
    assert result["serverInfo"]["version"] == "0.1.0"
    assert {"tools", "resources"} <= set(result["capabilities"])
    assert result["instructions"]


@pytest.mark.skipif(sys.platform == "win32", reason="it is forked")
def test_without_a_command_the_server_serves() -> None:
    with ForkedProcess([], os.environ) as process:
        out, err = process.communicate(timeout=30)

    assert (process.returncode, out, err) == (0, b"", b"")


def test_a_modern_connection_stays_modern_and_leaves_one_session(wire: Wire, tmp_path: Path) -> None:
    discovered = wire.request("server/discover", {"_meta": MODERN})["result"]
    for _ in range(2):
        wire.request("tools/call", {"name": "recall", "arguments": {"query": "x"}, "_meta": MODERN})
    listed = wire.request("tools/list", {"_meta": MODERN})["result"]
    refused = wire.request("initialize", HANDSHAKE)
    assert wire.finish() == ("", "", 0)

    assert discovered["supportedVersions"] == ["2026-07-28"]
    assert listed["resultType"] == "complete"
    assert refused["error"]["code"] == -32022
    file = another_program(tmp_path / "home" / "soulkeep.db")
    assert list(file.execute("SELECT agent_id FROM sessions WHERE agent_id != 'soulkeep'")) == [
        ("wire",)
    ]


def test_a_probe_that_only_asks_for_the_protocol_leaves_no_session(home: Home, tmp_path: Path) -> None:
    assert served(home, [request(1, "server/discover", {"_meta": MODERN})])
    home.close()

    file = another_program(tmp_path / "home" / "soulkeep.db")
    assert list(file.execute("SELECT count(*) FROM sessions WHERE agent_id != 'soulkeep'")) == [(0,)]


UNKNOWN = {**MODERN, "io.modelcontextprotocol/protocolVersion": "2031-01-01"}
PROBES: dict[str, list[dict[str, Any]]] = {
    "one": [MODERN],
    "several": [MODERN, MODERN, MODERN],
    "one for a version to come": [UNKNOWN],
    "one without capabilities": [{"io.modelcontextprotocol/protocolVersion": "2026-07-28"}],
    "one without an envelope": [{}],
}


@pytest.mark.parametrize("case", PROBES)
def test_a_client_that_asked_for_the_protocol_may_go_on_with_a_handshake(case: str, home: Home) -> None:
    probes = PROBES[case]
    answers = served(
        home,
        [
            *(
                request(f"probe {n}", "server/discover", {"_meta": meta})
                for n, meta in enumerate(probes)
            ),
            request("handshake", "initialize", HANDSHAKE),
            json.dumps({"jsonrpc": "2.0", "method": "notifications/initialized"}),
            request("call", "tools/call", {"name": "list_prompts", "arguments": {}}),
        ],
    )
    replies = {answer["id"]: answer for answer in answers}

    assert len(answers) == len(replies) == len(probes) + 2
    assert replies["handshake"]["result"]["protocolVersion"] == "2025-11-25"
    assert replies["call"]["result"]["structuredContent"] == {"prompts": []}


def test_a_client_that_waits_for_answers_about_the_protocol_may_go_on_with_a_handshake(
    lasting: Wire,
) -> None:
    assert lasting.call("list_prompts")["structuredContent"] == {"prompts": []}


def test_questions_about_the_protocol_between_the_requests_of_a_handshake_are_answered(
    home: Home, tmp_path: Path
) -> None:
    lines = [
        request(0, "server/discover", {"_meta": MODERN}),
        request(1, "ping"),
        request(2, "initialize", HANDSHAKE),
        json.dumps({"jsonrpc": "2.0", "method": "notifications/initialized"}),
        request(3, "server/discover", {"_meta": MODERN}),
        request(4, "tools/list"),
        request(5, "server/discover", {"_meta": MODERN}),
        request(6, "tools/call", {"name": "list_prompts", "arguments": {}}),
    ]

    answers = served(home, lines)
    home.close()

    assert sorted(answer["id"] for answer in answers) == list(range(7))
    assert all("result" in answer for answer in answers)
    file = another_program(tmp_path / "home" / "soulkeep.db")
    assert list(file.execute("SELECT agent_id FROM sessions WHERE agent_id != 'soulkeep'")) == [
        ("prober",)
    ]


ODD_IDS: list[str] = [
    '"\\ud83d"',
    *("[1]", '{"a": 1}', "null", "true", "1.5", "1e400", "-1", '""', '"1"', "[[[]]]"),
    *("9223372036854775808", "-9223372036854775809", "1" + "0" * 400, "9" * 5_000),
]


ODD_LINES = (
    '"method":"notifications/cancelled","params":{"requestId":%s}',
    '"method":"notifications/progress","params":{"progressToken":%s,"progress":%s}',
    '"method":"no/such/notification","params":{"_meta":%s}',
    '"id":%s,"result":{}',
    '"id":%s,"result":null',
    '"id":%s,"error":{"code":1,"message":"no"}',
    '"id":%s,"method":"ping","params":{"_meta":{"progressToken":%s}}',
)


def test_no_odd_id_or_token_ends_the_server(home: Home) -> None:
    odd_lines = [
        f'{{"jsonrpc":"2.0",{line.replace("%s", odd)}}}' for odd in ODD_IDS for line in ODD_LINES
    ]

    answers = served(home, [request(0, "initialize", HANDSHAKE), *odd_lines, request("the one", "ping")])

    assert all(answer["jsonrpc"] == "2.0" for answer in answers)
    assert [answer["result"] for answer in answers if answer.get("id") == "the one"] == [{}]


def test_parameters_that_are_no_object_end_no_server(lasting: Wire) -> None:
    for params in ("[]", '"x"', "1", "[[1]]", "true"):
        for method in ("notifications/cancelled", "notifications/initialized", "no/such/notification"):
            line = f'{{"jsonrpc":"2.0","method":"{method}","params":{params}}}'
            lasting.send_bytes(line.encode())
            assert lasting.receive()["error"]["code"] == -32600
    _assert_alive_and_empty(lasting)


ODD_ANSWERS = [
    *("[]", "null", "5", '"accept"', "{}", '{"action":5}', '{"action":"perhaps"}', '{"action":null}'),
    *('{"action":"accept"}', '{"action":"accept","content":[]}', '{"action":"accept","content":"x"}'),
    *('{"action":"accept","content":{"agree":{"deep":[1]}}}', '{"action":"accept","content":{}}'),
    *('{"action":"accept","content":{"agree":"half \\ud83d"}}', "[" * 300 + "]" * 300),
]


def test_an_odd_answer_to_a_question_ends_the_call_and_not_the_server(lasting: Wire) -> None:
    soul = (lasting.home / "SOUL.md").read_bytes()

    for number, odd in enumerate(ODD_ANSWERS):
        call = {"name": "learn_preference", "arguments": {"line": "Odd answers."}}
        lasting.send("tools/call", call, id=f"call {number}")
        question = lasting.receive()
        assert question["method"] == "elicitation/create"
        lasting.send_bytes(b'{"jsonrpc":"2.0","id":%d,"result":%s}' % (question["id"], odd.encode()))
        assert lasting.receive()["id"] == f"call {number}", odd

    assert lasting.call("list_prompts")["structuredContent"] == {"prompts": []}
    assert (lasting.home / "SOUL.md").read_bytes() == soul


def test_requests_under_one_id_are_all_answered_before_the_end(home: Home) -> None:
    call = request(7, "tools/call", {"name": "list_prompts", "arguments": {}})

    answers = served(home, [request(0, "initialize", HANDSHAKE), call, call, call])

    assert sorted(answer["id"] for answer in answers) == [0, 7, 7, 7]
    assert all("result" in answer for answer in answers)


DEEP = "[" * 200 + "]" * 200
BOTTOMLESS = "[" * 100_000 + "]" * 100_000


def _remember(content: str) -> bytes:
    return (
        '{"jsonrpc":"2.0","id":7,"method":"tools/call",'
        '"params":{"name":"remember","arguments":{"content":' + content + "}}}"
    ).encode()


REFUSED_WITH_ID = {
    "a lone surrogate": (_remember(r'"half \ud83d"'), -32700, "surrogate"),
    "200 nested lists": (_remember(DEEP), -32700, "nested too deeply"),
    "100,000 nested lists": (_remember(BOTTOMLESS), -32700, "nested too deeply"),
    "bytes that are not UTF-8": (_remember('"caf?"').replace(b"?", b"\xe9"), -32700, "UTF-8"),
    "a line cut short": (_remember('"x"')[:-3], -32700, "not JSON"),
    "another JSON-RPC": (b'{"jsonrpc":"1.0","id":7,"method":"ping"}', -32600, "JSON-RPC 2.0"),
    "parameters in a list": (b'{"jsonrpc":"2.0","method":"ping","params":[1],"id":7}', -32600, "params"),
    "no method": (b'{"jsonrpc":"2.0","params":{"id":3,"x":"\\"id\\":4"},"id":7}', -32600, "method"),
}
REFUSED_WITHOUT_ID = {
    "no JSON": (b"hello there", -32700),
    "random bytes": (b"\x00\xff\xfe\x80", -32700),
    "a byte order mark": (b'\xef\xbb\xbf{"jsonrpc":"2.0","method":"ping"}', -32700),
    "a batch": (b'[{"jsonrpc":"2.0","id":1,"method":"ping"}]', -32600),
    "an empty object": (b"{}", -32600),
    "a number": (b"42", -32600),
    "a null id": (b'{"jsonrpc":"2.0","id":null,"method":"ping"}', -32600),
    "a fraction as id": (b'{"jsonrpc":"2.0","id":1.5,"method":"ping"}', -32600),
    "a notification with half a pair": (
        b'{"jsonrpc":"2.0","method":"x","params":{"a":"\\ud83d"}}',
        -32700,
    ),
    "an unterminated string": (b'{"jsonrpc":"2.0","method":"x' + b'\\"' * 50_000, -32700),
}


def test_requests_that_cannot_be_served_are_answered_under_their_id(lasting: Wire) -> None:
    for case, (line, code, said) in REFUSED_WITH_ID.items():
        lasting.send_bytes(line)
        reply = lasting.receive()

        assert (reply["id"], reply["error"]["code"]) == (7, code), case
        assert said in reply["error"]["message"], case
        assert len(json.dumps(reply)) < 300, case
    _assert_alive_and_empty(lasting)


def test_lines_without_an_id_are_answered_by_a_json_rpc_error(lasting: Wire) -> None:
    for case, (line, code) in REFUSED_WITHOUT_ID.items():
        lasting.send_bytes(line)
        reply = lasting.receive()

        assert (reply["id"], reply["error"]["code"]) == (None, code), case
    _assert_alive_and_empty(lasting)


def _assert_alive_and_empty(wire: Wire) -> None:
    assert wire.call("recall", query="anything")["structuredContent"]["matches"] == []


def test_a_bad_line_before_the_handshake_is_answered_too(home: Home) -> None:
    bad, first = served(home, ["not json", request(1, "initialize", HANDSHAKE)])

    assert bad["error"]["code"] == -32700
    assert first["result"]["serverInfo"]["name"] == "soulkeep"


def test_blank_lines_windows_line_ends_and_malformed_calls_are_answered(lasting: Wire) -> None:
    lasting.send_bytes(b"\n  \r")
    lasting.send_bytes(b'{"jsonrpc":"2.0","id":50,"method":"ping"}\r')

    assert lasting.receive()["id"] == 50

    wrong: list[dict[str, Any]] = [{"name": "recall", "arguments": "query=x"}, {"name": 5}, {}]
    for params in wrong:
        assert lasting.request("tools/call", params)["error"]["code"] == -32602
    assert lasting.request("no/such/method")["error"]["code"] == -32601
    assert lasting.call("list_prompts")["structuredContent"] == {"prompts": []}


def test_null_tokens_and_arguments_as_lists_or_json_are_read_as_they_are_meant(home: Home) -> None:
    home.prompts.add_prompt("Tone", "Be brief.")
    sent: list[Any] = [[], "", "{}", '{"after": 0}', None]
    filled: list[Any] = [{"query": None, "thread_id": ""}, '{"query": null}', [], "{}", None]
    tokens: list[Any] = [None, "", 0, "t"]
    meant = [{"name": "list_prompts", "arguments": each} for each in sent]
    meant += [{"name": "list_prompts", "_meta": {"progressToken": token}} for token in tokens]

    _, *answers = served(
        home,
        [
            request(0, "initialize", HANDSHAKE),
            *(request(number, "tools/call", params) for number, params in enumerate(meant, 1)),
            *(request("start", "prompts/get", {"name": "start", "arguments": each}) for each in filled),
        ],
    )

    results = [answer["result"] for answer in answers]
    found = [result["structuredContent"] for result in results if "structuredContent" in result]
    assert [len(each["prompts"]) for each in found] == [1] * len(meant)
    assert sum("messages" in result for result in results) == len(filled)


OPENING = [
    request("handshake", "initialize", HANDSHAKE),
    json.dumps({"jsonrpc": "2.0", "method": "notifications/initialized"}),
]
LAST_REQUESTS: dict[str, tuple[str, dict[str, Any]]] = {
    "a write": ("tools/call", {"name": "remember", "arguments": {"content": "Piped."}}),
    "a search": ("tools/call", {"name": "recall", "arguments": {"query": "pipe"}}),
    "a question to the user": (
        "tools/call",
        {"name": "learn_preference", "arguments": {"line": "Be kind."}},
    ),
    "a list": ("resources/list", {}),
    "a document": ("resources/read", {"uri": "soulkeep://SOUL.md"}),
    "a prompt": ("prompts/get", {"name": "start"}),
}
SUBSCRIPTIONS: dict[str, dict[str, Any]] = {
    "to nothing": {},
    "to lists": {"promptsListChanged": True, "resourcesListChanged": True},
    "to documents": {"resourceSubscriptions": ["soulkeep://SOUL.md", "soulkeep://context"]},
}


@pytest.mark.parametrize("era", ["handshake", "modern"])
def test_requests_under_way_when_stdin_closes_are_still_answered(
    era: str, start: Callable[..., Wire]
) -> None:
    requests = dict(LAST_REQUESTS)
    if era == "handshake":
        requests["a subscription"] = ("resources/subscribe", {"uri": "soulkeep://SOUL.md"})
    else:
        requests |= {
            name: ("subscriptions/listen", {"notifications": asked})
            for name, asked in SUBSCRIPTIONS.items()
        }
    meta = {"_meta": MODERN} if era == "modern" else {}
    lines = [request(name, method, params | meta) for name, (method, params) in requests.items()]

    wire = start()
    wire.send_bytes("\n".join([*(OPENING if not meta else []), *lines]).encode())
    out, err, code = wire.finish()

    answers = [json.loads(line) for line in out.splitlines()]
    answered = [answer["id"] for answer in answers if "result" in answer]
    assert sorted(answered) == sorted([*requests, *(["handshake"] if not meta else [])])
    assert not any("error" in answer for answer in answers)
    assert (err, code) == ("", 0)


@pytest.mark.parametrize("before", [[], [request("probe", "server/discover", {"_meta": MODERN})]])
def test_subscriptions_that_begin_after_stdin_closed_end_with_a_result(
    before: list[str], home: Home
) -> None:
    subscriptions = [
        request(name, "subscriptions/listen", {"_meta": MODERN, "notifications": asked})
        for name, asked in SUBSCRIPTIONS.items()
    ]

    answers = served(home, [*before, *subscriptions])

    ends = {answer["id"]: answer["result"] for answer in answers if answer.get("id") in SUBSCRIPTIONS}
    assert ends.keys() == SUBSCRIPTIONS.keys()
    assert {end["resultType"] for end in ends.values()} == {"complete"}
    begun = [
        a["params"] for a in answers if a.get("method") == "notifications/subscriptions/acknowledged"
    ]
    assert len(begun) == len(SUBSCRIPTIONS)


def test_a_subscription_to_nothing_there_is_refused_though_stdin_closed(home: Home) -> None:
    asked = {"resourceSubscriptions": ["soulkeep://memories/99"]}

    (answer,) = served(
        home, [request(1, "subscriptions/listen", {"_meta": MODERN, "notifications": asked})]
    )

    assert (answer["id"], answer["error"]["code"]) == (1, -32602)


QUESTIONS: dict[str, dict[str, Any]] = {
    "a preference": {"name": "learn_preference", "arguments": {"line": "Be kind."}},
    "another": {"name": "learn_preference", "arguments": {"line": "Be brief."}},
    "a prompt": {"name": "set_prompt", "arguments": {"name": "Tone", "content": "Be brief."}},
}


def test_a_user_who_can_no_longer_answer_was_not_asked(home: Home) -> None:
    answers = served(
        home, [*OPENING, *(request(name, "tools/call", call) for name, call in QUESTIONS.items())]
    )

    replies = {answer["id"]: answer["result"] for answer in answers if "result" in answer}
    assert replies.keys() == {"handshake", *QUESTIONS}
    for name in QUESTIONS:
        said = replies[name]["structuredContent"]
        assert "not asked" in (said.get("state"), said.get("consent")), name
        assert said["command"], name


def test_a_user_who_answered_just_before_stdin_closed_is_heard(wire: Wire, tmp_path: Path) -> None:
    wire.request("initialize", HANDSHAKE)
    wire.send("tools/call", QUESTIONS["a preference"], id="call")
    question = wire.receive()
    yes = {"action": "accept", "content": {"agree": True}}
    wire.send_bytes(json.dumps({"jsonrpc": "2.0", "id": question["id"], "result": yes}).encode())

    out, err, code = wire.finish()

    assert json.loads(out)["result"]["structuredContent"]["state"] == "written"
    assert "Be kind." in (tmp_path / "home" / "SOUL.md").read_text(encoding="utf-8")
    assert (err, code) == ("", 0)


def test_a_request_that_was_cancelled_holds_up_no_shutdown() -> None:
    exchange = Exchange(io.BytesIO())
    request = parse_line(b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{}}')
    cancelled = parse_line(
        b'{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":1}}'
    )

    exchange._note_line(request)
    exchange._note_line(cancelled)

    assert not exchange._waiting


@pytest.mark.skipif(sys.platform == "win32", reason="Windows ends processes without signals")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_server_cleanly_with_everything_written(
    number: signal.Signals, start: Callable[..., Wire], tmp_path: Path
) -> None:
    wire = start()
    wire.initialize()
    wire.call("remember", content="Before the signal.")

    wire.process.send_signal(number)
    wire.process.wait(timeout=10)

    assert wire.finish() == ("", "", 0)
    assert not (tmp_path / "home" / "soulkeep.db-wal").exists()
    home = open_home(tmp_path / "home")
    assert home.repository.count_rows()["memories"] == 1
    home.close()


@pytest.mark.skipif(sys.platform == "win32", reason="it is forked")
def test_a_client_that_goes_away_without_a_word_leaves_no_traceback(tmp_path: Path) -> None:
    with ForkedProcess(["serve", "--home", str(tmp_path)], os.environ) as process:
        process.stdout.close()
        process.stdin.write(b'{"jsonrpc":"2.0","id":90,"method":"ping"}\n')
        process.stdin.close()
        assert process.stderr
        err = process.stderr.read()
        process.wait(20)

    assert (err, process.returncode) == (b"", 0)


def test_a_misspelt_setting_is_one_line_on_stderr_and_makes_nothing(
    start: Callable[..., Wire], tmp_path: Path
) -> None:
    _, err, code = start(SOULKEEP_EMBEDDER="wordlama").finish()

    assert code == 2
    assert "SOULKEEP_EMBEDDER" in err
    assert len(err.splitlines()) == 1
    assert not (tmp_path / "home").exists()


@pytest.mark.embedder
def test_the_first_answer_comes_before_anything_slow_is_loaded(tmp_path: Path) -> None:
    call = {"name": "remember", "arguments": {"content": "Now it is needed."}}

    result = subprocess.run(
        [str(COMMAND), "serve", "--home", str(tmp_path / "home")],
        input="".join(f"{line}\n" for line in [*OPENING, request("call", "tools/call", call)]).encode(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=True,
        timeout=60,
        # Python writes a line after each import, into the same pipe as the answers.
        env={**os.environ, "PYTHONPROFILEIMPORTTIME": "1"},
    )

    handshake, answer = result.stdout.index(b'"serverInfo"'), result.stdout.index(b'"structuredContent"')
    for package in (b"numpy", b"sentencepiece"):
        loaded = re.search(rb"\| *" + package + rb"\s*\n", result.stdout)
        assert loaded
        assert handshake < loaded.start() < answer, package
