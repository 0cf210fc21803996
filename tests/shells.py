"""A `soulkeep` for shells that is forked, as `forks` does it, where many commands are run as written."""

import json
import os
import socket
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from forks import fork

_COMMAND = """#!{python} -ISE
import json, os, socket, sys
with socket.socket(socket.AF_UNIX) as asking:
    asking.connect({address!r})
    said = json.dumps([os.getcwd(), sys.argv[1:], dict(os.environ)]).encode()
    socket.send_fds(asking, [len(said).to_bytes(4, "big")], [0, 1, 2])
    asking.sendall(said)
    sys.exit(int(asking.recv(9)))
"""


@contextmanager
def forking_folder() -> Iterator[Path]:
    """Give a folder for the front of a `PATH`, until the end of the block."""
    with (
        tempfile.TemporaryDirectory() as name,
        socket.socket(socket.AF_UNIX) as listening,
    ):
        address, command = str(Path(name, "asked")), Path(name, "soulkeep")
        listening.bind(address)
        listening.listen()
        command.write_text(_COMMAND.format(python=sys.executable, address=address), encoding="utf-8")
        command.chmod(0o700)
        threading.Thread(target=_answer_all, args=(listening,), daemon=True).start()
        yield command.parent
        listening.shutdown(socket.SHUT_RDWR)  # wakes who waits for the next


def _answer_all(listening: socket.socket) -> None:
    while True:
        try:
            asked, _ = listening.accept()
        except OSError:
            return
        threading.Thread(target=_answer, args=(asked,), daemon=True).start()


def _answer(asked: socket.socket) -> None:
    """Run the command with the streams, the folder and the environment of who asks."""
    with asked:
        size, streams, _, _ = socket.recv_fds(asked, 4, 3)
        with asked.makefile("rb") as said:
            folder, arguments, environment = json.loads(said.read(int.from_bytes(size, "big")))
        process = fork(arguments, environment, (streams[0], streams[1], streams[2]), folder)
        for stream in streams:
            os.close(stream)
        process.join()
        asked.sendall(str(process.exitcode).encode())
