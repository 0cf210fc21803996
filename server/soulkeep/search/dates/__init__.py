"""Dates in questions in English, German, French and Spanish: pure functions, no store, no clock.

Of ten other languages the words for days and times before this one are read, and days as East Asia
writes them.

No library: `dateparser` 1.5 reads "What may I eat?" as a date but not "last May" or "hace dos semanas",
and needs 230 ms up to its first answer; `dateutil` 4 knows neither "yesterday" nor other languages.
"""

import re
from collections.abc import Callable
from contextlib import suppress
from datetime import date, datetime
from functools import cache, lru_cache
from unicodedata import normalize

from soulkeep.days import SOUTHERN, DateSpan, joined
from soulkeep.search.dates import readers
from soulkeep.search.dates.readers import (
    AGO,
    BESIDE,
    CLOCK,
    DAYS,
    DECADES,
    ENGLISH_ORDINALS,
    HALVES,
    LAST,
    MONTH_HALVES,
    MONTHS,
    MORNINGS,
    NUMBERS,
    ORDINALS,
    OTHER_ORDINALS,
    SEASONS,
    SHIFTS,
    SHIFTS_AFTER,
    THIRDS,
    UNIT_NAMES,
    UNITS,
    WEEKDAYS,
    Now,
    any_of,
    folded,
)

MAX_QUERY_CHARS = 2000
"""Characters of a query in which dates are looked for."""

_VERB = re.compile(r"\b(may|march)\b(?! [0-9]{4})")
_WORD = re.compile(r"[A-Za-z]+")
_NUMERIC = re.compile("(?<![0-9])(?:[0-9]{1,2}|(?:19|20)[0-9]{2})(?![0-9])")
_GATE_WORDS = {*MONTHS, *WEEKDAYS, *DAYS, *UNITS, *SEASONS, *DECADES, *HALVES} - {"an"}
_GATE_WORDS |= set("aujourd avant apres antes fin fines morgen dernier passe prochain".split())
_GATE_WORDS |= set("christmas xmas weihnachten heiligabend noel navidad nochebuena halloween".split())
_GATE_WORDS |= set("eve silvester nochevieja boxing neujahr nouvel nuevo valentine valentin".split())
_GATE_WORDS |= {"valentines", "valentinstag", "sylvestre"}
_GATE_WORDS |= {f"{weekday}s" for weekday in (*WEEKDAYS, "weekend", "week-end")} | {"wochenenden"}
_GATE_WORDS |= {time + part for time in ("monats", "jahres") for part in ("anfang", "mitte", "ende")}
_GATE_WORDS |= {month + part for month in MONTHS for part in ("woche", "wochenende", "halfte")}
_UP_TO = r" ?-+ ?| (?:to|until|till|through|bis(?: zum)?|au|jusqu'au|al|hasta(?: el)?)(?: the)? "
_OF = "start beginning middle end".split()
_THIRD = (
    rf"\b(?P<third>{any_of({*THIRDS} - {*_OF, 'mi'})}|{any_of(_OF)}(?= of)|mi(?=-))"
    r"(?: (?:of|de|des|du|del|la|the|der|dem|den|month|monate?s?|mois|mes|year|jahre?s?|annee|ano))*"
    r"(?:[ -]|$)(?:l')?$"
)

_Reader = Callable[[re.Match[str], Now], DateSpan | None]
_Sources = tuple[tuple[_Reader, str], ...]
_CORE = ("shift", "season", "month", "year", "part", "decade", "target", "the")
"""What a third may be named of."""

_PERIODS = any_of(
    name for unit in ("week", "month", "quarter", "year") for name in UNIT_NAMES[unit].split()
)
_PARTS = any_of((*THIRDS, "half", "quarter", "quartal", "trimestre", *HALVES))
_MONTHS = any_of(name for name in MONTHS if name.isalpha())
_OR_A_HALF = "half a|(?:einem |ein )?halbe[sn]?|(?:une? )?demi-?|medio"

