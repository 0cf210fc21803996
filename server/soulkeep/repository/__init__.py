"""What the service may ask of a store, whichever engine keeps it.

An engine is written by reading this one page, and is right when it passes
`tests/test_store_contract.py`. Value objects go in and come out. What holds everywhere:

- Text is Unicode and comes back as it was given, also where it is not in its normal form. What cannot be
  UTF-8 is refused with InvalidInputError. Timestamps are text as `models.timestamp` writes them, in UTC
  and with milliseconds, and so compare as they stand. `since` and `until` are inclusive.
- Ids of memories, messages, prompts and changes are whole numbers from 1 up to 2**63 - 1, larger than
  all that were given before and never given twice, also after a deletion. An argument beyond that is
  refused with IdTooLargeError; in a list of ids to read it is not found.
- Lists have one order for every engine, down to equals: it is stated. `limit` is how many are returned
  at most; -1 is no limit, where that is stated.
- "Inside a transaction" means inside `transaction()` or `recording()`, by the same thread; what can be
  undone is written in a recording alone (`Changes`). Other methods need neither. Threads may share a
  repository, and processes a store. Any method may raise a StoreError.
"""

from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from soulkeep.errors import StoreError
from soulkeep.models import (
    Backup,
    Change,
    ChangedRow,
    Embedding,
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
    QueryVector,
    RowKind,
    RowValue,
    Session,
    Thread,
    Usage,
    Vector,
    Waiting,
)

PromptKind = Literal["threads", "global_prompts"]
"""What has a prompt: a thread of its own, or the user for all."""

ROWS = ("threads", "memories", "global_prompts", "sessions", "messages", "usage_records", "audit_log")
"""What a store counts; `vectors` and `full-text entries` too."""


class Memories(Protocol):
    """Memories, and the words by which they are found; entries of documents are among them.

    The date of a memory is its `occurred_at`, or `created_at` where none was given.
    """

    def add_memories(
        self,
        memories: Sequence[NewMemory],
        vectors: Sequence[Vector | None],
        created_at: str,
        embedder: str | None = None,
    ) -> list[int]:
        """Keep memories with the vectors that they have (see `Vectors`); return their ids.

        Inside a transaction, and in a recording unless they are entries. Before that `embedder` is
        recorded as the one whose vectors the store will hold, unless one is, and searches find by its
        words what another program added: see `unindexed`. It is so for no memories too, in any
        transaction.
        """

    def delete_memories(self, memory_ids: Sequence[int]) -> None:
        """Delete memories and what is derived from them; inside a transaction."""

    def move_memories(
        self, memory_ids: Sequence[int], thread_id: str | None, vectors: Sequence[Vector | None]
    ) -> None:
        """Put memories into a thread, or with None into none, inside a transaction.

        They get these vectors, or none, in the place of those that they have.
        """

    def list_by_ids(
        self, memory_ids: Collection[int], allowed: MemoryFilter | None = None
    ) -> dict[int, Memory]:
        """Return those of these memories that are there and pass the filter, by id, in no order."""

    def list_memories(
        self, allowed: MemoryFilter, limit: int, below: int | None = None, **columns: str
    ) -> list[Memory]:
        """Return memories, no entries, with ids under `below`, largest first; -1 is no limit.

        `columns` are what they have in columns of these names, equal in the normal form NFC.
        """

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

    def count_by_type(self) -> dict[str, int]:
        """Return how many memories of each type there are, no entries, most first, then by name."""

    def find_duplicates(self, memories: Sequence[NewMemory]) -> list[int | None]:
        """Return for each the smallest id of a memory that states the same; None where there is none.

        Content and subject in the normal form NFC, type, thread, expiry and the date that was given, or
        that none was, have to be the same. No subject is the same as an empty one; entries do not count.
        """

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

    def matching_latest(
        self, term: str, beside: Sequence[str], allowed: MemoryFilter, limit: int
    ) -> list[tuple[int, float]]:
        """As `matching`, of the LATEST with a word and, if there are any, one of those `beside` it."""

    def count_and_frequencies(self, terms: Sequence[str]) -> tuple[int, dict[str, int]]:
        """Return how many memories there are, and how many `matching` would find by each term alone.

        Both may be off by one in a hundred where they are 100 or more, so that an engine may keep them.
        """

    def neighbours(self, memory_ids: Sequence[int]) -> dict[int, tuple[int | None, int | None]]:
        """Return for each memory in a thread the ids before and after it there, by date, then id."""

    def unindexed(self, limit: int) -> list[Memory]:
        """Return memories that another program added, which no search finds yet, smallest id first.

        `add_memories` takes them in. In a store with vectors they wait for theirs.
        """


