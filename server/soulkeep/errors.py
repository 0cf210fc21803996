"""Every error that soulkeep raises on purpose.

SoulkeepError
├── NotFoundError         ThreadNotFoundError · MemoryNotFoundError (MemoryForgottenError ·
│                         MemoryErasedError) · ChangeNotFoundError · IdTooLargeError ·
│                         PromptNotFoundError · PromptNameNotFoundError · SectionNotFoundError ·
│                         EntryNotFoundError · VersionNotFoundError · BackupNotFoundError
├── UndoConflictError
├── InvalidInputError
├── UnknownArgumentError
├── PathError
│   ├── SourceError
│   ├── StoreError        StoreBusyError · StoreNotWritableError · StoreFullError · OwnerGoneError ·
│   │                     PurgeUnfinishedError · NotAStoreError · StoreGoneError ·
│   │                     StoreReplacedError · StoreOverwrittenError · StoreCorruptError ·
│   │                     SchemaTooNewError · EmbedderMismatchError · BackupDamagedError ·
│   │                     BackupsBusyError · NotMigratedError
│   └── DocumentError     HomeGoneError · DocumentChangedError · DocumentTooLongError
└── EmbedderError         EmbedderUnavailableError · DimensionMismatchError

Each message is one line: what happened, then what to do next. The values in it are attributes too, so
no caller has to read the text.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from soulkeep.wording import quoted, row_name

HALF_A_PAIR = "holds half of a surrogate pair; give whole Unicode characters"
"""The rule that a text breaks which no UTF-8 file can hold."""
TITLES = 20


class SoulkeepError(Exception):
    """Anything that soulkeep reports to its caller in a sentence."""


class NotFoundError(SoulkeepError):
    """The caller named something that is not in the store; `remedy` says how to find what is.

    A kind that is a dataclass has places for its values in `problem`; texts among them are quoted.
    """

    problem = ""
    remedy = ""

    def __init__(self, problem: str = "", remedy: str = "") -> None:
        self.problem = problem or self.problem
        self.remedy = remedy or self.remedy
        super().__init__(f"{self.problem}; {self.remedy}.")

    def __post_init__(self) -> None:
        values = {
            n: quoted(value) if isinstance(value, str) else value for n, value in vars(self).items()
        }
        NotFoundError.__init__(self, self.problem.format_map(values))


@dataclass(eq=False)
class ThreadNotFoundError(NotFoundError):
    """No thread has this id."""

    thread_id: str
    problem = "There is no thread {thread_id}"
    remedy = "create one with create_thread, or leave thread_id out to use global memories"


class MemoryNotFoundError(NotFoundError):
    """No memory has this id, or none does `in_trash`."""

    def __init__(self, memory_id: int, *, in_trash: bool = False) -> None:
        self.memory_id = memory_id
        where = " in the trash" if in_trash else ""
        remedy = "look at what is there" if in_trash else "use an id that recall returned"
        super().__init__(f"There is no memory {memory_id}{where}", remedy)


@dataclass(eq=False)
class MemoryForgottenError(MemoryNotFoundError):
    """The memory is in the trash."""

    memory_id: int
    problem = "Memory #{memory_id} is in the trash"
    remedy = "restore it to use it again"


class MemoryErasedError(MemoryNotFoundError):
    """The memory was purged, at a minute of the user's that the log still knows."""

    def __init__(self, memory_id: int, erased_at: str) -> None:
        self.memory_id = memory_id
        self.erased_at = erased_at
        problem = f"Memory #{memory_id} was erased for good at {erased_at}"
        NotFoundError.__init__(self, problem, "there is nothing left to do")


@dataclass(eq=False)
class ChangeNotFoundError(NotFoundError):
    """No change has this id, or it is older than what is kept."""

    change_id: int
    problem = "There is no change {change_id} that is still kept"
    remedy = "list the changes first"


class IdTooLargeError(NotFoundError):
    """An id, or the place of a page, is a number that no row can have."""

    problem = "No id is as large as that"
    remedy = "use one that was shown before"


@dataclass(eq=False)
class PromptNotFoundError(NotFoundError):
    """No global prompt has this id."""

    prompt_id: int
    problem = "There is no global prompt {prompt_id}"
    remedy = "`soulkeep prompts list` shows their ids"


@dataclass(eq=False)
class PromptNameNotFoundError(NotFoundError):
    """No global prompt has this name."""

    name: str
    problem = "There is no global prompt named {name}"
    remedy = "take a name that list_prompts shows with include_inactive, or send content to create it"


class SectionNotFoundError(NotFoundError):
    """No section of a document has this title."""

    def __init__(self, section: str, sections: Sequence[str]) -> None:
        self.section = section
        self.sections = tuple(sections)
        there = ", ".join(quoted(title) for title in self.sections[:TITLES]) or "none"
        more = f" and {len(self.sections) - TITLES} more" if len(self.sections) > TITLES else ""
        super().__init__(
            f"There is no section {quoted(section)}", f"name one of those there are: {there}{more}"
        )