# Days that have a name, where it says when: "for Christmas" does not.
_HOLIDAYS = {
    "24 december": "christmas eve|heiligabend|nochebuena",
    "25 december": "christmas day",
    "26 december": "boxing day",
    "24-26 december": "christmas|xmas|weihnachten|noel|navidad",
    "31 december": "new year'?s eve|silvester|la saint-sylvestre|nochevieja",
    "1 january": "new year'?s day|neujahr|nouvel an|ano nuevo",
    "14 february": "valentine'?s day|valentinstag|saint-valentin|san valentin",
    "31 october": "halloween",
}
_AT = "at|on|over|during|around|since|until|after|before|last|this|zu|an|uber|seit|letzte[ns]?|en|el|le"

# What others call these times; of scripts without spaces it stands anywhere.
_ABROAD = {
    "yesterday": "ieri ontem gisteren вчера вчора wczoraj dün igår i_går أمس البارحة 昨天 昨日 어제",
    "day before yesterday": """l'altro_ieri anteontem eergisteren позавчера przedwczoraj evvelsi_gün 前天
        一昨日 おととい 그저께""",
    "today": "oggi hoje vandaag сегодня сьогодні dzisiaj bugün idag اليوم 今天 今日 오늘",
    "last week": """la_settimana_scorsa scorsa_settimana semana_passada afgelopen_week прошлой_неделе
        zeszłym_tygodniu geçen_hafta الأسبوع_الماضي 上周 上週 上星期 先週 지난주""",
    "last month": """il_mese_scorso scorso_mese mês_passado afgelopen_maand vorige_maand прошлом_месяце
        zeszłym_miesiącu geçen_ay الشهر_الماضي 上个月 上個月 先月 지난달""",
    "last year": """l'anno_scorso ano_passado afgelopen_jaar vorig_jaar прошлом_году zeszłym_roku
        geçen_y\u0131l geçen_sene العام_الماضي 去年 昨年 작년""",
    "last summer": """l'estate_scorsa verão_passado afgelopen_zomer vorige_zomer прошлым_летом
        zeszłego_lata geçen_yaz""",
    "this week": "questa_settimana esta_semana deze_week этой_неделе bu_hafta 本周 这周 今週 이번주",
    "this month": "questo_mese este_mês deze_maand этом_месяце bu_ay 本月 这个月 今月 이번달",
    "this year": "quest'anno este_ano dit_jaar этом_году bu_y\u0131l 今年 올해",
}
_ENGLISH = {
    normalize("NFC", name.replace("_", " ")): said
    for said, names in _ABROAD.items()
    for name in names.split()
}
_UNITS_BEFORE = {"天": "days", "日": "days", "일": "days", "周": "weeks", "週": "weeks", "주": "weeks"}
_UNITS_BEFORE |= {"月": "months", "개월": "months", "年": "years", "년": "years"}
_EAST = (
    r"(?:(?P<year>(?:19|20)\d\d) ?[年년] ?)?(?P<month>1[0-2]|0?[1-9]) ?[月월]"
    r"(?: ?(?P<day>\d\d?) ?[日号號일])?(?! ?[间間]?[前전])"
    r"|(?P<whole>(?:19|20)\d\d) ?[年년](?! ?[间間]?[前전])"
    r"|(?P<count>\d{1,3}|[一二两兩三四五六七八九十]) ?[个個か]?"
    r"(?P<unit>개월|[天日일周週주月年년])[间間]? ?[前전]"
)

