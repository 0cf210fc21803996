"""What the service may ask of a store, whichever engine keeps it.

An engine is written by reading this page, with `vectors`, `changes` (the undo log) and `copies` (for
backups) beside it, and is right when it passes `tests/test_store_contract.py`. Value objects go in and
come out. What holds everywhere:

- Text is Unicode and comes back as it was given, also where it is not in its normal form. What cannot be
  UTF-8 is refused with InvalidInputError. Timestamps are text as `models.timestamp` writes them, in UTC
  and with milliseconds, and so compare as they stand. `since` and `until` are inclusive.
- Ids of memories, messages, prompts and changes are whole numbers from 1 up to 2**63 - 1, larger than
  all that were given before and never given twice, also after a deletion. An argument beyond that is
  refused with IdTooLargeError; in a list of ids to read it is not found.
- Lists have one order for every engine, down to equals: it is stated. `limit` is how many are returned
  at most; -1 is no limit, where that is stated.
- "Inside a transaction" means inside `transaction()` or `recording()`, by the same thread; what can be
  undone is written in a recording alone (`changes`). Other methods need neither. Threads may share a
  repository, and processes a store. Any method may raise a StoreError.
"""

from collections.abc import Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Literal, Protocol

from soulkeep.models import (
    Fault,
    GlobalPrompt,
    LogEntry,
    Memory,
    MemoryFilter,
    Message,
    MessageMatch,
    ModelUsage,
    NewMemory,
    NewMessage,
    Session,
    Thread,
    Usage,
    Vector,
)
from soulkeep.repository.changes import Changes, Recording
from soulkeep.repository.vectors import NextVectors, Vectors, VectorSearch

PromptKind = Literal["threads", "global_prompts"]
"""What has a prompt: a thread of its own, or the user for all."""

ROWS = ("threads", "memories", "global_prompts", "sessions", "messages", "usage_records", "audit_log")
"""What a store counts; `vectors` and `full-text entries` too."""


class Memories(Protocol):
    """Memories, and the words by which they are found; entries of documents are among them.

    The date of a memory is its `occurred_at`, or `created_at` where none was given.
    """

    def add_memories(
        self, memories: Sequence[NewMemory], vectors: Sequence[Vector | None], created_at: str
    ) -> list[int]:
        """Keep memories with the vectors that they have (see `Vectors`); return their ids."""

    def delete_memories(self, memory_ids: Sequence[int]) -> None:
        """Delete memories and what is derived from them; inside a transaction."""

    def move_memories(self, memory_ids: Sequence[int], thread_id: str | None) -> None:
        """Put memories into a thread, or with None into none, inside a transaction."""

    def get_memory(self, memory_id: int) -> Memory:
        """Return one memory; MemoryNotFoundError where there is none with this id."""

    def list_by_ids(self, memory_ids: Sequence[int]) -> dict[int, Memory]:
        """Return those of these memories that are there, by id, in no order."""

    def list_memories(
        self, allowed: MemoryFilter, limit: int, below: int | None = None, **columns: str
    ) -> list[Memory]:
        """Return memories, no entries, with ids under `below`, largest first; `columns` equal in NFC."""

    def list_of_thread(
        self, thread_id: str, limit: int = -1, memory_type: str | None = None
    ) -> list[Memory]:
        """Return a thread's memories, perhaps of one type, latest date first, then largest id."""

    def latest_global(self, limit: int) -> list[Memory]:
        """Return of each type the latest `limit`, by date, then id, of no thread and no document."""

    def latest_in_threads(self, until: Mapping[str, str]) -> dict[str, Memory]:
        """Return for threads the last memory, by date, then id, that is not after a timestamp."""

    def list_expired(self, now: str, limit: int) -> list[int]:
        """Return the ids of memories whose `expires_at` is `now` or before, in no order."""

    def pages(self, size: int) -> Iterator[list[Memory]]:
        """Yield all memories in lists of up to `size`, smallest id first."""

    def count(self) -> int:
        """Return how many memories there are, entries of documents among them."""

    def count_by_type(self) -> dict[str, int]:
        """Return how many memories of each type there are, no entries, most first, then by name."""

    def count_by_day(self, since: str) -> dict[str, int]:
        """Count memories, no entries, kept since a timestamp, by the user's day (2026-11-26) of that."""

    def find_duplicates(self, memories: Sequence[NewMemory]) -> list[int | None]:
        """Return for each the smallest id of a memory that states the same; None where there is none.

        Content and subject in the normal form NFC, type, thread, expiry and the date that was given, or
        that none was, have to be the same. No subject is the same as an empty one; entries do not count.
        """

    def find_saying(self, texts: Sequence[str]) -> list[int]:
        """Return the ids of memories, no entries, that hold one of the texts; smallest first."""

    def matching(
        self, terms: Sequence[str], allowed: MemoryFilter, limit: int, *, in_subject: bool = False
    ) -> list[tuple[int, float]]:
        """Return ids and scores of the best memories that have any of the words `terms`; best first.

        `terms` are words as `search.questions.query_terms` makes them of a question, looked up among
        those that `search.words.split_words` makes of content and subject, and `search.dates.day_words`
        of the user's day of the date; English endings do not matter. With `in_subject` only words of the
        subject count. The score is BM25, larger is better and above 0; equals are in order of id. The
        filter applies before the limit.
        """

    def passing(self, memory_ids: Collection[int], allowed: MemoryFilter) -> list[int]:
        """Return those of these ids whose memories are there and pass the filter, in no order."""

    def count_and_frequencies(self, terms: Sequence[str]) -> tuple[int, dict[str, int]]:
        """Return how many memories there are, and how many `matching` would find by each term alone.

        Both may be off by one in a hundred where they are 100 or more, so that an engine may keep them.
        """

    def neighbours(self, memory_ids: Sequence[int]) -> dict[int, tuple[int | None, int | None]]:
        """Return for each memory in a thread the ids before and after it there, by date, then id."""

    def take_in_added(self) -> None:
        """Let searches find by its words what another program added; inside a transaction.

        In a store with vectors it waits for its own. `add_memories` does this too.
        """

    def unindexed(self, limit: int) -> list[Memory]:
        """Return memories that another program added, which no search finds yet, smallest id first."""


