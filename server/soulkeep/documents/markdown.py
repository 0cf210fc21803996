"""Markdown documents and daily logs, read and edited line by line, and edits taken back, on text alone.

A line that an edit does not concern stays as it is, to the byte.
"""

import re
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import date, time

from soulkeep.documents.blocks import (
    CODE,
    Block,
    entry_text,
    is_blank,
    lead_of,
    list_blocks,
    parse,
    plain_title,
    split_lines,
    unmarked,
)
from soulkeep.errors import EntryNotFoundError, InvalidInputError, SectionNotFoundError
from soulkeep.search.words import same_title, split_words
from soulkeep.wording import in_one_form

_LINE_END = re.compile(r"\r\n|\r|\n")
_RULE = re.compile(r" {0,3}([-*_])[ \t]*(?:\1[ \t]*){2,}")
_TABLE_RULE = re.compile(r"[ \t]*[|:-][|: \t-]*")
_FOOTER = re.compile(r"([ \t]*)([*_])Last updated:.*\2[ \t]*")
_PLACEHOLDER = re.compile(r"[ \t]*\(.*\)[ \t]*")
_LEAD = "- "
_APART = ["", "<!-- -->", ""]
_HEADER_LEVEL = 2
_NO_TITLE = "Imported"
"""Above what stands in no section of its own."""
_NEAR = 3


Outline = tuple[tuple[int, str], ...]
"""Headings that stand in one another, as level and title."""


@dataclass(frozen=True, slots=True)
class Section:
    """A heading with its own body: the lines from `first` up to `last`, where the next one begins."""

    title: str
    level: int
    first: int
    last: int


@dataclass(frozen=True, slots=True)
class Entry:
    """One statement of a document: a list item with what is nested in it, or another block.

    `heading` is the title of its section, empty before the first; `text` is its Markdown without list
    marker and indentation; it stands in the lines from `first` up to `last`. `outline` has the headings
    of the sections that it stands in, the outermost first.
    """

    heading: str
    text: str
    first: int
    last: int
    outline: Outline = ()


def list_sections(text: str) -> list[Section]:
    """Return the sections in their order; what stands before the first heading is in none."""
    headings = [block for block in list_blocks(text) if block.kind == "heading"]
    ends = [*(block.first for block in headings), len(split_lines(text))][1:]
    return [
        Section(block.title, block.level, block.last, end)
        for block, end in zip(headings, ends, strict=True)
    ]


def list_entries(text: str, outline: Outline = ()) -> list[Entry]:
    """Return the entries in their order; `outline` is what the text stands in.

    Headings, rules, front matter, HTML comments, the footer and a section's placeholder in parentheses
    are none.
    """
    lines = split_lines(text)
    entries: list[Entry] = []
    heading, opening = "", False
    for block in list_blocks(text):
        if block.kind == "heading":
            heading, outline = block.title, within(outline, block.level, block.title)
        elif not _is_no_entry(block, lines, opening=opening):
            spans = block.items or [(block.first, block.last)]
            found = [Entry(heading, entry_text(lines[a:b]), a, b, outline) for a, b in spans]
            entries += [entry for entry in found if entry.text]
        opening = block.kind == "heading"
    return entries


def entries_of(text: str, section: str) -> list[Entry]:
    """Return the entries of the sections with a title.

    Raises:
        SectionNotFoundError: No section has this title.
    """
    title = same_title(_section(text, section).title)
    return [entry for entry in list_entries(text) if same_title(entry.heading) == title]


def within(outline: Outline, level: int, title: str) -> Outline:
    """Return the outline below a heading that follows."""
    return (*(above for above in outline if above[0] < level), (level, title))


def add_entry(text: str, section: str, entry: str) -> str:
    """Add a list item at the end of a section's list, in the place of its placeholder if it has one.

    Args:
        text: The document.
        section: A title; of several equal ones the first counts.
        entry: Plain text or Markdown; it becomes one item, whatever it holds.

    Raises:
        SectionNotFoundError: No section has this title.
        InvalidInputError: The entry is blank or nested too deeply.
    """
    return add_entries(text, section, [entry])


