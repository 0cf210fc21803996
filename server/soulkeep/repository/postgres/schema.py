"""Every table of the stores in a database, and how it is brought to the current schema.

The columns are those of the other engine, after `owner`, the home that a row belongs to: the first of
every key. A step never changes once it is released; a new schema is a new step at the end of `STEPS`.
"""

from typing import Any

import psycopg

from soulkeep.errors import NotAStoreError, SchemaTooNewError, StoreError

TEXT = 'text COLLATE "C"'
"""In the order of code points, as everywhere in soulkeep, whatever the database has."""

# A home; its row is locked by who writes into it. `number` stands for it in the words of the full text.
OWNERS = """
CREATE TABLE owners (
  owner    text PRIMARY KEY,
  number   integer GENERATED ALWAYS AS IDENTITY,
  revision bigint NOT NULL DEFAULT 0
)"""

# The last id of each table that a home has given, and what it counts and adds up of others.
NUMBERS = """
CREATE TABLE numbers (
  owner text NOT NULL,
  name  text NOT NULL,
  value bigint NOT NULL,
  PRIMARY KEY (owner, name)
)"""

# `place` is the order in which threads were added.
THREADS = """
CREATE TABLE threads (
  owner          text NOT NULL,
  id             text NOT NULL,
  title          text NOT NULL,
  system_prompt  text,
  archived       integer DEFAULT 0,
  created_at     text NOT NULL,
  last_active_at text NOT NULL,
  place          bigint GENERATED ALWAYS AS IDENTITY,
  PRIMARY KEY (owner, id)
)"""

MEMORIES = """
CREATE TABLE memories (
  owner       text NOT NULL,
  id          bigint NOT NULL,
  thread_id   text,
  content     text NOT NULL,
  memory_type text NOT NULL,
  source      text,
  created_at  text NOT NULL,
  subject     text,
  occurred_at text,
  document    text,
  expires_at  text,
  PRIMARY KEY (owner, id),
  FOREIGN KEY (owner, thread_id) REFERENCES threads (owner, id)
)"""

GLOBAL_PROMPTS = """
CREATE TABLE global_prompts (
  owner      text NOT NULL,
  id         bigint NOT NULL,
  name       text NOT NULL,
  content    text NOT NULL,
  is_active  integer DEFAULT 1,
  priority   integer DEFAULT 0,
  created_at text NOT NULL,
  PRIMARY KEY (owner, id)
)"""

PROMPT_CONSENTS = """
CREATE TABLE prompt_consents (
  owner     text NOT NULL,
  kind      text NOT NULL,
  key       text NOT NULL,
  digest    text NOT NULL,
  set_by    text NOT NULL,
  is_agreed integer NOT NULL,
  PRIMARY KEY (owner, kind, key, digest)
)"""

SESSIONS = """
CREATE TABLE sessions (
  owner          text NOT NULL,
  id             text NOT NULL,
  session_key    text NOT NULL,
  agent_id       text NOT NULL DEFAULT 'default',
  model          text NOT NULL,
  created_at     text NOT NULL,
  last_active_at text NOT NULL,
  place          bigint GENERATED ALWAYS AS IDENTITY,
  PRIMARY KEY (owner, id),
  UNIQUE (owner, session_key)
)"""

MESSAGES = """
CREATE TABLE messages (
  owner       text NOT NULL,
  id          bigint NOT NULL,
  session_id  text NOT NULL,
  role        text NOT NULL,
  content     text NOT NULL,
  created_at  text NOT NULL,
  token_count integer,
  PRIMARY KEY (owner, id),
  FOREIGN KEY (owner, session_id) REFERENCES sessions (owner, id)
)"""

USAGE_RECORDS = """
CREATE TABLE usage_records (
  owner         text NOT NULL,
  id            bigint NOT NULL,
  session_id    text NOT NULL,
  model         text NOT NULL,
  input_tokens  bigint NOT NULL,
  output_tokens bigint NOT NULL,
  total_tokens  bigint NOT NULL,
  cost          double precision NOT NULL,
  timestamp     text NOT NULL,
  PRIMARY KEY (owner, id),
  FOREIGN KEY (owner, session_id) REFERENCES sessions (owner, id)
)"""

UNPRICED_USAGE = """
CREATE TABLE unpriced_usage (
  owner    text NOT NULL,
  usage_id bigint NOT NULL,
  PRIMARY KEY (owner, usage_id)
)"""

AUDIT_LOG = """
CREATE TABLE audit_log (
  owner      text NOT NULL,
  id         bigint NOT NULL,
  timestamp  text NOT NULL,
  event      text NOT NULL,
  provider   text,
  source_ip  text,
  source_app text,
  details    text,
  PRIMARY KEY (owner, id)
)"""

