"""The pages for users: every command in them is run as it is written."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from shells import forking_folder

ROOT = Path(__file__).parents[1]
PAGES = ("backup", "clients", "embedders", "privacy")

BLOCK = re.compile(r"(?P<why><!-- not run: [^>]+-->\n)?^```sh\n(?P<commands>.*?)^```$", re.M | re.S)
TIMEOUT_S = 120


def _blocks(page: str) -> Iterator[str]:
    """Yield the commands of a page that can be run without other programs than soulkeep."""
    text = (ROOT / "docs" / f"{page}.md").read_text(encoding="utf-8")
    for block in BLOCK.finditer(text):
        if not block["why"]:
            yield block["commands"]


@pytest.mark.skipif(sys.platform == "win32", reason="they are written for a shell of Unix")
@pytest.mark.parametrize("page", PAGES)
def test_every_command_of_a_page_does_what_it_says(page: str, tmp_path: Path) -> None:
    commands = list(_blocks(page))
    assert commands
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
