"""A Markdown text as a flat row of blocks, and what stands before the text of an entry.

What stands in lists, quotes and fences is no block.
"""

import io
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache, lru_cache
from typing import TYPE_CHECKING
from unicodedata import category

from soulkeep.search.words import same_title

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


def parse(text: str) -> tuple[Block, ...]:
    """Return the blocks of a text that is asked for once."""
    lines = split_lines(text)
    head = front_matter_lines(lines)
    blocks = [Block("front_matter", 0, head)] if head else []
    body = _TIGHT.sub(r"\g<0> ", "".join(lines[head:]).removeprefix(_BOM))
    for token in _parser().parse("\n" * head + body):
        if token.map is None or token.level > 1:
            continue
        first, last = token.map
        while last > first + 1 and is_blank(lines[last - 1]):  # the parser counts them to some blocks
            last -= 1
        if token.level == 0:
            blocks.append(Block(token.type.removesuffix("_open"), first, last))
        if token.type == "heading_open":
            blocks[-1].level = int(token.tag[1:])
        elif token.type == "inline":
            blocks[-1].title = " ".join(token.content.split())
        elif token.type == "list_item_open":
            blocks[-1].items.append((first, last))
    return tuple(blocks)


list_blocks = lru_cache(maxsize=2)(parse)
"""Returns the blocks of a document; asking again for the same text is free."""


def front_matter_lines(lines: Sequence[str]) -> int:
    """Return how many lines a document's front matter takes: YAML, TOML or JSON at its head."""
    fence = lines[0].removeprefix(_BOM).rstrip() if lines else ""
    if fence.startswith("{"):
        return _json_lines("".join(lines).removeprefix(_BOM))
    form = _FRONT_MATTER.get(fence)
    if form is None or len(lines) < 2 or not (form is _TOML or re.match(_KEY, lines[1])):
        return 0
    for number, line in enumerate(lines[1:], start=2):
        if line.rstrip() in (fence, "..."):
            return number if number > 2 else 0
        if not form.match(line):
            return 0
    return 0


def _json_lines(text: str) -> int:
    """Return how many lines a JSON object takes that a text begins with, and that Markdown follows."""
    try:
        value, end = json.JSONDecoder().raw_decode(text)
    except (ValueError, RecursionError):
        return 0
    rest = split_lines(text[end:])
    is_alone = len(rest) > 1 and is_blank(rest[0]) and not all(map(is_blank, rest[1:]))
    return len(split_lines(text[:end])) if value and is_alone else 0


@cache
def _parser() -> "MarkdownIt":
    from markdown_it import MarkdownIt

    # Inline markup decides nothing here, and leaving it out makes parsing several times as fast. A table
    # is as good as a paragraph; the parser's rule for it takes the first line of a list item for a head.
    return MarkdownIt("commonmark", {"maxNesting": _NESTING}).disable(["inline", "text_join"])


CODE = 4
"""Spaces that make what follows them a block of code."""

_MARKER = re.compile(r"( {0,3})([-*+]|\d{1,9}[.)])([ \t]+|$)")
_BULLET = re.compile(r"^([ \t]*)[•‣◦▪][ \t]+(?=\S)", re.MULTILINE)
"""Bullets that people and models write and Markdown does not know."""
_MARK = re.compile(r"[ \t]*(?:[-*+•‣◦▪]|\d{1,2}[.)]|#{1,6})[ \t]+(?=\S)")
"""Longer numbers, such as years, are taken for a part of the text."""
_CLOSING = re.compile(r"[ \t]+#+[ \t]*$")
_AROUND = (
    r"^\*\*\*([^*]+)\*\*\*$",
    r"^\*\*([^*]+)\*\*$",
    r"^\*([^*]+)\*$",
    r"^___([^_]+)___$",
    r"^__([^_]+)__$",
    r"^_([^_]+)_$",
    r"^~~([^~]+)~~$",
    r"^`+([^`]+)`+$",
    r"^\[([^\[\]]+)\]\([^()]*\)$",
    r"^(.+?) *\{[#.][^{}]*\}$",
    r"^(.*\S)[ \t]#+$",
    r"^#{1,6}((?:[*_`]+)?[^\W\d_].*)$",
)
"""Marks of Markdown around all of a title; strings, so that they are compiled at first use."""
_OF_EMOJI = "\U0001f3fb\U0001f3fc\U0001f3fd\U0001f3fe\U0001f3ff\u200d\u20e3\ufe0f"
"""What emoji are coloured, joined and varied with."""
_MOMENT = re.compile(r"\d{4}-\d{2}-\d{2}|[012]?\d:[0-5]\d")


