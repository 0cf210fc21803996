"""The value objects that every layer shares.

Timestamps are text everywhere: UTC, ISO 8601, milliseconds and `Z`, so that they sort as they stand.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, tzinfo
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

from pydantic import SecretStr

MemoryType = Literal["fact", "preference", "decision", "summary"]
MEMORY_TYPES: tuple[MemoryType, ...] = get_args(MemoryType)

AnyMemoryType = Literal["any", "fact", "preference", "decision", "summary"]
"""What a caller may ask for; a word for every type, for callers that must send one."""

MessageRole = Literal["user", "assistant", "system", "tool"]
MESSAGE_ROLES: tuple[MessageRole, ...] = get_args(MessageRole)

EmbedderName = Literal["auto", "universal", "wordllama", "none"]
"""The embedders that are built in, and none."""

OTHER_EMBEDDERS = ("openai", "sentence-transformers", "fastembed")
"""What stands before the colon and the model of all other embedders."""

ToolSet = Literal["default", "full"]
"""The tools that a client is offered: `full` adds those for threads and messages."""

LOCAL_OWNER = "local"
"""Whose the one home is of who has a database alone; those of accounts have their names."""

LOCAL_AGENT = "soulkeep"
"""The agent_id of the command line and of Python code that uses the services directly."""

ConsentState = Literal["agreed", "declined", "not asked"]
"""What came of a question to the user; `not asked` is whatever is neither a yes nor a no."""

Clock = Callable[[], datetime]

Embedding = bytes
"""A unit vector: `dimensions` float32 values, little-endian, 4 bytes each."""


def utc_now() -> datetime:
    """Return the time, aware and in UTC."""
    return datetime.now(UTC)


def timestamp(moment: datetime) -> str:
    """Write an aware `moment` as the store does: `2026-11-22T16:42:00.000Z`."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


@dataclass(frozen=True, slots=True)
class Thread:
    """A conversation with a title and, if set, its own system prompt.

    That is the user's instruction only if `is_agreed`; else it is a note of the agent `prompt_by`.
    """

    id: str
    title: str
    system_prompt: str | None
    archived: bool
    created_at: str
    last_active_at: str
    prompt_by: str | None = None
    is_agreed: bool = True


@dataclass(frozen=True, slots=True)
class NewMemory:
    """What the caller wants kept; without a thread it is a global memory.

    `subject` is who or what it is about; `occurred_at` is when it happened or was said, a timestamp or
    an ISO date, the moment of keeping if unset. `document` names the file it is derived from, if it is.
    A new version has the `created_at` of the first; otherwise it is unset, for the moment of keeping.
    """

    content: str
    memory_type: str = "fact"
    thread_id: str | None = None
    source: str | None = None
    subject: str | None = None
    occurred_at: str | None = None
    document: str | None = None
    expires_at: str | None = None
    created_at: str | None = None


class Memory(NamedTuple):
    """A memory as the store holds it; `occurred_at` is `created_at` where nothing else was said.

    One with a `document` is an entry of that file of the home, such as MEMORY.md or daily/2026-11-22.md.
    A tuple, since a search makes some hundreds of them.
    """

    id: int
    thread_id: str | None
    content: str
    memory_type: str
    source: str | None
    created_at: str
    subject: str | None
    occurred_at: str
    document: str | None = None
    expires_at: str | None = None


@dataclass(frozen=True, slots=True)
class MemoryFilter:
    """Which memories a search may return; an unset field lets all pass.

    A thread lets its own memories and the global ones pass. `since` and `until` are timestamps that
    limit `occurred_at`, both inclusive.
    """

    thread_id: str | None = None
    memory_type: str | None = None
    since: str | None = None
    until: str | None = None


class Vector(NamedTuple):
    """An embedding and the identity of the embedder that made it: those of two are never compared."""

    embedding: Embedding
    made_by: str


Strengths = Callable[[Sequence[str], Sequence[Sequence[str]]], Sequence[Sequence[float]]]
"""For each text, how well its words match each word of a question: 1 the same, 0 unrelated."""


@dataclass(frozen=True, slots=True)
class QueryVector:
    """The embedding of a question, and how its parts are compared with those of memories.

    Only the vectors that the same embedder made take part.

    `parts` are their lengths, which together are the whole vector; the parts of a vector have the same
    length as each other. Each of the `weightings` says how much the cosine of each part counts for one
    kind of memory that the embedder tells apart. Where it `is_centred`, half of what all memories have
    in common is taken from the question first.
    """

    embedding: Embedding
    made_by: str
    parts: Sequence[int]
    weightings: Sequence[Sequence[float]]
    is_centred: bool = True


