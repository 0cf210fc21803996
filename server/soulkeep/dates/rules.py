"""Finding the dates in a question: the patterns, and what joins or cuts what they find."""

import re
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from functools import cache

from soulkeep.dates import periods, readers
from soulkeep.dates.names import (
    DAYS,
    DECADES,
    HALVES,
    MONTHS,
    NUMBERS,
    ORDINALS,
    SEASONS,
    SHIFTS,
    SHIFTS_AFTER,
    THIRDS,
    UNIT_NAMES,
    UNITS,
    WEEKDAYS,
    any_of,
    folded,
)
from soulkeep.dates.readers import AGO, Now
from soulkeep.dates.spans import DateSpan, joined

MAX_QUERY_CHARS = 2000
"""Characters of a query in which dates are looked for."""

_VERB = re.compile(r"\b(may|march)\b(?! [0-9]{4})")
_WORD = re.compile(r"[A-Za-z]+")
_NUMERIC = re.compile(r"(?:19|20)[0-9]{2}|\b[qQhH][1-4]\b|\b[0-9]0'?(?:s|er)")
_GATE_WORDS = {*MONTHS, *WEEKDAYS, *DAYS, *UNITS, *SEASONS, *DECADES, *HALVES, "aujourd"} - {"an"}
_UP_TO = r" ?-+ ?| (?:to|until|till|through|bis(?: zum)?|au|jusqu'au|al|hasta(?: el)?)(?: the)? "
_OF = "start beginning middle end".split()
_THIRD = (
    rf"\b(?P<third>{any_of({*THIRDS} - {*_OF, 'mi'})}|{any_of(_OF)}(?= of)|mi(?=-))"
    r"(?: (?:of|de|des|du|del|la|the|der|dem|den))*(?:[ -]|$)(?:l')?$"
)
_END_OF_THIS = rf"\b({any_of(THIRDS)} of) the (?=(?:week|month|quarter|year)\b)"

_Reader = Callable[[re.Match[str], Now], DateSpan | None]
_Sources = tuple[tuple[_Reader, str], ...]
_CORE = ("shift", "season", "month", "year", "part", "decade", "target", "the")
"""What a third may be named of."""


def find_dates(query: str, now: datetime) -> tuple[DateSpan, ...]:
    """Find the days and times of days that a question names, relative to `now` (the user's, aware).

    A month, season or quarter without a year is that of any year; a season is that of the hemisphere of
    the zone of `now`. "End of" and "early" mean a third of what follows; "from A to B" is one span.
    """
    text = folded(query[:MAX_QUERY_CHARS])
    if _GATE_WORDS.isdisjoint(_WORD.findall(text.lower())) and not _NUMERIC.search(text):
        return ()
    text = _VERB.sub(r"\1_", " ".join(text.split())).lower()
    text = rest = re.sub(_END_OF_THIS, r"\1 this ", text)
    asked = Now(now.date(), periods.is_southern(str(now.tzinfo)))
    found: list[tuple[int, int, DateSpan]] = []
    for pattern, reader in _rules():
        for match in tuple(pattern.finditer(rest)):
            span = None
            with suppress(ValueError, OverflowError):  # 31 February, or outside the calendar
                span = _third_of(reader(match, asked), match, text)
            if span:
                found.append((*match.span(), span))
                # What one rule has read is covered, so that no other reads a part of it again.
                rest = rest[: match.start()] + "|" * len(match[0]) + rest[match.end() :]
    return tuple(dict.fromkeys(_connected(sorted(found, key=lambda part: part[:2]), text)))


def _third_of(span: DateSpan | None, match: re.Match[str], text: str) -> DateSpan | None:
    """Cut a span to the third of it that is named before it: early, middle or end."""
    if span is None or span.kind == "day":
        return span
    groups = match.groupdict()
    starts = [match.start(name) for name in _CORE if groups.get(name)]
    begin = min(starts, default=match.start())
    named = re.search(_THIRD, text[:begin])
    return span.third(THIRDS[named["third"]]) if named else span


