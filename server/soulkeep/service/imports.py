"""Taking in what another program remembers: once each, as one change, whatever cuts it off on the way.

A record is known by a digest of what it says there, noted with the change that took it in. So a second
run adds what is new, and nothing that was changed or forgotten here in the meantime comes back; after an
undo everything does.
"""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass, field, replace
from mmap import mmap
from pathlib import Path
from unicodedata import normalize

from soulkeep.days import Days
from soulkeep.documents import Documents, Hunk, log_name
from soulkeep.embedders.tokens import TokenCounter
from soulkeep.errors import (
    ChangeNotFoundError,
    DocumentTooLongError,
    InvalidInputError,
    SourceError,
    ThreadNotFoundError,
)
from soulkeep.imports import (
    OWN,
    OWN_KEY,
    DocumentRecord,
    MemoryRecord,
    MessageRecord,
    Problem,
    Reading,
    Record,
    Rows,
    ThreadRecord,
    open_records,
)
from soulkeep.models import Clock, NewMemory, Session, Thread, timestamp
from soulkeep.progress import tell
from soulkeep.repository import Repository
from soulkeep.service.callers import (
    IMPORTED,
    MAX_CONTENT,
    Sessions,
    require_label,
    require_memory_type,
    require_text,
)
from soulkeep.service.changes import Changes
from soulkeep.service.curator import MAX_EDITED
from soulkeep.service.edits import Edits, PlannedEdit, hunks_of, take_back_later
from soulkeep.service.indexes import Indexes
from soulkeep.service.upkeep import Background
from soulkeep.wording import in_one_form, one_line, without_hidden

_THREAD_ID = re.compile(r"[0-9a-f]{12}")

BATCH, BATCH_CHARACTERS = 1_000, 1_000_000
"""How much is written at once: others write in between, and what is cut off is not done again."""

EXAMPLES = 3

KINDS: Mapping[type[Record], str] = {
    MemoryRecord: "memories",
    ThreadRecord: "threads",
    MessageRecord: "messages",
    DocumentRecord: "documents",
}


@dataclass(eq=False)
class Taken:
    """Records of one kind: how many were found, how many are new here, and the first of those."""

    found: int = 0
    added: int = 0
    examples: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Imported:
    """What was taken in, or would be: by kind, what was passed over, what has no place here.

    `change_id` is the change to undo, 0 where nothing was written.
    """

    format: str
    kinds: Mapping[str, Taken]
    problem_count: int
    problems: Sequence[Problem]
    not_kept: Mapping[str, int]
    change_id: int


def thread_id_of(key: str) -> str:
    """Return the id that the thread has which another program, or another home, knows by a key."""
    own = key.removeprefix(OWN_KEY)
    return own if own != key and _THREAD_ID.fullmatch(own) else _digest("thread", key)[:12]


def _digest(*said: object) -> str:
    written = json.dumps(said, ensure_ascii=True, default=str)
    return hashlib.blake2b(written.encode(), digest_size=16).hexdigest()


def digest_of(record: Record) -> str:
    """Return what stands for a record: the same for one that says the same, wherever it stands."""
    match record:
        case MemoryRecord(_, memory):
            texts = (normalize("NFC", text or "") for text in (memory.content, memory.subject))
            dates = memory.occurred_at, memory.expires_at
            return _digest("memory", *texts, memory.memory_type, memory.thread_id, *dates)
        case ThreadRecord(_, key):
            return _digest("thread", key)
        case MessageRecord(_, thread, key, message):
            return _digest("message", thread, key, message.role, message.content)
        case DocumentRecord(_, name, text):
            return _digest("document", str(name), text)


@dataclass(eq=False)
class _Seen:
    """The digests that a dry run has met, in 64 MiB however many there are.

    Of ten million a few may pass for others, as in any filter of this kind (Bloom's).
    """

    _bits: mmap = field(default_factory=lambda: mmap(-1, 2**26))  # only what is touched takes memory

    def add(self, digest: str) -> bool:
        """Note one; return whether it is new."""
        number, is_new = int(digest, 16), False
        for shift in (0, 32, 64, 96):
            at, bit = (number >> shift + 3) & (2**26 - 1), 1 << ((number >> shift) & 7)
            is_new = is_new or not self._bits[at] & bit
            self._bits[at] |= bit
        return is_new


