"""Value objects of bookkeeping: what the log holds, what a model cost, which backups there are."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class ModelUsage:
    """All uses of one model: how many, the tokens in and out, and the cost in US dollars."""

    model: str
    uses: int
    input_tokens: int
    output_tokens: int
    cost: float


@dataclass(frozen=True, slots=True)
class LogEntry:
    """One line of the log: who did what when; `details` hold ids and sizes, never what was said."""

    at: str
    agent_id: str
    event: str
    details: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Backup:
    """A copy of a store and its documents as they were together at `made_at`.

    An `automatic` one was made before a migration, a deletion or a restore, as its `label` says.
    `counts` are rows by table; `left_out` names documents that could not be read.
    """

    id: str
    made_at: str
    label: str
    automatic: bool
    size: int
    counts: Mapping[str, int]
    left_out: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Restored:
    """What a home was set back to, and where what it held until then is.

    `former` is unset where the store was damaged: then `kept` has its files as they were, and `left`
    names documents that could not be read or replaced.
    """

    backup: Backup
    former: Backup | None
    kept: Path
    left: tuple[str, ...] = ()
