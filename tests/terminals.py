"""A real terminal of any size, in which a test runs the command line."""

import contextlib
import os
import struct
from collections.abc import Mapping
from types import MappingProxyType

from forks import fork


def in_terminal(
    *arguments: str,
    columns: int = 80,
    typed: bytes = b"",
    environment: Mapping[str, str] = MappingProxyType({}),
) -> tuple[int, str]:
    """Run the command in a pseudo-terminal; return its exit code and all that it showed.

    Text for stdin has to end what the command reads: b"y\\n" answers, b"\\x04" is the end of the input.
    """
    import fcntl
    import termios

    ours, theirs = os.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
    os.write(ours, typed)
    without = {"NO_COLOR", "COLUMNS", "LINES"}
    env = {name: value for name, value in os.environ.items() if name not in without}
    process = fork(arguments, {**env, "TERM": "xterm", **environment}, (theirs, theirs, theirs))
    os.close(theirs)
    shown = b""
    with contextlib.suppress(OSError):  # the end of a terminal is an error on Linux
        while part := os.read(ours, 65536):
            shown += part
    os.close(ours)
    process.join(30)
    return process.exitcode, shown.decode(errors="replace").replace("\r\n", "\n")
