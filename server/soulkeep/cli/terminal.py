"""Putting text that others wrote on the user's terminal, and figures for people and for scripts."""

import json
import shutil
import sys
import time
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import click

from soulkeep.progress import told_to

_NARROWEST = 20
_BAR = 30
_QUICK_S = 1
"""What takes no longer shows no progress."""
_COLUMNS = "▁▂▃▄▅▆▇█"


def printable(text: str) -> str:
    """Replace the control characters with which a stored text could drive the terminal."""
    return "".join("�" if _drives_terminal(character) else character for character in text)


def one_line(text: str) -> str:
    """Return a text as one printable line."""
    return " ".join(printable(text).split())


def print_json(document: object) -> None:
    """Print one JSON document for scripts; what could drive a terminal is escaped."""
    click.echo(json.dumps(document, indent=2))


def print_table(headings: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print aligned columns without the empty ones; on a terminal, the last is cut to its width."""
    cells = [["" if value is None else one_line(str(value)) for value in row] for row in rows]
    filled = [place for place in range(len(headings)) if any(row[place] for row in cells)]
    widths = [max(_width(row[place]) for row in [headings, *cells]) for place in filled]
    click.secho(_line([headings[place] for place in filled], widths), bold=True)
    for row in cells:
        click.echo(_line([row[place] for place in filled], widths))


def print_facts(title: str, facts: Mapping[str, str]) -> None:
    """Print names and values in two columns under a title."""
    click.secho(title, bold=True)
    width = max(map(len, facts), default=0)
    for name, value in facts.items():
        click.echo(f"  {name:{width}}  {value}")


def print_bars(title: str, counts: Mapping[str, int]) -> None:
    """Print a bar for each count under a title."""
    most = max([*counts.values(), 1])
    block = _drawable("█") or "#"
    bars = {name: f"{block * -(-_BAR * n // most):{_BAR}}  {n:,}" for name, n in counts.items()}
    print_facts(title, bars)


def print_days(title: str, counts: Mapping[str, int]) -> None:
    """Print a column of one character for each day, with the first, the last and the fullest day."""
    most, total = max([*counts.values(), 1]), sum(counts.values())
    click.secho(title, bold=True)
    if columns := _drawable(_COLUMNS):
        # The lowest column stands for a day without any.
        steps = [-(-n * (len(columns) - 1) // most) for n in counts.values()]
        click.echo(f"  {''.join(columns[step] for step in steps)}")
    days = list(counts)
    fullest = max(days, key=lambda day: counts[day])
    most_said = f", most on {fullest}: {counts[fullest]:,}" if total else ""
    click.echo(f"  {days[0]} to {days[-1]}: {total:,}{most_said}")


@contextmanager
def progress_shown() -> Iterator[None]:
    """Show on a terminal what is being done, once the block has taken a second."""
    began, shown = time.monotonic(), ""

    def show(doing: str, share: float | None) -> None:
        nonlocal shown
        seconds = int(time.monotonic() - began)
        line = f"{doing}, {seconds} s" if share is None else f"{doing}: {share:.0%}, {seconds} s"
        if seconds >= _QUICK_S and line != shown and sys.stderr.isatty():
            click.echo(f"\r{line.ljust(len(shown))}", nl=False, err=True)
            shown = line

    try:
        with told_to(show):
            yield
    finally:
        if shown:
            click.echo(err=True)


def size_text(size: int) -> str:
    """Write a number of bytes as people read it."""
    value, units = float(size), iter(("bytes", "kB", "MB", "GB"))
    unit = next(units)
    while value >= 1_000 and unit != "GB":
        value, unit = value / 1_000, next(units)
    return f"{size:,} bytes" if unit == "bytes" else f"{value:,.1f} {unit}"


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    *first, last = cells
    padded = [cell + " " * (width - _width(cell)) for cell, width in zip(first, widths, strict=False)]
    room = shutil.get_terminal_size().columns - sum(width + 2 for width in widths[:-1])
    shown = _cut(last, max(room, _NARROWEST)) if sys.stdout.isatty() else last
    return "  ".join([*padded, shown]).rstrip()


def _cut(text: str, width: int) -> str:
    if _width(text) <= width:
        return text
    kept, taken = "", 1  # one column is for the sign that something is left out
    for character in text:
        taken += _width(character)
        if taken > width:
            break
        kept += character
    return f"{kept.rstrip()}…"


def _width(text: str) -> int:
    """Return how many columns of a terminal a text takes."""
    return sum(map(_character_width, text))


def _character_width(character: str) -> int:
    if unicodedata.category(character) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def _drawable(blocks: str) -> str:
    """Return the blocks, or nothing where the output's encoding has none."""
    try:
        blocks.encode(sys.stdout.encoding or "ascii")
    except UnicodeEncodeError:
        return ""
    return blocks


def _drives_terminal(character: str) -> bool:
    return unicodedata.category(character) == "Cc" and character not in "\n\t"