class EntryNotFoundError(NotFoundError):
    """No entry of a section says this, or `count` of them do."""

    def __init__(self, section: str, entry: str, near: Sequence[str], count: int) -> None:
        self.section = section
        self.entry = entry
        self.near = tuple(near)
        self.count = count
        where = f"{quoted(entry)} in the section {quoted(section)}"
        if count:
            super().__init__(f"There are {count} entries {where}", "tell them apart by hand first")
        elif self.near:
            there = ", ".join(quoted(text) for text in self.near)
            super().__init__(
                f"There is no entry {where}", f"give the whole text of one, such as {there}"
            )
        else:
            remedy = "read the document and give the text of one"
            super().__init__(f"There is no entry {where}", remedy)


class VersionNotFoundError(NotFoundError):
    """No version of this name is kept of a document."""

    def __init__(self, document: str, version: str) -> None:
        self.document = document
        self.version = version
        super().__init__(
            f"There is no version {quoted(version)} of {document}",
            f"`soulkeep documents history {document}` shows what is kept",
        )


@dataclass(eq=False)
class BackupNotFoundError(NotFoundError):
    """No backup has this id, or none is as old as this moment."""

    wanted: str
    problem = "There is no backup {wanted} and none from before such a moment"
    remedy = "`soulkeep backups` lists what there is"


class UndoConflictError(SoulkeepError):
    """What a change did was changed again, so it cannot be taken back alone.

    `first` are the later changes to be undone before, in this order; without any, no change that is kept
    explains it. `text` is what a document no longer says as it was written, `held_by` the kinds and keys
    of rows that belong to what would go, or without which nothing can come back.
    """

    def __init__(
        self,
        change_id: int,
        kind: str,
        key: str,
        *,
        text: str = "",
        first: Sequence[int] = (),
        held_by: Sequence[tuple[str, str]] = (),
    ) -> None:
        self.change_id = change_id
        self.kind = kind
        self.key = key
        self.text = text
        self.first = tuple(first)
        self.held_by = tuple(held_by)
        what = f"what it did in {key}" if kind == "documents" else row_name(kind, key)
        if self.first:
            more = f" and {rest:,} before them" if (rest := len(self.first) - TITLES) > 0 else ""
            order = ", then ".join(map(str, self.first[:TITLES]))
            remedy = f"undo the later changes first: change {order}{more}"
        elif kind == "documents":
            there = f"put {quoted(text)} back where it stood and undo again" if text else "read it"
            remedy = f"it was edited by hand, so {there}, or edit it by hand"
        else:
            remedy = "no change that is kept did that, so look at what is there and change it by hand"
        super().__init__(
            f"Change {change_id} cannot be undone: {what} was changed or is used since; {remedy}."
        )


class InvalidInputError(SoulkeepError):
    """An argument breaks a rule; `argument` names it, `rule` says what to send instead."""

    def __init__(self, argument: str, rule: str) -> None:
        self.argument = argument
        self.rule = rule
        super().__init__(f"`{argument}` {rule}.")


class UnknownArgumentError(SoulkeepError):
    """A tool has no argument of this name, but one of which it is a misspelt or shortened form."""

    def __init__(self, tool: str, argument: str, close: str, known: Sequence[str]) -> None:
        self.tool = tool
        self.argument = argument
        self.close = close
        self.known = tuple(known)
        super().__init__(
            f"{tool} has no argument {quoted(argument)}; did you mean `{close}`? "
            f"It takes {', '.join(known)}. Nothing was done."
        )


class PathError(SoulkeepError):
    """Something is wrong with a file, a folder or the place of a store; each class says its own.

    A kind that is a dataclass has places for its values in `problem`.
    """

    problem = ""
    remedy = ""

    def __init__(self, path: Path | str, problem: str = "", remedy: str = "") -> None:
        self.path = path
        self.problem = problem or self.problem
        self.remedy = remedy or self.remedy
        super().__init__(f"{path}: {self.problem}; {self.remedy}.")

    def __post_init__(self) -> None:
        PathError.__init__(self, self.path, self.problem.format_map(vars(self)))


class SourceError(PathError):
    """What is to be imported cannot be, or nobody knows how."""


class StoreError(PathError):
    """The store's file cannot serve the request."""


class StoreBusyError(StoreError):
    """Another process held the write lock longer than the busy timeout."""

    problem = "another process is writing and did not finish in time"
    remedy = "try again in a moment"


@dataclass(eq=False)
class StoreNotWritableError(StoreError):
    """The file or its folder cannot be opened for writing."""

    path: Path | str
    detail: str
    problem = "the store cannot be opened for writing ({detail})"
    remedy = "make the folder writable for you, or set SOULKEEP_HOME to one that is"