CHANGES = """
CREATE TABLE changes (
  owner      text NOT NULL,
  id         bigint NOT NULL,
  made_at    text NOT NULL,
  session_id text NOT NULL,
  agent_id   text NOT NULL,
  action     text NOT NULL,
  undone_by  bigint,
  PRIMARY KEY (owner, id)
)"""

CHANGED_ROWS = """
CREATE TABLE changed_rows (
  owner       text NOT NULL,
  change_id   bigint NOT NULL,
  kind        text NOT NULL,
  key         text NOT NULL,
  before      jsonb,
  after       text,
  replaced_by bigint,
  PRIMARY KEY (owner, change_id, kind, key),
  FOREIGN KEY (owner, change_id) REFERENCES changes (owner, id) ON DELETE CASCADE
)"""

FORMER_IDS = """
CREATE TABLE former_ids (
  owner     text NOT NULL,
  memory_id bigint NOT NULL,
  later_id  bigint NOT NULL,
  PRIMARY KEY (owner, memory_id)
)"""

IMPORTED = """
CREATE TABLE imported (
  owner     text NOT NULL,
  digest    text NOT NULL,
  change_id bigint NOT NULL,
  PRIMARY KEY (owner, digest)
)"""

# A text under its name in the home, as bytes, which are what a file may hold; former texts too.
DOCUMENTS = """
CREATE TABLE documents (
  owner   text NOT NULL,
  name    text NOT NULL,
  content bytea NOT NULL,
  digest  text NOT NULL,
  PRIMARY KEY (owner, name)
)"""

# A copy of a home as it was, in parts that are packed already: see `copies`.
BACKUPS = """
CREATE TABLE backups (
  owner text NOT NULL,
  id    text NOT NULL,
  about jsonb NOT NULL,
  PRIMARY KEY (owner, id)
)"""

BACKUP_PARTS = """
CREATE TABLE backup_parts (
  owner   text NOT NULL,
  backup  text NOT NULL,
  number  integer NOT NULL,
  content bytea STORAGE EXTERNAL NOT NULL,
  PRIMARY KEY (owner, backup, number),
  FOREIGN KEY (owner, backup) REFERENCES backups (owner, id) ON DELETE CASCADE
)"""

STORE_FACTS = """
CREATE TABLE store_facts (
  owner text NOT NULL,
  name  text NOT NULL,
  value text NOT NULL,
  PRIMARY KEY (owner, name)
)"""

DOCUMENT_STATES = """
CREATE TABLE document_states (
  owner text NOT NULL,
  name  text NOT NULL,
  state text NOT NULL,
  PRIMARY KEY (owner, name)
)"""

# Of the embedding, padded to the width of all, `candidate` has the dimensions that it came with, in the
# row itself: what a search reads of all.
VEC_MEMORIES = """
CREATE TABLE vec_memories (
  owner             text NOT NULL,
  memory_id         bigint NOT NULL,
  content_embedding vector(1536) NOT NULL,
  candidate         halfvec STORAGE PLAIN NOT NULL,
  PRIMARY KEY (owner, memory_id)
)"""

NEXT_VECTORS = """
CREATE TABLE next_vectors (
  owner             text NOT NULL,
  memory_id         bigint NOT NULL,
  content_embedding vector(1536) NOT NULL,
  PRIMARY KEY (owner, memory_id)
)"""

PENDING_VECTORS = """
CREATE TABLE pending_vectors (
  owner     text NOT NULL,
  memory_id bigint NOT NULL,
  state     text NOT NULL DEFAULT 'pending',
  reason    text NOT NULL DEFAULT '',
  attempts  integer NOT NULL DEFAULT 0,
  next_try  text NOT NULL DEFAULT '',
  PRIMARY KEY (owner, memory_id)
)"""

# Words without English endings, before each the number of its home: so one index serves all homes, and
# none reads what another wrote. `length` is how many words there are.
FULL_TEXTS = tuple(
    statement
    for table in ("memories_fts", "messages_fts")
    for statement in (
        f"""
CREATE TABLE {table} (
  owner  text NOT NULL,
  id     bigint NOT NULL,
  words  tsvector NOT NULL,
  length integer NOT NULL,
  PRIMARY KEY (owner, id)
)""",
        f"CREATE INDEX {table}_words ON {table} USING gin (words) WITH (fastupdate = off)",
    )
)

# In how many texts of a table each word occurs.
WORD_COUNTS = """
CREATE TABLE word_counts (
  owner text NOT NULL,
  kind  text NOT NULL,
  word  text NOT NULL,
  texts bigint NOT NULL,
  PRIMARY KEY (owner, kind, word)
)"""

# What was written in the recording that goes on, as it was before; empty outside of one.
NOTED_ROWS = """
CREATE UNLOGGED TABLE noted_rows (
  owner  text NOT NULL,
  kind   text NOT NULL,
  key    text NOT NULL,
  before jsonb,
  place  bigint GENERATED ALWAYS AS IDENTITY,
  PRIMARY KEY (owner, kind, key)
)"""

