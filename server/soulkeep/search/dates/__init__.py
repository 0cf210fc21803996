"""Dates in questions in English, German, French and Spanish: pure functions, no store, no clock.

No library: `dateparser` 1.5 reads "What may I eat?" as a date but not "last May" or "hace dos semanas",
and needs 230 ms up to its first answer; `dateutil` 4 knows neither "yesterday" nor other languages.
"""

from soulkeep.search.dates.phrases import asks_when, day_words, has_time_word
from soulkeep.search.dates.rules import find_dates
from soulkeep.search.dates.spans import DateSpan, date_score, names_day

__all__ = [
    "DateSpan",
    "asks_when",
    "date_score",
    "day_words",
    "find_dates",
    "has_time_word",
    "names_day",
]
