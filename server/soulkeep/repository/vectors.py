"""What the service may ask of a store about vectors: those that serve, and those to come."""

from collections.abc import Collection, Mapping, Sequence
from typing import Protocol

from soulkeep.models import Embedding, Memory, MemoryFilter, QueryVector, Vector, Waiting


class Vectors(Protocol):
    """The vectors of memories, all of one embedder, which the store records by its identity.

    The first vector that a memory comes with claims its embedder. In a store with vectors, who has none,
    or one of another embedder, waits for it: see `list_pending`. Whatever takes vectors raises
    DimensionMismatchError for one of more than 1536 dimensions, and EmbedderError for one that is not of
    length 1, to one in a thousand.
    """

    def recorded_embedder(self) -> str | None:
        """Return the identity of the embedder that made the vectors; None before the first memory."""

    def claim_embedder(self, identity: str) -> None:
        """Record whose vectors the store will hold, unless that is known; inside a transaction."""

    def replace_vectors(self, memory_ids: Sequence[int], vectors: Sequence[Vector | None]) -> None:
        """Give memories these vectors, or none, in the place of those they have; in a transaction."""

    def reset_vectors(self, identity: str) -> None:
        """Delete every vector and record another embedder; inside a transaction.

        All memories wait for its vectors then, unless it makes none.
        """

    def compare(
        self, embedding: Embedding, parts: Sequence[int], memory_ids: Sequence[int]
    ) -> dict[int, tuple[float, ...]]:
        """Return the cosines (-1..1) of the parts of these lengths, for those that have a vector."""

    def list_pending(self, limit: int, now: str | None = None) -> list[int]:
        """Return the ids of memories that wait for their vectors, largest first.

        With `now`, a timestamp, those that were put off until later are left out.
        """

    def add_pending(self, vectors: Mapping[int, Vector]) -> None:
        """Give those of these memories that still wait their vectors; inside a transaction.

        A vector of another embedder than the store's is not taken.
        """

    def put_off(self, failed: Mapping[int, str], state: str, next_try: str) -> None:
        """Note why memories that wait have no vectors yet, and from when on that is tried again.

        Their state is `pending`, or `failed` where their text was refused; each call counts as an
        attempt. Inside a transaction.
        """

    def retry_pending(self) -> None:
        """Let all that wait have their turn now, as if never tried; inside a transaction."""

    def attempts(self, memory_ids: Sequence[int]) -> dict[int, int]:
        """Return which of these memories wait, and how often they were put off."""

    def waiting(self) -> Waiting:
        """Count the memories that wait for their vectors."""


class VectorSearch(Protocol):
    """The nearest memories. Called outside transactions; what others committed is found."""

    def load(self, parts: Sequence[int]) -> None:
        """Get ready for vectors with parts of these lengths: the first search then waits for nothing."""

    def nearest(
        self, embedding: Embedding, allowed: MemoryFilter, limit: int
    ) -> list[tuple[int, float]]:
        """Return ids and cosine distances (0..2) of up to 4096 memories, nearest first, then by id.

        The filter applies before the limit.
        """

    def compare(
        self, query: QueryVector, allowed: MemoryFilter, depth: int, also: Collection[int]
    ) -> dict[int, tuple[float, ...]]:
        """Return the cosines (-1..1) of each part by id, to 0.003, in no order.

        They are those of the nearest `depth` that pass the filter, by each weighting of the query, and
        those in `also`, whether they pass or not. None, where the vectors are another embedder's.
        """


class NextVectors(Protocol):
    """The vectors of the embedder that a store moves to, until all are there."""

    def count(self, identity: str) -> int:
        """Return how many memories have a vector of this embedder here."""

    def list_missing(
        self, identity: str, below: int, limit: int, but: Sequence[int] = ()
    ) -> list[Memory]:
        """Return memories with ids `below` that have none of this embedder here, largest id first.

        Those with ids in `but` are left out.
        """

    def measure_missing(self, identity: str) -> tuple[int, int]:
        """Count the memories that have no vector of an embedder, and the UTF-8 bytes of their texts.

        Where the store's vectors are of that embedder, these are the ones that wait.
        """

    def add(self, vectors: Mapping[Memory, Vector], identity: str) -> None:
        """Add vectors of memories that are still the same; inside a transaction. Others go."""

    def take_over(self, identity: str) -> None:
        """Let these serve in the place of all others; inside a transaction. Who has none waits."""

    def discard(self) -> None:
        """Delete them, whosever they are; inside a transaction."""