class Documents(Protocol):
    """Entries of documents, and the state of the file that they are from."""

    def list_entries(self, name: str) -> list[Memory]:
        """Return the entries of a document, smallest id first."""

    def ids_of_source(self, document: str, source: str, allowed: MemoryFilter, limit: int) -> list[int]:
        """Return ids of entries whose source begins so, a space for any signs; largest first."""

    def states(self, names: Sequence[str] | None = None) -> dict[str, str]:
        """Return the noted state of those of these documents that have one.

        Without `names` of all that have a state or entries, where none is noted an empty one.
        """

    def put_state(self, name: str, state: str | None) -> None:
        """Note the state of a document, or with None forget the document; inside a transaction."""


class Threads(Protocol):
    """Threads: what memories and messages of one conversation or project belong to."""

    def add_thread(self, thread: Thread) -> None:
        """Add a thread, inside a transaction; who set its prompt is for `Consents`."""

    def change_threads(self, thread_ids: Sequence[str], **columns: str | int | None) -> None:
        """Set `title`, `system_prompt`, `archived` (0 or 1) or `last_active_at`; inside a transaction.

        The last of these is no change of a thread, and needs no recording. ThreadNotFoundError where
        there is none with one of the ids.
        """

    def delete_thread(self, thread_id: str) -> None:
        """Delete a thread, inside a transaction; OwnerGoneError where something still belongs to it."""

    def get_thread(self, thread_id: str) -> Thread:
        """Return one thread; ThreadNotFoundError where there is none with this id."""

    def list_threads(
        self, limit: int, archived: bool | None = False, containing: str = ""
    ) -> list[Thread]:
        """Return threads whose title or id contains a text; -1 is no limit.

        Titles are compared as `search.words.same_title` has it, and so without case.
        Active or `archived` ones, with None both; latest activity first, then the latest added.
        """

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

    def origin(self, kind: PromptKind, key: str | int, text: str | None) -> tuple[str | None, bool]:
        """Return who set a text, if that is known, and whether the user agreed to it.

        So it is also where there is no text, or no record of any text of this prompt.
        """


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

    def list_of_thread(
        self, thread_id: str, limit: int = -1, *, before: int | None = None, first: int | None = None
    ) -> list[Message]:
        """Return messages of a thread, smallest id first; -1 is no limit.

        They are its last ones, or the last with ids below `before`; or the next from the id `first` on.
        """

    def find_same(self, thread_id: str, message: NewMessage) -> list[int]:
        """Return the ids of a thread's messages of this role, content and date, smallest first."""

    def matching(self, terms: Sequence[str], allowed: MemoryFilter, limit: int) -> list[MessageMatch]:
        """Return messages with any of the words, of a thread or all, by BM25, then largest id."""


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

    def usage_by_model(self) -> list[ModelUsage]:
        """Return the sums for each model, most uses first, then by name."""

    def list_log(self, limit: int, since: str, agent: str | None, event: str | None) -> list[LogEntry]:
        """Return events, and uses as `model.used`, newest first; `event` may be what its dot follows.

        `agent` is a whole name, or that of an account, which stands before a `/`.
        """

    def erased_at(self, memory_id: int) -> str | None:
        """Return when a memory was purged, if the log still knows."""


