"""What the tools answer: one bounded view each, written out in both channels of a result.

Some clients hand a model the text of a result, others its structured content. Both are made of the same
view, whose values are already cut to their budget, so neither holds what the other lacks.
"""

import json
import re
from collections.abc import Sequence
from itertools import accumulate, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Self, TypeVar

from pydantic import BaseModel
from pydantic.json_schema import SkipJsonSchema

from soulkeep.search.words import split_words
from soulkeep.wording import command_line, fenced, visible

_Item = TypeVar("_Item")
_AnItem = TypeVar("_AnItem", bound="Item")

Items = tuple[_Item, ...]
"""The values of a list; the published schema, which is carried in every request, leaves them open."""

Prose = Annotated[str, SkipJsonSchema()]
"""What is said to the model alone; the published schema does not name it."""

Count = Annotated[int, SkipJsonSchema()]
"""A number that only the text around it needs."""

BOUND = 18_000
"""How many bytes an answer takes in either channel where no budget was given; with what stands around
its items that is under 20,000 characters."""

LEAST = 200
"""How many bytes of a stored text are shown at least, or the item comes on the next page."""

BYTES_PER_TOKEN = 4
"""What a budget in tokens is taken as, where no tokenizer counts."""

_LONGEST_ARGUMENT = 4_000
"""How many characters a text has in a command for the user, where a quote and a tab take more."""

# Marks that end a sentence where a space follows, and those of scripts that put none behind them.
_END = re.compile(
    r"""[.!?…؟۔।॥։።]["'”’»)\]]*\s+|[。！？｡]["'”’」』）]*\s*|[។៕။༎]\s*|\s*\n\s*"""  # noqa: RUF001 - of other scripts
)
_GAP = " … "
_SHORT_WORD = 4


class View(BaseModel):
    """A piece of an answer, with values that are cut to their room and show what hides in them."""

    def weight(self) -> int:
        """Return the bytes that this takes in the larger of the two channels."""
        return _larger(self.as_text(), self.as_data())

    def as_data(self) -> dict[str, Any]:
        """Return the structured form; what is at its default (nothing, none, no) is left out."""
        return self.model_dump(mode="json", exclude_defaults=True)

    def as_text(self) -> str:
        """Return the same for whoever reads text."""
        raise NotImplementedError


class Item(View):
    """A piece of an answer with stored text, its `content`, that may have to be cut."""

    if TYPE_CHECKING:
        # Each kind declares it as its last field: what marks a text as data comes before the text.
        content: str

    def with_content(self, content: str) -> Self:
        """Return the item with other content."""
        return self.model_copy(update={"content": content})

    def shortened(self, longest: int) -> Self:
        """Return the item with at most so many characters of its content."""
        text = self.content
        return self if len(text) <= longest else self.with_content(text[: longest - 1] + "…")


