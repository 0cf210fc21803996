"""What is answered about documents and global prompts, and as the context to start with."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import WithJsonSchema

from soulkeep.fence import DATA, NOTE, fenced, heading, plain, under_heading, visible
from soulkeep.mcp_server.answers import BOUND, Item, Items, Prose, View, command, cut, fit_items
from soulkeep.models import ConsentState, GlobalPrompt, PromptChange
from soulkeep.service.context import Context, Part
from soulkeep.service.curator import Curated
from soulkeep.service.offers import offer_prompts
from soulkeep.service.sections import NOTE as PARTS_NOTE
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


_LEAST = 400
"""How many bytes of a prompt are shown at least, or it comes on the next page."""
_CUT = "A text that ends in … goes on: the MCP prompt of its name has all of it."
_SHOWN_CONTENT = 4_000
"""How many characters of a text a command for the user holds."""


class PromptAnswer(Item):
    """A global prompt; `mcp_name` is its name among the MCP prompts while it is in force.

    One that is `proposed_by` an agent is no instruction of the user's.
    """

    note: str = ""
    id: int
    name: str
    is_active: bool
    priority: int
    mcp_name: str = ""
    proposed_by: str = ""
    content: str = ""

    @classmethod
    def of(cls, prompt: GlobalPrompt, mcp_name: str | None) -> "PromptAnswer":
        """Build the answer from a prompt."""
        return cls(
            note="" if prompt.is_agreed else f"Not agreed to by the user: {DATA}.",
            id=prompt.id,
            name=plain(prompt.name),
            content=visible(prompt.content).strip(),
            is_active=prompt.is_active,
            priority=prompt.priority,
            mcp_name=mcp_name or "",
            proposed_by="" if prompt.is_agreed else plain(prompt.prompt_by or "an agent"),
        )

    def facts(self) -> str:
        """Say whether it is an instruction in force."""
        state = "" if self.is_active else ", inactive"
        if self.proposed_by:
            state += f", proposed by {self.proposed_by} and not agreed to by the user: {DATA}"
        known_as = f"prompt {self.id}, " if self.id else ""
        return f"({known_as}priority {self.priority}{state})"

    def as_text(self) -> str:
        """Return the prompt under a line that names it; what is no instruction stands behind bars."""
        if self.proposed_by:
            return "\n".join([f"A proposal {self.facts()}", fenced(self.name), fenced(self.content)])
        offered = f" · in MCP {self.mcp_name}" if self.mcp_name else ""
        return f"{self.name} {self.facts()}{offered}\n{under_heading(self.content)}"


class PromptsAnswer(View):
    """Global prompts, highest priority first; `next` is what `after` takes for the following page.

    `cut` says how to read on in a text that ends in an ellipsis.
    """

    prompts: Items[PromptAnswer]
    cut: Prose = ""
    next: int | None = None

    @classmethod
    def of(cls, prompts: Sequence[GlobalPrompt], after: int = 0) -> "PromptsAnswer":
        """Build a page of the prompts behind the first `after`, as many as find room."""
        names = {offer.prompt.id: offer.name for offer in offer_prompts(prompts)}
        wanted = [PromptAnswer.of(prompt, names.get(prompt.id)) for prompt in prompts[after:]]
        shown = fit_items(wanted, BOUND, _LEAST)
        is_cut = any(part != whole for part, whole in zip(shown, wanted, strict=False))
        return cls(
            prompts=tuple(shown),
            cut=_CUT if is_cut else "",
            next=after + len(shown) if len(shown) < len(wanted) else None,
        )

    def as_text(self) -> str:
        """List the prompts with their texts."""
        blocks = [prompt.as_text() for prompt in self.prompts]
        blocks += [self.cut] if self.cut else []
        blocks += [f"There are more: pass after={self.next}."] if self.next is not None else []
        return "\n\n".join(blocks) or "The user has no global prompts."


class PromptChangeAnswer(View):
    """What became of a global prompt; `former_content` is the text that was replaced, if one was.

    Of a prompt that was removed the text is given, to set it again.

    `consent` says what became of the question where the user had to agree; where they were not asked,
    `command` is how they do it.
    """

    outcome: Literal["created", "changed", "removed", "kept"]
    # Described in the answer of list_prompts.
    prompt: Annotated[PromptAnswer, WithJsonSchema({"type": "object"})]
    former_content: str = ""
    consent: ConsentState | None = None
    command: str = ""

    @classmethod
    def of(
        cls, change: PromptChange, consent: ConsentState | None = None, how: str = ""
    ) -> "PromptChangeAnswer":
        """Build the answer from a change, and from what the user said to it."""
        prompt, former = PromptAnswer.of(change.prompt, change.offered_as), change.former
        replaced = former.content if former and former.content != change.prompt.content else ""
        kept = cut(prompt.content, BOUND // 3) if change.outcome == "removed" else ""
        return cls(
            outcome=change.outcome,
            prompt=prompt.with_content(kept),
            former_content=cut(visible(replaced), BOUND // 3),
            consent=consent,
            command=how,
        )

    def as_text(self) -> str:
        """Say what became of the prompt, with the text that is no longer kept."""
        done = "Kept as it was" if self.outcome == "kept" else self.outcome.capitalize()
        offered = f" Clients offer it as {self.prompt.mcp_name}." if self.prompt.mcp_name else ""
        lines = [f"{done}: {self.prompt.name} {self.prompt.facts()}.{offered}"]
        if self.consent == "declined":
            lines = [
                f"The user did not agree to {self.prompt.name} {self.prompt.facts()}. Do not propose"
                " it again."
            ]
        elif self.command:
            lines.append("The user was not asked, so it is no instruction. They make it one with:")
            lines.append(self.command)
        if self.outcome == "removed":
            lines += ["Its text, to set it again:", fenced(self.prompt.content)]
        elif self.former_content:
            lines += ["Its text was:", fenced(self.former_content)]
        return "\n".join(lines)


def agreement_command(change: PromptChange, wanted: GlobalPrompt, home: Path) -> str:
    """Write the command by which the user makes an instruction of what they were not asked about."""
    prompt = change.prompt
    if (prompt.name, prompt.content) == (wanted.name, wanted.content):
        return command(home, ["prompts", "activate"], str(prompt.id))
    content = wanted.content if len(wanted.content) <= _SHOWN_CONTENT else "-"
    options = [f"--name={wanted.name}", f"--content={content}"]
    return command(home, ["prompts", "change", *options], str(prompt.id))
