"""Every table of the store, and how a file is brought to the current schema.

Canonical tables hold what the user said: threads, memories, global_prompts, prompt_consents,
sessions, messages, usage_records, audit_log, changes, former_ids, imported. Derived ones (vec_memories,
memories_fts, messages_fts) can be rebuilt from them; store_facts, memory_changes, pending_vectors,
next_vectors and document_states speak of the derived ones.

A step never changes once it is released; a new schema is a new step at the end of `STEPS`.
"""

from collections.abc import Callable

from soulkeep.errors import NotAStoreError, SchemaTooNewError
from soulkeep.repository.sqlite.database import Database
from soulkeep.repository.sqlite.files import APPLICATION_ID

THREADS = """
CREATE TABLE threads (
  id             TEXT PRIMARY KEY NOT NULL,
  title          TEXT NOT NULL,
  system_prompt  TEXT,
  archived       INTEGER DEFAULT 0,
  created_at     TEXT NOT NULL,
  last_active_at TEXT NOT NULL
)"""

MEMORIES = """
CREATE TABLE memories (
  id          INTEGER PRIMARY KEY AUTOINCREMENT,
  thread_id   TEXT REFERENCES threads (id),
  content     TEXT NOT NULL,
  memory_type TEXT NOT NULL,
  source      TEXT,
  created_at  TEXT NOT NULL
)"""

GLOBAL_PROMPTS = """
CREATE TABLE global_prompts (
  id         INTEGER PRIMARY KEY AUTOINCREMENT,
  name       TEXT NOT NULL,
  content    TEXT NOT NULL,
  is_active  INTEGER DEFAULT 1,
  priority   INTEGER DEFAULT 0,
  created_at TEXT NOT NULL
)"""

AUDIT_LOG = """
CREATE TABLE audit_log (
  id         INTEGER PRIMARY KEY AUTOINCREMENT,
  timestamp  TEXT NOT NULL,
  event      TEXT NOT NULL,
  provider   TEXT,
  source_ip  TEXT,
  source_app TEXT,
  details    TEXT
)"""

SESSIONS = """
CREATE TABLE sessions (
  id             TEXT PRIMARY KEY NOT NULL,
  session_key    TEXT NOT NULL UNIQUE,
  agent_id       TEXT NOT NULL DEFAULT 'default',
  model          TEXT NOT NULL,
  created_at     TEXT NOT NULL,
  last_active_at TEXT NOT NULL
)"""

MESSAGES = """
CREATE TABLE messages (
  id          INTEGER PRIMARY KEY AUTOINCREMENT,
  session_id  TEXT NOT NULL REFERENCES sessions (id),
  role        TEXT NOT NULL,
  content     TEXT NOT NULL,
  created_at  TEXT NOT NULL,
  token_count INTEGER
)"""

USAGE_RECORDS = """
CREATE TABLE usage_records (
  id            INTEGER PRIMARY KEY AUTOINCREMENT,
  session_id    TEXT NOT NULL REFERENCES sessions (id),
  model         TEXT NOT NULL,
  input_tokens  INTEGER NOT NULL,
  output_tokens INTEGER NOT NULL,
  total_tokens  INTEGER NOT NULL,
  cost          REAL NOT NULL,
  timestamp     TEXT NOT NULL
)"""

# Facts about the store itself, such as the identity of the embedder that made its vectors.
STORE_FACTS = """
CREATE TABLE store_facts (
  name  TEXT PRIMARY KEY NOT NULL,
  value TEXT NOT NULL
) WITHOUT ROWID"""

VEC_MEMORIES = (
    "CREATE VIRTUAL TABLE IF NOT EXISTS vec_memories USING vec0("
    "memory_id INTEGER PRIMARY KEY, content_embedding FLOAT[1536] distance_metric=cosine)"
)

MEMORIES_FTS = """
CREATE VIRTUAL TABLE memories_fts USING fts5(
  content,
  content = 'memories',
  content_rowid = 'id',
  tokenize = 'porter unicode61'
)"""

# Step 1 kept the full-text index in step by triggers; step 2 drops them, since SQL alone cannot make the
# words of every script.
MEMORIES_FTS_TRIGGERS = (
    """
CREATE TRIGGER memories_fts_insert AFTER INSERT ON memories BEGIN
  INSERT INTO memories_fts (rowid, content) VALUES (new.id, new.content);
END""",
    """
CREATE TRIGGER memories_fts_delete AFTER DELETE ON memories BEGIN
  INSERT INTO memories_fts (memories_fts, rowid, content) VALUES ('delete', old.id, old.content);
END""",
    """
CREATE TRIGGER memories_fts_update AFTER UPDATE OF content ON memories BEGIN
  INSERT INTO memories_fts (memories_fts, rowid, content) VALUES ('delete', old.id, old.content);
  INSERT INTO memories_fts (rowid, content) VALUES (new.id, new.content);
END""",
)