class Vectors(Protocol):
    """The vectors of memories, all of one embedder, which the store records by its identity.

    The first vector that a memory comes with claims its embedder, unless one is recorded. In a store
    with vectors, who has none, or one of another embedder, waits: see `list_pending`. What takes vectors
    raises DimensionMismatchError for one of more than 1536 dimensions, and EmbedderError for one that is
    not of length 1, to one in a thousand.
    """

    def recorded_embedder(self) -> str | None:
        """Return the identity of the embedder that made the vectors; None before the first memory."""

    def compare(
        self, embedding: Embedding, parts: Sequence[int], memory_ids: Sequence[int]
    ) -> dict[int, tuple[float, ...]]:
        """Return the cosines (-1..1) of the parts of these lengths, for those that have a vector."""

    def list_pending(
        self, limit: int = -1, now: str | None = None, among: Collection[int] | None = None
    ) -> dict[int, int]:
        """Return which memories wait for their vectors, and how often they were put off; -1 is no limit.

        The largest id comes first. With `now`, a timestamp, those that were put off until later are left
        out, and with `among` all others.
        """

    def add_pending(self, vectors: Mapping[int, Vector]) -> None:
        """Give those of these memories that still wait their vectors; inside a transaction.

        A vector of another embedder than the store's is not taken.
        """

    def put_off(self, failed: Mapping[int, str], state: str, next_try: str) -> None:
        """Note why memories that wait have no vectors yet, and from when on that is tried again.

        Their state is `pending`, or `failed` where their text was refused; each call counts as an
        attempt. Inside a transaction.
        """

    def retry_pending(self) -> None:
        """Let all that wait have their turn now, as if never tried; inside a transaction."""

    def waiting(self) -> Waiting:
        """Count the memories that wait for their vectors."""


class VectorSearch(Protocol):
    """The nearest memories. Called outside transactions; what others committed is found."""

    def load(self, parts: Sequence[int]) -> None:
        """Get ready for vectors with parts of these lengths: the first search then waits for nothing."""

    def nearest(
        self, embedding: Embedding, allowed: MemoryFilter, limit: int
    ) -> list[tuple[int, float]]:
        """Return ids and cosine distances (0..2) of up to 4096 memories, nearest first, then by id.

        The filter applies before the limit.
        """

    def compare(
        self, query: QueryVector, allowed: MemoryFilter, depth: int, also: Collection[int]
    ) -> dict[int, tuple[float, ...]]:
        """Return the cosines (-1..1) of each part by id, in no order.

        They are those of the nearest `depth` that pass the filter, by each weighting of the query, and
        those in `also`, whether they pass or not. None, where the vectors are another embedder's.
        """


class NextVectors(Protocol):
    """The vectors of the embedder that a store moves to, until all are there."""

    def count(self, identity: str) -> tuple[int, int]:
        """Return how many memories have a vector of this embedder here, and how many there are."""

    def list_missing(
        self, identity: str, below: int, limit: int, but: Sequence[int] = ()
    ) -> list[Memory]:
        """Return memories with ids `below` that have none of this embedder here, largest id first.

        Those with ids in `but` are left out.
        """

    def measure_missing(self, identity: str) -> tuple[int, int]:
        """Count the memories that have no vector of an embedder, and the UTF-8 bytes of their texts.

        Where the store's vectors are of that embedder, these are the ones that wait.
        """

    def add(self, vectors: Mapping[Memory, Vector], identity: str) -> None:
        """Add vectors of memories that are still the same; inside a transaction. Others go."""

    def take_over(self, identity: str) -> None:
        """Delete all others, record this embedder, and let these serve; inside a transaction.

        They have to be of this embedder, if there are any. Memories without one wait, unless it makes
        none.
        """

    def discard(self) -> None:
        """Delete them, whosever they are; inside a transaction."""


class UnrecordedChangeError(Exception):
    """Something that can be undone was written outside `Repository.recording`: the program is wrong."""


