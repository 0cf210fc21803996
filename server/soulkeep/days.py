"""Days: the user's, spans of them, arithmetic with those, and how well a day fits them."""

from calendar import monthrange
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import MAXYEAR, MINYEAR, UTC, date, datetime, time, timedelta, tzinfo
from typing import Literal


@dataclass(frozen=True, slots=True)
class Days:
    """The days of a time zone; without one, of this machine's."""

    zone: tzinfo | None = None

    def local(self, moment: datetime) -> datetime:
        """Return an aware moment as the user's clocks show it."""
        return moment.astimezone(self.zone)

    def day_of(self, moment: str) -> date | None:
        """Return the user's day of a timestamp; None where another program wrote something else."""
        try:
            return self._read(moment).date()
        except (ValueError, OverflowError, OSError):
            return None

    def date_text(self, moment: str) -> str:
        """Write the user's day of a timestamp, as `2026-11-25`; anything else as it begins."""
        day = self.day_of(moment)
        return moment[:10] if day is None else day.isoformat()

    def minute_text(self, moment: str) -> str:
        """Write a timestamp as the user's clocks show it, as `2026-11-25 16:42`."""
        try:
            return self._read(moment).isoformat(" ", "minutes")[:16]
        except (ValueError, OverflowError, OSError):
            return moment[:16].replace("T", " ")

    def first_moment(self, day: date) -> datetime:
        """Return the moment at which a day begins, in UTC."""
        return self.utc(datetime.combine(day, time.min))

    def last_moment(self, day: date) -> datetime:
        """Return the last microsecond of a day, in UTC; of an hour that comes twice, the second."""
        return self.utc(datetime.combine(day, time.max).replace(fold=1))

    def utc(self, moment: datetime) -> datetime:
        """Return a moment in UTC; one that names no zone is as the user's clocks show it.

        Raises:
            OverflowError: It lies outside the calendar.
        """
        if moment.tzinfo is not None:
            return moment.astimezone(UTC)
        try:
            return moment.replace(tzinfo=self.zone).astimezone(UTC)
        except (ValueError, OverflowError, OSError):
            # On the first or last day of the calendar, or before what this machine's zone reaches to.
            return moment.replace(tzinfo=UTC)

    def _read(self, moment: str) -> datetime:
        read = datetime.fromisoformat(moment)
        return self.local(read.replace(tzinfo=UTC) if read.tzinfo is None else read)


# The weights of `date_score`, 0 to 1, and their reach in days, measured on questions about dated
# conversations. People write of a day on that day or soon after, so the days after count for more.
DAY_EXACT, DAY_WEEK_AFTER, DAY_BEFORE, DAY_NEAR = 1.0, 0.7, 0.4, 0.2
DAYS_EXACT, DAYS_WEEK_AFTER, DAYS_NEAR, DAYS_MONTH_AFTER = 2, 8, 31, 10
MONTH_SAME, MONTH_AFTER, YEAR_SAME, RANGE_INSIDE, RANGE_NEAR = 1.0, 0.3, 0.3, 1.0, 0.3


