"""Who set the text of a prompt, and whether the user agreed to it."""

import hashlib
import json
from collections import defaultdict

from soulkeep.repository import PromptKind
from soulkeep.repository.sqlite.database import Database

_EVENTS = ("thread.created", "thread.prompted", "prompt.created", "prompt.changed")


class ConsentTable:
    """Rows of prompt_consents: one for each text that a prompt ever had, by its digest.

    A record speaks of a text, not of a row, so it stays right when a change is undone. A prompt without
    any was not written by soulkeep: the user's own hand did.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def note(self, kind: PromptKind, key: str | int, text: str, set_by: str, *, agreed: bool) -> None:
        """Record who set a text, unless that is known, and that the user agreed; in a transaction."""
        self._database.execute(
            "INSERT INTO prompt_consents (kind, key, digest, set_by, is_agreed) VALUES (?, ?, ?, ?, ?)"
            " ON CONFLICT DO UPDATE SET is_agreed = max(is_agreed, excluded.is_agreed)",
            (kind, str(key), _digest(text), set_by, int(agreed)),
        )

    def is_agreed(self, kind: PromptKind, key: str | int, text: str) -> bool:
        """Whether the user agreed to a text, or wrote it by hand."""
        return self.origin(kind, key, text)[1]

    def origin(self, kind: PromptKind, key: str | int, text: str | None) -> tuple[str | None, bool]:
        """Return who set a text, if it is known, and whether the user agreed to it."""
        rows = self._database.query(
            "SELECT json_group_object(digest, json_array(set_by, is_agreed)) FROM prompt_consents"
            " WHERE kind = ? AND key = ?",
            (kind, str(key)),
        )
        return origin_of(rows[0][0], text)

    def note_earlier(self, users_agent: str) -> None:
        """Record who set the prompts from before there were records, by the log; in a transaction.

        The user agreed to a text if `users_agent`, the command line, set it each time.
        """
        authors = self._authors()
        for kind, key, text in self._database.query(
            "SELECT * FROM (SELECT 'threads' AS kind, id AS key, system_prompt AS text FROM threads"
            " UNION ALL SELECT 'global_prompts', CAST(id AS TEXT), name || char(10) || content"
            " FROM global_prompts) AS p WHERE text IS NOT NULL"
            " AND NOT EXISTS"
            " (SELECT 1 FROM prompt_consents AS c WHERE c.kind = p.kind AND c.key = p.key)"
        ):
            if known := authors.get((kind, key)):
                agreed = set(known) == {users_agent}
                self.note(kind, key, text, known[-1], agreed=agreed)

    def _authors(self) -> dict[tuple[str, str], list[str]]:
        """Return for each prompt who set its text, as the log tells it, in order."""
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
        return created | authors


def origins(kind: PromptKind) -> str:
    """Return SQL for the records of a row of a table of prompts, for `origin_of`."""
    return (
        "(SELECT json_group_object(digest, json_array(set_by, is_agreed)) FROM prompt_consents AS c"
        f" WHERE c.kind = '{kind}' AND c.key = CAST({kind}.id AS TEXT))"
    )


def origin_of(records: str, text: str | None) -> tuple[str | None, bool]:
    """Return who set a text, if it is known, and whether the user agreed to it."""
    known = json.loads(records)
    if text is None or not known:
        return None, True
    set_by, agreed = known.get(_digest(text), (None, 0))
    return set_by, bool(agreed)


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
