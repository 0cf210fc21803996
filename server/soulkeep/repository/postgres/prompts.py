"""Threads and the user's global prompts, and who set the text of each prompt."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

from soulkeep.errors import PromptNotFoundError, ThreadNotFoundError
from soulkeep.models import GlobalPrompt, Thread
from soulkeep.repository import PromptKind
from soulkeep.repository.postgres.database import NO_LIMIT, Database, Row, limited
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
        (prompt_id,) = self._database.next_ids("global_prompts", 1)
        self._database.execute(
            "INSERT INTO global_prompts (owner, id, name, content, is_active, priority, created_at)"
            " VALUES (%(owner)s, %(id)s, %(name)s, %(content)s, %(is_active)s, %(priority)s, %(now)s)",
            id=prompt_id,
            name=name,
            content=content,
            is_active=int(is_active),
            priority=priority,
            now=created_at,
        )
        return prompt_id

    def get_prompt(self, prompt_id: int) -> GlobalPrompt:
        """Return one prompt.

        Raises:
            PromptNotFoundError: There is none with this id.
        """
        found = self._list(" AND id = %(id)s", id=prompt_id)
        if not found:
            raise PromptNotFoundError(prompt_id)
        return found[0]

    def list_prompts(self) -> list[GlobalPrompt]:
        """Return all prompts, highest priority first, older first among equals."""
        return self._list()

    def outline(self) -> str:
        """Return a text that changes with the sizes of prompts, made without reading what they say."""
        ((sizes,),) = self._database.query(
            "SELECT string_agg(concat_ws(' ', id, priority, is_active, octet_length(name),"
            " octet_length(content)), ',' ORDER BY id) FROM global_prompts WHERE owner = %(owner)s"
        )
        return sizes or ""

    def _list(self, condition: str = "", **values: int) -> list[GlobalPrompt]:
        rows = self._database.query(
            "SELECT id, name, content, is_active, priority, created_at,"
            f" {origins('global_prompts')} FROM global_prompts AS p"
            f" WHERE owner = %(owner)s{condition} ORDER BY priority DESC, id",
            **values,
        )
        prompts = []
        for *columns, known in rows:
            prompt_id, name, content, is_active, *others = columns
            prompt = GlobalPrompt(prompt_id, name, content, bool(is_active), *others)
            prompt_by, is_agreed = origin_of(known, prompt.agreed_text)
            prompts.append(replace(prompt, prompt_by=prompt_by, is_agreed=is_agreed))
        return prompts

    def update_prompt(self, prompt: GlobalPrompt) -> None:
        """Write a prompt's name, content, state and priority; inside a transaction."""
        self._database.execute(
            "UPDATE global_prompts SET name = %(name)s, content = %(content)s,"
            " is_active = %(is_active)s, priority = %(priority)s"
            " WHERE owner = %(owner)s AND id = %(id)s",
            name=prompt.name,
            content=prompt.content,
            is_active=int(prompt.is_active),
            priority=prompt.priority,
            id=prompt.id,
        )

    def delete_prompt(self, prompt_id: int) -> None:
        """Delete a prompt; inside a transaction."""
        self._database.execute(
            "DELETE FROM global_prompts WHERE owner = %(owner)s AND id = %(id)s", id=prompt_id
        )


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
            "INSERT INTO prompt_consents AS c (owner, kind, key, digest, set_by, is_agreed)"
            " VALUES (%(owner)s, %(kind)s, %(key)s, %(digest)s, %(set_by)s, %(agreed)s)"
            " ON CONFLICT (owner, kind, key, digest) DO UPDATE"
            " SET is_agreed = greatest(c.is_agreed, excluded.is_agreed)",
            kind=kind,
            key=str(key),
            digest=digest_of_text(text),
            set_by=set_by,
            agreed=int(agreed),
        )

    def origin(self, kind: PromptKind, key: str | int, text: str | None) -> tuple[str | None, bool]:
        """Return who set a text, if it is known, and whether the user agreed to it."""
        ((known,),) = self._database.query(
            f"SELECT {_RECORDS} FROM prompt_consents AS c"
            " WHERE c.owner = %(owner)s AND c.kind = %(kind)s AND c.key = %(key)s",
            kind=kind,
            key=str(key),
        )
        return origin_of(known, text)


_RECORDS = "jsonb_object_agg(c.digest, jsonb_build_array(c.set_by, c.is_agreed))"