@dataclass(eq=False)
class _Run:
    """One import while it is made, perhaps going on with one that was cut off.

    `fact` is where the store notes it, `seen` what a dry run has met, `threads` the keys of threads that
    are there. `change_id` is the change that all of it becomes.
    """

    form: str
    fact: str
    session: Session
    reading: Reading
    is_dry: bool
    change_id: int = 0
    seen: _Seen = field(default_factory=_Seen)
    threads: set[str] = field(default_factory=set)
    kinds: dict[str, Taken] = field(default_factory=lambda: {kind: Taken() for kind in KINDS.values()})

    def count(self, records: Iterable[Record], added: Iterable[Record]) -> None:
        """Count what was found and what of it is new."""
        for record in records:
            self.kinds[KINDS[type(record)]].found += 1
        for record in added:
            kind = self.kinds[KINDS[type(record)]]
            kind.added += 1
            if len(kind.examples) < EXAMPLES:
                kind.examples.append(_shown(record))


@dataclass(eq=False)
class Imports:
    """The service behind `soulkeep import`."""

    _repository: Repository
    _documents: Documents
    _edits: Edits
    _changes: Changes
    _background: Background
    _indexes: Indexes
    _sessions: Sessions
    _tokens: TokenCounter
    _clock: Clock
    _days: Days

    def take(
        self,
        path: Path,
        open_database: Callable[[Path], AbstractContextManager[Rows]],
        *,
        named: str | None = None,
        dry_run: bool = False,
        session: Session | None = None,
    ) -> Imported:
        """Take in what a file, folder or archive of another program holds, or say what that would be.

        It is written bit by bit. What was cut off goes on when it is begun again, and is one change
        then. `open_database` opens a foreign database; `named` is the format, if it is not to be found
        out.

        Raises:
            InvalidInputError: There is no format of this name.
            SourceError: The source cannot be read, or nobody knows what it is.
            StoreError: The store cannot take it; what came before stays.
            DocumentError: A document cannot be read or written; what came before stays.
        """
        whole, home = path.expanduser().resolve(), self._documents.texts.place
        if isinstance(home, Path) and home.resolve() in (whole, *whole.parents):
            raise SourceError(path, "it is this home itself", "name what another program wrote")
        reading = Reading(self._days, open_database)
        with open_records(whole, reading, named) as (form, records):
            fact = f"import:{_digest(form, str(whole))}"
            # To look at what would come is not even noted as use.
            nobody = Session("", "", "", "") if dry_run else None
            writer = session or nobody or self._sessions.current()
            run = _Run(form, fact, writer, reading, dry_run, self._begun(fact))
            for batch in _batches(records, reading):
                self._take_rows([one for one in batch if not isinstance(one, DocumentRecord)], run)
                for one in batch:
                    if isinstance(one, DocumentRecord):
                        self._take_document(one, run)
                found = sum(kind.found for kind in run.kinds.values())
                tell(f"Importing, {found:,} records", reading.share)
        if not dry_run:
            with self._repository.transaction():
                self._repository.put_fact(fact, None)
            self._background.note_work()
        counts = reading.problem_count, tuple(reading.problems), dict(reading.not_kept)
        return Imported(form, run.kinds, *counts, 0 if dry_run else run.change_id)

    def _begun(self, fact: str) -> int:
        """Return the change of an import that was cut off, unless it was undone."""
        change_id = int(self._repository.get_fact(fact) or 0)
        try:
            return 0 if not change_id or self._changes.get_change(change_id).undone_by else change_id
        except ChangeNotFoundError:
            return 0

    def _take_rows(self, given: Sequence[Record], run: _Run) -> None:
        now = timestamp(self._clock())
        expiries = (r.memory.expires_at if isinstance(r, MemoryRecord) else None for r in given)
        # What had to go at once would be changed since, and the import not undone as a whole.
        records = [one for one, end in zip(given, expiries, strict=True) if end is None or end > now]
        run.reading.leave("memories whose time has passed", len(given) - len(records))
        digests = {digest_of(record): record for record in records}
        threads = {record.key for record in records if isinstance(record, ThreadRecord)} - run.threads
        run.threads |= {key for key in threads if self._find_thread(key)}
        known = self._repository.changes.imported(digests)
        if run.is_dry:
            known |= {digest for digest in digests if not run.seen.add(digest)}
        fresh = {digest: record for digest, record in digests.items() if digest not in known}
        # Outside the transaction, since this takes as long as all that is in it.
        counts = {
            digest: self._tokens.count(record.message.content)
            for digest, record in fresh.items()
            if isinstance(record, MessageRecord) and not run.is_dry
        }
        if run.is_dry:
            run.count(records, self._new(fresh, run))
            return
        with self._changes.recording(IMPORTED, run.session, into=run.change_id) as recorder:
            # Another process may be importing the same.
            for digest in self._repository.changes.imported(fresh):
                del fresh[digest]
            new = self._new(fresh, run)
            self._add(new, counts, run)
            recorder.when_saved = lambda change_id: self._note(fresh, change_id, run)
        run.change_id = recorder.change_id or run.change_id
        run.count(records, new)

    def _new(self, fresh: Mapping[str, Record], run: _Run) -> list[Record]:
        """Return those of these records that the home does not have, whoever wrote them there."""
        threads, memories, messages = list[Record](), list[MemoryRecord](), list[Record]()
        for record in fresh.values():
            match record:
                case ThreadRecord(_, key) if self._find_thread(key) is None:
                    threads.append(record)
                    run.threads.add(key)
                case MemoryRecord(_, memory) if memory.thread_id is None:
                    memories.append(record)
                case MemoryRecord(_, memory) if memory.thread_id in run.threads:
                    memory = replace(memory, thread_id=thread_id_of(memory.thread_id))
                    memories.append(record._replace(memory=memory))
                case MessageRecord(_, thread, _, message) if thread in run.threads:
                    # A home that an export was taken into as it is has not noted its messages.
                    same = self._repository.messages.find_same
                    if run.form != OWN or not same(thread_id_of(thread), message):
                        messages.append(record)
                case MemoryRecord() | MessageRecord():
                    run.reading.leave("what belongs to threads that were deleted here")
        older = self._repository.memories.find_duplicates([record.memory for record in memories])
        kept = [record for record, known in zip(memories, older, strict=True) if known is None]
        return [*threads, *kept, *messages]

    def _find_thread(self, key: str) -> Thread | None:
        try:
            return self._repository.threads.get_thread(thread_id_of(key))
        except ThreadNotFoundError:
            return None

    def _add(self, new: Sequence[Record], tokens: Mapping[str, int], run: _Run) -> None:
        now, session, repository = timestamp(self._clock()), run.session, self._repository
        memories, said = list[NewMemory](), dict[str, list[MessageRecord]]()
        for record in new:
            match record:
                case ThreadRecord(_, key, title, made, last, prompt, archived):
                    times = made or now, last or made or now
                    thread = Thread(thread_id_of(key), title, prompt, archived, *times)
                    repository.threads.add_thread(thread)
                    if prompt is not None:  # others wrote it, perhaps: a note until the user agrees
                        agent = session.agent_id
                        repository.consents.note("threads", thread.id, prompt, agent, agreed=False)
                case MemoryRecord(_, memory):
                    memories.append(memory)
                case MessageRecord(_, thread_key):
                    said.setdefault(thread_key, []).append(record)
        embedder = self._indexes.embedder_identity
        repository.memories.add_memories(memories, [None] * len(memories), now, embedder)
        for key, records in said.items():
            messages = [record.message for record in records]
            counts = [tokens[digest_of(record)] for record in records]
            repository.messages.add_messages(thread_id_of(key), session.agent_id, messages, counts, now)
        if new:
            kinds = Counter(KINDS[type(record)] for record in new)
            self._sessions.audit(session, IMPORTED, {"format": run.form, **kinds})

    def _take_document(self, record: DocumentRecord, run: _Run) -> None:
        """Add to a document what it lacks of another text, but for what was taken in before."""
        from soulkeep.documents.markdown import list_entries

        name = record.name if isinstance(record.name, str) else log_name(record.name)
        texts = [entry.text for entry in list_entries(record.text)]
        digests = {_digest("entry", name, in_one_form(text)): text for text in texts}
        with nullcontext() if run.is_dry else self._documents.texts.locked():
            known = self._repository.changes.imported(digests)
            hunks, write = self._merge(record, {digests[digest] for digest in known}, run)
            run.count([record], [record] if hunks else [])
            if run.is_dry:
                return
            into = run.change_id
            with self._changes.recording(IMPORTED, run.session, into=into) as recorder:
                hunks = write(recorder.on_failure) if hunks else []
                # One row of the change has all that it did to a document, before it was cut off too.
                rows = self._repository.changes.rows_about("documents", name) if hunks and into else ()
                former = [hunk for row in rows if row.change_id == into for hunk in hunks_of(row)]
                recorder.edit(name, [*former, *hunks] if hunks else [])
                if hunks:
                    self._sessions.audit(run.session, IMPORTED, {"format": run.form, "document": name})
                recorder.when_saved = lambda change_id: self._note(
                    digests.keys() - known, change_id, run
                )
            run.change_id = recorder.change_id or run.change_id

    def _merge(
        self, record: DocumentRecord, known: Collection[str], run: _Run
    ) -> tuple[Sequence[Hunk], Callable[[ExitStack], Sequence[Hunk]]]:
        """Return what it does to merge a text into a document, and what does it; see `PlannedEdit`."""
        from soulkeep.documents.markdown import find_hunks, log_merge, merge

        name, text, documents = record.name, record.text, self._documents
        planned: PlannedEdit | None = None

        def write(on_failure: ExitStack) -> Sequence[Hunk]:
            if planned is not None:
                planned.write(on_failure)
                return planned.hunks
            hunks = [documents.add_to_log(day, lambda before: log_merge(before, text, known))]
            take_back_later(on_failure, documents, log_name(day), hunks)
            return hunks

        try:
            if isinstance(name, str):
                if (size := len(documents.read(name))) > MAX_EDITED:
                    raise DocumentTooLongError(f"{documents.texts.place}/{name}", size, MAX_EDITED)
                planned = self._edits.plan(name, lambda before: merge(before, text, known))
                return planned.hunks, write
            day = name
            return find_hunks("", log_merge(documents.read_daily(day) or "", text, known)), write
        except InvalidInputError as error:
            run.reading.report(record.place, f"an entry of it {error.rule}")
            return [], write

    def _note(self, digests: Collection[str], change_id: int, run: _Run) -> None:
        self._repository.changes.note_imported(digests, change_id)
        if change_id != run.change_id:
            self._repository.put_fact(run.fact, str(change_id))


