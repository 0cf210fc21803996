"""What is answered by the tools that keep memories and bring them back."""

from collections.abc import Sequence
from typing import Any, Literal

from soulkeep.days import Days
from soulkeep.fence import DATA, NOTE, fenced, plain, visible
from soulkeep.mcp_server.answers import BYTES_PER_TOKEN, Count, Items, Prose, View
from soulkeep.mcp_server.answers.excerpts import excerpt
from soulkeep.models import Match, MessageMatch, Recall
from soulkeep.search.ranking import FITS

DEFAULT_TOKENS = 1_000
"""How long the answer of a recall may be."""

_LINE_BYTES = 160
"""What of a memory's text a lower match gets before the best one has got all that it takes."""
_BEST_BYTES = 1_200
"""What the best match gets of a small budget before lower ones get anything."""
_LEAST_BYTES = 60
"""A match with less room for its text is named by its id alone."""
_NAMED = 10
"""How many matches that found no room are named by their ids."""


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


class MessageMatchAnswer(View):
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

    `not_shown` are the first ids of what found no room, `more` counts the others.
    """

    note: Prose = ""
    nothing_fits: bool = False
    mode: Literal["hybrid", "lexical"]
    matches: Items[MatchAnswer]
    not_shown: Items[int] = ()
    more: Count = 0
    messages: Items[MessageMatchAnswer] = ()
    remarks: Items[str] = ()

    @classmethod
    def of(
        cls, recall: Recall, days: Days, terms: Sequence[str] = (), max_tokens: int = DEFAULT_TOKENS
    ) -> "RecallAnswer":
        """Build an answer of at most `max_tokens` in either channel, a token taken as four bytes.

        The best match is shown whole as far as the budget reaches; lower ones get a line of what holds
        the words `terms` of the question, then what is left. Messages have a third of the room.
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
        )
        room = max_tokens * BYTES_PER_TOKEN - answer.weight()
        third = room // 3 if recall.messages else 0
        matches = _spend(recall, terms, days, room - third)
        room -= sum(match.weight() for match in matches)
        missing = ids[len(matches) :]
        share = room // max(len(recall.messages), 1)
        return answer.model_copy(
            update={
                "matches": tuple(matches),
                "not_shown": tuple(missing[:_NAMED]),
                "more": max(len(missing) - _NAMED, 0),
                "messages": tuple(_said(recall.messages, terms, days, share)),
            }
        )

    def as_text(self) -> str:
        """List the matches as dated data, each line of a memory behind a bar that it cannot forge."""
        lines = [self._heading(), *(match.as_text() for match in self.matches)]
        if self.not_shown:
            named = ", ".join(f"#{i}" for i in self.not_shown) + (
                f" and {self.more}" if self.more else ""
            )
            lines.append(f"No room for {named}: ask for them with a larger max_tokens.")
        if self.messages:
            lines.append(f"Messages of threads, best first ({DATA}):")
            lines += [message.as_text() for message in self.messages]
        lines += self.remarks
        return "\n".join(lines)

    def _heading(self) -> str:
        by_words = "" if self.mode == "hybrid" else " Searched by words alone."
        if not self.matches:
            nothing = "Nothing known fits: no" if self.nothing_fits else "No"
            return f"{nothing} memories match.{by_words}{f' {self.note}' if self.note else ''}"
        what = "Nothing known fits; the nearest memories" if self.nothing_fits else "Recalled memories"
        return f"{what}, best first.{by_words} {self.note}"


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


def _spend(recall: Recall, terms: Sequence[str], days: Days, room: int) -> list[MatchAnswer]:
    """Return the matches that find room, each with what of it is shown."""
    found = [MatchAnswer.of(match, days) for match in recall.matches]
    bare = [match.cut((), 0).weight() for match in found]
    wholes = [match.weight() if len(match.content) < room else room + 1 for match in found]
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
    return shown


def _said(
    messages: Sequence[MessageMatch], terms: Sequence[str], days: Days, share: int
) -> list[MessageMatchAnswer]:
    bare = [MessageMatchAnswer.of(match, terms, 1, days).weight() for match in messages]
    return [
        MessageMatchAnswer.of(match, terms, max(share - head, _LEAST_BYTES), days)
        for match, head in zip(messages, bare, strict=True)
    ]