class Documents(Protocol):
    """Entries of documents, and the state of the file that they are from."""

    def list_entries(self, name: str) -> list[Memory]:
        """Return the entries of a document, smallest id first."""

    def ids_of_source(self, document: str, source: str, allowed: MemoryFilter, limit: int) -> list[int]:
        """Return ids of entries whose source begins so, a space for any signs; largest first."""

    def states(self, names: Sequence[str] | None = None) -> dict[str, str]:
        """Return the noted state of each document, or of those of these names that have one."""

    def put_state(self, name: str, state: str | None) -> None:
        """Note the state of a document, or with None forget the document; inside a transaction."""

    def names(self) -> set[str]:
        """Return the documents that have a state or entries."""


class Threads(Protocol):
    """Threads. Titles are compared as `search.words.same_title` has it."""

    def add_thread(self, thread: Thread) -> None:
        """Add a thread, inside a transaction; who set its prompt is for `Consents`."""

    def change_thread(self, thread_id: str, **columns: str | int | None) -> None:
        """Set `title`, `system_prompt` or `archived` (0 or 1) of a thread; inside a transaction."""

    def delete_thread(self, thread_id: str) -> None:
        """Delete a thread, inside a transaction; OwnerGoneError where something still belongs to it."""

    def touch_threads(self, thread_ids: Sequence[str], last_active_at: str) -> None:
        """Note that something happened in threads, which is no change of them; inside a transaction."""

    def get_thread(self, thread_id: str) -> Thread:
        """Return one thread; ThreadNotFoundError where there is none with this id."""

    def require_threads(self, thread_ids: Sequence[str]) -> None:
        """Raise ThreadNotFoundError for one that is not there."""

    def list_threads(
        self, limit: int, archived: bool | None = False, containing: str = ""
    ) -> list[Thread]:
        """Return threads whose title or id contains a text, in any case; -1 is no limit.

        Active or `archived` ones, with None both; latest activity first, then the latest added.
        """

    def find_titled(self, title: str) -> list[Thread]:
        """Return the threads of the same title: active ones first, then as `list_threads`."""

    def list_made(self, limit: int, before: int | None = None) -> list[tuple[int, Thread]]:
        """Return active threads with their lasting places, those below `before`, latest added first."""

    def count(self) -> tuple[int, int]:
        """Return how many threads are active and how many archived."""


