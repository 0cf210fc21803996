"""An OpenAI-compatible endpoint on this machine, over real HTTP, that can do wrong whatever one may."""

import hashlib
import json
import math
import re
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

import httpcore2

# To read all certificates of this machine for each client takes most of its time.
httpcore2.default_ssl_context = cache(httpcore2.default_ssl_context)

KEY = "sk-secret-0123456789abcdefghij"


@dataclass(frozen=True)
class Request:
    path: str
    headers: dict[str, str]
    body: dict[str, Any]

    @property
    def texts(self) -> list[str]:
        return list(self.body["input"])


class EndpointServer:
    """Answers as `answer` says; `common` is the cosine that unrelated texts have, about."""

    def __init__(self, dimensions: int = 64, common: float = 0.0) -> None:
        self.dimensions = dimensions
        self.common = common
        self.answer: Callable[[Handler, Request], None] = Handler.embed
        self.requests: list[Request] = []
        self.released = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._server.endpoint = self  # type: ignore[attr-defined]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()

    @property
    def root(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    @property
    def url(self) -> str:
        return f"{self.root}/v1"

    @property
    def texts(self) -> list[str]:
        """What it was sent, in order."""
        return [text for request in self.requests for text in request.texts]

    def vector(self, text: str, dimensions: int) -> list[float]:
        """Return the sum of vectors that the longer words have, and of one that all texts have."""
        own = [0.0] * dimensions
        words = re.findall(r"\w+", text.casefold())
        for word in [word for word in words if len(word) > 4] or words:
            digest = hashlib.shake_128(word.encode()).digest(dimensions)
            own = [value + (byte - 127.5) / 127.5 for value, byte in zip(own, digest, strict=True)]
        length = math.hypot(*own) or 1.0
        shared = math.sqrt(self.common / dimensions)
        scale = math.sqrt(1 - self.common) / length
        return [7.0 * (value * scale + shared) for value in own]  # not of length one

    def close(self) -> None:
        self.released.set()
        self._server.shutdown()
        self._server.server_close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Handler(BaseHTTPRequestHandler):
    disable_nagle_algorithm = True
    protocol_version = "HTTP/1.1"

    @property
    def endpoint(self) -> EndpointServer:
        return self.server.endpoint  # type: ignore[attr-defined, no-any-return]

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        headers = {name.lower(): value for name, value in self.headers.items()}
        request = Request(self.path, headers, body)
        self.endpoint.requests.append(request)
        with suppress(ConnectionError):
            self.endpoint.answer(self, request)

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def embed(self, request: Request) -> None:
        dimensions = request.body.get("dimensions", self.endpoint.dimensions)
        self.send_vectors([self.endpoint.vector(text, dimensions) for text in request.texts])

    def send_vectors(self, vectors: Sequence[Any]) -> None:
        data = [{"index": place, "embedding": vector} for place, vector in enumerate(vectors)]
        # In another order than the texts.
        self.send(200, {"data": data[::-1], "usage": {"prompt_tokens": 5 * len(data)}})

    def send(self, status: int, answer: Any, **headers: str) -> None:
        content = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(content)


Answer = Callable[[Handler, Request], None]


def status(code: int, message: str = "no", **headers: str) -> Answer:
    """Answer with a status and an error in the form of OpenAI."""
    return lambda handler, _: handler.send(code, {"error": {"message": message}}, **headers)


def content(answer: Any) -> Answer:
    """Answer with status 200 and this."""
    return lambda handler, _: handler.send(200, answer)


def spoilt(spoil: Callable[[list[Any]], list[Any]]) -> Answer:
    """Answer with the vectors after something was done to them."""

    def answer(handler: Handler, request: Request) -> None:
        dimensions = request.body.get("dimensions", handler.endpoint.dimensions)
        handler.send_vectors(spoil([handler.endpoint.vector(t, dimensions) for t in request.texts]))

    return answer


def alike(item: dict[str, Any]) -> Answer:
    """Answer with the same for each text."""
    return lambda handler, request: handler.send(200, {"data": [item] * len(request.texts)})


def hang(handler: Handler, _: Request) -> None:
    """Say nothing until the server is closed."""
    handler.endpoint.released.wait()


def hang_half_way(handler: Handler, _: Request) -> None:
    """Begin an answer and never end it."""
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    handler.wfile.write(b'{"data": [')
    handler.endpoint.released.wait()


def drip(handler: Handler, _: Request) -> None:
    """Send one byte after the other, of an answer or of its headers, each soon after the last."""
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
    while not handler.endpoint.released.wait(0.02):
        handler.wfile.write(b"x")


def hang_up(handler: Handler, _: Request) -> None:
    """Close the connection instead of answering."""
    handler.close_connection = True


def refuse(wrong: Callable[[Request], bool], code: int, message: str = "no") -> Answer:
    """Refuse the requests that are wrong, and serve all others."""

    def answer(handler: Handler, request: Request) -> None:
        if wrong(request):
            status(code, message)(handler, request)
        else:
            handler.embed(request)

    return answer


WRONG: dict[str, Answer] = {
    "refuses the key": status(401),
    "forbids the key": status(403),
    "limits the rate": status(429, Retry_After="7"),
    "fails": status(500),
    "is overloaded": status(503, Retry_After="7"),
    "knows no such model": status(404),
    "refuses every text": status(400),
    "redirects": status(307, Location="https://elsewhere.example/v1"),
    "is no JSON": content(b"<html>Welcome</html>"),
    "is empty": content(b""),
    "is no UTF-8": content(b"\xff\xfe\xfd"),
    "is nested": content(b"[" * 100_000),
    "is an error with status 200": content({"error": {"message": "no"}}),
    "is a list": content([]),
    "has no vectors": alike({"embedding": None}),
    "has one vector too few": spoilt(lambda vectors: vectors[1:]),
    "has one vector too many": spoilt(lambda vectors: [*vectors, vectors[0]]),
    "names a place twice": alike({"index": 0, "embedding": [1.0, 2.0]}),
    "has other dimensions for each": spoilt(lambda vectors: [v[: 9 + n] for n, v in enumerate(vectors)]),
    "has NaN": spoilt(lambda vectors: [[math.nan, *v[1:]] for v in vectors]),
    "has infinity": spoilt(lambda vectors: [[math.inf, *v[1:]] for v in vectors]),
    "has null": spoilt(lambda vectors: [[None, *v[1:]] for v in vectors]),
    "has zeros": spoilt(lambda vectors: [[0.0] * len(v) for v in vectors]),
    "has words": spoilt(lambda vectors: [["a"] * len(v) for v in vectors]),
    "has numbers without end": spoilt(lambda vectors: [[10**400] for _ in vectors]),
    "has vectors of vectors": spoilt(lambda vectors: [[v] for v in vectors]),
    "hangs": hang,
    "hangs half way": hang_half_way,
    "drips": drip,
    "hangs up": hang_up,
}
"""What an endpoint may do wrong, by what it does or what its answer is."""

WITHOUT_END = ("hangs", "hangs half way", "drips")