# A server that takes over from another has nothing of what is not logged: the table is empty then, as it
# should be, but its numbers would be none.
LOGGED_PLACES = "ALTER SEQUENCE noted_rows_place_seq SET LOGGED"

WHEN = "coalesce(m.occurred_at, m.created_at)"
"""When a memory of `memories AS m` happened or was said."""

_WHEN = "(coalesce(occurred_at, created_at))"

INDEXES = (
    f"CREATE INDEX memories_by_thread ON memories (owner, thread_id, {_WHEN}, id)",
    f"CREATE INDEX memories_by_type ON memories (owner, memory_type, {_WHEN}, id)",
    f"CREATE INDEX memories_by_date ON memories (owner, {_WHEN})",
    # Finds an exact duplicate without a second copy of every text.
    "CREATE INDEX memories_by_opening ON memories (owner, (left(content, 64)), (length(content)))",
    "CREATE INDEX memories_by_document ON memories (owner, document) WHERE document IS NOT NULL",
    "CREATE INDEX memories_by_expiry ON memories (owner, expires_at) WHERE expires_at IS NOT NULL",
    "CREATE INDEX messages_by_session ON messages (owner, session_id, id)",
    "CREATE INDEX usage_by_session ON usage_records (owner, session_id)",
    "CREATE INDEX changed_rows_by_key ON changed_rows (owner, kind, key, change_id)",
    "CREATE INDEX changed_rows_by_replacement ON changed_rows (owner, replaced_by)"
    " WHERE replaced_by IS NOT NULL",
    "CREATE INDEX changes_by_undo ON changes (owner, undone_by) WHERE undone_by IS NOT NULL",
)

_WRITTEN = {
    "INSERT": "SELECT owner, id::text AS key, NULL::jsonb AS before FROM new_rows WHERE {counted}",
    "UPDATE": "SELECT o.owner, o.id::text AS key, to_jsonb(o) - '{{owner,place}}'::text[] AS before"
    " FROM old_rows AS o WHERE {counted}{changed}",
    "DELETE": "SELECT owner, id::text AS key, to_jsonb(o) - '{{owner,place}}'::text[] AS before"
    " FROM old_rows AS o WHERE {counted}",
}


def _noting(table: str) -> list[str]:
    """Return the triggers of a table that note, or outside a recording refuse, what is written.

    soulkeep says in each of its transactions whether it records; who says nothing is another program.
    Entries of documents come and go with their lines, and that a thread was used is no change of it.
    """
    counted = "document IS NULL" if table == "memories" else "true"
    changed = (
        " AND NOT EXISTS (SELECT 1 FROM new_rows AS n WHERE n.owner = o.owner AND n.id = o.id"
        " AND to_jsonb(n) - 'last_active_at' = to_jsonb(o) - 'last_active_at')"
        if table == "threads"
        else ""
    )
    statements = []
    for event, written in _WRITTEN.items():
        rows = written.format(counted=counted, changed=changed)
        name = f"note_{event.lower()}_{table}"
        given = {"INSERT": "NEW TABLE AS new_rows", "DELETE": "OLD TABLE AS old_rows"}
        both = "OLD TABLE AS old_rows NEW TABLE AS new_rows"
        statements += [
            f"""
CREATE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
  recording text := coalesce(current_setting('soulkeep.recording', true), '');
BEGIN
  IF recording = '' THEN
    RETURN NULL;
  ELSIF recording = 'on' THEN
    INSERT INTO noted_rows (owner, kind, key, before)
      SELECT owner, '{table}', key, before FROM ({rows}) AS written
      ON CONFLICT DO NOTHING;
  ELSIF EXISTS ({rows}) THEN
    RAISE EXCEPTION '{table} written outside a recording' USING ERRCODE = 'SK001';
  END IF;
  RETURN NULL;
END $$""",
            f"CREATE TRIGGER {name} AFTER {event} ON {table} REFERENCING {given.get(event, both)}"
            f" FOR EACH STATEMENT EXECUTE FUNCTION {name}()",
        ]
    return statements


RECORDED = ("memories", "threads", "global_prompts", "messages")

STEPS: tuple[tuple[str, ...], ...] = (
    (
        "CREATE EXTENSION IF NOT EXISTS vector",
        OWNERS,
        NUMBERS,
        THREADS,
        MEMORIES,
        GLOBAL_PROMPTS,
        PROMPT_CONSENTS,
        SESSIONS,
        MESSAGES,
        USAGE_RECORDS,
        UNPRICED_USAGE,
        AUDIT_LOG,
        CHANGES,
        CHANGED_ROWS,
        FORMER_IDS,
        STORE_FACTS,
        DOCUMENT_STATES,
        VEC_MEMORIES,
        NEXT_VECTORS,
        PENDING_VECTORS,
        *FULL_TEXTS,
        WORD_COUNTS,
        NOTED_ROWS,
        *INDEXES,
        *(statement for table in RECORDED for statement in _noting(table)),
    ),
    (IMPORTED, DOCUMENTS, LOGGED_PLACES),
    (BACKUPS, BACKUP_PARTS),
)
"""`STEPS[n]` brings a database from schema version n to n + 1."""