class Prompts(Protocol):
    """The user's global prompts."""

    def add_prompt(
        self, name: str, content: str, priority: int, created_at: str, *, is_active: bool
    ) -> int:
        """Add a prompt, inside a transaction; return its id."""

    def update_prompt(self, prompt: GlobalPrompt) -> None:
        """Set name, content, priority and state of the prompt with this id; inside a transaction."""

    def delete_prompt(self, prompt_id: int) -> None:
        """Delete a prompt; inside a transaction."""

    def get_prompt(self, prompt_id: int) -> GlobalPrompt:
        """Return one prompt; PromptNotFoundError where there is none with this id."""

    def list_prompts(self) -> list[GlobalPrompt]:
        """Return all prompts, highest priority first, then smallest id."""

    def outline(self) -> str:
        """Return a text that changes with ids, priorities, states and lengths, at little cost."""


class Consents(Protocol):
    """Who set each text that a prompt ever had, and whether the user agreed to it.

    A record speaks of a text, so it stays right when a change is undone. A prompt without any was
    written by the user's own hand.
    """

    def note(self, kind: PromptKind, key: str | int, text: str, set_by: str, *, agreed: bool) -> None:
        """Record who set a text, unless that is known, and a yes of the user; inside a transaction."""

    def is_agreed(self, kind: PromptKind, key: str | int, text: str) -> bool:
        """Whether the user agreed to a text, or there is no record of any text of this prompt."""


class Messages(Protocol):
    """The messages of threads, and the words by which they are found."""

    def add_messages(
        self,
        thread_id: str,
        agent_id: str,
        messages: Sequence[NewMessage],
        tokens: Sequence[int],
        now: str,
    ) -> list[int]:
        """Append messages with their counts of tokens to a thread, in a transaction; return the ids."""

    def delete_messages(self, message_ids: Iterable[int]) -> None:
        """Delete messages; inside a transaction."""

    def list_of_thread(self, thread_id: str, limit: int, before: int | None = None) -> list[Message]:
        """Return the last `limit` messages of a thread, with ids below `before`, smallest id first."""

    def list_from(self, thread_id: str, first: int, limit: int) -> list[Message]:
        """Return messages of a thread from the id `first` on, smallest id first."""

    def ids_of_thread(self, thread_id: str) -> list[int]:
        """Return the ids of all messages of a thread, smallest first."""

    def find_same(self, thread_id: str, message: NewMessage) -> list[int]:
        """Return the ids of a thread's messages of this role, content and date, smallest first."""

    def matching(self, terms: Sequence[str], allowed: MemoryFilter, limit: int) -> list[MessageMatch]:
        """Return messages with any of the words, of a thread or all, by BM25, then largest id."""

    def threads_saying(self, texts: Sequence[str]) -> list[str]:
        """Return the ids, in order, of the threads in whose messages one of the texts stands."""


class Ledger(Protocol):
    """Bookkeeping: who was connected, what it cost, what happened; it is written in transactions."""

    def touch_session(self, session: Session, now: str) -> None:
        """Record that a session is active, adding it when it is new."""

    def add_usage(self, session_id: str, usage: Usage, now: str) -> None:
        """Add one use of a model."""

    def add_audit(
        self, event: str, source_app: str, details: Sequence[Mapping[str, Any]], now: str
    ) -> None:
        """Add an event for each of `details`, which hold ids and sizes, never what the user wrote."""

    def drop_old(self, kept: int) -> None:
        """Keep the latest `kept` uses, events and sessions; of older uses their sums stay, by model."""

    def usage_totals(self) -> Usage:
        """Return the sums over all uses, with the model `all`."""

    def usage_by_model(self) -> list[ModelUsage]:
        """Return the sums for each model, most uses first, then by name."""

    def last_event(self) -> int:
        """Return the id of the last event; 0 where there is none."""

    def events_after(self, event_id: int) -> set[str]:
        """Return the names of the events after one."""

    def count_events(self, event: str, since: str) -> dict[str, int]:
        """Return by the user's day how often an event happened since a timestamp."""

    def list_log(self, limit: int, since: str, agent: str | None, event: str | None) -> list[LogEntry]:
        """Return events, and uses as `model.used`, newest first; `event` may be what its dot follows."""

    def erased_at(self, memory_id: int) -> str | None:
        """Return when a memory was purged, if the log still knows."""


