"""What every engine keeps alike: images of rows, who set a prompt, vectors, forms of a text.

A store is the same by its rows whichever engine keeps them, so these are written down one way.
"""

import hashlib
import json
import math
import struct
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from datetime import date
from functools import lru_cache
from operator import mul
from typing import Any
from unicodedata import normalize

from soulkeep.errors import DimensionMismatchError, EmbedderError
from soulkeep.models import (
    DocumentEdit,
    Embedding,
    GlobalPrompt,
    Memory,
    Message,
    RowKind,
    RowValue,
    Thread,
)
from soulkeep.repository import PromptKind

DIMENSIONS = 1536
"""The width of vec_memories; a shorter embedding is padded with zeros, which no cosine notices."""

LATEST = 2_000
"""Memories with words that too many have, whose BM25 scores are worked out in two milliseconds."""

_UNIT_TOLERANCE = 1e-3

UNKNOWN_MODEL = "unknown"
"""A client does not say which language model it runs."""

THREAD_KEY = "thread:"
"""With a thread's id behind it: the session_key of the thread's conversation, the row of sessions that
its messages belong to."""


def padded(embedding: Embedding) -> bytes:
    """Check a vector, and pad it with zeros to the width of vec_memories: 1536 float32, little-endian.

    Raises:
        DimensionMismatchError: It is too wide.
        EmbedderError: Its length is not 1. A zero vector would come first in every search, and one
            with NaN nowhere, without an error from the engine.
    """
    dimensions = len(embedding) // 4
    if dimensions > DIMENSIONS:
        raise DimensionMismatchError(DIMENSIONS, dimensions)
    values = struct.unpack(f"<{dimensions}f", embedding)
    norm = math.hypot(*values)
    if not abs(norm - 1) < _UNIT_TOLERANCE:
        raise EmbedderError(
            f"An embedding has length {norm}, not 1; report this as a fault of its embedder."
        )
    return embedding.ljust(4 * DIMENSIONS, b"\0")


def dimensions_of(identity: str | None) -> int:
    """Return how many dimensions the vectors of an embedder have; 0 for none, or if it does not say."""
    parts = (identity or "").rsplit(":", 2)
    return int(parts[1]) if len(parts) == 3 and parts[1].isdecimal() else 0


CENTRING, SHRINKAGE = 0.5, 30
"""Of the mean of n vectors the share CENTRING * n / (n + SHRINKAGE) is taken from a question: that of
few says little of others. `bench/quality.py` measures both."""

Cosines = Mapping[int, tuple[float, ...]]
"""The cosine of each part of a vector, by the id of its memory."""


def best_compared(
    cosines: Cosines,
    near: Collection[int],
    weightings: Sequence[Sequence[float]],
    depth: int,
    also: Collection[int],
) -> dict[int, tuple[float, ...]]:
    """Return of the cosines those of the best `depth` among `near` by each weighting, and of `also`.

    An engine finds what is near its own way; which of it is nearest is decided here, equals by id, so
    that it is the same in every engine.
    """
    kept = set(also)
    for weighting in weightings:
        worth = {i: -sum(map(mul, weighting, cosines[i])) for i in near if i in cosines}
        kept.update(sorted(worth, key=lambda i: (worth[i], i))[:depth])
    return {i: parts for i, parts in cosines.items() if i in kept}


def forms(text: str) -> list[str]:
    """Return the forms in which a text may stand in the store: as it is, composed and decomposed."""
    if text.isascii():
        return [text]
    return list(dict.fromkeys([text, normalize("NFC", text), normalize("NFD", text)]))


@lru_cache(10_000)
def day_text(day: date | None) -> str:
    """Return the words by which the day of a memory is found; nothing where it has none."""
    # Imported here, as opening a store needs none of it.
    from soulkeep.search.dates import day_words

    return " ".join(day_words(day)) if day else ""


# Rows as they go from one engine to another

_THREAD = ("title", "system_prompt", "archived", "created_at", "last_active_at")
_SESSION = ("session_key", "agent_id", "model", "created_at", "last_active_at")
_MEMORY = (
    *("thread_id", "content", "memory_type", "source", "created_at"),
    *("subject", "occurred_at", "document", "expires_at"),
)
_USE = ("session_id", "model", "input_tokens", "output_tokens", "total_tokens", "cost", "timestamp")
_EVENT = ("timestamp", "event", "provider", "source_ip", "source_app", "details")
_CHANGE = ("made_at", "session_id", "agent_id", "action", "undone_by")

PLACE = "place"
"""Stands for the order in which rows were added, which each engine keeps its own way."""

