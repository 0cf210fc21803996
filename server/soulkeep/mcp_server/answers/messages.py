"""What is answered about the messages of threads."""

from soulkeep.days import Days
from soulkeep.fence import NOTE, fenced, plain, visible
from soulkeep.mcp_server.answers import BOUND, Item, Items, Prose, View, fit_items, runs
from soulkeep.models import Message
from soulkeep.service.messages import Page
from soulkeep.wording import counted


class MessageAnswer(Item):
    """A message; of a long one perhaps a part."""

    id: int
    role: str
    created_at: str
    content: str

    @classmethod
    def of(cls, message: Message, days: Days) -> "MessageAnswer":
        """Build the answer from a message."""
        return cls(
            id=message.id,
            role=plain(message.role),
            created_at=plain(days.minute_text(message.created_at)),
            content=visible(message.content),
        )

    def as_text(self) -> str:
        """Return a line of facts, and behind bars what was said."""
        return f"message {self.id} · {self.created_at} · {self.role}\n{fenced(self.content)}"


class SavedAnswer(View):
    """For each message, in order, its id and whether it is new."""

    ids: Items[int]
    stored: Items[bool]

    def as_text(self) -> str:
        """Say which messages were stored, and which were there."""
        known = self.ids[: self.stored.count(False)]
        stored = self.ids[len(known) :]
        parts = [f"Stored {counted(len(stored), 'message')} (ids {runs(stored)})."] if stored else []
        if known:
            parts.append(
                f"Not stored: the first {len(known)} (ids {runs(known)}), which the thread has already."
            )
        return " ".join(parts)


class PageAnswer(View):
    """Messages, oldest first; `cut` says how to read on in one that ends in an ellipsis."""

    note: Prose = ""
    messages: Items[MessageAnswer]
    cut: Prose = ""
    has_more: bool

    @classmethod
    def of(cls, page: Page, days: Days, skip: int = 0) -> "PageAnswer":
        """Build a page of the last messages that find room, each without its first `skip` characters."""
        messages = [MessageAnswer.of(message, days) for message in page.messages]
        latest_first = [m.with_content(m.content[skip:]) for m in reversed(messages)]
        shown = fit_items(latest_first, BOUND)
        is_cut = any(part != whole for part, whole in zip(shown, latest_first, strict=False))
        how = "read it alone, with limit=1 and before=ID+1"
        if len(messages) == 1:
            # The last character shown is the ellipsis.
            how = f"skip={skip + len(shown[0].content) - 1}"
        return cls(
            note=NOTE if shown else "",
            messages=tuple(reversed(shown)),
            cut=f"A text that ends in … goes on: {how}." if is_cut else "",
            has_more=page.has_more or len(shown) < len(messages),
        )

    def as_text(self) -> str:
        """Write messages with each line behind a bar, and how to read on."""
        if not self.messages:
            return "There are no messages."
        lines = [f"Messages, oldest first. {self.note}"]
        lines += [message.as_text() for message in self.messages]
        lines += [self.cut] if self.cut else []
        if self.has_more:
            lines.append(f"There are older ones: pass before={self.messages[0].id}.")
        return "\n".join(lines)
