"""What the caller named and is not there."""

from collections.abc import Sequence

from soulkeep.errors.wording import TITLES, SoulkeepError, excerpt


class NotFoundError(SoulkeepError):
    """The caller named something that is not in the store; `remedy` says how to find what is."""

    def __init__(self, problem: str, remedy: str) -> None:
        self.problem = problem
        self.remedy = remedy
        super().__init__(f"{problem}; {remedy}.")


class ThreadNotFoundError(NotFoundError):
    """No thread has this id."""

    def __init__(self, thread_id: str) -> None:
        self.thread_id = thread_id
        super().__init__(
            f"There is no thread {excerpt(thread_id)}",
            "create one with create_thread, or leave thread_id out to use global memories",
        )


class MemoryNotFoundError(NotFoundError):
    """No memory has this id, or none does `in_trash`."""

    def __init__(self, memory_id: int, *, in_trash: bool = False) -> None:
        self.memory_id = memory_id
        where = " in the trash" if in_trash else ""
        remedy = "look at what is there" if in_trash else "use an id that recall returned"
        super().__init__(f"There is no memory {memory_id}{where}", remedy)


class MemoryForgottenError(MemoryNotFoundError):
    """The memory is in the trash."""

    def __init__(self, memory_id: int) -> None:
        self.memory_id = memory_id
        problem = f"Memory #{memory_id} is in the trash"
        NotFoundError.__init__(self, problem, "restore it to use it again")


class MemoryErasedError(MemoryNotFoundError):
    """The memory was purged, at a moment that the log still knows."""

    def __init__(self, memory_id: int, erased_at: str) -> None:
        self.memory_id = memory_id
        self.erased_at = erased_at
        problem = f"Memory #{memory_id} was erased for good at {erased_at}"
        NotFoundError.__init__(self, problem, "there is nothing left to do")


class ChangeNotFoundError(NotFoundError):
    """No change has this id, or it is older than what is kept."""

    def __init__(self, change_id: int) -> None:
        self.change_id = change_id
        super().__init__(f"There is no change {change_id} that is still kept", "list the changes first")


class IdTooLargeError(NotFoundError):
    """An id, or the place of a page, is a number that no row can have."""

    def __init__(self) -> None:
        super().__init__("No id is as large as that", "use one that was shown before")


class PromptNotFoundError(NotFoundError):
    """No global prompt has this id."""

    def __init__(self, prompt_id: int) -> None:
        self.prompt_id = prompt_id
        super().__init__(
            f"There is no global prompt {prompt_id}", "`soulkeep prompts list` shows their ids"
        )


class PromptNameNotFoundError(NotFoundError):
    """No global prompt has this name."""

    def __init__(self, name: str) -> None:
        self.name = name
        super().__init__(
            f"There is no global prompt named {excerpt(name)}",
            "take a name that list_prompts shows with include_inactive, or send content to create it",
        )


class SectionNotFoundError(NotFoundError):
    """No section of a document has this title."""

    def __init__(self, section: str, sections: Sequence[str]) -> None:
        self.section = section
        self.sections = tuple(sections)
        there = ", ".join(excerpt(title) for title in self.sections[:TITLES]) or "none"
        more = f" and {len(self.sections) - TITLES} more" if len(self.sections) > TITLES else ""
        super().__init__(
            f"There is no section {excerpt(section)}", f"name one of those there are: {there}{more}"
        )


class EntryNotFoundError(NotFoundError):
    """No entry of a section says this, or `count` of them do."""

    def __init__(self, section: str, entry: str, near: Sequence[str], count: int) -> None:
        self.section = section
        self.entry = entry
        self.near = tuple(near)
        self.count = count
        where = f"{excerpt(entry)} in the section {excerpt(section)}"
        if count:
            super().__init__(f"There are {count} entries {where}", "tell them apart by hand first")
        elif self.near:
            there = ", ".join(excerpt(text) for text in self.near)
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
            f"There is no version {excerpt(version)} of {document}",
            f"`soulkeep documents history {document}` shows what is kept",
        )


class BackupNotFoundError(NotFoundError):
    """No backup has this id, or none is as old as this moment."""

    def __init__(self, wanted: str) -> None:
        self.wanted = wanted
        super().__init__(
            f"There is no backup {excerpt(wanted)} and none from before such a moment",
            "`soulkeep backups` lists what there is",
        )
