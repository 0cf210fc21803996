"""What is answered by the tools that work on documents and by the context to start with."""

from pathlib import Path
from typing import Literal

from soulkeep.fence import DATA, NOTE, fenced, heading, plain, under_heading, visible
from soulkeep.mcp_server.answers import Items, Prose, View, command, cut
from soulkeep.service.budget import NOTE as PARTS_NOTE
from soulkeep.service.context import Context, Part
from soulkeep.service.curator import Curated
from soulkeep.wording import counted

LearnedState = Literal["written", "declined", "not asked"]

_ENTRY_BYTES = 4_000
_SHOWN = 80
"""How many characters of an entry that could go are shown."""


class PartAnswer(View):
    """A part of the context; data is what is remembered, the rest are instructions."""

    name: str
    source: str
    text: str
    is_data: bool = False

    @classmethod
    def of(cls, part: Part) -> "PartAnswer":
        """Build the answer from a part."""
        text = visible(part.text.strip())
        return cls(name=plain(part.name), source=part.source, text=text, is_data=part.is_data)

    def as_text(self) -> str:
        """Return the part under a line that names it; each line of what is data stands behind a bar."""
        if self.is_data:
            return f"{heading(self.name, self.source, DATA)}\n{fenced(self.text)}"
        return f"{heading(self.name, self.source)}\n{under_heading(self.text)}"


class ContextAnswer(View):
    """The parts of the context in order, and what is left out; `advice` says what to save by now."""

    note: Prose = ""
    advice: Prose = ""
    parts: Items[PartAnswer]
    unreadable: Items[str] = ()
    left_out: Items[str] = ()
    kept: Prose = ""
    tokens: int
    max_tokens: int
    is_estimated: bool = False
    window_share: float | None = None
    is_pressing: bool | None = None

    @classmethod
    def of(cls, context: Context) -> "ContextAnswer":
        """Build the answer from a context."""
        pressure = context.pressure
        parts = tuple(PartAnswer.of(part) for part in context.parts)
        return cls(
            note=PARTS_NOTE if any(part.is_data for part in parts) else "",
            advice=context.advice,
            parts=parts,
            unreadable=context.unreadable,
            left_out=context.left_out,
            kept=context.kept,
            tokens=context.tokens,
            max_tokens=context.max_tokens,
            is_estimated=not context.is_exact,
            window_share=None if pressure is None else round(pressure.share, 3),
            is_pressing=None if pressure is None else pressure.is_high,
        )

    def as_text(self) -> str:
        """Write the parts under their headings, and last how much room they take."""
        blocks = [self.advice] if self.advice else []
        blocks += [part.as_text() for part in self.parts]
        blocks += [f"Cannot be read: {problem}" for problem in self.unreadable]
        if self.left_out:
            blocks.append("\n".join(["Left out, for want of room:", *self.left_out]))
        blocks = blocks or ["There is nothing to start with yet."]
        about = "about " if self.is_estimated else ""
        is_said = self.window_share is None or self.advice
        share = "" if is_said else f" Your window is {self.window_share:.0%} full."
        kept = f" Kept in all: {self.kept}."
        blocks.append(f"({about}{self.tokens:,} of {self.max_tokens:,} tokens.{share}{kept})")
        return "\n\n".join(blocks)


class LoggedAnswer(View):
    """Under which day and time the entry stands."""

    day: str
    time: str

    def as_text(self) -> str:
        """Say where the entry stands."""
        return f"Logged under {self.time} in daily/{self.day}.md."


class SuggestionAnswer(View):
    """An entry of MEMORY.md that could go, by its beginning."""

    section: str
    entry: str
    tokens: int

    def as_text(self) -> str:
        """Return the entry in one line."""
        return f"{self.section}, {counted(self.tokens, 'token')}: {self.entry}"


class CuratedAnswer(View):
    """The entry as it stands or stood, and what MEMORY.md takes of its budget after the change."""

    note: Prose
    action: Prose
    section: Prose
    entry: str
    tokens: int
    budget: int
    could_go: Items[SuggestionAnswer] = ()

    @classmethod
    def of(cls, action: str, curated: Curated) -> "CuratedAnswer":
        """Build the answer from a change."""
        could_go = tuple(
            SuggestionAnswer(section=plain(s.section), entry=plain(s.entry, _SHOWN), tokens=s.tokens)
            for s in curated.suggestions
        )
        return cls(
            note=NOTE,
            action=action,
            section=plain(curated.section),
            entry=cut(visible(curated.entry), _ENTRY_BYTES),
            tokens=curated.tokens,
            budget=curated.budget,
            could_go=could_go,
        )

    def as_text(self) -> str:
        """Say what was done and how much of the budget MEMORY.md takes."""
        done = {"add": "Added to", "replace": "Replaced in", "remove": "Removed from"}[self.action]
        size = f"MEMORY.md takes {self.tokens:,} of {self.budget:,} tokens."
        lines = [f"{done} {self.section}. {size} The entry ({DATA}):", fenced(self.entry)]
        if self.could_go:
            lines.append(
                "That is over the budget; nothing is cut off. The longest entries, which could go to"
                " remember instead:"
            )
            lines.append(fenced("\n".join(entry.as_text() for entry in self.could_go)))
        return "\n".join(lines)


class LearnedAnswer(View):
    """What became of a proposed line; `command` is how the user adds it where nobody could be asked."""

    state: LearnedState
    line: str
    command: str = ""

    @classmethod
    def of(cls, state: LearnedState, line: str, home: Path) -> "LearnedAnswer":
        """Build the answer from what the user said, if anybody could be asked."""
        how = command(home, ["documents", "add"], "SOUL.md", "Learned Preferences", line)
        return cls(state=state, line=line, command=how if state == "not asked" else "")

    def as_text(self) -> str:
        """Say whether the line was written, and else how the user adds it."""
        if self.state == "written":
            return f"Written to Learned Preferences in SOUL.md: {self.line}"
        if self.state == "declined":
            return (
                f"The user did not agree; SOUL.md stays as it is, without: {self.line}\n"
                "Do not propose it again."
            )
        return (
            f"The user was not asked, so nothing was written. The line:\n- {self.line}\n"
            f"The user adds it in an editor, or with:\n{self.command}"
        )
