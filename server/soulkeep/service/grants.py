"""What accounts let programs do: logins, codes, and the tokens that OAuth 2.1 hands out for them.

A grant is one account's leave for one program to use one home. All its secrets go with it: when one that
is good for a single use comes a second time, somebody else has it too, so the grant ends.
"""

import ipaddress
import secrets
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from soulkeep.errors import SoulkeepError, StoreError
from soulkeep.repository.accounts import Grant, Token, TokenKind
from soulkeep.service.accounts import Accounts, new_token, token_id_of
from soulkeep.wording import counted

CODE_S = 60
ACCESS_S = 3_600
REFRESH_S = 60 * 86_400
"""How long a code, an access and a refresh token last; each refresh gives a new one for as long."""

SPENT_S = 7 * 86_400
"""How long what was used is remembered, so that a second use is noticed."""

MOST_GRANTS = 50
"""The programs that one account lets in at the same time; the oldest go first."""

MOST_CLIENTS = 10_000
CLIENT_UNUSED_S = 90 * 86_400
CLIENT_UNUSED_WHERE_FULL_S = 3_600
"""How many programs may be registered, and for how long without a grant: any may register itself."""

MOST_REGISTERING = 60
"""The programs that one address may register in an hour of the clock, or let be read of."""

DESCRIPTION_S = 86_400
"""How long what a program publishes of itself is good; then it is read again."""

SHARED_DIGITS = 8
"""How many of the sixteen hex digits by which a token is found all of one grant have in common: a proxy
that goes by them sends a program to the same process, however often it refreshes."""

FREE_FAILURES = 5
LONGEST_WAIT_S = 900
FAILURES_FORGOTTEN_S = 3_600
"""So many wrong tokens in a row cost nothing; then each doubles the wait, up to a quarter of an hour."""


@dataclass(eq=False)
class LoginRefusedError(SoulkeepError):
    """A token does not let in, for whatever reason; with `wait_s`, none is looked at before that."""

    wait_s: int = 0

    def __str__(self) -> str:
        """Return what is said of it to whoever tried."""
        waiting = f"There were too many tries; wait {counted(self.wait_s, 'second')} and try again."
        return waiting if self.wait_s else "This token does not let you in here; check it."


class TooManyClientsError(SoulkeepError):
    """No other program can register itself now."""


@dataclass(frozen=True, slots=True)
class Issued:
    """New tokens of a grant; `expires_in` is how many seconds the access token lasts."""

    access_token: str = field(repr=False)
    refresh_token: str = field(repr=False)
    expires_in: int = ACCESS_S


