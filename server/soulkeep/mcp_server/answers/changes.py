"""What is answered by the tools that browse, change and purge memories, edit documents, and undo."""

from collections.abc import Sequence
from typing import Literal, Self

from pydantic import BaseModel, SerializeAsAny

from soulkeep.days import Days
from soulkeep.mcp_server.answers import (
    BOUND,
    Count,
    Item,
    Items,
    Prose,
    View,
    cut,
    fit_items,
    runs,
)
from soulkeep.models import Memory
from soulkeep.service.callers import MAX_BATCH, Changed, LineChange, Receipt
from soulkeep.service.changes import ChangeSummary
from soulkeep.service.curator import Curated
from soulkeep.service.lifecycle import Past
from soulkeep.service.purge import Purged
from soulkeep.wording import (
    DATA,
    NOTE,
    counted,
    fenced,
    one_line,
    plain,
    visible,
)

PurgeState = Literal["erased", "declined", "not asked"]

_ROW = 100
"""How many characters of each text that a change concerned are shown."""

_SHOWN = 20
"""How many of the memories or changes in a receipt are told apart; the others are counted."""


class MemoryItem(Item):
    """A memory, or a former version of one, which went by the change `until_change`."""

    id: int
    date: str
    kind: str
    thread_id: str | None = None
    expires_at: str | None = None
    until_change: int | None = None
    replaced_by: int | None = None
    content: str

    @classmethod
    def of(cls, memory: Memory, days: Days, past: Past | None = None) -> "MemoryItem":
        """Build the item from a memory, and of a former version from what is known of its end."""
        return cls(
            id=memory.id,
            date=plain(days.minute_text(memory.occurred_at)),
            kind=plain(memory.memory_type),
            thread_id=memory.thread_id and plain(memory.thread_id),
            expires_at=memory.expires_at and plain(days.minute_text(memory.expires_at)),
            until_change=past.change_id if past else None,
            replaced_by=past.replaced_by if past else None,
            content=one_line(memory.content, BOUND),
        )

    def as_text(self) -> str:
        """Return the item in one line behind a bar."""
        facts = [f"#{self.id} {self.date} {self.kind}"]
        facts += [f"in thread {self.thread_id}"] if self.thread_id else []
        facts += [f"expires {self.expires_at}"] if self.expires_at else []
        facts += [f"until change {self.until_change}"] if self.until_change else []
        facts += [f"replaced by #{self.replaced_by}"] if self.replaced_by else []
        return fenced(f"{', '.join(facts)}: {self.content}")


class ChangeItem(Item):
    """A change, and what it did to which memories, threads, prompts, messages and documents."""

    change_id: int
    date: str
    action: str
    by: str
    undone_by: int | None = None
    content: str

    @classmethod
    def of(cls, summary: ChangeSummary, days: Days) -> "ChangeItem":
        """Build the item from what a change did."""
        change = summary.change
        return cls(
            change_id=change.id,
            date=days.minute_text(change.made_at),
            action=plain(change.action),
            by=plain(change.agent_id),
            undone_by=change.undone_by,
            content=did_text(summary),
        )

    def as_text(self) -> str:
        """Return the item in one line behind a bar."""
        undone = f", undone by change {self.undone_by}" if self.undone_by else ""
        line = f"change {self.change_id} {self.date} {self.action} by {self.by}{undone}: {self.content}"
        return fenced(line)


def did_text(summary: ChangeSummary) -> str:
    """Say in one line what a change did: `#12 "The cat is called Miso." added; and 4 more`."""
    did = [f'{row.name} "{plain(row.text, _ROW)}" {row.done}' for row in summary.rows]
    more = summary.change.rows - len(summary.rows)
    return "; ".join([*did, *([f"and {more:,} more"] if more else [])])


def newer_text(older: int, newest: int, led: str = "is now") -> str:
    """Say which memory an older id led to, which it `had become` where that one is gone now."""
    return f"#{older} {led} #{newest}."


def line_text(change: LineChange) -> str:
    """Say what became of a line of MEMORY.md that a memory was promoted to."""
    where = f" in {plain(change.section)}" if change.section else ""
    became = {
        "changed": "was changed with it",
        "removed": "went with it",
        "kept": "stays: it was edited by hand since",
        "back": "is back too",
        "missing": "has no place any more: promote it again",
    }
    return f"The line of #{change.memory_id} in MEMORY.md{where} {became[change.outcome]}."


def cleared_text(memory_id: int) -> str:
    """Say that a memory came back without its expiry."""
    return f"The time of #{memory_id} had passed, so it has no expiry now; revise it to set one."


