"""The words of dates, and from what a pattern found to the days that it means, or None if it is no date.

The words are English, German, French and Spanish, in lower case and without accents.
"""

import re
import unicodedata
from calendar import monthrange
from collections.abc import Iterable
from datetime import date, datetime, timedelta
from typing import NamedTuple

from soulkeep.days import DateSpan, around, clipped, decade_of, quarter_of, season_of, whole


def numbered(table: str) -> dict[str, int]:
    """Number the rows, separated by "/", from the number before the colon; each name has its row's."""
    start, _, rows = table.partition(":")
    return {name: n for n, row in enumerate(rows.split("/"), int(start)) for name in row.split()}


# A trailing underscore marks a word in lower case that may be a verb.
MONTHS = numbered("""1: january jan januar janner janvier enero / february feb februar fevrier febrero
    / march march_ mar marz mars marzo / april apr avril abril / may may_ mai mayo
    / june jun juni juin junio / july jul juli juillet julio / august aug aout agosto
    / september sep sept septembre septiembre / october oct oktober octobre octubre
    / november nov novembre noviembre / december dec dezember decembre diciembre""")
WEEKDAYS = numbered("""0: monday montag lundi lunes / tuesday dienstag mardi martes
    / wednesday mittwoch mercredi miercoles / thursday donnerstag jeudi jueves
    / friday freitag vendredi viernes / saturday samstag samedi sabado
    / sunday sonntag dimanche domingo""")
DAYS = numbered("""-3: vorvorgestern / vorgestern avant-hier anteayer antier
    / yesterday gestern hier ayer anoche / today tonight heute aujourd'hui hoy / tomorrow demain
    / ubermorgen apres-demain""")
DAYS |= {"day before yesterday": -2, "antes de ayer": -2, "day after tomorrow": 2, "pasado manana": 2}
MORNINGS = ("morgen", "manana")
"""Tomorrow, or a morning."""
NUMBERS = numbered("""1: a an one ein eine einem einer un une una / two couple par zwei deux dos
    / three few several some paar einigen mehreren drei trois quelques plusieurs tres unos unas
    varios varias / four vier quatre cuatro / five funf cinq cinco / six sechs seis
    / seven sieben sept siete / eight acht huit ocho / nine neun neuf nueve / ten zehn dix diez
    / eleven elf onze once / twelve dozen zwolf douze doce / thirteen dreizehn treize trece
    / fourteen vierzehn quatorze catorce / fifteen funfzehn quinze quince
    / sixteen sechzehn seize / seventeen siebzehn / eighteen achtzehn / nineteen neunzehn
    / twenty zwanzig vingt veinte""")
NUMBERS |= dict.fromkeys("thirty dreissig trente treinta".split(), 30)
_ENGLISH = """first/second/third/fourth/fifth/sixth/seventh/eighth/ninth/tenth/eleventh/twelfth
    /thirteenth/fourteenth/fifteenth/sixteenth/seventeenth/eighteenth/nineteenth/twentieth/twenty-first
    /twenty-second/twenty-third/twenty-fourth/twenty-fifth/twenty-sixth/twenty-seventh/twenty-eighth
    /twenty-ninth/thirtieth/thirty-first"""
_GERMAN = """erst/zweit/dritt/viert/funft/sechst/siebt/acht/neunt/zehnt/elft/zwolft/dreizehnt/vierzehnt
    /funfzehnt/sechzehnt/siebzehnt/achtzehnt/neunzehnt/zwanzigst/einundzwanzigst/zweiundzwanzigst
    /dreiundzwanzigst/vierundzwanzigst/funfundzwanzigst/sechsundzwanzigst/siebenundzwanzigst
    /achtundzwanzigst/neunundzwanzigst/dreissigst/einunddreissigst"""
ENGLISH_ORDINALS = numbered(f"1: {_ENGLISH}")
OTHER_ORDINALS = {
    stem + ending: number
    for stem, number in numbered(f"1: {_GERMAN}").items()
    for ending in ("e", "en", "er", "es")
}
OTHER_ORDINALS |= numbered("""1: premier premiere primer primero primera
    / deuxieme seconde segundo segunda / troisieme tercer tercero tercera
    / quatrieme cuarto cuarta / cinquieme quinto quinta""")