@dataclass(frozen=True, slots=True)
class DateSpan:
    """The days an expression means, both ends inclusive.

    Without a stated year it means those of any year; `first` and `last` then give the latest.
    """

    kind: Literal["day", "month", "year", "range"]
    first: date
    last: date
    year_stated: bool = True

    def moved(self, years: int) -> "DateSpan":
        """Return the same days of another year; 29 February becomes the 28th."""
        first, last = (clipped(day.year + years, day.month, day.day) for day in (self.first, self.last))
        return replace(self, first=first, last=last)

    def third(self, number: int) -> "DateSpan":
        """Return the first (0), middle (1) or last (2) third of the days; of one or two days all."""
        length = (self.last - self.first).days + 1
        if length < 3:
            return self
        first = self.first + timedelta(length * number // 3)
        last = self.first + timedelta(length * (number + 1) // 3 - 1)
        return DateSpan("range", first, last, self.year_stated)


def around(day: date, margin: int = 0) -> DateSpan:
    """Return a day, or the range of it with `margin` days on both sides."""
    return DateSpan("range" if margin else "day", day - timedelta(margin), day + timedelta(margin))


def whole(year: int, month: int = 0, *, year_stated: bool = True) -> DateSpan:
    """Return a year, or a month of it."""
    first, last = date(year, month or 1, 1), clipped(year, month or 12, 31)
    return DateSpan("month" if month else "year", first, last, year_stated)


def months(year: int, month: int, count: int, *, year_stated: bool = True) -> DateSpan:
    """Return some months from one on, which may be one of another year (13 is the next January)."""
    first, last = clipped(year, month, 1), clipped(year, month + count - 1, 31)
    return DateSpan("range", first, last, year_stated)


def clipped(year: int, month: int, day: int) -> date:
    """Return the day, or the last one of its month; a month outside 1 to 12 is one of another year."""
    year, month = year + (month - 1) // 12, (month - 1) % 12 + 1
    return date(year, month, min(day, monthrange(year, month)[1]))


def joined(begin: DateSpan, end: DateSpan) -> DateSpan | None:
    """Return the days from one span to another; None if they are not in this order.

    The year that is stated beside the end is the beginning's too, but for one across a new year.
    """
    if not begin.year_stated:
        begin = begin.moved(end.last.year - begin.first.year)
        begin = begin.moved(-1) if begin.first > end.last else begin
    if begin.first > end.last:
        return None
    return DateSpan("range", begin.first, end.last, end.year_stated)


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


def _score(span: DateSpan, occurred: date) -> float:
    near = range(max(occurred.year - 1, MINYEAR), min(occurred.year + 1, MAXYEAR) + 1)
    if span.kind == "day":
        years = [span.first.year] if span.year_stated else near
        days = (clipped(year, span.first.month, span.first.day) for year in years)
        return max(_day_score((occurred - day).days) for day in days)
    if span.kind == "month":
        months = 12 * (occurred.year - span.first.year) + occurred.month - span.first.month
        months = months if span.year_stated else months % 12
        after = MONTH_AFTER if months == 1 and occurred.day <= DAYS_MONTH_AFTER else 0.0
        return MONTH_SAME if months == 0 else after
    if span.kind == "year":
        return YEAR_SAME if occurred.year == span.first.year else 0.0
    length, best = span.last.year - span.first.year, 0.0
    begins = [year for year in near if MINYEAR <= year <= MAXYEAR - length]
    for year in [span.first.year] if span.year_stated else begins:
        meant = span.moved(year - span.first.year)
        outside = max(meant.first - occurred, occurred - meant.last).days
        is_near = outside <= (meant.last - meant.first).days + 1
        best = max(best, RANGE_INSIDE if outside <= 0 else RANGE_NEAR * is_near)
    return best


def _day_score(after: int) -> float:
    if 0 <= after <= DAYS_WEEK_AFTER:
        return DAY_EXACT if after <= DAYS_EXACT else DAY_WEEK_AFTER
    return DAY_BEFORE if after == -1 else DAY_NEAR * (abs(after) <= DAYS_NEAR)


# Zones of the southern hemisphere where the year has seasons, by their beginnings; elsewhere they are
# those of the northern.
SOUTHERN = tuple(
    """
    Australia/ Antarctica/ America/Argentina/ America/Asuncion America/Buenos_Aires America/Montevideo
    America/Punta_Arenas America/Santiago America/Sao_Paulo Africa/Gaborone Africa/Harare
    Africa/Johannesburg Africa/Maputo Africa/Maseru Africa/Mbabane Africa/Windhoek Atlantic/Stanley
    Brazil/East Chile/ NZ Pacific/Auckland Pacific/Chatham Indian/Antananarivo Indian/Mauritius
    """.split()
)


def season_of(number: int, year: int, *, southern: bool, year_stated: bool = True) -> DateSpan:
    """Return three whole months: spring is 0, winter 3. A season has the year in which it begins."""
    month = (3 * number + 2 + 6 * southern) % 12 + 1
    return months(year, month, 3, year_stated=year_stated)


def quarter_of(number: int, year: int, *, count: int = 4, year_stated: bool = True) -> DateSpan:
    """Return a quarter of a year, the first is 1; with a count of 2, a half."""
    length = 12 // count
    return months(year, length * (number - 1) + 1, length, year_stated=year_stated)


def decade_of(digit: int, century: int | None, today: date) -> DateSpan:
    """Return ten years; without a century the latest of those that have begun."""
    first = 10 * digit + (century * 100 if century else 2000)
    if century is None and first > today.year:
        first -= 100
    return DateSpan("range", date(first, 1, 1), date(first + 9, 12, 31))
