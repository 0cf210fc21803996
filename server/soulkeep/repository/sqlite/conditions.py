"""Filters as SQL."""

from soulkeep.models import MemoryFilter

WHEN = "ifnull(m.occurred_at, m.created_at)"
"""When a memory of `memories AS m` happened or was said."""


def conditions(allowed: MemoryFilter) -> tuple[str, dict[str, str]]:
    """Return SQL that begins with AND for each set field, over `memories AS m`, and its values."""
    conditions = {
        "thread": ("(m.thread_id = :thread OR m.thread_id IS NULL)", allowed.thread_id),
        "type": ("m.memory_type = :type", allowed.memory_type),
        "since": (f"{WHEN} >= :since", allowed.since),
        "until": (f"{WHEN} <= :until", allowed.until),
    }
    chosen = {name: (sql, value) for name, (sql, value) in conditions.items() if value is not None}
    where = "".join(f" AND {sql}" for sql, _ in chosen.values())
    return where, {name: value for name, (_, value) in chosen.items()}
