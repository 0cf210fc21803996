"""Who may use a server of several people, which homes are theirs, and the secrets that prove it.

An account has a home of its own, which has its name; a team is a home with several members, to read or
to write. Accounts and teams share their names, and none is ever given twice. Who is revoked or deleted
can come back, with all they had; only `purge` deletes a home.
"""

import hashlib
import hmac
import re
import secrets
import shutil
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

from soulkeep.errors import InvalidInputError, NotFoundError, StoreError, StoreNotWritableError
from soulkeep.models import Access, Account, Clock, timestamp, utc_now
from soulkeep.repository.accounts import AccountStore, Grant, Team, Token, TokenKind
from soulkeep.wording import quoted

FOLDER = "accounts"
"""The folder of a server's homes, each in a folder of its name, inside SOULKEEP_HOME."""

TOKEN_PREFIX = "soulkeep_"  # noqa: S105 - by which programs that look for leaked secrets know one
_TOKEN = re.compile(rf"{TOKEN_PREFIX}(?P<id>[0-9a-f]{{16}})_[A-Za-z0-9_-]{{43}}", re.ASCII)
_SECRET_BYTES = 32

LONGEST_NAME, LONGEST_SUBJECT = 32, 255
_NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
_DEVICES = frozenset(
    f"{device}{number}" for device in ("com", "lpt") for number in range(10)
) | frozenset({"con", "prn", "aux", "nul"})
_ADDRESSES = frozenset(
    "mcp healthz authorize login account token register revoke static assets api local".split()
)

KEY_S, KEY_SHARED_S = 30 * 86_400, 3_600
"""How long a key of the server is used for what is new, and how old a key is before that: by then each
process has it. The key before is kept, so what it sealed holds for a month more."""

USE_NOTED_S = 600
"""How exactly it is noted when an account was last used: not at each request."""


def valid_name(argument: str, name: str) -> str:
    """Return a name of an account or a team as it is kept: in lower case.

    It stands in addresses and as a folder on any system, so it has up to 32 letters a to z, digits and
    single hyphens between them, and is neither a device of Windows nor a word of the server's addresses.

    Raises:
        InvalidInputError: It cannot be one.
    """
    kept = name.strip().lower() if name.isascii() else name
    if len(kept) > LONGEST_NAME or not _NAME.fullmatch(kept):
        rule = (
            f"must have 1 to {LONGEST_NAME} letters a to z, digits and single hyphens between them;"
            " choose another name"
        )
        raise InvalidInputError(argument, rule)
    if kept in _DEVICES or kept in _ADDRESSES:
        raise InvalidInputError(
            argument, f"must not be {kept}, which means something else; choose another"
        )
    return kept


def is_name(text: str) -> bool:
    """Whether a text is a name as it is kept, of whomever or nobody."""
    try:
        return valid_name("name", text) == text
    except InvalidInputError:
        return False


def is_subject(text: str) -> bool:
    """Whether an issuer can mean somebody by a text: one that can be seen, of up to 255 characters."""
    return bool(text.strip()) and text.isprintable() and len(text) <= LONGEST_SUBJECT


def new_token(id_begins: str = "") -> tuple[str, str, str]:
    """Return a secret of 256 random bits, the id by which it is found, and the digest to keep of it."""
    token_id = id_begins + secrets.token_hex(8)[len(id_begins) :]
    token = f"{TOKEN_PREFIX}{token_id}_{secrets.token_urlsafe(_SECRET_BYTES)}"
    return token, token_id, digest_of(token)


def digest_of(token: str) -> str:
    """Return what is kept of a secret: its SHA-256, in hex. A slow hash is for secrets of few bits."""
    return hashlib.sha256(token.encode(errors="surrogatepass")).hexdigest()


def token_id_of(token: str) -> str | None:
    """Return the part of a token by which it is found, which is no secret; None for none of ours."""
    shape = _TOKEN.fullmatch(token)
    return shape["id"] if shape else None