ORDINALS = ENGLISH_ORDINALS | OTHER_ORDINALS
LAST = "last final letzte letzten letzter letztes dernier derniere ultimo ultima".split()
"""The last of what is counted, where it is said of what; else the one before this."""
SHIFTS = numbered("""-2: vorletzte vorletzten vorletzter vorletztes antepasado antepasada avant-derniere
    / last past previous letzte letzten letzter letztes letztem vorige vorigen voriges voriger vorigem
    vergangene vergangenen vergangener vergangenes vergangenem dernier derniere derniers dernieres
    passe passee ultimo ultima ultimos ultimas pasado pasada
    / this diese diesem diesen dieser dieses ce cet cette este esta
    / next nachste nachsten nachster nachstes kommende kommenden kommender kommendes
    prochain prochaine proximo proxima
    / ubernachste ubernachsten ubernachstes""")
SHIFTS |= {"before last": -2, "after next": 2}
SHIFTS_AFTER = "dernier derniere passe passee pasado pasada antepasado antepasada prochain".split()
SHIFTS_AFTER += ["prochaine", "before last", "after next"]
"""Those that follow their noun."""

UNIT_NAMES = {
    "minute": "minute minutes minuten minuto minutos",
    "hour": "hour hours stunde stunden heure heures hora horas",
    "day": "day days tag tage tagen jour jours dia dias",
    "week": "week weeks woche wochen semaine semaines semana semanas",
    "fortnight": "fortnight fortnights quinzaine quinzaines quincena quincenas",
    "month": "month months monat monate monaten monats mois mes meses",
    "year": "year years jahr jahre jahren jahres an ans annee annees ano anos",
    "decade": "decade decades jahrzehnt jahrzehnte jahrzehnten decennie decennies decada decadas",
    "weekend": "weekend wochenende week-end",
    "quarter": "quarter quartal quartals trimestre",
    "part": "morning afternoon evening night nacht matin apres-midi soir nuit manana tarde noche",
}
UNITS = {name: unit for unit, names in UNIT_NAMES.items() for name in names.split()}
HALVES = "half halbjahr jahreshalfte semestre".split()
MONTH_HALVES = "half halfte moitie mitad quinzaine quincena".split()

SEASONS = numbered("""0: spring fruhling fruhjahr printemps primavera / summer sommer ete verano
    / autumn fall herbst automne otono / winter hiver invierno""")
DECADES = numbered("""2: twenties zwanziger / thirties dreissiger / forties vierziger / fifties funfziger
    / sixties sechziger / seventies siebziger / eighties achtziger / nineties neunziger""")
THIRDS = numbered("""0: early start beginning anfang beginn debut principios comienzos inicios
    / mid middle mitte milieu mi mediados / late end ende fin finales fines""")
"""Words for the first, the second and the last third of a time."""

# What must stand beside a month name that is also a verb, a first name, a planet or a sauce.
SURE = set("in|since|during|until|last|mid|end of|start of|beginning of|middle of|month of".split("|"))
EN = SURE | set("this next early late by before after around".split())
DE = set("im seit bis anfang mitte ende letzten letzter vorigen vorletzten diesen nachsten".split())
FR = {*"en depuis fin debut dernier passe ce prochain mi".split(), "mois de"}
FR |= {"debut de", "milieu de", "fin de"}
ES = {*"en desde hasta ultimo pasado este proximo".split(), "mes de", "principios de", "finales de"}
ES |= {"mediados de", "comienzos de", "inicios de", "fin de", "fines de"}
BESIDE = dict.fromkeys("may march june jan feb mar apr jun jul aug sep sept oct nov dec".split(), EN)
BESIDE |= {"april": EN | DE, "august": EN | DE, "mai": DE | FR, "mars": FR, "mayo": ES}
BESIDE |= {"juli": DE, "may_": SURE, "march_": SURE}
BESIDE_YEAR = EN | DE | FR | ES | {"year", "jahr", "annee", "ano"}

