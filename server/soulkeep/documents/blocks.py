"""A Markdown text as a flat row of blocks: what stands in lists, quotes and fences is no block."""

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache, lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from markdown_it import MarkdownIt

_NESTING = 200
"""Levels that are parsed; each takes up to three frames of Python's stack of 1,000."""

_BOM = "\ufeff"

# A heading to whoever wrote it, though no space follows the marks: two of them or more, or a single word
# after a blank line. "#1" and "#tag and text" are none.
_TIGHT = re.compile(
    r"^( {0,3}#{2,6})(?=[*_`]*[^\W\d_])"
    r"|(?:(?<=\n\n)|(?<=\n\r\n)|\A)( {0,3}#)(?=[^\W\d_][^\s#]*[ \t\r]*$)",
    re.MULTILINE,
)

# What may stand between the lines that front matter begins and ends with. In YAML a key comes first, and
# nothing is blank: two rules with Markdown between them are no front matter.
_KEY = r"[^\s#:-][^:]*:(?:\s|$)"
_YAML = re.compile(rf"{_KEY}|[ \t]+\S|- |#")
_TOML = re.compile(r"[\w.\"'-]+[ \t]*=|[\[\]#]|[ \t]*$|[ \t]+\S")
_FRONT_MATTER = {"---": _YAML, "+++": _TOML}


@dataclass(slots=True)
class Block:
    """A block of the outermost level.

    `kind` is the parser's name for it, or `front_matter`; `title` is a heading's, `items` the lines of a
    list's items.
    """

    kind: str
    first: int
    last: int
    title: str = ""
    level: int = 0
    items: list[tuple[int, int]] = field(default_factory=list)


def split_lines(text: str) -> list[str]:
    """Split a text where Markdown does, at fewer characters than `splitlines`; line ends are kept."""
    return list(io.StringIO(text, newline=""))


def is_blank(line: str) -> bool:
    """Whether a line is blank to Markdown, which knows fewer kinds of white space than Python."""
    return not line.strip(" \t\r\n")


@lru_cache(maxsize=2)
def list_blocks(text: str) -> tuple[Block, ...]:
    """Return the blocks of a document; asking again for the same text is free."""
    return parse(text)


def parse(text: str) -> tuple[Block, ...]:
    """Return the blocks of a text that is asked for once."""
    lines = split_lines(text)
    head = front_matter_lines(lines)
    blocks = [Block("front_matter", 0, head)] if head else []
    body = _TIGHT.sub(_spaced, "".join(lines[head:]).removeprefix(_BOM))
    for token in _parser().parse("\n" * head + body):
        if token.map is None or token.level > 1:
            continue
        first, last = _span(token.map, lines)
        if token.level == 0:
            blocks.append(Block(token.type.removesuffix("_open"), first, last))
        if token.type == "heading_open":
            blocks[-1].level = int(token.tag[1:])
        elif token.type == "inline":
            blocks[-1].title = " ".join(token.content.split())
        elif token.type == "list_item_open":
            blocks[-1].items.append((first, last))
    return tuple(blocks)


def _spaced(marks: re.Match[str]) -> str:
    return f"{marks[0]} "


def front_matter_lines(lines: Sequence[str]) -> int:
    """Return how many lines a document's front matter takes: YAML or TOML about it, at its head."""
    fence = lines[0].removeprefix(_BOM).rstrip() if lines else ""
    form = _FRONT_MATTER.get(fence)
    if form is None or len(lines) < 2 or not (form is _TOML or re.match(_KEY, lines[1])):
        return 0
    for number, line in enumerate(lines[1:], start=2):
        if line.rstrip() in (fence, "..."):
            return number if number > 2 else 0
        if not form.match(line):
            return 0
    return 0


def _span(lines_of: Sequence[int], lines: Sequence[str]) -> tuple[int, int]:
    """Leave out the blank lines at the end of a block, which the parser counts to some."""
    first, last = lines_of
    while last > first + 1 and is_blank(lines[last - 1]):
        last -= 1
    return first, last


@cache
def _parser() -> "MarkdownIt":
    from markdown_it import MarkdownIt

    # Inline markup decides nothing here, and leaving it out makes parsing several times as fast. A table
    # is as good as a paragraph; the parser's rule for it takes the first line of a list item for a head.
    return MarkdownIt("commonmark", {"maxNesting": _NESTING}).disable(["inline", "text_join"])
