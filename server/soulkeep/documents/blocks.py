"""A Markdown text as a flat row of blocks: what stands in lists, quotes and fences is no block."""

import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache, lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from markdown_it import MarkdownIt

_NESTING = 200
"""Levels that are parsed; each takes up to three frames of Python's stack of 1,000."""


@dataclass(slots=True)
class Block:
    """A block of the outermost level.

    `kind` is the parser's name for it, `title` a heading's, `items` the lines of a list's items.
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
    blocks: list[Block] = []
    for token in _parser().parse(text.removeprefix("\ufeff")):
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
