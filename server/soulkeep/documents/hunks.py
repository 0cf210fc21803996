"""Edits as hunks: the one place of a text that an edit changed, found again to take the edit back."""

import re
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
        hunk, end, place = self, "", self.start
        if not (stood and len(text) == stop + self.rest and _is_edge(text, self.start, stop)):
            # A hand may have taken the very last line end away; what is found is the same without it.
            end = "" if text.endswith(("\r", "\n")) else (_LINE_END.findall(text) or ["\n"])[-1]
            text += end
            hunk = self._with_line_ends_of(text)
            beside = ((hunk.above, hunk.below), (hunk.above, ""), ("", hunk.below))
            found = (_places(text, hunk.added, *sides) for sides in beside if any(sides))
            places = next(filter(None, found), [])
            if not places:
                places = _places(text, hunk.added)
                # With fewer of them than there were, the very one may be what the user took away.
                if len(places) < max(hunk.copies, 1):
                    return None
            shifted = len(text) - self.rest - len(hunk.added)
            place = min(places, key=lambda place: min(abs(place - self.start), abs(place - shifted)))
        new = text[:place] + hunk.removed + text[place + len(hunk.added) :]
        return new.removesuffix(end), hunk_at(new, place, hunk.added, hunk.removed)

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
