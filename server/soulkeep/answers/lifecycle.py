"""What is answered by the tools that browse, change and purge memories, and by undo."""

from collections.abc import Sequence
from typing import Literal, Self

from soulkeep.answers import BOUND, Count, Item, Items, Prose, View, fit_items, runs
from soulkeep.days import Days
from soulkeep.fence import DATA, NOTE, fenced, one_line, plain
from soulkeep.models import Change, Memory
from soulkeep.service.lifecycle import Past
from soulkeep.service.purge import Purged

PurgeState = Literal["erased", "declined", "not asked"]

_SHOWN = 20
"""How many of the memories or changes in a receipt are told apart; the others are counted."""


class ItemAnswer(Item):
    """A memory, a former version, or a change (whose content says what was done), in one line."""

    id: int
    date: str
    kind: str
    thread_id: str | None = None
    replaced_by: int | None = None
    content: str

    @classmethod
    def of_memory(cls, memory: Memory, days: Days, replaced_by: int | None = None) -> "ItemAnswer":
        """Build the answer from a memory."""
        return cls(
            id=memory.id,
            date=plain(days.minute_text(memory.occurred_at)),
            kind=plain(memory.memory_type),
            thread_id=memory.thread_id and plain(memory.thread_id),
            replaced_by=replaced_by,
            content=one_line(memory.content, BOUND),
        )

    @classmethod
    def of_change(cls, change: Change, days: Days) -> "ItemAnswer":
        """Build the answer from a change."""
        undone = f", undone by {change.undone_by}" if change.undone_by else ""
        content = f"{change.action} by {change.agent_id}{undone}"
        date = days.minute_text(change.made_at)
        return cls(id=change.id, date=date, kind="change", content=one_line(content))

    def as_text(self) -> str:
        """Return the item in one line behind a bar."""
        where = f" in thread {self.thread_id}" if self.thread_id else ""
        replaced = f", replaced by #{self.replaced_by}" if self.replaced_by else ""
        return fenced(f"#{self.id} {self.date} {self.kind}{where}{replaced}: {self.content}")


class BrowseAnswer(View):
    """A page; `next` is what `below` takes for the following one.

    `cut` says, where a text ends in an ellipsis, how to get all of it.
    """

    note: Prose = ""
    view: str
    items: Items[ItemAnswer]
    cut: Prose = ""
    next: int | None = None

    @classmethod
    def of_memories(cls, memories: Sequence[Memory], limit: int, days: Days) -> Self:
        """Build a page of memories."""
        items = [ItemAnswer.of_memory(memory, days) for memory in memories]
        whole = "read soulkeep://memories/ID for all of it"
        return cls._page("memories", items, [m.id for m in memories], limit, whole)

    @classmethod
    def of_past(cls, view: str, past: Sequence[Past], limit: int, days: Days) -> Self:
        """Build a page of former versions."""
        items = [ItemAnswer.of_memory(p.memory, days, p.replaced_by) for p in past]
        whole = "ask for it alone, with limit=1, for more of it"
        return cls._page(view, items, [p.change_id for p in past], limit, whole)

    @classmethod
    def of_changes(cls, changes: Sequence[Change], limit: int, days: Days) -> Self:
        """Build a page of changes."""
        items = [ItemAnswer.of_change(change, days) for change in changes]
        return cls._page("changes", items, [change.id for change in changes], limit, "")

    @classmethod
    def _page(
        cls, view: str, items: Sequence[ItemAnswer], cursors: Sequence[int], limit: int, whole: str
    ) -> Self:
        shown = fit_items(items)
        is_cut = any(item != all_of_it for item, all_of_it in zip(shown, items, strict=False))
        has_more = len(shown) < len(items) or len(items) == limit
        return cls(
            note=NOTE if items else "",
            view=view,
            items=tuple(shown),
            cut=f"A text that ends in … goes on: {whole}." if is_cut else "",
            next=cursors[len(shown) - 1] if shown and has_more else None,
        )

    def as_text(self) -> str:
        """List a page as dated data behind bars."""
        if not self.items:
            return f"Nothing to list: {self.view}."
        lines = [f"{self.view.capitalize()}, latest first. {self.note}"]
        lines += [item.as_text() for item in self.items]
        lines += [self.cut] if self.cut else []
        lines += [f"More with below={self.next}."] if self.next is not None else []
        return "\n".join(lines)