@dataclass(frozen=True, slots=True)
class Match:
    """A recalled memory, and why it is there.

    A larger `score` is better and compares within one answer only; `relevance`, 0 to 1, says how likely
    the memory answers the question and compares everywhere. `reasons` are the shares of the score, which
    add up to 1: lexical, semantic, subject, date, neighbour.
    """

    memory: Memory
    score: float
    relevance: float
    reasons: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class NewMessage:
    """A message of a conversation to be kept; `created_at` is the moment of keeping if unset."""

    role: str
    content: str
    created_at: str | None = None


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a session's conversation; `token_count` is unset where nobody counted."""

    id: int
    session_id: str
    role: str
    content: str
    created_at: str
    token_count: int | None


@dataclass(frozen=True, slots=True)
class MessageMatch:
    """A message that was found by its words; a larger `score` is better, in one answer."""

    message: Message
    thread_id: str
    score: float


Mode = Literal["hybrid", "lexical"]


@dataclass(frozen=True, slots=True)
class Recall:
    """An answer: matches, best first, and whether vectors took part (`hybrid`) or not (`lexical`).

    `messages` of conversations are there only where they were asked for. `advice` says what the user can
    do where vectors could take part and do not. `remarks` are sentences on what the answer may lack.
    """

    matches: tuple[Match, ...]
    mode: Mode
    messages: tuple[MessageMatch, ...] = ()
    advice: str = ""
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class GlobalPrompt:
    """A system prompt; a higher priority is loaded first.

    It is the user's instruction only if `is_agreed`; else the agent `prompt_by` proposed it.
    """

    id: int
    name: str
    content: str
    is_active: bool
    priority: int
    created_at: str
    prompt_by: str | None = None
    is_agreed: bool = True

    @property
    def agreed_text(self) -> str:
        """What the user agrees to: it is loaded under its name."""
        return f"{self.name}\n{self.content}"

    @property
    def in_force(self) -> bool:
        """Whether it is an instruction that is switched on."""
        return self.is_active and self.is_agreed


@dataclass(frozen=True, slots=True)
class PromptOffer:
    """An active global prompt as MCP clients see it.

    `name` is the protocol's, unique and stable; `arguments` are the placeholders in the prompt's text.
    """

    name: str
    prompt: GlobalPrompt
    description: str
    arguments: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PromptChange:
    """What became of one global prompt.

    `prompt` is as it is now, or was until it was removed; `former` is as it was before a change. It is
    `kept` as it was where the user would have had to agree.
    `offered_as` is its name in MCP, unset where it is not offered.
    """

    outcome: Literal["created", "changed", "removed", "kept"]
    prompt: GlobalPrompt
    former: GlobalPrompt | None = None
    offered_as: str | None = None


@dataclass(frozen=True, slots=True)
class Session:
    """One connection of a client, or the command line; `agent_id` is the client's name."""

    id: str
    key: str
    agent_id: str
    created_at: str

    @property
    def is_users(self) -> bool:
        """Whether the user works by hand in it; no client can open a session with this id."""
        return self.id == LOCAL_AGENT


@dataclass(frozen=True, slots=True)
class Usage:
    """One use of a model: tokens in and out, and the cost in US dollars, unset where it is unknown."""

    model: str
    input_tokens: int
    output_tokens: int = 0
    cost: float | None = 0.0


@dataclass(frozen=True, slots=True)
class EmbedderChoice:
    """Which embedder is used, and how one that is not built in is reached and asked.

    `name` is one of EmbedderName, or one of OTHER_EMBEDDERS with a colon and a model, which of the
    last two may be a folder. An endpoint is at
    `url` (its base), wants `key` if it wants one, and has `timeout_s` seconds to answer. Vectors have
    `dimensions`, if that is said, else as many as the model has, up to 1536. An unset prefix is the one
    that the model's family was trained with. `prices` are US dollars for a million tokens, by model.
    """

    name: str = "auto"
    url: str = ""
    key: SecretStr = field(default_factory=partial(SecretStr, ""))
    timeout_s: float = 30.0
    dimensions: int | None = None
    query_prefix: str | None = None
    passage_prefix: str | None = None
    prices: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Options:
    """What the user may choose about documents and contexts.

    `context_tokens` is the default size of a context, `memory_tokens` how long MEMORY.md may be before
    answers say so, `pressure` the share of a window (0 to 1) from which on an agent is told to save.
    `retention_days` says how long what was forgotten or changed can be brought back; 0 is for ever.
    `backups` is how many are kept. `embedder` is what makes vectors, and how former ones are reached.
    `store` is the address of the database that has the store; empty for a file in the home.
    """

    timezone: tzinfo | None = None
    context_tokens: int = 4_000
    memory_tokens: int = 2_000
    pressure: float = 0.7
    retention_days: int = 90
    backups: int = 10
    embedder: EmbedderChoice = field(default_factory=EmbedderChoice)
    store: SecretStr = field(default_factory=partial(SecretStr, ""))