class StoreFullError(StoreError):
    """The disk is full; the transaction was rolled back."""

    problem = "the disk is full and nothing was written"
    remedy = "free some space and retry"


class OwnerGoneError(StoreError):
    """What was to be written belongs to a thread or session that is not there any more."""

    problem = "the thread that this belongs to was deleted meanwhile, and nothing was written"
    remedy = "list the threads, then try again with one that is there"


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


@dataclass(eq=False)
class NotAStoreError(StoreError):
    """The path holds something that soulkeep did not make."""

    path: Path | str
    found: str
    problem = "this is {found}, not a soulkeep store, and was left as it is"
    remedy = "move it away, or set SOULKEEP_HOME to another folder"


class StoreGoneError(StoreError):
    """The file was moved or deleted while it was open."""

    problem = "the store was moved or deleted while soulkeep had it open, and nothing was written"
    remedy = "put it back, or restart soulkeep (in your client) to begin a new one"


class StoreReplacedError(StoreError):
    """Another store was put in the place of the one that was open."""

    problem = "another store was put in place of the one that soulkeep had open, and nothing was written"
    remedy = "put the former one or a copy of it back, or restart soulkeep (in your client) to use it"


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


@dataclass(eq=False)
class StoreCorruptError(StoreError):
    """SQLite cannot read the file."""

    path: Path | str
    detail: str
    problem = "the store is damaged ({detail})"
    remedy = "run `soulkeep doctor --repair`, or `soulkeep restore` with one of `soulkeep backups`"


@dataclass(eq=False)
class SchemaTooNewError(StoreError):
    """A later soulkeep wrote the file."""

    path: Path | str
    found: int
    supported: int
    problem = "the store has schema version {found} and this soulkeep knows {supported}"
    remedy = "upgrade soulkeep"


@dataclass(eq=False)
class EmbedderMismatchError(StoreError):
    """The store has the vectors of an embedder, and none is in use."""

    path: Path | str
    stored: str
    problem = "the store's vectors were made by {stored}, and no embedder is in use now"
    remedy = (
        "start it as before (Python version, SOULKEEP_EMBEDDER), or run `soulkeep reindex`, which"
        " deletes them"
    )


@dataclass(eq=False)
class BackupDamagedError(StoreError):
    """A backup is not what was written."""

    path: Path | str
    detail: str
    problem = "the backup is damaged ({detail})"
    remedy = "take another one that `soulkeep backups` lists; the home was left as it is"


class BackupsBusyError(StoreError):
    """Another process is making or restoring a backup of this home."""

    problem = "another process is making or restoring a backup"
    remedy = "try again in a moment"


@dataclass(eq=False)
class NotMigratedError(StoreError):
    """A store of an older schema stays as it is, since no backup of it could be made."""

    path: Path | str
    version: int
    reason: str
    remedy: str
    problem = "it stays at schema version {version}, since it could not be backed up ({reason})"


class EmbedderError(SoulkeepError):
    """A text could not be embedded.

    Where it `is_temporary`, trying again may help with nothing changed, after `retry_after_s` seconds if
    that is known. Where one text of several is at fault, `position` is its place among them.
    """

    is_temporary = False
    retry_after_s: float | None = None
    position: int | None = None
    sentence = ""
    """What is said, with places for the values of the error."""

    def __post_init__(self) -> None:
        super().__init__(self.sentence.format_map(vars(self)))


@dataclass(eq=False)
class EmbedderUnavailableError(EmbedderError):
    """The configured embedder cannot be used here."""

    name: str
    reason: str
    remedy: str
    sentence = "The embedder {name} is not available: {reason}; {remedy}."


@dataclass(eq=False)
class DimensionMismatchError(EmbedderError):
    """A vector has a length that the store cannot hold."""

    expected: int
    got: int
    sentence = (
        "An embedding has {got} dimensions and the store holds up to {expected};"
        " choose another embedder with SOULKEEP_EMBEDDER."
    )


class DocumentError(PathError):
    """SOUL.md, MEMORY.md or a daily log cannot be read, seeded or written."""


class HomeGoneError(DocumentError):
    """The folder of the documents was moved or deleted while it was in use."""

    problem = "the folder was moved or deleted while soulkeep used it, and nothing was written"
    remedy = "put it back, or restart soulkeep (in your client) to begin a new one"


class DocumentChangedError(DocumentError):
    """The place that an edit was meant for went away while the edit was made."""

    problem = "it was changed by hand meanwhile and has no place for this edit any more"
    remedy = "read it again and decide anew"


@dataclass(eq=False)
class DocumentTooLongError(DocumentError):
    """A document is longer than one that is edited at the place of an entry."""

    path: Path | str
    size: int
    most: int
    problem = "it has {size:,} characters and may have {most:,} to be edited here"
    remedy = "edit it by hand, or move what is old into a file of its own"
