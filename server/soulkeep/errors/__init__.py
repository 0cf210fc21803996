"""Every error that soulkeep raises on purpose.

SoulkeepError
├── NotFoundError         ThreadNotFoundError · MemoryNotFoundError (MemoryForgottenError ·
│                         MemoryErasedError) · ChangeNotFoundError · IdTooLargeError ·
│                         PromptNotFoundError · PromptNameNotFoundError · SectionNotFoundError ·
│                         EntryNotFoundError · VersionNotFoundError · BackupNotFoundError
├── UndoConflictError
├── InvalidInputError
├── UnknownArgumentError
├── StoreError            StoreBusyError · StoreNotWritableError · StoreFullError · OwnerGoneError ·
│                         PurgeUnfinishedError · NotAStoreError · StoreGoneError ·
│                         StoreReplacedError · StoreOverwrittenError · StoreCorruptError ·
│                         SchemaTooNewError · EmbedderMismatchError · BackupDamagedError ·
│                         BackupsBusyError · NotMigratedError
├── EmbedderError         EmbedderUnavailableError · DimensionMismatchError
└── DocumentError         HomeGoneError · DocumentChangedError · DocumentTooLongError

Each message is one line: what happened, then what to do next. The values in it are attributes too, so
no caller has to read the text.
"""

from soulkeep.errors.missing import (
    BackupNotFoundError,
    ChangeNotFoundError,
    EntryNotFoundError,
    IdTooLargeError,
    MemoryErasedError,
    MemoryForgottenError,
    MemoryNotFoundError,
    NotFoundError,
    PromptNameNotFoundError,
    PromptNotFoundError,
    SectionNotFoundError,
    ThreadNotFoundError,
    VersionNotFoundError,
)
from soulkeep.errors.refusals import (
    InvalidInputError,
    UndoConflictError,
    UnknownArgumentError,
)
from soulkeep.errors.stores import (
    BackupDamagedError,
    BackupsBusyError,
    EmbedderMismatchError,
    NotAStoreError,
    NotMigratedError,
    OwnerGoneError,
    PurgeUnfinishedError,
    SchemaTooNewError,
    StoreBusyError,
    StoreCorruptError,
    StoreError,
    StoreFullError,
    StoreGoneError,
    StoreNotWritableError,
    StoreOverwrittenError,
    StoreReplacedError,
)
from soulkeep.errors.texts import (
    DimensionMismatchError,
    DocumentChangedError,
    DocumentError,
    DocumentTooLongError,
    EmbedderError,
    EmbedderUnavailableError,
    HomeGoneError,
)
from soulkeep.errors.wording import (
    HALF_A_PAIR,
    SoulkeepError,
    excerpt,
    row_name,
)

__all__ = [
    "HALF_A_PAIR",
    "BackupDamagedError",
    "BackupNotFoundError",
    "BackupsBusyError",
    "ChangeNotFoundError",
    "DimensionMismatchError",
    "DocumentChangedError",
    "DocumentError",
    "DocumentTooLongError",
    "EmbedderError",
    "EmbedderMismatchError",
    "EmbedderUnavailableError",
    "EntryNotFoundError",
    "HomeGoneError",
    "IdTooLargeError",
    "InvalidInputError",
    "MemoryErasedError",
    "MemoryForgottenError",
    "MemoryNotFoundError",
    "NotAStoreError",
    "NotFoundError",
    "NotMigratedError",
    "OwnerGoneError",
    "PromptNameNotFoundError",
    "PromptNotFoundError",
    "PurgeUnfinishedError",
    "SchemaTooNewError",
    "SectionNotFoundError",
    "SoulkeepError",
    "StoreBusyError",
    "StoreCorruptError",
    "StoreError",
    "StoreFullError",
    "StoreGoneError",
    "StoreNotWritableError",
    "StoreOverwrittenError",
    "StoreReplacedError",
    "ThreadNotFoundError",
    "UndoConflictError",
    "UnknownArgumentError",
    "VersionNotFoundError",
    "excerpt",
    "row_name",
]
