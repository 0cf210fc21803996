"""`soulkeep install`: a program is connected in its own configuration, which else stays as it is."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from conftest import Run
from soulkeep.clients import (
    CLIENTS,
    Client,
    Machine,
    Part,
    entry_in,
    new_entry,
    own_hooks,
    start_environment,
    started_by,
    with_ours,
    without_ours,
)
from soulkeep.configs import read
from wire import COMMAND, HANDSHAKE

CONFIGS = Path(__file__).with_name("client_configs")
"""A configuration of each client as people have them, with other servers, settings and comments."""

unix = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such links or permissions")
each_client = pytest.mark.parametrize("client", CLIENTS.values(), ids=list(CLIENTS))
OF_EACH_KIND = ("claude-desktop", "vscode", "codex", "opencode")
"""Of each way to write a block and to start a server, one; the others are for the long form."""
started = pytest.mark.parametrize(
    "client",
    [
        pytest.param(client, marks=[] if name in OF_EACH_KIND else pytest.mark.campaign)
        for name, client in CLIENTS.items()
    ],
    ids=list(CLIENTS),
)


@pytest.fixture
def user(tmp_path: Path) -> Path:
    """The folder of a user who has just installed soulkeep."""
    (tmp_path / "user").mkdir()
    return tmp_path / "user"


def machine(user: Path) -> Machine:
    return Machine(sys.platform, os.environ, str(user))


def config(client: Client, user: Path) -> Path:
    return Path(machine(user).files(client.files)[-1])


def fixture(client: Client) -> bytes:
    (path,) = CONFIGS.glob(f"{client.name}.*")
    return path.read_bytes()


def put_fixture(client: Client, user: Path, content: bytes | None = None) -> Path:
    path = config(client, user)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(fixture(client) if content is None else content)
    return path


def entry(client: Client, path: Path) -> Any:
    return read(path.read_text(encoding="utf-8"), client.syntax)[client.servers]["soulkeep"]


def files_under(folder: Path) -> dict[str, bytes | None]:
    return {
        str(p.relative_to(folder)): p.read_bytes() if p.is_file() else None for p in folder.rglob("*")
    }


def call(words: list[str], environment: dict[str, str], tool: str, **arguments: Any) -> dict[str, Any]:
    """Start a server as a client does, call a tool and end it."""
    messages: list[dict[str, Any]] = [
        {"id": 1, "method": "initialize", "params": HANDSHAKE},
        {"method": "notifications/initialized"},
        {"id": 2, "method": "tools/call", "params": {"name": tool, "arguments": arguments}},
    ]
    sent = "".join(json.dumps({"jsonrpc": "2.0", **message}) + "\n" for message in messages)
    done = subprocess.run(
        words,
        input=sent.encode(),
        env=environment,
        cwd=Path(os.sep),
        capture_output=True,
        timeout=60,
        check=True,
    )
    answers = {answer["id"]: answer["result"] for answer in map(json.loads, done.stdout.splitlines())}
    answer: dict[str, Any] = answers[2]["structuredContent"]
    return answer


@started
def test_a_client_is_connected_and_what_else_its_file_says_stays_to_the_byte(
    client: Client, run: Run, user: Path
) -> None:
    path, before = put_fixture(client, user), fixture(client)

    code, out, err = run("install", client.name, "--json")

    assert (code, err) == (0, "")
    told = json.loads(out)
    backup = path.with_name(path.name + ".before-soulkeep")
    assert told["changed"] == [str(path)]
    assert told["backups"] == [str(backup)]
    assert told["tools"] == 9
    assert told["restart"] == client.restart
    assert backup.read_bytes() == before
    words, variables = started_by(client, entry(client, path))
    assert words == [str(COMMAND), "serve"]
    assert variables == {"SOULKEEP_HOME": os.environ["SOULKEEP_HOME"], "SOULKEEP_EMBEDDER": "none"}
    old, new = (read(text.decode(), client.syntax) for text in (before, path.read_bytes()))
    del new[client.servers]["soulkeep"]
    assert new == old

    again = json.loads(run("install", client.name, "--json")[1])
    assert (again["changed"], again["backups"]) == ([], [])

    assert run("uninstall", client.name)[0] == 0
    assert path.read_bytes() == before
    assert not backup.exists()


@started
def test_on_a_fresh_machine_a_client_starts_it_remembers_and_is_disconnected_without_a_trace(
    client: Client, run: Run, user: Path
) -> None:
    assert run("install", client.name)[0] == 0
    words, variables = started_by(client, entry(client, config(client, user)))
    environment = start_environment(client, machine(user), variables)
    kept = call(words, environment, "remember", content="The key is under the third pot.")
    found = call(words, environment, "recall", query="key")

    assert kept["receipts"][0]["stored"]
    assert [match["content"] for match in found["matches"]] == ["The key is under the third pot."]
    assert ("HOME" in environment) == (client.hands_on != "desktop" and sys.platform != "win32")
    assert run("uninstall", client.name)[0] == 0
    assert files_under(user) == {}


@each_client
def test_a_block_and_hooks_go_in_and_out_of_a_configuration_of_each_client(client: Client) -> None:
    text = fixture(client).decode()
    block = new_entry(client, ["/opt/soulkeep", "serve"], {"SOULKEEP_HOME": "/m"})
    parts: list[Part] = ["server"]
    line = ""
    if client.hooks and client.hooks.files == client.files:  # in one file
        parts, line = ["server", "hooks"], f"/opt/soulkeep context --hook {client.name}"

    with_it = with_ours(client, text, entry=block, line=line)

    assert with_ours(client, with_it, entry=block, line=line) == with_it
    assert entry_in(client, with_it) == block
    assert "hooks" not in parts or len(own_hooks(client, with_it)) == 2
    assert without_ours(client, with_it, text, parts) == text
    # Others change the file too: then what it was before is no guide.
    assert without_ours(client, f"{with_it}\n", text, parts) == f"{text}\n"
