"""What every error is, and the words that several share."""

HALF_A_PAIR = "holds half of a surrogate pair; give whole Unicode characters"
"""The rule that a text breaks which no UTF-8 file can hold."""
_EXCERPT_CHARACTERS = 40
TITLES = 20


def excerpt(value: str) -> str:
    """Quote at most 40 characters of `value`, control characters and lone surrogates escaped."""
    if len(value) > _EXCERPT_CHARACTERS:
        value = value[:_EXCERPT_CHARACTERS] + "…"
    return ascii(value) if any("\ud800" <= c <= "\udfff" for c in value) else repr(value)


def row_name(kind: str, key: str) -> str:
    """Name a row of a table, or a document, in a form that nothing else shares: #12 is a memory."""
    if kind == "memories":
        return f"#{key}"
    nouns = {"threads": "thread ", "global_prompts": "prompt ", "messages": "message "}
    return f"{nouns.get(kind, '')}{key}"


class SoulkeepError(Exception):
    """Anything that soulkeep reports to its caller in a sentence."""