# Times that are written in one of several ways, and how the rules read them. Strings, so that `re`
# compiles and keeps them at first use: it would take milliseconds of the start.
_FORMS = (
    (r"\ba noel\b", "at noel"),
    *((rf"\b({_AT}) (?:{names})\b", rf"\1 {day}") for day, names in _HOLIDAYS.items()),
    *((rf"\b(?:{names})(?=,? (?:of |de )?(?:19|20)\d\d\b)", day) for day, names in _HOLIDAYS.items()),
    (rf"\b(?:between|zwischen|entre) ({_MONTHS}) (?:and|und|et|y) (?={_MONTHS}\b)", r"\1 to "),
    (rf"\b({any_of(SEASONS)})(?: of)? ?'([0-4]\d)\b", r"\1 20\2"),
    (r"\b(in|since|until|during|from) '([0-4]\d)\b", r"\1 20\2"),
    (r"\b([qh][1-4])/([0-4]\d)\b", r"\1 20\2"),
    (r"\b([1-4])([qh]) ?'?([0-4]\d)\b", r"\2\1 20\3"),
    (r"\bfin(?:es)? de semana\b", "weekend"),
    (rf"\b({_MONTHS}|[qh][1-4]) ?'([0-4]\d)\b", r"\1 20\2"),
    (rf"\b({_MONTHS})(woche|halfte|wochenende)\b", r"\2 im \1"),
    (r"\bjahres(anfang|mitte|ende) (?=(?:im jahr )?(?:19|20)\d\d)", r"\1 "),
    (r"\bjahres(anfang|mitte|ende)\b", r"\1 of this year"),
    (r"\bmonats(anfang|mitte|ende)\b", r"\1 of this month"),
    (rf"\b(?:{_OR_A_HALF}) ?(?:year|jahr|annee|an|ano)\b", "6 months"),
    (r"\b(?:(?:a|one) year and a half|(?:anderthalb|eineinhalb) jahren?)\b", "18 months"),
    (r"\b(?:un an et demi|un ano y medio|one and a half years)\b", "18 months"),
    (r"\b(?:(?:a|one) month and a half|(?:anderthalb|eineinhalb) monaten?)\b", "6 weeks"),
    (r"\b(?:un mois et demi|un mes y medio)\b", "6 weeks"),
    (
        rf"\b({_PARTS}) (?:of the|des|der|du|de la|de l'|del|de) ?(?={_PERIODS}\b)"
        rf"(?!\S+ (?:{any_of(SHIFTS)}\b|\d|de\b|of\b))",
        r"\1 of this ",
    ),
)


def find_dates(query: str, now: datetime) -> tuple[DateSpan, ...]:
    """Find the days and times of days that a question names, relative to `now` (the user's, aware).

    A month, season or quarter without a year is that of any year; a season is that of the hemisphere of
    the zone of `now`. "End of" and "early" mean a third of what follows; "from A to B" is one span.
    """
    text = folded(_in_english(query[:MAX_QUERY_CHARS]))
    if _GATE_WORDS.isdisjoint(_WORD.findall(text.lower())) and not _NUMERIC.search(text):
        return ()
    text = _VERB.sub(r"\1_", " ".join(text.split())).lower()
    for form, plain in _FORMS:
        text = re.sub(form, plain, text)
    rest = text
    asked = Now(now, southern=str(now.tzinfo).startswith(SOUTHERN))
    found: list[tuple[int, int, DateSpan]] = []
    for pattern, reader in _rules():
        for match in tuple(pattern.finditer(rest)):
            span = None
            with suppress(ValueError, OverflowError):  # 31 February, or outside the calendar
                span = _third_of(reader(match, asked), match, text)
            if span:
                start, end = match.span()
                start += len(match.groupdict().get("lead") or "")
                found.append((start, end, span))
                # What one rule has read is covered, so that no other reads a part of it again.
                rest = rest[:start] + "|" * (end - start) + rest[end:]
    return tuple(dict.fromkeys(_connected(sorted(found, key=lambda part: part[:2]), text)))


@cache
def _names_abroad() -> re.Pattern[str]:
    """What finds the names of `_ABROAD`: in scripts without spaces, and in Korean, within a word too."""
    unspaced = {name for name in _ENGLISH if name >= "\u2e80"}
    spaced = any_of(_ENGLISH.keys() - unspaced)
    return re.compile(rf"(?<!\w){spaced}(?!\w)|{any_of(unspaced)}", re.IGNORECASE)