class Grants:
    """The programs of a server's accounts, and the secrets that they have; threads may share it."""

    def __init__(self, accounts: Accounts) -> None:
        self.accounts = accounts
        self._store = accounts.store

    def client(self, client_id: str, newer_than_s: float | None = None) -> dict[str, Any] | None:
        """Return what a program said of itself; None for an unknown one, or if that is too long ago."""
        found = self._store.get_client(client_id) if client_id.isprintable() else None
        since = "" if newer_than_s is None else self.accounts.later(-newer_than_s)
        return found[0] if found and found[1] > since else None

    def may_register(self, address: str) -> bool:
        """Count a program that registers itself from an address; False where there were too many."""
        key, now = (
            f"register {network_of(address)} {self.accounts.later(0)[:13]}",
            self.accounts.later(0),
        )
        with self._store.transaction():
            return self._store.count_failure(key, now, forgotten_before="") <= MOST_REGISTERING

    def add_client(self, client_id: str, metadata: Mapping[str, Any]) -> None:
        """Keep what a program says of itself, in place of what it said before.

        Raises:
            TooManyClientsError: As many as may be are registered, and in use or new.
        """
        self._sweep(CLIENT_UNUSED_S)
        if self._store.count_clients() >= MOST_CLIENTS:
            self._sweep(CLIENT_UNUSED_WHERE_FULL_S)
        with self._store.transaction():
            if self._store.count_clients() >= MOST_CLIENTS:
                raise TooManyClientsError("Too many programs have registered; try again in an hour.")
            self._store.put_client(client_id, metadata, self.accounts.later(0))

    def log_in(self, token: str, address: str, home: str) -> None:
        """Check that this is an account's own token, and that it may use a home: `""` is its own.

        Wrong tokens are counted for the address that sent them, and for the token that was nearly named.

        Raises:
            LoginRefusedError: It does not let in, or nobody is let in from there at the moment.
        """
        by_address, token_id = f"address {network_of(address)}", token_id_of(token)
        keys = (by_address, f"token {token_id}" if token_id else by_address)
        if blocked_until := self._store.blocked_until(keys, self.accounts.later(0)):
            left = datetime.fromisoformat(blocked_until) - datetime.fromisoformat(self.accounts.later(0))
            raise LoginRefusedError(int(left.total_seconds()) + 1)
        account = self.accounts.account_of(token)
        if account is None or self.accounts.access(account.name, home or account.name) is None:
            self._sweep(CLIENT_UNUSED_S)
            with self._store.transaction():
                for key in set(keys):
                    self._count_failure(key)
            raise LoginRefusedError
        self.accounts.note_use(account)

    def _count_failure(self, key: str) -> None:
        now, forgotten = self.accounts.later(0), self.accounts.later(-FAILURES_FORGOTTEN_S)
        surplus = self._store.count_failure(key, now, forgotten) - FREE_FAILURES
        if surplus >= 0:
            wait_s = min(2 ** min(surplus, 10), LONGEST_WAIT_S)
            self._store.block_login(key, self.accounts.later(wait_s))

    def add(
        self,
        token: str,
        client_id: str,
        *,
        resource: str,
        redirect_uri: str,
        redirect_was_named: bool,
        code_challenge: str,
    ) -> str:
        """Let a program use the home at `resource`, for the account that logged in by this token.

        Return the code that the program is told.

        Raises:
            LoginRefusedError: The token ended a moment ago.
        """
        self._sweep(CLIENT_UNUSED_S)
        with self._store.transaction():
            if (account := self.accounts.account_of(token)) is None:
                raise LoginRefusedError
            grant = Grant(
                id=secrets.token_hex(8),
                account=account.name,
                client_id=client_id,
                resource=resource,
                redirect_uri=redirect_uri,
                redirect_was_named=redirect_was_named,
                code_challenge=code_challenge,
                created_at=self.accounts.later(0),
            )
            self._store.delete_oldest_grants(account.name, keep=MOST_GRANTS - 1)
            self._store.add(grant)
            return self._give(grant, "code", CODE_S)

    def unspent(self, token: str, kind: TokenKind) -> tuple[Token, Grant] | None:
        """Return what is known of a good code or refresh token; one that was used ends its grant."""
        found = self.accounts.verified(token, kind)
        if found is None or (grant := found[2]) is None:
            return None
        if found[0].spent_at is not None:
            self._end(grant.id)
            return None
        return found[0], grant

    def exchange(self, token_id: str) -> Issued | None:
        """Use a code or refresh token, by its id, for new tokens; None if somebody else just did."""
        found = self._store.get_token(token_id)
        if found is None or (grant := found[2]) is None:
            return None
        self._sweep(CLIENT_UNUSED_S)
        with self._store.transaction():
            if self._store.spend_token(
                token_id, self.accounts.later(0), keep_until=self.accounts.later(SPENT_S)
            ):
                return Issued(
                    self._give(grant, "access", ACCESS_S), self._give(grant, "refresh", REFRESH_S)
                )
        self._end(grant.id)
        return None

    def revoke(self, token: str, client_id: str) -> None:
        """End the grant of one of a program's tokens; another's, or a wrong one, does nothing."""
        found = self.accounts.verified(token, "access", "refresh")
        if found and found[2] and found[2].client_id == client_id:
            self._end(found[2].id)

    def _end(self, grant_id: str) -> None:
        with self._store.transaction():
            self._store.delete_grant(grant_id)
            self.accounts.note_access_change()

    def _give(self, grant: Grant, kind: TokenKind, seconds: float) -> str:
        now, expires_at = self.accounts.later(0), self.accounts.later(seconds)
        while True:
            token, token_id, digest = new_token(grant.id[:SHARED_DIGITS])
            one = Token(token_id, digest, kind, grant.account, now, expires_at, grant.id)
            if self._store.add(one):  # its id is nobody else's
                return token

    def _sweep(self, client_unused_s: float) -> None:
        later = self.accounts.later
        with suppress(StoreError):  # the next one does it
            self._store.sweep(later(0), later(-client_unused_s), later(-FAILURES_FORGOTTEN_S))


def parsed_address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Return an address of IP, one of IPv4 as such however it is written; None for another text."""
    try:
        parsed = ipaddress.ip_address(text)
    except ValueError:
        return None
    return getattr(parsed, "ipv4_mapped", None) or parsed


def network_of(address: str) -> str:
    """Return what is counted as one address: who has one of IPv6 has its whole network."""
    parsed = parsed_address(address)
    if parsed is None:  # a socket's peer without an address
        return "unknown"
    return str(ipaddress.ip_network((parsed, 64), strict=False) if parsed.version == 6 else parsed)
