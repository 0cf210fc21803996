"""Dates in questions in English, German, French and Spanish: pure functions, no store, no clock.

No library: `dateparser` 1.5 reads "What may I eat?" as a date but not "last May" or "hace dos semanas",
and needs 230 ms up to its first answer; `dateutil` 4 knows neither "yesterday" nor other languages.
"""

import re
import unicodedata
from calendar import monthrange
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import MAXYEAR, MINYEAR, date, datetime, timedelta
from functools import cache, lru_cache
from typing import Literal

MAX_QUERY_CHARS = 2000
"""Characters of a query in which dates are looked for."""

# The weights of `date_score`, 0 to 1, and their reach in days, measured on questions about dated
# conversations. People write of a day on that day or soon after, so the days after count for more.
DAY_EXACT, DAY_WEEK_AFTER, DAY_BEFORE, DAY_NEAR = 1.0, 0.7, 0.4, 0.2
DAYS_EXACT, DAYS_WEEK_AFTER, DAYS_NEAR, DAYS_MONTH_AFTER = 2, 8, 31, 10
MONTH_SAME, MONTH_AFTER, YEAR_SAME, RANGE_INSIDE, RANGE_NEAR = 1.0, 0.3, 0.3, 1.0, 0.3

AGO = {"day": (1, 0, 0), "week": (7, 0, 3), "month": (0, 1, 10), "year": (0, 12, 0)}
"""Of a unit its days, its months, and by how many days "three of them ago" may be off."""


@dataclass(frozen=True, slots=True)
class DateSpan:
    """The days an expression means, both ends inclusive.

    Without a stated year it means a day or month of any year; `first` and `last` then give the latest.
    """

    kind: Literal["day", "month", "year", "range"]
    first: date
    last: date
    year_stated: bool = True


def _numbered(table: str) -> dict[str, int]:
    """Number the rows, separated by "/", from the number before the colon; each name has its row's."""
    start, _, rows = table.partition(":")
    return {name: n for n, row in enumerate(rows.split("/"), int(start)) for name in row.split()}


# Names are without accents; a trailing underscore marks a word in lower case that may be a verb.
_MONTHS = _numbered("""1: january jan januar janner janvier enero / february feb februar fevrier febrero
    / march march_ mar marz mars marzo / april apr avril abril / may may_ mai mayo
    / june jun juni juin junio / july jul juli juillet julio / august aug aout agosto
    / september sep sept septembre septiembre / october oct oktober octobre octubre
    / november nov novembre noviembre / december dec dezember decembre diciembre""")
_WEEKDAYS = _numbered("""0: monday montag lundi lunes / tuesday dienstag mardi martes
    / wednesday mittwoch mercredi miercoles / thursday donnerstag jeudi jueves
    / friday freitag vendredi viernes / saturday samstag samedi sabado
    / sunday sonntag dimanche domingo""")
_DAYS = _numbered("""-2: vorgestern avant-hier anteayer / yesterday gestern hier ayer anoche
    / today tonight heute aujourd'hui hoy / tomorrow demain""")
_NUMBERS = _numbered("""1: a an one ein eine einem einer un une una / two couple zwei deux dos
    / three few paar drei trois tres / four vier quatre cuatro / five funf cinq cinco / six sechs seis
    / seven sieben sept siete / eight acht huit ocho / nine neun neuf nueve / ten zehn dix diez""")
_SHIFTS = _numbered("""-1: last past previous letzte letzten letzter letztes vorige vorigen voriges
    dernier derniere passe passee ultimo ultima pasado pasada
    / this diese diesen dieser dieses ce cet cette este esta
    / next nachste nachsten nachstes prochain prochaine proximo proxima""")
_UNIT_NAMES = {
    "day": "day days tag tage tagen jour jours dia dias",
    "week": "week weeks woche wochen semaine semaines semana semanas",
    "month": "month months monat monate monaten mois mes meses",
    "year": "year years jahr jahre jahren an ans annee annees ano anos",
    "weekend": "weekend wochenende week-end",
    "part": "morning afternoon evening night nacht matin apres-midi soir nuit manana tarde noche",
}
_UNITS = {name: unit for unit, names in _UNIT_NAMES.items() for name in names.split()}