def fit_items(items: Sequence[_AnItem], room: int = BOUND, least: int = LEAST) -> list[_AnItem]:
    """Return the first of the items, as many as find room for `least` bytes of their text each.

    Short ones are whole; the others are cut to equal parts of the rest. The first is always there.
    """
    if not items:
        return []
    bare = [item.with_content("").weight() for item in items]
    wholes = [
        base + (weight(item.content) if len(item.content) < room else room)
        for base, item in zip(bare, items, strict=True)
    ]
    taken = accumulate(min(whole, base + least) for whole, base in zip(wholes, bare, strict=True))
    count = max(sum(size <= room for size in taken), 1)
    # What takes less than an even part gets all that it takes, the rest equal parts.
    parts = [0] * count
    for rank, place in enumerate(sorted(range(count), key=wholes.__getitem__)):
        parts[place] = min(wholes[place], room // (count - rank))
        room -= parts[place]
    return [
        item.with_content(cut(item.content, part - base))
        for item, base, part in zip(items, bare, parts, strict=False)
    ]


def weight(text: str) -> int:
    """Return the bytes that a stored text takes in the larger of the two channels."""
    return _larger(fenced(text), text)


def cut(text: str, room: int) -> str:
    """Return the longest beginning of a text that takes about `room` bytes, with … where it is cut."""
    if not text or (len(text) <= room and weight(text) <= room):
        return text
    room = max(room, 0)
    kept, room = text[:room], max(room - len("…".encode()), 1)
    while kept and (taken := weight(kept)) > room:
        kept = kept[: len(kept) * room // taken]
    return kept.rstrip() + "…"


def runs(ids: Sequence[int]) -> str:
    """Write ids in their order, those that follow each other as a run: 1-500,7."""
    spans: list[list[int]] = []
    for number in ids:
        if spans and number == spans[-1][1] + 1:
            spans[-1][1] = number
        else:
            spans.append([number, number])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in spans)


def command(home: Path, words: Sequence[str], *arguments: str) -> str:
    """Write a command for the user's shell, which need not know the home that a client serves.

    Apart from the home it holds nothing hidden, so that what is run is what the user reads.
    """
    there = ["--home", str(home)]
    # At a tab a shell would complete.
    words, shown = ([visible(w).replace("\t", "    ") for w in some] for some in (words, arguments))
    # What begins with a hyphen would be taken for an option; a hyphen alone is none.
    if any(argument.startswith("-") and argument != "-" for argument in shown):
        return command_line(["soulkeep", *words, *there, "--", *shown])
    return command_line(["soulkeep", *words, *shown, *there])


def prompt_argument(prompt: str) -> str:
    """Return a prompt for a command, where it is short enough in quotes; else - for what is typed."""
    quotes = prompt.count("'") + prompt.count("\t")
    return prompt if len(prompt) + 4 * quotes <= _LONGEST_ARGUMENT else "-"


def _larger(text: str, data: object) -> int:
    compact = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    return max(len(text.encode()), len(compact.encode())) + 1


def excerpt(content: str, terms: Sequence[str], room: int) -> str:
    """Return a text that takes about `room` bytes: all of it, or the sentences with most of the words.

    Sentences beside the best one fill the rest of the room. What is left out shows as an ellipsis.
    """
    if len(content) <= room and weight(content) <= room:
        return content
    sentences = split_sentences(content)
    words = [" ".join(["", *split_words(sentence)]) for sentence in sentences]
    # A letter less of a longer word, so that one form of it finds another.
    stems = [term[:-1] if len(term) > _SHORT_WORD else term for term in terms]
    counts = [sum(f" {stem}" in some for stem in stems) for some in words]
    best = counts.index(max(counts))
    chosen = _fitting(sentences, counts, best, room)
    if not chosen:
        return _around(sentences[best], stems, room)
    text, before = "", -1
    for place in sorted(chosen):
        gap = "" if place == before + 1 else _GAP
        text = (text.rstrip() if gap else text) + gap + sentences[place]
        before = place
    return text.strip() if before == len(sentences) - 1 else f"{text.strip()} …"


def split_sentences(text: str) -> list[str]:
    """Split a text behind its sentences and lines, in any script; joined they are the text again."""
    ends = [match.end() for match in _END.finditer(text)]
    bounds = [0, *(end for end in ends if end < len(text)), len(text)]
    return [text[start:end] for start, end in pairwise(bounds)]


def _fitting(sentences: Sequence[str], counts: Sequence[int], best: int, room: int) -> set[int]:
    chosen: set[int] = set()
    for place in sorted(range(len(sentences)), key=lambda i: (-counts[i], abs(i - best))):
        taken = weight(sentences[place].strip()) + len(_GAP.encode())
        if taken <= room:
            chosen.add(place)
            room -= taken
        elif not chosen or room < 2 * len(_GAP):
            break
    return chosen


def _around(sentence: str, stems: Sequence[str], room: int) -> str:
    """Return the stretch of one long sentence that holds most of the words."""
    width = max((room - 2 * len(_GAP)) * len(sentence) // weight(sentence), 1)
    lower = sentence.lower()
    places = sorted(at for stem in stems if (at := lower.find(stem)) >= 0)
    held = [sum(start <= at < start + width for at in places) for start in places]
    middle = places[held.index(max(held))] if places else 0
    start = max(0, min(middle - width // 8, len(sentence) - width))
    end = start + width
    return f"{'…' if start else ''}{sentence[start:end].strip()}{'…' if end < len(sentence) else ''}"
