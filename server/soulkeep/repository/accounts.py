"""Accounts, teams, and what OAuth keeps for them: tables and statements that every SQL engine takes.

An engine brings `Tables` (see `repository/__init__.py`) and makes the tables by the numbered `STEPS`.
What must hold where processes work side by side is in the statements: names are unique by their keys,
and a secret of a single use is spent by one UPDATE, which one of two that come at once finds done.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

from soulkeep.models import Access, Account
from soulkeep.repository import Tables


@dataclass(frozen=True, slots=True)
class Team:
    """A home with several members; one that was deleted is kept and can be restored."""

    name: str
    created_at: str
    deleted_at: str | None = None
    members: Sequence[Access] = ()


TokenKind = Literal["account", "code", "access", "refresh"]
"""What a secret is good for: an account's own token, and those that OAuth hands to a program for it."""


@dataclass(frozen=True, slots=True)
class Grant:
    """What an account let a program do: use the one home whose address is `resource`.

    The rest is of the request for it, by which the program is known that comes to fetch its tokens.
    """

    id: str
    account: str
    client_id: str
    resource: str
    redirect_uri: str
    redirect_was_named: bool
    code_challenge: str
    created_at: str


@dataclass(frozen=True, slots=True)
class Token:
    """A secret as it is kept: by its SHA-256 digest, in hex. One of OAuth belongs to a grant.

    `spent_at` is when one that is good for a single use was used.
    """

    id: str
    digest: str
    kind: TokenKind
    account: str
    created_at: str
    expires_at: str | None = None
    grant_id: str | None = None
    spent_at: str | None = None


STEPS: tuple[tuple[str, ...], ...] = (
    (
        """
CREATE TABLE homes (
  name       TEXT PRIMARY KEY NOT NULL,
  is_team    INTEGER NOT NULL,
  created_at TEXT NOT NULL,
  deleted_at TEXT
)""",
        """
CREATE TABLE accounts (
  name         TEXT PRIMARY KEY NOT NULL REFERENCES homes(name),
  created_at   TEXT NOT NULL,
  issuer       TEXT,
  subject      TEXT,
  revoked_at   TEXT,
  last_used_at TEXT,
  UNIQUE (issuer, subject)
)""",
        """
CREATE TABLE members (
  home      TEXT NOT NULL REFERENCES homes(name),
  account   TEXT NOT NULL REFERENCES accounts(name),
  may_write INTEGER NOT NULL,
  added_at  TEXT NOT NULL,
  PRIMARY KEY (home, account)
)""",
        """
CREATE TABLE clients (
  id         TEXT PRIMARY KEY NOT NULL,
  metadata   TEXT NOT NULL,
  created_at TEXT NOT NULL
)""",
        """
CREATE TABLE grants (
  id                 TEXT PRIMARY KEY NOT NULL,
  account            TEXT NOT NULL REFERENCES accounts(name),
  client_id          TEXT NOT NULL REFERENCES clients(id) ON DELETE CASCADE,
  resource           TEXT NOT NULL,
  redirect_uri       TEXT NOT NULL,
  redirect_was_named INTEGER NOT NULL,
  code_challenge     TEXT NOT NULL,
  created_at         TEXT NOT NULL
)""",
        """
CREATE TABLE tokens (
  id         TEXT PRIMARY KEY NOT NULL,
  digest     TEXT NOT NULL,
  kind       TEXT NOT NULL,
  account    TEXT NOT NULL REFERENCES accounts(name),
  created_at TEXT NOT NULL,
  expires_at TEXT,
  grant_id   TEXT REFERENCES grants(id) ON DELETE CASCADE,
  spent_at   TEXT
)""",
        """
CREATE TABLE failed_logins (
  key           TEXT PRIMARY KEY NOT NULL,
  failures      INTEGER NOT NULL,
  last_at       TEXT NOT NULL,
  blocked_until TEXT
)""",
        "CREATE INDEX members_by_account ON members (account)",
        "CREATE INDEX grants_by_account ON grants (account)",
        "CREATE INDEX grants_by_client ON grants (client_id)",
        "CREATE INDEX tokens_by_account ON tokens (account)",
        "CREATE INDEX tokens_by_grant ON tokens (grant_id)",
        "CREATE INDEX tokens_by_expiry ON tokens (expires_at)",
        "CREATE INDEX failed_logins_by_time ON failed_logins (last_at)",
    ),
    (
        "ALTER TABLE homes ADD COLUMN purged_at TEXT",
        "ALTER TABLE accounts ADD COLUMN deleted_at TEXT",
        """
CREATE TABLE server_keys (
  number     INTEGER PRIMARY KEY NOT NULL,
  secret     TEXT NOT NULL,
  created_at TEXT NOT NULL
)""",
        "CREATE TABLE access_changes (id TEXT PRIMARY KEY NOT NULL)",
    ),
)
"""`STEPS[n]` brings the tables from version n to n + 1."""

