"""Which memories of a thread belong together: those beside each other, soon after one another."""

from collections.abc import Mapping
from datetime import datetime

from soulkeep.models import Memory

NEAR_S = 3600.0
"""Memories of a thread are neighbours when at most an hour lies between them."""

Neighbours = dict[int, tuple[int | None, int | None]]
"""For a memory's id, those of the memories before and after it in its thread."""


def near(neighbours: Neighbours, memories: Mapping[int, Memory]) -> Neighbours:
    """Leave only those neighbours that are also near in time; `memories` has all of them by id."""

    def one(i: int, other: int | None) -> int | None:
        if other is None or i not in memories or other not in memories:
            return None
        return other if are_near(memories[i].occurred_at, memories[other].occurred_at) else None

    return {i: (one(i, before), one(i, after)) for i, (before, after) in neighbours.items()}


def are_near(earlier: str, later: str) -> bool:
    """Whether at most an hour lies between two moments in ISO 8601."""
    if earlier == later:
        return True
    try:
        between = datetime.fromisoformat(later) - datetime.fromisoformat(earlier)
    except (TypeError, ValueError):
        return False  # another program's row, with a date that is none
    return abs(between.total_seconds()) <= NEAR_S
