"""Embeddings of any OpenAI-compatible endpoint: POST {base}/embeddings.

OpenAI, Azure (its /openai/v1), Ollama, LM Studio, vLLM, TEI and llama.cpp answer it in the same form:
platform.openai.com/docs/api-reference/embeddings. What comes back is checked: it may be anything.
"""

import ipaddress
import json
import math
import queue
import ssl
import threading
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit, urlunsplit

from soulkeep.embedders import (
    BadAnswerError,
    EndpointFailedError,
    EndpointMovedError,
    EndpointRefusedError,
    EndpointTimeoutError,
    EndpointUnreachableError,
    EndpointUntrustedError,
    KeyRefusedError,
    RateLimitedError,
    TextRefusedError,
)
from soulkeep.embedders.other_models import WIDTH, OtherModel, estimated, family_of
from soulkeep.errors import EmbedderError, EmbedderUnavailableError
from soulkeep.models import EmbedderChoice
from soulkeep.wording import quoted

if TYPE_CHECKING:
    import httpx2

OPENAI = "https://api.openai.com/v1"

QUERY_S = 5.0
"""The longest that a question waits for its answer, in seconds: what is kept may wait longer."""

AT_ONCE = 128
AT_ONCE_CHARACTERS = 100_000
"""Texts of one request at first; an endpoint that takes fewer is asked for fewer from then on."""

_MOST_BYTES = 64 * 1024 * 1024
"""An answer that is longer is none: 128 vectors of 4,096 numbers take some 12 MB."""

_LONGEST_WAIT_S = 86_400.0

_SHOWN_OF_KEY = 8
"""Where so many characters of the key are in what an endpoint says, none of that is repeated."""


_unavailable = partial(EmbedderUnavailableError, "openai")


class _Answer(NamedTuple):
    status: int
    headers: Mapping[str, str]
    content: bytes


@dataclass(eq=False)
class _RequestRefusedError(Exception):
    """The endpoint refuses these texts together, or one of the arguments."""

    status: int
    said: str