class ChangedAnswer(View):
    """The memories as they are now, or were when they were forgotten; `ids` are all of them, as runs."""

    note: Prose
    action: str
    ids: str
    memories: Items[ItemAnswer]

    @classmethod
    def of(cls, action: str, memories: Sequence[Memory], days: Days) -> "ChangedAnswer":
        """Build the answer from memories, of which the first are shown by their beginnings."""
        items = [ItemAnswer.of_memory(memory, days) for memory in memories[:_SHOWN]]
        lines = [item.with_content(one_line(item.content)) for item in items]
        ids = runs([memory.id for memory in memories])
        return cls(note=NOTE, action=action, ids=ids, memories=tuple(lines))

    def as_text(self) -> str:
        """Say what was done to which memories, and how to take it back."""
        done = {"revise": "Revised", "forget": "Forgot", "restore": "Restored", "move": "Moved"}
        back = {
            "forget": " Restore them with action=restore.",
            "revise": " The old version is in its history.",
        }.get(self.action, "")
        ids = "#" + self.ids.replace(",", ", #")
        first = f"The first {_SHOWN}" if len(self.memories) == _SHOWN else "In short"
        lines = [f"{done[self.action]} {ids}.{back} {first} ({DATA}):"]
        return "\n".join([*lines, *(memory.as_text() for memory in self.memories)])


class UndoneAnswer(View):
    """The first ids of the changes that were taken back, latest first, with what they had done."""

    undone: Items[int]
    actions: Items[str] = ()
    more: Count = 0

    @classmethod
    def of(cls, changes: Sequence[Change]) -> "UndoneAnswer":
        """Build the answer from changes."""
        return cls(
            undone=tuple(change.id for change in changes[:_SHOWN]),
            actions=tuple(plain(change.action) for change in changes[:_SHOWN]),
            more=max(len(changes) - _SHOWN, 0),
        )

    def as_text(self) -> str:
        """Say which changes were taken back."""
        if not self.undone:
            return "There was nothing to undo."
        listed = (f"{i} ({action})" for i, action in zip(self.undone, self.actions, strict=True))
        more = f" and {self.more:,} more" if self.more else ""
        return f"Undone: {', '.join(listed)}{more}."


class PurgedAnswer(View):
    """What became of a purge; `kept_in` names where the text may still stand.

    `command` is what is left to the user: the purge where nobody was asked, else the end of it.
    """

    state: PurgeState
    memory_ids: Items[int] = ()
    kept_in: Items[str] = ()
    more_places: Count = 0
    command: str = ""

    @classmethod
    def of(cls, purged: Purged, command: str) -> "PurgedAnswer":
        """Build the answer from a purge, and the command that ends one which is not final."""
        return cls(
            state="erased",
            memory_ids=purged.memory_ids,
            kept_in=tuple(map(plain, purged.kept_in[:_SHOWN])),
            more_places=max(len(purged.kept_in) - _SHOWN, 0),
            command="" if purged.is_final else command,
        )

    def as_text(self) -> str:
        """Say what is gone for good and where it may still stand, or how the user does it."""
        if self.state == "declined":
            return "The user did not agree; nothing was erased. Do not propose it again."
        if self.state == "not asked":
            return f"The user was not asked, so nothing was erased. They do it with:\n{self.command}"
        ids = "#" + runs(self.memory_ids).replace(",", ", #")
        more = f" and {self.more_places} more" if self.more_places else ""
        kept = f" It may still stand in: {', '.join(self.kept_in)}{more}." if self.kept_in else ""
        again = (
            f" Other processes were reading; the user ends it: {self.command}" if self.command else ""
        )
        return f"Erased for good: {ids}.{kept}{again}"
