"""Seasons, quarters and decades: which days they are, relative to a day."""

from datetime import date

from soulkeep.search.dates.spans import DateSpan, months

# Zones of the southern hemisphere where the year has seasons; elsewhere they are those of the northern.
_SOUTHERN = tuple(
    """
    Australia/ Antarctica/ America/Argentina/ America/Asuncion America/Buenos_Aires America/Montevideo
    America/Punta_Arenas America/Santiago America/Sao_Paulo Africa/Gaborone Africa/Harare
    Africa/Johannesburg Africa/Maputo Africa/Maseru Africa/Mbabane Africa/Windhoek Atlantic/Stanley
    Brazil/East Chile/ NZ Pacific/Auckland Pacific/Chatham Indian/Antananarivo Indian/Mauritius
    """.split()
)


def is_southern(zone: str) -> bool:
    """Whether a time zone, by its name in the tz database, has its summer around New Year."""
    return zone.startswith(_SOUTHERN)


def season(number: int, year: int, *, southern: bool, year_stated: bool = True) -> DateSpan:
    """Return three whole months: spring is 0, winter 3. A season has the year in which it begins."""
    month = (3 * number + 2 + 6 * southern) % 12 + 1
    return months(year, month, 3, year_stated=year_stated)


def quarter(number: int, year: int, *, count: int = 4, year_stated: bool = True) -> DateSpan:
    """Return a quarter of a year, the first is 1; with a count of 2, a half."""
    length = 12 // count
    return months(year, length * (number - 1) + 1, length, year_stated=year_stated)


def decade(digit: int, century: int | None, today: date) -> DateSpan:
    """Return ten years; without a century the latest of those that have begun."""
    first = 10 * digit + (century * 100 if century else 2000)
    if century is None and first > today.year:
        first -= 100
    return DateSpan("range", date(first, 1, 1), date(first + 9, 12, 31))