INDEXES = (
    "CREATE INDEX memories_by_thread ON memories (thread_id, created_at)",
    "CREATE INDEX memories_by_type ON memories (memory_type, created_at)",
    "CREATE INDEX memories_by_date ON memories (created_at)",
    # Finds an exact duplicate without a second copy of every text.
    "CREATE INDEX memories_by_opening ON memories (substr(content, 1, 64), length(content))",
    "CREATE INDEX messages_by_session ON messages (session_id)",
    "CREATE INDEX usage_by_session ON usage_records (session_id)",
)

# Step 2: who a memory is about and when it happened; full text in every script.

WORDS_FTS = """
CREATE VIRTUAL TABLE memories_fts USING fts5(
  content,
  subject,
  day,
  content = '',
  contentless_delete = 1,
  tokenize = "porter unicode61 remove_diacritics 0 categories 'L* N* Co Mn Mc'"
)"""

# Memories whose vector was deleted or replaced, for processes that hold copies of vectors.
MEMORY_CHANGES = """
CREATE TABLE memory_changes (
  seq       INTEGER PRIMARY KEY AUTOINCREMENT,
  memory_id INTEGER NOT NULL
)"""

OCCURRED_AT = "ifnull(occurred_at, created_at)"

SUBJECTS_DATES_AND_WORDS = (
    "ALTER TABLE memories ADD COLUMN subject TEXT",
    "ALTER TABLE memories ADD COLUMN occurred_at TEXT",
    "DROP TRIGGER memories_fts_insert",
    "DROP TRIGGER memories_fts_delete",
    "DROP TRIGGER memories_fts_update",
    "DROP TABLE memories_fts",
    WORDS_FTS,
    MEMORY_CHANGES,
    "DROP INDEX memories_by_thread",
    "DROP INDEX memories_by_type",
    "DROP INDEX memories_by_date",
    f"CREATE INDEX memories_by_thread ON memories (thread_id, {OCCURRED_AT})",
    f"CREATE INDEX memories_by_type ON memories (memory_type, {OCCURRED_AT})",
    f"CREATE INDEX memories_by_date ON memories ({OCCURRED_AT})",
)

# Step 3: entries of documents among the memories. `document` names the file that such a row is derived
# from; it comes and goes with its line there.

DOCUMENT_STATES = """
CREATE TABLE document_states (
  name  TEXT PRIMARY KEY NOT NULL,
  state TEXT NOT NULL
) WITHOUT ROWID"""

DOCUMENT_ENTRIES = (
    "ALTER TABLE memories ADD COLUMN document TEXT",
    "CREATE INDEX memories_by_document ON memories (document) WHERE document IS NOT NULL",
    DOCUMENT_STATES,
)

# Step 4: expiry, and what every change did to which rows, for listing and undoing it. `before` is the
# row as JSON, `after` a digest of the new one; NULL stands for no row. Of a document, `before` holds the
# hunks of an edit.

CHANGES = """
CREATE TABLE changes (
  id         INTEGER PRIMARY KEY AUTOINCREMENT,
  made_at    TEXT NOT NULL,
  session_id TEXT NOT NULL,
  agent_id   TEXT NOT NULL,
  action     TEXT NOT NULL,
  undone_by  INTEGER
)"""

CHANGED_ROWS = """
CREATE TABLE changed_rows (
  change_id   INTEGER NOT NULL REFERENCES changes (id) ON DELETE CASCADE,
  kind        TEXT NOT NULL,
  key         TEXT NOT NULL,
  before      TEXT,
  after       TEXT,
  replaced_by INTEGER,
  PRIMARY KEY (change_id, kind, key)
) WITHOUT ROWID"""

EXPIRY_AND_CHANGES = (
    "ALTER TABLE memories ADD COLUMN expires_at TEXT",
    "CREATE INDEX memories_by_expiry ON memories (expires_at) WHERE expires_at IS NOT NULL",
    CHANGES,
    CHANGED_ROWS,
    "CREATE INDEX changed_rows_by_key ON changed_rows (kind, key)",
    "CREATE INDEX changes_by_undo ON changes (undone_by) WHERE undone_by IS NOT NULL",
)

# Step 5: the words of the messages that belong to threads.

MESSAGES_FTS = """
CREATE VIRTUAL TABLE messages_fts USING fts5(
  content,
  content = '',
  contentless_delete = 1,
  tokenize = "porter unicode61 remove_diacritics 0 categories 'L* N* Co Mn Mc'"
)"""

MESSAGE_WORDS = (MESSAGES_FTS,)

# Step 6: an id that tells a copy of this store from another store; who set the texts of prompts, and
# whether the user agreed to them; memories that were kept while the embedder of the store was not in
# use; vectors of the embedder that the store moves to, as long as not all are there.

STORE_ID = "INSERT INTO store_facts (name, value) VALUES ('store_id', lower(hex(randomblob(16))))"

PROMPT_CONSENTS = """
CREATE TABLE prompt_consents (
  kind      TEXT NOT NULL,
  key       TEXT NOT NULL,
  digest    TEXT NOT NULL,
  set_by    TEXT NOT NULL,
  is_agreed INTEGER NOT NULL,
  PRIMARY KEY (kind, key, digest)
) WITHOUT ROWID"""