class Endpoint(OtherModel):
    """A model behind an address; texts go there, and nowhere else, also where it redirects."""

    def __init__(self, model: str, choice: EmbedderChoice) -> None:
        """Ask for vectors of `model` at the address of `choice`, by default that of OpenAI.

        Raises:
            EmbedderUnavailableError: The address or the key cannot be used.
        """
        family = family_of(model)
        super().__init__("openai", model, family, choice)
        self._key = choice.key.get_secret_value().strip()
        self._timeout_s = choice.timeout_s
        self._url, self.address, self._host = _parsed(choice.url or OPENAI)
        self.is_local = self._host == "localhost"
        with suppress(ValueError):
            self.is_local = self.is_local or ipaddress.ip_address(self._host).is_loopback
        # What the user said, else nothing on this machine, and elsewhere it is unknown.
        self.price = choice.prices.get(model, 0.0 if self.is_local else None)
        if not self._key and not choice.url:
            raise _unavailable("there is no key for OpenAI", "set SOULKEEP_EMBEDDER_KEY")
        if not (self._key.isascii() and self._key.isprintable()) or " " in self._key:
            raise _unavailable(
                "the key has characters that no key has", "set SOULKEEP_EMBEDDER_KEY anew"
            )
        # Many endpoints refuse the argument, so it is sent only where it changes something.
        self._asked = choice.dimensions or (WIDTH if family.dimensions > WIDTH else 0)
        self._may_ask = True
        self._at_once = AT_ONCE
        self._lock = threading.Lock()
        self._client: httpx2.Client | None = None
        self._close: Callable[[], object] = lambda: None

    def load(self) -> None:
        """Make ready what asks; nothing is asked yet, so that a store opens where nobody answers."""
        self._connected()

    def release(self) -> None:
        """Close the connections; what is embedded next opens them again."""
        with self._lock:
            self._client = None
            self._close()

    def _encode(self, texts: Sequence[tuple[str, str]], *, is_query: bool) -> tuple[list[Any], int]:
        whole = [prefix + text for prefix, text in texts]
        timeout_s = min(self._timeout_s, QUERY_S) if is_query else self._timeout_s
        rows: list[Any] = []
        tokens = 0
        while len(rows) < len(whole):
            begin = end = len(rows)
            room = AT_ONCE_CHARACTERS
            while end < len(whole) and end - begin < self._at_once and (room >= 0 or end == begin):
                room -= len(whole[end])
                end += 1
            some, count = self._divided(whole[begin:end], begin, timeout_s)
            rows += some
            tokens += count
        return rows, tokens

    def _divided(self, texts: Sequence[str], begin: int, timeout_s: float) -> tuple[list[Any], int]:
        """Embed texts, in halves where they are refused together, until it shows which one is."""
        try:
            return self._asked_for(texts, timeout_s)
        except _RequestRefusedError as error:
            refused = error
        if len(texts) == 1:
            try:
                self._asked_for(["word"], timeout_s)
            except _RequestRefusedError:
                raise EndpointRefusedError(self.address, refused.status, refused.said) from None
            reason = f"status {refused.status}{refused.said and f': {refused.said}'}"
            raise TextRefusedError(begin, len(texts[0]), reason)
        half = len(texts) // 2
        first, tokens = self._divided(texts[:half], begin, timeout_s)
        second, others = self._divided(texts[half:], begin + half, timeout_s)
        self._at_once = min(self._at_once, len(texts) - half)
        return first + second, tokens + others

    def _asked_for(self, texts: Sequence[str], timeout_s: float) -> tuple[list[Any], int]:
        """Embed texts, asking for fewer dimensions where the model has too many and can do that."""
        try:
            rows, tokens = self._request(texts, self._asked, timeout_s)
        except _RequestRefusedError:
            if not self._asked:
                raise
            rows, tokens = self._request(texts, 0, timeout_s)
            self._asked, self._may_ask = 0, False
        if self._may_ask and not self._asked and len(rows[0]) > WIDTH:
            self._may_ask = False
            with suppress(_RequestRefusedError):
                rows, others = self._request(texts, WIDTH, timeout_s)
                self._asked, tokens = WIDTH, tokens + others
        return rows, tokens

    def _request(self, texts: Sequence[str], dimensions: int, timeout_s: float) -> tuple[list[Any], int]:
        body: dict[str, Any] = {"model": self.model, "input": list(texts)}
        body |= {"dimensions": dimensions} if dimensions else {}
        # In a thread: looking up a name, and an answer that comes byte by byte, have no end of their
        # own, and nothing may take longer than the time that it has.
        outcome: queue.SimpleQueue[_Answer | EmbedderError] = queue.SimpleQueue()
        send = threading.Thread(
            target=lambda: outcome.put(self._answer(body, timeout_s)), name="endpoint", daemon=True
        )
        send.start()
        try:
            got = outcome.get(timeout=timeout_s)
        except queue.Empty:
            got = EndpointTimeoutError(self.address, timeout_s)
            self.release()  # so that the thread, which may still be read to, has nothing to wait for
        # Not where the library's error was caught: frames of it that hold the key would hang on to ours.
        if isinstance(got, EmbedderError):
            raise got
        if got.status != 200:
            raise self._refusal(got)
        rows, tokens = self._read(got.content, len(texts))
        return rows, estimated(texts) if tokens is None else tokens

    def _answer(self, body: Mapping[str, Any], timeout_s: float) -> _Answer | EmbedderError:
        import httpx2

        until = time.monotonic() + timeout_s
        try:
            with self._connected().stream("POST", self._url, json=body, timeout=timeout_s) as response:
                content = bytearray()
                for part in response.iter_bytes():
                    content += part
                    if len(content) > _MOST_BYTES:
                        return BadAnswerError(self.address, "it has no end")
                    if time.monotonic() > until:
                        return EndpointTimeoutError(self.address, timeout_s)
                return _Answer(response.status_code, response.headers, bytes(content))
        except httpx2.TimeoutException:
            return EndpointTimeoutError(self.address, timeout_s)
        except (httpx2.DecodingError, httpx2.RemoteProtocolError, httpx2.InvalidURL) as error:
            broken = isinstance(error, httpx2.RemoteProtocolError)
            kind = EndpointUnreachableError if broken else BadAnswerError
            return kind(self.address, self._shown(str(error)) or "no HTTP")
        except (httpx2.HTTPError, RuntimeError) as error:  # one is raised where release() came between
            if cause := _cause(error, ssl.SSLError):
                return EndpointUntrustedError(self.address, self._shown(str(cause.reason or cause)))
            return EndpointUnreachableError(self.address, self._shown(str(error)) or "no connection")

    def _connected(self) -> "httpx2.Client":
        import httpx2

        with self._lock:
            if self._client is None:
                headers = {"Authorization": f"Bearer {self._key}"} if self._key else {}
                if self._key and self._host.endswith(".azure.com"):
                    headers["api-key"] = self._key
                # A proxy is for other machines; none can be meant for what runs on this one.
                self._client = httpx2.Client(headers=headers, trust_env=not self.is_local)
                self._close = weakref.finalize(self, self._client.close)
            return self._client

    def _refusal(self, answer: _Answer) -> Exception:
        """Return what a status other than 200 means."""
        status, said = answer.status, answer.content[:10_000].decode(errors="replace")
        with suppress(ValueError, RecursionError, TypeError, KeyError):
            error = json.loads(answer.content)["error"]
            said = str(error["message"] if isinstance(error, dict) else error)
        said = self._shown(said)  # data of someone else
        if 300 <= status < 400:
            target = self._shown(urlsplit(answer.headers.get("location", "")).netloc)
            target = target or "an address that it does not name"
            return EndpointMovedError(self.address, status, target)
        if status in (401, 403):
            return KeyRefusedError(self.address, status)
        if status == 429:
            return RateLimitedError(self.address, _retry_after(answer.headers), said)
        # llama.cpp reports a text that is too long as a fault of its own.
        if status in (400, 413, 422) or (status == 500 and b"too large" in answer.content):
            return _RequestRefusedError(status, said)
        if status >= 500 or status == 408:
            return EndpointFailedError(self.address, status, said, _retry_after(answer.headers))
        return EndpointRefusedError(self.address, status, said)

    def _shown(self, said: str) -> str:
        """Quote the beginning of a text of someone else, or nothing of it where the key may be in it."""
        width = min(_SHOWN_OF_KEY, len(self._key))
        parts = (self._key[at : at + width] for at in range(len(self._key) - width + 1))
        said = " ".join(said.split())
        return quoted(said) if said and not (self._key and any(part in said for part in parts)) else ""

    def _read(self, content: bytes, count: int) -> tuple[list[Any], int | None]:
        """Return the vectors of an answer in the order of their texts, and the tokens, if counted."""
        try:
            answer = json.loads(content)
        except (ValueError, RecursionError):
            raise BadAnswerError(self.address, "it is no JSON") from None
        data = answer.get("data") if isinstance(answer, dict) else None
        if not isinstance(data, list):
            raise BadAnswerError(self.address, "it has no list `data`")
        if len(data) != count:
            raise BadAnswerError(self.address, f"{len(data)} vectors for {count} texts")
        rows: dict[int, Any] = {}
        for place, item in enumerate(data):
            row = item.get("embedding") if isinstance(item, dict) else None
            if not isinstance(row, list) or not row:
                raise BadAnswerError(self.address, "what should be a vector is none")
            index = item.get("index", place)
            if type(index) is not int or index in rows or not 0 <= index < count:
                raise BadAnswerError(self.address, "it does not say which vector is of which text")
            rows[index] = row
        usage = answer.get("usage")
        tokens = usage.get("prompt_tokens") if isinstance(usage, dict) else None
        is_count = type(tokens) is int and 0 <= tokens <= 10**9
        return [rows[place] for place in range(count)], tokens if is_count else None