@dataclass(eq=False)
class StoreUnreachableError(StoreError):
    """The database that holds the store does not answer, or the connection to it was lost."""

    path: Path | str
    detail: str
    problem = "the database cannot be reached ({detail}), and nothing was written"
    remedy = "see that it runs and that SOULKEEP_STORE names it, then try again"


class CommitUnknownError(StoreError):
    """The connection was lost at the end of a transaction, and the database cannot be asked of it."""

    problem = "the connection was lost at the end of a change, which may be there or not"
    remedy = "look whether it is there before you send it again"


class Recording(Protocol):
    """A change while it is made."""

    def rows(self) -> Iterator[ChangedRow]:
        """Yield what has changed until now, each row once, in the order of the first writes.

        What is as it was before is left out. That a thread was used is no change of it.
        """

    def save(
        self,
        action: str,
        session: Session,
        now: str,
        rows: Iterable[ChangedRow],
        undone: Sequence[int],
        into: int = 0,
    ) -> int:
        """Put the change into the log with these of its rows and with edits of documents; return its id.

        Without any there is none, and 0 is returned.
        `undone` are the changes that it takes back; what those had taken back is in force again. With
        `into` the rows are added to that change instead; the edits of a document are there once, and
        these take the place of others. Rows are noted anew from then on, and none may be touched again.
        """


class Changes(Protocol):
    """What was changed, by whom, and each changed row as it was before."""

    def put_back(self, row: ChangedRow, vector: Vector | None, now: str) -> None:
        """Make a row what it was before a change, with all that is derived from it; in a recording.

        A memory whose expiry is `now` or before comes back without it. When a thread was last used stays
        as it is.

        Raises:
            UndoConflictError: The row is not as the change left it, something belongs to the thread that
                would go, or the thread is gone that the row would belong to. An added row may have been
                changed since, and an expiry that was cleared does not count.
        """

    def get_change(self, change_id: int) -> Change:
        """Return one change; ChangeNotFoundError where there is none with this id, or no longer."""

    def list_changes(self, limit: int, before: int | None = None, since: str = "") -> list[Change]:
        """Return changes with ids below `before`, made since a timestamp, largest id first."""

    def rows_of(self, change_id: int, limit: int = -1) -> list[ChangedRow]:
        """Return what a change did: threads, prompts, memories, documents, messages, each by number."""

    def each_row(self, change_id: int, kind: RowKind) -> Iterator[ChangedRow]:
        """Yield what a change did to rows of a kind, by number; only some are in memory at a time."""

    def rows_about(self, kind: RowKind, *keys: str) -> list[ChangedRow]:
        """Return what changes did to rows of these keys, or to all of a kind, oldest change first."""

    def after(self, row: ChangedRow) -> RowValue | None:
        """Return a row as a change left it, as far as that is known; None where it was gone."""

    def list_trash(self, limit: int, before: int | None = None) -> list[ChangedRow]:
        """Return memories that are gone, no entries, each as it last was, latest change first.

        Only those that went by changes with ids below `before`.
        """

    def latest_ids(self, memory_ids: Iterable[int]) -> dict[int, int]:
        """Return for each id the last that came in its place, one after another; or the id itself.

        That is known for ever, also where the changes are no longer kept.
        """

    def replaced_by(self, memory_ids: Iterable[int]) -> set[int]:
        """Return the ids of the memories that one of these replaced."""

    def latest_of(self, keys: Sequence[tuple[str, str]], above: int, but: Sequence[int]) -> list[int]:
        """Return for each kind and key the last change in force with an id above one, but for some.

        In force is what is not undone. An undo counts only where there is nothing else.
        """

    def imported(self, digests: Collection[str]) -> set[str]:
        """Return those of these digests that were noted with a change which is not undone."""

    def note_imported(self, digests: Collection[str], change_id: int) -> None:
        """Note records of other programs as taken in by a change, or with 0 by none; in a transaction.

        They are forgotten with the change only if it is undone by then.
        """

    def delete_rows(self, rows: Sequence[ChangedRow]) -> None:
        """Forget what changes did to rows, and changes that did nothing else; inside a transaction."""

    def delete_before(self, moment: str | None) -> int:
        """Forget changes made before a timestamp, or all; inside a transaction. Return how many."""


