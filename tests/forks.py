"""Processes forked from one that has imported what a server needs: to import it is most of a start."""

import atexit
import multiprocessing
import os
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from multiprocessing import forkserver
from pkgutil import walk_packages
from subprocess import TimeoutExpired
from typing import IO, Any

from soulkeep import mcp_server

_IMPORTED = ["mcp.server.mcpserver", "mcp.server.stdio", "soulkeep.app", "soulkeep.cli"]
_IMPORTED += [m.name for m in walk_packages(mcp_server.__path__, f"{mcp_server.__name__}.")]
"""What a server imports sooner or later; none of it starts a thread or opens a file."""


class ForkedProcess:
    """What tests use of a `subprocess.Popen` with three pipes."""

    def __init__(self, arguments: Sequence[str], environment: Mapping[str, str]) -> None:
        """Run `soulkeep` with these arguments."""
        (stdin, to_it), (from_it, stdout), (errors, stderr) = os.pipe(), os.pipe(), os.pipe()
        self.args = ["soulkeep", *arguments]
        self._process = _context().Process(
            target=_Become(self.args, dict(environment), (stdin, stdout, stderr)), daemon=True
        )
        self._process.start()
        for number in (stdin, stdout, stderr):
            os.close(number)
        self.stdin: IO[bytes] = os.fdopen(to_it, "wb")
        self.stdout: IO[bytes] = os.fdopen(from_it, "rb")
        self.stderr: IO[bytes] = os.fdopen(errors, "rb")
        self.pid = self._process.pid

    @property
    def returncode(self) -> int | None:
        """Its exit code, or the number of the signal that ended it, negative; None while it runs."""
        code: int | None = self._process.exitcode
        return code

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end; return its exit code.

        Raises:
            TimeoutExpired: It runs on after so many seconds.
        """
        self._process.join(timeout)
        if (code := self.returncode) is None:
            raise TimeoutExpired(self.args, timeout or 0)
        return code

    def send_signal(self, number: int) -> None:
        """Send it a signal, unless it has ended."""
        if self.returncode is None and self.pid:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """End it at once, without warning."""
        self._process.kill()


class _Become:
    """Makes of a forked process the command: its streams, environment and arguments."""

    def __init__(
        self, arguments: list[str], environment: dict[str, str], streams: tuple[int, int, int]
    ) -> None:
        self.arguments, self.environment, self.streams = arguments, environment, streams

    def __getstate__(self) -> dict[str, Any]:
        from multiprocessing.reduction import DupFd  # not on Windows

        return self.__dict__ | {"streams": [DupFd(number) for number in self.streams]}

    def __call__(self) -> None:
        from soulkeep.cli import main

        for number, stream in enumerate(self.streams):
            given = stream.detach()  # type: ignore[attr-defined]
            os.dup2(given, number)
            os.close(given)
        sys.stdin, sys.stdout, sys.stderr = (
            os.fdopen(number, mode, encoding="utf-8", closefd=False)
            for number, mode in enumerate(("r", "w", "w"))
        )
        os.environ.clear()
        os.environ.update(self.environment)
        sys.argv = self.arguments
        try:
            main()
        finally:
            # As at the end of any process, which multiprocessing passes over: coverage is written then.
            atexit._run_exitfuncs()


@cache
def _context() -> Any:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_IMPORTED)
    return context


def end_forking() -> None:
    """End the process that forks, and wait for it."""
    forkserver._forkserver._stop()  # type: ignore[attr-defined]
