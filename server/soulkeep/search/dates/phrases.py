"""Signs of time in a text: a question that asks when, a word for a time, a day in words."""

import re
from datetime import date
from functools import lru_cache

from soulkeep.search.dates.names import BESIDE, DAYS, MONTHS, UNIT_NAMES, UNITS, WEEKDAYS, folded

_WORD = re.compile(r"[A-Za-z]+")
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