class Repository(Protocol):
    """An open store."""

    @property
    def place(self) -> str:
        """Where the store is, as messages name it to the user: a path, or an address without secrets."""

    @property
    def memories(self) -> Memories: ...
    @property
    def vectors(self) -> Vectors: ...
    @property
    def vector_search(self) -> VectorSearch: ...
    @property
    def next_vectors(self) -> NextVectors: ...
    @property
    def documents(self) -> Documents: ...
    @property
    def threads(self) -> Threads: ...
    @property
    def prompts(self) -> Prompts: ...
    @property
    def consents(self) -> Consents: ...
    @property
    def messages(self) -> Messages: ...
    @property
    def ledger(self) -> Ledger: ...
    @property
    def changes(self) -> Changes: ...

    def transaction(self, *, durable: bool = True, waiting: bool = True) -> AbstractContextManager[None]:
        """Do everything inside as one write: all of it, or nothing when an error leaves the block.

        A durable one is on the disk when the block ends; another survives the end of the process, and
        perhaps not a loss of power. StoreBusyError is raised where another process does not finish in
        time, or without `waiting` is at it; StoreFullError where there is no room.
        """

    def sole_worker(self, name: str) -> AbstractContextManager[bool]:
        """Say whether this one alone, of all that have the store open, does the work of a name now.

        It is so until the block ends, or the process does, however that ends. Nobody is waited for.
        """

    def recording(self, *, waiting: bool = True) -> AbstractContextManager[Recording]:
        """Do the same as a durable `transaction`, in which what can be undone is written and noted."""

    def erasing(self) -> AbstractContextManager[None]:
        """Do the same as a `recording`, but note nothing: what is deleted is to leave no trace."""

    def snapshot(self) -> AbstractContextManager[None]:
        """Let all that is read inside be of one moment, however others write meanwhile."""

    @property
    def in_transaction(self) -> bool:
        """Whether this thread is inside a transaction; waits for one of another thread to end."""

    @property
    def only_reads(self) -> bool:
        """Whether nothing can be written, as there was no room when the store was last opened."""

    def revision(self) -> Hashable:
        """Return what is another after each commit, whoever made it, at no cost."""

    def get_fact(self, name: str) -> str | None:
        """Return what was noted under a name; None for nothing."""

    def put_fact(self, name: str, value: str | None) -> None:
        """Note something of the store under a name, or with None take it away; inside a transaction."""

    def rebuild_full_text(self) -> None:
        """Build the words of memories and messages anew; inside a transaction."""

    def recreate_indexes(self) -> None:
        """Make all that is derived anew and empty, however damaged it is; inside a transaction."""

    def check(self, *, vectors_expected: bool) -> list[Fault]:
        """Return all that is wrong with the store; if expected, each memory has a vector or waits."""

    def count_rows(self) -> dict[str, int]:
        """Count what there is by its name in `ROWS`."""

    def size(self) -> int:
        """Return how many bytes the store takes where it is kept."""

    def table_sizes(self) -> dict[str, int]:
        """Return the bytes of each part, largest first; this may take long."""

    def wasted(self) -> int:
        """Return how many bytes `tidy` would give back; 0 where that is not worth while."""

    def tidy(self, *, waiting: bool = True) -> Iterator[int]:
        """Give back the space of what was deleted in short steps; yield the bytes that each gave back.

        Others can write between two steps, and nothing is lost by stopping there. Without `waiting` a
        step raises StoreBusyError while another process writes.
        """

    def erase(self) -> bool:
        """Take all that was deleted out of whatever the store is kept in, outside transactions.

        Others cannot write meanwhile. False while what other processes read still holds it: try again.
        """

    def versions(self) -> dict[str, str]:
        """Return the versions of what the engine is made of, by name, and the schema's."""

    def memory_used(self) -> int:
        """Return how many bytes `release_memory` would give back, nearly."""

    def release_memory(self) -> None:
        """Give back the memory of what was read; the next search reads it again."""

    def close(self) -> None:
        """Close the store; closing it again does nothing."""