def origins(kind: PromptKind) -> str:
    """Return SQL for the records of a row `p` of a table of prompts, for `origin_of`."""
    return (
        f"(SELECT {_RECORDS} FROM prompt_consents AS c WHERE c.owner = p.owner"
        f" AND c.kind = '{kind}' AND c.key = p.id::text)"
    )


_COLUMNS = (
    f"p.id, p.title, p.system_prompt, p.archived, p.created_at, p.last_active_at, {origins('threads')}"
)
_THREADS = "FROM threads AS p WHERE p.owner = %(owner)s"
_IS_ARCHIVED = "coalesce(p.archived, 0) <> 0"


@dataclass(eq=False)
class ThreadTable:
    """Rows of threads."""

    _database: Database

    def add_thread(self, thread: Thread) -> None:
        """Insert a thread; inside a transaction."""
        self._database.execute(
            "INSERT INTO threads (owner, id, title, system_prompt, archived, created_at, last_active_at)"
            " VALUES (%(owner)s, %(id)s, %(title)s, %(prompt)s, %(archived)s, %(created_at)s,"
            " %(last_active_at)s)",
            id=thread.id,
            title=thread.title,
            prompt=thread.system_prompt,
            archived=int(thread.archived),
            created_at=thread.created_at,
            last_active_at=thread.last_active_at,
        )

    def get_thread(self, thread_id: str) -> Thread:
        """Return one thread.

        Raises:
            ThreadNotFoundError: There is none with this id.
        """
        rows = self._database.query(f"SELECT {_COLUMNS} {_THREADS} AND p.id = %(id)s", id=thread_id)
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
        which = "" if archived is None else f" AND ({_IS_ARCHIVED}) = %(archived)s"
        rows = self._database.query(
            f"SELECT p.id, p.title {_THREADS}{which} ORDER BY p.last_active_at DESC, p.place DESC"
            " LIMIT %(limit)s",
            archived=archived,
            # Titles are compared in a form of ours, so all are read where a text is looked for.
            limit=limited(-1 if sought else limit),
        )
        found = (
            thread_id
            for thread_id, title in rows
            if not sought or sought in same_title(title) or sought in thread_id.casefold()
        )
        wanted = list(islice(found, limit if limit >= 0 else None))
        rows = self._database.query(f"SELECT {_COLUMNS} {_THREADS} AND p.id = ANY(%(ids)s)", ids=wanted)
        threads = {row[0]: _thread(row) for row in rows}
        return [threads[thread_id] for thread_id in wanted if thread_id in threads]

    def count(self) -> tuple[int, int]:
        """Return how many threads are active and how many archived."""
        ((count, archived),) = self._database.query(
            f"SELECT count(*), count(*) FILTER (WHERE {_IS_ARCHIVED}) {_THREADS}"
        )
        return count - archived, archived

    def list_made(self, limit: int, before: int | None = None) -> list[tuple[int, Thread]]:
        """Return up to `limit` active threads, the latest made first, each with its place.

        Only those whose place is below `before`: a place stays what it is when others are made or used.
        """
        rows = self._database.query(
            f"SELECT p.place, {_COLUMNS} {_THREADS} AND NOT {_IS_ARCHIVED} AND p.place < %(before)s"
            " ORDER BY p.place DESC LIMIT %(limit)s",
            before=NO_LIMIT if before is None else before,
            limit=limited(limit),
        )
        return [(row[0], _thread(row[1:])) for row in rows]

    def change_threads(self, thread_ids: Sequence[str], **columns: str | int | None) -> None:
        """Set columns of threads, by their names; inside a transaction.

        Raises:
            ThreadNotFoundError: One does not exist.
        """
        assigned = ", ".join(f"{name} = %({name})s" for name in columns)
        values: Mapping[str, Any] = columns
        changed = self._database.execute(
            f"UPDATE threads SET {assigned} WHERE owner = %(owner)s AND id = ANY(%(these)s)"
            " RETURNING id",
            **values,
            these=list(thread_ids),
        )
        for thread_id in thread_ids if len(changed) < len(thread_ids) else ():
            if (thread_id,) not in changed:
                raise ThreadNotFoundError(thread_id)

    def delete_thread(self, thread_id: str) -> None:
        """Delete a thread that nothing belongs to any more; inside a transaction."""
        self._database.execute(
            "DELETE FROM threads WHERE owner = %(owner)s AND id = %(id)s", id=thread_id
        )


def _thread(row: Row) -> Thread:
    identifier, title, prompt, archived, created_at, last_active_at, known = row
    prompt_by, is_agreed = origin_of(known, prompt)
    return Thread(
        identifier, title, prompt, bool(archived), created_at, last_active_at, prompt_by, is_agreed
    )