_MARKS = re.compile("[\u0300-\u036f]+")
_SIGNS = {0x2019: "'", 0xDF: "ss", **dict.fromkeys(range(0x2010, 0x2016), "-")}


def folded(text: str) -> str:
    """Return a text without accents, its dashes and apostrophes as in ASCII."""
    if text.isascii():
        return text
    return _MARKS.sub("", unicodedata.normalize("NFD", text)).translate(_SIGNS)


def any_of(names: Iterable[str]) -> str:
    """Return a pattern of any of the names, the longest first."""
    return "(?:" + "|".join(map(re.escape, sorted(names, key=len, reverse=True))) + ")"


AGO = {
    "day": (1, 0, 0),
    "week": (7, 0, 3),
    "fortnight": (14, 0, 3),
    "month": (0, 1, 10),
    "year": (0, 12, 0),
    "decade": (0, 120, 0),
}
"""Of a unit its days, its months, and by how many days "three of them ago" may be off."""
CLOCK = {"minute": timedelta(minutes=1), "hour": timedelta(hours=1)}

# A string, so that `re` compiles and keeps it at first use: it would take milliseconds of the start.
_FRENCH = r"^hier\W*$|\b(?:j|ai|as|je|tu|il|elle|nous|vous|qu|que|qui|quoi|est|le|la|les|soir)\b"


class Now(NamedTuple):
    """When a question is asked, by the user's clocks, and whether in the southern hemisphere."""

    moment: datetime
    southern: bool

    @property
    def today(self) -> date:
        """The day on which it is asked."""
        return self.moment.date()


def numeric(match: re.Match[str], now: Now) -> DateSpan | None:
    """Read 2023-03-31, 31.3.2023 or 31/03/2023."""
    day, month = int(match["day"]), int(match["month"])
    if match.start("day") < match.start("month") and match["mark"] != ".":
        if day <= 12 and month <= 12 and day != month:
            return None  # 03/04/2023: day and month, or month and day
        day, month = max(day, month), min(day, month)
    return around(date(int(match["year"]), month, day))


def numeric_range(match: re.Match[str], now: Now) -> DateSpan | None:
    """Read 2026-07-25/26, 2026-07-25/08-02, two whole dates, or 25.-26.07.2026."""
    first, groups = date(int(match["year"]), int(match["month"]), int(match["day"])), match.groupdict()
    year, month = int(groups.get("year2") or first.year), int(groups.get("month2") or first.month)
    last = date(year, month, int(match["day2"]))
    return DateSpan("range", first, last) if first < last else None


def numeric_month(match: re.Match[str], now: Now) -> DateSpan | None:
    """Read 2026-07 or 07/2026."""
    number = int(match["month"])
    return whole(int(match["year"]), number) if 1 <= number <= 12 else None


def month_day(match: re.Match[str], now: Now) -> DateSpan | None:
    """Read 3 March or March 3rd, perhaps with a year."""
    name, day, month = match["month"], int(match["day"]), MONTHS[match["month"]]
    if match["year"]:
        return around(date(int(match["year"]), month, day))
    if match["dot"] and name in {"may", "march"}:
        return None  # "3. May I ask"
    return None if _may_be_verb(match) else latest(month, day, month, day, now.today)


def days(match: re.Match[str], now: Now) -> DateSpan | None:
    """Read 25-26 July or July 25 to 26, perhaps with a year."""
    month, first, last = MONTHS[match["month"]], int(match["day"]), int(match["day2"])
    if first >= last or (_may_be_verb(match) and not match["year"]):
        return None
    if match["year"]:
        year = int(match["year"])
        return DateSpan("range", date(year, month, first), date(year, month, last))
    return latest(month, first, month, last, now.today)


def _may_be_verb(match: re.Match[str]) -> bool:
    return match["month"] in {"may_", "march_", "mayo"} and not (match["on"] or match["of"])


def latest(month: int, day: int, last_month: int, last_day: int, today: date) -> DateSpan | None:
    """Return the latest such days that have begun; the last month may be one of the next year."""
    for year in range(today.year, today.year - 9, -1):
        first = clipped(year, month, day)
        if first.day == day and first <= today:
            last = clipped(year + (last_month < month), last_month, last_day)
            return DateSpan("range" if last > first else "day", first, last, year_stated=False)
    return None


