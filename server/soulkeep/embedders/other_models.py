"""What all embedders have in common that soulkeep was not measured with.

Of such a model nobody knows how alike it finds unrelated texts: some give them cosines of 0.1, others of
0.8. It is asked once in a process, with a few short texts, and that is what chance brings up.

Models of sentence-transformers and of fastembed run in this process, by a name or by a folder. A folder
is only read. A name is looked for on this machine first; only where it is not there does the library
fetch it, once, from where it is published.
"""

import hashlib
import json
import logging
import re
import threading
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from soulkeep.embedders import (
    Embedded,
    Embedder,
    TextRefusedError,
    UnusableVectorsError,
    Weighting,
    whole,
)
from soulkeep.embedders.tokens import BYTES_PER_TOKEN
from soulkeep.errors import DimensionMismatchError, EmbedderUnavailableError
from soulkeep.models import EmbedderChoice
from soulkeep.progress import tell
from soulkeep.wording import quoted

if TYPE_CHECKING:
    from numpy.typing import NDArray

WIDTH = 1536
"""The width of the store's table, and of the vectors of a model of unknown width: zeros follow them."""

WEIGHT, CHANCE = 3.0, 0.78
"""As for the multilingual encoder alone, once what unrelated texts have is taken from the cosines."""

NEAR = 0.33
"""How alike that encoder finds a question and a text that is near it and no answer, by the texts below.
A model that finds these more alike brings up more by chance, in proportion."""

MOST_BASE = 0.98
"""Where unrelated texts are still more alike, the model tells nothing apart."""

# Each question is about the statement in its place, which does not answer it, and about no other.
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
    "What does a ticket for the ferry cost?",
    "Where does Anna work?",
    "Who pays the invoices?",
    "Which orchestra will play on Sunday?",
    "How large is the barn?",
    "Who wrote the last commit?",
    "Where did my grandmother go to school?",
    "How many people work in the office?",
)

# How the common families want their texts, by the name of the model: one that was trained with prefixes
# is worse without them, and the other way round. Each line names its source.

_SEARCH = "Represent this sentence for searching relevant passages: "
_INSTRUCT = (
    "Instruct: Given a web search query, retrieve relevant passages that answer the query\nQuery: "
)
_QWEN = _INSTRUCT.rstrip(" ")


@dataclass(frozen=True, slots=True)
class Family:
    """What stands before a question and before a text that is kept, and how wide the vectors are.

    `dimensions` is 0 where it is unknown. The first of the dimensions alone are a good vector too where
    the model `can_be_cut` (Matryoshka representation learning: Kusupati et al., NeurIPS 2022).
    """

    query: str = ""
    passage: str = ""
    dimensions: int = 0
    can_be_cut: bool = False


UNKNOWN = Family()

_SIZES = {"xs": 384, "small": 384, "s": 384, "base": 768, "m": 768, "large": 1024, "l": 1024}

