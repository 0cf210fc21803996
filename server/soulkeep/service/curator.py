"""The documents as the agent's notebook: entries of MEMORY.md, the day's log, lines of SOUL.md."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date

from soulkeep.documents import Documents
from soulkeep.embedders.tokens import TokenCounter
from soulkeep.errors import InvalidInputError
from soulkeep.models import Options, Session
from soulkeep.repository import Repository
from soulkeep.service.documents import MEMORY, link_to, linked_id
from soulkeep.service.sessions import Sessions
from soulkeep.service.validation import MAX_NAME, require_text

MAX_ENTRY = 10_000
LEARNED = "Learned Preferences"

_SUGGESTED = 5


@dataclass(frozen=True, slots=True)
class Suggestion:
    """An entry of MEMORY.md that could go, and how many tokens it takes."""

    section: str
    entry: str
    tokens: int


@dataclass(frozen=True, slots=True)
class Curated:
    """What MEMORY.md takes after a change, and what could go where that is over the budget."""

    section: str
    entry: str
    tokens: int
    budget: int
    suggestions: tuple[Suggestion, ...]


class Curator:
    """Changes documents on behalf of an agent; every change keeps the former text in the history."""

    def __init__(
        self,
        repository: Repository,
        documents: Documents,
        sessions: Sessions,
        tokens: TokenCounter,
        options: Options,
    ) -> None:
        self._repository = repository
        self._documents = documents
        self._sessions = sessions
        self._tokens = tokens
        self._options = options

    def add_entry(self, section: str, entry: str, session: Session | None = None) -> Curated:
        """Add an entry to a section of MEMORY.md and date the footer.

        Raises:
            InvalidInputError: The section or the entry breaks a rule.
            SectionNotFoundError: MEMORY.md has no such section.
            DocumentError: MEMORY.md cannot be read or written.
        """
        from soulkeep.documents.markdown import add_entry

        _require(section, entry)
        return self._change(
            "added", section, entry, lambda text: add_entry(text, section, entry), session
        )

    def promote(self, memory_id: int, section: str, session: Session | None = None) -> Curated:
        """Add a memory's text to a section of MEMORY.md, with a link to the memory.

        Raises:
            MemoryNotFoundError: There is no such memory.
            InvalidInputError: It is an entry of a document already, or too long for one.
            SectionNotFoundError: MEMORY.md has no such section.
            DocumentError: MEMORY.md cannot be read or written.
        """
        memory = self._repository.memories.get_memory(memory_id)
        if memory.document is not None:
            raise InvalidInputError("memory_id", f"names an entry of {memory.document}, not a memory")
        return self.add_entry(section, f"{memory.content} {link_to(memory_id)}", session)

    def replace_entry(
        self, section: str, entry: str, new_entry: str, session: Session | None = None
    ) -> Curated:
        """Put another entry in the place of one in a section of MEMORY.md; a link it has stays.

        Raises:
            InvalidInputError: An argument breaks a rule.
            SectionNotFoundError: MEMORY.md has no such section.
            EntryNotFoundError: The section has no such entry, or several.
            DocumentError: MEMORY.md cannot be read or written.
        """
        from soulkeep.documents.markdown import replace_entry

        _require(section, entry)
        _require(section, new_entry, "new_entry")
        origin = linked_id(entry)
        if origin is not None and linked_id(new_entry) is None:
            new_entry = f"{new_entry.rstrip()} {link_to(origin)}"
        return self._change(
            "replaced",
            section,
            new_entry,
            lambda text: replace_entry(text, section, entry, new_entry),
            session,
        )

    def remove_entry(self, section: str, entry: str, session: Session | None = None) -> Curated:
        """Take an entry out of a section of MEMORY.md.

        Raises:
            InvalidInputError: An argument breaks a rule.
            SectionNotFoundError: MEMORY.md has no such section.
            EntryNotFoundError: The section has no such entry, or several.
            DocumentError: MEMORY.md cannot be read or written.
        """
        from soulkeep.documents.markdown import remove_entry

        _require(section, entry)
        return self._change(
            "removed", section, entry, lambda text: remove_entry(text, section, entry), session
        )

    def _change(
        self,
        what: str,
        section: str,
        entry: str,
        change: Callable[[str], str],
        session: Session | None,
    ) -> Curated:
        from soulkeep.documents.markdown import date_footer

        day = self._documents.today().isoformat()
        text = self._documents.edit("MEMORY.md", lambda before: date_footer(change(before), day))
        self._audit(session, f"entry.{what}", document=MEMORY, section=section, characters=len(entry))
        tokens = self._tokens.count(text)
        over = tokens > self._options.memory_tokens
        return Curated(
            section, entry, tokens, self._options.memory_tokens, self._suggestions(text) if over else ()
        )

    def _suggestions(self, text: str) -> tuple[Suggestion, ...]:
        from soulkeep.documents.markdown import list_entries

        sized = [
            Suggestion(entry.heading, entry.text, self._tokens.count(entry.text))
            for entry in sorted(list_entries(text), key=lambda entry: -len(entry.text))[:_SUGGESTED]
        ]
        return tuple(sorted(sized, key=lambda suggestion: -suggestion.tokens))

    def log_day(self, text: str, session: Session | None = None) -> tuple[date, str]:
        """Append an entry to today's log; return the day and the time of its header.

        Raises:
            InvalidInputError: The text breaks a rule.
            DocumentError: The log cannot be written.
        """
        require_text("text", text, MAX_ENTRY)
        day, time = self._documents.append_daily(text)
        self._audit(session, "log.appended", document=f"daily/{day}.md", characters=len(text))
        return day, time

    def learned_line(self, line: str) -> str:
        """Return the line as it would stand under Learned Preferences in SOUL.md.

        Raises:
            InvalidInputError: The line is blank, has several lines, or is too long.
        """
        require_text("line", line, 500)
        if len(line.splitlines()) != 1:
            raise InvalidInputError("line", "must be a single line")
        return f"{line.strip()} ({self._documents.today().isoformat()})"

    def learn(self, line: str, session: Session | None = None) -> str:
        """Write a line that the user agreed to under Learned Preferences in SOUL.md; return it.

        Raises:
            InvalidInputError: The line breaks a rule.
            SectionNotFoundError: The user removed that section.
            DocumentError: SOUL.md cannot be read or written.
        """
        from soulkeep.documents.markdown import add_entry

        written = self.learned_line(line)
        self._documents.edit("SOUL.md", lambda text: add_entry(text, LEARNED, written))
        self._audit(session, "preference.learned", document="SOUL.md", characters=len(written))
        return written

    def _audit(self, session: Session | None, event: str, **details: object) -> None:
        with self._repository.transaction(durable=False):
            self._sessions.audit(session or self._sessions.current(), event, details)


def _require(section: str, entry: str, argument: str = "entry") -> None:
    require_text("section", section, MAX_NAME)
    require_text(argument, entry, MAX_ENTRY)
