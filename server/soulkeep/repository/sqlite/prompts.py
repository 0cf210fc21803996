"""Threads and the user's global prompts, and who set the text of each prompt."""

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import islice

from soulkeep.errors import PromptNotFoundError, ThreadNotFoundError
from soulkeep.models import GlobalPrompt, Thread
from soulkeep.repository import PromptKind
from soulkeep.repository.sqlite.database import Database, Row
from soulkeep.repository.values import digest_of_text, origin_of
from soulkeep.search.words import same_title


@dataclass(eq=False)
class PromptTable:
    """Rows of global prompts."""

    _database: Database

    def add_prompt(
        self, name: str, content: str, priority: int, created_at: str, *, is_active: bool
    ) -> int:
        """Insert a prompt; inside a transaction. Return its id."""
        rows = self._database.execute(
            "INSERT INTO global_prompts (name, content, is_active, priority, created_at)"
            " VALUES (?, ?, ?, ?, ?) RETURNING id",
            (name, content, int(is_active), priority, created_at),
        )
        return int(rows[0][0])

    def get_prompt(self, prompt_id: int) -> GlobalPrompt:
        """Return one prompt.

        Raises:
            PromptNotFoundError: There is none with this id.
        """
        found = self._list("id = ?", prompt_id)
        if not found:
            raise PromptNotFoundError(prompt_id)
        return found[0]

    def list_prompts(self) -> list[GlobalPrompt]:
        """Return all prompts, highest priority first, older first among equals."""
        return self._list("?", 1)

    def outline(self) -> str:
        """Return a text that changes with the sizes of prompts, made without reading what they say."""
        (sizes,) = self._database.query(
            "SELECT group_concat(id || ' ' || priority || ' ' || is_active"
            " || ' ' || octet_length(name) || ' ' || octet_length(content)) FROM global_prompts"
        )[0]
        return sizes or ""

    def _list(self, condition: str, value: int) -> list[GlobalPrompt]:
        rows = self._database.query(
            "SELECT id, name, content, is_active, priority, created_at,"
            f" {origins('global_prompts')} FROM global_prompts"
            f" WHERE {condition} ORDER BY priority DESC, id",
            (value,),
        )
        prompts = []
        for *columns, records in rows:
            prompt_id, name, content, is_active, *others = columns
            prompt = GlobalPrompt(prompt_id, name, content, bool(is_active), *others)
            prompt_by, is_agreed = origin_of(json.loads(records), prompt.agreed_text)
            prompts.append(replace(prompt, prompt_by=prompt_by, is_agreed=is_agreed))
        return prompts

    def update_prompt(self, prompt: GlobalPrompt) -> None:
        """Write a prompt's name, content, state and priority; inside a transaction."""
        self._database.execute(
            "UPDATE global_prompts SET name = ?, content = ?, is_active = ?, priority = ? WHERE id = ?",
            (prompt.name, prompt.content, int(prompt.is_active), prompt.priority, prompt.id),
        )

    def delete_prompt(self, prompt_id: int) -> None:
        """Delete a prompt; inside a transaction."""
        self._database.execute("DELETE FROM global_prompts WHERE id = ?", (prompt_id,))


_EVENTS = ("thread.created", "thread.prompted", "prompt.created", "prompt.changed")


@dataclass(eq=False)
class ConsentTable:
    """Rows of prompt_consents: one for each text that a prompt ever had, by its digest.

    A record speaks of a text, not of a row, so it stays right when a change is undone. A prompt without
    any was not written by soulkeep: the user's own hand did.
    """

    _database: Database

    def note(self, kind: PromptKind, key: str | int, text: str, set_by: str, *, agreed: bool) -> None:
        """Record who set a text, unless that is known, and that the user agreed; in a transaction."""
        self._database.execute(
            "INSERT INTO prompt_consents (kind, key, digest, set_by, is_agreed) VALUES (?, ?, ?, ?, ?)"
            " ON CONFLICT DO UPDATE SET is_agreed = max(is_agreed, excluded.is_agreed)",
            (kind, str(key), digest_of_text(text), set_by, int(agreed)),
        )

    def origin(self, kind: PromptKind, key: str | int, text: str | None) -> tuple[str | None, bool]:
        """Return who set a text, if it is known, and whether the user agreed to it."""
        rows = self._database.query(
            "SELECT json_group_object(digest, json_array(set_by, is_agreed)) FROM prompt_consents"
            " WHERE kind = ? AND key = ?",
            (kind, str(key)),
        )
        return origin_of(json.loads(rows[0][0]), text)

    def note_earlier(self, users_agent: str) -> None:
        """Record who set the prompts from before there were records, by the log; in a transaction.

        The user agreed to a text if `users_agent`, the command line, set it each time.
        """
        created: dict[tuple[str, str], list[str]] = {}
        authors: defaultdict[tuple[str, str], list[str]] = defaultdict(list)
        rows = self._database.query(
            "SELECT event, ifnull(source_app, ''), details FROM audit_log"
            " WHERE event IN (SELECT value FROM json_each(?)) AND json_valid(details) ORDER BY id",
            (json.dumps(_EVENTS),),
        )
        for event, agent, details in rows:
            said = json.loads(details)
            if event == "thread.created":
                created["threads", said["thread_id"]] = [agent]
            elif event == "thread.prompted":
                authors["threads", said["thread_id"]].append(agent)
            elif {"name", "content"} & set(said.get("fields", ["content"])):
                authors["global_prompts", str(said["prompt_id"])].append(agent)
        all_authors = created | authors
        for kind, key, text in self._database.query(
            "SELECT * FROM (SELECT 'threads' AS kind, id AS key, system_prompt AS text FROM threads"
            " UNION ALL SELECT 'global_prompts', CAST(id AS TEXT), name || char(10) || content"
            " FROM global_prompts) AS p WHERE text IS NOT NULL"
            " AND NOT EXISTS"
            " (SELECT 1 FROM prompt_consents AS c WHERE c.kind = p.kind AND c.key = p.key)"
        ):
            if known := all_authors.get((kind, key)):
                agreed = set(known) == {users_agent}
                self.note(kind, key, text, known[-1], agreed=agreed)