def _batches(records: Iterable[Record], reading: Reading) -> Iterator[list[Record]]:
    """Yield records some at a time, cut to what a store takes; an empty batch at the end says so."""
    batch, characters = list[Record](), 0
    for given in records:
        try:
            kept = _fitting(given)
        except InvalidInputError as error:
            reading.report(given.place, f"{error.argument} {error.rule}")
            continue
        batch += kept
        characters += sum(len(r.message.content) for r in kept if isinstance(r, MessageRecord))
        characters += sum(len(r.memory.content) for r in kept if isinstance(r, MemoryRecord))
        if len(batch) >= BATCH or characters >= BATCH_CHARACTERS:
            yield batch
            batch, characters = [], 0
    yield batch


def _fitting(record: Record) -> list[Record]:
    """Return what a store takes of a record: a long text in parts, labels without what hides in them.

    Raises:
        InvalidInputError: It breaks another rule.
    """
    match record:
        case MemoryRecord(_, memory):
            require_memory_type(memory.memory_type)
            subject, source = (
                require_label(name, label) if label and without_hidden(label).strip() else None
                for name, label in (("subject", memory.subject), ("source", memory.source))
            )
            memory = replace(memory, subject=subject, source=source)
            parts = (replace(memory, content=part) for part in _parts(memory.content))
            return [record._replace(memory=part) for part in parts]
        case MessageRecord(_, _, key, message):
            parts_said = enumerate(_parts(message.content))
            return [
                record._replace(key=f"{key}/{n}" if n else key, message=replace(message, content=part))
                for n, part in parts_said
            ]
        case ThreadRecord():
            if record.system_prompt is not None:
                require_text("system_prompt", record.system_prompt, MAX_CONTENT)
            return [record._replace(title=require_label("title", record.title))]
    return [record]


def _parts(text: str) -> Iterator[str]:
    """Yield a text in parts that a store takes, cut between paragraphs, lines or words if it has such.

    Raises:
        InvalidInputError: It is blank, or holds what no file can hold.
    """
    while len(text) > MAX_CONTENT:
        cuts = (text.rfind(sign, MAX_CONTENT // 2, MAX_CONTENT) for sign in ("\n\n", "\n", " "))
        cut = next((cut for cut in cuts if cut > 0), MAX_CONTENT)
        if part := text[:cut].strip():
            require_text("content", part, MAX_CONTENT)
            yield part
        text = text[cut:].strip()
    require_text("content", text, MAX_CONTENT)
    yield text


def _shown(record: Record) -> str:
    """Return how a record begins, as an example."""
    match record:
        case MemoryRecord(_, memory):
            return one_line(f"{memory.subject}: {memory.content}" if memory.subject else memory.content)
        case ThreadRecord():
            return one_line(record.title)
        case MessageRecord(_, _, _, message):
            return one_line(f"{message.role}: {message.content}")
        case DocumentRecord(_, name):
            return str(name)
