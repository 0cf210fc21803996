"""What others publish: the keys by which an issuer's tokens are known, what a program says of itself."""

import json
import logging
import socket
import threading
import time
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import httpx2
import jwt

from soulkeep.errors import InvalidInputError
from soulkeep.models import Account
from soulkeep.service.accounts import Accounts, is_subject

ALGORITHMS = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"]
"""Signatures by a key that only the issuer has; never none, nor one by a secret that both have."""

LEEWAY_S = 30
"""How far clocks of two machines may differ."""

PATIENCE_S = 5
PAUSE_S = 10
"""How long the issuer has for an answer, and how long it is left alone after it failed."""

_DESCRIPTIONS = ("/.well-known/openid-configuration", "/.well-known/oauth-authorization-server")

MOST_DESCRIPTION_BYTES, LONGEST_DESCRIPTION_URL = 16_384, 500
"""The most that is read of what a program says of itself, and the longest address of that."""

_TRANSLATED = [ip_network("64:ff9b::/96"), ip_network("2002::/16")]
"""Addresses of IPv6 in which there is one of IPv4, perhaps one that is not public."""

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
        if not is_subject(subject):
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


def description_of(program: str, *, is_local: bool) -> dict[str, Any]:
    """Return what a program says of itself at the address that is its id (Client ID Metadata Document).

    Whoever asks to be let in writes that address, so it must not lead into the network of the server:
    only public addresses are asked, and nowhere else is followed to. A server that is of this machine
    alone (`is_local`) also asks this machine.

    Raises:
        InvalidInputError: It cannot be read, or is not of this program.
    """
    try:
        parts = urlsplit(program)
        host, port = parts.hostname or "", parts.port or 443
        is_odd = parts.fragment or parts.username is not None or {".", ".."} & {*parts.path.split("/")}
        if parts.scheme != "https" or parts.path in ("", "/") or is_odd:
            raise ValueError("it must be an https address with a path")  # noqa: TRY301
        if not (program.isascii() and program.isprintable()) or " " in program:
            # The page shows its host, and letters of other scripts look like those of a known one.
            raise ValueError("it must be written in ASCII, its host as xn--...")  # noqa: TRY301
        if len(program) > LONGEST_DESCRIPTION_URL:
            raise ValueError("it is too long")  # noqa: TRY301
        said = _read_from(_public_address(host, port, is_local=is_local), program)
        if not isinstance(said, dict) or said.get("client_id") != program:
            raise ValueError("it is not of this program")  # noqa: TRY301
    except (ValueError, OSError, httpx2.HTTPError, httpx2.InvalidURL) as error:
        raise InvalidInputError(
            "client_id", f"names a description that cannot be used: {error}"
        ) from error
    return said


def _public_address(host: str, port: int, *, is_local: bool) -> IPv4Address | IPv6Address:
    """Return an address of a host, all of which are public; so it does not matter which is asked."""
    try:
        found = [ip_address(host)]
    except ValueError:
        places = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        found = [ip_address(str(place[4][0]).partition("%")[0]) for place in places]
    plain = [getattr(one, "ipv4_mapped", None) or one for one in found]
    for one in plain:
        is_public = one.is_global and not one.is_multicast and not any(one in net for net in _TRANSLATED)
        if not (is_public or (is_local and one.is_loopback)):
            raise ValueError(f"{host} is no public host")
    return plain[0]


def _read_from(address: IPv4Address | IPv6Address, url: str) -> object:
    """Read JSON that is published at a URL, from the address that was looked at and no other."""
    asked, until, content = httpx2.URL(url), time.monotonic() + 2 * PATIENCE_S, b""
    with (
        httpx2.Client(verify=httpx2.create_ssl_context(), trust_env=False, timeout=PATIENCE_S) as client,
        client.stream(
            "GET",
            asked.copy_with(host=str(address)),
            headers={"Host": asked.netloc.decode(), "Accept": "application/json"},
            extensions={"sni_hostname": asked.host},
        ) as answer,
    ):
        if answer.status_code != httpx2.codes.OK:
            raise ValueError(f"its host answers {answer.status_code}")
        for piece in answer.iter_raw():
            content += piece
            if len(content) > MOST_DESCRIPTION_BYTES or time.monotonic() > until:
                raise ValueError("it is too long, or comes too slowly")
    return json.loads(content)