def _parsed(url: str) -> tuple[str, str, str]:
    """Return where requests go, that address as it may be shown, and its host.

    Raises:
        EmbedderUnavailableError: It is no address, or holds a password.
    """
    try:
        parts = urlsplit(url.strip())
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        host = ""
    if not host or parts.scheme not in ("http", "https"):
        remedy = "set SOULKEEP_EMBEDDER_URL to an address such as http://localhost:11434/v1"
        raise _unavailable("its address is none of http or https", remedy)
    if parts.username is not None or parts.password is not None:
        remedy = "put the key into SOULKEEP_EMBEDDER_KEY, and leave it out of SOULKEEP_EMBEDDER_URL"
        raise _unavailable("its address holds a name or a password", remedy)
    path = parts.path.rstrip("/") or "/v1"
    path = path if path.endswith("/embeddings") else f"{path}/embeddings"
    whole = urlunsplit((parts.scheme, parts.netloc, path, parts.query, ""))
    shown = urlunsplit((parts.scheme, parts.netloc, path.removesuffix("/embeddings"), "", ""))
    return whole, shown, host


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Return in how many seconds to try again, by the header of RFC 9110, section 10.2.3."""
    written = headers.get("retry-after", "")
    try:
        seconds = float(written)
    except ValueError:
        try:
            moment = parsedate_to_datetime(written)
        except ValueError:
            return None
        moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        seconds = (moment - datetime.now(UTC)).total_seconds()
    return min(max(seconds, 0.0), _LONGEST_WAIT_S) if math.isfinite(seconds) else None


def _cause(error: BaseException | None, kind: type[ssl.SSLError]) -> ssl.SSLError | None:
    while error is not None and not isinstance(error, kind):
        error = error.__cause__ or error.__context__
    return error