def _connected(found: list[tuple[int, int, DateSpan]], text: str) -> list[DateSpan]:
    """Make one span of two with "to" between them."""
    spans: list[DateSpan] = []
    end = 0
    for start, stop, span in found:
        whole = None
        if spans and re.fullmatch(_UP_TO, text[end:start]):
            with suppress(ValueError, OverflowError):
                whole = joined(spans[-1], span)
        if whole:
            spans[-1] = whole
        else:
            spans.append(span)
        end = stop
    return spans


_BEGIN, _YEAR = r"(?<![\w.,:/$-])", r"(?P<year>(?:19|20)\d\d)(?!\w|[.,:/-]\d)"
_DAY, _MARK = r"(?P<day>\d\d?)", r"(?P<mark>[-/.])(?P<month>\d\d?)(?P=mark)"
_MONTH, _OF_YEAR = rf"\b(?P<month>{any_of(MONTHS)})\b\.?", rf"(?:,? (?:del? |of )?{_YEAR})?"
_BEFORE, _SHIFT = r"(?:\b(?P<before>[a-z]+(?: of| de)?)[ -])?", rf"(?P<shift>\b{any_of(SHIFTS)}\b)"


@cache
def _rules() -> tuple[tuple[re.Pattern[str], _Reader], ...]:
    """The patterns, the more specific first; compiled at first use to keep the start quick."""
    sources = (*_dates(), *_times_before(), *_parts_of_years(), *_times_beside())
    return tuple((re.compile(source, re.ASCII), reader) for reader, source in sources)


def _dates() -> _Sources:
    iso = r"(?P<year>(?:19|20)\d\d)(?P<mark>[-/])(?P<month>\d\d)(?P=mark)(?P<day>\d\d)"
    then = r"(?:(?:(?P<year2>(?:19|20)\d\d)(?P=mark))?(?P<month2>\d\d)(?P=mark))?(?P<day2>\d\d)"
    since = r"(?P<on>\b(?:from|between|vom|von|zwischen|du|entre|del?)(?: the| le| el)? )?"
    to = r"(?: ?[-/&] ?| (?:to|until|till|through|and|bis(?: zum)?|und|au|al|et|y|a)(?: the)? )"
    dot, of, on = r"(?P<dot>\.)?(?:st|nd|rd|th|er)?", "(?P<of> of| de)?", r"(?P<on>\bon (?:the )?)?"
    nth, suffix = r"\.?(?:st|nd|rd|th|er)?", r"(?P<dot>)(?P<of>st|nd|rd|th)?(?![\w:%]|[.,]\d)"
    return (
        (
            readers.iso_range,
            rf"{_BEGIN}{iso}(?:/|\.\.| ?- ?| (?:to|until|bis|au|al) ){then}(?![\w:]|[-./]\d)",
        ),
        (
            readers.numeric_days,
            rf"{_BEGIN}{_DAY}\.?{to}(?P<day2>\d\d?)(?P<mark>[./])(?P<month>\d\d?)(?P=mark){_YEAR}",
        ),
        (readers.numeric, rf"{_BEGIN}(?P<year>(?:19|20)\d\d){_MARK}{_DAY}(?!\d)"),
        (readers.numeric, rf"{_BEGIN}{_DAY}{_MARK}{_YEAR}"),
        (
            readers.numeric_month,
            rf"{_BEGIN}(?P<year>(?:19|20)\d\d)[-/](?P<month>\d\d)(?![\w:%]|[-./]\d)",
        ),
        (readers.numeric_month, rf"{_BEGIN}(?P<month>\d\d?(?=/)|\d\d)[./]{_YEAR}"),
        (readers.days, rf"{since}{_BEGIN}{_DAY}{nth}{to}(?P<day2>\d\d?){nth}{of} {_MONTH}{_OF_YEAR}"),
        (readers.days, rf"{since}{_MONTH} {_DAY}{nth}{to}(?P<day2>\d\d?){suffix}{_OF_YEAR}"),
        (readers.month_day, rf"{on}{_BEGIN}{_DAY}{dot}{of} {_MONTH}{_OF_YEAR}"),
        (readers.month_day, rf"{on}{_MONTH} {_DAY}{suffix}{_OF_YEAR}"),
        (
            readers.months,
            rf"\b(?P<month>{any_of(MONTHS)})(?: ?- ?| (?:to|until|through|bis|a|al|hasta) )"
            rf"(?P<month2>{any_of(MONTHS)})\b{_OF_YEAR}",
        ),
    )


