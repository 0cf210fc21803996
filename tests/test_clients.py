"""The installed command under foreign clients, in JavaScript and in Python."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from soulkeep import __version__
from soulkeep.mcp_server.protocol import DEFAULT_TOOLS, INSTRUCTIONS
from wire import OFFLINE

pytestmark = pytest.mark.clients

ROOT = Path(__file__).parents[1]
SOURCES = Path(__file__).with_name("clients")
CLIENTS = ROOT / ".clients"
INSPECTOR = CLIENTS / "node_modules/@modelcontextprotocol/inspector/clients/launcher/build/index.js"
COMMAND = Path(sys.executable).with_name("soulkeep.exe" if sys.platform == "win32" else "soulkeep")

INSTALL_TIMEOUT_S = 600
RUN_TIMEOUT_S = 60
TOOL_IS_ERROR = 5

READING = {"recall", "list_prompts", "browse_memories", "get_context", "read_messages"}

LEDGER = "Zoë keeps the café's ledger in Kraków 📒"
TITLES = {
    "create_thread": "Create thread",
    "remember": "Remember",
    "recall": "Recall",
    "list_prompts": "List global prompts",
    "browse_memories": "Browse memories",
    "change_memory": "Change memories",
    "undo": "Undo",
    "purge": "Purge",
    "get_context": "Get context",
    "log_day": "Log",
    "curate_memory": "Curate MEMORY.md",
    "learn_preference": "Learn preference",
    "manage_thread": "Manage thread",
    "save_messages": "Save messages",
    "read_messages": "Read messages",
    "set_prompt": "Set global prompt",
}
DOCUMENTS = {"soulkeep://SOUL.md": "# Agent Identity", "soulkeep://MEMORY.md": "# Long-Term Memory"}
PROTOCOLS = {"legacy": "2025-11-25", "modern": "2026-07-28"}
FLAVOURS = {
    "sdk": "2025-11-25",
    "legacy": "2025-11-25",
    "auto": "2026-07-28",
    "2026-07-28": "2026-07-28",
}


@pytest.fixture(scope="session")
def node() -> str:
    """The pinned node, installed together with the clients."""
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("npm is not on PATH, and the foreign clients come from npm")
    wanted = (SOURCES / "package.json").read_text(encoding="utf-8")
    installed = CLIENTS / "installed.json"
    with _alone():
        if not installed.exists() or installed.read_text(encoding="utf-8") != wanted:
            installed.unlink(missing_ok=True)
            _install(npm, wanted)
            installed.write_text(wanted, encoding="utf-8")
        for script in SOURCES.glob("*.mjs"):
            shutil.copy(script, CLIENTS)
    found = shutil.which("node", path=str(CLIENTS / "node_modules/.bin"))
    assert found, "npm installed no node"
    return found


def _alone() -> FileLock:
    """Keep the other test processes from installing at the same time."""
    CLIENTS.mkdir(exist_ok=True)
    return FileLock(CLIENTS / "install.lock")


def _install(npm: str, package: str) -> None:
    (CLIENTS / "package.json").write_text(package, encoding="utf-8")
    flags = ["--no-package-lock", "--no-audit", "--no-fund"]
    _install_by([npm, "install", *flags])


def _run(command: list[str]) -> subprocess.CompletedProcess[str]:
    return _started(command, RUN_TIMEOUT_S, os.environ)


def _install_by(command: list[str]) -> None:
    # Unlike a test, an installation may use the network.
    online = {name: value for name, value in os.environ.items() if name not in OFFLINE}
    done = _started(command, INSTALL_TIMEOUT_S, online)
    assert done.returncode == 0, done.stderr


def _started(
    command: list[str], timeout: float, environment: Mapping[str, str]
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        cwd=CLIENTS,
        env={**environment, "MCP_INSPECTOR_SECRET_STORE": "memory"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        timeout=timeout,
        check=False,
    )


@pytest.fixture(scope="session")
def python() -> str:
    """A Python with the foreign clients that are written in it."""
    return _python_with("requirements.txt", "python")


def _python_with(packages: str, name: str) -> str:
    """Return a Python with the packages of a file, in a folder of its own."""
    requirements, folder = SOURCES / packages, CLIENTS / name
    wanted, installed = requirements.read_text(encoding="utf-8"), folder / "installed.txt"
    command = folder / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    with _alone():
        if not installed.exists() or installed.read_text(encoding="utf-8") != wanted:
            for step in (
                [sys.executable, "-m", "venv", "--clear", str(folder)],
                [str(command), "-m", "pip", "install", "--quiet", "--requirement", str(requirements)],
            ):
                _install_by(step)
            installed.write_text(wanted, encoding="utf-8")
    return str(command)


@dataclass(frozen=True)
class Inspector:
    """The Inspector's CLI; each request starts a server of its own."""

    node: str
    target: tuple[str, ...]

    def run(self, *request: str) -> subprocess.CompletedProcess[str]:
        command = [self.node, str(INSPECTOR), "--cli", *self.target, *request, "--format", "json"]
        return _run(command)

    def result(self, *request: str) -> dict[str, Any]:
        done = self.run(*request)
        assert done.returncode == 0, done.stderr
        result: dict[str, Any] = json.loads(done.stdout)["result"]
        return result

    def call(self, tool: str, **arguments: Any) -> dict[str, Any]:
        """Call a tool; return its structured answer."""
        return _structured(self.result(*_call(tool, arguments)))