def months(match: re.Match[str], now: Now) -> DateSpan | None:
    """Read March to May, perhaps with a year, which is that of the last month."""
    names = match["month"], match["month2"]
    if any(name.endswith("_") for name in names):
        return None
    first, last = (MONTHS[name] for name in names)
    if match["year"]:
        year = int(match["year"])
        return DateSpan("range", date(year - (last < first), first, 1), clipped(year, last, 31))
    return latest(first, 1, last, 31, now.today)


def ago(match: re.Match[str], now: Now) -> DateSpan | None:
    """Read three weeks ago, or the last three weeks."""
    word, unit, today = match["amount"], UNITS[match["unit"]], now.today
    amount = NUMBERS.get(word) or int(word)
    if unit in CLOCK:
        first = (now.moment - CLOCK[unit] * amount).date()
        return DateSpan("range", first, today) if match.groupdict().get("shift") else around(first)
    days, months, margin = AGO[unit]
    then = clipped(today.year, today.month - months * amount, today.day) - timedelta(days * amount)
    if shift := match.groupdict().get("shift"):
        return DateSpan("range", then, today) if SHIFTS[shift] < 0 else None
    if unit == "decade":
        return DateSpan("range", date(then.year - 2, 1, 1), date(then.year + 2, 12, 31))
    return whole(then.year) if unit == "year" else around(then, margin)


def near_today(match: re.Match[str], now: Now) -> DateSpan | None:
    """Read yesterday and its neighbours."""
    if match["day"] == "hier" and not re.search(_FRENCH, match.string):
        return None  # German: here
    return around(now.today + timedelta(DAYS.get(match["day"], 1)))


def ordinal(name: str) -> int:
    """Read first, 1st, 1. or erste as 1, and last as -1."""
    return -1 if name in LAST else ORDINALS.get(name) or int(re.findall("[0-9]+", name)[0])


def part_of_year(match: re.Match[str], now: Now) -> DateSpan | None:
    """Read Q3, the last quarter of 2025, H1 2025."""
    unit, year = match["unit"] or match["sign"], match["year"] or match["year2"]
    count = 2 if unit in {"h", *HALVES} else 4
    number = ordinal(match["nth"] or match["number"])
    if number < 0:
        number = count if year or match["shift"] else 0
    is_vague = unit in {"h", "half"} and not (year or match["shift"])  # the second half of a match
    if is_vague or not 1 <= number <= count:
        return None
    if year or match["shift"]:
        stated = int(year) if year else now.today.year + SHIFTS[match["shift"]]
        return quarter_of(number, stated, count=count)
    begun = quarter_of(number, now.today.year, count=count, year_stated=False)
    return begun if begun.first <= now.today else begun.moved(-1)


def season(match: re.Match[str], now: Now) -> DateSpan | None:
    """Read last summer, this winter, spring 2024, in autumn."""
    number, shift = SEASONS[match["season"]], SHIFTS.get(match["shift"] or match["after"] or "")
    if match["year"]:
        return season_of(number, int(match["year"]), southern=now.southern)
    years = range(now.today.year - 4, now.today.year + 4)
    known = [season_of(number, year, southern=now.southern) for year in years]
    past = [span for span in known if span.last < now.today]
    if shift is None:
        begun = [span for span in known if span.first <= now.today][-1]
        return DateSpan("range", begun.first, begun.last, year_stated=False) if match["before"] else None
    if shift == 0:
        # In November this winter is the coming one, and in March the last.
        return min(known, key=lambda span: max(span.first - now.today, now.today - span.last))
    return past[shift] if shift < 0 else [span for span in known if span.first > now.today][shift - 1]


