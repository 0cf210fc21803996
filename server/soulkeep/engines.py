"""Which engine keeps a home: files in its folder, or the database that the options name."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from soulkeep.days import Days
from soulkeep.documents import Documents, Folder, Texts
from soulkeep.errors import StoreError
from soulkeep.models import LOCAL_OWNER, Clock, Options, utc_now
from soulkeep.repository import Repository, Tables
from soulkeep.repository.sqlite import SqliteRepository
from soulkeep.repository.sqlite.files import opened_foreign

if TYPE_CHECKING:
    from soulkeep.service.backups import Backups

__all__ = ["is_database", "open_backups", "open_store", "open_tables", "opened_foreign"]

STORE_NAME, ACCOUNTS_NAME = "soulkeep.db", "accounts.db"


def is_database(address: str) -> bool:
    """Whether an address is that of a database, and not the folder of a home."""
    return address.startswith(("postgresql://", "postgres://"))


def _address(options: Options, owner: str) -> tuple[str, str]:
    """Return the address of the database, if there is one, and whose home in it is meant.

    That is what stands behind a # in the options, where nobody in particular is asked for.
    """
    url, _, named = options.store.get_secret_value().rpartition("#")
    if not url or "@" in named:  # what stands there is a part of a password
        url, named = options.store.get_secret_value(), ""
    return url, named if named and owner == LOCAL_OWNER else owner


def open_store(
    path: Path,
    options: Options,
    owner: str = LOCAL_OWNER,
    *,
    migrating: Callable[[int], None] = lambda version: None,
    read_only: bool = False,
) -> tuple[Repository, Texts]:
    """Open the store of a home, and say where its documents are.

    Both are `owner`'s in the database that the options name, or files at `path`.

    Raises:
        StoreError: The store cannot serve, or the packages that its engine needs are not installed.
    """
    days, (url, owner) = Days(options.timezone), _address(options, owner)
    if not url:
        opened = SqliteRepository(path / STORE_NAME, migrating, days, read_only=read_only)
        return opened, Folder(path)
    try:
        from soulkeep.repository.postgres import PostgresRepository
    except ImportError as error:
        raise StoreError(
            "SOULKEEP_STORE",
            f"the package {error.name} is not installed, which stores in PostgreSQL need",
            "install soulkeep[postgres]",
        ) from error
    store = PostgresRepository(url, owner, days)
    return store, store.texts


def open_backups(
    path: Path,
    *,
    clock: Clock = utc_now,
    options: Options | None = None,
    owner: str = LOCAL_OWNER,
) -> "Backups":
    """Return the backups of a home without opening its store, which may be damaged or gone.

    They are in its folder, or in the database that the options name.
    """
    from soulkeep.service.backups import Backups

    options = options or Options()
    days, (url, owner) = Days(options.timezone), _address(options, owner)
    if url:
        from soulkeep.repository.postgres.copies import PostgresCopies
        from soulkeep.service.stored_backups import StoredBackups

        stored = PostgresCopies(url, owner, days)
        documents = Documents(stored.texts, clock, options.timezone)
        return StoredBackups(stored, documents, clock, options.backups)
    from soulkeep.repository.sqlite import SqliteCopies

    documents = Documents(Folder(path), clock, options.timezone)
    return Backups(path, SqliteCopies(path / STORE_NAME, days), documents, clock, options.backups)


def remove_store(options: Options, owner: str) -> bool:
    """Delete what there is of a home outside of its folder; False while others still read its rows.

    Raises:
        StoreError: The database cannot do it.
    """
    url, owner = _address(options, owner)
    if not url:
        return True
    from soulkeep.repository.postgres.copies import PostgresCopies

    return PostgresCopies(url, owner, Days(options.timezone)).remove()


def may_have_accounts(home: Path, options: Options) -> bool:
    """Whether a server whose homes are below `home` has tables of accounts; a database always has."""
    return bool(options.store.get_secret_value()) or (home / ACCOUNTS_NAME).exists()


def open_tables(home: Path, options: Options) -> Tables:
    """Open the tables of the accounts of a server whose homes are below `home`.

    Raises:
        StoreError: They cannot serve.
    """
    if url := _address(options, LOCAL_OWNER)[0]:
        from soulkeep.repository.postgres.accounts import PostgresTables

        return PostgresTables(url)
    from soulkeep.repository.sqlite.accounts import SqliteTables

    return SqliteTables(home / ACCOUNTS_NAME)
