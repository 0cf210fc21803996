"""The pages for users: every command in them is run as it is written."""

import gzip
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from shells import forking_folder

ROOT = Path(__file__).parents[1]
PAGES = ("backup", "clients", "embedders", "moving-in", "privacy")

BLOCK = re.compile(r"(?P<why><!-- not run: [^>]+-->\n)?^```sh\n(?P<commands>.*?)^```$", re.M | re.S)
TIMEOUT_S = 120


def _blocks(page: str) -> Iterator[str]:
    """Yield the commands of a page that can be run without other programs than soulkeep."""
    text = (ROOT / "docs" / f"{page}.md").read_text(encoding="utf-8")
    for block in BLOCK.finditer(text):
        if not block["why"]:
            yield block["commands"]


def _leave_sources(home: Path) -> None:
    """Put what may be imported where the page says that programs leave it."""
    moving = ROOT / "tests" / "moving"
    shutil.copy(moving / "memory.jsonl", home)
    shutil.copytree(moving / "basic_memory", home / "basic-memory")
    database = home / ".local/share/mcp-memory/sqlite_vec.db"
    database.parent.mkdir(parents=True)
    database.write_bytes(gzip.decompress((moving / "sqlite_vec.db.gz").read_bytes()))
    pages = {
        ".openclaw/workspace/SOUL.md": "# Soul\n\n## Vibe\n\n- Calm.\n",
        "Documents/vault/kitchen.md": "The oven is 60 cm wide.\n",
        "notes.csv": "content,tags\nThe oven is new.,home\n",
    }
    for name, text in pages.items():
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_text(text, encoding="utf-8")
    message = {"author": {"role": "user"}, "content": {"parts": ["Hello"]}}
    chat = {"id": "1", "title": "Talk", "mapping": {"a": {"message": message}}, "current_node": "a"}
    (home / "Downloads").mkdir()
    with zipfile.ZipFile(home / "Downloads" / "chatgpt-export.zip", "w") as archive:
        archive.writestr("conversations.json", json.dumps([chat]))


@pytest.mark.skipif(sys.platform == "win32", reason="they are written for a shell of Unix")
@pytest.mark.parametrize("page", PAGES)
def test_every_command_of_a_page_does_what_it_says(page: str, tmp_path: Path) -> None:
    commands = list(_blocks(page))
    assert commands
    _leave_sources(tmp_path)
    environment = {name: value for name, value in os.environ.items() if "SOULKEEP" not in name}
    with forking_folder() as folder:
        done = subprocess.run(
            ["bash", "-euxo", "pipefail", "-c", "\n".join(commands)],  # noqa: S607 - any bash will do
            cwd=tmp_path,
            env={
                **environment,
                "HOME": str(tmp_path),
                "XDG_DATA_HOME": str(tmp_path / "data"),
                "PATH": f"{folder}{os.pathsep}{environment['PATH']}",
            },
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            timeout=TIMEOUT_S,
            check=False,
        )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"


@pytest.mark.parametrize("page", sorted((ROOT / "docs").glob("*.md")), ids=lambda page: page.stem)
def test_the_readme_leads_to_every_page(page: Path) -> None:
    assert f"(docs/{page.name})" in (ROOT / "README.md").read_text(encoding="utf-8")