COLUMNS: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "threads": ((PLACE,), ("id", *_THREAD)),
    "sessions": ((PLACE,), ("id", *_SESSION)),
    "memories": (("id",), _MEMORY),
    "global_prompts": (("id",), ("name", "content", "is_active", "priority", "created_at")),
    "prompt_consents": (("kind", "key", "digest"), ("set_by", "is_agreed")),
    "messages": (("id",), ("session_id", "role", "content", "created_at", "token_count")),
    "usage_records": (("id",), _USE),
    "unpriced_usage": (("usage_id",), ()),
    "audit_log": (("id",), _EVENT),
    "changes": (("id",), _CHANGE),
    "changed_rows": (("change_id", "kind", "key"), ("before", "after", "replaced_by")),
    "former_ids": (("memory_id",), ("later_id",)),
    "imported": (("digest",), ("change_id",)),
    "store_facts": (("name",), ("value",)),
    "document_states": (("name",), ("state",)),
    "vec_memories": (("memory_id",), ("content_embedding",)),
    "pending_vectors": (("memory_id",), ("state", "reason", "attempts", "next_try")),
}
"""The columns of the keys of each table, and the others; what refers to another comes after it."""

OF_ONE_STORE = ("store_id", "text_rules", "next_embedder", "copying")
"""Facts that are of one store, and do not go into another."""

GIVE_IDS = ("memories", "messages", "global_prompts", "usage_records", "audit_log", "changes")


def sorted_json(value: object) -> str | None:
    """Write what JSON says one way; None for nothing."""
    return None if value is None else json.dumps(value, sort_keys=True, ensure_ascii=False)


# Who set the text of a prompt


def digest_of_text(text: str) -> str:
    """Return what stands for the text of a prompt in `prompt_consents`."""
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def origin_of(known: Mapping[str, Sequence[Any]] | None, text: str | None) -> tuple[str | None, bool]:
    """Return who set a text, if it is known, and whether the user agreed to it.

    `known` has for the digest of each text of a prompt who set it and whether the user agreed.
    """
    if text is None or not known:
        return None, True
    set_by, agreed = known.get(digest_of_text(text), (None, 0))
    return set_by, bool(agreed)


# Rows as the log of changes has them

Image = dict[str, Any]
"""A row, by its columns."""

ACTIVITY = "last_active_at"
"""Moves with every use of a row, which is no change of it."""

ADDED = "added"
"""Stands for the digest of a row that a change added: undoing takes it away, changed since or not."""

Origin = Callable[[PromptKind, str | int, str | None], tuple[str | None, bool]]


def value_of(kind: RowKind, image: Image | None, origin: Origin) -> RowValue | None:
    """Return what an image shows, perhaps one from before a migration; `origin` is of `Consents`."""
    if image is None:
        return None
    match kind:
        case "memories":
            occurred_at = image.get("occurred_at") or image["created_at"]
            row = image | {"occurred_at": occurred_at}
            return Memory._make(row.get(name) for name in Memory._fields)
        case "messages":
            names = ("id", "session_id", "role", "content", "created_at", "token_count")
            return Message(*(image[name] for name in names))
        case "threads":
            prompt, archived = image["system_prompt"], bool(image["archived"])
            times = image["created_at"], image[ACTIVITY]
            by = origin(kind, image["id"], prompt)
            return Thread(image["id"], image["title"], prompt, archived, *times, *by)
        case "global_prompts":
            state = bool(image["is_active"]), image["priority"], image["created_at"]
            made = GlobalPrompt(image["id"], image["name"], image["content"], *state)
            set_by, is_agreed = origin(kind, made.id, made.agreed_text)
            return replace(made, prompt_by=set_by, is_agreed=is_agreed)
        case "documents":
            return DocumentEdit(tuple(image["hunks"]))


def edit_text(value: RowValue | None) -> str | None:
    """Return what the log of changes holds of an edit of a document; None for anything else."""
    if not isinstance(value, DocumentEdit):
        return None
    return json.dumps({"hunks": value.hunks}, ensure_ascii=False)


def digest_of_row(image: Mapping[str, Any] | None) -> str | None:
    """Return a short text that differs for rows that differ in more than activity; None for no row."""
    if image is None:
        return None
    compared = {name: value for name, value in image.items() if name != ACTIVITY}
    text = json.dumps(compared, sort_keys=True, ensure_ascii=False)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def is_as_left(after: str | None, before: Image | None, current: Image | None) -> bool:
    """Whether a row is as a change left it; an expiry that was cleared on its return does not count."""
    if after == ADDED:
        return current is not None
    if after == digest_of_row(current):
        return True
    if before is None or current is None or current.get("expires_at") is not None:
        return False
    return after == digest_of_row({**current, "expires_at": before.get("expires_at")})
