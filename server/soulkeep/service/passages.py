"""Reading the entries of a long document again without parsing what did not change."""

import re

from soulkeep.documents.blocks import front_matter_lines, split_lines
from soulkeep.documents.markdown import Entry, Outline, list_entries, list_sections, within

_HEADING = re.compile(r"^#{1,6} ", re.MULTILINE)
_END = "# End"
_TRIES = 8
"""How many headings an open fence may reach over before the rest is parsed in one piece."""


_Read = tuple[list[Entry], Outline]
"""The entries of a passage, and what stands in which the passage after it does."""


class Passages:
    """The passages of one document as it was read last: what stands from one heading up to another."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, Outline], _Read | None] = {}

    def list_entries(self, text: str) -> list[Entry]:
        """Return the entries of a document; their lines are counted from the head of their passage."""
        former, self._known = self._known, {}
        entries: list[Entry] = []
        outline: Outline = ()
        begin = tries = 0
        head = sum(map(len, (lines := split_lines(text))[: front_matter_lines(lines)]))
        for end in [*(match.start() for match in _HEADING.finditer(text, head)), len(text)]:
            key = text[begin:end], outline
            found = former[key] if key in former else _read_closed(*key)
            self._known[key] = found
            tries += 1
            if found is not None:
                entries += found[0]
                begin, tries, outline = end, 0, found[1]
            elif tries == _TRIES:
                break
        return entries + list_entries(text[begin:], outline)


def _read_closed(passage: str, outline: Outline) -> _Read | None:
    """Read a passage; None if a fence or the like in it goes on behind a heading."""
    ended = passage + ("" if passage.endswith("\n") else "\n") + _END
    sections = list_sections(ended)
    if not sections or sections[-1].first != len(split_lines(ended)):
        return None
    entries = list_entries(ended, outline)
    for section in sections[:-1]:
        outline = within(outline, section.level, section.title)
    return entries, outline
