"""The documents as the agent's notebook: entries of MEMORY.md, the day's log, lines of SOUL.md."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date

from soulkeep.documents import DocumentName, Documents, TextEdit, log_name
from soulkeep.embedders.tokens import TokenCounter
from soulkeep.errors import DocumentChangedError, DocumentTooLongError, InvalidInputError, StoreBusyError
from soulkeep.models import Options, Session
from soulkeep.repository import Repository
from soulkeep.service.callers import MAX_ENTRY, MAX_NAME, Sessions, require_text
from soulkeep.service.changes import Changes, newest_versions
from soulkeep.service.edits import Edits, link_to, linked_id, promoted_line, take_back_later
from soulkeep.wording import in_one_form, visible

MAX_EDITED = 2_000_000
"""Characters of a document that entries are put into, some seconds of reading Markdown."""

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
    """What MEMORY.md takes after a change, and what could go where that is over the budget.

    `changed` is false where it said all that already, so that nothing was written.
    """

    section: str
    entry: str
    changed: bool
    tokens: int
    budget: int
    suggestions: tuple[Suggestion, ...]


@dataclass(eq=False)
class Curator:
    """Changes documents on behalf of an agent or a command; every change can be undone."""

    _repository: Repository
    _documents: Documents
    _edits: Edits
    _changes: Changes
    _sessions: Sessions
    _tokens: TokenCounter
    _options: Options

    def add_entry(self, section: str, entry: str, session: Session | None = None) -> Curated:
        """Add an entry to a section of MEMORY.md and date the footer; a list becomes an entry an item.

        What the section says already is not written again.

        Raises:
            InvalidInputError: The section or the entry breaks a rule.
            SectionNotFoundError: MEMORY.md has no such section.
            DocumentError: MEMORY.md cannot be read or written.
        """
        _require(section, entry)
        return self._curate(
            "entry.added", section, entry, lambda text: _added(text, section, entry), session
        )

    def add_to(
        self, name: DocumentName, section: str, entry: str, session: Session | None = None
    ) -> bool:
        """Add an entry to a section of either document, for the user, and date its footer.

        Return whether anything was written: what the section says already is not.

        Raises:
            InvalidInputError: The section or the entry breaks a rule.
            SectionNotFoundError: The document has no such section.
            DocumentError: The document cannot be read or written.
        """
        _require(section, entry)
        _, changed = self._edit(
            name,
            "entry.added",
            lambda text: _added(text, section, entry),
            session,
            {"section": section, "characters": len(entry)},
        )
        return changed

    def promote(self, memory_id: int, section: str, session: Session | None = None) -> Curated:
        """Add a memory's text to a section of MEMORY.md, with a link to the memory.

        The line goes and changes with the memory; there is one in a section, however often it is asked
        for. The id of an older version stands for the newest.

        Raises:
            MemoryNotFoundError: There is no such memory.
            InvalidInputError: It is an entry of a document already, or too long for one.
            SectionNotFoundError: MEMORY.md has no such section.
            DocumentError: MEMORY.md cannot be read or written.
        """
        memory = newest_versions(self._repository, [memory_id])[memory_id]
        if memory.document is not None:
            rule = f"names an entry of {memory.document}, not a memory"
            raise InvalidInputError("memory_id", rule)
        entry = promoted_line(memory, section)
        _require(section, entry)

        def require_memory() -> None:
            if newest_versions(self._repository, [memory_id])[memory_id] != memory:
                raise StoreBusyError(self._repository.place)

        return self._curate(
            "entry.promoted",
            section,
            entry,
            lambda text: _with_entry(text, section, entry),
            session,
            require_memory,
        )

    def replace_entry(
        self, section: str, entry: str, new_entry: str | None, session: Session | None = None
    ) -> Curated:
        """Put another entry in the place of one in a section of MEMORY.md; a link it has stays.

        None for the new one takes the entry out.

        Raises:
            InvalidInputError: An argument breaks a rule.
            SectionNotFoundError: MEMORY.md has no such section.
            EntryNotFoundError: The section has no such entry, or several.
            DocumentError: MEMORY.md cannot be read or written.
        """
        from soulkeep.documents.blocks import list_sent
        from soulkeep.documents.markdown import replace_entry

        _require(section, entry)
        if new_entry is not None:
            _require(section, new_entry, "new_entry")
            new_entry, *others = list_sent(new_entry, section)
            if others:
                raise InvalidInputError(
                    "new_entry", "holds several list items; give one, and add the others"
                )
            origin = linked_id(entry)
            if origin is not None and linked_id(new_entry) is None:
                new_entry = f"{new_entry.rstrip()} {link_to(origin)}"
        return self._curate(
            "entry.removed" if new_entry is None else "entry.replaced",
            section,
            entry if new_entry is None else new_entry,
            lambda text: replace_entry(text, section, entry, new_entry),
            session,
        )

    def _curate(
        self,
        action: str,
        section: str,
        entry: str,
        change: TextEdit,
        session: Session | None,
        require: Callable[[], None] = lambda: None,
    ) -> Curated:
        from soulkeep.documents.markdown import list_entries

        details = {"section": section, "characters": len(entry)}
        text, changed = self._edit("MEMORY.md", action, change, session, details, require=require)
        tokens, budget, sized = self._tokens.count(text), self._options.memory_tokens, []
        if tokens > budget:
            longest = sorted(list_entries(text), key=lambda entry: -len(entry.text))[:_SUGGESTED]
            sized = [Suggestion(e.heading, e.text, self._tokens.count(e.text)) for e in longest]
        suggestions = tuple(sorted(sized, key=lambda suggestion: -suggestion.tokens))
        return Curated(section, entry, changed, tokens, budget, suggestions)

    def log_day(self, text: str, session: Session | None = None) -> tuple[date, str]:
        """Append an entry to today's log; return the day and the time of its header.

        Raises:
            InvalidInputError: The text breaks a rule.
            DocumentError: The log cannot be written.
        """
        require_text("text", text, MAX_ENTRY)
        session, action = session or self._sessions.current(), "log.appended"
        with (
            self._documents.texts.locked(),
            self._changes.recording(action, session) as recorder,
        ):
            day, time, hunk = self._documents.append_daily(text)
            take_back_later(recorder.on_failure, self._documents, log_name(day), [hunk])
            recorder.edit(log_name(day), [hunk])
            details = {"document": log_name(day), "characters": len(text)}
            self._sessions.audit(session, action, details)
        return day, time

    def learned_line(self, line: str) -> str:
        """Return the line as it would stand under Learned Preferences in SOUL.md.

        What hides in it is replaced by a sign: the user agrees to what they see, and that is written.

        Raises:
            InvalidInputError: The line is blank, has several lines, or is too long.
        """
        from soulkeep.documents.blocks import unmarked

        require_text("line", line, 500)
        if len(line.splitlines()) != 1:
            raise InvalidInputError("line", "must be a single line")
        return f"{unmarked(visible(line)).strip()} ({self._documents.today().isoformat()})"

    def learn(self, line: str, session: Session | None = None) -> str:
        """Write a line that the user agreed to under Learned Preferences in SOUL.md, once; return it.

        Raises:
            InvalidInputError: The line breaks a rule.
            SectionNotFoundError: The user removed that section.
            DocumentError: SOUL.md cannot be read or written.
        """
        written = self.learned_line(line)
        self._edit(
            "SOUL.md",
            "preference.learned",
            lambda text: _with_entry(text, LEARNED, written),
            session,
            {"characters": len(written)},
        )
        return written

    def replace_text(
        self, name: DocumentName | date, former: str, new: str, session: Session | None = None
    ) -> None:
        """Put the text that the user wrote in the place of a document's, or of a day's log.

        Raises:
            DocumentChangedError: It does not say `former` any more; it stays as it is.
            InvalidInputError: The new text is blank, or none that a file can hold.
            DocumentError: The document cannot be read or written.
        """
        full = log_name(name) if isinstance(name, date) else str(name)
        if not new.strip():
            raise InvalidInputError("text", "must not be blank; to be rid of the text, leave a heading")

        def change(now: str) -> str:
            if now != former:
                place = f"{self._documents.texts.place}/{full}"
                remedy = "edit what it says now"
                raise DocumentChangedError(place, "it was changed meanwhile and stays so", remedy)
            return new

        details = {"characters": len(new)}
        self._edit(full, "document.edited", change, session, details, dated=False)

    def restore(self, name: DocumentName, version: str, session: Session | None = None) -> None:
        """Make a former text of a document the present one, which is kept as a version too.

        Raises:
            VersionNotFoundError: No such version is kept.
            DocumentError: It or the document cannot be read or written.
        """
        former, details = self._documents.read_version(name, version), {"version": version}
        self._edit(name, "document.restored", lambda _: former, session, details, dated=False)

    def _edit(
        self,
        name: str,
        action: str,
        change: TextEdit,
        session: Session | None,
        details: Mapping[str, object],
        *,
        dated: bool = True,
        require: Callable[[], None] = lambda: None,
    ) -> tuple[str, bool]:
        """Change a document and record it; `require` is called inside the recording, before the change.

        Return its text, and whether it is another one: else nothing is written or recorded. Files are
        locked until that is done, so that the log has edits in the order they were made in.
        """
        session, path = session or self._sessions.current(), f"{self._documents.texts.place}/{name}"

        def steps(text: str) -> list[str]:
            # Finding the place of an entry in a longer one would take minutes and gigabytes.
            if dated and len(text) > MAX_EDITED:
                raise DocumentTooLongError(path, len(text), MAX_EDITED)
            return [change(text)]

        with self._documents.texts.locked():
            # Before the store is locked: in a long document it takes seconds.
            planned = self._edits.plan(name, steps, dated=dated)
            if planned.changes_nothing:
                return planned.text, False
            with self._changes.recording(action, session) as recorder:
                require()
                text = planned.write(recorder.on_failure)
                recorder.edit(name, planned.hunks)
                self._sessions.audit(session, action, {"document": name, **details})
        return text, True


def _added(text: str, section: str, sent: str) -> str:
    from soulkeep.documents.blocks import list_sent

    for entry in list_sent(sent, section):
        text = _with_entry(text, section, entry)
    return text


def _with_entry(text: str, section: str, entry: str) -> str:
    """Return the text with an entry in a section; a client that got no answer asks for it again."""
    from soulkeep.documents.markdown import add_entry, entries_of

    said = in_one_form(entry)
    # To look for it first takes less than to read all entries, in a long document by seconds.
    there = entries_of(text, section) if said in in_one_form(text) else []
    return text if said in {in_one_form(one.text) for one in there} else add_entry(text, section, entry)


def _require(section: str, entry: str, argument: str = "entry") -> None:
    require_text("section", section, MAX_NAME)
    require_text(argument, entry, MAX_ENTRY)
