"""Processes forked from one that has imported what a server needs: to import it is most of a start."""

import atexit
import multiprocessing
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from multiprocessing import forkserver
from pkgutil import walk_packages
from subprocess import TimeoutExpired
from typing import IO, Any, Self

from soulkeep import mcp_server

_IMPORTED = ["mcp.server.mcpserver", "mcp.server.stdio", "soulkeep.app", "soulkeep.cli"]
_IMPORTED += [m.name for m in walk_packages(mcp_server.__path__, f"{mcp_server.__name__}.")]
_IMPORTED += ["soulkeep.repository.sqlite.codes", "forked"]
"""What a server imports sooner or later, and what makes all that is the same in each."""


class ForkedProcess:
    """What tests use of a `subprocess.Popen` with pipes."""

    def __init__(
        self,
        arguments: Sequence[str],
        environment: Mapping[str, str],
        *,
        errors_to: int | None = None,
        text: bool = False,
    ) -> None:
        """Run `soulkeep` with these arguments, or the code after `-c` with those after it.

        Args:
            arguments: What stands behind the name of the program.
            environment: All that there is in its environment.
            errors_to: The open file that its stderr is; a pipe where there is none.
            text: Whether its pipes are of text.
        """
        (stdin, to_it), (from_it, stdout) = os.pipe(), os.pipe()
        errors, stderr = os.pipe() if errors_to is None else (None, os.dup(errors_to))
        self.args = ["soulkeep", *arguments]
        self._process = fork(arguments, environment, (stdin, stdout, stderr))
        for number in (stdin, stdout, stderr):
            os.close(number)
        encoding = "utf-8" if text else None
        self.stdin: IO[Any] = os.fdopen(to_it, "w" if text else "wb", encoding=encoding)
        self.stdout: IO[Any] = os.fdopen(from_it, "r" if text else "rb", encoding=encoding)
        self.stderr: IO[Any] | None = None if errors is None else os.fdopen(errors, "rb")
        self._heard: tuple[Any, Any] = (None, None)
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

    def poll(self) -> int | None:
        """Return its exit code, None while it runs."""
        return self.returncode

    def communicate(self, said: Any = None, timeout: float | None = None) -> tuple[Any, Any]:
        """Say something and close stdin; return all that it says until its end, on both streams.

        Raises:
            TimeoutExpired: It said all, and runs on after so many seconds.
        """
        if not self.stdout.closed:
            with suppress(BrokenPipeError):
                if said is not None:
                    self.stdin.write(said)
                self.stdin.close()
            self._heard = self.stdout.read(), self.stderr and self.stderr.read()
            self._close()
        self.wait(timeout)
        return self._heard

    def _close(self) -> None:
        with suppress(BrokenPipeError):
            self.stdin.close()
        self.stdout.close()
        if self.stderr is not None:
            self.stderr.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Close the pipes and wait for its end."""
        self._close()
        self.wait()

    def send_signal(self, number: int) -> None:
        """Send it a signal, unless it has ended."""
        if self.returncode is None and self.pid:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """End it at once, without warning."""
        self._process.kill()


def run_code(code: str, *arguments: object) -> "ForkedProcess | subprocess.Popen[str]":
    """Run code of Python, with `arguments` in `sys.argv` after the first; its pipes are of text."""
    command = ["-c", code, *map(str, arguments)]
    if sys.platform != "win32":
        return ForkedProcess(command, os.environ, errors_to=2, text=True)
    return subprocess.Popen(
        [sys.executable, *command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def fork(
    arguments: Sequence[str],
    environment: Mapping[str, str],
    streams: tuple[int, int, int],
    folder: str | None = None,
) -> Any:
    """Start a `multiprocessing` process that is `soulkeep` with these streams, and return it."""
    become = _Become(["soulkeep", *arguments], dict(environment), streams, folder)
    process = context().Process(target=become, daemon=True)
    process.start()
    return process


class _Become:
    """Makes of a forked process the command: its streams, environment, arguments and folder."""

    def __init__(
        self,
        arguments: list[str],
        environment: dict[str, str],
        streams: tuple[int, int, int],
        folder: str | None,
    ) -> None:
        self.arguments, self.environment, self.streams = arguments, environment, streams
        self.folder = folder

    def __getstate__(self) -> dict[str, Any]:
        from multiprocessing.reduction import DupFd  # not on Windows

        return self.__dict__ | {"streams": [DupFd(number) for number in self.streams]}

    def __call__(self) -> None:
        for number, stream in enumerate(self.streams):
            given = stream.detach()  # type: ignore[attr-defined]
            os.dup2(given, number)
            os.close(given)
        sys.stdin, sys.stdout, sys.stderr = (
            os.fdopen(number, mode, encoding="utf-8", closefd=False)
            for number, mode in enumerate(("r", "w", "w"))
        )
        if self.folder is not None:
            os.chdir(self.folder)
        os.environ.clear()
        os.environ.update(self.environment)
        sys.argv = self.arguments
        try:
            self._work()
        finally:
            # As at the end of any process, which multiprocessing passes over: coverage is written then.
            atexit._run_exitfuncs()

    def _work(self) -> None:
        from soulkeep.cli import main

        if self.arguments[1:2] != ["-c"]:
            main()
            return
        code = self.arguments.pop(2)
        del sys.argv[0]
        exec(code, {"__name__": "__main__"})  # noqa: S102 - that of a test


@cache
def context() -> Any:
    """Return how processes of Python are started: forked where that can be done."""
    if sys.platform == "win32":
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_IMPORTED)
    return context


def end_forking() -> None:
    """End the process that forks, and wait for it."""
    forkserver._forkserver._stop()  # type: ignore[attr-defined]