TABLES = (
    *("homes", "accounts", "members", "clients", "grants", "tokens", "failed_logins"),
    *("server_keys", "access_changes"),
)

_ACCOUNT_ROW, _GRANT_ROW, _ISSUED_ROW = (
    ", ".join(column.name for column in fields(kind)) for kind in (Account, Grant, Token)
)


class AccountStore:
    """Accounts, the homes of teams with their members, and the secrets that let programs in.

    Every method is one statement, or few; several are one write inside `transaction()`.

    Raises:
        StoreError: Any method may, as the engine does.
    """

    def __init__(self, tables: Tables) -> None:
        self._run, self.transaction, self.close = tables.run, tables.transaction, tables.close
        self.erase = tables.erase

    def add_home(self, name: str, created_at: str, *, is_team: bool) -> bool:
        """Take a name for a home; False where an account or a team has it, also a deleted one."""
        return bool(
            self._run(
                "INSERT INTO homes (name, is_team, created_at) VALUES (:name, :is_team, :created_at)"
                " ON CONFLICT DO NOTHING RETURNING name",
                {"name": name, "is_team": int(is_team), "created_at": created_at},
            )
        )

    def add(self, row: Account | Grant | Token) -> bool:
        """Keep one; False where there is another with its key, or for an account with its subject.

        The home of an account has been added before, and the grant of a token that has one.
        """
        table = {Account: "accounts", Grant: "grants", Token: "tokens"}[type(row)]
        columns = [column.name for column in fields(row)]
        names = ", ".join(f":{column}" for column in columns)
        return bool(
            self._run(
                f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({names})"
                f" ON CONFLICT DO NOTHING RETURNING {columns[0]}",
                {
                    name: int(value) if isinstance(value, bool) else value
                    for name, value in asdict(row).items()
                },
            )
        )

    def list_accounts(
        self, name: str | None = None, *, issuer: str | None = None, subject: str | None = None
    ) -> list[Account]:
        """Return all accounts by name, or the one of a name, or the one of an issuer's subject."""
        rows = self._run(
            f"SELECT {_ACCOUNT_ROW} FROM accounts WHERE (CAST(:name AS TEXT) IS NULL OR name = :name)"
            " AND (CAST(:subject AS TEXT) IS NULL OR issuer = :issuer AND subject = :subject)"
            " ORDER BY name",
            {"name": name, "issuer": issuer, "subject": subject},
        )
        return [Account(*row) for row in rows]

    def update_account(self, name: str, **columns: str | None) -> None:
        """Set columns of an account: `revoked_at`, `last_used_at`, `deleted_at`."""
        sets = ", ".join(f"{column} = :{column}" for column in columns)
        self._run(f"UPDATE accounts SET {sets} WHERE name = :name", {"name": name, **columns})

    def put_member(self, access: Access, added_at: str) -> None:
        """Let an account use a home, or say anew whether it may write there."""
        self._run(
            "INSERT INTO members (home, account, may_write, added_at)"
            " VALUES (:home, :account, :may_write, :added_at)"
            " ON CONFLICT (home, account) DO UPDATE SET may_write = excluded.may_write",
            {
                "home": access.home,
                "account": access.account,
                "may_write": int(access.may_write),
                "added_at": added_at,
            },
        )

    def delete_member(self, home: str, account: str) -> bool:
        """Take an account's access to a home away; False where it had none."""
        return bool(
            self._run(
                "DELETE FROM members WHERE home = :home AND account = :account RETURNING home",
                {"home": home, "account": account},
            )
        )

    def get_access(self, account: str, home: str) -> Access | None:
        """Return what an account may do in a home that is not deleted; None for nothing."""
        rows = self._run(
            "SELECT m.account, m.home, m.may_write FROM members m"
            " JOIN homes h ON h.name = m.home JOIN accounts a ON a.name = m.account"
            " WHERE m.account = :account AND m.home = :home"
            " AND h.deleted_at IS NULL AND a.revoked_at IS NULL",
            {"account": account, "home": home},
        )
        return next((Access(who, where, bool(may)) for who, where, may in rows), None)

    def list_teams(self) -> list[Team]:
        """Return all teams by name, deleted ones too, each with its members by name."""
        members: dict[str, list[Access]] = {}
        for home, account, may_write in self._run(
            "SELECT home, account, may_write FROM members ORDER BY account", {}
        ):
            members.setdefault(home, []).append(Access(account, home, bool(may_write)))
        rows = self._run(
            "SELECT name, created_at, deleted_at FROM homes WHERE is_team = 1 AND purged_at IS NULL"
            " ORDER BY name",
            {},
        )
        return [Team(name, made, gone, members.get(name, ())) for name, made, gone in rows]

    def is_open(self, home: str) -> bool:
        """Whether anybody may use a home."""
        return bool(
            self._run(
                "SELECT 1 FROM members m JOIN homes h ON h.name = m.home"
                " JOIN accounts a ON a.name = m.account"
                " WHERE h.name = :home AND h.deleted_at IS NULL AND a.revoked_at IS NULL LIMIT 1",
                {"home": home},
            )
        )

    def set_deleted(self, home: str, deleted_at: str | None) -> None:
        """Note when a home was deleted, or with None that it is not."""
        self._run(
            "UPDATE homes SET deleted_at = :deleted_at WHERE name = :home",
            {"home": home, "deleted_at": deleted_at},
        )

    def purge_home(self, home: str, purged_at: str) -> None:
        """Delete what is known of a home and of the account of its name, but that the name is taken."""
        self.delete_tokens(home)
        for statement in (
            "DELETE FROM members WHERE home = :home OR account = :home",
            "DELETE FROM accounts WHERE name = :home",
        ):
            self._run(statement, {"home": home})
        self._run(
            "UPDATE homes SET purged_at = :purged_at WHERE name = :home",
            {"home": home, "purged_at": purged_at},
        )

    def note_access_change(self, change_id: str) -> None:
        """Note that somebody may do less than before, under an id that is larger the later it is."""
        self._run("INSERT INTO access_changes (id) VALUES (:id)", {"id": change_id})

    def access_changes(self) -> tuple[Any, ...]:
        """Return what is another after each `note_access_change`, whichever process made it."""
        return self._run("SELECT COUNT(*), MAX(id) FROM access_changes", {})[0]

    def list_keys(self) -> list[tuple[int, str, str]]:
        """Return number, secret and date of the keys of the server, the newest first."""
        rows = self._run("SELECT number, secret, created_at FROM server_keys ORDER BY number DESC", {})
        return [(number, secret, created_at) for number, secret, created_at in rows]

    def add_key(self, number: int, secret: str, created_at: str) -> None:
        """Keep a key, unless another process has kept one under this number; older ones by two go."""
        values = {"number": number, "secret": secret, "created_at": created_at}
        self._run(
            "INSERT INTO server_keys (number, secret, created_at)"
            " VALUES (:number, :secret, :created_at) ON CONFLICT DO NOTHING",
            values,
        )
        self._run("DELETE FROM server_keys WHERE number < :oldest", {"oldest": number - 1})

    def get_token(self, token_id: str) -> tuple[Token, Account, Grant | None] | None:
        """Return the secret of an id with the account it is of, and the grant it belongs to."""
        columns = [
            f"{table}.{column}"
            for table, names in (("t", _ISSUED_ROW), ("a", _ACCOUNT_ROW), ("g", _GRANT_ROW))
            for column in names.split(", ")
        ]
        rows = self._run(
            f"SELECT {', '.join(columns)} FROM tokens t JOIN accounts a ON a.name = t.account"
            " LEFT JOIN grants g ON g.id = t.grant_id WHERE t.id = :id",
            {"id": token_id},
        )
        if not rows:
            return None
        token, account = Token(*rows[0][:8]), Account(*rows[0][8:15])
        return token, account, Grant(*rows[0][15:]) if token.grant_id else None

    def spend_token(self, token_id: str, spent_at: str, keep_until: str) -> bool:
        """Use a secret that is good for one use; False where it was used before, or is gone.

        It expires, and so is forgotten, at `keep_until`.
        """
        return bool(
            self._run(
                "UPDATE tokens SET spent_at = :spent_at, expires_at = :keep_until"
                " WHERE id = :id AND spent_at IS NULL RETURNING id",
                {"id": token_id, "spent_at": spent_at, "keep_until": keep_until},
            )
        )

    def delete_tokens(self, account: str) -> None:
        """Delete all secrets of an account, and what it let programs do."""
        self._run("DELETE FROM grants WHERE account = :account", {"account": account})
        self._run("DELETE FROM tokens WHERE account = :account", {"account": account})

    def delete_oldest_grants(self, account: str, keep: int) -> None:
        """Delete all grants of an account but the newest so many, with their secrets."""
        self._run(
            "DELETE FROM grants WHERE account = :account AND id NOT IN (SELECT id FROM grants"
            " WHERE account = :account ORDER BY created_at DESC, id LIMIT :keep)",
            {"account": account, "keep": keep},
        )

    def delete_grants(self, account: str, address_end: str) -> None:
        """Delete the grants of an account for the home whose address ends so, with their secrets."""
        self._run(
            "DELETE FROM grants WHERE account = :account AND resource LIKE :like",
            {"account": account, "like": f"%{address_end}"},
        )

    def delete_grant(self, grant_id: str) -> None:
        """Delete a grant with all its secrets."""
        self._run("DELETE FROM grants WHERE id = :id", {"id": grant_id})

    def put_client(self, client_id: str, metadata: Mapping[str, Any], created_at: str) -> None:
        """Keep what a program says of itself, in place of what it said before."""
        self._run(
            "INSERT INTO clients (id, metadata, created_at) VALUES (:id, :metadata, :created_at)"
            " ON CONFLICT (id) DO UPDATE"
            " SET metadata = excluded.metadata, created_at = excluded.created_at",
            {"id": client_id, "metadata": json.dumps(metadata), "created_at": created_at},
        )

    def get_client(self, client_id: str) -> tuple[dict[str, Any], str] | None:
        """Return what a program said of itself, and when; None where there is none of this id."""
        rows = self._run("SELECT metadata, created_at FROM clients WHERE id = :id", {"id": client_id})
        return next(((json.loads(metadata), created_at) for metadata, created_at in rows), None)

    def count_failure(self, key: str, at: str, forgotten_before: str) -> int:
        """Count a failed login under a key, anew where the last was before that; return how many."""
        rows = self._run(
            "INSERT INTO failed_logins (key, failures, last_at) VALUES (:key, 1, :at)"
            " ON CONFLICT (key) DO UPDATE SET last_at = excluded.last_at, failures ="
            " CASE WHEN failed_logins.last_at < :before THEN 1 ELSE failed_logins.failures + 1 END"
            " RETURNING failures",
            {"key": key, "at": at, "before": forgotten_before},
        )
        return int(rows[0][0])

    def block_login(self, key: str, until: str) -> None:
        """Let nobody log in under a key until then."""
        self._run(
            "UPDATE failed_logins SET blocked_until = :until WHERE key = :key",
            {"key": key, "until": until},
        )

    def blocked_until(self, keys: tuple[str, str], now: str) -> str | None:
        """Return when the last of two keys can be logged in under again; None for now."""
        rows = self._run(
            "SELECT MAX(blocked_until) FROM failed_logins"
            " WHERE key IN (:first, :second) AND blocked_until > :now",
            {"first": keys[0], "second": keys[1], "now": now},
        )
        return rows[0][0] if rows else None

    def sweep(self, now: str, idle_before: str, failures_before: str) -> None:
        """Delete what is over: expired secrets, grants without any, and failures of long ago.

        Of programs go those that registered before `idle_before` and have no grant.
        """
        for statement in (
            "DELETE FROM tokens WHERE expires_at <= :now",
            "DELETE FROM grants WHERE NOT EXISTS (SELECT 1 FROM tokens t WHERE t.grant_id = grants.id)",
            "DELETE FROM clients WHERE created_at < :idle_before"
            " AND NOT EXISTS (SELECT 1 FROM grants g WHERE g.client_id = clients.id)",
            "DELETE FROM failed_logins WHERE last_at < :failures_before",
            "DELETE FROM access_changes WHERE id < :failures_before",
        ):
            values = {"now": now, "idle_before": idle_before, "failures_before": failures_before}
            self._run(statement, {name: values[name] for name in values if f":{name}" in statement})

    def count_clients(self) -> int:
        """Count the programs that are registered."""
        return int(self._run("SELECT COUNT(*) FROM clients", {})[0][0])
