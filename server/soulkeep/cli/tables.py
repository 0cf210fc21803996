"""Tables, facts and charts as wide as the terminal is, with columns as wide as they look."""

from collections.abc import Mapping, Sequence

import click

from soulkeep.cli.terminal import can_show, columns, cut, one_line, say, width, wrapped

_NARROWEST, _ROOMY = 12, 32
"""A last column with less room than the first, if it needs that much, is put under the others; up to the
second, longer cells give way to it."""
_WIDEST, _LEAST = 24, 12
"""A longer cell is cut to between these, and where nobody looks does not push its column aside."""
_LINES = 3
_BAR = 30
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
        _print_rows(headings, cells, room or 0)
        return
    left = None if room is None else room - sum(2 + taken for taken in first)
    say(_line(headings, first, left), bold=True)
    for row in cells:
        click.echo(_line(row, first, left))


def print_facts(title: str, facts: Mapping[str, str]) -> None:
    """Print names and values in two columns under a title."""
    say(title, bold=True)
    _print_pairs({one_line(name): one_line(value) for name, value in facts.items()}, columns())


def print_bars(title: str, counts: Mapping[str, int]) -> None:
    """Print a bar for each count under a title."""
    most = max([*counts.values(), 1])
    names = max(map(len, counts), default=0)
    room = max(5, min(_BAR, (columns() or 80) - names - len(f"{most:,}") - 6))
    block = "█" if can_show("█") else "#"
    say(title, bold=True)
    for name, count in counts.items():
        say(f"  {name:{names}}  {block * -(-room * count // most):{room}}  {count:,}")


def print_days(title: str, counts: Mapping[str, int]) -> None:
    """Print a column of one character for each day, with the first, the last and the fullest day."""
    most, total = max([*counts.values(), 1]), sum(counts.values())
    say(title, bold=True)
    if can_show(_COLUMNS):
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


def _line(cells: Sequence[str], widths: Sequence[int], left: int | None) -> str:
    *first, last = cells
    if left is not None:
        first = [*first[:1], *map(cut, first[1:], widths[1:])]
        last = cut(last, left)
    return "  ".join([*map(_padded, first, widths), last]).rstrip()


def _print_rows(headings: Sequence[str], rows: Sequence[Sequence[str]], room: int) -> None:
    for place, row in enumerate(rows):
        click.echo("\n" * bool(place), nl=False)
        *_, last = headings
        shown = {
            name: cut(cell, room * _LINES if name == last else room - max(map(width, headings)) - 4)
            for name, cell in zip(headings, row, strict=True)
            if cell
        }
        _print_pairs(shown, room)


def _print_pairs(pairs: Mapping[str, str], room: int | None) -> None:
    names = max(map(width, pairs), default=0)
    lead = names + 4
    if room is not None and room - lead < _NARROWEST:
        names, lead = 0, 4
    for name, value in pairs.items():
        first, *others = wrapped(value, None if room is None else max(room - lead, 1))
        if names:
            click.echo(f"  {_padded(name, names)}  {first}".rstrip())
        else:
            click.echo(f"  {name}")
            others = [first, *others]
        for line in others:
            click.echo(" " * lead + line)


def _padded(cell: str, wide: int) -> str:
    return cell + " " * (wide - width(cell))
