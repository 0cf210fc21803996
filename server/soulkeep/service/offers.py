"""How active global prompts are offered to MCP clients: name, description, arguments."""

import hashlib
import re
import unicodedata
from collections.abc import Sequence

from soulkeep.models import GlobalPrompt, PromptOffer
from soulkeep.wording import list_placeholders

RESERVED_NAMES = frozenset({"start"})
"""The names of prompts that are part of the server."""

_MAX_SLUG = 48
_MAX_DESCRIPTION = 120

_NOT_IN_SLUGS = re.compile("[^a-z0-9]+")
_LETTER = re.compile("[a-z]")
# Case folding and decomposition leave these as they are.
_LATIN = str.maketrans(
    {"æ": "ae", "œ": "oe", "ø": "o", "đ": "d", "ð": "d", "ł": "l", "þ": "th", "\u0131": "i"}
)
_APOSTROPHES = re.compile("['\u2019]")


def offer_prompts(prompts: Sequence[GlobalPrompt]) -> list[PromptOffer]:
    """Offer those of `prompts` that are in force, in their order.

    Of those that would have one name the oldest has it, and the others add their id.
    """
    active = [prompt for prompt in prompts if prompt.in_force]
    names = _names(active)
    return [
        PromptOffer(
            names[prompt.id],
            prompt,
            _first_line(prompt.content),
            tuple(list_placeholders(prompt.content)),
        )
        for prompt in active
    ]


def _names(prompts: Sequence[GlobalPrompt]) -> dict[int, str]:
    taken = set(RESERVED_NAMES)
    names: dict[int, str] = {}
    for prompt in sorted(prompts, key=lambda prompt: prompt.id):
        name = _slug(prompt.name) or f"prompt-{prompt.id}"
        while name in taken:
            name = f"{name}-{prompt.id}"
        taken.add(name)
        names[prompt.id] = name
    return names


def _slug(name: str) -> str:
    """Write a name with a-z, 0-9 and hyphens; empty where no letter of it can be written so."""
    letters = unicodedata.normalize("NFKD", _APOSTROPHES.sub("", name.casefold()).translate(_LATIN))
    bare = "".join(letter for letter in letters if not unicodedata.combining(letter))
    slug = _NOT_IN_SLUGS.sub("-", bare.casefold()).strip("-")[:_MAX_SLUG].rstrip("-")
    return slug if _LETTER.search(slug) else ""


def _first_line(content: str) -> str:
    line = " ".join(content.strip().partition("\n")[0].split())
    return line if len(line) <= _MAX_DESCRIPTION else line[: _MAX_DESCRIPTION - 1] + "…"


def fingerprint(offers: Sequence[PromptOffer]) -> str:
    """Return a text that two lists of offers share exactly when clients see the same in them."""
    seen = [(offer.name, offer.prompt.name, offer.description, offer.arguments) for offer in offers]
    return hashlib.sha256(ascii(seen).encode()).hexdigest()
