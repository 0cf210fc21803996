"""Readers of what is counted: weeks of a year, days and weeks of a month, and days without a month."""

import re
from calendar import monthrange
from datetime import date, timedelta

from soulkeep.search.dates.names import MONTHS, NUMBERS, SHIFTS, UNITS, WEEKDAYS
from soulkeep.search.dates.readers import Now, latest, ordinal
from soulkeep.search.dates.spans import DateSpan, around, clipped


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
    groups = match.groupdict()
    first, stated = _month(groups, now)
    days = _days_of_month(ordinal(match["nth"]), groups.get("what") or "day", first)
    if days is None:
        return None
    begin, end = (first + timedelta(day - 1) for day in days)
    return DateSpan("range" if end > begin else "day", begin, end, stated)


def _month(groups: dict[str, str | None], now: Now) -> tuple[date, bool]:
    """Return the first day of the month that is named, and whether its year is."""
    name, today = groups.get("month"), now.today
    if name is None:
        shift = SHIFTS[groups.get("shift") or groups.get("shift2") or "this"]
        return clipped(today.year, today.month + shift, 1), True
    if year := groups.get("year"):
        return date(int(year), MONTHS[name], 1), True
    return date(today.year - (MONTHS[name] > today.month), MONTHS[name], 1), False


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