def _in_english(query: str) -> str:
    """Write the times of `_ABROAD`, and days as East Asia writes them, in English."""
    text = normalize("NFC", query).replace("\u2019", "'")
    # Ignoring case finds letters too that have another small one.
    text = _names_abroad().sub(lambda name: f" {_ENGLISH.get(name[0].lower(), name[0])} ", text)
    return text if text.isascii() else re.sub(_EAST, _east_in_english, text)


def _east_in_english(match: re.Match[str]) -> str:
    if match["unit"]:
        count = match["count"].translate(str.maketrans("一二两兩三四五六七八九", "12223456789"))
        return f" {count.replace('十', '10')} {_UNITS_BEFORE[match['unit']]} ago "
    if match["whole"]:
        return f" in {match['whole']} "
    name = next(name for name, number in MONTHS.items() if number == int(match["month"]))
    day = f"{int(match['day'])} {name}" if match["day"] else f"in {name}"
    return f" {day} {match['year'] or ''} "


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


_WORDS_AFTER = (
    r"at|for|with|when|did|do|was|were|i|we|he|she|they|you|it|to|until|because|um|mit|war|waren|ist|sind|hat"
    r"|habe|haben|hatte|passiert|gemacht|wir|ich|er|sie|es|bei|bis|los|a|avec|pour|chez|je|nous|il|elle|con|para|por|cuando"
    r"|(?:and|or|und|oder|et|ou|y|o)(?! \d)"
)
_FOLLOWS = rf"(?=\W*$|[?!;:,]|\.(?!\d)| (?:{_WORDS_AFTER})\b)"
"""What follows a number that is a day: no noun, as in "on the 24th floor"."""
_BEGIN, _YEAR = r"(?<![\w.,:/$-])", r"(?P<year>(?:19|20)\d\d)(?!\w|[.,:/-]\d)"
_DAY, _MARK = r"(?P<day>\d\d?)", r"(?P<mark>[-/.])(?P<month>\d\d?)(?P=mark)"
_MONTH, _OF_YEAR = rf"\b(?P<month>{any_of(MONTHS)})\b\.?", rf"(?:,? (?:del? |of )?{_YEAR})?"
_BEFORE, _SHIFT = r"(?:\b(?P<before>[a-z]+(?: of| de)?)[ -])?", rf"(?P<shift>\b{any_of(SHIFTS)}\b)"

_NTH = rf"(?<!\ba )\b(?P<nth>\d\d?(?:st|nd|rd|th|ere?|re|e|\.)|{any_of([*ORDINALS, *LAST])})"


@cache
def _rules() -> tuple[tuple[re.Pattern[str], _Reader], ...]:
    """The patterns, the more specific first; compiled at first use to keep the start quick."""
    sources = (
        *_weeks(),
        *_dates(),
        *_times_before(),
        *_parts_of_months(),
        *_days_alone(),
        *_days_alone(),
        *_parts_of_years(),
        *_times_beside(),
    )
    return tuple((re.compile(source, re.ASCII), reader) for reader, source in sources)


