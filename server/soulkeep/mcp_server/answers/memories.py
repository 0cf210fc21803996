"""What is answered by the tools that keep memories and bring them back: receipts, matches, context."""

from collections.abc import Sequence
from itertools import accumulate
from typing import Any, Literal

from soulkeep.days import Days
from soulkeep.mcp_server.answers import (
    BYTES_PER_TOKEN,
    Count,
    Item,
    Items,
    Prose,
    View,
    excerpt,
    runs,
)
from soulkeep.mcp_server.answers.changes import line_text, newer_text
from soulkeep.models import (
    Match,
    MessageMatch,
    NewMemory,
    Recall,
)
from soulkeep.search.ranking import FITS
from soulkeep.service.callers import Receipt
from soulkeep.service.context import NOTE as PARTS_NOTE
from soulkeep.service.context import Context
from soulkeep.wording import (
    DATA,
    NOTE,
    counted,
    fenced,
    heading,
    one_line,
    plain,
    under_heading,
    visible,
)

DEFAULT_TOKENS = 1_000
"""How long the answer of a recall may be."""

_LINE_BYTES = 160
"""What of a memory's text a lower match gets before the best one has got all that it takes."""
_BEST_BYTES = 1_200
"""What the best match gets of a small budget before lower ones get anything."""
_LEAST_BYTES = 60
"""A match with less room for its text is named by its id alone."""
_NAMED = 10
"""How many matches that found no room, older ids and lines of MEMORY.md are told apart."""


class MatchAnswer(View):
    """A recalled memory; `relevance`, 0 to 1, is how likely it answers the question.

    `content` is all of it, or what was asked for where `whole_at` says where the rest is. Dates are the
    user's days.
    """

    id: int
    occurred_at: str
    memory_type: str
    thread_id: str | None = None
    expires_at: str | None = None
    relevance: float
    hardly_fits: bool = False
    whole_at: str = ""
    subject: str = ""
    source: str = ""
    content: str

    @classmethod
    def of(cls, match: Match, days: Days) -> "MatchAnswer":
        """Build the answer from a match, with all of its content."""
        memory = match.memory
        return cls(
            id=memory.id,
            occurred_at=plain(days.date_text(memory.occurred_at)),
            memory_type=plain(memory.memory_type),
            thread_id=memory.thread_id and plain(memory.thread_id),
            expires_at=memory.expires_at and plain(days.date_text(memory.expires_at)),
            relevance=round(match.relevance, 2),
            hardly_fits=match.relevance < FITS,
            subject=plain(memory.subject or ""),
            source=plain(memory.source or ""),
            content=visible(memory.content),
        )

    def cut(self, terms: Sequence[str], room: int) -> "MatchAnswer":
        """Return the answer with what of its content fits into `room` bytes."""
        shown = excerpt(self.content, terms, room)
        if shown == self.content:
            return self
        return self.model_copy(update={"content": shown, "whole_at": f"soulkeep://memories/{self.id}"})

    def as_text(self) -> str:
        """Return a line of facts, and behind bars what others wrote."""
        where = f"thread {self.thread_id}" if self.thread_id else "global"
        facts = [f"#{self.id}", self.occurred_at, self.memory_type, where]
        if self.expires_at:
            facts.append(f"expires {self.expires_at}")
        facts.append(f"relevance {self.relevance:g}{', hardly fits' if self.hardly_fits else ''}")
        if self.whole_at:
            facts.append(f"in part, whole at {self.whole_at}")
        about = [f"about {self.subject}"] if self.subject else []
        about += [f"from {self.source}"] if self.source else []
        lines = [f"({'; '.join(about)})"] if about else []
        return "\n".join([" · ".join(facts), fenced("\n".join([*lines, self.content]))])


_MESSAGES = f"Messages of threads, best first ({DATA}):"


class MessageMatchAnswer(Item):
    """A message that was found by its words."""

    id: int
    thread_id: str
    role: str
    created_at: str
    whole_at: str = ""
    content: str

    @classmethod
    def of(
        cls, match: MessageMatch, terms: Sequence[str], room: int, days: Days
    ) -> "MessageMatchAnswer":
        """Build the answer from a message, of which about `room` bytes are shown."""
        message = match.message
        content = visible(message.content)
        shown = excerpt(content, terms, room)
        return cls(
            id=message.id,
            thread_id=plain(match.thread_id),
            role=plain(message.role),
            created_at=plain(days.date_text(message.created_at)),
            whole_at="" if shown == content else f"read_messages before={message.id + 1}",
            content=shown,
        )

    def as_text(self) -> str:
        """Return a line of facts, and behind bars what was said."""
        facts = [f"message {self.id}", self.created_at, self.role, f"thread {self.thread_id}"]
        if self.whole_at:
            facts.append(f"in part, whole at {self.whole_at}")
        return "\n".join([" · ".join(facts), fenced(self.content)])


