"""The command line in terminals that are narrow, plain, of few characters, full, closed or not there."""

import errno
import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import pytest

from conftest import Run
from soulkeep.cli import soulkeep as command
from soulkeep.cli.terminal import print_facts, print_table, progress_shown
from soulkeep.progress import tell
from wire import COMMAND

if sys.platform == "win32":
    pytest.skip("Windows has no pseudo-terminals of this kind", allow_module_level=True)

from terminals import in_terminal

URL = "https://example.org/" + "a-very-long-address/" * 8


def commands(
    group: click.Command = command, path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Give every command with its name in full, groups included."""
    yield path, group
    if isinstance(group, click.Group):
        for name in group.list_commands(click.Context(group)):
            found = group.get_command(click.Context(group), name)
            assert found is not None
            yield from commands(found, (*path, name))


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[[int], None]:
    def narrow(columns: int) -> None:
        monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
        monkeypatch.setenv("COLUMNS", str(columns))
        monkeypatch.setenv("NO_COLOR", "1")

    return narrow


@pytest.mark.parametrize("name", [path for path, _ in commands()], ids=" ".join)
def test_help_is_asked_for_in_two_ways_and_cuts_no_description_off(
    run: Run, name: tuple[str, ...]
) -> None:
    code, out, err = run(*name, "-h")

    assert (code, err) == (0, "")
    assert out == run(*name, "--help")[1]
    body = out.split("\n", 1)[1]
    assert not re.search(r"\w\.\.\.$|\\b", body, re.MULTILINE), body


@pytest.mark.parametrize("columns", [40, 60, 200])
def test_help_is_as_wide_as_the_terminal(
    run: Run, monkeypatch: pytest.MonkeyPatch, columns: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))

    for name, _ in commands():
        for line in run(*name, "--help")[1].splitlines():
            assert len(line) <= min(columns, 80) or len(line.split()) <= 2, line


def test_each_line_of_the_help_that_is_for_pasting_stays_one(run: Run) -> None:
    for shell in ("bash", "zsh"):
        assert f'\n    eval "$(soulkeep completion {shell})"\n' in run("completion", "-h")[1]


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        (("recal", "x"), "recall"),
        (("memory",), "memories"),
        (("threads", "lst"), "list"),
        (("xyzzy",), ""),
    ],
)
def test_a_command_that_was_mistyped_is_answered_with_the_one_like_it(
    run: Run, typed: tuple[str, ...], meant: str
) -> None:
    code, out, err = run(*typed)

    assert (code, out) == (2, "")
    assert ("Did you mean" in err) == bool(meant)
    assert f"Did you mean {meant}?" in err or not meant


def test_every_command_has_a_description_and_stands_in_a_section(run: Run) -> None:
    out = run("--help")[1]

    for title in ("Connect an agent", "Memories", "Documents, prompts and threads", "Upkeep"):
        assert f"\n{title}:\n" in out
    for name, found in commands():
        assert found.help, name
        assert len(name) != 1 or re.search(rf"^  {name[0]} ", out, re.MULTILINE), name


def test_a_person_who_starts_it_reads_what_it_is_for_and_how_to_connect_a_client(tmp_path: Path) -> None:
    code, out = in_terminal()

    assert code == 0
    assert "memory" in out
    block = json.loads(out[out.index("{") : out.rindex("}") + 1])["mcpServers"]["soulkeep"]
    assert block["args"] == ["serve", "--home", str(tmp_path / "home")]
    assert Path(block["command"]).exists()
    assert "claude mcp add" in out
    assert "soulkeep --help" in out
    assert not (tmp_path / "home").exists()


def test_the_home_of_every_client_is_not_named_to_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("SOULKEEP_HOME")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))

    _, out = in_terminal()

    assert json.loads(out[out.index("{") : out.rindex("}") + 1])["mcpServers"]["soulkeep"]["args"] == [
        "serve"
    ]


def test_a_server_on_a_terminal_says_that_it_waits_for_a_client() -> None:
    code, out = in_terminal("serve", typed=b"\x04")

    assert code == 0
    assert "waiting for an MCP client" in out


OUTPUTS = (
    ("--help",),
    ("--version",),
    ("memories", "list"),
    ("memories", "list", "--json"),
    ("memories", "show", "1"),
    ("recall", "harbour"),
    ("remember", "Another one."),
    ("context",),
    ("changes",),
    ("documents", "show", "SOUL.md"),
    ("log",),
    ("stats",),
    ("doctor",),
    ("threads", "create", "Pier"),
    ("backup",),
    ("completion", "bash"),
)


class Broken(io.RawIOBase):
    """Takes nothing: the disk is full, or whoever read the pipe is gone."""

    def __init__(self, number: int) -> None:
        self.number = number

    def writable(self) -> bool:
        return True

    def write(self, _: object) -> int:
        if self.number:
            raise OSError(self.number, os.strerror(self.number))
        return 1


@pytest.fixture
def broken(run: Run, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[int, str]]:
    """Run the command line with an output that fails; return its exit code and stderr."""

    def broken(number: int, *arguments: str) -> tuple[int, str]:
        raw = Broken(number)
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stdout", io.TextIOWrapper(io.BufferedWriter(raw), "utf-8"))
            code, _, err = run(*arguments)
        raw.number = 0
        return code, err

    return broken


@pytest.mark.parametrize("arguments", OUTPUTS, ids=" ".join)
def test_output_that_cannot_be_written_is_said_in_one_line(
    run: Run, broken: Callable[..., tuple[int, str]], arguments: tuple[str, ...]
) -> None:
    run("remember", "The harbour is frozen.")

    code, err = broken(errno.ENOSPC, *arguments)

    assert (code, err) == (1, "soulkeep: the output cannot be written (No space left on device).\n")


@pytest.mark.parametrize("arguments", OUTPUTS, ids=" ".join)
def test_nothing_is_said_where_whoever_read_the_output_is_gone(
    run: Run, broken: Callable[..., tuple[int, str]], arguments: tuple[str, ...]
) -> None:
    run("remember", "The harbour is frozen.")

    assert broken(errno.EPIPE, *arguments) == (1, "")


def test_a_full_device_and_a_closed_pipe_leave_no_traceback_when_the_process_ends(run: Run) -> None:
    for number in range(3):
        run("remember", f"Memory {number}. " * 5_000)
    for output in ("--help >/dev/full", "memories show 1 2 3 | head -c 1 >/dev/null"):
        result = subprocess.run(
            ["/bin/sh", "-c", f"'{COMMAND}' {output}"],
            capture_output=True,
            text=True,
            check=False,
            timeout=30,
        )
        assert result.stderr.count("\n") <= 1, result.stderr
        assert "Traceback" not in result.stderr
        assert "Exception" not in result.stderr


SAID = "Łódź “grüße” · 長い …"


@pytest.fixture
def encoded(run: Run, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Run the command line with an output of some encoding; return what it printed."""

    def encoded(encoding: str, *arguments: str) -> str:
        raw = io.BytesIO()
        stream = io.TextIOWrapper(raw, encoding)
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stdout", stream)
            code, _, err = run(*arguments)
        stream.flush()
        assert (code, err) == (0, "")
        return raw.getvalue().decode(encoding)

    return encoded


@pytest.mark.parametrize(
    ("encoding", "shown"),
    [
        ("ascii", r'\u0141\xf3d\u017a "gr\xfc\xdfe" - \u9577\u3044 ...'),
        ("cp1252", "\\u0141ód\\u017a “grüße” · \\u9577\\u3044 …"),
        ("latin-1", r'\u0141ód\u017a "grüße" · \u9577\u3044 ...'),
        ("utf-8", SAID),
    ],
)
def test_a_terminal_of_few_characters_shows_what_it_can(
    run: Run, encoded: Callable[..., str], encoding: str, shown: str
) -> None:
    run("remember", SAID)
    run("memories", "revise", "1", f"{SAID}!")
    run("threads", "create", SAID)
    run("prompts", "add", SAID, SAID)
    run("documents", "log", SAID)

    for arguments in (
        ("memories", "list"),
        ("memories", "show", "2"),
        ("memories", "history", "2"),
        ("recall", SAID),
        ("threads", "list"),
        ("prompts", "list"),
        ("documents", "day"),
        ("context",),
    ):
        assert shown in encoded(encoding, *arguments), arguments
    assert ("fact  █" in encoded(encoding, "stats")) == (encoding == "utf-8")
    assert ("fact  #" in encoded(encoding, "stats")) == (encoding != "utf-8")


def test_a_process_for_an_old_terminal_prints_in_its_encoding(run: Run) -> None:
    run("remember", SAID)

    result = subprocess.run(
        [str(COMMAND), "memories", "list"],
        env={**os.environ, "PYTHONIOENCODING": "cp1252"},
        capture_output=True,
        check=True,
        timeout=30,
    )
    assert "\\u0141ód" in result.stdout.decode("cp1252")


BOLD = "\x1b[1m"
BOLD_ON_OFF = r"\x1b\[\d*m"


def test_headings_are_bold_on_a_terminal_unless_the_user_wants_it_plain(run: Run) -> None:
    run("remember", "One.")

    assert BOLD in in_terminal("memories", "list")[1]
    assert "\x1b" not in in_terminal("memories", "list", environment={"NO_COLOR": "1"})[1]
    assert "\x1b" not in in_terminal("memories", "show", "1", environment={"TERM": "dumb"})[1]
    assert "\x1b" not in run("memories", "list")[1]


def test_what_could_drive_a_terminal_or_hide_in_it_is_shown_as_a_sign(run: Run) -> None:
    text = "Red \x1b[31malert\x07,\u202e reversed\u202c, \U000e0041\U000e0042tagged\r\nnext line\rlast"
    run("remember", "-", "--subject", text, typed=text)
    run("threads", "create", text)

    for arguments in (
        ("memories", "list"),
        ("memories", "show", "1"),
        ("recall", "alert"),
        ("threads", "list"),
        ("changes",),
        ("undo",),
    ):
        out = run(*arguments)[1]
        assert not re.search("[\x00-\x08\x0b-\x1f\u202a-\u202e\U000e0000-\U000e007f]", out), arguments
    assert "\nnext line\nlast\n" in run("memories", "show", "1")[1]
    assert "Red �[31malert�,� reversed�" in run("memories", "show", "1")[1]


TEXTS = (
    "The harbourmaster telephoned about tomorrow's extraordinary thunderstorm warning.",
    "Strawberries flourished wonderfully behind grandmother's greenhouse.",
)


@pytest.mark.parametrize("columns", [30, 40, 60, 80])
def test_a_narrow_terminal_breaks_no_words(
    run: Run, monkeypatch: pytest.MonkeyPatch, columns: int
) -> None:
    for text in TEXTS:
        run("remember", text, "--subject", "the weather", "--source", "a telephone call")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", str(columns))
    known = set(re.findall(r"[\w']+", " ".join(TEXTS)))

    for arguments in (("memories", "list"), ("memories", "show", "1"), ("recall", "strawberries")):
        out = re.sub(BOLD_ON_OFF, "", run(*arguments)[1])
        words = {word for word in re.findall(r"[\w']+", out) if len(word) > 5}
        parts = {word for word in words - known if any(word in whole for whole in known)}
        assert parts - {"telephone"} == set()
        assert [line for line in out.splitlines() if len(line) > columns] == []


def test_a_real_terminal_of_40_columns_breaks_no_words(run: Run) -> None:
    run("remember", TEXTS[0])

    lines = in_terminal("memories", "list", columns=40)[1].splitlines()

    assert lines[-3:] == [
        "  TEXT    The harbourmaster telephoned",
        "          about tomorrow's extraordinary",
        "          thunderstorm warning.",
    ]


def test_a_long_address_neither_pads_a_table_nor_takes_its_room(run: Run) -> None:
    run("remember", "One.", "--source", URL)
    run("remember", "Two.")

    for line in in_terminal("memories", "list", environment={"NO_COLOR": "1"})[1].splitlines():
        assert len(line) <= 80
    piped = run("memories", "list")[1].splitlines()
    assert [line for line in piped if len(line) > 80] == [piped[2]]
    assert URL in piped[2]
    assert "https://example.org/" in in_terminal("memories", "list", columns=40)[1]


def test_a_table_too_wide_is_printed_row_by_row_with_the_names_of_its_columns(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "25")

    rows = [(1, "長い名前", "A text of several words, and of more."), (22, None, "Grüße")]
    print_table(("ID", "NAME", "TEXT"), rows)
    print_facts("Facts", {"長い": "one two three four five six seven", "b": "Ü"})

    assert capsys.readouterr().out.splitlines() == [
        "  ID    1",
        "  NAME  長い名前",
        "  TEXT  A text of several",
        "        words, and of",
        "        more.",
        "",
        "  ID    22",
        "  TEXT  Grüße",
        f"{BOLD}Facts\x1b[0m",
        "  長い  one two three",
        "        four five six",
        "        seven",
        "  b     Ü",
    ]


@pytest.mark.parametrize(
    ("arguments", "closed"),
    [
        ("", "<&-"),
        pytest.param("", ">&-", marks=pytest.mark.campaign),
        pytest.param("memories list", ">&-", marks=pytest.mark.campaign),
        ("remember -", "<&- >&- 2>&-"),
    ],
)
def test_a_process_without_standard_streams_keeps_its_store_whole(
    run: Run, arguments: str, closed: str
) -> None:
    run("remember", "Kept.")

    result = subprocess.run(
        ["/bin/sh", "-c", f"'{COMMAND}' {arguments} {closed}"],
        input="Piped.",
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )

    assert "Traceback" not in result.stderr
    assert "Kept." in run("memories", "list")[1]
    assert run("doctor")[0] == 0


def test_what_stdin_says_is_utf_8_or_refused(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    for said, code in ((b"\xef\xbb\xbfGr\xc3\xbc\xc3\x9fe\r\nan alle", 0), (b"Gr\xfc\xdfe", 1)):
        result = subprocess.run(
            [str(COMMAND), "remember", "-"],
            input=said,
            env={**os.environ, "PYTHONIOENCODING": "cp1252", "SOULKEEP_EMBEDDER": "none"},
            capture_output=True,
            check=False,
            timeout=30,
        )
        assert result.returncode == code
        assert (b"stdin is not UTF-8" in result.stderr) == bool(code)
    shown = json.loads(run("memories", "list", "--json")[1])["memories"]
    assert [memory["content"] for memory in shown] == ["Grüße\nan alle"]


def slow_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let what is done take longer than what shows no progress, and errors go to a terminal."""
    monkeypatch.setattr("soulkeep.cli.terminal._QUICK_S", 0)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)


@pytest.mark.parametrize("columns", [100, 45, 12])
def test_a_long_import_and_an_export_show_a_bar_that_is_gone_at_the_end(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, columns: int
) -> None:
    slow_on_a_terminal(monkeypatch)
    monkeypatch.setenv("COLUMNS", str(columns))
    (tmp_path / "notes.jsonl").write_text('{"content": "海 One."}\n{"content": "Two."}\n', "utf-8")
    (tmp_path / "other").mkdir()

    for arguments in (
        ("import", str(tmp_path / "notes.jsonl")),
        ("export", str(tmp_path / "export")),
        ("import", str(tmp_path / "export"), "--home", str(tmp_path / "other")),
    ):
        code, out, err = run(*arguments)

        *bars, cleared, end = err.split("\r")[1:]
        assert (code, "\r" in out) == (0, False)
        assert end == "" or end.startswith("soulkeep: new home")
        assert any("100%" in bar for bar in bars)
        assert any("█" in bar for bar in bars) == (columns > 12)
        assert cleared.strip() == ""
        assert {len(bar) for bar in bars} <= set(range(columns))
        assert len(cleared) == max(len(bar) for bar in bars)


def test_scripts_and_files_get_no_bar(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slow_on_a_terminal(monkeypatch)
    (tmp_path / "notes.jsonl").write_text('{"content": "One."}\n', "utf-8")
    run("remember", "Two.")

    assert run("import", str(tmp_path / "notes.jsonl"), "--json")[2] == ""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: False)
    assert run("export", str(tmp_path / "export"))[2] == ""


def test_a_bar_is_in_the_signs_that_the_terminal_has(monkeypatch: pytest.MonkeyPatch) -> None:
    class Ascii(io.TextIOWrapper):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr("soulkeep.cli.terminal._QUICK_S", 0)
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", Ascii(io.BytesIO(), "ascii"))
    monkeypatch.setattr(sys, "stderr", Ascii(written, "ascii"))

    with progress_shown():
        tell("Importing…", 0.5)
    sys.stderr.flush()

    assert b"[###############---------------]  50% Importing..., 0 s" in written.getvalue()