RowKind = Literal["memories", "threads", "global_prompts", "messages", "documents"]
"""What a change may touch: what a table holds, or a document by its name in the home."""


class DocumentEdit(NamedTuple):
    """What a change did to a document: the hunks of the edit, each by the fields of `documents.Hunk`."""

    hunks: tuple[Mapping[str, Any], ...]


RowValue = Memory | Thread | GlobalPrompt | Message | DocumentEdit


@dataclass(frozen=True, slots=True)
class Change:
    """One change: who made it and what it was, to how many rows.

    `undone_by` is the change that took it back.
    """

    id: int
    made_at: str
    agent_id: str
    action: str
    undone_by: int | None
    rows: int


@dataclass(frozen=True, slots=True)
class ChangedRow:
    """What a change did to one row, or to a document.

    `before` is what it was, unset if there was none; of a document, what was done to it. `after` is a
    mark of what it became, which only the store can read, unset if it is gone. `replaced_by` is the
    memory that came in its place. The id of the change is 0 while it is made.
    """

    kind: RowKind
    key: str
    before: RowValue | None
    after: str | None
    replaced_by: int | None = None
    change_id: int = 0


@dataclass(frozen=True, slots=True)
class Fault:
    """Something wrong with a store: what, how much of it, and what to do."""

    name: str
    detail: str
    remedy: str


BACKUPS_FOLDER = "backups"
"""The folder of backups in a home."""

MODEL_USED = "model.used"
"""The event as which a use of a model stands in the log."""


@dataclass(frozen=True, slots=True)
class ModelUsage:
    """All uses of one model: how many, the tokens in and out, and the cost in US dollars, if known."""

    model: str
    uses: int
    input_tokens: int
    output_tokens: int
    cost: float | None


@dataclass(frozen=True, slots=True)
class LogEntry:
    """One line of the log: who did what when; `details` hold ids and sizes, never what was said."""

    at: str
    agent_id: str
    event: str
    details: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Backup:
    """A copy of a store and its documents as they were together at `made_at`.

    An `automatic` one was made before a migration, a deletion or a restore, as its `label` says.
    `counts` are rows by table; `left_out` names documents that could not be read.
    """

    id: str
    made_at: str
    label: str
    automatic: bool
    size: int
    counts: Mapping[str, int]
    left_out: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Restored:
    """What a home was set back to, and where what it held until then is.

    `former` is unset where the store was damaged: then `kept` has its files as they were, and `left`
    names documents that could not be read or replaced. Without a folder `kept` is unset.
    """

    backup: Backup
    former: Backup | None
    kept: Path | None
    left: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Waiting:
    """How many memories wait for their vectors, and of how many the embedder refused the text.

    `reason` is why the last one has none yet, often empty; `next_try` is the next moment at which one
    has its turn, a timestamp, or empty for now.
    """

    pending: int = 0
    failed: int = 0
    reason: str = ""
    next_try: str = ""


@dataclass(frozen=True, slots=True)
class Account:
    """Somebody who uses a server of several; their own home has the account's name.

    `issuer` and `subject` are who they are to an external issuer of tokens, if they come from one.
    `last_used_at` is kept to ten minutes. A revoked account gets in by no way; its home stays. So does
    that of a deleted one, which is restored or purged.
    """

    name: str
    created_at: str
    issuer: str | None = None
    subject: str | None = None
    revoked_at: str | None = None
    last_used_at: str | None = None
    deleted_at: str | None = None


@dataclass(frozen=True, slots=True)
class Access:
    """That an account may use a home, its own or a team's, and whether it may write there."""

    account: str
    home: str
    may_write: bool
