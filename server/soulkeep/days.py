"""The user's days: when one begins and ends, and on which of them a stored moment falls."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, tzinfo


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

    def sums(self, counts: Iterable[tuple[str, int]]) -> dict[str, int]:
        """Add up what was counted at timestamps by the user's days."""
        sums: Counter[str] = Counter()
        for moment, count in counts:
            sums[self.date_text(moment)] += count
        return dict(sums)

    def first_moment(self, day: date) -> datetime:
        """Return the moment at which a day begins, in UTC."""
        return self._utc(datetime.combine(day, time.min))

    def last_moment(self, day: date) -> datetime:
        """Return the last microsecond of a day, in UTC; of an hour that comes twice, the second."""
        return self._utc(datetime.combine(day, time.max).replace(fold=1))

    def utc(self, moment: datetime) -> datetime:
        """Return a moment in UTC; one that names no zone is as the user's clocks show it.

        Raises:
            OverflowError: It lies outside the calendar.
        """
        return self._utc(moment) if moment.tzinfo is None else moment.astimezone(UTC)

    def _utc(self, clock_time: datetime) -> datetime:
        try:
            return clock_time.replace(tzinfo=self.zone).astimezone(UTC)
        except (ValueError, OverflowError, OSError):
            # On the first or last day of the calendar, or before what this machine's zone reaches to.
            return clock_time.replace(tzinfo=UTC)

    def _read(self, moment: str) -> datetime:
        read = datetime.fromisoformat(moment)
        return self.local(read.replace(tzinfo=UTC) if read.tzinfo is None else read)
