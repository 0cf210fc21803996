"""What keeps a change from being taken back: rows that hold it, and later changes that built upon it."""

from collections.abc import Sequence

from soulkeep.errors import UndoConflictError
from soulkeep.models import Change, ChangedRow, Image, RowKind
from soulkeep.repository import Repository
from soulkeep.service.change_recorder import ADDED

_Key = tuple[RowKind, str]


def held_by(repository: Repository, row: ChangedRow) -> list[_Key]:
    """Return what belongs to a thread that would go, or the thread that a row would come back into."""
    if row.kind == "threads" and row.before is None:
        memories = repository.memories.list_of_thread(row.key)
        messages = repository.messages.ids_of_thread(row.key)
        return [*(("memories", str(m.id)) for m in memories), *(("messages", str(i)) for i in messages)]
    thread_id = None
    if row.kind == "memories" and row.before:
        thread_id = row.before["thread_id"]
    elif row.kind == "messages" and row.before:
        thread_id = repository.messages.thread_of(row.before["session_id"])
    if thread_id is None or repository.changes.image("threads", thread_id) is not None:
        return []
    return [("threads", thread_id)]


def built_upon(
    repository: Repository, conflict: UndoConflictError, taken: Sequence[Change]
) -> list[Change]:
    """Return the latest changes in force that stand in the way of a conflict, but for those taken."""
    keys = conflict.held_by or [(conflict.kind, conflict.key)]
    ids = repository.changes.latest_of(keys, conflict.change_id, [change.id for change in taken])
    return [repository.changes.get_change(change_id) for change_id in ids]


def is_as_left(repository: Repository, row: ChangedRow, current: Image | None) -> bool:
    """Whether a row is as a change left it; an expiry that was cleared on its return does not count."""
    if row.after == ADDED:
        return current is not None
    if row.after == repository.changes.digest(current):
        return True
    if row.before is None or current is None or current.get("expires_at") is not None:
        return False
    return row.after == repository.changes.digest(
        {**current, "expires_at": row.before.get("expires_at")}
    )
