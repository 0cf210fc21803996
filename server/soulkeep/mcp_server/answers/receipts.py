"""What is answered by the tool that keeps memories."""

from collections.abc import Sequence

from soulkeep.days import Days
from soulkeep.fence import DATA, NOTE, fenced, one_line
from soulkeep.mcp_server.answers import Items, Prose, View, runs
from soulkeep.mcp_server.answers.lifecycle import became_text, line_text
from soulkeep.models import NewMemory
from soulkeep.service.receipts import Receipt, Similar
from soulkeep.wording import counted

_CLOSE = 0.3
"""The cosine from which a similar memory is worth mentioning."""
_NAMED = 10
"""How many older ids and lines of MEMORY.md are told apart."""


class SimilarAnswer(View):
    """An existing memory close to a new one, by its beginning; without vectors it has no similarity."""

    id: int
    similarity: float | None = None
    content: str

    @classmethod
    def of(cls, similar: Similar) -> "SimilarAnswer":
        """Build the answer, with the beginning of the memory."""
        similarity = None if similar.similarity is None else round(similar.similarity, 2)
        content = one_line(similar.memory.content)
        return cls(id=similar.memory.id, similarity=similarity, content=content)

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
            thread_id=memory.thread_id,
            expires_at=receipt.expires_at and days.minute_text(receipt.expires_at),
            duplicate_of=None if receipt.stored else receipt.id,
            replaced=receipt.replaced,
            notes=(
                *(became_text(older, newer) for older, newer in led),
                *map(line_text, receipt.lines[:_NAMED]),
            ),
            similar=tuple(SimilarAnswer.of(s) for s in receipt.similar or () if _is_close(s)),
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

    @classmethod
    def of(cls, receipts: Sequence[Receipt], kept: Sequence[NewMemory], days: Days) -> "RememberAnswer":
        """Build the answer from receipts and what was to be kept."""
        if any(receipt.similar is None for receipt in receipts):
            known = [receipt.id for receipt in receipts if not receipt.stored]
            return cls(
                stored=len(receipts) - len(known),
                ids=runs([receipt.id for receipt in receipts]),
                known="all" if len(known) == len(receipts) else runs(known),
            )
        pairs = zip(receipts, kept, strict=True)
        answers = tuple(ReceiptAnswer.of(receipt, memory, days) for receipt, memory in pairs)
        return cls(note=NOTE if any(answer.similar for answer in answers) else "", receipts=answers)

    def as_text(self) -> str:
        """Say what became of each memory; of a long list, in sum."""
        if self.receipts:
            return "\n".join(receipt.as_text() for receipt in self.receipts)
        known = f" Not stored, as exact duplicates: {self.known}." if self.known else ""
        return (
            f"Stored {counted(self.stored or 0, 'memory')}. The ids, in the order they were sent:"
            f" {self.ids}.{known} Similar memories were not looked for in so long a list."
        )


def _is_close(similar: Similar) -> bool:
    return similar.similarity is None or similar.similarity >= _CLOSE