# The first pattern that is found in a name counts. A named group `size` says how wide the vectors are.
_FAMILIES: tuple[tuple[str, Family], ...] = (
    # platform.openai.com/docs/guides/embeddings: "dimensions" shortens the third generation.
    (r"^text-embedding-3-small", Family(dimensions=1536, can_be_cut=True)),
    (r"^text-embedding-3-large", Family(dimensions=3072, can_be_cut=True)),
    (r"^text-embedding-ada-002", Family(dimensions=1536)),
    # huggingface.co/intfloat/multilingual-e5-large-instruct and e5-mistral-7b-instruct
    (r"\be5-large-instruct", Family(_INSTRUCT, dimensions=1024)),
    (r"\be5-mistral", Family(_INSTRUCT, dimensions=4096)),
    # huggingface.co/intfloat/e5-base-v2 and multilingual-e5-base
    (r"\be5-(?P<size>small|base|large)", Family("query: ", "passage: ")),
    (r"\be5\b", Family("query: ", "passage: ")),
    # huggingface.co/BAAI/bge-m3: no instruction; bge-base-zh-v1.5 and bge-base-en-v1.5: for questions
    (r"\bbge-m3", Family(dimensions=1024)),
    (r"\bbge-small-zh", Family("为这个句子生成表示以用于检索相关文章：", dimensions=512)),  # noqa: RUF001 - as published
    (r"\bbge-(?P<size>base|large)-zh", Family("为这个句子生成表示以用于检索相关文章：")),  # noqa: RUF001 - as published
    (r"\bbge-(?P<size>small|base|large)", Family(_SEARCH)),
    # huggingface.co/nomic-ai/nomic-embed-text-v1, v1.5 (can be cut) and v2-moe (can be cut)
    (r"\bnomic-embed-text-v1(?!\.5)", Family("search_query: ", "search_document: ", 768)),
    (r"\bnomic-embed-text", Family("search_query: ", "search_document: ", 768, can_be_cut=True)),
    # huggingface.co/google/embeddinggemma-300m
    (
        r"\bembeddinggemma|\bembedding-gemma",
        Family("task: search result | query: ", "title: none | text: ", 768, can_be_cut=True),
    ),
    # huggingface.co/Alibaba-NLP/gte-Qwen2-1.5B-instruct and gte-Qwen2-7B-instruct
    (r"\bgte-qwen2?-?1\.5b", Family(_INSTRUCT, dimensions=1536)),
    (r"\bgte-qwen", Family(_INSTRUCT)),
    # huggingface.co/thenlper/gte-base, Alibaba-NLP/gte-large-en-v1.5 and gte-multilingual-base: none
    (r"\bgte-multilingual-base|\bgte-modernbert-base", Family(dimensions=768)),
    (r"\bgte-(?P<size>small|base|large)", Family()),
    # huggingface.co/Qwen/Qwen3-Embedding-0.6B, 4B and 8B: no space after the colon
    (r"\bqwen3-embedding[-:]0\.6b", Family(_QWEN, dimensions=1024, can_be_cut=True)),
    (r"\bqwen3-embedding[-:]4b", Family(_QWEN, dimensions=2560, can_be_cut=True)),
    (r"\bqwen3-embedding[-:]8b", Family(_QWEN, dimensions=4096, can_be_cut=True)),
    (r"\bqwen3-embedding", Family(_QWEN, can_be_cut=True)),
    # huggingface.co/mixedbread-ai/mxbai-embed-large-v1
    (r"\bmxbai-embed-large", Family(_SEARCH, dimensions=1024, can_be_cut=True)),
    # huggingface.co/Snowflake/snowflake-arctic-embed-m and snowflake-arctic-embed-l-v2.0
    (r"\barctic-embed-(?P<size>m|l)-v2", Family("query: ", can_be_cut=True)),
    (r"\barctic-embed2", Family("query: ", dimensions=1024, can_be_cut=True)),
    (r"\barctic-embed-(?P<size>xs|s|m|l)\b", Family(_SEARCH)),
    # huggingface.co/sentence-transformers/all-MiniLM-L6-v2 and all-mpnet-base-v2: none
    (r"\b(all|paraphrase|multi-qa)-.*minilm", Family(dimensions=384)),
    (r"\b(all|paraphrase|multi-qa)-.*mpnet", Family(dimensions=768)),
)


def family_of(model: str) -> Family:
    """Return what is known of a model by its name, which may have an owner, a tag or a suffix."""
    name = model.lower().replace("_", "-")
    for pattern, family in _FAMILIES:
        if found := re.search(pattern, name):
            size = _SIZES.get(found.groupdict().get("size", ""), family.dimensions)
            return Family(family.query, family.passage, size, family.can_be_cut)
    return UNKNOWN


_Prefixed = tuple[str, str]
"""What stands before a text, and the text."""


class OtherModel(Embedder):
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

    @abstractmethod
    def _encode(self, texts: Sequence[_Prefixed], *, is_query: bool) -> "tuple[list[Any], int]":
        """Return a row of numbers for each text, as the model gives them, and the tokens of all.

        A caller waits for it where it `is_query`.

        Raises:
            EmbedderError: The model cannot be loaded, reached or used.
        """

    def weightings(self, query: str) -> Sequence[Weighting]:
        """Return the one weighting that there is; see Embedder."""
        return (self._weighting or Weighting((WEIGHT,), CHANCE, 0.0),)

    def embed_query(self, query: str) -> Embedded:
        """Embed a question behind its prefix; see Embedder."""
        return self.embed([query], is_query=True)

    def embed(self, texts: Sequence[str], *, is_query: bool = False) -> Embedded:
        """Embed each text behind its prefix; see Embedder.

        The first time also those are embedded by which the cosine of unrelated texts is found.
        """
        import numpy as np

        asks, keeps = self._prefixes
        ours = [(keeps, text) for text in _STATEMENTS] + [(asks, text) for text in _QUESTIONS]
        if self._weighting is not None:
            ours = []
        theirs = [(asks if is_query else keeps, whole(text)) for text in texts]
        try:
            vectors, tokens = self._vectors([*ours, *theirs], is_query=is_query)
        except TextRefusedError as error:
            place = (error.position or 0) - len(ours)
            if place < 0:  # no fault of the texts of the caller
                raise UnusableVectorsError(self.model, f"of a plain sentence, {error.reason}") from error
            raise TextRefusedError(place, len(texts[place]), error.reason) from None
        if ours:
            # How alike a question and its statement are, and how alike all others: none of them answers.
            statements, questions = np.split(vectors[: len(ours)], 2)
            cosines = questions @ statements.T
            about, count = float(cosines.trace()), len(cosines)
            base = min(max((float(cosines.sum()) - about) / (count * (count - 1)), 0.0), MOST_BASE)
            near = (about / count - base) / (1 - base)
            self._weighting = Weighting((WEIGHT,), CHANCE * min(max(near / NEAR, 0.5), 2.0), base)
        return Embedded(tuple(vector.tobytes() for vector in vectors[len(ours) :]), tokens)

    def _vectors(self, texts: Sequence[_Prefixed], *, is_query: bool) -> "tuple[NDArray[Any], int]":
        import numpy as np

        rows, tokens = self._encode(texts, is_query=is_query)
        found = self._found
        vectors = np.zeros((len(texts), self.parts[0]), "<f4")
        for place, row in enumerate(rows):
            try:
                numbers = np.asarray(row, np.float64)
            except (TypeError, ValueError, OverflowError):
                raise UnusableVectorsError(self.model, "what should be a vector is none") from None
            kept = self._fitted(numbers, found)
            found = len(numbers)
            length = float(np.linalg.norm(kept))
            if not 0 < length < float("inf"):
                reason = "its vector has no direction" if length == 0 else "its vector is not finite"
                raise TextRefusedError(place, len(texts[place][1]), reason)
            vectors[place, : len(kept)] = kept / length
        self._found = found
        return vectors, tokens

    def _fitted(self, numbers: "NDArray[Any]", found: int) -> "NDArray[Any]":
        """Check how many numbers a vector has, as those before it, and cut it where that can be done."""
        if numbers.ndim != 1 or not len(numbers):
            raise UnusableVectorsError(self.model, "what should be a vector is none")
        if found and len(numbers) != found:
            detail = f"vectors of {found} and of {len(numbers)} dimensions"
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