def unmarked(text: str) -> str:
    """Return a text without the list markers and heading marks that its first line begins with."""
    first, newline, others = text.strip().partition("\n")
    bare = first
    while mark := _MARK.match(bare):
        bare = bare[mark.end() :]
        bare = _CLOSING.sub("", bare) if "#" in mark[0] else bare
    return text if bare == first else bare + newline + others


def plain_title(title: str) -> str:
    """Return what a section's title says without marks around it: emphasis, a colon, a link, a symbol.

    One of nothing but marks is left as it is.
    """
    plain, last = unmarked(title).strip(), ""
    while plain != last:
        last = plain
        for mark in _AROUND:
            plain = re.sub(mark, r"\1", plain).strip()
        plain = plain.removesuffix(":").removesuffix("\uff1a").strip()
    shown = [sign.isspace() or sign in _OF_EMOJI or category(sign) == "So" for sign in plain]
    if all(shown):
        return plain or title
    return plain[shown.index(False) : len(plain) - shown[::-1].index(False)]


def list_sent(text: str, section: str = "") -> list[str]:
    """Return the entries that a text stands for which comes with marks of its own.

    A list stands for its items. A heading that says the section over again, or a date or time, is left
    out where something follows it; of another one only the marks are.
    """
    text = text.strip()
    if _BULLET.match(text):
        text = _BULLET.sub(r"\1- ", text)
    first, _, others = text.partition("\n")
    if first.startswith("#") and (title := unmarked(first)) != first:
        is_repeated = same_title(plain_title(title)) == same_title(plain_title(section))
        is_repeated = is_repeated or _MOMENT.fullmatch(title) is not None
        return list_sent(others) if is_repeated and others.strip() else [unmarked(text)]
    blocks = parse(text)
    if _MARK.match(first) and all(block.items for block in blocks):
        lines = split_lines(text)
        entries = [entry_text(lines[a:b]) for block in blocks for a, b in block.items]
        bare = [entry if "\n" in entry else unmarked(entry) for entry in entries]
        return [entry for entry in bare if entry] or [text]
    return [text]


def entry_text(lines: Sequence[str]) -> str:
    """Return the text of an entry's lines, without list marker and indentation."""
    bare = [line.rstrip("\r\n") for line in lines]
    bare[0] = bare[0].removeprefix("\ufeff")
    lead = lead_of(bare[0])
    if lead is None:
        return "\n".join(bare)
    first = bare[0].expandtabs(4)[len(lead) :] if "\t" in bare[0][: len(lead)] else bare[0][len(lead) :]
    others = []
    for line in bare[1:]:
        content = line.lstrip(" \t")
        indent = line[: len(line) - len(content)]
        indent = indent if indent.startswith(" " * len(lead)) else indent.expandtabs(4)
        others.append(indent[len(lead) :] + content)
    return "\n".join([first, *others] if first.strip() else others)


def lead_of(line: str) -> str | None:
    """Return what an item begins with, up to the column of its text; None if the line begins none."""
    marker = _MARKER.match(line.rstrip("\r\n"))
    if marker is None:
        return None
    head = f"{marker[1]}{marker[2]}"
    gap = len(marker[0].expandtabs(4)) - len(head)
    # More than four spaces begin an indented code block, which is one space away from its marker.
    return head + " " * (gap if 1 <= gap <= CODE and marker.end() < len(line.rstrip("\r\n")) else 1)