class RecallAnswer(View):
    """Matches, best first; mode lexical means that no embedder took part.

    `not_shown` are the first ids of what found no room, `more` counts the others, `more_messages` the
    messages.
    """

    note: Prose = ""
    nothing_fits: bool = False
    mode: Literal["hybrid", "lexical"]
    matches: Items[MatchAnswer]
    not_shown: Items[int] = ()
    more: Count = 0
    messages: Items[MessageMatchAnswer] = ()
    more_messages: Count = 0
    remarks: Items[str] = ()

    @classmethod
    def of(
        cls, recall: Recall, days: Days, terms: Sequence[str] = (), max_tokens: int = DEFAULT_TOKENS
    ) -> "RecallAnswer":
        """Build an answer of at most `max_tokens` in either channel, a token taken as four bytes.

        The best match is shown whole as far as the budget reaches; lower ones get a line of what holds
        the words `terms` of the question, then what is left. Messages have a third of the room, and what
        memories leave of the rest.
        """
        ids = [match.memory.id for match in recall.matches]
        answer = cls(
            note=" ".join(filter(None, (NOTE * bool(recall.matches or recall.messages), recall.advice))),
            nothing_fits=not (recall.messages or any(m.relevance >= FITS for m in recall.matches)),
            mode=recall.mode,
            remarks=recall.remarks,
            matches=(),
            not_shown=tuple(ids[:_NAMED]),
            more=max(len(ids) - _NAMED, 0),
            more_messages=len(recall.messages),
        )
        room = max_tokens * BYTES_PER_TOKEN - answer.weight()
        room -= len(_MESSAGES) + 1 if recall.messages else 0
        third = room // 3 if recall.messages else 0
        matches, taken = _spend(recall, terms, days, room - third)
        room -= taken
        missing = ids[len(matches) :]
        short = [MessageMatchAnswer.of(one, terms, _LEAST_BYTES, days) for one in recall.messages]
        count = sum(taken <= room for taken in accumulate(one.weight() for one in short))
        share = room // max(count, 1)
        said = [
            MessageMatchAnswer.of(message, terms, share - one.with_content("").weight(), days)
            if one.whole_at
            else one
            for message, one in zip(recall.messages[:count], short, strict=False)
        ]
        return answer.model_copy(
            update={
                "matches": tuple(matches),
                "not_shown": tuple(missing[:_NAMED]),
                "more": max(len(missing) - _NAMED, 0),
                "messages": tuple(said),
                "more_messages": len(recall.messages) - count,
            }
        )

    def as_text(self) -> str:
        """List the matches as dated data, each line of a memory behind a bar that it cannot forge."""
        by_words = "" if self.mode == "hybrid" else " Searched by words alone."
        what = "Nothing known fits; the nearest memories" if self.nothing_fits else "Recalled memories"
        heading = f"{what}, best first.{by_words} {self.note}"
        if not self.matches:
            nothing = "Nothing known fits: no" if self.nothing_fits else "No"
            heading = f"{nothing} memories match.{by_words}{f' {self.note}' if self.note else ''}"
        lines = [heading, *(match.as_text() for match in self.matches)]
        if self.messages:
            lines += [_MESSAGES, *(message.as_text() for message in self.messages)]
        more = f" and {self.more}" if self.more else ""
        missing = [", ".join(f"#{i}" for i in self.not_shown) + more] if self.not_shown else []
        missing += [counted(self.more_messages, "message")] if self.more_messages else []
        if missing:
            left_out = " and for ".join(missing)
            lines.append(f"No room for {left_out}: ask for them with a larger max_tokens.")
        lines += self.remarks
        return "\n".join(lines)


def scores(recall: Recall) -> dict[str, Any]:
    """Return what programs may want to know of each match beside the answer; see Match."""
    listed = [
        {
            "id": match.memory.id,
            "score": round(match.score, 4),
            "reasons": {reason: round(share, 3) for reason, share in match.reasons.items()},
        }
        for match in recall.matches
    ]
    return {"soulkeep/scores": listed}