class BrowseAnswer(View):
    """A page; `next` is what `below` takes for the following one.

    `cut` says, where a text ends in an ellipsis, how to get all of it.
    """

    note: Prose = ""
    view: str
    items: Items[SerializeAsAny[Item]]
    cut: Prose = ""
    next: int | None = None

    @classmethod
    def of_past(
        cls, view: str, past: Sequence[Past], limit: int, days: Days, now: Memory | None = None
    ) -> Self:
        """Build a page of former versions, perhaps with the present version before them."""
        items = [MemoryItem.of(now, days)] if now else []
        items += [MemoryItem.of(one.memory, days, one) for one in past]
        # The present version belongs to the first page only, whose cursor is above all changes.
        cursors = [*([past[0].change_id + 1] if now and past else []), *(p.change_id for p in past)]
        whole = "ask for it alone, with limit=1, for more of it"
        return cls.page(view, items, cursors, limit + bool(now), whole)

    @classmethod
    def page(
        cls, view: str, items: Sequence[Item], cursors: Sequence[int], limit: int, whole: str = ""
    ) -> Self:
        """Build a page of items, each with its cursor; `whole` says how to get all of a cut one.

        Items behind `limit` are not shown: there are more.
        """
        shown = fit_items(items[:limit])
        is_cut = any(item != all_of_it for item, all_of_it in zip(shown, items, strict=False))
        return cls(
            note=NOTE if items else "",
            view=view,
            items=tuple(shown),
            cut=f"A text that ends in … goes on: {whole}." if is_cut else "",
            next=cursors[len(shown) - 1] if len(shown) < len(items) else None,
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
    """The memories as they are now, or were when they were forgotten; `ids` are all of them, as runs.

    `notes` say which older ids led to newer ones, and what became of lines of MEMORY.md and of expiries.
    The change `change_id` can be undone; there is none where nothing changed.
    """

    note: Prose
    action: Prose
    ids: str
    change_id: Count = 0
    notes: Items[str] = ()
    memories: Items[MemoryItem]

    @classmethod
    def of(cls, action: str, changed: Changed, days: Days) -> "ChangedAnswer":
        """Build the answer from memories, of which the first are shown by their beginnings."""
        items = [MemoryItem.of(memory, days) for memory in changed.memories[:_SHOWN]]
        lines = [item.with_content(one_line(item.content)) for item in items]
        return cls(
            note=NOTE,
            action=action,
            ids=runs([memory.id for memory in changed.memories]),
            change_id=changed.change_id,
            notes=notes_of(changed),
            memories=tuple(lines),
        )

    @classmethod
    def of_revision(cls, asked: int, receipt: Receipt, memory: Memory, days: Days) -> "ChangedAnswer":
        """Build the answer from the receipt of a revision, and the memory as it is now."""
        changed = Changed(
            (memory,),
            {older: receipt.id for older in (asked, *receipt.replaced) if older != receipt.id},
            receipt.change_id,
            receipt.lines,
            (receipt.id,) if receipt.expiry_cleared else (),
        )
        answer = cls.of("revise", changed, days)
        known = () if receipt.stored else (f"#{receipt.id} says exactly this already.",)
        return answer.model_copy(update={"notes": (*answer.notes, *known)})

    def as_text(self) -> str:
        """Say what was done to which memories, and how to take it back."""
        if self.change_id:
            done = {"revise": "Revised", "forget": "Forgot", "restore": "Restored", "move": "Moved"}
            ids = "#" + self.ids.replace(",", ", #")
            first = f"{done[self.action]} {ids} by change {self.change_id}."
        else:
            first = "Nothing was changed."
        back = " Restore them with action=restore." if self.action == "forget" else ""
        shown = f"The first {_SHOWN}" if len(self.memories) == _SHOWN else "In short"
        head = " ".join([first + back, *self.notes, f"{shown} ({DATA}):"])
        return "\n".join([head, *(memory.as_text() for memory in self.memories)])


def notes_of(changed: Changed) -> tuple[str, ...]:
    """Say what else is to be known of a change of memories, in a sentence each."""
    return (
        *(newer_text(*pair) for pair in list(changed.newer.items())[:_SHOWN]),
        *map(line_text, changed.lines[:_SHOWN]),
        *map(cleared_text, changed.expiry_cleared[:_SHOWN]),
    )


class UndoneAnswer(View):
    """The first of the changes that were taken back, latest first, with what they had done.

    Undoing the change `by` does them again.
    """

    note: Prose = ""
    by: int | None = None
    undone: Items[ChangeItem] = ()
    more: Count = 0
    notes: Items[str] = ()

    @classmethod
    def of(
        cls, summaries: Sequence[ChangeSummary], count: int, cleared: Sequence[int], days: Days
    ) -> "UndoneAnswer":
        """Build the answer from the first changes that were taken back, of `count`."""
        items = [ChangeItem.of(summary, days) for summary in summaries]
        by = summaries[0].change.undone_by if summaries else None
        # What the changes were before is said by the answer itself.
        shown = tuple(item.model_copy(update={"undone_by": None}) for item in items)
        return cls(
            note=NOTE if shown else "",
            by=by,
            undone=shown,
            more=count - len(shown),
            notes=tuple(map(cleared_text, cleared[:_SHOWN])),
        )

    def as_text(self) -> str:
        """Say which changes were taken back."""
        if not self.undone:
            return "There was nothing to undo."
        more = f" (and {self.more:,} before them)" if self.more else ""
        again = (f"Undoing change {self.by} does it again.",) if self.by else ()
        head = " ".join([f"Undone{more}.", *again, *self.notes, self.note])
        return "\n".join([head, *(item.as_text() for item in self.undone)])


class PurgedAnswer(View):
    """What became of a purge of these ids; `kept_in` names where the text may still stand.

    The `notes` say which older ids led to newer ones, `more_memories` how many more went with them.
    `command` is what is left to the user: the purge where nobody was asked, else the end of it.
    """

    state: PurgeState
    memory_ids: Items[int] = ()
    more_memories: Count = 0
    notes: Items[str] = ()
    kept_in: Items[str] = ()
    more_places: Count = 0
    command: str = ""

    @classmethod
    def of(cls, purged: Purged, command: str) -> "PurgedAnswer":
        """Build the answer from a purge, and the command that ends one which is not final."""
        return cls(
            state="erased",
            memory_ids=purged.memory_ids[:MAX_BATCH],
            more_memories=max(len(purged.memory_ids) - MAX_BATCH, 0),
            notes=tuple(newer_text(*pair, "had become") for pair in list(purged.newer.items())[:_SHOWN]),
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
        ids += f" and {self.more_memories:,} more" if self.more_memories else ""
        more = f" and {self.more_places} more" if self.more_places else ""
        kept = f" It may still stand in: {', '.join(self.kept_in)}{more}." if self.kept_in else ""
        again = (
            f" Other processes were reading; the user ends it: {self.command}" if self.command else ""
        )
        notes = "".join(f" {note}" for note in self.notes)
        return f"Erased for good: {ids}.{notes}{kept}{again}"


LearnedState = Literal["written", "declined", "not asked"]

_ENTRY_BYTES = 4_000
_SHOWN_ENTRY = 80
"""How many characters of an entry that could go are shown."""


class LoggedAnswer(View):
    """Under which day and time the entry stands."""

    day: str
    time: str

    def as_text(self) -> str:
        """Say where the entry stands."""
        return f"Logged under {self.time} in daily/{self.day}.md."


class SuggestionAnswer(BaseModel):
    """An entry of MEMORY.md that could go, by its beginning."""

    section: str
    entry: str
    tokens: int


class CuratedAnswer(View):
    """The entry as it stands or stood, and what MEMORY.md takes of its budget after the change.

    `changed` is false where it said that already.
    """

    note: Prose
    action: Prose
    section: Prose
    entry: str
    tokens: int
    budget: int
    changed: bool = True
    could_go: Items[SuggestionAnswer] = ()

    @classmethod
    def of(cls, action: str, curated: Curated) -> "CuratedAnswer":
        """Build the answer from a change."""
        could_go = tuple(
            SuggestionAnswer(
                section=plain(s.section), entry=plain(s.entry, _SHOWN_ENTRY), tokens=s.tokens
            )
            for s in curated.suggestions
        )
        return cls(
            note=NOTE,
            action=action,
            section=plain(curated.section),
            entry=cut(visible(curated.entry), _ENTRY_BYTES),
            tokens=curated.tokens,
            budget=curated.budget,
            changed=curated.changed,
            could_go=could_go,
        )

    def as_text(self) -> str:
        """Say what was done and how much of the budget MEMORY.md takes."""
        done = {"add": "Added to", "replace": "Replaced in", "remove": "Removed from"}[self.action]
        done = (
            f"{done} {self.section}."
            if self.changed
            else f"{self.section} says that already; nothing was written."
        )
        size = f"MEMORY.md takes {self.tokens:,} of {self.budget:,} tokens."
        lines = [f"{done} {size} The entry ({DATA}):", fenced(self.entry)]
        if self.could_go:
            lines.append(
                "That is over the budget; nothing is cut off. The longest entries, which could go to"
                " remember instead:"
            )
            longest = [f"{s.section}, {counted(s.tokens, 'token')}: {s.entry}" for s in self.could_go]
            lines.append(fenced("\n".join(longest)))
        return "\n".join(lines)


class LearnedAnswer(View):
    """What became of a proposed line; `command` is how the user adds it where nobody could be asked."""

    state: LearnedState
    line: str
    command: str = ""

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