def add_entries(text: str, section: str, entries: Sequence[str]) -> str:
    """Add several list items at the end of a section's list, as `add_entry` does each."""
    found, lines = _section(text, section), split_lines(text)
    body = [block for block in list_blocks(text) if found.first <= block.first < found.last]
    # Entries come before the rule and the footer that end a document.
    while body and (body[-1].kind == "hr" or _is_line(body[-1], lines, _FOOTER)):
        body.pop()
    first = last = found.first
    lead = _LEAD
    if lists := [block for block in body if block.kind == "bullet_list"]:
        first = last = lists[-1].last
        lead = lead_of(lines[lists[-1].items[-1][0]]) or _LEAD
    elif body:
        opening, end = body[0], body[-1]
        is_empty = all(_is_no_entry(block, lines, opening=block is opening) for block in body)
        # A fence or comment that nobody closed reaches to the end and would swallow what follows it.
        is_open = end.kind in ("fence", "html_block") and all(map(is_blank, lines[end.last :]))
        first = last = end.first if is_open else end.last
        if is_empty and _is_line(opening, lines, _PLACEHOLDER):
            first, last = opening.first, opening.last
    return _splice(text, first, last, [line for entry in entries for line in as_item(entry, lead)])


def merge(text: str, other: str, known: Collection[str] = ()) -> Iterator[str]:
    """Add the entries of another text that this one lacks, but for those that are `known`.

    They go to the end of the section with the title of theirs; a section that is not there goes to the
    end of the document. Yield the text after each section.

    Raises:
        InvalidInputError: An entry is nested too deeply.
    """
    for title, lines, entries in _missing(text, other, known):
        own = {same_title(plain_title(section.title)): section.title for section in list_sections(text)}
        if section := own.get(same_title(plain_title(title))):
            text = add_entries(text, section, entries)
        else:
            blocks, written = list(list_blocks(text)), split_lines(text)
            while blocks and (blocks[-1].kind == "hr" or _is_line(blocks[-1], written, _FOOTER)):
                blocks.pop()
            at = blocks[-1].last if blocks else 0
            text = _splice(text, at, at, lines)
        yield text


def log_merge(text: str, other: str, known: Collection[str] = ()) -> str:
    """Return what to add to the end of a log so that it has the entries of another text, if anything.

    Those that are `known` are left out.
    """
    added = [["", *lines] for _, lines, _ in _missing(text, other, known)]
    if not added:
        return ""
    if not text.strip() and not known:
        return other if other.endswith("\n") else other + "\n"
    newline = "\r\n" if text.endswith("\r\n") else "\n"
    lines = [line for section in added for line in section]
    return newline.join([*lines[text == "" :], ""] if text.endswith("\n") else ["", *lines, ""])


def _missing(
    text: str, other: str, known: Collection[str]
) -> Iterator[tuple[str, list[str], list[str]]]:
    """Yield the title, the lines below their heading, and the new entries of each section with such."""
    there = {in_one_form(entry.text) for entry in list_entries(text)} | set(map(in_one_form, known))
    lines, sections = split_lines(other), dict[tuple[int, str], list[Entry]]()
    for entry in list_entries(other):
        if in_one_form(entry.text) not in there:
            there.add(in_one_form(entry.text))
            outline = entry.outline[-1] if entry.outline else (_HEADER_LEVEL, _NO_TITLE)
            sections.setdefault(outline, []).append(entry)
    for (level, title), entries in sections.items():
        written = [f"{'#' * max(level, _HEADER_LEVEL)} {title}", ""]
        last = entries[0].first
        for entry in entries:
            written += [""] * (entry.first > last)
            written += [line.rstrip("\r\n") for line in lines[entry.first : entry.last]]
            last = entry.last
        yield title, written, [entry.text for entry in entries]