THREADS_BY_ACTIVITY = "CREATE INDEX threads_by_activity ON threads (last_active_at)"

PENDING_VECTORS = "CREATE TABLE pending_vectors (memory_id INTEGER PRIMARY KEY)"

NEXT_VECTORS = (
    "CREATE TABLE IF NOT EXISTS next_vectors"
    " (memory_id INTEGER PRIMARY KEY, content_embedding BLOB NOT NULL)"
)

# To count them without reading them.
NEXT_VECTORS_BY_ID = "CREATE INDEX IF NOT EXISTS next_vectors_by_id ON next_vectors (memory_id)"

CHANGED_ROWS_BY_REPLACEMENT = """
CREATE INDEX changed_rows_by_replacement ON changed_rows (replaced_by) WHERE replaced_by IS NOT NULL"""

# Which memory came in the place of one whose changes are no longer kept.
FORMER_IDS = "CREATE TABLE former_ids (memory_id INTEGER PRIMARY KEY, later_id INTEGER NOT NULL)"

# Step 7: what became of the memories that wait for their vectors. `failed` are those whose text the
# embedder refused; `next_try` is a timestamp, before which none is made, or empty.

VECTOR_QUEUE = (
    "ALTER TABLE pending_vectors ADD COLUMN state TEXT NOT NULL DEFAULT 'pending'",
    "ALTER TABLE pending_vectors ADD COLUMN reason TEXT NOT NULL DEFAULT ''",
    "ALTER TABLE pending_vectors ADD COLUMN attempts INTEGER NOT NULL DEFAULT 0",
    "ALTER TABLE pending_vectors ADD COLUMN next_try TEXT NOT NULL DEFAULT ''",
    # Counts those that were put off without reading all.
    "CREATE INDEX pending_vectors_put_off ON pending_vectors (state, next_try) WHERE reason <> ''",
)

# And uses of models whose cost nobody knows. In usage_records it is 0, as that takes no null.
UNPRICED_USAGE = "CREATE TABLE unpriced_usage (usage_id INTEGER PRIMARY KEY)"

# Step 8: which records of other programs were taken in, by a digest of what each said there, and by
# which change; it holds as long as that is not undone.

IMPORTED = """
CREATE TABLE imported (
  digest    TEXT PRIMARY KEY NOT NULL,
  change_id INTEGER NOT NULL
) WITHOUT ROWID"""

STEPS: tuple[tuple[str, ...], ...] = (
    (
        THREADS,
        MEMORIES,
        GLOBAL_PROMPTS,
        AUDIT_LOG,
        SESSIONS,
        MESSAGES,
        USAGE_RECORDS,
        STORE_FACTS,
        VEC_MEMORIES,
        MEMORIES_FTS,
        *MEMORIES_FTS_TRIGGERS,
        *INDEXES,
    ),
    SUBJECTS_DATES_AND_WORDS,
    DOCUMENT_ENTRIES,
    EXPIRY_AND_CHANGES,
    MESSAGE_WORDS,
    (
        STORE_ID,
        PROMPT_CONSENTS,
        THREADS_BY_ACTIVITY,
        PENDING_VECTORS,
        CHANGED_ROWS_BY_REPLACEMENT,
        FORMER_IDS,
        NEXT_VECTORS,
        NEXT_VECTORS_BY_ID,
    ),
    (*VECTOR_QUEUE, UNPRICED_USAGE),
    (IMPORTED,),
)
"""`STEPS[n]` brings a store from schema version n to n + 1."""

Migrating = Callable[[int], None]
"""Called with the version of a store before it is migrated; when it raises, the store stays as it is."""


def bootstrap(
    database: Database,
    steps: tuple[tuple[str, ...], ...] = STEPS,
    rebuild: Callable[[], None] = lambda: None,
    migrating: Migrating = lambda version: None,
) -> None:
    """Bring the store to schema version `len(steps)`; running it again changes nothing.

    All pending steps are one transaction, which ends with `rebuild` of what is derived. Where the store
    already holds a schema it begins with `migrating`, while no other process can migrate or write.

    Raises:
        NotAStoreError: The file has tables, and not ours.
        SchemaTooNewError: A later soulkeep wrote the file.
    """
    if _version(database, len(steps)) == len(steps):
        return
    with database.transaction():
        # Another process may have migrated the file between the first look and the lock.
        version = _version(database, len(steps))
        if 0 < version < len(steps):
            migrating(version)
        for step in steps[version:]:
            for statement in step:
                database.execute(statement)
        rebuild()
        database.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        database.execute(f"PRAGMA user_version = {len(steps)}")


def _version(database: Database, supported: int) -> int:
    application_id, version, tables = database.execute(
        "SELECT (SELECT application_id FROM pragma_application_id),"
        " (SELECT user_version FROM pragma_user_version),"
        " (SELECT count(*) FROM sqlite_master)"
    )[0]
    if application_id != APPLICATION_ID and (application_id or tables):
        raise NotAStoreError(database.path, "another program's SQLite database")
    if version > supported:
        raise SchemaTooNewError(database.path, version, supported)
    return int(version) if application_id == APPLICATION_ID else 0