def estimated(texts: Sequence[str]) -> int:
    """Return about how many tokens texts have, for models that do not say."""
    return sum(-(-len(text.encode()) // BYTES_PER_TOKEN) for text in texts)


_PREFIX = re.compile(r' "(?:[^"\\]|\\.)*"$')


def choices_of(identity: str, choice: EmbedderChoice) -> Iterator[EmbedderChoice]:
    """Yield what may have been chosen when vectors of this identity were made, reached as it is now."""
    written, dimensions, _ = identity.rsplit(":", 2)
    found = _PREFIX.search(written)
    name, prefix = _PREFIX.sub("", written), json.loads(found[0]) if found else ""
    for width in (None, int(dimensions)):
        yield replace(choice, name=name, passage_prefix=prefix, dimensions=width)


_NAME = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?")
"""What a published model is called: perhaps its owner, and its name."""

_AT_ONCE = 32
"""Texts in one batch of the model: more take more memory, and hardly less time."""

_TAIL = 4_096
_NOT_OF_THE_MODEL = (".md", ".lock", ".png")

_log = logging.getLogger(__name__)


class _LocalModel(OtherModel):
    """A model that a library runs; `kind` is what SOULKEEP_EMBEDDER calls that."""

    is_local = True
    price: float | None = 0.0
    kind: str
    package: str

    def __init__(self, model: str, choice: EmbedderChoice) -> None:
        """Run `model`, the name of a published one or a whole path, which has to be there.

        Raises:
            EmbedderUnavailableError: The library is not installed, or there is no such folder or name.
        """
        remedy = f"correct SOULKEEP_EMBEDDER={self.kind}:MODEL, where MODEL is a name or a whole path"
        self._unavailable = partial(EmbedderUnavailableError, self.kind, remedy=remedy)
        if find_spec(self.package) is None:
            remedy = f"install it with `pip install soulkeep[{self.kind}]`"
            raise EmbedderUnavailableError(self.kind, f"{self.package} is not installed", remedy)
        folder = Path(model).expanduser()
        self.folder = folder if folder.is_absolute() else None
        name, family = model, family_of(model)
        if self.folder is not None:
            if not self.folder.is_dir():
                raise self._unavailable(f"there is no folder {quoted(model)}")
            name = f"{self.folder.name}#{_digest(self.folder)}"
            family = _family_in(self.folder, family_of(self.folder.name))
        elif not _NAME.fullmatch(model):
            raise self._unavailable(f"{quoted(model)} is neither a model's name nor a whole path")
        super().__init__(self.kind, name, family, choice)
        self._lock = threading.Lock()
        self._loaded: Any = None

    @abstractmethod
    def _load(self, *, offline: bool) -> Any:
        """Load the model; without `offline` it may be fetched."""

    @abstractmethod
    def _run(self, loaded: Any, texts: Sequence[str], prefix: str) -> list[Any]:
        """Return the vectors of texts behind a prefix."""

    def load(self) -> None:
        """Do nothing: the library alone takes seconds to import, which no call should wait for."""

    def release(self) -> None:
        """Forget the model; what is embedded next loads it again."""
        with self._lock:
            self._loaded = None

    def _encode(self, texts: Sequence[tuple[str, str]], *, is_query: bool) -> tuple[list[Any], int]:
        rows: dict[int, Any] = {}
        with self._lock:
            try:
                if self._loaded is None:
                    tell("Loading the model")
                    try:
                        self._loaded = self._load(offline=True)
                    except (OSError, ValueError):
                        if self.folder is not None:
                            raise
                        _log.warning("%s is not on this machine; %s fetches it", self.model, self.kind)
                        self._loaded = self._load(offline=False)
                for prefix in dict.fromkeys(prefix for prefix, _ in texts):
                    places = [place for place, pair in enumerate(texts) if pair[0] == prefix]
                    rows |= zip(
                        places,
                        self._run(self._loaded, [texts[place][1] for place in places], prefix),
                        strict=True,
                    )
            except Exception as error:  # whatever the libraries of the library raise
                raise self._unavailable(quoted(str(error))) from error
        return [rows[place] for place in range(len(texts))], estimated([text for _, text in texts])


class SentenceTransformers(_LocalModel):
    """A model that the package sentence-transformers runs."""

    kind = "sentence-transformers"
    package = "sentence_transformers"

    def _load(self, *, offline: bool) -> Any:
        from sentence_transformers import SentenceTransformer

        return SentenceTransformer(str(self.folder or self.model), local_files_only=offline)

    def _run(self, loaded: Any, texts: Sequence[str], prefix: str) -> list[Any]:
        # As its prompt, which some models leave out of the mean of a text.
        return list(
            loaded.encode(list(texts), prompt=prefix, batch_size=_AT_ONCE, show_progress_bar=False)
        )


class FastEmbed(_LocalModel):
    """A model that the package fastembed runs; a folder holds an ONNX file and a tokenizer."""

    kind = "fastembed"
    package = "fastembed"

    def _load(self, *, offline: bool) -> Any:
        from fastembed import TextEmbedding
        from fastembed.common.model_description import ModelSource, PoolingType

        if self.folder is None:
            return TextEmbedding(self.model, local_files_only=offline)
        name = f"soulkeep/{self.model}"
        if name not in {known["model"] for known in TextEmbedding.list_supported_models()}:
            # The library does not know the model in the folder.
            files = sorted(self.folder.rglob("*.onnx"), key=lambda file: (len(file.parts), file.name))
            if not files:
                raise FileNotFoundError(f"there is no .onnx file in {self.folder}")
            pooling = _read(self.folder / "1_Pooling" / "config.json")
            is_first = pooling.get("pooling_mode_cls_token") or pooling.get("pooling_mode") == "cls"
            TextEmbedding.add_custom_model(
                name,
                pooling=PoolingType.CLS if is_first else PoolingType.MEAN,
                normalization=True,
                sources=ModelSource(hf=name),
                dim=self.parts[0],
                model_file=files[0].relative_to(self.folder).as_posix(),
            )
        return TextEmbedding(name, specific_model_path=str(self.folder), local_files_only=True)

    def _run(self, loaded: Any, texts: Sequence[str], prefix: str) -> list[Any]:
        return list(loaded.embed([prefix + text for text in texts], batch_size=_AT_ONCE))


def _family_in(folder: Path, family: Family) -> Family:
    """Return what the files in a folder say of its model, and where they do not, its name."""
    prompts = _read(folder / "config_sentence_transformers.json").get("prompts") or {}
    kept = prompts.get("document") or prompts.get("passage")
    if prompts.get("query") or kept:
        family = replace(family, query=prompts.get("query") or "", passage=kept or "")
    width = _read(folder / "config.json").get("hidden_size")
    for part in sorted(folder.glob("[0-9]*_*/config.json")):  # one after the other: pooling, then layers
        said = _read(part)
        names = ("out_features", "embedding_dimension", "word_embedding_dimension")
        width = next((said[name] for name in names if said.get(name)), width)
    return replace(family, dimensions=width) if isinstance(width, int) else family


def _read(file: Path) -> Mapping[str, Any]:
    with suppress(OSError, ValueError):
        found = json.loads(file.read_text(encoding="utf-8"))
        return found if isinstance(found, dict) else {}
    return {}


def _digest(folder: Path) -> str:
    """Return what tells a folder with a model from another: names, sizes and ends of its files."""
    digest = hashlib.sha256()
    for file in sorted(folder.rglob("*")):
        name = file.relative_to(folder).as_posix()
        if file.is_file() and not name.startswith(".") and file.suffix not in _NOT_OF_THE_MODEL:
            with file.open("rb") as stream:
                size = stream.seek(0, 2)
                stream.seek(max(size - _TAIL, 0))
                digest.update(f"{name}\0{size}\0".encode() + stream.read())
    return digest.hexdigest()[:12]
