"""Text, tables and charts on the user's terminal, as wide as it is, and JSON for scripts.

Text that others wrote can neither drive the terminal nor hide in it; columns are as wide as they look.
"""

import codecs
import io
import json
import re
import shutil
import sys
import time
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from soulkeep.errors import InvalidInputError
from soulkeep.models import Memory, Message, Recall
from soulkeep.progress import told_to
from soulkeep.wording import visible

if TYPE_CHECKING:
    # A server needs none of them before its first answer.
    from soulkeep.service.callers import Changed, Receipt
    from soulkeep.service.changes import ChangeSummary
    from soulkeep.service.lifecycle import Past

_QUICK_S = 1
"""What takes no longer shows no progress."""

_START = re.compile(r" *(\| )?")
"""Goes before all parts of a line that is broken: its indentation, and the bar beside what is stored."""

LOSSY = "soulkeep.lossy"
"""The name under which `_in_other_words` handles what an encoding lacks."""

_ASCII = str.maketrans(
    {
        "…": "...",
        "·": "-",
        "█": "#",
        "\N{REPLACEMENT CHARACTER}": "?",
        "\N{EN DASH}": "-",
        "\N{EM DASH}": "-",
        "\N{LEFT SINGLE QUOTATION MARK}": "'",
        "\N{RIGHT SINGLE QUOTATION MARK}": "'",
        "\N{LEFT DOUBLE QUOTATION MARK}": '"',
        "\N{RIGHT DOUBLE QUOTATION MARK}": '"',
        "\N{DOUBLE LOW-9 QUOTATION MARK}": '"',
    }
)


def _in_other_words(error: UnicodeError) -> tuple[str, int]:
    """Return ASCII signs for some that an encoding lacks, and escapes for the rest of them."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end].translate(_ASCII)
    return text.encode("ascii", "backslashreplace").decode(), error.end


codecs.register_error(LOSSY, _in_other_words)


def columns() -> int | None:
    """Return how wide the terminal is, or None where the output is a file or a pipe."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def printable(text: str) -> str:
    """Show what could drive a terminal, reorder a line or hide in it, and what its encoding lacks."""
    encoding = sys.stdout.encoding or "utf-8"
    return visible(text).encode(encoding, LOSSY).decode(encoding)


def one_line(text: str) -> str:
    """Return a text as one printable line."""
    return " ".join(printable(text).split())


def say(text: str, *, bold: bool = False, err: bool = False) -> None:
    """Print a text, made printable; on a terminal, what is wider is broken between words."""
    lines, room = [], columns()
    for line in printable(text).split("\n"):
        if room is None or width(line) <= room:
            lines.append(line)
            continue
        start = _START.match(line)
        lead = start[0] if start and len(start[0]) <= room // 2 else ""
        lines += [lead + part for part in wrapped(line[len(lead) :], room - len(lead))]
    click.secho("\n".join(lines), bold=bold or None, err=err)


def print_quoted(text: str) -> None:
    """Print a stored text with a bar before each line."""
    for line in visible(text).split("\n"):
        say(f"| {line}")


def print_document(text: str) -> None:
    """Print a whole document, made printable, with one line feed at its end."""
    click.echo(printable(text), nl=not text.endswith("\n"))


def print_json(document: object) -> None:
    """Print one JSON object for scripts; what could drive a terminal is escaped."""
    click.echo(json.dumps(document, indent=2))


def report(as_json: bool, document: object, *lines: str) -> None:
    """Print a JSON object for scripts, or lines for people."""
    if as_json:
        print_json(document)
    for line in lines if not as_json else ():
        say(line)


def read_text(given: str) -> str:
    """Return what was given, or what stdin says where that is a single -.

    Raises:
        InvalidInputError: Stdin does not say it in UTF-8.
    """
    if given != "-":
        return given
    try:
        return io.TextIOWrapper(sys.stdin.buffer, "utf-8-sig").read()
    except UnicodeDecodeError as error:
        raise InvalidInputError("stdin", "is not UTF-8; save the text as UTF-8 first") from error


def confirm(question: str) -> None:
    """Go on only if the user agrees.

    Raises:
        Abort: They do not.
        UsageError: Nobody is there to answer, or a script wants JSON, which a question would spoil.
    """
    if click.get_current_context().params.get("as_json"):
        raise click.UsageError("With --json nothing is asked; add --yes.")
    try:
        agreed = click.confirm(printable(question))
    except click.Abort:
        if sys.stdin.isatty():
            raise
        raise click.UsageError("Nobody is there to answer, so nothing was done; add --yes.") from None
    if not agreed:
        raise click.Abort


def width(text: str) -> int:
    """Return how many columns of a terminal a text takes: marks on letters none, Chinese two each."""
    shown = [sign for sign in text if unicodedata.category(sign) not in ("Mn", "Me", "Cf")]
    return len(shown) + sum(unicodedata.east_asian_width(sign) in "WF" for sign in shown)