TABLES = (
    *("numbers", "threads", "memories", "global_prompts", "prompt_consents", "sessions", "messages"),
    *("usage_records", "unpriced_usage", "audit_log", "changes", "changed_rows", "former_ids"),
    *("imported", "store_facts", "document_states", "vec_memories", "next_vectors", "pending_vectors"),
    *("memories_fts", "messages_fts", "word_counts", "noted_rows", "documents", "owners"),
)

BACKUP_TABLES = ("backups", "backup_parts")
FORMER = "soulkeep_former"
"""The schema with the rows as they were before the last migration, but for what can be made anew."""

_DERIVED = frozenset(
    "vec_memories next_vectors pending_vectors memories_fts messages_fts word_counts noted_rows".split()
)

LOCK = 0x736F756C6B656570
"""The lock of who migrates: the letters of soulkeep."""


def bootstrap(connection: psycopg.Connection[tuple[Any, ...]], place: str) -> None:
    """Bring a database to schema version `len(STEPS)`; running it again changes nothing.

    All pending steps are one transaction, and one process at a time looks and does it, while none
    writes. An older database is copied first, within itself; where that fails, it stays as it is.

    Raises:
        NotAStoreError: The database has tables of such names, and not ours.
        SchemaTooNewError: A later soulkeep wrote it.
        StoreError: The extension `vector` is not installed there.
    """
    if _version(connection, place) == len(STEPS):
        return
    with connection.transaction():
        connection.execute("SELECT pg_advisory_xact_lock(%s)", [LOCK])
        version = _version(connection, place)
        if 0 < version < len(STEPS):
            _copy_rows(connection)
        try:
            for step in STEPS[version:]:
                for statement in step:
                    connection.execute(_in_order_of_code_points(statement))
        except (psycopg.errors.FeatureNotSupported, psycopg.errors.UndefinedFile) as error:
            problem = "its PostgreSQL has no extension `vector`"
            raise StoreError(place, problem, "install pgvector on its machine, 0.8 or later") from error
        if version == 0:
            connection.execute("CREATE TABLE soulkeep_schema (version integer NOT NULL)")
            connection.execute("INSERT INTO soulkeep_schema VALUES (%s)", [len(STEPS)])
        connection.execute("UPDATE soulkeep_schema SET version = %s", [len(STEPS)])


def _copy_rows(connection: psycopg.Connection[tuple[Any, ...]]) -> None:
    connection.execute("LOCK TABLE owners IN EXCLUSIVE MODE")  # who writes locks a row of it first
    connection.execute(f"DROP SCHEMA IF EXISTS {FORMER} CASCADE".encode())
    connection.execute(f"CREATE SCHEMA {FORMER}".encode())
    tables = [table for table in (*TABLES, "soulkeep_schema") if table not in _DERIVED]
    there = connection.execute(
        "SELECT t FROM unnest(%s::text[]) AS t WHERE to_regclass(t) IS NOT NULL", [tables]
    )
    for (table,) in there.fetchall():
        connection.execute(f"CREATE TABLE {FORMER}.{table} AS TABLE {table}".encode())


def _in_order_of_code_points(statement: str) -> str:
    if not statement.lstrip().startswith(("CREATE TABLE", "CREATE UNLOGGED TABLE")):
        return statement
    words = {" text,": f" {TEXT},", " text NOT": f" {TEXT} NOT", " text PRIMARY": f" {TEXT} PRIMARY"}
    for plain, ordered in (*words.items(), (" text\n", f" {TEXT}\n")):
        statement = statement.replace(plain, ordered)
    return statement


def _version(connection: psycopg.Connection[tuple[Any, ...]], place: str) -> int:
    found = connection.execute(  # in pg_class, where what another one has just made is seen at once
        "SELECT relname FROM pg_class WHERE relname IN ('soulkeep_schema', 'memories', 'threads')"
        " AND pg_table_is_visible(oid)"
    ).fetchall()
    if ("soulkeep_schema",) not in found:
        if found:
            raise NotAStoreError(place, "a database with another program's tables")
        return 0
    row = connection.execute("SELECT version FROM soulkeep_schema").fetchone()
    version = int(row[0]) if row else 0
    if version > len(STEPS):
        raise SchemaTooNewError(place, version, len(STEPS))
    return version
