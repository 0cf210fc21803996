"""What is shipped, and that the documents say what the code does."""

import json
import os
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest

import soulkeep
from soulkeep.app import build_server
from soulkeep.documents import DOCUMENTS
from soulkeep.service.home import Home
from wire import COMMAND, STARTUP

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)],
        cwd=ROOT,
        check=True,
        capture_output=True,
        timeout=120,
    )
    (built,) = folder.glob("*.whl")
    return built


def test_the_wheel_holds_only_the_package_with_the_two_documents_inside(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()

    assert {name.split("/")[0] for name in names} == {
        "soulkeep",
        f"soulkeep-{soulkeep.__version__}.dist-info",
    }
    assert {
        "soulkeep/memory_files/SOUL.md",
        "soulkeep/memory_files/MEMORY.md",
        "soulkeep/py.typed",
        "soulkeep/embedders/minilm_vocabulary.txt",
        "soulkeep/embedders/minilm_vocabulary.LICENSE",
    } <= set(names)
    licences = {name.rsplit("/", 1)[1] for name in names if "dist-info/licenses/" in name}
    assert licences == {"LICENSE", "minilm_vocabulary.LICENSE"}


def test_a_wheel_seeds_the_documents_that_it_carries(wheel: Path, tmp_path: Path) -> None:
    site, home = tmp_path / "site", tmp_path / "home"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    code = (
        f"import sys; sys.path[0] = {str(site)!r}\n"
        "import soulkeep, soulkeep.app\n"
        f"assert soulkeep.__file__.startswith({str(site)!r})\n"
        f"soulkeep.app.open_home({str(home)!r}).close()"
    )

    subprocess.run([sys.executable, "-B", "-c", code], check=True, timeout=60, cwd=tmp_path)

    for name in DOCUMENTS:
        assert (home / name).read_bytes() == (ROOT / "memory_files" / name).read_bytes()


def test_the_package_needs_python_3_11_and_pins_what_it_tests_with() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    development = project["optional-dependencies"]["dev"]

    assert project["requires-python"] == ">=3.11"
    for file, requirements in (
        ("constraints.txt", project["dependencies"]),
        ("constraints-dev.txt", [*project["dependencies"], *development]),
    ):
        pins = (ROOT / file).read_text(encoding="utf-8")
        assert "://" not in pins
        for requirement in requirements:
            name = re.split(r"[\[<>=; ]", requirement)[0]
            assert re.search(rf"^{name}==[\w.]+ ?.*\\\n    --hash=sha256:", pins, re.MULTILINE), name
    assert not (ROOT / "uv.lock").exists()


def test_development_runs_on_the_versions_that_users_get() -> None:
    def pins(file: str) -> set[str]:
        return set(
            re.findall(r"^[\w.-]+==[^ ]+", (ROOT / file).read_text(encoding="utf-8"), re.MULTILINE)
        )

    assert pins("constraints.txt") < pins("constraints-dev.txt")


def test_the_example_configuration_starts_the_server_as_it_stands(tmp_path: Path) -> None:
    entry = json.loads((ROOT / "mcp.json.example").read_text(encoding="utf-8"))["mcpServers"]["soulkeep"]
    request = {
        "jsonrpc": "2.0",
        "id": 1,
        "method": "initialize",
        "params": {
            "protocolVersion": "2025-11-25",
            "capabilities": {},
            "clientInfo": {"name": "example", "version": "1"},
        },
    }

    result = subprocess.run(
        [entry["command"], *entry["args"]],
        input=json.dumps(request).encode() + b"\n",
        capture_output=True,
        check=True,
        timeout=30,
        env={**os.environ, "PATH": f"{COMMAND.parent}{os.pathsep}{os.environ['PATH']}"},
    )

    assert json.loads(result.stdout)["result"]["serverInfo"]["name"] == "soulkeep"
    assert (tmp_path / "home" / "soulkeep.db").exists()


def _json_blocks() -> list[dict[str, Any]]:
    return [json.loads(block) for block in re.findall(r"```json\n(.*?)```", README, re.DOTALL)]


def test_the_readmes_client_blocks_are_the_example() -> None:
    entry = json.loads((ROOT / "mcp.json.example").read_text(encoding="utf-8"))["mcpServers"]["soulkeep"]

    entries = [(block.get("mcpServers") or block["servers"])["soulkeep"] for block in _json_blocks()]
    installed = [found for found in entries if found["command"] == "soulkeep"]
    with_uvx = [found for found in entries if found["command"] == "uvx"]

    assert len(installed) == 2  # Claude Desktop and Cursor; VS Code
    assert all(found == entry for found in installed)
    assert with_uvx == [
        {
            "type": "stdio",
            "command": "uvx",
            "args": ["--python", "3.13", f"soulkeep@{soulkeep.__version__}", "serve"],
        }
    ]


async def test_the_readme_names_every_tool_and_resource(home: Home) -> None:
    server = build_server(home)

    for tool in await server.list_tools():
        assert f"| `{tool.name}` |" in README
    for resource in await server.list_resources():
        assert f"`{resource.uri}`" in README


def test_the_checks_run_the_readmes_test_command_to_the_letter() -> None:
    (command,) = re.findall(r"^(python3 -m venv .*pytest)$", README, re.MULTILINE)

    assert command in (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()


@pytest.mark.parametrize(
    ("name", "lines"),
    [
        *(("README.md", 150), ("ARCHITECTURE.md", 200), ("CONTRIBUTING.md", 90)),
        ("bench/README.md", 40),
        *((f"docs/{page.name}", 250) for page in sorted((ROOT / "docs").glob("*.md"))),
    ],
)
def test_a_document_is_short_and_its_links_lead_somewhere(name: str, lines: int) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")

    assert len(text.splitlines()) <= lines
    for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", text):
        assert (ROOT / name).parent.joinpath(target).exists(), target


def test_every_environment_variable_and_command_in_the_readme_exists() -> None:
    from soulkeep.app import Settings
    from soulkeep.cli import soulkeep as command

    documented = README + "".join(
        page.read_text(encoding="utf-8") for page in (ROOT / "docs").glob("*.md")
    )
    variables = set(re.findall(r"SOULKEEP_(\w+)", documented))
    commands = set(re.findall(r"`soulkeep ([a-z]+)", documented))

    assert variables == {name.upper() for name in Settings.model_fields}
    assert commands <= set(command.list_commands(None))  # type: ignore[arg-type]
    assert {"serve", "demo", "remember", "recall", "prompts", "doctor", "reindex"} <= commands


def test_modules_and_functions_stay_short() -> None:
    import ast

    for path in (ROOT / "server").rglob("*.py"):
        source = path.read_text(encoding="utf-8")
        # An engine is written by reading the interface alone, on one page.
        longest = 800 if path.parent.name == "repository" else 500
        assert len(source.splitlines()) <= longest, path
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                assert (node.end_lineno or 0) - node.lineno < 60, f"{path}: {node.name}"


def test_the_command_line_and_the_server_ask_services_and_not_the_store() -> None:
    for part in ("cli", "mcp_server"):
        for path in (ROOT / "server" / "soulkeep" / part).rglob("*.py"):
            assert ".repository" not in path.read_text(encoding="utf-8"), path


def test_nothing_of_one_engine_is_known_above_it() -> None:
    package = ROOT / "server" / "soulkeep"
    for path in (*(package / "service").rglob("*.py"), *(package / "repository").glob("*.py")):
        found = re.search(r"apsw|pragma|sqlite|vacuum|\bwal\b", path.read_text(encoding="utf-8"), re.I)
        assert found is None, (path, found)


MODULES, FUNCTIONS = 125, 55.8
"""The most modules of the package, and functions in 1,000 lines of it; the aim is 55."""


def test_the_package_gets_no_more_pieces() -> None:
    sources = [path.read_text(encoding="utf-8") for path in (ROOT / "server").rglob("*.py")]
    lines = sum(len(source.splitlines()) for source in sources)
    functions = sum(len(re.findall(r"^ *(?:async )?def ", source, re.M)) for source in sources)

    assert len(sources) <= MODULES
    assert 1_000 * functions / lines <= FUNCTIONS


TRACED = """
import runpy, sys, threading

threading.settrace(lambda *_: None)  # as coverage does
runpy.run_path(sys.argv[1])
sys.setswitchinterval(1e-6)
done = []

def start():
    for _ in range(600):
        thread = threading.Thread(target=done.append, args=[1])
        thread.start()
        thread.join()

starting = [threading.Thread(target=start) for _ in range(6)]
for thread in starting:
    thread.start()
for thread in starting:
    thread.join()
print(len(done))
"""


def test_no_thread_ends_before_its_work_where_coverage_is_measured() -> None:
    command = [sys.executable, "-c", TRACED, str(STARTUP / "sitecustomize.py")]
    ended = subprocess.run(command, capture_output=True, text=True, check=True)
    assert (ended.stdout, ended.stderr) == ("3600\n", "")