def _spend(recall: Recall, terms: Sequence[str], days: Days, room: int) -> tuple[list[MatchAnswer], int]:
    """Return the matches that find room, each with what of it is shown, and what they take of it."""
    found = [MatchAnswer.of(match, days) for match in recall.matches]
    wholes = [match.weight() if len(match.content) < room else room + 1 for match in found]
    if sum(wholes) <= room:
        return found, sum(wholes)
    before = room
    bare = [match.cut((), 0).weight() for match in found]
    lines = [min(whole, base + _LINE_BYTES) for whole, base in zip(wholes, bare, strict=True)]
    shown: list[MatchAnswer] = []
    for place, match in enumerate(found):
        below = sum(lines[place + 1 :])
        share = max(room - below, lines[place])
        if place == 0:
            share = wholes[0] if wholes[0] <= room else max(room - min(below, room // 3), _BEST_BYTES)
        share = min(share, room)
        if shown and share < min(wholes[place], bare[place] + _LEAST_BYTES):
            break
        is_whole = wholes[place] <= share
        least = max(share - bare[place], _LEAST_BYTES)
        shown.append(match if is_whole else match.cut(terms, least))
        room -= shown[-1].weight()
    return shown, before - room


_CLOSE = 0.3
"""The cosine from which a similar memory is worth mentioning."""


class SimilarAnswer(View):
    """An existing memory close to a new one, by its beginning; without vectors it has no similarity."""

    id: int
    similarity: float | None = None
    content: str

    def as_text(self) -> str:
        """Return the memory in one line."""
        closeness = "" if self.similarity is None else f" ({self.similarity:.2f})"
        return f"#{self.id}{closeness} {self.content}"


class ReceiptAnswer(View):
    """What became of one memory; `notes` say what else changed with those that it replaced."""

    id: int
    stored: bool
    memory_type: str
    thread_id: str | None = None
    expires_at: str | None = None
    duplicate_of: int | None = None
    replaced: Items[int] = ()
    notes: Items[str] = ()
    similar: Items[SimilarAnswer] = ()

    @classmethod
    def of(cls, receipt: Receipt, memory: NewMemory, days: Days) -> "ReceiptAnswer":
        """Build the answer from a receipt and what was to be kept."""
        led = list(receipt.newer.items())[:_NAMED]
        return cls(
            id=receipt.id,
            stored=receipt.stored,
            memory_type=memory.memory_type,
            thread_id=memory.thread_id and plain(memory.thread_id),
            expires_at=receipt.expires_at and days.minute_text(receipt.expires_at),
            duplicate_of=None if receipt.stored else receipt.id,
            replaced=receipt.replaced,
            notes=(
                *(newer_text(older, newer, "had become") for older, newer in led),
                *map(line_text, receipt.lines[:_NAMED]),
            ),
            similar=tuple(
                SimilarAnswer(
                    id=similar.memory.id,
                    similarity=None if similar.similarity is None else round(similar.similarity, 2),
                    content=one_line(similar.memory.content),
                )
                for similar in receipt.similar or ()
                if similar.similarity is None or similar.similarity >= _CLOSE
            ),
        )

    def first(self) -> str:
        """Say whether the memory was stored, and in the place of which."""
        replaced = ", ".join(f"#{i}" for i in self.replaced)
        scope = f"thread {self.thread_id}" if self.thread_id else "global"
        if self.stored:
            expires = f", expires {self.expires_at}" if self.expires_at else ""
            instead = f" in place of {replaced}" if replaced else ""
            return f"Stored as #{self.id} ({self.memory_type}, {scope}{expires}){instead}."
        instead = f", which is now in place of {replaced}" if replaced else ""
        return f"Not stored: exact duplicate of #{self.id} ({self.memory_type}, {scope}){instead}."

    def as_text(self) -> str:
        """Say what became of the memory and which older ones are close to it."""
        first = " ".join([self.first(), *self.notes])
        if not self.similar:
            return first
        close = fenced("\n".join(similar.as_text() for similar in self.similar))
        return f"{first}\nSimilar memories ({DATA}):\n{close}"


class RememberAnswer(View):
    """A receipt for each memory, in the order they were sent; of a long list the ids, as runs.

    `known` are the ids of those that were there already, or `all`. In a long list nobody looked for
    similar memories.
    """

    note: Prose = ""
    receipts: Items[ReceiptAnswer] = ()
    stored: int | None = None
    ids: str = ""
    known: str = ""
    remarks: Items[str] = ()

    @classmethod
    def of(
        cls,
        receipts: Sequence[Receipt],
        kept: Sequence[NewMemory],
        days: Days,
        remarks: Sequence[str] = (),
    ) -> "RememberAnswer":
        """Build the answer from receipts, what was to be kept, and what there is to know beside it."""
        if any(receipt.similar is None for receipt in receipts):
            known = [receipt.id for receipt in receipts if not receipt.stored]
            return cls(
                stored=len(receipts) - len(known),
                ids=runs([receipt.id for receipt in receipts]),
                known="all" if len(known) == len(receipts) else runs(known),
                remarks=tuple(remarks),
            )
        pairs = zip(receipts, kept, strict=True)
        answers = tuple(ReceiptAnswer.of(receipt, memory, days) for receipt, memory in pairs)
        note = NOTE if any(answer.similar for answer in answers) else ""
        return cls(note=note, receipts=answers, remarks=tuple(remarks))

    def as_text(self) -> str:
        """Say what became of each memory; of a long list, in sum."""
        if self.receipts:
            return "\n".join([*(receipt.as_text() for receipt in self.receipts), *self.remarks])
        known = f" Not stored, as exact duplicates: {self.known}." if self.known else ""
        told = (
            f"Stored {counted(self.stored or 0, 'memory')}. The ids, in the order they were sent:"
            f" {self.ids}.{known} Similar memories were not looked for in so long a list."
        )
        return "\n".join([told, *self.remarks])


class PartAnswer(View):
    """A part of the context; data is what is remembered, the rest are instructions."""

    name: str
    source: str
    text: str
    is_data: bool = False

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
        parts = tuple(
            PartAnswer(
                name=plain(part.name),
                source=plain(part.source),
                text=visible(part.text.strip()),
                is_data=part.is_data,
            )
            for part in context.parts
        )
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
            is_pressing=None if pressure is None else pressure.share > pressure.threshold,
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