def origins(kind: PromptKind) -> str:
    """Return SQL for the records of a row of a table of prompts, for `origin_of`."""
    return (
        "(SELECT json_group_object(digest, json_array(set_by, is_agreed)) FROM prompt_consents AS c"
        f" WHERE c.kind = '{kind}' AND c.key = CAST({kind}.id AS TEXT))"
    )


_COLUMNS = (
    f"threads.id, title, system_prompt, archived, created_at, last_active_at, {origins('threads')}"
)


@dataclass(eq=False)
class ThreadTable:
    """Rows of threads."""

    _database: Database

    def add_thread(self, thread: Thread) -> None:
        """Insert a thread; inside a transaction."""
        self._database.execute(
            "INSERT INTO threads (id, title, system_prompt, archived, created_at, last_active_at)"
            " VALUES (?, ?, ?, ?, ?, ?)",
            (
                thread.id,
                thread.title,
                thread.system_prompt,
                int(thread.archived),
                thread.created_at,
                thread.last_active_at,
            ),
        )

    def get_thread(self, thread_id: str) -> Thread:
        """Return one thread.

        Raises:
            ThreadNotFoundError: There is none with this id.
        """
        rows = self._database.query(f"SELECT {_COLUMNS} FROM threads WHERE id = ?", (thread_id,))
        if not rows:
            raise ThreadNotFoundError(thread_id)
        return _thread(rows[0])

    def list_threads(
        self, limit: int, archived: bool | None = False, containing: str = ""
    ) -> list[Thread]:
        """Return up to `limit` threads whose title or id contains a text, latest activity first.

        Case does not matter. Archived threads are left out, or alone are found, or with None among all.
        No more than `limit` are returned where that is 0 or more.
        """
        sought = same_title(containing)
        rows = self._database.query(
            "SELECT id, title FROM threads WHERE :archived IS NULL OR (archived IS TRUE) = :archived"
            " ORDER BY last_active_at DESC, rowid DESC LIMIT :limit",
            # SQLite folds the case of ASCII only, so all are read where a text is looked for.
            {"archived": archived, "limit": -1 if sought else limit},
        )
        found = (
            thread_id
            for thread_id, title in rows
            if not sought or sought in same_title(title) or sought in thread_id.casefold()
        )
        rows = self._database.query(
            f"SELECT {_COLUMNS} FROM json_each(?) AS wanted JOIN threads ON threads.id = wanted.value"
            " ORDER BY wanted.key",
            (json.dumps(list(islice(found, limit if limit >= 0 else None))),),
        )
        return [_thread(row) for row in rows]

    def count(self) -> tuple[int, int]:
        """Return how many threads are active and how many archived."""
        rows = self._database.query("SELECT count(*), total(archived IS TRUE) FROM threads")
        count, archived = rows[0]
        return count - int(archived), int(archived)

    def list_made(self, limit: int, before: int | None = None) -> list[tuple[int, Thread]]:
        """Return up to `limit` active threads, the latest made first, each with its place.

        Only those whose place is below `before`: a place stays what it is when others are made or used.
        """
        rows = self._database.query(
            f"SELECT rowid, {_COLUMNS} FROM threads WHERE archived IS NOT TRUE AND rowid < ?"
            " ORDER BY rowid DESC LIMIT ?",
            (2**62 if before is None else before, limit),
        )
        return [(row[0], _thread(row[1:])) for row in rows]

    def change_threads(self, thread_ids: Sequence[str], **columns: str | int | None) -> None:
        """Set columns of threads, by their names; inside a transaction.

        Raises:
            ThreadNotFoundError: One does not exist.
        """
        assigned = ", ".join(f"{name} = :{name}" for name in columns)
        changed = self._database.execute(
            f"UPDATE threads SET {assigned} WHERE id IN (SELECT value FROM json_each(:these))"
            " RETURNING id",
            {**columns, "these": json.dumps(list(thread_ids))},
        )
        for thread_id in thread_ids if len(changed) < len(thread_ids) else ():
            if (thread_id,) not in changed:
                raise ThreadNotFoundError(thread_id)

    def delete_thread(self, thread_id: str) -> None:
        """Delete a thread that nothing belongs to any more; inside a transaction."""
        self._database.execute("DELETE FROM threads WHERE id = ?", (thread_id,))


def _thread(row: Row) -> Thread:
    identifier, title, prompt, archived, created_at, last_active_at, origins = row
    prompt_by, is_agreed = origin_of(json.loads(origins), prompt)
    return Thread(
        identifier, title, prompt, bool(archived), created_at, last_active_at, prompt_by, is_agreed
    )