def cut(text: str, room: int) -> str:
    """Return as much of a text as `room` columns have place for, and a sign where that is not all.

    It is cut between words, except in a word that would take more than half of the room.
    """
    if width(text) <= room:
        return text
    sign = printable("…")
    kept, taken = "", width(sign)
    for character in text:
        taken += width(character)
        if taken > room:
            break
        kept += character
    whole = kept if text[len(kept)].isspace() else kept.rpartition(" ")[0]
    return (whole if width(whole) > room // 2 else kept).rstrip() + sign


def wrapped(text: str, room: int | None) -> list[str]:
    """Return a text of one line as lines of up to `room` columns, broken between words.

    Only a word that takes more than a line is broken itself: an address, or Chinese.
    """
    if room is None:
        return [text]
    lines = [""]
    for word in text.split():
        if lines[-1] and width(lines[-1]) + 1 + width(word) <= room:
            lines[-1] += f" {word}"
            continue
        lines += [""] * bool(lines[-1])
        for character in word:
            if width(lines[-1]) + width(character) > room:
                lines.append("")
            lines[-1] += character
    return lines


@contextmanager
def progress_shown() -> Iterator[None]:
    """Show on a terminal what is being done, with a bar where its share is known, and take that away.

    It is for people, and for what takes longer than a second.
    """
    began, shown = time.monotonic(), ""
    context = click.get_current_context(silent=True)
    is_for_people = not (context and context.params.get("as_json"))

    def show(doing: str, share: float | None) -> None:
        nonlocal shown
        seconds = int(time.monotonic() - began)
        if seconds < _QUICK_S or not is_for_people or not sys.stderr.isatty():
            return
        line, room = f"{doing}, {seconds} s", shutil.get_terminal_size().columns - 1
        if share is not None:
            line = f"{share:4.0%} {line}"
            if (wide := min(_BAR, room - len(line) - 3)) >= _SHORTEST_BAR:
                filled = round(wide * share)
                line = f"[{'█' * filled}{'·' * (wide - filled)}] {line}"
        if (line := cut(printable(line), room)) != shown:
            click.echo(f"\r{line.ljust(len(shown))}", nl=False, err=True)
            shown = line

    try:
        with told_to(show):
            yield
    finally:
        if shown:
            click.echo(f"\r{' ' * len(shown)}\r", nl=False, err=True)


def size_text(size: int) -> str:
    """Write a number of bytes as people read it."""
    value, units = float(size), iter(("bytes", "kB", "MB", "GB"))
    unit = next(units)
    while value >= 1_000 and unit != "GB":
        value, unit = value / 1_000, next(units)
    if unit == "bytes":
        return "1 byte" if size == 1 else f"{size} bytes"
    return f"{value:,.1f} {unit}"


_NARROWEST, _ROOMY = 12, 32
"""A last column with less room than the first, if it needs that much, is put under the others; up to the
second, longer cells give way to it."""
_WIDEST, _LEAST = 24, 12
"""A longer cell is cut to between these, and where nobody looks does not push its column aside."""
_LINES = 3
_BAR, _SHORTEST_BAR = 30, 3
_COLUMNS = "▁▂▃▄▅▆▇█"


def print_table(headings: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print aligned columns without the empty ones.

    On a terminal all but the first column, which is what rows are called by, are cut to fit. Where that
    leaves too little room, each row is printed as a list of its cells.
    """
    cells = [["" if value is None else one_line(str(value)) for value in row] for row in rows]
    filled = [place for place in range(len(headings)) if any(row[place] for row in cells)]
    headings = [headings[place] for place in filled]
    cells = [[row[place] for place in filled] for row in cells]
    room = columns()
    first = _fitting([max(map(width, column)) for column in zip(headings, *cells, strict=True)], room)
    if first is None:
        for place, row in enumerate(cells):
            click.echo("\n" * bool(place), nl=False)
            narrow = (room or 0) - max(map(width, headings)) - 4
            rooms = [narrow] * (len(headings) - 1) + [(room or 0) * _LINES]
            shown = zip(headings, map(cut, row, rooms), strict=True)
            _print_pairs({name: cell for name, cell in shown if cell}, room)
        return
    left = None if room is None else room - sum(2 + taken for taken in first)
    for place, (*others, last) in enumerate([headings, *cells]):
        if left is not None:
            others, last = [*others[:1], *map(cut, others[1:], first[1:])], cut(last, left)
        padded = [cell + " " * (wide - width(cell)) for cell, wide in zip(others, first, strict=True)]
        click.secho("  ".join([*padded, last]).rstrip(), bold=True if place == 0 else None)


def print_facts(title: str, facts: Mapping[str, str]) -> None:
    """Print names and values in two columns under a title."""
    say(title, bold=True)
    _print_pairs({one_line(name): one_line(value) for name, value in facts.items()}, columns())


def print_bars(title: str, counts: Mapping[str, int]) -> None:
    """Print a bar for each count under a title."""
    most = max([*counts.values(), 1])
    names = max(map(len, counts), default=0)
    room = max(5, min(_BAR, (columns() or 80) - names - len(f"{most:,}") - 6))
    block = printable("█")
    say(title, bold=True)
    for name, count in counts.items():
        say(f"  {name:{names}}  {block * -(-room * count // most):{room}}  {count:,}")


def print_days(title: str, counts: Mapping[str, int]) -> None:
    """Print a column of one character for each day, with the first, the last and the fullest day."""
    most, total = max([*counts.values(), 1]), sum(counts.values())
    say(title, bold=True)
    if printable(_COLUMNS) == _COLUMNS:
        # The lowest column stands for a day without any.
        steps = [-(-n * (len(_COLUMNS) - 1) // most) for n in counts.values()]
        click.echo(f"  {''.join(_COLUMNS[step] for step in steps)}")
    days = list(counts)
    fullest = max(days, key=lambda day: counts[day])
    most_said = f", most on {fullest}: {counts[fullest]:,}" if total else ""
    room = columns()
    for line in wrapped(f"{days[0]} to {days[-1]}: {total:,}{most_said}", room and room - 2):
        click.echo(f"  {line}")


def _fitting(widths: Sequence[int], room: int | None) -> list[int] | None:
    """Return how wide all columns but the last are; None where that leaves too little room for it."""
    *first, last = widths
    fitting = [*first[:1], *(min(taken, _WIDEST) for taken in first[1:])]
    if room is None:
        return fitting
    for place in range(1, len(first)):
        missing = min(last, _ROOMY) - (room - sum(2 + taken for taken in fitting))
        if first[place] > _WIDEST and missing > 0:
            fitting[place] = max(_WIDEST - missing, _LEAST)
    left = room - sum(2 + taken for taken in fitting)
    return None if left < min(last, _NARROWEST) else fitting


def _print_pairs(pairs: Mapping[str, str], room: int | None) -> None:
    names = max(map(width, pairs), default=0)
    lead = names + 4
    if room is not None and room - lead < _NARROWEST:
        names, lead = 0, 4
    for name, value in pairs.items():
        first, *others = wrapped(value, None if room is None else max(room - lead, 1))
        if names:
            gap = " " * (names - width(name))
            click.echo(f"  {name}{gap}  {first}".rstrip())
        else:
            click.echo(f"  {name}")
            others = [first, *others]
        for line in others:
            click.echo(" " * lead + line)


Shape = dict[str, Any]


def memories_shape(memories: Sequence[Memory]) -> Shape:
    """Return memories with all that is known of them."""
    return {"memories": [memory._asdict() for memory in memories]}


def past_shape(past: "Past") -> Shape:
    """Return a former version of a memory, and the change with which it went."""
    return {
        "memory": past.memory._asdict(),
        "change_id": past.change_id,
        "replaced_by": past.replaced_by,
    }


def receipts_shape(receipts: "Sequence[Receipt]") -> Shape:
    """Return what became of memories that were to be kept."""
    shapes = [asdict(receipt) for receipt in receipts]
    for shape, receipt in zip(shapes, receipts, strict=True):
        if receipt.similar is not None:  # None where nobody looked
            similar = receipt.similar
            shape["similar"] = [one.memory._asdict() | {"similarity": one.similarity} for one in similar]
    return {"receipts": shapes}


def recall_shape(recall: Recall) -> Shape:
    """Return what was recalled, best first."""
    return {
        "matches": [
            match.memory._asdict()
            | {"score": match.score, "relevance": match.relevance, "reasons": dict(match.reasons)}
            for match in recall.matches
        ],
        "mode": recall.mode,
        "messages": [
            message_shape(match.message) | {"thread_id": match.thread_id, "score": match.score}
            for match in recall.messages
        ],
        "remarks": recall.remarks,
    }


def changes_shape(summaries: "Sequence[ChangeSummary]") -> Shape:
    """Return changes with what each did to its first rows, and how many it touched."""
    return {
        "changes": [
            asdict(summary.change) | {"did": [asdict(row) | {"name": row.name} for row in summary.rows]}
            for summary in summaries
        ]
    }


def changed_shape(changed: "Changed") -> Shape:
    """Return what became of memories in one change."""
    return memories_shape(changed.memories) | {
        "change_id": changed.change_id,
        "newer": dict(changed.newer),
        "lines": [asdict(line) for line in changed.lines],
        "expiry_cleared": list(changed.expiry_cleared),
    }


def message_shape(message: Message) -> Shape:
    """Return a message of a thread."""
    return {name: getattr(message, name) for name in ("id", "role", "created_at", "content")}
