"""What is shown of a text that finds no room as a whole: the sentences that were asked for."""

import re
from collections.abc import Sequence
from itertools import pairwise

from soulkeep.mcp_server.answers import weight
from soulkeep.search.words import split_words

# Marks that end a sentence where a space follows, and those of scripts that put none behind them.
_END = re.compile(
    r"""[.!?…؟۔।॥։።]["'”’»)\]]*\s+|[。！？｡]["'”’」』）]*\s*|[។៕။༎]\s*|\s*\n\s*"""  # noqa: RUF001 - of other scripts
)
_GAP = " … "
_SHORT_WORD = 4


def excerpt(content: str, terms: Sequence[str], room: int) -> str:
    """Return a text that takes about `room` bytes: all of it, or the sentences with most of the words.

    Sentences beside the best one fill the rest of the room. What is left out shows as an ellipsis.
    """
    if len(content) <= room and weight(content) <= room:
        return content
    sentences = split_sentences(content)
    counts = [_count(sentence, terms) for sentence in sentences]
    best = counts.index(max(counts))
    chosen = _fitting(sentences, counts, best, room)
    return _joined(sentences, chosen) if chosen else _around(sentences[best], terms, room)


def split_sentences(text: str) -> list[str]:
    """Split a text behind its sentences and lines, in any script; joined they are the text again."""
    ends = [match.end() for match in _END.finditer(text)]
    bounds = [0, *(end for end in ends if end < len(text)), len(text)]
    return [text[start:end] for start, end in pairwise(bounds)]


def _count(sentence: str, terms: Sequence[str]) -> int:
    words = " ".join(["", *split_words(sentence)])
    return sum(f" {_stem(term)}" in words for term in terms)


def _stem(term: str) -> str:
    """Take a letter off a longer word, so that one form of it finds another."""
    return term[:-1] if len(term) > _SHORT_WORD else term


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


def _joined(sentences: Sequence[str], chosen: set[int]) -> str:
    text, before = "", -1
    for place in sorted(chosen):
        text = (
            text + sentences[place]
            if place == before + 1
            else f"{text.rstrip()}{_GAP}{sentences[place]}"
        )
        before = place
    return text.strip() if before == len(sentences) - 1 else f"{text.strip()} …"


def _around(sentence: str, terms: Sequence[str], room: int) -> str:
    """Return the stretch of one long sentence that holds most of the words."""
    width = max((room - 2 * len(_GAP)) * len(sentence) // weight(sentence), 1)
    lower = sentence.lower()
    places = sorted(at for term in terms if (at := lower.find(_stem(term))) >= 0)
    held = [sum(start <= at < start + width for at in places) for start in places]
    middle = places[held.index(max(held))] if places else 0
    start = max(0, min(middle - width // 8, len(sentence) - width))
    end = start + width
    return f"{'…' if start else ''}{sentence[start:end].strip()}{'…' if end < len(sentence) else ''}"