def _times_before() -> _Sources:
    units = any_of(name for unit in AGO for name in UNIT_NAMES[unit].split())
    amount = rf"\b(?P<amount>\d{{1,3}}|{any_of(NUMBERS)}) (?:of )?(?P<unit>{units})\b"
    return (
        (readers.ago, rf"{amount} ago\b"),
        (readers.ago, rf"\b(?:vor|il y a|hace)(?: ein)? {amount}"),
        (readers.ago, rf"{_SHIFT} {amount}"),
        (readers.near_today, rf"\b(?P<day>day before yesterday|{any_of(DAYS)})\b"),
    )


def _parts_of_years() -> _Sources:
    units = any_of(["quarter", "quartal", "trimestre", *HALVES])
    part = rf"(?P<part>(?:\b|(?<=\d{{4}}))[qh][1-4]|\b{any_of(ORDINALS)} {units})"
    season = rf"\b(?P<season>{any_of(SEASONS)})\b"
    inside = rf"(?:\b(?P<before>in|during|im|en|au|{any_of(THIRDS)})(?: of)?(?: the)? )?"
    decade = rf"(?P<decade>{any_of(DECADES)}(?:n|jahre)?\b|(?P<century>19|20)?\d0'?(?:s|er[ns]?)\b)"
    the = r"(?:\b(?P<the>the|den|der|die) |(?P<quote>'))?"
    return (
        (
            readers.part_of_year,
            rf"(?:{_BEGIN}(?P<year2>(?:19|20)\d\d)[ /-]?)?{part}\b"
            rf"(?:[ ,/-]*(?:of |de |des |del )?(?:{_YEAR}|{_SHIFT} (?:year|jahres|annee|ano)))?",
        ),
        (
            readers.season,
            rf"{inside}(?:{_SHIFT} )?{season}(?: (?P<after>{any_of(SHIFTS_AFTER)})\b)?"
            r"(?:,? (?:of |de |del )?(?P<year>(?:19|20)\d\d)(?:/(?:19|20)?\d\d)?(?!\w))?",
        ),
        (
            readers.decade,
            rf"(?:\b(?P<before>early|mid|late)[ -])?{the}\b{decade}(?: jahren?\b)?",
        ),
        (readers.decade, r"\b(?:annees|anos)(?P<the> )(?P<decade>(?P<century>19|20)?\d0)\b"),
        (
            readers.years,
            rf"{_BEGIN}(?P<year>(?:19|20)\d\d)(?:[-/]| (?:to|until|and|bis|und|a) )"
            r"(?P<year2>(?:19|20)\d\d)(?!\w|[.,:/-]\d)",
        ),
    )


def _times_beside() -> _Sources:
    target, habit = any_of([*WEEKDAYS, *UNITS]), r"\b(?:every|each|good|black|jeden|chaque|cada) "
    return (
        (readers.shifted, rf"(?P<habit>{habit})?{_SHIFT} (?P<target>{target})\b"),
        (readers.shifted, rf"\b(?P<target>{target}) {_SHIFT}"),
        (readers.shifted, rf"(?P<habit>{habit})?\b(?P<target>{any_of(WEEKDAYS)})\b(?! gras)"),
        (readers.month, rf"{_BEFORE}{_MONTH}{_OF_YEAR}(?: {_SHIFT})?"),
        (readers.year, rf"{_BEFORE}{_BEGIN}{_YEAR}"),
        (readers.year, rf"\b(?P<before>{any_of(THIRDS)})-{_YEAR}"),
    )
