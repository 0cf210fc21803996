"""Tokens of an external issuer: who they say it is, if they are its own and meant for this server."""

import logging
import threading
import time
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import httpx2
import jwt

from soulkeep.models import Account
from soulkeep.service.accounts import Accounts

ALGORITHMS = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"]
"""Signatures by a key that only the issuer has; never none, nor one by a secret that both have."""

LEEWAY_S = 30
"""How far clocks of two machines may differ."""

PATIENCE_S = 5
PAUSE_S = 10
"""How long the issuer has for an answer, and how long it is left alone after it failed."""

MOST_SUBJECT = 255

_DESCRIPTIONS = ("/.well-known/openid-configuration", "/.well-known/oauth-authorization-server")

_log = logging.getLogger(__name__)


class Claims(NamedTuple):
    """What a token says that holds: whose it is, to which program it was given, and until when."""

    account: Account
    client_id: str
    expires_at: int


class Issuer:
    """An external issuer of tokens (JWT), known by its name, with keys that it publishes."""

    def __init__(
        self,
        accounts: Accounts,
        name: str,
        audience: str,
        jwks_url: str = "",
        *,
        adds_accounts: bool = False,
    ) -> None:
        """Believe `name`, the `iss` of its tokens, of those that are for `audience`.

        Without `jwks_url`, where its keys are is looked up in what it publishes below its name. With
        `adds_accounts` a subject that has no account gets one.
        """
        self.name = name
        self._accounts, self._audience, self._adds_accounts = accounts, audience, adds_accounts
        self._keys = jwt.PyJWKClient(jwks_url, timeout=PATIENCE_S) if jwks_url else None
        self._failed_at: float | None = None
        self._lock = threading.Lock()

    def claims_of(self, token: str, resource: str) -> Claims | None:
        """Return what holds of a token for the configured audience or for `resource`; else None."""
        try:
            header = jwt.get_unverified_header(token)
            if header.get("alg") not in ALGORITHMS or (key := self._key(header.get("kid"))) is None:
                return None
            claims: dict[str, Any] = jwt.decode(
                token,
                key,
                algorithms=ALGORITHMS,
                audience=list({self._audience or resource, resource}),
                issuer=self.name,
                leeway=LEEWAY_S,
                options={"require": ["exp", "iss", "aud", "sub"]},
            )
        except jwt.PyJWTError:
            return None
        subject = claims["sub"]
        if not 0 < len(subject.strip()) <= len(subject) <= MOST_SUBJECT:
            return None
        account = self._accounts.of_subject(self.name, subject, adds=self._adds_accounts)
        client = claims.get("client_id", claims.get("azp", self.name))
        return Claims(account, str(client), int(claims["exp"])) if account else None

    def _key(self, key_id: object) -> jwt.PyJWK | None:
        """Return the issuer's key of an id; None where it has none, or cannot be asked at the moment."""
        with self._lock:
            if self._failed_at is not None and time.monotonic() - self._failed_at < PAUSE_S:
                return None
            try:
                if self._keys is None:
                    self._keys = jwt.PyJWKClient(self._discovered(), timeout=PATIENCE_S)
                return self._keys.get_signing_key(key_id) if isinstance(key_id, str) else None
            except (
                jwt.PyJWKClientConnectionError,
                httpx2.HTTPError,
                OSError,
                ValueError,
                KeyError,
            ) as error:
                self._failed_at = time.monotonic()
                _log.warning("the keys of the issuer %s cannot be read (%s)", self.name, error)
                return None

    def _discovered(self) -> str:
        """Return where the issuer says that its keys are.

        Raises:
            ValueError: It says nothing of use.
            httpx2.HTTPError: It does not answer.
        """
        for place in _DESCRIPTIONS:
            answer = httpx2.get(self.name.rstrip("/") + place, timeout=PATIENCE_S)
            if answer.status_code == httpx2.codes.OK and answer.json()["issuer"] == self.name:
                return require_safe_url(str(answer.json()["jwks_uri"]))
        raise ValueError("it does not describe itself; set SOULKEEP_ISSUER_JWKS_URL")


def require_safe_url(url: str) -> str:
    """Return an address that is over https, or of this machine.

    Raises:
        ValueError: It is another.
    """
    parts = urlsplit(url)
    is_local = parts.scheme == "http" and parts.hostname in ("localhost", "127.0.0.1", "::1")
    if not parts.hostname or not (parts.scheme == "https" or is_local):
        raise ValueError("must be an address that begins with https://, or http:// on this machine")
    return url
