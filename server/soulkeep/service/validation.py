"""The rules for what callers may send; breaking one changes nothing and names the rule."""

import re
from collections.abc import Sequence
from datetime import datetime

from soulkeep.days import Days
from soulkeep.errors import HALF_A_PAIR, InvalidInputError
from soulkeep.models import (
    MEMORY_TYPES,
    MESSAGE_ROLES,
    MemoryFilter,
    NewMemory,
    NewMessage,
    timestamp,
)
from soulkeep.wording import without_hidden

MAX_ID = 2**63 - 1
"""The largest id that a store gives."""

MAX_CONTENT = 100_000
MAX_ENTRY = 10_000
MAX_BATCH = 1_000
MAX_BATCH_CHARACTERS = 1_000_000
MAX_MESSAGES = 200
MAX_QUERY = 10_000
MAX_NAME = 200
MAX_LIMIT = 100
MAX_PRIORITY = 1_000_000

_SURROGATE = re.compile("[\ud800-\udfff]")
_DATE = re.compile(r"(\d{4}-\d{2}-\d{2})([T ].+)?")
_FORM = "must be a date like 2026-11-22 or a time like 2026-11-22T16:42:00Z"


def require_text(argument: str, value: str, maximum: int) -> None:
    """Check that `value` is text with something in it.

    Raises:
        InvalidInputError: It is blank, longer than `maximum` characters, or holds a NUL character or
            half of a surrogate pair, which no UTF-8 file can hold.
    """
    if not value.strip():
        raise InvalidInputError(argument, "must not be blank; give the text")
    if len(value) > maximum:
        rule = f"has {len(value):,} characters and may have {maximum:,}; shorten or split it"
        raise InvalidInputError(argument, rule)
    if "\0" in value:
        raise InvalidInputError(argument, "holds a NUL character; remove it")
    if _SURROGATE.search(value):
        raise InvalidInputError(argument, HALF_A_PAIR)


def require_label(argument: str, value: str) -> str:
    """Check a title, name, subject or source; return it as it is kept, without hidden characters.

    Raises:
        InvalidInputError: It breaks a rule of `require_text`, or nothing of it can be seen.
    """
    label = without_hidden(value).strip()
    require_text(argument, label, MAX_NAME)
    return label


def require_range(argument: str, value: int, lowest: int, highest: int) -> None:
    """Check that `lowest` <= `value` <= `highest`.

    Raises:
        InvalidInputError: It is outside.
    """
    if not lowest <= value <= highest:
        raise InvalidInputError(argument, f"must be from {lowest:,} to {highest:,}")


def require_memory_type(value: str) -> None:
    """Check that `value` is one of the four memory types.

    Raises:
        InvalidInputError: It is not.
    """
    if value not in MEMORY_TYPES:
        raise InvalidInputError("memory_type", f"must be one of {', '.join(MEMORY_TYPES)}")


def require_memories(memories: Sequence[NewMemory], days: Days) -> None:
    """Check memories that are to be kept in one call.

    Raises:
        InvalidInputError: There are none, too many, or one breaks a rule.
    """
    if not 1 <= len(memories) <= MAX_BATCH:
        raise InvalidInputError(
            "memories", f"holds {len(memories):,} and may hold 1 to {MAX_BATCH:,}; give several lists"
        )
    for memory in memories:
        require_text("content", memory.content, MAX_CONTENT)
        require_memory_type(memory.memory_type)
        for argument in ("source", "thread_id", "subject"):
            value = getattr(memory, argument)
            if value is not None:
                require_text(argument, value, MAX_NAME)
        for argument in ("occurred_at", "expires_at"):
            if (moment := getattr(memory, argument)) is not None:
                parse_moment(argument, moment, days)
    _require_total("memories", memories)


def require_messages(messages: Sequence[NewMessage], days: Days) -> None:
    """Check messages that are to be kept in one call.

    Raises:
        InvalidInputError: There are none, too many, or one breaks a rule.
    """
    if not 1 <= len(messages) <= MAX_MESSAGES:
        raise InvalidInputError(
            "messages", f"holds {len(messages):,} and may hold 1 to {MAX_MESSAGES}; give several lists"
        )
    for message in messages:
        if message.role not in MESSAGE_ROLES:
            raise InvalidInputError("role", f"must be one of {', '.join(MESSAGE_ROLES)}")
        require_text("content", message.content, MAX_CONTENT)
        if message.created_at is not None:
            parse_moment("created_at", message.created_at, days)
    _require_total("messages", messages)


def _require_total(argument: str, kept: Sequence[NewMemory] | Sequence[NewMessage]) -> None:
    total = sum(len(one.content) for one in kept)
    if total > MAX_BATCH_CHARACTERS:
        raise InvalidInputError(
            argument,
            f"has {total:,} characters in all and may have {MAX_BATCH_CHARACTERS:,}; give several lists",
        )


def parse_filter(
    thread_id: str | None,
    memory_type: str | None,
    since: str | None,
    until: str | None,
    days: Days,
) -> MemoryFilter:
    """Build a filter; a date means the whole of that day, and a time without a zone is the user's.

    Raises:
        InvalidInputError: The type is unknown, a date is none, or `since` is after `until`.
    """
    if thread_id is not None:
        require_text("thread_id", thread_id, MAX_NAME)
    if memory_type is not None:
        require_memory_type(memory_type)
    first = None if since is None else parse_moment("since", since, days)
    last = None if until is None else parse_moment("until", until, days, end_of_day=True)
    if first and last and first > last:
        raise InvalidInputError("since", "must not be after `until`; swap the two")
    return MemoryFilter(thread_id, memory_type, first, last)


def parse_moment(argument: str, value: str, days: Days, *, end_of_day: bool = False) -> str:
    """Return the timestamp of an ISO time, or of the first (or last) moment of an ISO date.

    Dates, and times without a zone, are the user's.

    Raises:
        InvalidInputError: It is neither.
    """
    match = _DATE.fullmatch(value.strip())
    if match is None:
        raise InvalidInputError(argument, _FORM)
    try:
        moment = datetime.fromisoformat(match[0])
        if match[2] is not None:
            return timestamp(days.utc(moment))
        day = moment.date()
        return timestamp(days.last_moment(day) if end_of_day else days.first_moment(day))
    except (ValueError, OverflowError):
        raise InvalidInputError(argument, _FORM) from None


def parse_expiry(value: str, days: Days, now: str) -> str:
    """Return the timestamp of an expiry; one that is a date is the last moment of that day.

    Raises:
        InvalidInputError: It is neither a date nor a time, or not after the timestamp `now`.
    """
    moment = parse_moment("expires_at", value, days, end_of_day=True)
    if moment <= now:
        rule = "has passed already; give a date or time to come, or leave it out"
        raise InvalidInputError("expires_at", rule)
    return moment
