"""What a conversation starts with: identity, instructions, notes, memories and recent threads."""

from collections.abc import Iterable
from dataclasses import dataclass

from soulkeep.embedders.tokens import TokenCounter
from soulkeep.errors import InvalidInputError
from soulkeep.models import Options, Session, Thread
from soulkeep.service.sections import Budget, Section, Sections
from soulkeep.service.validation import MAX_QUERY, require_range, require_text

MAX_TOKENS = 20_000
"""How large a context may be: about what clients hand to a model before they put it into a file."""

_LEFT_OUT = 250
"""How many tokens, an eighth of a small budget, are kept free to say what was left out."""
_FRAME = 31
"""The tokens of what stands around the parts in the structured form, the longer of the two, without the
digits of two numbers, which are a token each."""
_SHARE_OF_WINDOW = 20
"""The tokens in which it says how full the window is."""

# Shares of what the instructions leave, for a first round; the second gives what is left in this order.
_NOTES, _TODAY, _YESTERDAY, _MEMORIES, _MESSAGES, _THREADS = 0.34, 0.1, 0.06, 0.3, 0.12, 0.08


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of the context; `is_data` tells what is remembered from what is an instruction.

    `tokens` are what it takes, heading included, in the larger of the two channels of an answer.
    """

    name: str
    source: str
    text: str
    tokens: int
    is_data: bool


@dataclass(frozen=True, slots=True)
class Pressure:
    """How full the client's window is, 0 to 1, and from which share on there is something to save."""

    share: float
    threshold: float

    @property
    def is_high(self) -> bool:
        """Whether the share has passed the threshold."""
        return self.share > self.threshold


@dataclass(frozen=True, slots=True)
class Context:
    """Parts in order, what found no room and where it is, and documents that cannot be read.

    `kept` says how much is kept in all, `advice` what to save while the window fills. `tokens` are those
    of the parts; `is_exact` says if a tokenizer counted them or they are estimated.
    """

    parts: tuple[Part, ...]
    left_out: tuple[str, ...]
    kept: str
    advice: str
    unreadable: tuple[str, ...]
    tokens: int
    max_tokens: int
    is_exact: bool
    thread: Thread | None
    pressure: Pressure | None


