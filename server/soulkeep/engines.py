"""Which engine keeps a store: a file in the home, or the database that the options name."""

from collections.abc import Callable
from pathlib import Path

from soulkeep.days import Days
from soulkeep.errors import StoreError
from soulkeep.models import LOCAL_OWNER, Options
from soulkeep.repository import Copies, Repository, Tables
from soulkeep.repository.sqlite import SqliteRepository
from soulkeep.repository.sqlite.files import opened_foreign

__all__ = ["is_database", "open_copies", "open_store", "open_tables", "opened_foreign"]

STORE_NAME, ACCOUNTS_NAME = "soulkeep.db", "accounts.db"


def is_database(address: str) -> bool:
    """Whether an address is that of a database, and not the folder of a home."""
    return address.startswith(("postgresql://", "postgres://"))


def open_store(
    path: Path,
    options: Options,
    owner: str = LOCAL_OWNER,
    *,
    migrating: Callable[[int], None] = lambda version: None,
    read_only: bool = False,
) -> Repository:
    """Open the store of a home: `owner`'s in the database that the options name, or a file at `path`.

    Raises:
        StoreError: The store cannot serve, or the packages that its engine needs are not installed.
    """
    days, url = Days(options.timezone), options.store.get_secret_value()
    if not url:
        return SqliteRepository(path / STORE_NAME, migrating, days, read_only=read_only)
    try:
        from soulkeep.repository.postgres import PostgresRepository
    except ImportError as error:
        raise StoreError(
            "SOULKEEP_STORE",
            f"the package {error.name} is not installed, which stores in PostgreSQL need",
            "install soulkeep[postgres]",
        ) from error
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    return PostgresRepository(url, owner, days)


def open_copies(path: Path, options: Options, owner: str = LOCAL_OWNER) -> Copies:
    """Return the copies of the store of a home, which need not be open."""
    days = Days(options.timezone)
    if url := options.store.get_secret_value():
        from soulkeep.repository.postgres.copies import PostgresCopies

        return PostgresCopies(url, owner, days)
    from soulkeep.repository.sqlite import SqliteCopies

    return SqliteCopies(path / STORE_NAME, days)


def may_have_accounts(home: Path, options: Options) -> bool:
    """Whether a server whose homes are below `home` has tables of accounts; a database always has."""
    return bool(options.store.get_secret_value()) or (home / ACCOUNTS_NAME).exists()


def open_tables(home: Path, options: Options) -> Tables:
    """Open the tables of the accounts of a server whose homes are below `home`.

    Raises:
        StoreError: They cannot serve.
    """
    if url := options.store.get_secret_value():
        from soulkeep.repository.postgres.accounts import PostgresTables

        return PostgresTables(url)
    from soulkeep.repository.sqlite.accounts import SqliteTables

    return SqliteTables(home / ACCOUNTS_NAME)
