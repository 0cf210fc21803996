"""A server process and the JSON-RPC lines to and from it, with no SDK in between."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Any, ClassVar, cast

from soulkeep.models import EmbedderName

PROTOCOL_VERSION = "2025-11-25"
REPLY_S = 60.0
EXIT_S = 20.0

Message = dict[str, Any]


class NoReplyError(RuntimeError):
    """The server ended, or let the time pass, without a reply."""


def soulkeep_command(home: Path) -> list[str]:
    """Return the command that serves `home`: the `soulkeep` installed beside this interpreter.

    Raises:
        FileNotFoundError: It is not installed there.
    """
    found = shutil.which("soulkeep", path=str(Path(sys.executable).parent))
    if found is None:
        raise FileNotFoundError("no soulkeep beside this Python; run `pip install -e .` first")
    return [found, "serve", "--home", str(home)]


class ServerProcess:
    """A running server. Use it from one thread; the replies are read in another."""

    start: ClassVar[Callable[..., "subprocess.Popen[bytes]"]] = subprocess.Popen
    """How a command is started. Tests fork it from a process that has imported all that it needs."""

    def __init__(self, command: Sequence[str], embedder: EmbedderName = "auto") -> None:
        """Start `command`; of soulkeep's settings in the environment none but `embedder` reaches it."""
        environment = {k: v for k, v in os.environ.items() if not k.startswith("SOULKEEP_")}
        environment["SOULKEEP_EMBEDDER"] = embedder
        # An installed package has its bytecode; else each start would compile what changed.
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 - closed in close()
        self.process = self.start(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            env=environment,
        )
        self._stdin = cast(IO[bytes], self.process.stdin)
        self._stdout = cast(IO[bytes], self.process.stdout)
        self.stderr_lines: list[str] = []
        self.strays: list[bytes] = []
        self._last_id = 0
        self._replies: dict[int, Message] = {}
        self._ended = False
        self._arrived = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        for line in self._stdout:
            # A killed server may leave half a line, which is no reply.
            if line.endswith(b"\n"):
                self._take(line)
        with self._arrived:
            self._ended = True
            self._arrived.notify_all()

    def _take(self, line: bytes) -> None:
        try:
            message = json.loads(line)
        except ValueError:
            self.strays.append(line)
            return
        with self._arrived:
            if "method" not in message:
                self._replies[message["id"]] = message
                self._arrived.notify_all()

    def request(self, method: str, params: Message | None = None) -> int:
        """Send a request without waiting; return its id.

        Raises:
            BrokenPipeError: The server has ended.
        """
        self._last_id += 1
        message = {"jsonrpc": "2.0", "id": self._last_id, "method": method, "params": params or {}}
        self._write(message)
        return self._last_id

    def notify(self, method: str) -> None:
        """Send a notification.

        Raises:
            BrokenPipeError: The server has ended.
        """
        self._write({"jsonrpc": "2.0", "method": method})

    def _write(self, message: Message) -> None:
        self._stdin.write(json.dumps(message).encode() + b"\n")
        self._stdin.flush()

    def reply(self, request_id: int, timeout_s: float = REPLY_S) -> Message:
        """Wait for the reply to a request.

        Raises:
            NoReplyError: The server ended or the time passed first.
        """
        with self._arrived:
            self._arrived.wait_for(lambda: request_id in self._replies or self._ended, timeout_s)
            if request_id not in self._replies:
                raise NoReplyError(f"no reply to request {request_id} (server ended: {self._ended})")
            return self._replies[request_id]

    def replies(self) -> dict[int, Message]:
        """Return every reply so far, by the id of its request."""
        with self._arrived:
            return dict(self._replies)

    def ask_initialize(self) -> int:
        """Send `initialize` without waiting; return its id."""
        client = {"name": "soulkeep-bench", "version": "1"}
        params = {"protocolVersion": PROTOCOL_VERSION, "capabilities": {}, "clientInfo": client}
        return self.request("initialize", params)

    def initialize(self) -> None:
        """Shake hands.

        Raises:
            NoReplyError: The server does not.
        """
        reply = self.reply(self.ask_initialize())
        if "result" not in reply:
            raise NoReplyError(f"initialize was refused: {reply}")
        self.notify("notifications/initialized")

    def call(self, tool: str, **arguments: Any) -> int:
        """Send a tool call without waiting; return its id."""
        return self.request("tools/call", {"name": tool, "arguments": arguments})

    def close(self) -> int:
        """Close stdin, wait for the end, killing what does not end by itself; return the exit code."""
        # What was still unsent to a killed server makes closing fail again.
        with suppress(OSError):
            self._stdin.close()
        self._await_exit()
        self._reader.join()
        self._stdout.close()
        if not self._stderr.closed:
            self._stderr.seek(0)
            self.stderr_lines = self._stderr.read().decode(errors="replace").splitlines()
            self._stderr.close()
        return self.process.returncode

    def _await_exit(self) -> None:
        try:
            self.process.wait(EXIT_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def __enter__(self) -> "ServerProcess":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def resident_mib(pid: int) -> float | None:
    """Return the resident memory of a process in MiB; None where there is no /proc."""
    status = Path(f"/proc/{pid}/status")
    if not status.exists():
        return None
    (line,) = (line for line in status.read_text().splitlines() if line.startswith("VmRSS:"))
    return int(line.split()[1]) / 1024


def cpu_ms_of(pid: int) -> float | None:
    """Return the processor time that a process has taken, in ms; None where there is no /proc."""
    stat = Path(f"/proc/{pid}/stat")
    if not stat.exists():
        return None
    # The name, in parentheses, may hold spaces; user and system time are fields 14 and 15.
    user, system = stat.read_text().rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) * 1000 / os.sysconf("SC_CLK_TCK")


def stored_id(reply: Message) -> int | None:
    """Return the id of the memory that a reply to `remember` acknowledges; None if it is an error."""
    result = reply.get("result", {"isError": True})
    if result.get("isError"):
        return None
    return int(result["structuredContent"]["receipts"][0]["id"])