class Contexts:
    """Assembles contexts."""

    def __init__(self, sections: Sections, tokens: TokenCounter, options: Options) -> None:
        self._sections = sections
        self._tokens = tokens
        self._options = options

    def assemble(
        self,
        *,
        thread_id: str | None = None,
        query: str | None = None,
        max_tokens: int | None = None,
        used_tokens: int | None = None,
        window_tokens: int | None = None,
        session: Session | None = None,
    ) -> Context:
        """Put together what is worth most in `max_tokens` (100 to 20,000; a setting gives the default).

        First come SOUL.md, the global prompts in force by priority and the thread's own prompt, each
        whole; then MEMORY.md, today's and yesterday's log, memories one by one (those that fit the query
        or the thread's title, the thread's, the weightiest and latest of all), the thread's last
        messages, threads by title, and how much there is. Each of these has a share of the room; what
        one does not need goes to the others.

        Raises:
            InvalidInputError: An argument breaks a rule.
            ThreadNotFoundError: The thread does not exist.
            StoreError: The store cannot be read.
        """
        limit = min(self._options.context_tokens, MAX_TOKENS) if max_tokens is None else max_tokens
        require_range("max_tokens", limit, 100, MAX_TOKENS)
        if query is not None:
            require_text("query", query, MAX_QUERY)
        pressure = self._pressure(used_tokens, window_tokens)
        self._sections.drop_expired()
        thread = None if thread_id is None else self._sections.thread(thread_id)
        return self._filled(limit, thread, query, pressure, session)

    def _filled(
        self,
        limit: int,
        thread: Thread | None,
        query: str | None,
        pressure: Pressure | None,
        session: Session | None,
    ) -> Context:
        # Pieces that are put together may take some tokens more than each alone.
        budget = Budget(self._tokens, limit - limit // 50 - min(limit // 8, _LEFT_OUT))
        unreadable: list[str] = []
        instructions = [*self._sections.identity(unreadable), *self._sections.instructions(thread)]
        notes, yesterday, today = self._sections.notes(unreadable)
        budget.room -= _FRAME + 2 * len(str(limit)) + (_SHARE_OF_WINDOW if pressure else 0)
        said = _advice(pressure, thread)
        said = said if budget.cost(said) <= limit // 3 else said.partition(", in this order:")[0]
        kept = self._sections.kept()
        for text in (kept, said, *unreadable):
            budget.spend(text)
        for section in instructions:
            budget.offer(section)
        messages, threads = self._sections.messages(thread), self._sections.threads(thread, query)
        shares = [(notes, _NOTES), (today, _TODAY), (yesterday, _YESTERDAY)]
        room = max(budget.room, 0)
        for section, share in shares:
            budget.offer(section, share * room)
        known = {section.source: section.text for section, _ in shares}
        memories = list(self._sections.remembered(thread, query, known, session))
        shares += [(section, _MEMORIES / len(memories)) for section in memories]
        shares += [(messages, _MESSAGES), (threads, _THREADS)]
        for section, share in shares[3:]:
            budget.offer(section, share * room)
        budget.divide(shares)
        proposals = self._sections.proposals()
        budget.offer(proposals)
        shown = [*instructions, notes, yesterday, today, *memories, messages, threads, proposals]
        return Context(
            parts=tuple(_part(section) for section in shown if section.taken),
            left_out=_named(budget, min(limit // 8, _LEFT_OUT), shown),
            kept=kept,
            advice=said,
            unreadable=tuple(unreadable),
            tokens=sum(section.tokens for section in shown),
            max_tokens=limit,
            is_exact=self._tokens.is_exact,
            thread=thread,
            pressure=pressure,
        )

    def _pressure(self, used: int | None, window: int | None) -> Pressure | None:
        if used is None and window is None:
            return None
        if used is None or window is None:
            given, missing = ("window", "used") if used is None else ("used", "window")
            raise InvalidInputError(f"{missing}_tokens", f"must come with `{given}_tokens`")
        require_range("window_tokens", window, 1, 10**9)
        require_range("used_tokens", used, 0, 10**9)
        return Pressure(used / window, self._options.pressure)


def _part(section: Section) -> Part:
    return Part(section.name, section.source, section.text, section.tokens, section.is_data)


def _named(budget: Budget, room: int, sections: Iterable[Section]) -> tuple[str, ...]:
    """Return what can be said in some room of what was left out, and how much of it cannot."""
    left_out, said = [section.left_out for section in sections if not section.is_whole], 0
    room -= budget.cost(_rest(99))
    while said < len(left_out) and (room := room - budget.cost(f"{left_out[said]},")) >= 0:
        said += 1
    more = [_rest(len(left_out) - said)] if said < len(left_out) else []
    return (*left_out[:said], *more)


def _rest(count: int) -> str:
    return f"{count} more: a larger max_tokens"


def _advice(pressure: Pressure | None, thread: Thread | None) -> str:
    """Say what to save before the window is full, the most perishable first; nothing while it is not."""
    if pressure is None or not pressure.is_high:
        return ""
    where = f", thread_id={thread.id}" if thread else ""
    again = f"get_context(thread_id={thread.id})" if thread else "get_context"
    return (
        f"Your window is {pressure.share:.0%} full, past {pressure.threshold:.0%}. Save now,"
        " in this order:\n"
        f"1. decisions of this conversation with their reasons: remember(memory_type=decision{where})\n"
        "2. facts and preferences of the user that are not kept yet: remember\n"
        f"3. the state of the work and the next step: remember(memory_type=summary{where}), log_day\n"
        f"Then a new conversation goes on from {again}."
    )
