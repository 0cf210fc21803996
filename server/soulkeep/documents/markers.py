"""List markers and heading marks: what stands before the text of an entry, kept or sent."""

import re
from collections.abc import Sequence
from unicodedata import category

from soulkeep.documents.blocks import parse, split_lines
from soulkeep.search.words import same_title

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
    bare = _without_symbols(plain)
    return bare or plain or title


def _without_symbols(title: str) -> str:
    """Leave out the emoji that stand before a title or after it."""
    kept = [at for at, sign in enumerate(title) if not (sign.isspace() or _is_of_emoji(sign))]
    return title[kept[0] : kept[-1] + 1] if kept else ""


def _is_of_emoji(sign: str) -> bool:
    joins_or_colours = "\U0001f3fb" <= sign <= "\U0001f3ff" or sign in "\u200d\u20e3\ufe0f"
    return joins_or_colours or category(sign) == "So"


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
    others = [_dedented(line, len(lead)) for line in bare[1:]]
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


def _dedented(line: str, columns: int) -> str:
    if line.startswith(" " * columns):
        return line[columns:]
    content = line.lstrip(" \t")
    return line[: len(line) - len(content)].expandtabs(4)[columns:] + content