class Accounts:
    """The accounts and teams of a server; threads may share it.

    `all` and `teams` list them by name, revoked and deleted ones too. `access` says what an account
    may do in a home, or None where it may not, or there is none; `is_open` whether anybody may do
    anything there. `access_changes` is another whenever somebody may do less than before.
    """

    def __init__(
        self,
        store: AccountStore,
        home: Path,
        remove_store: Callable[[str], bool],
        clock: Clock = utc_now,
    ) -> None:
        """Keep them in `store`; the homes are in the folder of accounts inside `home`.

        `remove_store` deletes what there is of a home of this name outside of its folder, for good, and
        returns False while others still read it.
        """
        self.store, self.close = store, store.close
        self._remove_store = remove_store
        self.access_changes, self.is_open = store.access_changes, store.is_open
        self.all, self.teams, self.access = store.list_accounts, store.list_teams, store.get_access
        self._folder = home / FOLDER
        self._clock = clock

    def later(self, seconds: float) -> str:
        """Return the timestamp of the moment in so many seconds, or before now if they are negative."""
        return timestamp(self._clock() + timedelta(seconds=seconds))

    def home_path(self, home_name: str) -> Path:
        """Return the folder of a home, which need not be there yet.

        Raises:
            InvalidInputError: No home can have the name.
        """
        return self._folder / valid_name("home", home_name)

    def verified(self, token: str, *kinds: TokenKind) -> tuple[Token, Account, Grant | None] | None:
        """Return what is known of a secret that is one of these kinds and still good, else None.

        A wrong one takes as long as another: it is found by the part that is no secret, and compared in
        constant time.
        """
        token_id = token_id_of(token)
        found = self.store.get_token(token_id) if token_id else None
        if not hmac.compare_digest(digest_of(token), found[0].digest if found else "0" * 64):
            return None
        if found is None or found[0].kind not in kinds or found[1].revoked_at is not None:
            return None
        expires_at = found[0].expires_at
        return None if expires_at is not None and expires_at <= self.later(0) else found

    def account_of(self, token: str) -> Account | None:
        """Return the account whose own token this is; None for a wrong one, or a revoked account."""
        found = self.verified(token, "account")
        return found[1] if found else None

    def note_use(self, account: Account) -> None:
        """Note that an account is used, now and then; that it cannot be noted stops nobody."""
        if account.last_used_at is None or account.last_used_at < self.later(-USE_NOTED_S):
            with suppress(StoreError):
                self.store.update_account(account.name, last_used_at=self.later(0))

    def add(self, name: str, *, issuer: str | None = None, subject: str | None = None) -> str:
        """Make an account with its home, and return its token, which nobody can show again.

        With an issuer and a subject it is also that of who has such a token of the issuer.

        Raises:
            InvalidInputError: The name cannot be one or is taken, or the subject has an account or is
                none.
        """
        if subject is not None and not is_subject(subject):
            rule = f"must be the `sub` of the issuer's tokens, of 1 to {LONGEST_SUBJECT} characters that"
            raise InvalidInputError("subject", f"{rule} can be seen; give it, or leave it out")
        name, now = valid_name("name", name), self.later(0)
        with self.store.transaction():
            self._take(name, is_team=False)
            if not self.store.add(Account(name, now, issuer, subject)):
                raise InvalidInputError(
                    "subject", "has an account already; `soulkeep accounts list` shows it"
                )
            self.store.put_member(Access(name, name, may_write=True), now)
            return self._give_token(name)

    def of_subject(self, issuer: str, subject: str, *, adds: bool = False) -> Account | None:
        """Return the account of who is `subject` to an issuer; None for none, or a revoked one.

        With `adds` one is made where there is none. Its name is made of the subject and its digest, so
        it is nobody else's, whoever chose theirs.
        """
        if adds and not self.store.list_accounts(issuer=issuer, subject=subject):
            digest = digest_of(f"{issuer}\n{subject}")[:12]
            said = "-".join(re.findall(r"[a-z0-9]+", subject.lower()))[: LONGEST_NAME - 13].strip("-")
            with self.store.transaction():
                name, now = f"{said}-{digest}".strip("-"), self.later(0)
                if self.store.add_home(name, now, is_team=False):
                    self.store.add(Account(name, now, issuer, subject))
                    self.store.put_member(Access(name, name, may_write=True), now)
        found = self.store.list_accounts(issuer=issuer, subject=subject)
        return found[0] if found and found[0].revoked_at is None else None

    def keys(self) -> list[bytes]:
        """Return the keys that all processes of the server share; the first seals what is new.

        Each month one is added, which seals once every process has it. To be asked for every few
        minutes.
        """
        found = self.store.list_keys()
        if not found or found[0][2] < self.later(-KEY_S):
            with self.store.transaction():
                number = found[0][0] + 1 if found else 1
                self.store.add_key(number, secrets.token_hex(_SECRET_BYTES), self.later(0))
            found = self.store.list_keys()
        known = [secret for _, secret, created_at in found if created_at <= self.later(-KEY_SHARED_S)]
        first = known[0] if known else found[-1][1]
        ordered = [first, *(secret for _, secret, _ in found if secret != first)]
        return [bytes.fromhex(secret) for secret in ordered]

    def revoke(self, name: str) -> Account:
        """Let an account in by no way any more: its token, and what it let programs do, end now.

        Its home stays, and `rotate` lets it in again.

        Raises:
            NotFoundError: There is none of this name.
        """
        account = self._account(name)
        return self._shut_out(account, revoked_at=account.revoked_at or self.later(0))

    def rotate(self, name: str) -> str:
        """Return a new token for an account; the old one, and what it let programs do, end now.

        Raises:
            NotFoundError: There is none of this name that is not deleted.
        """
        account = self._account(name)
        if account.deleted_at is not None:
            remedy = f"`soulkeep accounts restore {account.name}` brings it back"
            raise NotFoundError(f"The account {account.name} is deleted", remedy)
        return self._let_in_again(account)

    def delete(self, name: str) -> Account:
        """Delete an account: it is let in no more, and is out of its teams while it is deleted.

        Its home is kept for `restore`, until `purge` deletes that too.

        Raises:
            NotFoundError: There is none of this name that is not deleted.
        """
        account = self._account(name)
        if account.deleted_at is not None:
            raise _unknown("account", name)
        now = self.later(0)
        return self._shut_out(account, revoked_at=account.revoked_at or now, deleted_at=now)

    def restore(self, name: str) -> str:
        """Bring a deleted account back with its home and its teams; return its new token.

        Raises:
            NotFoundError: There is no deleted one of this name.
        """
        account = self._account(name)
        if account.deleted_at is None:
            raise _unknown("deleted account", name)
        return self._let_in_again(account)

    def purge(self, name: str, *, is_team: bool) -> tuple[Path, bool]:
        """Delete the home of a deleted account or team for good; return the folder where it was.

        Nothing of it is kept but that the name is taken. What was in tables is erased there too; that
        is over with the second value, else only once nobody reads any more what was there before.

        Raises:
            NotFoundError: There is no deleted one of this name.
            StoreError: Something of it cannot be deleted; what is left is, when it is asked again.
        """
        found = self.team(name) if is_team else self._account(name)
        if found.deleted_at is None:
            raise _unknown("deleted team" if is_team else "deleted account", name)
        folder = self.home_path(found.name)
        aside = folder.with_name(f".{found.name}.purged")
        try:
            if folder.exists() and not aside.exists():
                folder.rename(aside)  # at once, so that nobody finds a half of it
            for path in (aside, folder):
                if path.exists():
                    shutil.rmtree(path)
        except OSError as error:
            raise StoreNotWritableError(folder, str(error)) from error
        is_final = self._remove_store(found.name)
        with self.store.transaction():
            self.store.purge_home(found.name, self.later(0))
        return folder, self.store.erase() and is_final

    def _shut_out(self, account: Account, **columns: str | None) -> Account:
        with self.store.transaction():
            self.store.delete_tokens(account.name)
            self.store.update_account(account.name, **columns)
            self.note_access_change()
        return self._account(account.name)

    def _let_in_again(self, account: Account) -> str:
        with self.store.transaction():
            self.store.delete_tokens(account.name)
            self.store.update_account(account.name, revoked_at=None, deleted_at=None)
            self.note_access_change()
            return self._give_token(account.name)

    def note_access_change(self) -> None:
        """Let every process look again whether who has something open may still have it."""
        self.store.note_access_change(f"{self.later(0)} {secrets.token_hex(8)}")

    def add_team(self, name: str) -> Team:
        """Make a home for several members, of whom it has none yet.

        Raises:
            InvalidInputError: The name cannot be one, or is taken.
        """
        name = valid_name("team", name)
        with self.store.transaction():
            self._take(name, is_team=True, argument="team")
        return self.team(name)

    def team(self, name: str) -> Team:
        """Return a team, deleted or not.

        Raises:
            NotFoundError: There is none of this name.
        """
        for team in self.store.list_teams():
            if team.name == name.strip().lower():
                return team
        raise _unknown("team", name)

    def put_member(self, team: str, account: str, *, may_write: bool) -> Team:
        """Let an account read in a team's home, or also write there; for a member, say so anew.

        Raises:
            NotFoundError: There is no team that is not deleted, or no account, of this name.
        """
        found, member = self._present(team), self._account(account)
        with self.store.transaction():
            self.store.put_member(Access(member.name, found.name, may_write), self.later(0))
            self.note_access_change()
        return self.team(found.name)

    def remove_member(self, team: str, account: str) -> Team:
        """Take an account's access to a team's home away, and that of the programs that it let in there.

        What it wrote there stays the team's.

        Raises:
            NotFoundError: There is no such team, or the account is no member of it.
        """
        found, member = self.team(team), account.strip().lower()
        with self.store.transaction():
            if not self.store.delete_member(found.name, member):
                raise _unknown(f"member of the team {found.name} called", account)
            self.store.delete_grants(member, f"/{found.name}/mcp")
            self.note_access_change()
        return self.team(found.name)

    def delete_team(self, name: str) -> Team:
        """Let nobody into a team's home any more; all in it is kept, and `restore_team` opens it again.

        Raises:
            NotFoundError: There is none of this name that is not deleted.
        """
        team = self._present(name)
        with self.store.transaction():
            self.store.set_deleted(team.name, self.later(0))
            self.note_access_change()
        return self.team(team.name)

    def restore_team(self, name: str) -> Team:
        """Open a deleted team's home again for those who were its members.

        Raises:
            NotFoundError: There is no deleted one of this name.
        """
        team = self.team(name)
        if team.deleted_at is None:
            raise _unknown("deleted team", name)
        with self.store.transaction():
            self.store.set_deleted(team.name, None)
        return self.team(team.name)

    def _take(self, name: str, *, is_team: bool, argument: str = "name") -> None:
        if not self.store.add_home(name, self.later(0), is_team=is_team):
            raise InvalidInputError(
                argument, f"is taken by an account or a team ({name}); choose another"
            )

    def _give_token(self, account: str) -> str:
        token, token_id, digest = new_token()
        self.store.add(Token(token_id, digest, "account", account, self.later(0)))
        return token

    def _account(self, name: str) -> Account:
        for account in self.store.list_accounts(name.strip().lower()):
            return account
        raise _unknown("account", name)

    def _present(self, name: str) -> Team:
        team = self.team(name)
        if team.deleted_at is not None:
            raise _unknown("team", name)
        return team


def _unknown(kind: str, name: str) -> NotFoundError:
    listing = "accounts" if kind.endswith("account") else "teams"
    return NotFoundError(f"There is no {kind} {quoted(name)}", f"`soulkeep {listing} list` shows all")
