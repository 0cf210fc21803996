"""Models of sentence-transformers and of fastembed, in this process: by a name or by a folder.

A folder is only read. A name is looked for on this machine first; only where it is not there does the
library fetch it, once, from where it is published.
"""

import hashlib
import json
import logging
import re
import threading
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from soulkeep.embedders.other_models import Family, OtherModel, estimated, family_of
from soulkeep.errors import EmbedderUnavailableError
from soulkeep.models import EmbedderChoice
from soulkeep.progress import tell
from soulkeep.wording import quoted

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
    price = 0.0
    kind: str
    package: str

    def __init__(self, model: str, choice: EmbedderChoice) -> None:
        """Run `model`, the name of a published one or a whole path, which has to be there.

        Raises:
            EmbedderUnavailableError: The library is not installed, or there is no such folder or name.
        """
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
                    self._loaded = self._here()
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

    def _here(self) -> Any:
        """Load the model from this machine, or fetch it where that is allowed and it is not here."""
        try:
            return self._load(offline=True)
        except (OSError, ValueError):
            if self.folder is not None:
                raise
            _log.warning("%s is not on this machine; %s fetches it", self.model, self.kind)
            return self._load(offline=False)

    def _unavailable(self, reason: str) -> EmbedderUnavailableError:
        remedy = f"correct SOULKEEP_EMBEDDER={self.kind}:MODEL, where MODEL is a name or a whole path"
        return EmbedderUnavailableError(self.kind, reason, remedy)


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

        if self.folder is None:
            return TextEmbedding(self.model, local_files_only=offline)
        name = f"soulkeep/{self.model}"
        if name not in {known["model"] for known in TextEmbedding.list_supported_models()}:
            self._describe(name)
        return TextEmbedding(name, specific_model_path=str(self.folder), local_files_only=True)

    def _describe(self, name: str) -> None:
        """Tell the library of the model in the folder, which it does not know."""
        from fastembed import TextEmbedding
        from fastembed.common.model_description import ModelSource, PoolingType

        assert self.folder is not None  # noqa: S101 - for the type checker
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
