"""Counting tokens with a real tokenizer, loaded on first use."""

import hashlib
import threading
import zlib
from collections.abc import Callable, Iterator
from functools import cached_property
from importlib.util import find_spec
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tokenizers import Tokenizer

BYTES_PER_TOKEN = 4
"""The estimate where no tokenizer is installed: English takes a little more, other scripts less."""

_PIECE_CHARACTERS = 8_192
_LINES = 32
"""About how many lines make a piece, whichever lines stand before them."""
_KEPT = 10_000


class TokenCounter:
    """Counts by Llama's tokenizer, which wordllama brings; other models differ by some percent.

    Without that package it estimates from the bytes, and `is_exact` is false.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: dict[bytes, int] = {}

    @cached_property
    def is_exact(self) -> bool:
        """Whether a tokenizer is installed."""
        return find_spec("wordllama") is not None and find_spec("tokenizers") is not None

    def count(self, text: str) -> int:
        """Return how many tokens a text has; a text counted before costs no more than its digest."""
        if not self.is_exact:
            return -(-len(text.encode()) // BYTES_PER_TOKEN)
        with self._lock:
            return self._known(text, lambda: sum(self._count_piece(piece) for piece in _pieces(text)))

    def _count_piece(self, piece: str) -> int:
        return self._known(
            piece, lambda: len(self._tokenizer.encode(piece, add_special_tokens=False).ids)
        )

    def _known(self, text: str, count: Callable[[], int]) -> int:
        digest = hashlib.blake2b(text.encode(), digest_size=16).digest()
        if digest not in self._counts:
            counted = count()
            if len(self._counts) >= _KEPT:
                self._counts.clear()
            self._counts[digest] = counted
        return self._counts[digest]

    @cached_property
    def _tokenizer(self) -> "Tokenizer":
        from soulkeep.embedders.wordllama import load_tokenizer

        return load_tokenizer()


def _pieces(text: str) -> Iterator[str]:
    """Yield a text in pieces that end with a line where they can: the tokenizer is slow on long ones.

    The lines themselves say where: after an edit all other pieces are the same as before.
    """
    begin = end = 0
    for line in text.splitlines(keepends=True):
        end += len(line)
        if zlib.crc32(line.encode()) % _LINES == 0 or end - begin >= _PIECE_CHARACTERS:
            for at in range(begin, end, _PIECE_CHARACTERS):
                yield text[at : min(at + _PIECE_CHARACTERS, end)]
            begin = end
    if begin < end:
        yield text[begin:end]
