"""Embedding questions without a recall that waits for an embedder that is slow or down."""

import math
import random
import threading
import time
from collections import OrderedDict
from concurrent.futures import Future
from datetime import timedelta

from soulkeep.embedders import Embedded, Embedder, usage_of
from soulkeep.errors import EmbedderError
from soulkeep.models import Clock, QueryVector, Session
from soulkeep.service.sessions import Sessions

PATIENCE_S = 0.5
"""How long a recall waits for its question, unless the embedder is known to take longer."""

KEPT = 100
"""How many embedded questions are kept, some 6 kB each, for those that are asked again."""

AT_ONCE = 4
"""How many questions are embedded at a time; more are not begun meanwhile."""

MAX_DELAY_S = 600.0
"""The longest time between two tries of an embedder that is down, if it does not ask for more."""

MAX_ASKED_S = 86_400.0
"""The longest time for which an embedder that asks to be left alone is."""

_Key = tuple[str, str]


def delay_s(attempts: int, first: float, most: float, asked: float | None = None) -> float:
    """Return how long to wait after so many failed attempts (1 or more), in seconds.

    It doubles with each up to `most`, and is varied, so that many do not come back at once; it is no
    less than what was `asked` for.
    """
    varied = random.uniform(0.5, 1) * min(first * 2.0 ** min(attempts - 1, 32), most)  # noqa: S311
    return max(varied, min(asked or 0, MAX_ASKED_S))


class Questions:
    """Has questions embedded: while the caller waits where that is quick, else beside the answer."""

    def __init__(self, sessions: Sessions, clock: Clock) -> None:
        self._sessions = sessions
        self._clock = clock
        self._lock = threading.Lock()
        self._known: OrderedDict[_Key, Embedded] = OrderedDict()
        self._under_way: dict[_Key, Future[Embedded]] = {}
        self._took = 0.0
        self._failures = 0
        self._problem = ""
        self._not_before = clock()

    def embed(self, query: str, embedder: Embedder, session: Session) -> tuple[QueryVector | None, str]:
        """Embed a question; where that takes too long or fails, return None and a remark that says so.

        It is finished beside the answer then, and kept for the next time. A quick embedder is always
        waited for.

        Raises:
            EmbedderError: A quick embedder cannot embed the question.
        """
        if embedder.is_quick:
            embedded = embedder.embed_query(query)
            self._sessions.record_usage(session, usage_of(embedder, embedded.tokens), flush=False)
            return _vector(query, embedder, embedded), ""
        found, remark = self._ask(query, embedder, session)
        return (None if found is None else _vector(query, embedder, found)), remark

    def _ask(self, query: str, embedder: Embedder, session: Session) -> tuple[Embedded | None, str]:
        key = embedder.identity, query
        with self._lock:
            if known := self._known.get(key):
                self._known.move_to_end(key)
                return known, ""
            asked = self._under_way.get(key) or self._begin(key, embedder, session)
            patience = PATIENCE_S if self._took <= PATIENCE_S else 0
        if asked is None:
            why = self._problem or "it is busy with other questions"
            return None, f"Search is by words alone, as the embedder has no answer now: {why}"
        try:
            return asked.result(patience), ""
        except TimeoutError:
            self._took = math.inf  # until one has taken less
            why = "the embedder takes long: asked again, the question is searched for by meaning too"
        except EmbedderError as error:
            why = str(error)
        return None, f"Search is by words alone, as {why.rstrip('.')}."

    def _begin(self, key: _Key, embedder: Embedder, session: Session) -> "Future[Embedded] | None":
        """Begin to embed a question in a thread, unless too many are or the embedder is down."""
        if len(self._under_way) >= AT_ONCE:
            return None
        if self._failures and self._clock() < self._not_before:
            return None
        asked = self._under_way[key] = Future()
        # A daemon: one that hangs keeps no process from ending.
        threading.Thread(target=self._finish, args=(key, embedder, session, asked), daemon=True).start()
        return asked

    def _finish(
        self, key: _Key, embedder: Embedder, session: Session, asked: "Future[Embedded]"
    ) -> None:
        begun = time.monotonic()
        try:
            embedded = embedder.embed_query(key[1])
        except EmbedderError as error:
            with self._lock:
                del self._under_way[key]
                if error.position is None:
                    self._failures, self._problem = self._failures + 1, str(error)
                    delay = delay_s(self._failures, 1, MAX_DELAY_S, error.retry_after_s)
                    self._not_before = self._clock() + timedelta(seconds=delay)
            asked.set_exception(error)
            return
        with self._lock:
            del self._under_way[key]
            self._failures, self._problem, self._took = 0, "", time.monotonic() - begun
            self._known[key] = embedded
            while len(self._known) > KEPT:
                self._known.popitem(last=False)
        asked.set_result(embedded)
        self._sessions.record_usage(session, usage_of(embedder, embedded.tokens), flush=False)


def _vector(query: str, embedder: Embedder, embedded: Embedded) -> QueryVector:
    weightings = embedder.weightings(query)
    return QueryVector(
        embedded.embeddings[0],
        embedder.identity,
        embedder.parts,
        [weighting.parts for weighting in weightings],
        is_centred=all(weighting.base is None for weighting in weightings),
    )
