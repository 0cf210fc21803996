"""What is wrong with a store or a backup, or in the way of writing it."""

from collections.abc import Sequence
from pathlib import Path

from soulkeep.errors.wording import SoulkeepError


class StoreError(SoulkeepError):
    """The store's file cannot serve the request."""

    def __init__(self, path: Path, problem: str, remedy: str) -> None:
        self.path = path
        self.problem = problem
        self.remedy = remedy
        super().__init__(f"{path}: {problem}; {remedy}.")


class StoreBusyError(StoreError):
    """Another process held the write lock longer than the busy timeout."""

    def __init__(self, path: Path) -> None:
        super().__init__(
            path, "another process is writing and did not finish in time", "try again in a moment"
        )


class StoreNotWritableError(StoreError):
    """The file or its folder cannot be opened for writing."""

    def __init__(self, path: Path, detail: str) -> None:
        self.detail = detail
        super().__init__(
            path,
            f"the store cannot be opened for writing ({detail})",
            "make the folder writable for you, or set SOULKEEP_HOME to one that is",
        )


class StoreFullError(StoreError):
    """The disk is full; the transaction was rolled back."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, "the disk is full and nothing was written", "free some space and retry")


class OwnerGoneError(StoreError):
    """What was to be written belongs to a thread or session that is not there any more."""

    def __init__(self, path: Path) -> None:
        super().__init__(
            path,
            "the thread that this belongs to was deleted meanwhile, and nothing was written",
            "list the threads, then try again with one that is there",
        )


class PurgeUnfinishedError(StoreError):
    """A purge got as far as `done` says; `kept_in` names what may still hold the text.

    Where it is `marked` in the store, it goes on by itself when asked to.
    """

    def __init__(self, done: str, kept_in: Sequence[str], error: StoreError, *, marked: bool) -> None:
        self.done = done
        self.kept_in = tuple(kept_in)
        problem, remedy = error.problem, error.remedy
        if isinstance(error, StoreFullError):
            problem, remedy = "the disk is full", "free some space"
        elif isinstance(error, BackupDamagedError):
            remedy = "delete its folder if you cannot mend it"
        super().__init__(
            error.path,
            f"{problem}; {done}, and the text may still stand in {', '.join(self.kept_in)}",
            f"{remedy}, then {'run `soulkeep purge`, which goes on' if marked else 'purge it again'}",
        )


class NotAStoreError(StoreError):
    """The path holds something that soulkeep did not make."""

    def __init__(self, path: Path, found: str) -> None:
        self.found = found
        super().__init__(
            path,
            f"this is {found}, not a soulkeep store, and was left as it is",
            "move it away, or set SOULKEEP_HOME to another folder",
        )


class StoreGoneError(StoreError):
    """The file was moved or deleted while it was open."""

    def __init__(self, path: Path) -> None:
        super().__init__(
            path,
            "the store was moved or deleted while soulkeep had it open, and nothing was written",
            "put it back, or restart soulkeep (in your client) to begin a new one",
        )


class StoreReplacedError(StoreError):
    """Another store was put in the place of the one that was open."""

    def __init__(self, path: Path) -> None:
        super().__init__(
            path,
            "another store was put in place of the one that soulkeep had open, and nothing was written",
            "put the former one or a copy of it back, or restart soulkeep (in your client) to use it",
        )


class StoreOverwrittenError(StoreError):
    """Something else was written into the file while it was open; `log` is kept beside it."""

    def __init__(self, path: Path, found: str, log: Path | None, backup: str | None) -> None:
        self.found = found
        self.log = log
        self.backup = backup
        keep = f"leave {log}, which holds the latest changes, beside it, and " if log else ""
        restore = f"run `soulkeep restore {backup}`" if backup else "put the former file or a copy back"
        super().__init__(
            path,
            f"something else was written over the store, it is {found} now, and nothing was changed",
            f"{keep}{restore}, or move all of it away to begin anew",
        )


class StoreCorruptError(StoreError):
    """SQLite cannot read the file."""

    def __init__(self, path: Path, detail: str) -> None:
        self.detail = detail
        super().__init__(
            path,
            f"the store is damaged ({detail})",
            "run `soulkeep doctor --repair`, or `soulkeep restore` with one of `soulkeep backups`",
        )


class SchemaTooNewError(StoreError):
    """A later soulkeep wrote the file."""

    def __init__(self, path: Path, found: int, supported: int) -> None:
        self.found = found
        self.supported = supported
        super().__init__(
            path,
            f"the store has schema version {found} and this soulkeep knows {supported}",
            "upgrade soulkeep",
        )


class EmbedderMismatchError(StoreError):
    """The store has the vectors of an embedder, and none is in use."""

    def __init__(self, path: Path, stored: str) -> None:
        self.stored = stored
        super().__init__(
            path,
            f"the store's vectors were made by {stored}, and no embedder is in use now",
            "start it as before (Python version, SOULKEEP_EMBEDDER), or run `soulkeep reindex`, which"
            " deletes them",
        )


class BackupDamagedError(StoreError):
    """A backup is not what was written."""

    def __init__(self, path: Path, detail: str) -> None:
        self.detail = detail
        super().__init__(
            path,
            f"the backup is damaged ({detail})",
            "take another one that `soulkeep backups` lists; the home was left as it is",
        )


class BackupsBusyError(StoreError):
    """Another process is making or restoring a backup of this home."""

    def __init__(self, path: Path) -> None:
        super().__init__(
            path, "another process is making or restoring a backup", "try again in a moment"
        )


class NotMigratedError(StoreError):
    """A store of an older schema stays as it is, since no backup of it could be made."""

    def __init__(self, path: Path, version: int, reason: str, remedy: str) -> None:
        self.version = version
        self.reason = reason
        problem = f"it stays at schema version {version}, since it could not be backed up ({reason})"
        super().__init__(path, problem, remedy)
