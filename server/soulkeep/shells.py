"""Commands that the user pastes into a shell, quoted for the one that their system has."""

import re
import shlex
import sys
from collections.abc import Sequence

_ON_WINDOWS = sys.platform == "win32"

_BARE = re.compile(r"[\w.:/\\=+-]+", re.ASCII)
_SAME_IN_BOTH = re.compile(r"[^\"$`%!^&|<>“”„\n]*[^\"$`%!^&|<>“”„\n\\]")
"""What means the same in double quotes to PowerShell and to cmd.exe."""

_SINGLE_QUOTES = re.compile("['‘’‚‛]")  # noqa: RUF001 - PowerShell takes each for an apostrophe


def command_line(words: Sequence[str], *, windows: bool = _ON_WINDOWS) -> str:
    """Write a command of these words: for a POSIX shell, or for PowerShell.

    What cmd.exe can be told in the same way, it is told so: all but some signs, such as % and ".
    """
    return " ".join(map(_quoted, words)) if windows else shlex.join(words)


def _quoted(word: str) -> str:
    if _BARE.fullmatch(word):
        return word
    if _SAME_IN_BOTH.fullmatch(word):
        return f'"{word}"'
    return "'" + _SINGLE_QUOTES.sub(lambda quote: 2 * quote[0], word) + "'"
