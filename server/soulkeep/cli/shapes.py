"""What `--json` prints of each thing: the same names in all commands."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from soulkeep.models import Memory, Message, Recall
from soulkeep.service.changes import ChangeSummary
from soulkeep.service.lifecycle import Past
from soulkeep.service.messages import Page
from soulkeep.service.receipts import Changed, Receipt
from soulkeep.service.threads import Digest

Shape = dict[str, Any]


def memories_shape(memories: Sequence[Memory]) -> Shape:
    """Return memories with all that is known of them."""
    return {"memories": [memory._asdict() for memory in memories]}


def past_shape(past: Past) -> Shape:
    """Return a former version of a memory, and the change with which it went."""
    return {
        "memory": past.memory._asdict(),
        "change_id": past.change_id,
        "replaced_by": past.replaced_by,
    }


def receipts_shape(receipts: Sequence[Receipt]) -> Shape:
    """Return what became of memories that were to be kept."""
    shapes = [asdict(receipt) for receipt in receipts]
    for shape, receipt in zip(shapes, receipts, strict=True):
        if receipt.similar is not None:  # None where nobody looked
            similar = receipt.similar
            shape["similar"] = [one.memory._asdict() | {"similarity": one.similarity} for one in similar]
    return {"receipts": shapes}


def recall_shape(recall: Recall) -> Shape:
    """Return what was recalled, best first."""
    return {
        "matches": [
            match.memory._asdict()
            | {"score": match.score, "relevance": match.relevance, "reasons": dict(match.reasons)}
            for match in recall.matches
        ],
        "mode": recall.mode,
        "messages": [
            _message_shape(match.message) | {"thread_id": match.thread_id, "score": match.score}
            for match in recall.messages
        ],
        "remarks": recall.remarks,
    }


def changes_shape(summaries: Sequence[ChangeSummary]) -> Shape:
    """Return changes with what each did to its first rows, and how many it touched."""
    return {
        "changes": [
            asdict(summary.change)
            | {"rows": summary.count, "did": [asdict(row) | {"name": row.name} for row in summary.rows]}
            for summary in summaries
        ]
    }


def changed_shape(changed: Changed) -> Shape:
    """Return what became of memories in one change."""
    return memories_shape(changed.memories) | {
        "change_id": changed.change_id,
        "newer": dict(changed.newer),
        "lines": [asdict(line) for line in changed.lines],
        "expiry_cleared": list(changed.expiry_cleared),
    }


def digest_shape(digest: Digest) -> Shape:
    """Return a thread with what to go on from."""
    messages = [_message_shape(message) for message in digest.messages]
    return asdict(digest.thread) | memories_shape(digest.memories) | {"messages": messages}


def page_shape(page: Page) -> Shape:
    """Return messages, and whether there are older ones."""
    return {"messages": [_message_shape(m) for m in page.messages], "has_more": page.has_more}


def _message_shape(message: Message) -> Shape:
    return {name: getattr(message, name) for name in ("id", "role", "created_at", "content")}
