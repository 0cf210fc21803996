"""Edits as hunks: the one place of a text that an edit changed, found again to take the edit back."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from soulkeep.documents.blocks import is_blank, split_lines

_LOOKED_AT = 1_000
"""Characters on each side of an edit among which the nearest line that says something is looked for."""

_LINE_END = re.compile(r"\r\n|\r|\n")


@dataclass(frozen=True, slots=True)
class Hunk:
    """What an edit took away and what it put there, both of whole lines, and where that was.

    `above` and `below` are what stood beside it, as far as the nearest line that is not blank, or
    nothing. `start` and `rest` count the characters before and after it, and `copies` says how often
    `added` stood in the text.
    """

    removed: str
    added: str
    above: str
    below: str
    start: int
    rest: int
    copies: int

    def take_back(self, text: str) -> "tuple[str, Hunk] | None":
        """Return a text without the edit, and the hunk of taking it back; None where it does not stand.

        Nothing else changes. What stands several times is taken where its neighbours are the same, else
        nearest to where it was, counted from the beginning or the end.
        """
        stood = text.startswith(self.above + self.added + self.below, self.start - len(self.above))
        stop = self.start + len(self.added)
        if stood and len(text) == stop + self.rest and _is_edge(text, self.start, stop):
            return self._taken_back(text, self.start)
        # A hand may have taken the very last line end away; for what is found that makes no difference.
        end = "" if text.endswith(("\r", "\n")) else (_LINE_END.findall(text) or ["\n"])[-1]
        fitting = self._with_line_ends_of(text + end)
        place = fitting._find(text + end)
        if place is None:
            return None
        new, back = fitting._taken_back(text + end, place)
        return new.removesuffix(end), back

    def _taken_back(self, text: str, place: int) -> "tuple[str, Hunk]":
        new = text[:place] + self.removed + text[place + len(self.added) :]
        return new, hunk_at(new, place, self.added, self.removed)

    def _find(self, text: str) -> int | None:
        for above, below in ((self.above, self.below), (self.above, ""), ("", self.below)):
            if (above or below) and (places := _places(text, self.added, above, below)):
                return self._nearest(places, text)
        places = _places(text, self.added)
        # With fewer of them than there were, the very one may be what the user took away.
        return self._nearest(places, text) if len(places) >= max(self.copies, 1) else None

    def _nearest(self, places: Sequence[int], text: str) -> int:
        shifted = len(text) - self.rest - len(self.added)
        return min(places, key=lambda place: min(abs(place - self.start), abs(place - shifted)))

    def _with_line_ends_of(self, text: str) -> "Hunk":
        """Write the hunk with the line ends that an editor or git gave to the whole text meanwhile."""
        parts = (self.removed, self.added, self.above, self.below)
        own, others = set(_LINE_END.findall("".join(parts))), set(_LINE_END.findall(text))
        if not own or len(others) != 1 or own & others:
            return self
        (end,) = others
        removed, added, above, below = (_LINE_END.sub(end, part) for part in parts)
        return replace(self, removed=removed, added=added, above=above, below=below)


def find_hunks(before: str, after: str) -> list[Hunk]:
    """Return what an edit did to a text: a hunk of whole lines, or none where nothing changed."""
    if before == after:
        return []
    start = _shared(before, after)
    while not (_is_edge(before, start) and _is_edge(after, start)):
        start -= 1
    rest = _shared(before[start:][::-1], after[start:][::-1])
    while not (_is_edge(before, len(before) - rest) and _is_edge(after, len(after) - rest)):
        rest -= 1
    removed, added = (text[start : len(text) - rest] for text in (before, after))
    return [hunk_at(after, start, removed, added)]


def hunk_at(text: str, start: int, removed: str, added: str) -> Hunk:
    """Return the hunk of an edit that made a text: it put `added` where `removed` was, at `start`."""
    end = start + len(added)
    first, last = max(0, start - _LOOKED_AT), end + _LOOKED_AT
    # The first of the lines before and the last of those after may be cut off.
    before = split_lines(text[first:start])[first > 0 :]
    after = split_lines(text[end:last])[: -1 if last < len(text) else None]
    said_before = [number for number, line in enumerate(before) if not is_blank(line)]
    said_after = [number for number, line in enumerate(after) if not is_blank(line)]
    above = "".join(before[said_before[-1] :]) if said_before else ""
    below = "".join(after[: said_after[0] + 1]).rstrip("\r\n") if said_after else ""
    return Hunk(removed, added, above, below, start, len(text) - end, len(_places(text, added)))


def _shared(one: str, other: str) -> int:
    """Return how many characters two texts begin with in common, by halves, as they may be long."""
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        if one[low:middle] == other[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def _places(text: str, added: str, above: str = "", below: str = "") -> list[int]:
    """Return where whole lines stand between others; blank ones alone stand nowhere."""
    wanted = above + added + below
    if is_blank(wanted):
        return []
    places, found = [], text.find(wanted)
    while found >= 0:
        place = found + len(above)
        end = place + len(added)
        if _is_edge(text, found, place, end, end + len(below)):
            places.append(place)
        found = text.find(wanted, found + 1)
    return places


def _is_edge(text: str, *places: int) -> bool:
    """Whether a line begins or ends at each of these places; the middle of a line end is none."""
    around = (text[max(0, at - 1) : at + 1] for at in places if 0 < at < len(text))
    return all(pair != "\r\n" and not {"\r", "\n"}.isdisjoint(pair) for pair in around)