# What must stand beside a month name that is also a verb, a first name, a planet or a sauce.
_SURE = set("in|since|during|until|last|mid|end of|start of|beginning of|month of".split("|"))
_EN = _SURE | set("this next early late by before after around".split())
_DE = set("im seit bis anfang mitte ende letzten letzter vorigen diesen nachsten".split())
_FR = {*"en depuis fin debut dernier passe ce prochain".split(), "mois de"}
_ES = {*"en desde hasta ultimo pasado este proximo".split(), "mes de"}
_BESIDE = dict.fromkeys("may march june jan feb mar apr jun jul aug sep sept oct nov dec".split(), _EN)
_BESIDE |= {"april": _EN | _DE, "august": _EN | _DE, "mai": _DE | _FR, "mars": _FR, "mayo": _ES}
_BESIDE |= {"juli": _DE, "may_": _SURE, "march_": _SURE}
_BESIDE_YEAR = _EN | _DE | _FR | _ES | {"year", "jahr", "annee", "ano", "summer of", "winter of"}

_MARKS = re.compile("[\u0300-\u036f]+")
_VERB = re.compile(r"\b(may|march)\b(?! [0-9]{4})")
_WORD = re.compile(r"[A-Za-z]+")
_YEAR = re.compile("(?:19|20)[0-9]{2}")
_DIGIT = re.compile("[0-9]")
_YEAR_OR_CLOCK = re.compile(r"\b(?:(?:19|20)[0-9]{2}|(?:[01]?[0-9]|2[0-3]):[0-5][0-9])\b")
# Strings, so that `re` compiles and keeps them at first use: it would take milliseconds of the start.
_FRENCH = r"^hier\W*$|\b(?:j|ai|as|je|tu|il|elle|nous|vous|qu|que|qui|quoi|est|le|la|les|soir)\b"
_ASKS_WHEN = (
    r"[\s¿]*(?:when|how long|what (?:year|month|date|day|time)|(?:seit |bis )?wann|wie lange"
    r"|(?:(?:an|in) )?welche[mnrs]? (?:jahr|monat|datum|tag)|(?:depuis )?(?:quand|combien de temps)"
    r"|(?:en |a )?quel(?:le)? (?:annee|mois|date|jour|heure)|(?:desde )?cuando|(?:por )?cuanto tiempo"
    r"|(?:en |a )?que (?:ano|mes|fecha|dia|hora))\b"
)
_GATE_WORDS = {*_MONTHS, *_WEEKDAYS, *_DAYS, *_UNITS, "aujourd"} - {"an"}
_TIME_WORDS = {*_MONTHS, *_WEEKDAYS, *_DAYS, *_UNITS, "ago"} - {*_BESIDE, "hier", "an", "mes"}
_TIME_WORDS -= {name for unit in ("day", "part") for name in _UNIT_NAMES[unit].split()}
_TIME_WORDS |= {"april", "june", "august"}

_Reader = Callable[[re.Match[str], date], DateSpan | None]


def find_dates(query: str, now: datetime) -> tuple[DateSpan, ...]:
    """Find the days, months, years and ranges a question names, relative to `now` (aware, UTC)."""
    text = _folded(query[:MAX_QUERY_CHARS])
    if _GATE_WORDS.isdisjoint(_WORD.findall(text.lower())) and not _YEAR.search(text):
        return ()
    text = _VERB.sub(r"\1_", " ".join(text.split())).lower()
    found: dict[DateSpan, None] = {}
    for pattern, reader in _rules():
        for match in tuple(pattern.finditer(text)):
            span = None
            with suppress(ValueError, OverflowError):  # 31 February, or outside the calendar
                span = reader(match, now.date())
            if span:
                found[span] = None
                # What one rule has read is covered, so that no other reads a part of it again.
                text = text[: match.start()] + "|" * len(match[0]) + text[match.end() :]
    return tuple(found)


def date_score(spans: Sequence[DateSpan], occurred: date) -> float:
    """Say how well `occurred` fits the best of the spans, 0 to 1; without spans 0."""
    return max((_score(span, occurred) for span in spans), default=0.0)


def names_day(spans: Sequence[DateSpan], occurred: date) -> bool:
    """Whether one of the spans is this very day, of any year where none is stated."""
    return any(
        span.kind == "day"
        and (span.first.month, span.first.day) == (occurred.month, occurred.day)
        and (not span.year_stated or span.first.year == occurred.year)
        for span in spans
    )


def asks_when(query: str) -> bool:
    """Whether the query begins as a question for a time or a duration."""
    return re.match(_ASKS_WHEN, _folded(query[:50]).lower()) is not None


def has_time_word(text: str) -> bool:
    """Whether the text has a month, weekday, "yesterday", "week", "ago", a year 1900-2099 or hh:mm.

    "May" and "March" count with a capital only, short forms of months not at all.
    """
    words = set(_WORD.findall(_folded(text)))
    named = "May" in words or "March" in words or not _TIME_WORDS.isdisjoint(map(str.lower, words))
    return named or bool(_DIGIT.search(text) and _YEAR_OR_CLOCK.search(text))


