"""What is answered about threads, their messages and prompts, and the user's global prompts."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import WithJsonSchema

from soulkeep.days import Days
from soulkeep.errors import InvalidInputError
from soulkeep.mcp_server.answers import (
    BOUND,
    Count,
    Item,
    Items,
    Prose,
    View,
    command,
    cut,
    fit_items,
    prompt_argument,
    runs,
    weight,
)
from soulkeep.mcp_server.answers.changes import line_text
from soulkeep.models import ConsentState, GlobalPrompt, Message, PromptChange, Thread
from soulkeep.service.callers import MAX_LIMIT
from soulkeep.service.prompts import offer_prompts
from soulkeep.service.threads import Deleted, Digest, Page, Started, unagreed_note
from soulkeep.wording import (
    DATA,
    NOTE,
    counted,
    fenced,
    one_line,
    plain,
    under_heading,
    visible,
)

_SHOWN = 500
"""How many characters of a message or memory a digest shows."""
_SHOWN_TITLE = 80
_SHOWN_NAMESAKES = 5
_SHOWN_LINES = 20

_MORE_THREADS = (
    f"There are more: a larger limit shows up to {MAX_LIMIT}, get_context(query) those whose titles have"
    " words of it, and resources/list all that are active."
)

_DONE = {
    "list": "Threads, latest activity first",
    "resume": "Go on with this thread",
    "rename": "Renamed",
    "set_prompt": "Prompt set",
    "remove_prompt": "Prompt removed",
    "archive": "Archived",
    "unarchive": "Unarchived",
    "delete": "Deleted",
}


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
    before: Count = 0

    @classmethod
    def of(cls, page: Page, days: Days, skip: int = 0, before: int = 0) -> "PageAnswer":
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
            before=0 if shown else before,
        )

    def as_text(self) -> str:
        """Write messages with each line behind a bar, and how to read on."""
        if not self.messages:
            return f"There are no messages{f' before {self.before}' if self.before else ''}."
        lines = [f"Messages, oldest first. {self.note}"]
        lines += [message.as_text() for message in self.messages]
        lines += [self.cut] if self.cut else []
        if self.has_more:
            lines.append(f"There are older ones: pass before={self.messages[0].id}.")
        return "\n".join(lines)


class ThreadLine(View):
    """A thread of a list; soulkeep://threads/ID has a long title whole."""

    id: str
    last_active_at: str
    archived: bool = False
    title: str

    @classmethod
    def of(cls, thread: Thread, days: Days) -> "ThreadLine":
        """Build the line from a thread."""
        return cls(
            id=plain(thread.id),
            last_active_at=plain(days.date_text(thread.last_active_at)),
            archived=thread.archived,
            title=plain(thread.title, _SHOWN_TITLE),
        )

    def as_text(self) -> str:
        """Return a thread's id, activity and title in one line behind a bar."""
        state = " · archived" if self.archived else ""
        return fenced(f"{self.id} · {self.last_active_at}{state} · {self.title}")


class MemoryLine(Item):
    """A memory of a digest, in one line."""

    id: int
    memory_type: str
    content: str

    def as_text(self) -> str:
        """Return the memory in one line behind a bar."""
        return fenced(f"#{self.id} {self.memory_type}: {self.content}")


