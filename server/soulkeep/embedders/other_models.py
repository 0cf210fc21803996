"""What all embedders have in common that soulkeep was not measured with.

Of such a model nobody knows how alike it finds unrelated texts: some give them cosines of 0.1, others of
0.8. It is asked once in a process, with a few short texts, and that is what chance brings up.
"""

import json
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from soulkeep.embedders import Embedded, Weighting
from soulkeep.embedders.endpoint_errors import TextRefusedError, UnusableVectorsError
from soulkeep.embedders.families import Family
from soulkeep.errors import DimensionMismatchError
from soulkeep.models import EmbedderChoice

if TYPE_CHECKING:
    from numpy.typing import NDArray

WIDTH = 1536
"""The width of the store's table, and of the vectors of a model of unknown width: zeros follow them."""

WEIGHT, CHANCE = 3.0, 0.78
"""As for the multilingual encoder alone, once what unrelated texts have is taken from the cosines."""

MOST_BASE = 0.98
"""Where unrelated texts are still more alike, the model tells nothing apart."""

# None of these answers, or is about what, any of those asks.
_STATEMENTS = (
    "The ferry to the island leaves at nine.",
    "Anna is allergic to peanuts.",
    "The invoices are kept in the blue folder.",
    "He plays the cello in an orchestra.",
    "The roof of the barn leaks when it rains.",
    "Tests run on every commit.",
    "My grandmother was born in 1931.",
    "The office moves to the third floor in May.",
)
_QUESTIONS = (
    "Which database does the project use?",
    "What is the name of my dog?",
    "How do I take my coffee?",
    "When did we plant the apple trees?",
    "Who won the chess tournament?",
    "What colour is the new car?",
    "Where do I buy bread?",
    "Which films does she like?",
)


class OtherModel(ABC):
    """One vector for a text, of length one, and one weighting, derived from a few texts."""

    is_quick = False

    def __init__(self, kind: str, model: str, family: Family, choice: EmbedderChoice) -> None:
        """Use a model of a kind such as `openai`; `family` says what is known of it."""
        self.model = model
        self._prefixes = (
            family.query if choice.query_prefix is None else choice.query_prefix,
            family.passage if choice.passage_prefix is None else choice.passage_prefix,
        )
        self._can_be_cut = family.can_be_cut
        self._wanted = choice.dimensions or min(family.dimensions, WIDTH)
        self._found = 0
        self._weighting: Weighting | None = None
        prefix = f" {json.dumps(self._prefixes[1], ensure_ascii=False)}" if self._prefixes[1] else ""
        self.identity = f"{kind}:{model}{prefix}:{self._wanted or WIDTH}:unit"
        self.parts = (self._wanted or WIDTH,)

    @property
    @abstractmethod
    def is_local(self) -> bool:
        """Whether texts stay on this machine; see Embedder."""

    @property
    @abstractmethod
    def price(self) -> float | None:
        """US dollars for a million tokens; see Embedder."""

    @abstractmethod
    def _encode(self, texts: Sequence[str], *, is_query: bool) -> "tuple[list[Any], int]":
        """Return a row of numbers for each text, as the model gives them, and the tokens of all.

        Raises:
            EmbedderError: The model cannot be loaded, reached or used.
        """

    def weightings(self, query: str) -> Sequence[Weighting]:
        """Return the one weighting that there is; see Embedder."""
        return (self._weighting or Weighting((WEIGHT,), CHANCE, 0.0),)

    def weighting(self, query: str, text: str) -> Weighting:
        """Return the one weighting that there is; see Embedder."""
        return self.weightings(query)[0]

    def embed(self, texts: Sequence[str]) -> Embedded:
        """Embed each text behind its prefix; see Embedder."""
        return self._embed(texts, is_query=False)

    def embed_query(self, query: str) -> Embedded:
        """Embed a question behind its prefix; see Embedder."""
        return self._embed([query], is_query=True)

    @abstractmethod
    def load(self) -> None:
        """Load what can be loaded without asking anybody; see Embedder."""

    @abstractmethod
    def release(self) -> None:
        """Give back what can be had again; see Embedder."""

    def _embed(self, texts: Sequence[str], *, is_query: bool) -> Embedded:
        measured = self._measure()
        vectors, tokens = self._vectors(texts, is_query=is_query)
        return Embedded(tuple(vector.tobytes() for vector in vectors), tokens + measured)

    def _measure(self) -> int:
        """Ask the model once how alike it finds unrelated texts; return how many tokens that took."""
        if self._weighting is not None:
            return 0
        try:
            statements, tokens = self._vectors(_STATEMENTS, is_query=False)
            questions, others = self._vectors(_QUESTIONS, is_query=True)
        except TextRefusedError as error:  # of ours, not of those that the caller has
            raise UnusableVectorsError(self.model, f"of a plain sentence, {error.reason}") from error
        base = float((questions @ statements.T).mean())
        self._weighting = Weighting((WEIGHT,), CHANCE, min(max(base, 0.0), MOST_BASE))
        return tokens + others

    def _vectors(self, texts: Sequence[str], *, is_query: bool) -> "tuple[NDArray[Any], int]":
        import numpy as np

        prefix = self._prefixes[0 if is_query else 1]
        rows, tokens = self._encode([prefix + _whole(text) for text in texts], is_query=is_query)
        vectors = np.zeros((len(texts), self.parts[0]), "<f4")
        for place, row in enumerate(rows):
            try:
                numbers = np.asarray(row, np.float64)
            except (TypeError, ValueError, OverflowError):
                raise UnusableVectorsError(self.model, "what should be a vector is none") from None
            kept = self._fitted(numbers)
            length = float(np.linalg.norm(kept))
            if not 0 < length < float("inf"):
                reason = "its vector has no direction" if length == 0 else "its vector is not finite"
                raise TextRefusedError(place, len(texts[place]), reason)
            vectors[place, : len(kept)] = kept / length
        return vectors, tokens

    def _fitted(self, numbers: "NDArray[Any]") -> "NDArray[Any]":
        """Check how many numbers a vector has, and cut it where the model allows that."""
        if numbers.ndim != 1 or not len(numbers):
            raise UnusableVectorsError(self.model, "what should be a vector is none")
        self._found = self._found or len(numbers)
        if len(numbers) != self._found:
            detail = f"vectors of {self._found} and of {len(numbers)} dimensions"
            raise UnusableVectorsError(self.model, detail)
        most = self.parts[0]
        if len(numbers) > most and self._can_be_cut:
            return numbers[:most]
        if len(numbers) > WIDTH:
            raise DimensionMismatchError(WIDTH, len(numbers))
        if self._wanted and len(numbers) != self._wanted:
            detail = f"vectors of {len(numbers)} dimensions, not {self._wanted}"
            raise UnusableVectorsError(self.model, detail)
        return numbers


_PREFIX = re.compile(r' "(?:[^"\\]|\\.)*"$')


def choices_of(identity: str, choice: EmbedderChoice) -> Iterator[EmbedderChoice]:
    """Yield what may have been chosen when vectors of this identity were made, reached as it is now."""
    written, dimensions, _ = identity.rsplit(":", 2)
    found = _PREFIX.search(written)
    name, prefix = _PREFIX.sub("", written), json.loads(found[0]) if found else ""
    for width in (None, int(dimensions)):
        yield replace(choice, name=name, passage_prefix=prefix, dimensions=width)


def _whole(text: str) -> str:
    """Return a text with the halves of its surrogate pairs joined, and a sign for one that is alone."""
    return text if text.isascii() else text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