@lru_cache(4_096)
def day_words(occurred: date) -> str:
    """Write a day in English words for the full-text index: "8 May 2023"."""
    month = next(name for name, number in _MONTHS.items() if number == occurred.month)
    return f"{occurred.day} {month.capitalize()} {occurred.year}"


def _folded(text: str) -> str:
    if text.isascii():
        return text
    return _MARKS.sub("", unicodedata.normalize("NFD", text)).replace("\u2019", "'")


@cache
def _rules() -> tuple[tuple[re.Pattern[str], _Reader], ...]:
    """The patterns, the more specific first; compiled at first use to keep the start quick."""

    def any_of(names: Iterable[str]) -> str:
        return "(?:" + "|".join(sorted(names, key=len, reverse=True)) + ")"

    begin, year = r"(?<![\w.,:/$-])", r"(?P<year>(?:19|20)\d\d)(?!\w|[.,:/-]\d)"
    day, mark = r"(?P<day>\d\d?)", r"(?P<mark>[-/.])(?P<month>\d\d?)(?P=mark)"
    month, of_year = rf"\b(?P<month>{any_of(_MONTHS)})\b\.?", rf"(?:,? (?:del? |of )?{year})?"
    before, shift = r"(?:\b(?P<before>[a-z]+(?: of| de)?)[ -])?", rf"(?P<shift>\b{any_of(_SHIFTS)}\b)"
    units = any_of(name for unit in AGO for name in _UNIT_NAMES[unit].split())
    amount = rf"\b(?P<amount>\d{{1,3}}|{any_of(_NUMBERS)}) (?:of )?(?P<unit>{units})\b"
    target, habit = any_of([*_WEEKDAYS, *_UNITS]), r"\b(?:every|each|good|black|jeden|chaque|cada) "
    dot, of, on = r"(?P<dot>\.)?(?:st|nd|rd|th|er)?", "(?P<of> of| de)?", r"(?P<on>\bon (?:the )?)?"
    suffix = r"(?P<dot>)(?P<of>st|nd|rd|th)?(?![\w:%]|[.,]\d)"
    sources: tuple[tuple[_Reader, str], ...] = (
        (_numeric, rf"{begin}(?P<year>(?:19|20)\d\d){mark}{day}(?!\d)"),
        (_numeric, rf"{begin}{day}{mark}{year}"),
        (_month_day, rf"{on}{begin}{day}{dot}{of} {month}{of_year}"),
        (_month_day, rf"{on}{month} {day}{suffix}{of_year}"),
        (_ago, rf"{amount} ago\b"),
        (_ago, rf"\b(?:vor|il y a|hace)(?: ein)? {amount}"),
        (_ago, rf"{shift} {amount}"),
        (_near_today, rf"\b(?P<day>day before yesterday|{any_of(_DAYS)})\b"),
        (_shifted, rf"(?P<habit>{habit})?{shift} (?P<target>{target})\b"),
        (_shifted, rf"\b(?P<target>{target}) {shift}"),
        (_shifted, rf"(?P<habit>{habit})?\b(?P<target>{any_of(_WEEKDAYS)})\b(?! gras)"),
        (_month, rf"{before}{month}{of_year}(?: {shift})?"),
        (_year, rf"{before}{begin}{year}"),
    )
    return tuple((re.compile(source, re.ASCII), reader) for reader, source in sources)


def _around(day: date, margin: int = 0) -> DateSpan:
    return DateSpan("range" if margin else "day", day - timedelta(margin), day + timedelta(margin))


def _whole(year: int, month: int = 0, *, year_stated: bool = True) -> DateSpan:
    first, last = date(year, month or 1, 1), _clipped(year, month or 12, 31)
    return DateSpan("month" if month else "year", first, last, year_stated)


def _clipped(year: int, month: int, day: int) -> date:
    """The day, or the last one of its month; a month outside 1 to 12 is one of another year."""
    year, month = year + (month - 1) // 12, (month - 1) % 12 + 1
    return date(year, month, min(day, monthrange(year, month)[1]))


def _numeric(match: re.Match[str], today: date) -> DateSpan | None:
    day, month = int(match["day"]), int(match["month"])
    if match.start("day") < match.start("month") and match["mark"] != ".":
        if day <= 12 and month <= 12 and day != month:
            return None  # 03/04/2023: day and month, or month and day
        day, month = max(day, month), min(day, month)
    return _around(date(int(match["year"]), month, day))


