"""Refuses the network to a process: Python runs this at start-up where its folder is on the path."""

import ipaddress
import sys
import threading
from collections.abc import Callable
from typing import Any


def _refuse_network(event: str, arguments: tuple[object, ...]) -> None:
    if event == "socket.getaddrinfo":
        host = arguments[0]
    elif event in {"socket.connect", "socket.sendto"} and isinstance(arguments[1], tuple):
        host = arguments[1][0]
    else:
        return
    if not _is_local(host):
        raise PermissionError(f"tests have no network, and this asked for {host!r}")


def _is_local(host: object) -> bool:
    name = host.decode() if isinstance(host, bytes) else host
    if name in (None, "", "localhost"):
        return True
    try:
        return ipaddress.ip_address(str(name)).is_loopback
    except ValueError:
        return False


def _trace_one_at_a_time() -> None:
    """Let threads take their trace function, that of coverage, one after the other.

    Before 3.12, CPython refuses it while another thread takes one. A hook lets threads take turns in the
    middle of that, and the refused thread ends before its first line: nobody does its work.
    """
    lock = threading.RLock()

    def alone(work: Callable[..., Any]) -> Callable[..., Any]:
        def locked(*arguments: Any) -> Any:
            with lock:
                return work(*arguments)

        return locked

    sys.settrace = alone(sys.settrace)
    if (of_threads := threading.gettrace()) is not None:
        threading.settrace(alone(of_threads))


if sys.version_info < (3, 12):
    _trace_one_at_a_time()
sys.addaudithook(_refuse_network)