def replace_entry(text: str, section: str, old: str, new: str | None) -> str:
    """Put a list item in the place of the one entry that says `old`, white space folded.

    None for the new one removes it.

    Raises:
        SectionNotFoundError: No section has this title.
        EntryNotFoundError: No entry of it says that, or several do.
        InvalidInputError: The new entry is blank or nested too deeply.
    """
    entries, found = entries_of(text, section), list[Entry]()
    for meant in (old, unmarked(old)):
        found = found or [entry for entry in entries if in_one_form(entry.text) == in_one_form(meant)]
    if len(found) != 1:
        words = set(split_words(old))
        shared = {entry.text: len(words.intersection(split_words(entry.text))) for entry in entries}
        near = sorted(filter(shared.get, shared), key=shared.__getitem__, reverse=True)[:_NEAR]
        raise EntryNotFoundError(section, old, [] if found else near, count=len(found))
    lead = lead_of(split_lines(text)[found[0].first]) or _LEAD
    return _splice(text, found[0].first, found[0].last, [] if new is None else as_item(new, lead))


def change_entries(text: str, change: Callable[[Entry], str | None]) -> Iterator[str]:
    """Make each entry, from the last to the first, what `change` returns, or remove it for None.

    Yield the text after each entry that is another then.

    Raises:
        InvalidInputError: A new entry is blank or nested too deeply.
    """
    for entry in reversed(list_entries(text)):
        new = change(entry)
        if new != entry.text:
            lead = lead_of(split_lines(text)[entry.first]) or _LEAD
            text = _splice(text, entry.first, entry.last, [] if new is None else as_item(new, lead))
            yield text


def date_footer(text: str, date: str) -> str:
    """Write a date into the footer `*Last updated: …*`; a document without one stays without."""
    if "Last updated:" not in text:
        return text
    lines = split_lines(text)
    footers = [block.first for block in list_blocks(text) if _is_line(block, lines, _FOOTER)]
    if not footers:
        return text
    line = lines[footers[-1]]
    if match := _FOOTER.match(line):
        line = f"{match[1]}{match[2]}Last updated: {date}{match[2]}{line[match.end() :]}"
    lines[footers[-1]] = line
    return "".join(lines)


def as_item(entry: str, lead: str = _LEAD, argument: str = "entry") -> list[str]:
    """Write a text as one list item: its lines, without line ends; `argument` is its name in errors.

    Raises:
        InvalidInputError: It is blank or nested too deeply.
    """
    first, *others = _LINE_END.split(entry.strip())
    if not first:
        raise InvalidInputError(argument, "must not be blank; give the text")
    is_table = "|" in first and others and _TABLE_RULE.fullmatch(others[0])
    if _RULE.fullmatch(lead + first) or is_table:
        # `- ---` would be a rule, and some take `- a | b` for a table's head whatever it stands in, so
        # the text begins on the line below the marker.
        first, others = "", [first, *others]
    pad = " " * len(lead)
    item = [lead + first if first else lead.rstrip()]
    item += [pad + line if line else "" for line in others]
    blocks = parse("\n".join([*item, "", "# End"]))
    # The parser gives up on very deep nesting and would swallow the rest of the document.
    if [len(block.items) for block in blocks] != [1, 0] or blocks[1].kind != "heading":
        raise InvalidInputError(argument, "nests lists or quotes too deeply; write it flatter")
    return item


def _section(text: str, title: str) -> Section:
    """Return the first section of this title; without one, the first that says it with other marks."""
    sections = list_sections(text)
    wanted, plain = same_title(title), same_title(plain_title(title))
    found = [section for section in sections if same_title(section.title) == wanted]
    if plain and not found:
        found = [section for section in sections if same_title(plain_title(section.title)) == plain]
    if not found:
        raise SectionNotFoundError(title, [section.title for section in sections])
    return found[0]