def decade(match: re.Match[str], now: Now) -> DateSpan | None:
    """Read the 90s, the nineties, 1990s, 90er."""
    groups, said = match.groupdict(), match["decade"]
    is_sure = any(groups.get(name) for name in ("the", "quote", "before"))
    digits = re.search("([0-9])0", said.removeprefix(match["century"] or ""))
    if digits is None:
        word = said.removesuffix("jahren").removesuffix("jahre").removesuffix("n")
        return decade_of(DECADES[word], None, now.today) if is_sure else None
    if not (match["century"] or is_sure or "er" in said):
        return None  # 30s are half a minute
    century = int(match["century"]) if match["century"] else None
    return decade_of(int(digits[1]), century, now.today)


def years(match: re.Match[str], now: Now) -> DateSpan | None:
    """Read 2020-2022."""
    first, last = int(match["year"]), int(match["year2"])
    return DateSpan("range", date(first, 1, 1), date(last, 12, 31)) if first < last else None


def shifted(match: re.Match[str], now: Now) -> DateSpan | None:
    """Read last week, this Friday, the month before last."""
    groups, word, today = match.groupdict(), match["target"], now.today
    shift = SHIFTS[groups["shift"]] if groups.get("shift") else None
    if groups.get("habit"):
        return None
    if word not in WEEKDAYS:
        return _shifted_unit(UNITS[word], shift or 0, today)
    days = WEEKDAYS[word] - today.weekday()
    if shift is None:
        days = (days % 7 - 7) % -7
    elif shift:
        days = days % 7 + 7 * shift if shift < 0 else (days % 7 or 7) + 7 * (shift - 1)
    return around(today + timedelta(days))


