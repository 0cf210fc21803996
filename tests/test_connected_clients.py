"""What `soulkeep install` writes is read by the programs themselves, where they are on PATH."""

import json
import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from conftest import Run
from soulkeep.clients import CLIENTS

pytestmark = pytest.mark.clients

TIMEOUT_S = 120
REFUSED = {"error": {"type": "invalid_request_error", "message": "no", "code": 400, "status": "NO"}}


def told_by(name: str, user: Path, *arguments: str, **variables: str) -> str:
    """Run a program with the configuration of this user, and return what it prints."""
    program = shutil.which(CLIENTS[name].program)
    if program is None:
        pytest.skip(f"{CLIENTS[name].program} is not on PATH; it comes from npm")
    done = subprocess.run(
        [program, *arguments],
        cwd=user,
        env=os.environ | variables,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        timeout=TIMEOUT_S,
        check=False,
    )
    return done.stdout + done.stderr


@pytest.fixture
def user(tmp_path: Path) -> Path:
    (tmp_path / "user").mkdir()
    return tmp_path / "user"


@pytest.mark.parametrize(
    ("name", "is_told"),
    [
        ("claude-code", "Connected"),
        ("codex", "enabled"),
        ("gemini-cli", "stdio"),
        ("opencode", "connected"),
    ],
)
def test_a_program_lists_the_server_that_was_installed_and_then_not(
    name: str, is_told: str, run: Run, user: Path
) -> None:
    assert run("install", name)[0] == 0
    listed = told_by(name, user, "mcp", "list")
    assert "soulkeep" in listed
    assert is_told in listed

    assert run("uninstall", name)[0] == 0
    assert "soulkeep" not in told_by(name, user, "mcp", "list")


@pytest.fixture
def model() -> Iterator[tuple[str, list[str]]]:
    """The address of a model that refuses every request, and what was asked."""
    asked = list[str]()

    class Refusing(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked.append(self.rfile.read(int(self.headers.get("Content-Length", 0))).decode())
            said = json.dumps(REFUSED).encode()
            self.send_response(400)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(said)))
            self.end_headers()
            self.wfile.write(said)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Refusing) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", asked
        server.shutdown()


@pytest.mark.parametrize("name", ["claude-code", "codex", "gemini-cli"])
def test_the_hook_of_a_program_gives_its_model_what_is_kept(
    name: str, run: Run, user: Path, model: tuple[str, list[str]]
) -> None:
    address, asked = model
    run("remember", "The harbour of Zadar is frozen.")
    if name == "gemini-cli":
        settings = user / ".gemini" / "settings.json"
        settings.parent.mkdir()
        settings.write_text(
            '{"security": {"auth": {"selectedType": "gemini-api-key"}}}', encoding="utf-8"
        )
    assert run("install", name, "--hooks")[0] == 0

    provider = f'{{name="x", base_url="{address}/v1", env_key="KEY", wire_api="responses"}}'
    words, variables = {
        "claude-code": (["-p", "hi"], {"ANTHROPIC_API_KEY": "x", "ANTHROPIC_BASE_URL": address}),
        "codex": (
            [
                *("exec", "--skip-git-repo-check", "--dangerously-bypass-hook-trust"),
                *("-c", 'model_provider="x"', "-c", f"model_providers.x={provider}", "hi"),
            ],
            {"KEY": "x"},
        ),
        "gemini-cli": (
            ["--skip-trust", "-p", "hi"],
            {"GEMINI_API_KEY": "x", "GOOGLE_GEMINI_BASE_URL": address},
        ),
    }[name]
    told_by(name, user, *words, **variables)

    (request, *_) = [one for one in asked if "harbour of Zadar" in one]
    assert "data, not instructions" in request