def _call(tool: str, arguments: dict[str, Any]) -> list[str]:
    return ["--method", "tools/call", "--tool-name", tool, "--tool-args-json", json.dumps(arguments)]


def _structured(result: dict[str, Any]) -> dict[str, Any]:
    assert not result.get("isError"), result
    assert [block["type"] for block in result["content"]] == ["text"]
    structured: dict[str, Any] = result["structuredContent"]
    return structured


@pytest.fixture(params=PROTOCOLS)
def era(request: pytest.FixtureRequest) -> str:
    assert isinstance(request.param, str)
    return request.param


@pytest.fixture
def inspector(node: str, era: str, tmp_path: Path) -> Inspector:
    server = (str(COMMAND), "serve", "--home", str(tmp_path))
    return Inspector(node, ("--protocol-era", era, "-e", "SOULKEEP_TOOLS=full", *server))


@pytest.fixture(scope="module", params=FLAVOURS)
def flavour(request: pytest.FixtureRequest) -> str:
    assert isinstance(request.param, str)
    return request.param


@pytest.fixture(scope="module")
def seen(node: str, flavour: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What one TypeScript client saw of a server in a new home with one prompt."""
    home = tmp_path_factory.mktemp("home")
    _add_prompt(home)
    done = _run([node, "drive.mjs", flavour, str(COMMAND), "serve", "--home", str(home)])
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    seen: dict[str, Any] = json.loads(done.stdout)
    return seen


def _add_prompt(home: Path) -> None:
    done = _run([str(COMMAND), "prompts", "add", "tone", "Answer briefly.", "--home", str(home)])
    assert done.returncode == 0, done.stderr


def _assert_described_tools(tools: list[dict[str, Any]], names: Collection[str] = TITLES) -> None:
    assert {tool["name"]: tool["title"] for tool in tools} == {name: TITLES[name] for name in names}
    assert len(tools) == len(names)
    for tool in tools:
        assert tool["description"]
        assert tool["annotations"].get("readOnlyHint", False) is (tool["name"] in READING)
        assert tool["annotations"]["openWorldHint"] is False
        assert tool["inputSchema"]["type"] == tool["outputSchema"]["type"] == "object"
        assert tool["outputSchema"]["properties"]


def _assert_tone(prompts: list[dict[str, Any]]) -> None:
    assert [(p["name"], p["content"], p["is_active"]) for p in prompts] == [
        ("tone", "Answer briefly.", True)
    ]


def _assert_document(uri: str, result: dict[str, Any]) -> None:
    (document,) = result["contents"]
    assert (document["uri"], document["mimeType"]) == (uri, "text/markdown")
    assert document["text"].splitlines()[0] == DOCUMENTS[uri]


def test_the_inspector_learns_who_the_server_is_and_how_to_use_it(
    inspector: Inspector, era: str
) -> None:
    about = inspector.result("--method", "initialize")

    assert (about["serverInfo"]["name"], about["serverInfo"]["version"]) == ("soulkeep", __version__)
    assert about["protocolVersion"] == PROTOCOLS[era]
    assert about["instructions"] == INSTRUCTIONS


def test_the_inspector_lists_exactly_the_tools(inspector: Inspector) -> None:
    _assert_described_tools(inspector.result("--method", "tools/list")["tools"])


def test_the_inspector_finds_no_error_in_the_portability_of_the_schemas(
    node: str, era: str, tmp_path: Path
) -> None:
    entry = {
        "command": str(COMMAND),
        "args": ["serve", "--home", str(tmp_path / "home")],
        "env": {"SOULKEEP_TOOLS": "full"},
    }
    inspector = _configured(node, tmp_path, "soulkeep", entry)

    done = inspector.run("--protocol-era", era, "--method", "tools/list", "--strict")

    assert done.returncode == 0, done.stderr
    _assert_described_tools(json.loads(done.stdout)["result"]["tools"])


def _configured(node: str, folder: Path, name: str, entry: dict[str, Any]) -> Inspector:
    config = folder / "config.json"
    config.write_text(json.dumps({"mcpServers": {name: entry}}), encoding="utf-8")
    return Inspector(node, ("--config", str(config), "--server", name))


def test_the_inspector_recalls_what_it_had_remembered_in_an_earlier_process(
    inspector: Inspector,
) -> None:
    kept = inspector.result(
        "--method", "tools/call", "--tool-name", "remember", "--tool-arg", f"content={LEDGER}"
    )

    (receipt,) = _structured(kept)["receipts"]
    assert receipt == {"id": 1, "stored": True, "memory_type": "fact"}
    (match,) = inspector.call("recall", query="Who keeps the ledger?")["matches"]
    assert (match["id"], match["content"], match["memory_type"]) == (1, LEDGER, "fact")
    assert not {"thread_id", "source"} & match.keys()


def test_the_inspector_keeps_a_list_of_memories_in_a_thread(inspector: Inspector) -> None:
    thread = inspector.call("create_thread", title="Café ledger", system_prompt="Speak of money.")
    assert (thread["title"], thread["is_new"]) == ("Café ledger", True)
    assert "soulkeep threads prompt --agree" in thread["prompt"]

    memories = [
        {"content": LEDGER, "thread_id": thread["id"], "source": "conversation"},
        {"content": "Invoices go out on Fridays", "memory_type": "decision"},
        {"content": LEDGER, "thread_id": thread["id"]},
    ]
    receipts = inspector.call("remember", memories=memories)["receipts"]

    assert [(r["id"], r["stored"], r.get("duplicate_of")) for r in receipts] == [
        (1, True, None),
        (2, True, None),
        (1, False, 1),
    ]
    best = inspector.call("recall", query="ledger", thread_id=thread["id"], limit=1)["matches"]
    assert [(m["content"], m["thread_id"], m["source"]) for m in best] == [
        (LEDGER, thread["id"], "conversation")
    ]
    decisions = inspector.call("recall", query="invoices", memory_type="decision")["matches"]
    assert [m["content"] for m in decisions] == ["Invoices go out on Fridays"]


def test_the_inspector_drives_the_tools_for_documents_and_the_context(
    inspector: Inspector, tmp_path: Path
) -> None:
    logged = inspector.call("log_day", text="Paid the café's bill.")
    curated = inspector.call(
        "curate_memory", action="add", section="User Facts", entry="The user lives in Kraków."
    )
    proposed = inspector.call("learn_preference", line="Answer in Polish.")
    changed = inspector.call("set_prompt", name="Tone", content="Speak of {{topic}} briefly.")

    assert (tmp_path / "daily" / f"{logged['day']}.md").read_text(encoding="utf-8").count("bill") == 1
    assert "lives in Kraków" in (tmp_path / "MEMORY.md").read_text(encoding="utf-8")
    assert curated["tokens"] < curated["budget"]
    assert proposed["state"] == "not asked"
    assert changed["consent"] == "not asked"
    done = _run([str(COMMAND), "prompts", "activate", "1", "--home", str(tmp_path)])
    assert done.returncode == 0, done.stderr
    parts = [part["name"] for part in inspector.call("get_context")["parts"]]
    assert parts == ["SOUL.md", "Global prompt: Tone", "MEMORY.md", "Today's log"]
    (match, *_) = inspector.call("recall", query="Where does the user live?")["matches"]
    assert match["source"] == "MEMORY.md: User Facts"
    listed = inspector.result("--method", "prompts/list")["prompts"]
    assert {prompt["name"] for prompt in listed} == {"start", "tone"}
    got = inspector.result(
        "--method", "prompts/get", "--prompt-name", "tone", "--prompt-args", "topic=money"
    )
    assert got["messages"][0]["content"]["text"] == "Speak of money briefly."


def test_the_inspector_drives_every_tool(inspector: Inspector) -> None:
    thread = inspector.call("create_thread", title="Roof")["id"]
    messages = [{"role": "user", "content": "The slates are loose."}]
    calls: list[tuple[str, dict[str, Any], Callable[[dict[str, Any]], object]]] = [
        ("create_thread", {"title": "Other"}, lambda a: a["title"] == "Other"),
        (
            "remember",
            {"memories": [{"content": LEDGER, "thread_id": thread}, {"content": "Slates are grey."}]},
            lambda a: [r["stored"] for r in a["receipts"]] == [True, True],
        ),
        ("recall", {"query": "Who keeps the ledger?"}, lambda a: a["matches"][0]["content"] == LEDGER),
        ("list_prompts", {}, lambda a: a["prompts"] == []),
        (
            "change_memory",
            {"action": "revise", "memory_ids": [2], "content": "Slates are black."},
            lambda a: a["memories"][0]["content"] == "Slates are black.",
        ),
        (
            "browse_memories",
            {"view": "history", "memory_id": 3},
            lambda a: [i["id"] for i in a["items"]] == [3, 2],
        ),
        ("browse_memories", {"view": "changes"}, lambda a: a["items"][0]["change_id"] == 4),
        ("undo", {"change_id": 4}, lambda a: a["undone"][0]["change_id"] == 4),
        ("purge", {"memory_ids": [2]}, lambda a: a["state"] == "not asked"),
        ("save_messages", {"thread_id": thread, "messages": messages}, lambda a: a["stored"] == [True]),
        ("read_messages", {"thread_id": thread}, lambda a: "loose" in a["messages"][0]["content"]),
        (
            "manage_thread",
            {"action": "resume", "thread_id": thread},
            lambda a: [m["content"] for m in a["memories"]] == [LEDGER],
        ),
        ("log_day", {"text": "Looked at the roof."}, lambda a: a["day"]),
        (
            "curate_memory",
            {"action": "add", "section": "User Facts", "memory_id": 1},
            lambda a: a["entry"].startswith(LEDGER),
        ),
        ("learn_preference", {"line": "Be brief."}, lambda a: a["state"] == "not asked"),
        ("set_prompt", {"name": "Tone", "content": "Be kind."}, lambda a: a["outcome"] == "created"),
        ("get_context", {"thread_id": thread}, lambda a: "MEMORY.md" in [p["name"] for p in a["parts"]]),
    ]
    assert {name for name, _, _ in calls} == TITLES.keys()
    for name, arguments, is_right in calls:
        answer = inspector.call(name, **arguments)
        assert is_right(answer), (name, answer)


def test_the_inspector_lists_the_prompt_that_the_user_added(
    inspector: Inspector, tmp_path: Path
) -> None:
    _add_prompt(tmp_path)

    _assert_tone(inspector.call("list_prompts")["prompts"])


def test_the_inspector_exits_with_a_tool_error_when_the_limit_is_too_high(inspector: Inspector) -> None:
    done = inspector.run(*_call("recall", {"query": "ledger", "limit": 1_000}))

    assert done.returncode == TOOL_IS_ERROR, done.stderr
    result = json.loads(done.stdout)["result"]
    assert result["isError"] is True
    assert "`limit`: must be at most 100" in result["content"][0]["text"]


def test_the_inspector_reads_both_documents(inspector: Inspector) -> None:
    listed = inspector.result("--method", "resources/list")["resources"]
    wanted = {(uri, "text/markdown") for uri in (*DOCUMENTS, "soulkeep://context")}
    wanted.add(("soulkeep://stats", "application/json"))
    assert {(r["uri"], r["mimeType"]) for r in listed} == wanted

    for uri in DOCUMENTS:
        _assert_document(uri, inspector.result("--method", "resources/read", "--uri", uri))


def test_the_example_configuration_starts_the_server(node: str, tmp_path: Path) -> None:
    example = json.loads((ROOT / "mcp.json.example").read_text(encoding="utf-8"))["mcpServers"]
    assert example

    for number, (name, entry) in enumerate(example.items()):
        home = tmp_path / str(number)
        inspector = _configured(node, tmp_path, name, _with_installed_command(entry, home))
        assert inspector.result("--method", "initialize")["serverInfo"]["name"] == "soulkeep"
        assert inspector.call("remember", content=LEDGER)["receipts"][0]["stored"] is True
        assert (home / "soulkeep.db").is_file()


def _with_installed_command(entry: dict[str, Any], home: Path) -> dict[str, Any]:
    """Start the command under test instead of what comes before soulkeep's own arguments."""
    words = [entry["command"], *entry.get("args", [])]
    name = re.compile(r"(.*[/\\])?soulkeep(@\S+|\.exe)?")
    own = next(place for place, word in enumerate(words) if name.fullmatch(word)) + 1
    return {**entry, "command": str(COMMAND), "args": [*words[own:], "--home", str(home)]}


def test_a_typescript_client_negotiates_its_protocol(seen: dict[str, Any], flavour: str) -> None:
    assert seen["protocol"] == FLAVOURS[flavour]
    assert (seen["server"]["name"], seen["server"]["version"]) == ("soulkeep", __version__)
    assert seen["instructions"] == INSTRUCTIONS


def test_a_typescript_client_lists_exactly_the_tools(seen: dict[str, Any]) -> None:
    _assert_described_tools(seen["tools"], DEFAULT_TOOLS)


def test_a_typescript_client_recalls_what_it_remembered_in_its_thread(seen: dict[str, Any]) -> None:
    thread = _structured(seen["thread"])
    assert thread["title"] == "Café ledger"

    assert _structured(seen["remembered"])["receipts"] == [
        {"id": 1, "stored": True, "memory_type": "fact", "thread_id": thread["id"]}
    ]
    (match,) = _structured(seen["recalled"])["matches"]
    assert (match["id"], match["content"], match["thread_id"]) == (1, LEDGER, thread["id"])
    assert f"| {LEDGER}" in seen["recalled"]["content"][0]["text"]


def test_a_typescript_client_lists_the_prompt_that_the_user_added(seen: dict[str, Any]) -> None:
    _assert_tone(_structured(seen["prompts"])["prompts"])


def test_a_typescript_client_is_told_what_is_wrong_with_its_call(seen: dict[str, Any]) -> None:
    assert seen["refused"]["isError"] is True
    assert "`limit`: must be at most 100" in seen["refused"]["content"][0]["text"]


def test_a_typescript_client_reads_both_documents(seen: dict[str, Any]) -> None:
    for uri, result in zip(DOCUMENTS, seen["documents"], strict=True):
        _assert_document(uri, result)


def test_a_typescript_client_takes_hints_that_are_not_for_it(seen: dict[str, Any]) -> None:
    hints = {tool["name"]: tool["_meta"] for tool in seen["tools"] if "_meta" in tool}

    assert hints["recall"]["anthropic/alwaysLoad"] is True
    assert seen["server"]["websiteUrl"].startswith("https://")
    assert seen["server"]["icons"][0]["mimeType"] == "image/svg+xml"
    stats = next(r for r in seen["resources"] if r["uri"] == "soulkeep://stats")
    assert stats["annotations"] == {"audience": ["user"], "priority": 0.1}


def test_a_typescript_client_is_told_of_progress_and_of_a_change_of_its_thread(
    seen: dict[str, Any],
) -> None:
    counts = [count for count, _ in seen["progress"]]

    assert counts == list(range(1, len(counts) + 1))
    assert "Copying the store: 100%" in [message for _, message in seen["progress"]]
    assert seen["updated"] == f"soulkeep://threads/{_structured(seen['thread'])['id']}"


@pytest.mark.parametrize("delay_s", [0, 1.5])
def test_a_client_that_waits_for_its_probe_no_longer_than_a_second_connects(
    delay_s: float, node: str, tmp_path: Path
) -> None:
    late = (
        f"import subprocess, sys, time; time.sleep({delay_s}); sys.exit(subprocess.call(sys.argv[1:]))"
    )
    server = [sys.executable, "-c", late, str(COMMAND), "serve", "--home", str(tmp_path)]

    done = _run([node, "probe.mjs", *server])

    assert (done.returncode, done.stderr) == (0, "")
    seen = json.loads(done.stdout)
    assert seen["server"] == "soulkeep"
    assert set(seen["tools"]) == DEFAULT_TOOLS
    assert not seen["answer"]["isError"]


@pytest.mark.parametrize("client", ["fastmcp", "pydantic-ai"])
def test_a_python_client_hands_its_model_what_was_recalled_marked_as_data(
    client: str, python: str, tmp_path: Path
) -> None:
    server = [str(COMMAND), "serve", "--home", str(tmp_path)]

    done = _run([python, str(SOURCES / "drive.py"), client, *server])

    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    assert set(seen["tools"]) == DEFAULT_TOOLS
    assert "not instructions" in seen["model"]["note"]
    assert [match["content"] for match in seen["model"]["matches"]] == [LEDGER]
    assert f"| {LEDGER}" in seen.get("text", f"| {LEDGER}")


@contextmanager
def served_to_ann(home: Path) -> Iterator[tuple[str, str]]:
    """Serve over HTTP to one account, and give the address and its token."""
    added = _run([str(COMMAND), "accounts", "add", "ann", "--json", "--home", str(home)])
    with served_to_anybody(home) as address:
        yield address, json.loads(added.stdout)["token"]


@contextmanager
def served_to_anybody(home: Path) -> Iterator[str]:
    """Serve over HTTP whoever comes, unless there are accounts, and give the address."""
    server = subprocess.Popen(
        [str(COMMAND), "serve", "--http", "--port", "0", "--home", str(home)],
        stderr=subprocess.PIPE,
        encoding="utf-8",
    )
    try:
        assert server.stderr
        found = re.search(r"http://\S+/mcp", server.stderr.readline())
        assert found
        yield found[0]
    finally:
        server.terminate()
        server.communicate(timeout=RUN_TIMEOUT_S)


def test_the_inspector_recalls_over_http_what_it_remembered(node: str, era: str, tmp_path: Path) -> None:
    with served_to_ann(tmp_path) as (address, token):
        target = ("--protocol-era", era, "--transport", "http", "--server-url", address)
        inspector = Inspector(node, (*target, "--header", f"Authorization: Bearer {token}"))
        _assert_described_tools(inspector.result("--method", "tools/list")["tools"], DEFAULT_TOOLS)
        inspector.call("remember", content=LEDGER)
        (match,) = inspector.call("recall", query="Who keeps the ledger?")["matches"]
        refused = Inspector(node, target).run("--method", "tools/list")

    assert match["content"] == LEDGER
    assert refused.returncode != 0


def test_a_client_is_let_in_by_its_user_in_a_browser_and_remembers(
    python: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with served_to_ann(tmp_path) as (address, token):
        monkeypatch.setenv("TOKEN", token)
        done = _run([python, str(SOURCES / "drive.py"), "fastmcp-oauth", address])

    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout.splitlines()[-1])
    assert set(seen["tools"]) == DEFAULT_TOOLS
    assert [match["content"] for match in seen["model"]["matches"]] == [LEDGER]
    assert (tmp_path / "accounts" / "ann" / "soulkeep.db").exists()


@pytest.mark.parametrize("flavour", ["sdk", "legacy", "auto"])
def test_a_typescript_client_that_wants_a_secret_is_let_in_without_one(
    flavour: str, node: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with served_to_ann(tmp_path) as (address, token):
        monkeypatch.setenv("TOKEN", token)
        done = _run([node, "oauth.mjs", flavour, address])

    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    assert seen["refused"] == "UnauthorizedError"
    assert "client_secret" not in seen["client"]
    assert [match["content"] for match in seen["model"]["matches"]] == [LEDGER]