class Rows(Protocol):
    """All rows of a store by table, as any engine gives and takes them: `values.COLUMNS` has both.

    What is derived is not among them, but for vectors and who waits for one.
    """

    def read(self, table: str, after: Sequence[Any] = (), limit: int = 1_000) -> list[Sequence[Any]]:
        """Return the rows of a table after the one of a key, in the order of keys.

        Rows begin with their keys. Embeddings are bytes, and what JSON says is sorted by its names.
        """

    def count(self, table: str) -> int:
        """Return how many rows a table has."""

    def add(self, table: str, rows: Sequence[Sequence[Any]]) -> None:
        """Add rows, in a recording that is not saved; those that are there stay as they are."""

    def clear(self) -> None:
        """Delete all rows, in a recording that is not saved; what is of this one store stays."""

    def last_ids(self) -> dict[str, int]:
        """Return the last id of each table that gives ids."""

    def continue_ids(self, last: Mapping[str, int]) -> None:
        """Give only ids after these from now on; inside a transaction."""


class Repository(Protocol):
    """An open store."""

    place: str
    """Where the store is, as messages name it to the user: a path, or an address without secrets."""

    memories: Memories
    vectors: Vectors
    vector_search: VectorSearch
    next_vectors: NextVectors
    documents: Documents
    threads: Threads
    prompts: Prompts
    consents: Consents
    messages: Messages
    ledger: Ledger
    changes: Changes
    rows: Rows

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
        """Do the same as a durable `transaction`, in which what can be undone is written and noted.

        Without `Recording.save` nothing is kept of what was noted: what is deleted leaves no trace.
        """

    def snapshot(self) -> AbstractContextManager[None]:
        """Let all that is read inside be of one moment, however others write meanwhile."""

    def in_transaction(self) -> bool:
        """Say whether this thread is inside a transaction."""

    @property
    def only_reads(self) -> bool:
        """Whether nothing can be written, as there was no room when the store was last opened."""

    def revision(self) -> Hashable:
        """Return what is another after each commit, whoever made it, at no cost."""

    def hearing(self, heard: Callable[[], object]) -> AbstractContextManager[None]:
        """Call `heard` soon after each commit, whoever made it, from a thread that it must not keep.

        It is so until the block ends. Nothing tells of those to a file: look at `revision`.
        """

    def get_fact(self, name: str) -> str | None:
        """Return what was noted under a name; None for nothing."""

    def put_fact(self, name: str, value: str | None) -> None:
        """Note something of the store under a name, or with None take it away; inside a transaction."""

    def rebuild_full_text(self, *, recreate: bool = False) -> None:
        """Build the words of memories and messages anew, inside a transaction.

        With `recreate` all else that is derived is made anew too, and empty, however damaged it is.
        """

    def check(self, *, vectors_expected: bool) -> list[Fault]:
        """Return all that is wrong with the store; if expected, each memory has a vector or waits."""

    def count_rows(self) -> dict[str, int]:
        """Count what there is by its name in `ROWS`."""

    def count_by_day(self, since: str, event: str | None = None) -> dict[str, int]:
        """Count memories, no entries, kept since a timestamp, by the user's day (2026-11-26) of that.

        With `event` it is how often that happened since, as `Ledger.add_audit` noted it.
        """

    def news(self, since: tuple[int, int] | None) -> tuple[tuple[int, int], set[str], bool]:
        """Return the last ids, 0 where there is none, of events and of changes, and what is new.

        That is the names of the events after the first of the ids `since`, and whether changes after the
        second made, deleted, renamed, archived or resumed a thread. Nothing is new since None.
        """

    def find_saying(self, texts: Sequence[str]) -> list[tuple[bool, str, str]]:
        """Return kind and key of what holds one of the texts, after whether only its past does.

        First come memories, no entries, smallest id first; then threads with a message that does, by id;
        then rows that once did, as the log of changes has them, by kind and key.
        """

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


