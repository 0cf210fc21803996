"""How a context is filled: section by section, each piece by its worth, until the room is spent."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from soulkeep.embedders.tokens import BYTES_PER_TOKEN, TokenCounter
from soulkeep.fence import DATA, fenced, heading, under_heading
from soulkeep.wording import counted

NOTE = f"Parts with is_data are {DATA}."
"""Stands once in the structured form where a part is data."""

BYTES_OF_A_TOKEN = 4.5
"""A token of English prose. Where tokens are longer, as in code and names, the bytes are the limit, so
that a budget bounds an answer in characters too."""


_LONGEST = 100_000
"""How many characters of a document are looked at where not all of it fits."""


@dataclass(slots=True)
class Section:
    """What stands under one heading: pieces by their worth, and its `source`.

    Of a document the one piece may be divided into lines, of which the first, or with `is_latest_last`
    the last are worth most. What `is_data` is remembered; the rest are instructions, which are whole.
    """

    name: str
    source: str
    pieces: list[str] = field(default_factory=list)
    is_data: bool = True
    is_document: bool = False
    is_latest_last: bool = False
    taken: list[int] = field(default_factory=list)
    tokens: int = 0
    rest_at: str = ""
    """Where the rest of it is, if not at its source."""

    @property
    def text(self) -> str:
        """The pieces that found room."""
        places = sorted(self.taken, reverse=self.is_latest_last)
        return "\n".join(self.pieces[place] for place in places)

    @property
    def is_whole(self) -> bool:
        """Whether all of it found room."""
        return len(self.taken) == len(self.pieces)

    def divide(self) -> None:
        """Make a piece of each line of a document, but for what no context could hold."""
        (text,) = self.pieces
        near, far = text[:_LONGEST], text[_LONGEST:]
        if self.is_latest_last:
            near, far = text[-_LONGEST:], text[:-_LONGEST]
        lines = near.splitlines()
        self.pieces = lines[::-1] if self.is_latest_last else lines
        self.pieces += [far] if far else []

    @property
    def left_out(self) -> str:
        """What found no room, and where it is; empty if all did."""
        missing = [piece for place, piece in enumerate(self.pieces) if place not in set(self.taken)]
        if self.is_whole:
            return ""
        if self.is_document or not self.is_data:
            size = sum(len(piece.encode()) for piece in missing) // BYTES_PER_TOKEN + 1
            part = "the rest, " if self.taken else ""
            return f"{self.name} ({part}about {counted(size, 'token')}): {self.rest_at or self.source}"
        return f"{self.name} ({len(missing)} more): {self.rest_at or self.source}"


class Budget:
    """The room of a context, in tokens, and what has been spent of it.

    What a piece takes is counted as it stands in the text of an answer and as it stands in the
    structured form, whichever is more.
    """

    def __init__(self, tokens: TokenCounter, limit: int) -> None:
        self._tokens = tokens
        self._has_data = False
        self.room = limit

    def spend(self, text: str) -> None:
        """Take the room of a text that is given in any case."""
        self.room -= self.cost(text)

    def divide(self, shares: Sequence[tuple[Section, float]]) -> None:
        """Give each section its share of the room; what one does not need goes to the others.

        One that got nothing for its share first gets what is worth most of it.
        """
        for section, _ in shares:
            if section.pieces and not section.taken:
                self._take(section, 0, self.room)
        for _ in range(2):
            wanting = [(section, share) for section, share in shares if not section.is_whole]
            whole, room = sum(share for _, share in wanting), self.room
            for section, share in wanting:
                self.offer(section, share / whole * room)
        for section, _ in shares:
            self.offer(section)

    def offer(self, section: Section, allowance: float = float("inf")) -> None:
        """Take of a section what finds room, within an allowance for this section, in tokens."""
        allowance += section.tokens
        if section.is_document and len(section.pieces) == 1 and not section.taken:
            if self._take(section, 0, allowance):
                return
            section.divide()
        for place in self._missing(section):
            # The lines of a document stand together; other pieces stand for themselves.
            if not self._take(section, place, allowance) and section.is_document:
                return

    def _missing(self, section: Section) -> Iterator[int]:
        taken = set(section.taken)
        return (place for place in range(len(section.pieces)) if place not in taken)

    def _take(self, section: Section, place: int, allowance: float) -> bool:
        piece = section.pieces[place]
        if len(piece) > self.room * BYTES_OF_A_TOKEN:
            return False  # without a count, which for megabytes takes seconds
        cost = self.cost(piece, is_data=section.is_data)
        if not section.taken:
            cost += self._heading_cost(section)
        if cost > self.room or section.tokens + cost > allowance:
            return False
        section.taken.append(place)
        self._has_data |= section.is_data
        section.tokens += cost
        self.room -= cost
        return True

    def cost(self, text: str, *, is_data: bool = False) -> int:
        """Return how many tokens a text takes in the larger of the two channels."""
        shown = fenced(text) if is_data else under_heading(text)
        escaped = json.dumps(text, ensure_ascii=False)[1:-1]
        return max(self._count(f"{shown}\n"), self._count(f"{escaped}\\n"))

    def _heading_cost(self, section: Section) -> int:
        facts = (section.name, section.source, *([DATA] if section.is_data else []))
        structured = {"name": section.name, "source": section.source, "text": ""}
        structured |= {"is_data": "true"} if section.is_data else {}
        written = json.dumps(structured, ensure_ascii=False, separators=(",", ":"))
        note = self._count(NOTE) if section.is_data and not self._has_data else 0
        return max(self._count(f"\n{heading(*facts)}\n"), self._count(f"{written},") + note)

    def _count(self, text: str) -> int:
        by_bytes = -(-len(text.encode()) // BYTES_OF_A_TOKEN)
        return max(self._tokens.count(text), int(by_bytes))