def _dates() -> _Sources:
    iso = r"(?P<year>(?:19|20)\d\d)(?P<mark>[-/])(?P<month>\d\d)(?P=mark)(?P<day>\d\d)"
    then = r"(?:(?:(?P<year2>(?:19|20)\d\d)(?P=mark))?(?P<month2>\d\d)(?P=mark))?(?P<day2>\d\d)"
    since = r"(?P<on>\b(?:from|between|vom|von|zwischen|du|entre|del?)(?: the| le| el)? )?"
    to = r"(?: ?[-/&] ?| (?:to|until|till|through|and|bis(?: zum)?|und|au|al|et|y|a)(?: the| el| le)? )"
    dot, of, on = r"(?P<dot>\.)?(?:st|nd|rd|th|er)?", "(?P<of> of| de)?", r"(?P<on>\bon (?:the )?)?"
    nth, suffix = r"\.?(?:st|nd|rd|th|er)?", r"(?P<dot>)(?P<of>st|nd|rd|th)?(?![\w:%]|[.,]\d)"
    return (
        (
            readers.numeric_range,
            rf"{_BEGIN}{iso}(?:/|\.\.| ?- ?| (?:to|until|bis|au|al) ){then}(?![\w:]|[-./]\d)",
        ),
        (
            readers.numeric_range,
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
        (readers.month_day, rf"{on}{_MONTH} (?:the )?{_DAY}{suffix}{_OF_YEAR}"),
        (readers.month_day, rf"{_BEGIN}{_DAY}([-/])(?P<month>{any_of(MONTHS)})\2{_YEAR}"),
        (
            readers.months,
            rf"\b(?P<month>{any_of(MONTHS)})(?: ?- ?| (?:to|until|through|bis|a|al|hasta) )"
            rf"(?P<month2>{any_of(MONTHS)})\b{_OF_YEAR}",
        ),
    )


def _times_before() -> _Sources:
    units = any_of(name for unit in (*AGO, *CLOCK) for name in UNIT_NAMES[unit].split())
    number, unit = rf"(?P<amount>\d{{1,3}}|{any_of(NUMBERS)})", rf"(?P<unit>{units})\b"
    amount = rf"\b{number} (?:of |de )?{unit}"
    no_morning = "".join(f"(?<!{word} )" for word in "am den der dem diesen heute gestern".split())
    no_morning += "".join(f"(?<!{word} )" for word in "guten la de esta una cada pasado".split())
    return (
        (readers.ago, rf"{amount} (?:ago|back)\b"),
        (readers.ago, rf"\b(?:vor|il y a|hace)(?: ein| un| environ| unos| unas)? {amount}"),
        (readers.ago, rf"{_SHIFT} {amount}"),
        (readers.ago, rf"\b{number} {_SHIFT} {unit}"),
        (readers.weekend, rf"\b{number} (?:weekend|week-end)s? ago\b"),
        (readers.weekend, rf"\b(?:vor|il y a|hace) {number} (?:weekends?|week-ends?|wochenenden?)\b"),
        (readers.weekdays_ago, rf"\b{number} (?P<weekday>{any_of(WEEKDAYS)})s? ago\b"),
        (readers.near_today, rf"{no_morning}\b(?P<day>{any_of(MORNINGS)})\b"),
        (readers.near_today, rf"\b(?P<day>{any_of(DAYS)})\b"),
    )


def _weeks() -> _Sources:
    weeks, of = any_of(UNIT_NAMES["week"].split()), r"[ ,/]*(?:of |in |de |del |des jahres )?"
    sign, then = r"(?:kw|cw|wk|(?:calendar|iso) weeks?|kalenderwochen?)", r"(?P<week>\d\d?)"
    until = r"(?:(?: ?- ?| bis | to | a | au )(?P<week2>\d\d?))?(?![\w%:]|[.,]\d|/(?!(?:19|20)\d\d)\d|-)"
    return (
        (readers.week, rf"{_BEGIN}(?P<year>(?:19|20)\d\d)-?w{then}(?:-?(?P<day>[1-7]))?(?!\w)"),
        (readers.week, rf"\bw{then}[ /-]{_YEAR}"),
        (readers.week, rf"\b{sign}[ .]*{then}{until}(?:{of}{_YEAR})?"),
        (readers.week, rf"\b(?:{weeks}) {then}{until}(?:{of}{_YEAR}|{_FOLLOWS})"),
        (readers.week, rf"\b{then}\. ?(?:kw|kalenderwoche)\b(?:{of}{_YEAR})?"),
        (readers.week, rf"{_NTH.replace('nth', 'week')} {weeks}{of}{_YEAR}"),
    )


def _parts_of_months() -> _Sources:
    weeks, months = any_of(UNIT_NAMES["week"].split()), any_of(UNIT_NAMES["month"].split())
    units = "day tag jour dia week woche semaine semana weekend wochenende".split()
    what = rf" (?P<what>{any_of([*units, *WEEKDAYS, *MONTH_HALVES])}) (?:of|in|im|des|de|du|del|d') ?"
    named = rf"(?:the )?(?P<month>{any_of(MONTHS)})\b{_OF_YEAR}"
    shifted = rf"(?:the )?(?:{_SHIFT} {months}|the month|{months} (?P<shift2>{any_of(SHIFTS)}))\b"
    return (
        (readers.of_month, rf"{_NTH}(?:{what}| (?:of|de|des) ){named}"),
        (readers.of_month, rf"{_NTH}(?:{what}| (?:of|des) | (?=\D)){shifted}"),
        (readers.of_month, rf"\b(?P<nth>\d\d?)(?:\. | (?:of|du|del) ){shifted}"),
        (readers.of_month, rf"\b(?P<nth>{any_of(OTHER_ORDINALS)}) {_MONTH}{_OF_YEAR}"),
        (
            readers.of_month,
            rf"(?:(?<=\bon )|(?<=since )|(?<=until )|(?!may|march_)){_MONTH} (?:the )?"
            rf"(?P<nth>{any_of(ENGLISH_ORDINALS)})\b{_OF_YEAR}{_FOLLOWS}",
        ),
        (
            readers.weekday_of_week,
            rf"\b(?P<weekday>{any_of(WEEKDAYS)})(?:,| of| in)?(?: the| der| de la)? "
            rf"(?:{_SHIFT} {weeks}\b|{weeks} (?P<shift2>{any_of(SHIFTS)})\b)",
        ),
        (
            readers.weekend,
            r"\b(?:(?:at|on|over) the|am|le|el) (?:weekend|wochenende|week-end)(?! \w+[ea]r)\b",
        ),
    )


def _days_alone() -> _Sources:
    """Days without a year or a month, where what stands beside them shows that they are days."""
    before = "am vom bis zum den dem der seit ab on since from until by le du au el al".split()
    weekday = rf"\b{any_of([*WEEKDAYS, *'mo di mi do fr sa so'.split()])}\.?,? (?:the |den |dem )?"
    on = rf"(?:(?P<lead>\b{any_of(before)} )|{weekday})"
    month, to = r"(?P<month>\d\d?)", r"(?: ?[-/] ?| (?:bis|und)(?: zum)? )"
    th, last = r"(?:st|nd|rd|th)", r"(?P<day2>\d\d?)"
    en = r"(?P<lead>\b(?:on|since|until|till|by|from|before|after|around|between) the |^the )"
    return (
        (readers.day_and_month, rf"\b(?:vom|am|zwischen dem) {_DAY}\.?{to}{last}\.{month}\.(?!\w)"),
        (readers.day_and_month, rf"{on}{_DAY}\.{month}\.(?P<short>\d\d)?(?!\w|\.\d)"),
        (readers.day_and_month, rf"^\W*{_DAY}\.{month}\.(?=\W*$)"),
        (readers.day_and_month, rf"^\W*(?=\d\d\.\d\d\.){_DAY}\.{month}\.(?P<short>\d\d)(?=\W*$)"),
        (readers.day_and_month, rf"^(?=\d\d\.\d\d)\W*{_DAY}\.{month}\.(?!\w)"),
        (readers.day_and_month, rf"(?P<lead>[\d|]\.? ?(?:und|bis|-) ?){_DAY}\.{month}\.(?!\w)"),
        (readers.day_and_month, rf"\bam {_DAY}\.{month}{_FOLLOWS}"),
        (readers.day_and_month, rf"\b(?:le|du|au|el|al|del) {_DAY}/{month}(?![\w/])"),
        (
            readers.day_and_month,
            rf"\b(?P<lead>(?P<either>on|since|by|until|from|to) ){_DAY}/{month}(?![\w/])",
        ),
        (readers.day_and_month, rf"^(?P<either>\W*){_DAY}/{month}(?=\W*$)"),
        (readers.day_alone, rf"{en}{_DAY}{th}(?: ?- ?| (?:to|until|and) )(?:the )?{last}{th}{_FOLLOWS}"),
        (readers.day_alone, rf"(?:{en}|{weekday}){_DAY}{th}{_FOLLOWS}"),
        (readers.day_alone, rf"\bthe {_DAY}th(?=\W*$)"),
        (
            readers.day_alone,
            rf"\b(?:am|vom|ab|seit dem|bis zum) {_DAY}\."
            rf"(?: ?(?:-|bis(?: zum)?|und) ?{last}\.)?{_FOLLOWS}",
        ),
        (readers.day_alone, rf"\ble {_DAY}(?:er)?{_FOLLOWS}"),
        (readers.day_alone, rf"\bel (?:dia )?{_DAY}{_FOLLOWS}"),
        (readers.day_alone, rf"\b(?:du|del) {_DAY} (?:au|al) {last}{_FOLLOWS}"),
    )


def _parts_of_years() -> _Sources:
    units = any_of(["quarter", "quartal", "quartals", "trimestre", *HALVES])
    nth = rf"(?P<nth>[1-4](?:st|nd|rd|th|er?|re)?\.?|{any_of([*ORDINALS, *LAST])}) (?P<unit>{units})"
    part = rf"(?P<part>(?:\b|(?<=\d{{4}}))(?P<sign>[qh])(?P<number>[1-4])|\b{nth})"
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
        (readers.shifted, r"\b(?P<target>ans?) (?P<shift>dernier|passe|prochain)\b"),
        (readers.month, rf"{_BEFORE}{_MONTH}{_OF_YEAR}(?: {_SHIFT})?"),
        (readers.year, rf"{_BEFORE}{_BEGIN}{_YEAR}"),
        (readers.year, rf"\b(?P<before>{any_of(THIRDS)})-{_YEAR}"),
    )


