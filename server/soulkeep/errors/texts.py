"""What is wrong with an embedder or a document."""

from pathlib import Path

from soulkeep.errors.wording import SoulkeepError


class EmbedderError(SoulkeepError):
    """A text could not be embedded."""


class EmbedderUnavailableError(EmbedderError):
    """The configured embedder cannot be used here."""

    def __init__(self, name: str, reason: str, remedy: str) -> None:
        self.name = name
        self.reason = reason
        self.remedy = remedy
        super().__init__(f"The embedder {name} is not available: {reason}; {remedy}.")


class DimensionMismatchError(EmbedderError):
    """A vector has a length that the store cannot hold."""

    def __init__(self, expected: int, got: int) -> None:
        self.expected = expected
        self.got = got
        super().__init__(
            f"An embedding has {got} dimensions and the store holds up to {expected}; "
            "choose another embedder with SOULKEEP_EMBEDDER."
        )


class DocumentError(SoulkeepError):
    """SOUL.md, MEMORY.md or a daily log cannot be read, seeded or written."""

    def __init__(self, path: Path, problem: str, remedy: str) -> None:
        self.path = path
        self.problem = problem
        self.remedy = remedy
        super().__init__(f"{path}: {problem}; {remedy}.")


class HomeGoneError(DocumentError):
    """The folder of the documents was moved or deleted while it was in use."""

    def __init__(self, home: Path) -> None:
        super().__init__(
            home,
            "the folder was moved or deleted while soulkeep used it, and nothing was written",
            "put it back, or restart soulkeep (in your client) to begin a new one",
        )


class DocumentChangedError(DocumentError):
    """The place that an edit was meant for went away while the edit was made."""

    def __init__(self, path: Path) -> None:
        super().__init__(
            path,
            "it was changed by hand meanwhile and has no place for this edit any more",
            "read it again and decide anew",
        )


class DocumentTooLongError(DocumentError):
    """A document is longer than one that is edited at the place of an entry."""

    def __init__(self, path: Path, size: int, most: int) -> None:
        self.size = size
        self.most = most
        super().__init__(
            path,
            f"it has {size / 1e6:,.1f} million characters and may have {most / 1e6:g} to be edited here",
            "edit it by hand, or move what is old into a file of its own",
        )