def _shifted_unit(unit: str, shift: int, today: date) -> DateSpan | None:
    monday = today + timedelta(7 * shift - today.weekday())
    if unit in {"week", "weekend"}:
        return DateSpan("range", monday + timedelta(5 * (unit == "weekend")), monday + timedelta(6))
    if unit == "fortnight":
        return DateSpan("range", today - timedelta(14), today) if shift < 0 else None
    if unit == "quarter":
        return quarter_of((today.month - 1) // 3 + 1 + shift, today.year)
    if unit == "month":
        then = clipped(today.year, today.month + shift, 1)
        return whole(then.year, then.month)
    if unit == "year":
        return whole(today.year + shift)
    return around(today + timedelta(shift)) if unit == "part" and shift <= 0 else None


def month(match: re.Match[str], now: Now) -> DateSpan | None:
    """Read in May, last May, May 2023."""
    name, number = match["month"], MONTHS[match["month"]]
    if match["year"]:
        return whole(int(match["year"]), number)
    beside = {match["before"], match["shift"]}
    if name in BESIDE and beside.isdisjoint(BESIDE[name]):
        return None
    shift = next((SHIFTS[word] for word in (match["shift"], match["before"]) if word in SHIFTS), None)
    is_ahead = number > now.today.month
    years = {None: -is_ahead, -2: -is_ahead - 1, -1: -is_ahead, 0: 0, 1: not is_ahead, 2: 2 - is_ahead}
    return whole(now.today.year + years[shift], number, year_stated=shift is not None)


def year(match: re.Match[str], now: Now) -> DateSpan | None:
    """Read in 2022."""
    return whole(int(match["year"])) if match["before"] in BESIDE_YEAR else None


def week(match: re.Match[str], now: Now) -> DateSpan | None:
    """Read 2026-W12, KW 12, the third week of 2025: weeks as ISO 8601 counts them."""
    groups = match.groupdict()
    number, day = ordinal(match["week"]), groups.get("day")
    last = int(groups.get("week2") or number)
    if groups.get("year"):
        year = int(match["year"])
        if number < 0:
            number = last = date(year, 12, 28).isocalendar().week
        if day:
            return around(date.fromisocalendar(year, number, int(day)))
        return _weeks(year, number, last)
    span = _weeks(now.today.year, number, last, year_stated=False)
    if span and span.first > now.today:
        span = _weeks(now.today.year - 1, number, last, year_stated=False)
    return span


def _weeks(year: int, first: int, last: int, *, year_stated: bool = True) -> DateSpan | None:
    monday, sunday = date.fromisocalendar(year, first, 1), date.fromisocalendar(year, last, 7)
    return DateSpan("range", monday, sunday, year_stated) if monday < sunday else None


def of_month(match: re.Match[str], now: Now) -> DateSpan | None:
    """Read the third week of March, the last Friday of May 2025, the 24th of last month."""
    groups, today = match.groupdict(), now.today
    name, is_stated = groups.get("month"), True
    if name is None:
        shift = SHIFTS[groups.get("shift") or groups.get("shift2") or "this"]
        first = clipped(today.year, today.month + shift, 1)
    elif groups.get("year"):
        first = date(int(groups["year"]), MONTHS[name], 1)
    else:
        first, is_stated = date(today.year - (MONTHS[name] > today.month), MONTHS[name], 1), False
    days = _days_of_month(ordinal(match["nth"]), groups.get("what") or "day", first)
    if days is None:
        return None
    begin, end = (first + timedelta(day - 1) for day in days)
    return DateSpan("range" if end > begin else "day", begin, end, is_stated)


def _days_of_month(number: int, what: str, first: date) -> tuple[int, int] | None:
    """Return the first and the last day of the month that are meant."""
    length = monthrange(first.year, first.month)[1]
    unit = "weekday" if what in WEEKDAYS else UNITS.get(what)
    if unit in ("weekday", "weekend"):
        weekday = WEEKDAYS.get(what, 5)
        begins = list(range(1 + (weekday - first.weekday()) % 7, length + 1, 7))
        size = 1 if unit == "weekday" else 2
    elif unit == "week":
        begins, size = [*range(1, length + 1, 7)], 7
        if number < 0:
            return length - 6, length
    elif unit == "day":
        begins, size = [*range(1, length + 1)], 1
    else:
        begins, size = [1, 16], 15 if number == 1 else 16
    if number == 0 or number > len(begins):
        return None
    begin = begins[number if number < 0 else number - 1]
    return begin, min(begin + size - 1, length)


def day_and_month(match: re.Match[str], now: Now) -> DateSpan | None:
    """Read 24.12., 24.12.25 or 24/12."""
    groups = match.groupdict()
    day, month, short = int(match["day"]), int(match["month"]), groups.get("short")
    if "either" in groups:
        if max(day, month) <= 12 or (day, month) == (24, 7):
            return None  # 3/4: day and month, or month and day; 24/7 is always
        day, month = max(day, month), min(day, month)
    last_day = int(groups.get("day2") or day)
    if short:
        year = 2000 + int(short)
        year -= 100 * (year > now.today.year + 1)
        return around(date(year, month, day))
    return latest(month, day, month, last_day, now.today) if 1 <= month <= 12 and day else None


def day_alone(match: re.Match[str], now: Now) -> DateSpan | None:
    """Read the 24th, or the 20th to the 24th: those that began last."""
    day, last = int(match["day"]), int(match.groupdict().get("day2") or match["day"])
    if not 1 <= day <= last <= 31:
        return None
    for back in range(3):
        first = clipped(now.today.year, now.today.month - back, day)
        if first.day == day and first <= now.today:
            end = clipped(first.year, first.month, last)
            return DateSpan("range" if end > first else "day", first, end)
    return None


def weekday_of_week(match: re.Match[str], now: Now) -> DateSpan:
    """Read Monday last week."""
    shift = SHIFTS[match["shift"] or match["shift2"]]
    monday = now.today + timedelta(7 * shift - now.today.weekday())
    return around(monday + timedelta(WEEKDAYS[match["weekday"]]))


def weekdays_ago(match: re.Match[str], now: Now) -> DateSpan:
    """Read two Mondays ago."""
    back = (now.today.weekday() - WEEKDAYS[match["weekday"]] - 1) % 7 + 1
    weeks = (NUMBERS.get(match["amount"]) or int(match["amount"])) - 1
    return around(now.today - timedelta(back + 7 * weeks))


def weekend(match: re.Match[str], now: Now) -> DateSpan:
    """Read at the weekend, the one that began last, or two weekends ago."""
    amount = match.groupdict().get("amount")
    weeks = (NUMBERS.get(amount) or int(amount)) - 1 if amount else 0
    saturday = now.today - timedelta((now.today.weekday() - 5) % 7 + 7 * weeks)
    return DateSpan("range", saturday, saturday + timedelta(1))
