"""The progress of work in a worker thread, told to the client that asked for it."""

import time
from concurrent.futures import CancelledError
from contextlib import suppress
from typing import Any

import anyio
import anyio.from_thread
from mcp.server.context import CallNext, HandlerResult, ServerRequestContext

from soulkeep.progress import told_to

REPORT_S = 0.5
"""How long one and the same work goes on between two reports, and how long a client may hold one up."""


async def tell_progress(ctx: ServerRequestContext[Any, Any], call_next: CallNext) -> HandlerResult:
    """Tell the progress of worker threads to a request that asks for it: SDK middleware."""
    with told_to(_Reporter(ctx).report):
        return await call_next(ctx)


class _Reporter:
    """Sends what a worker thread says of its progress, but not too often."""

    def __init__(self, ctx: ServerRequestContext[Any, Any]) -> None:
        self._session = ctx.session
        self._doing = ""
        self._sent_at = 0.0
        self._count = 0

    def report(self, doing: str, share: float | None) -> None:
        """Send a notification, unless the same was said a moment ago."""
        now = time.monotonic()
        if doing == self._doing and now - self._sent_at < REPORT_S:
            return
        self._doing, self._sent_at = doing, now
        # How much is still to come is unknown, so only the count grows.
        self._count += 1
        # The work goes on when its request is cancelled, but nobody waits for it any more.
        with suppress(CancelledError):
            anyio.from_thread.run(self._send, doing if share is None else f"{doing}: {share:.0%}")

    async def _send(self, message: str) -> None:
        with anyio.move_on_after(REPORT_S):
            await self._session.report_progress(self._count, None, message)