def _splice(text: str, first: int, last: int, new: Sequence[str]) -> str:
    """Put lines in the place of others, apart from what they would flow into."""
    lines, blocks = split_lines(text), list_blocks(text)
    before = first > 0 and not is_blank(lines[first - 1])
    after = last < len(lines) and not is_blank(lines[last])
    # An item may follow a heading or another item directly.
    follows = any(block.last == first and (block.items or block.kind == "heading") for block in blocks)
    inside = {line for line in (first, last) if any(b.first < line < b.last and b.items for b in blocks)}
    apart_before = before and not follows and first not in inside
    apart_after = after and last not in inside
    # An indented block that follows must not become part of the item or code before it.
    ending = [block for block in blocks if block.items and block.items[0][0] < first][-1:]
    item = new[0] if new else next((lines[block.items[-1][0]] for block in ending), "")
    following = next((line for line in lines[last:] if not is_blank(line)), "").expandtabs(4)
    indent = len(following) - len(following.lstrip(" "))
    if last not in inside and indent >= min(CODE, len(lead_of(item) or " " * CODE)):
        put = [*[""] * apart_before, *new, *_APART[: 3 if after else 2]]
    elif new:
        put = [*[""] * apart_before, *new, *[""] * apart_after]
    else:
        put = [""] * (before and after and (apart_before or apart_after))
        first -= first > 0 and not before and not after
    newline = max(("\n", "\r\n", "\r"), key=_LINE_END.findall(text).count)
    above, below = lines[:first], lines[last:]
    if above and not above[-1].endswith(("\r", "\n")):
        above[-1] += newline
    lines = [*above, *(line + newline for line in put), *below]
    if lines and not below and not text.endswith(("\r", "\n")):
        lines[-1] = lines[-1].rstrip("\r\n")
    return "".join(lines)


def _is_no_entry(block: Block, lines: Sequence[str], *, opening: bool) -> bool:
    if block.kind == "html_block":
        raw = "".join(lines[block.first : block.last]).strip()
        return raw.startswith("<!--") and raw.find("-->") in (-1, len(raw) - 3)
    placeholder = opening and _is_line(block, lines, _PLACEHOLDER)
    return block.kind in ("hr", "front_matter") or placeholder or _is_line(block, lines, _FOOTER)


def _is_line(block: Block, lines: Sequence[str], form: re.Pattern[str]) -> bool:
    single = block.kind == "paragraph" and block.last == block.first + 1
    return single and form.fullmatch(lines[block.first].rstrip("\r\n")) is not None


_HEADER = re.compile(r"##[ \t]+([01]?\d|2[0-3]):([0-5]\d)(?!\d)[ \t]*(.*)")


def log_addition(former: str, at: str, item: Sequence[str]) -> str:
    """Return what to append to a log that holds `former`: a header with the time, and an item."""
    newline = "\r\n" if former.endswith("\r\n") else "\n"
    lines = ["", f"## {at}", "", *item, ""]
    return newline.join(lines if former.endswith("\n") else ["", *lines])


def list_daily_entries(day: date, text: str) -> list[tuple[Entry, time | None]]:
    """Return the entries of a day's log, each with the time of the header that it stands under.

    A line with a time begins an entry even inside a fence that nobody closed, so that a forgotten fence
    cannot hide what was logged later. What stands under no such header has no time. The heading of an
    entry is what its header says besides the time, else the day.
    """
    lines = split_lines(text)
    cuts = [number for number, line in enumerate(lines) if _HEADER.match(line)]
    found: list[tuple[Entry, time | None]] = []
    for offset, end in zip([0, *cuts], [*cuts, len(lines)], strict=True):
        part = "".join(lines[offset:end])
        header = _HEADER.match(part)
        # Sections may stand in that of the header, or beside it.
        others = list_sections(part)[header is not None :]
        beside = [section.first for section in others if section.level <= _HEADER_LEVEL]
        for entry in list_entries(part):
            is_timed = header is not None and all(entry.first < first for first in beside)
            is_own = is_timed and all(entry.first < section.first for section in others)
            heading = (header[3].strip() if header and is_own else entry.heading) or day.isoformat()
            at = time(int(header[1]), int(header[2])) if header and is_timed else None
            first, last = entry.first + offset, entry.last + offset
            found.append((replace(entry, heading=heading, first=first, last=last), at))
    return found


_LOOKED_AT = 1_000
"""Characters on each side of an edit among which the nearest line that says something is looked for."""


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
