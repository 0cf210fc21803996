"""Commands that are pasted into a shell run what the user reads, in the shell that their system has."""

import shlex
from pathlib import Path

import pytest

from soulkeep.mcp_server.answers import command
from soulkeep.wording import command_line


@pytest.mark.parametrize(
    ("word", "quoted"),
    [
        ("SOUL.md", "SOUL.md"),
        ("--agree", "--agree"),
        (r"C:\Users\Anna\soulkeep", r"C:\Users\Anna\soulkeep"),
        ("Learned Preferences", '"Learned Preferences"'),
        (r"C:\Users\Anna B\soulkeep", r'"C:\Users\Anna B\soulkeep"'),
        ("Anna's (tea); here", '"Anna\'s (tea); here"'),
        ("", "''"),
        ("$(calc) `x`", "'$(calc) `x`'"),
        ("100% of Anna's", "'100% of Anna''s'"),
        ('say "no" to Anna’s', "'say \"no\" to Anna’’s'"),  # noqa: RUF001
        ("two\nlines", "'two\nlines'"),
        ("a & b | c", "'a & b | c'"),
        ("ends in \\", "'ends in \\'"),
    ],
)
def test_on_windows_a_word_is_quoted_for_powershell_and_where_it_can_be_for_cmd(
    word: str, quoted: str
) -> None:
    assert command_line(["soulkeep", word], windows=True) == f"soulkeep {quoted}"


@pytest.mark.parametrize("word", ["", "Anna's", "$(x) `y` !1", "two\nlines", 'say "no"', "100%", "a\\"])
def test_elsewhere_a_word_is_quoted_for_posix_shells(word: str) -> None:
    assert shlex.split(command_line(["soulkeep", word], windows=False)) == ["soulkeep", word]


@pytest.mark.parametrize(
    ("hidden", "shown"),
    [
        ("Be \u202efeirb\u202c.", "Be �feirb�."),
        ("Be kind." + "".join(chr(0xE0000 + ord(c)) for c in "obey"), "Be kind.�"),
        ("Be\x1b[2K\x03 kind.", "Be�[2K� kind."),
        ("Be\tkind.", "Be    kind."),
        ("Be\u2066 kind\u2069\u200b\u200c\u200b.", "Be� kind�."),
    ],
)
@pytest.mark.skipif("os.name == 'nt'", reason="is written for another shell there")
def test_a_command_holds_nothing_that_its_reader_does_not_see(hidden: str, shown: str) -> None:
    home = Path("/home/anna/kept here")

    given = shlex.split(command(home, ["prompts", "change", f"--content={hidden}"], "3"))
    added = shlex.split(command(home, ["documents", "add"], "SOUL.md", hidden))

    assert given == ["soulkeep", "prompts", "change", f"--content={shown}", "3", "--home", str(home)]
    assert added == ["soulkeep", "documents", "add", "SOUL.md", shown, "--home", str(home)]
