"""A store of many memories in little time, by an embedder that varies a few hundred real vectors."""

import threading
from collections.abc import Sequence
from contextlib import closing
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from soulkeep.app import open_backups, open_home
from soulkeep.days import Days
from soulkeep.documents import Documents, Folder
from soulkeep.embedders import Embedded, Embedder
from soulkeep.embedders.meaning import Meaning
from soulkeep.engines import STORE_NAME
from soulkeep.models import Options, utc_now
from soulkeep.repository.sqlite import SqliteRepository
from soulkeep.service.callers import Sessions
from soulkeep.service.home import Home

EMBEDDED = 400
"""So many texts are really embedded, the first that come."""

NOISE = 0.3
"""The length of what is added to each part of a vector before it is made a unit vector again: as far
apart as two sentences that share half their words."""


class Filling(Meaning):
    """The default embedder, but most texts get the vector of an earlier one with noise added."""

    def __init__(self, embedded: int = EMBEDDED) -> None:
        """Make vectors that vary those of so many texts, the first that come."""
        super().__init__()
        self._real = embedded
        self._random = np.random.default_rng(17)
        self._lock = threading.Lock()
        self._known: NDArray[np.float32] = np.empty((0, sum(self.parts)), np.float32)

    def embed(self, texts: Sequence[str]) -> Embedded:
        """Embed the first few hundred texts; make up the vectors of all others."""
        with self._lock:
            own = texts[: self._real - len(self._known)]
            vectors = [np.frombuffer(vector, "<f4") for vector in super().embed(own).embeddings]
            self._known = np.vstack((self._known, *vectors))
            places = self._random.integers(len(self._known), size=len(texts) - len(own))
            made = (self._varied(self._known[place]) for place in places)
            return Embedded(tuple(vector.tobytes() for vector in (*vectors, *made)), 10 * len(texts))

    def _varied(self, vector: NDArray[np.float32]) -> NDArray[np.float32]:
        ends = np.cumsum(self.parts)[:-1]
        parts = []
        for part in np.split(vector, ends):
            noise = self._random.standard_normal(len(part)) / len(part) ** 0.5
            varied = part / np.linalg.norm(part) + NOISE * noise
            parts.append(varied / np.linalg.norm(varied) / len(self.parts) ** 0.5)
        return np.concatenate(parts).astype("<f4")


def open_filling(path: Path) -> Home:
    """Open a home, made if it is missing, in which memories are kept with such vectors."""
    return open_with(path, Filling())


def open_with(path: Path, embedder: Embedder) -> Home:
    """Open a home, made if it is missing, with an embedder that no setting names."""
    with closing(open_home(path, embedder="none")) as home:
        options = home.options
    repository = SqliteRepository(path / STORE_NAME, lambda _: None, Days(options.timezone))
    documents = Documents(Folder(path), utc_now, options.timezone)
    sessions, backups = Sessions(repository, utc_now), partial(open_backups, path)
    return Home(path, documents, repository, sessions, embedder, utc_now, Options(), backups)
