"""Makes the fixtures of this folder anew, by the programs whose formats they are.

python make.py FOLDER writes them there. It installs each program at its pinned version from its
registry: npm and a Python of 3.12 or later have to be on the path. Texts are the same, dates are not.
"""

import gzip
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

SERVER_MEMORY = "@modelcontextprotocol/server-memory@2026.8.31"
SERVER_MEMORY_SCRIPT = "@modelcontextprotocol/server-memory/dist/index.js"
BASIC_MEMORY = "basic-memory==0.24.1"
MCP_MEMORY_SERVICE = ("mcp-memory-service==12.4.0", "sqlite-vec==0.1.9")
"""Without the packages of its models, it makes hashes for vectors, which nobody reads here."""

ENTITIES = [
    {
        "name": "Anna",
        "entityType": "person",
        "observations": ["Anna is allergic to peanuts.", "Zoë keeps Anna's ledger in Kraków 📒"],
    },
    {"name": "Kitchen", "entityType": "project", "observations": ["The kitchen is painted blue."]},
]
RELATIONS = [{"from": "Anna", "to": "Kitchen", "relationType": "works_on"}]

NOTE = """# Kitchen

## Observations
- [decision] The kitchen is painted blue #paint (after three tries)
- [preference] Anna likes matt paint #paint
- [fact] The oven is 60 cm wide

## Relations
- belongs_to [[Anna's house]]
"""

MEMORIES = """
import asyncio, sys
from mcp_memory_service.models.memory import Memory
from mcp_memory_service.storage.sqlite_vec import SqliteVecMemoryStorage
from mcp_memory_service.utils.hashing import generate_content_hash


async def main():
    storage = SqliteVecMemoryStorage(sys.argv[1])
    await storage.initialize()
    for content, kind, tags, metadata, at in [
        ("Anna is allergic to peanuts.", "observation", ["anna", "health"], {}, 1_767_225_600.5),
        ("We ship on Fridays.", "decision", ["work"], {"source": "meeting"}, 1_767_312_000),
        ("Zo\\u00eb keeps the ledger.", "observation", ["zoe"], {"weight": 3}, 1_767_398_400),
        ("This was deleted there.", "observation", ["old"], {}, 1_767_398_500),
    ]:
        memory = Memory(
            content=content,
            content_hash=generate_content_hash(content),
            tags=tags,
            memory_type=kind,
            metadata=metadata,
            created_at=at,
        )
        stored, message = await storage.store(memory)
        assert stored, message
    await storage.delete(generate_content_hash("This was deleted there."))
    await storage.close()


asyncio.run(main())
"""


def run(
    command: Sequence[str | Path], text: str = "", environment: Mapping[str, str] | None = None
) -> str:
    """Run a command with a text on stdin, and return what it prints."""
    done = subprocess.run(
        list(map(str, command)),
        input=text,
        capture_output=True,
        encoding="utf-8",
        env={**os.environ, **(environment or {})},
        timeout=900,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"{command}: {done.stderr}")
    return done.stdout


def venv(folder: Path, needs: str, *requirements: str) -> Path:
    """Make a virtual environment of a Python that runs a line, with packages; return its commands."""
    names = ("python3.14", "python3.13", "python3.12", "python3.11", "/usr/bin/python3")
    # A name on the path may stand for none, or for one that lacks something.
    able = (
        name
        for name in names
        if shutil.which(name)
        and not subprocess.call([name, "-c", needs], stderr=subprocess.DEVNULL)
        and not subprocess.call([name, "-m", "venv", folder], stdout=subprocess.DEVNULL)
    )
    if next(able, None) is None:
        raise SystemExit(f"No Python on the path runs `{needs}`; install one first.")
    commands = folder / ("Scripts" if sys.platform == "win32" else "bin")
    run([commands / "python", "-m", "pip", "install", "--quiet", *requirements])
    return commands


def make_server_memory(work: Path, out: Path) -> None:
    """Let the official memory server write its file."""
    run(["npm", "install", "--prefix", work, "--no-audit", "--no-fund", SERVER_MEMORY])
    file = out / "memory.jsonl"
    params = {
        "protocolVersion": "2025-06-18",
        "capabilities": {},
        "clientInfo": {"name": "make", "version": "1"},
    }
    server = subprocess.Popen(
        [shutil.which("node") or "node", work / "node_modules" / SERVER_MEMORY_SCRIPT],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        encoding="utf-8",
        env={**os.environ, "MEMORY_FILE_PATH": str(file)},
    )
    said, heard = server.stdin, server.stdout
    assert said is not None
    assert heard is not None

    def ask(number: int, method: str, params: Mapping[str, Any]) -> None:
        message = {"jsonrpc": "2.0", "id": number, "method": method, "params": params}
        said.write(json.dumps(message) + "\n")
        said.flush()
        answer = json.loads(heard.readline())
        if "error" in answer or answer["result"].get("isError"):
            raise SystemExit(str(answer))

    ask(1, "initialize", params)
    said.write('{"jsonrpc": "2.0", "method": "notifications/initialized"}\n')
    ask(2, "tools/call", {"name": "create_entities", "arguments": {"entities": ENTITIES}})
    ask(3, "tools/call", {"name": "create_relations", "arguments": {"relations": RELATIONS}})
    said.close()
    server.wait(timeout=30)
    heard.close()


def make_basic_memory(work: Path, out: Path) -> None:
    """Let basic-memory write a note."""
    commands = venv(work / "python", "from typing import override", BASIC_MEMORY)
    folder = out / "basic_memory"
    folder.mkdir()
    environment = {
        "HOME": str(work),
        "BASIC_MEMORY_HOME": str(folder),
        "BASIC_MEMORY_SEMANTIC_SEARCH_ENABLED": "false",
    }
    note = ("--title", "Kitchen", "--folder", "house", "--tags", "home,renovation")
    run([commands / "basic-memory", "tool", "write-note", *note], NOTE, environment)


def make_mcp_memory_service(work: Path, out: Path) -> None:
    """Let the storage of mcp-memory-service write its database."""
    needs = "import sqlite3; sqlite3.Connection.enable_load_extension"
    commands = venv(work / "python", needs, *MCP_MEMORY_SERVICE)
    database = work / "sqlite_vec.db"
    environment = {"MCP_MEMORY_BASE_DIR": str(work), "HF_HUB_OFFLINE": "1"}
    run([commands / "python", "-c", MEMORIES, database], environment=environment)
    # Most of it is zeros: room for vectors.
    (out / "sqlite_vec.db.gz").write_bytes(gzip.compress(database.read_bytes(), mtime=0))


def main() -> None:
    """Make all of them."""
    out = Path(sys.argv[1]).absolute()
    out.mkdir(parents=True, exist_ok=True)
    for make in (make_server_memory, make_basic_memory, make_mcp_memory_service):
        work = out / f".{make.__name__}"
        work.mkdir()
        make(work, out)
        shutil.rmtree(work)


if __name__ == "__main__":
    main()