def _month_day(match: re.Match[str], today: date) -> DateSpan | None:
    name, day, month = match["month"], int(match["day"]), _MONTHS[match["month"]]
    if match["year"]:
        return _around(date(int(match["year"]), month, day))
    if match["dot"] and name in {"may", "march"}:
        return None  # "3. May I ask"
    if name in {"may_", "march_", "mayo"} and not (match["on"] or match["of"]):
        return None
    years = (year for year in range(today.year, today.year - 9, -1) if day <= monthrange(year, month)[1])
    latest = next((then for year in years if (then := date(year, month, day)) <= today), None)
    return DateSpan("day", latest, latest, year_stated=False) if latest else None


def _ago(match: re.Match[str], today: date) -> DateSpan | None:
    word, unit = match["amount"], _UNITS[match["unit"]]
    amount, (days, months, margin) = _NUMBERS.get(word) or int(word), AGO[unit]
    then = _clipped(today.year, today.month - months * amount, today.day) - timedelta(days * amount)
    if shift := match.groupdict().get("shift"):
        return DateSpan("range", then, today) if _SHIFTS[shift] < 0 else None
    return _whole(then.year) if unit == "year" else _around(then, margin)


def _near_today(match: re.Match[str], today: date) -> DateSpan | None:
    if match["day"] == "hier" and not re.search(_FRENCH, match.string):
        return None  # German: here
    return _around(today + timedelta(_DAYS.get(match["day"], -2)))


def _shifted(match: re.Match[str], today: date) -> DateSpan | None:
    groups, word = match.groupdict(), match["target"]
    shift = _SHIFTS[groups["shift"]] if groups.get("shift") else None
    if groups.get("habit"):
        return None
    if word in _WEEKDAYS:
        ahead = (_WEEKDAYS[word] - today.weekday()) % 7
        days = {
            None: (ahead - 7) % -7,
            -1: ahead - 7,
            0: _WEEKDAYS[word] - today.weekday(),
            1: ahead or 7,
        }
        return _around(today + timedelta(days[shift]))
    return _shifted_unit(_UNITS[word], shift or 0, today)


def _shifted_unit(unit: str, shift: int, today: date) -> DateSpan | None:
    monday = today + timedelta(7 * shift - today.weekday())
    if unit in {"week", "weekend"}:
        return DateSpan("range", monday + timedelta(5 * (unit == "weekend")), monday + timedelta(6))
    if unit == "month":
        then = _clipped(today.year, today.month + shift, 1)
        return _whole(then.year, then.month)
    if unit == "year":
        return _whole(today.year + shift)
    return _around(today + timedelta(shift)) if unit == "part" and shift <= 0 else None


def _month(match: re.Match[str], today: date) -> DateSpan | None:
    name, month = match["month"], _MONTHS[match["month"]]
    if match["year"]:
        return _whole(int(match["year"]), month)
    beside = {match["before"], match["shift"]}
    if name in _BESIDE and beside.isdisjoint(_BESIDE[name]):
        return None
    shift = next((_SHIFTS[word] for word in (match["shift"], match["before"]) if word in _SHIFTS), None)
    years = {None: -(month > today.month), -1: -(month > today.month), 0: 0, 1: month <= today.month}
    return _whole(today.year + years[shift], month, year_stated=shift is not None)


def _year(match: re.Match[str], today: date) -> DateSpan | None:
    return _whole(int(match["year"])) if match["before"] in _BESIDE_YEAR else None


def _score(span: DateSpan, occurred: date) -> float:
    if span.kind == "day":
        near = range(max(occurred.year - 1, MINYEAR), min(occurred.year + 1, MAXYEAR) + 1)
        years = [span.first.year] if span.year_stated else near
        days = (_clipped(year, span.first.month, span.first.day) for year in years)
        return max(_day_score((occurred - day).days) for day in days)
    months = 12 * (occurred.year - span.first.year) + occurred.month - span.first.month
    if span.kind == "month":
        months = months if span.year_stated else months % 12
        after = MONTH_AFTER if months == 1 and occurred.day <= DAYS_MONTH_AFTER else 0.0
        return MONTH_SAME if months == 0 else after
    if span.kind == "year":
        return YEAR_SAME if occurred.year == span.first.year else 0.0
    outside = max(span.first - occurred, occurred - span.last).days
    return RANGE_INSIDE if outside <= 0 else RANGE_NEAR * (outside <= (span.last - span.first).days + 1)


def _day_score(after: int) -> float:
    if 0 <= after <= DAYS_WEEK_AFTER:
        return DAY_EXACT if after <= DAYS_EXACT else DAY_WEEK_AFTER
    return DAY_BEFORE if after == -1 else DAY_NEAR * (abs(after) <= DAYS_NEAR)
