"""Reading the entries of a long document again without parsing what did not change."""

import re

from soulkeep.documents.blocks import split_lines
from soulkeep.documents.markdown import Entry, list_entries, list_sections

_HEADING = re.compile(r"^#{1,6} ", re.MULTILINE)
_END = "# End"
_TRIES = 8
"""How many headings an open fence may reach over before the rest is parsed in one piece."""


class Passages:
    """The passages of one document as it was read last: what stands from one heading up to another."""

    def __init__(self) -> None:
        self._known: dict[str, list[Entry] | None] = {}

    def list_entries(self, text: str) -> list[Entry]:
        """Return the entries of a document; their lines are counted from the head of their passage."""
        former, self._known = self._known, {}
        entries: list[Entry] = []
        begin = tries = 0
        for end in [*(match.start() for match in _HEADING.finditer(text)), len(text)]:
            passage = text[begin:end]
            found = former[passage] if passage in former else _closed_entries(passage)
            self._known[passage] = found
            tries += 1
            if found is not None:
                entries += found
                begin, tries = end, 0
            elif tries == _TRIES:
                break
        return entries + list_entries(text[begin:])


def _closed_entries(passage: str) -> list[Entry] | None:
    """Return the entries of a passage; None if a fence or the like in it goes on behind a heading."""
    ended = passage + ("" if passage.endswith("\n") else "\n") + _END
    sections = list_sections(ended)
    is_closed = sections and sections[-1].first == len(split_lines(ended))
    return list_entries(ended) if is_closed else None
