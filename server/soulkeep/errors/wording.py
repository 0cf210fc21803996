"""What every error is, and the words that several share."""

import re

HALF_A_PAIR = "holds half of a surrogate pair; give whole Unicode characters"
"""The rule that a text breaks which no UTF-8 file can hold."""
_EXCERPT_CHARACTERS = 40
# Fillers and variation selectors: they show as nothing, and Python takes them for printable.
_UNSEEN = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180d\u180f\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)
TITLES = 20


def excerpt(value: str) -> str:
    """Quote at most 40 characters of `value`; what does not show, and lone surrogates, are escaped."""
    if len(value) > _EXCERPT_CHARACTERS:
        value = value[:_EXCERPT_CHARACTERS] + "…"
    if any("\ud800" <= c <= "\udfff" for c in value):
        return ascii(value)
    return _UNSEEN.sub(lambda unseen: ascii(unseen[0])[1:-1], repr(value))


def row_name(kind: str, key: str) -> str:
    """Name a row of a table, or a document, in a form that nothing else shares: #12 is a memory."""
    if kind == "memories":
        return f"#{key}"
    nouns = {"threads": "thread ", "global_prompts": "prompt ", "messages": "message "}
    return f"{nouns.get(kind, '')}{key}"


class SoulkeepError(Exception):
    """Anything that soulkeep reports to its caller in a sentence."""
