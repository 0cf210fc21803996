"""What goes wrong with an embedder that is not built in.

EmbedderError
├── EndpointError         EndpointUnreachableError · EndpointUntrustedError · EndpointTimeoutError ·
│                         KeyRefusedError · RateLimitedError · EndpointFailedError ·
│                         EndpointRefusedError · EndpointMovedError · BadAnswerError
├── UnusableVectorsError
└── TextRefusedError
"""

from soulkeep.errors import EmbedderError


class EndpointError(EmbedderError):
    """An endpoint did not embed texts; `endpoint` is its address, without anything secret."""

    def __init__(self, endpoint: str, problem: str, remedy: str) -> None:
        self.endpoint = endpoint
        self.problem = problem
        self.remedy = remedy
        super().__init__(f"{endpoint} {problem}; {remedy}.")


class EndpointUnreachableError(EndpointError):
    """Nobody answers there, or the answer broke off."""

    is_temporary = True

    def __init__(self, endpoint: str, reason: str) -> None:
        self.reason = reason
        super().__init__(
            endpoint,
            f"cannot be reached ({reason})",
            "start it or correct SOULKEEP_EMBEDDER_URL; what waits is embedded once it answers",
        )


class EndpointUntrustedError(EndpointError):
    """No encrypted connection can be made to it that this machine trusts."""

    def __init__(self, endpoint: str, reason: str) -> None:
        self.reason = reason
        super().__init__(
            endpoint,
            f"makes no connection that can be trusted ({reason})",
            "correct SOULKEEP_EMBEDDER_URL, or have the system trust the authority of its certificate",
        )


class EndpointTimeoutError(EndpointError):
    """Its answer did not come in time."""

    is_temporary = True

    def __init__(self, endpoint: str, waited_s: float) -> None:
        self.waited_s = waited_s
        super().__init__(
            endpoint,
            f"did not answer within {waited_s:g} seconds",
            "see whether it is overloaded, or set SOULKEEP_EMBEDDER_TIMEOUT higher",
        )


class KeyRefusedError(EndpointError):
    """It does not accept the key, or wants one."""

    def __init__(self, endpoint: str, status: int) -> None:
        self.status = status
        super().__init__(
            endpoint,
            f"refuses the key (status {status})",
            "set SOULKEEP_EMBEDDER_KEY to a key that is valid there, and restart soulkeep",
        )


class RateLimitedError(EndpointError):
    """It takes no more requests for now."""

    is_temporary = True

    def __init__(self, endpoint: str, retry_after_s: float | None, said: str = "") -> None:
        self.retry_after_s = retry_after_s
        self.said = said
        later = "later" if retry_after_s is None else f"in {retry_after_s:g} seconds"
        super().__init__(
            endpoint,
            f"takes no more requests for now (status 429{said and f': {said}'})",
            f"wait: what is left is embedded {later}; if it stays so, look at your limits there",
        )


class EndpointFailedError(EndpointError):
    """It reports a fault of its own."""

    is_temporary = True

    def __init__(
        self, endpoint: str, status: int, said: str = "", retry_after_s: float | None = None
    ) -> None:
        self.status = status
        self.said = said
        self.retry_after_s = retry_after_s
        super().__init__(
            endpoint,
            f"failed (status {status}{said and f': {said}'})",
            "look at its log if it stays so; what waits is embedded once it works again",
        )


class EndpointRefusedError(EndpointError):
    """It takes no request of this kind: there is no such address, or no such model."""

    def __init__(self, endpoint: str, status: int, said: str = "") -> None:
        self.status = status
        self.said = said
        super().__init__(
            endpoint,
            f"refuses the request (status {status}{said and f': {said}'})",
            "correct SOULKEEP_EMBEDDER_URL and the model in SOULKEEP_EMBEDDER, and restart soulkeep",
        )


class EndpointMovedError(EndpointError):
    """It redirects to another address, which no text and no key is sent to unasked."""

    def __init__(self, endpoint: str, status: int, target: str) -> None:
        self.status = status
        self.target = target
        super().__init__(
            endpoint,
            f"redirects to {target or 'an address that it does not name'} (status {status})",
            "set SOULKEEP_EMBEDDER_URL to where it is, if you trust that",
        )


class BadAnswerError(EndpointError):
    """Its answer holds no vectors that can be used."""

    def __init__(self, endpoint: str, detail: str) -> None:
        self.detail = detail
        super().__init__(
            endpoint,
            f"gave an answer that cannot be used: {detail}",
            "see that SOULKEEP_EMBEDDER_URL leads to an OpenAI-compatible server, and its model embeds",
        )


class UnusableVectorsError(EmbedderError):
    """The vectors of a model are not what a search can use."""

    def __init__(self, model: str, detail: str) -> None:
        self.model = model
        self.detail = detail
        super().__init__(
            f"The vectors of {model} cannot be used: {detail}; set SOULKEEP_EMBEDDER_DIMENSIONS to how"
            " many it has, or SOULKEEP_EMBEDDER to a model that embeds texts."
        )


class TextRefusedError(EmbedderError):
    """One text cannot be embedded, though others can: it may be too long for the model."""

    def __init__(self, position: int, characters: int, reason: str) -> None:
        self.position = position
        self.characters = characters
        self.reason = reason
        super().__init__(
            f"A text of {characters:,} characters cannot be embedded ({reason}); it is found by its"
            " words, or say the same in a shorter text."
        )