_DIGIT = re.compile("[0-9]")
_YEAR_OR_CLOCK = re.compile(r"\b(?:(?:19|20)[0-9]{2}|(?:[01]?[0-9]|2[0-3]):[0-5][0-9])\b")
# A string, so that `re` compiles and keeps it at first use: it would take milliseconds of the start.
_ASKS_WHEN = (
    r"[\s¿]*(?:when|how long|what (?:year|month|date|day|time)|(?:seit |bis )?wann|wie lange"
    r"|(?:(?:an|in) )?welche[mnrs]? (?:jahr|monat|datum|tag)|(?:depuis )?(?:quand|combien de temps)"
    r"|(?:en |a )?quel(?:le)? (?:annee|mois|date|jour|heure)|(?:desde )?cuando|(?:por )?cuanto tiempo"
    r"|(?:en |a )?que (?:ano|mes|fecha|dia|hora))\b"
)
_TIME_WORDS = {*MONTHS, *WEEKDAYS, *DAYS, *UNITS, "ago"} - {*BESIDE, "hier", "an", "mes"}
_TIME_WORDS -= {
    name for unit in ("minute", "hour", "day", "part", "quarter") for name in UNIT_NAMES[unit].split()
}
_TIME_WORDS |= {"april", "june", "august"}


def asks_when(query: str) -> bool:
    """Whether the query begins as a question for a time or a duration."""
    return re.match(_ASKS_WHEN, folded(query[:50]).lower()) is not None


def has_time_word(text: str) -> bool:
    """Whether the text has a month, weekday, "yesterday", "week", "ago", a year 1900-2099 or hh:mm.

    "May" and "March" count with a capital only, short forms of months not at all.
    """
    words = set(_WORD.findall(folded(text)))
    named = "May" in words or "March" in words or not _TIME_WORDS.isdisjoint(map(str.lower, words))
    return named or bool(_DIGIT.search(text) and _YEAR_OR_CLOCK.search(text))


@lru_cache(4_096)
def day_words(occurred: date) -> tuple[str, ...]:
    """Return the words by which a day is found: 8, may, 2023, and 20230508, as 2023-05-08 is read."""
    month = next(name for name, number in MONTHS.items() if number == occurred.month)
    return str(occurred.day), month, str(occurred.year), occurred.isoformat().replace("-", "")
