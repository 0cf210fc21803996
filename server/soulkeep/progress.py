"""How far slow work has come, told through all layers to whoever asked for it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

Listener = Callable[[str, float | None], None]
"""Takes what is being done, and the share of it that is done, 0 to 1, where that is known."""


# A worker thread runs in a copy of its caller's context, so this reaches it as well.
_listener: ContextVar[Listener] = ContextVar("listener", default=lambda doing, share: None)


@contextmanager
def told_to(listener: Listener) -> Iterator[None]:
    """Let slow work inside the block tell `listener` how far it is, perhaps very often."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)


def tell(doing: str, share: float | None = None) -> None:
    """Say what is being done and which share of it is done; nothing comes of it where nobody listens."""
    _listener.get()(doing, share)