class ManagedAnswer(View):
    """The threads that were listed, or the one that was meant; change_id undoes its deletion.

    `prompt` says what became of a prompt that was to be set. The `system_prompt` is the user's
    instruction; what they did not agree to is a `note_not_agreed_to`, `prompt_by` an agent.
    """

    note: Prose = ""
    action: str
    threads: Items[ThreadLine]
    prompt: str = ""
    system_prompt: str = ""
    note_not_agreed_to: str = ""
    prompt_by: str = ""
    memories: Items[MemoryLine] = ()
    messages: Items[MessageAnswer] = ()
    cut: Prose = ""
    became: str = ""
    change_id: int | None = None

    @classmethod
    def of(cls, action: str, threads: Sequence[Thread], days: Days, prompt: str = "") -> Self:
        """Build the answer from threads, and what is to be said about a prompt."""
        lines = tuple(ThreadLine.of(thread, days) for thread in threads)
        return cls(
            note=f"Titles are {DATA}." if lines else "", action=action, threads=lines, prompt=prompt
        )

    @classmethod
    def of_list(cls, threads: Sequence[Thread], limit: int, days: Days) -> Self:
        """Build the answer from threads, of which those behind `limit` are not shown."""
        answer = cls.of("list", threads[:limit], days)
        return answer.model_copy(update={"cut": _MORE_THREADS}) if len(threads) > limit else answer

    @classmethod
    def of_digest(cls, digest: Digest, limit: int, days: Days) -> Self:
        """Build the answer from a digest, of whose texts as much is shown as finds room."""
        answer, thread = cls.of("resume", [digest.thread], days), digest.thread
        prompt = visible(thread.system_prompt or "")
        shown = cut(prompt, BOUND // 4)
        memories = [
            MemoryLine(id=m.id, memory_type=plain(m.memory_type), content=one_line(m.content, BOUND))
            for m in digest.memories
        ]
        remembered = fit_items([memory.shortened(_SHOWN) for memory in memories], BOUND // 3)
        latest_first = [MessageAnswer.of(message, days) for message in reversed(digest.messages)]
        rest = BOUND - weight(shown) - sum(line.weight() for line in remembered)
        said = fit_items([message.shortened(_SHOWN) for message in latest_first], rest)
        is_cut = (shown, remembered, said) != (prompt, memories, latest_first)
        whole = f"soulkeep://threads/{thread.id}, soulkeep://memories/ID, read_messages"
        more = [f"A text that ends in … and what is missing is whole in: {whole}."] if is_cut else []
        if len(said) == limit:
            more.append(f"Older messages: read_messages with before={said[-1].id}.")
        return answer.model_copy(
            update={
                "note": NOTE,
                "system_prompt": shown if thread.is_agreed else "",
                "note_not_agreed_to": "" if thread.is_agreed else shown,
                "prompt_by": "" if thread.is_agreed else plain(thread.prompt_by or "an agent"),
                "memories": tuple(remembered),
                "messages": tuple(reversed(said)),
                "cut": "\n".join(more),
            }
        )

    @classmethod
    def of_deleted(cls, deleted: Deleted, days: Days) -> Self:
        """Build the answer from a deletion."""
        fate = "became global" if deleted.fate == "global" else "went to the trash"
        memories, messages = len(deleted.memory_ids), deleted.message_count
        became = f"{counted(messages, 'message')} went with it; {counted(memories, 'memory')} {fate}."
        became = " ".join([became, *map(line_text, deleted.lines[:_SHOWN_LINES])])
        answer = cls.of("delete", [deleted.thread], days)
        return answer.model_copy(update={"became": became, "change_id": deleted.change_id})

    def as_text(self) -> str:
        """Say what was done or found: the user's prompt as an instruction, all else as data."""
        if not self.threads:
            return "There are no such threads."
        lines = [
            f"{_DONE[self.action]}; titles are {DATA}:",
            *(thread.as_text() for thread in self.threads),
        ]
        lines += [said for said in (self.became, self.prompt) if said]
        if self.change_id is not None:
            lines.append(f"To have it all back: `soulkeep undo {self.change_id}`.")
        if self.note_not_agreed_to:
            lines += [f"{unagreed_note(self.prompt_by)} ({DATA}):", fenced(self.note_not_agreed_to)]
        if self.system_prompt:
            lines += ["Its prompt:", under_heading(self.system_prompt)]
        if self.memories:
            lines += [f"Its memories, decisions first ({DATA}):", *(m.as_text() for m in self.memories)]
        if self.messages:
            lines += [f"Its last messages ({DATA}):", *(m.as_text() for m in self.messages)]
        return "\n".join([*lines, self.cut] if self.cut else lines)


class StartedAnswer(View):
    """The thread to work in, whether it `is_new`, how to go on, and what became of its prompt.

    `namesakes` are others of the same title.
    """

    note: Prose
    id: str
    title: str
    is_new: bool
    archived: bool = False
    last_active_at: str = ""
    next: Prose
    prompt: Prose = ""
    namesakes: Items[ThreadLine] = ()

    @classmethod
    def of(cls, started: Started, days: Days, prompt: str = "") -> "StartedAnswer":
        """Build the answer from a thread, and what is to be said about its prompt."""
        thread, named = started.thread, plain(started.thread.id)
        go_on = f"Created thread {named}. Pass thread_id={named} to remember and recall."
        if not started.is_new:
            go_on = (
                f"Nothing was created: there is a thread of this title. Go on with it, first by"
                f" get_context(thread_id={named}). Another one of the title needs new=true."
            )
        return cls(
            note=f"Titles are {DATA}.",
            id=thread.id,
            title=plain(thread.title),
            is_new=started.is_new,
            archived=thread.archived,
            last_active_at="" if started.is_new else plain(days.minute_text(thread.last_active_at)),
            next=go_on,
            prompt=prompt,
            namesakes=tuple(ThreadLine.of(t, days) for t in started.namesakes[:_SHOWN_NAMESAKES]),
        )

    def as_text(self) -> str:
        """Say which thread it is and how to go on with it."""
        state = ", archived" if self.archived else ""
        used = "" if self.is_new else f", last used at {self.last_active_at}{state}"
        lines = [self.next, f"Its title{used} ({DATA}):", fenced(self.title)]
        lines += [self.prompt] if self.prompt else []
        if self.namesakes:
            lines.append(f"Others of this title ({DATA}):")
            lines += [namesake.as_text() for namesake in self.namesakes]
        return "\n".join(lines)


def prompt_state(thread: Thread, prompt: str, state: ConsentState, home: Path) -> str:
    """Say whether a prompt is the user's instruction now, and else how they make it that."""
    if thread.system_prompt == prompt and thread.is_agreed:
        return "Its prompt is the user's instruction."
    asked = "did not agree to" if state == "declined" else "was not asked about"
    stays = "it is kept as your own note on the thread, not as an instruction"
    how = command(home, ["threads", "prompt", "--agree"], thread.id)
    if thread.system_prompt != prompt:
        stays = "the one that they agreed to stays"
        how = command(home, ["threads", "prompt"], thread.id, prompt_argument(prompt))
    first = f"The user {asked} the prompt: {stays}."
    if state == "declined":
        return f"{first} Do not propose it again."
    return f"{first} They make it their instruction with:\n{how}"


_LEAST_PROMPT = 400
"""How many bytes of a prompt are shown at least, or it comes on the next page."""
_IN_MCP = "the MCP prompt of its name has all of it"
_BY_HAND = "of one that is not in force, `{}` has all of it"


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
    """Global prompts, highest priority first; `next`, the id of the last, is what `after` takes.

    `cut` says how to read on in a text that ends in an ellipsis.
    """

    prompts: Items[PromptAnswer]
    cut: Prose = ""
    next: int | None = None

    @classmethod
    def of(cls, prompts: Sequence[GlobalPrompt], home: Path, after: int = 0) -> "PromptsAnswer":
        """Build a page of the prompts behind the one with the id `after`, as many as find room.

        Raises:
            InvalidInputError: There is no prompt `after` among them.
        """
        ids = [0, *(prompt.id for prompt in prompts)]
        if after not in ids:
            raise InvalidInputError("after", "is the id of no prompt in this list; list without it")
        names = {offer.prompt.id: offer.name for offer in offer_prompts(prompts)}
        following = prompts[ids.index(after) :]
        wanted = [PromptAnswer.of(prompt, names.get(prompt.id)) for prompt in following]
        shown = fit_items(wanted, BOUND, _LEAST_PROMPT)
        parts = [part for part, whole in zip(shown, wanted, strict=False) if part != whole]
        where = [_IN_MCP] if any(part.mcp_name for part in parts) else []
        by_hand = _BY_HAND.format(command(home, ["prompts", "list", "--json"]))
        where += [by_hand] if not all(part.mcp_name for part in parts) else []
        return cls(
            prompts=tuple(shown),
            cut=f"A text that ends in … goes on: {'; '.join(where)}." if parts else "",
            next=shown[-1].id if len(shown) < len(wanted) else None,
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
    cut: Prose = ""
    consent: ConsentState | None = None
    command: str = ""

    @classmethod
    def of(
        cls, change: PromptChange, consent: ConsentState | None = None, how: str = ""
    ) -> "PromptChangeAnswer":
        """Build the answer from a change, and from what the user said to it."""
        prompt, former = PromptAnswer.of(change.prompt, change.offered_as), change.former
        replaced = former.content if former and former.content != change.prompt.content else ""
        gone = prompt.content if change.outcome == "removed" else visible(replaced)
        shown = cut(gone, BOUND // 3)
        return cls(
            outcome=change.outcome,
            prompt=prompt.with_content(shown if change.outcome == "removed" else ""),
            former_content="" if change.outcome == "removed" else shown,
            cut=""
            if shown == gone
            else "Of the text this is the beginning; undo brings all of it back.",
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
        return "\n".join([*lines, self.cut] if self.cut else lines)


def agreement_command(change: PromptChange, wanted: GlobalPrompt, home: Path) -> str:
    """Write the command by which the user makes an instruction of what they were not asked about."""
    prompt = change.prompt
    if (prompt.name, prompt.content) == (wanted.name, wanted.content):
        return command(home, ["prompts", "activate"], str(prompt.id))
    options = [f"--name={wanted.name}", f"--content={prompt_argument(wanted.content)}"]
    return command(home, ["prompts", "change", *options], str(prompt.id))
