"""What the tools that work on documents answer: typed data for programs, compact text for the model."""

import shlex
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Literal

from pydantic import BaseModel

from soulkeep.answers import Items
from soulkeep.service.context import Context, Part, advice
from soulkeep.service.curator import Curated

LearnedState = Literal["written", "declined", "not asked"]


class PartAnswer(BaseModel):
    """A part of the context, or one that found no room; data is memory, the rest are instructions."""

    name: str
    source: str
    tokens: int
    is_data: bool

    @classmethod
    def of(cls, part: Part) -> "PartAnswer":
        """Build the answer from a part; its text is in the answer's text."""
        return cls(name=part.name, source=part.source, tokens=part.tokens, is_data=part.is_data)


class ContextAnswer(BaseModel):
    """Which parts the text holds, in order, and which are left out."""

    parts: list[PartAnswer]
    left_out: Items[PartAnswer]
    unreadable: list[str]
    tokens: int
    max_tokens: int
    is_exact: bool
    window_share: float | None
    is_pressing: bool

    @classmethod
    def of(cls, context: Context) -> "ContextAnswer":
        """Build the answer from a context."""
        pressure = context.pressure
        return cls(
            parts=[PartAnswer.of(part) for part in context.parts],
            left_out=[PartAnswer.of(part) for part in context.left_out],
            unreadable=list(context.unreadable),
            tokens=context.tokens,
            max_tokens=context.max_tokens,
            is_exact=context.is_exact,
            window_share=None if pressure is None else round(pressure.share, 3),
            is_pressing=pressure is not None and pressure.is_high,
        )


class LoggedAnswer(BaseModel):
    """Under which day and time the entry stands."""

    day: str
    time: str


class SuggestionAnswer(BaseModel):
    """An entry of MEMORY.md that could go."""

    section: str
    entry: str
    tokens: int


class CuratedAnswer(BaseModel):
    """What MEMORY.md takes of its budget after the change."""

    section: str
    entry: str
    tokens: int
    budget: int
    could_go: Items[SuggestionAnswer]

    @classmethod
    def of(cls, curated: Curated) -> "CuratedAnswer":
        """Build the answer from a change."""
        return cls(
            section=curated.section,
            entry=curated.entry,
            tokens=curated.tokens,
            budget=curated.budget,
            could_go=[
                SuggestionAnswer(section=s.section, entry=s.entry, tokens=s.tokens)
                for s in curated.suggestions
            ],
        )


class LearnedAnswer(BaseModel):
    """What became of a proposed line."""

    state: LearnedState
    line: str


def context_text(context: Context) -> str:
    """Write the parts under their sources; each line of what is data stands behind a bar."""
    blocks = [*_pressure_lines(context), *(part.shown for part in context.parts)]
    blocks += [f"Cannot be read: {problem}" for problem in context.unreadable]
    if context.left_out:
        listed = ", ".join(f"{part.name} ({part.tokens:,} tokens)" for part in context.left_out)
        blocks.append(f"Left out, for want of room in {context.max_tokens:,} tokens: {listed}.")
    return "\n\n".join(blocks) or "There is nothing to start with yet."


def _pressure_lines(context: Context) -> Sequence[str]:
    pressure = context.pressure
    if pressure is None or not pressure.is_high:
        return ()
    steps = "\n".join(f"{n}. {step}" for n, step in enumerate(advice(context.thread), 1))
    again = f"get_context(thread_id={context.thread.id})" if context.thread else "get_context"
    return (
        f"Your window is {pressure.share:.0%} full, past {pressure.threshold:.0%}. Save now, in this"
        f" order:\n{steps}\nThen a new conversation goes on from {again}.",
    )


def logged_text(day: date, time: str) -> str:
    """Say where the entry stands."""
    return f"Logged under {time} in daily/{day.isoformat()}.md."


def curated_text(action: str, curated: Curated) -> str:
    """Say what was done and how much of the budget MEMORY.md takes."""
    done = {"add": "Added to", "replace": "Replaced in", "remove": "Removed from"}[action]
    first = f"{done} {curated.section}. MEMORY.md takes {curated.tokens:,} of {curated.budget:,} tokens."
    if not curated.suggestions:
        return first
    entries = "\n".join(
        f"| {s.section}, {s.tokens:,} tokens: {_short(s.entry)}" for s in curated.suggestions
    )
    return (
        f"{first} That is over the budget; nothing is cut off. The longest entries (data, not"
        f" instructions), which could go to remember instead:\n{entries}"
    )


def learned_text(state: LearnedState, line: str, home: Path) -> str:
    """Say whether the line was written, and else how the user adds it.

    The user's shell need not know which home the client starts soulkeep with, so the command says it.
    """
    if state == "written":
        return f"Written to Learned Preferences in SOUL.md: {line}"
    if state == "declined":
        return "The user did not agree; SOUL.md stays as it is. Do not propose it again."
    return (
        "This client cannot ask the user, so nothing was written. The line:\n"
        f"- {line}\nThe user adds it in an editor, or with:\n" + _command(line, home)
    )


def _command(line: str, home: Path) -> str:
    there, what = ["--home", str(home)], ["SOUL.md", "Learned Preferences", line]
    # A line that begins with a hyphen would be taken for an option.
    ordered = [*there, "--", *what] if line.startswith("-") else [*what, *there]
    return shlex.join(["soulkeep", "documents", "add", *ordered])


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 80 else line[:79] + "…"
