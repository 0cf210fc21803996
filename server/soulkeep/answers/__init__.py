"""What the tools answer: one bounded view each, written out in both channels of a result.

Some clients hand a model the text of a result, others its structured content. Both are made of the same
view, whose values are already cut to their budget, so neither holds what the other lacks.
"""

import json
from collections.abc import Sequence
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, WithJsonSchema

from soulkeep.fence import fenced

_Item = TypeVar("_Item")

Items = Annotated[tuple[_Item, ...], WithJsonSchema({"type": "array"})]
"""A list whose items the schema leaves open: a client carries it in every request, and sees them in the
answer."""

BOUND = 18_000
"""How many bytes an answer takes in either channel where no budget was given; with what stands around
its items that is under 20,000 characters."""

BYTES_PER_TOKEN = 4
"""What a budget in tokens is taken as, where no tokenizer counts."""


class View(BaseModel):
    """A piece of an answer, built from the attributes of what the service returned."""

    model_config = ConfigDict(from_attributes=True)

    def weight(self) -> int:
        """Return the bytes that this takes in the larger of the two channels."""
        return max(_bytes(self.as_text()), _bytes(_compact(self.as_data())))

    def as_data(self) -> dict[str, Any]:
        """Return the structured form; what is at its default (nothing, none, no) is left out."""
        return self.model_dump(mode="json", exclude_defaults=True)

    def as_text(self) -> str:
        """Return the same for whoever reads text."""
        raise NotImplementedError


def weight(text: str) -> int:
    """Return the bytes that a stored text takes in the larger of the two channels."""
    return max(_bytes(fenced(text)), _bytes(_compact(text)))


def cut(text: str, room: int) -> str:
    """Return the longest beginning of a text that takes about `room` bytes, with … where it is cut."""
    if len(text) <= room and weight(text) <= room:
        return text
    kept, room = text[:room], max(room - len("…".encode()), 1)
    while kept and (taken := weight(kept)) > room:
        kept = kept[: len(kept) * room // taken]
    return kept.rstrip() + "…"


def share_out(weights: Sequence[int], room: int) -> list[int]:
    """Divide `room`: what takes less than an even part gets all that it takes, the rest equal parts."""
    parts = [0] * len(weights)
    for rank, place in enumerate(sorted(range(len(weights)), key=weights.__getitem__)):
        parts[place] = min(weights[place], room // (len(weights) - rank))
        room -= parts[place]
    return parts


def runs(ids: Sequence[int]) -> str:
    """Write ids in their order, those that follow each other as a run: 1-500,7."""
    spans: list[list[int]] = []
    for number in ids:
        if spans and number == spans[-1][1] + 1:
            spans[-1][1] = number
        else:
            spans.append([number, number])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in spans)


def _compact(document: object) -> str:
    return json.dumps(document, ensure_ascii=False, separators=(",", ":"))


def _bytes(text: str) -> int:
    return len(text.encode()) + 1