class Tables(Protocol):
    """Tables of a server's accounts, which `repository.accounts` fills and asks.

    Beside the homes and for all of them; as many processes share them as share the homes.
    """

    def run(self, statement: str, values: Mapping[str, Any]) -> list[tuple[Any, ...]]:
        """Run one statement with values for its `:names`, and return its rows.

        Outside a transaction it is one of its own, which may be lost with the power.
        """

    def transaction(self) -> AbstractContextManager[None]:
        """Do everything inside as one durable write, or nothing when an error leaves the block."""

    def erase(self) -> bool:
        """Take what was deleted out of them; False while what others read still needs it."""

    def close(self) -> None:
        """Close them; closing again does nothing."""


class Snapshot(Protocol):
    """A store as it is at one moment, however others go on writing, with its counts of rows."""

    counts: Mapping[str, int]
    """As `Repository.count_rows` has them."""

    def copy_to(self, folder: Path) -> None:
        """Write it into a folder, as files that are complete."""


class Copies(Protocol):
    """Copies of a store, as files in a folder, and such a copy in its place; it need not be open."""

    place: str
    """As `Repository.place` has it."""

    def snapshot(self) -> AbstractContextManager[Snapshot]:
        """Hold on to what is committed now during the block; others can write meanwhile.

        Raises:
            StoreCorruptError: The store is damaged.
        """

    def examine(self, folder: Path) -> tuple[int, dict[str, int]]:
        """Return the schema version and the counts of rows of a copy, having read all of it.

        Raises:
            BackupDamagedError: It is not whole, or no copy.
            SchemaTooNewError: A later soulkeep wrote it.
        """

    def opened(self, folder: Path) -> AbstractContextManager[Repository]:
        """Open a copy to change it; after the block its files are complete again."""

    def is_there(self) -> bool:
        """Whether there is something that may be a store, damaged or not."""

    def keep_files(self, folder: Path) -> bool:
        """Put what is in the place of a store that cannot be read into a folder; False for nothing."""

    def replacing(self, folder: Path, *, continuing: bool) -> AbstractContextManager[Repository]:
        """Keep others from writing during the block, then put a copy in the store's place, for all.

        The block is handed the copy, open. When an error leaves it, the store stays as it was. If
        `continuing`, ids go on where the present store ends; else there is none to go on from, and what
        is in its place is gone before the block begins.

        Raises:
            StoreBusyError: Another process kept on writing.
        """


OpenedCopy = tuple[Repository, dict[str, bytes]]
"""A copy as a store, and its documents by their names in a home."""


class StoredCopies(Protocol):
    """Copies of a home that its database keeps beside it, documents too, and every process reaches."""

    place: str
    """As `Repository.place` has it."""

    def exclusive(self, timeout_s: float) -> AbstractContextManager[None]:
        """Keep others from the home's copies during the block, or raise BackupsBusyError."""

    def list_copies(self) -> list[Backup]:
        """Return those that are whole, in any order."""

    def add(self, made: Backup, documents: Callable[[], Mapping[str, bytes]]) -> Backup:
        """Keep the present moment as `made` has it, with the documents that are read in it."""

    def drop(self, copy_id: str) -> None:
        """Delete one."""

    def drop_leftovers(self) -> None:
        """Delete what a killed process left of its work on copies."""

    def opened(self, copy_id: str) -> AbstractContextManager[OpenedCopy]:
        """Open one to change it; after the block it says what was made of it."""

    def replacing(self, copy_id: str) -> AbstractContextManager[OpenedCopy]:
        """As `Copies.replacing`. Inside, the documents of the home are written together with it."""
