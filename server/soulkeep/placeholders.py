"""Places in a text of the user's that are filled in when it is used: `{{topic}}`."""

import re
from collections.abc import Mapping

_PLACEHOLDER = re.compile(r"\{\{[ \t]*([A-Za-z_][A-Za-z0-9_-]*)[ \t]*\}\}")


def list_placeholders(text: str) -> list[str]:
    """Return the names of the placeholders, each once, in order of appearance."""
    return list(dict.fromkeys(_PLACEHOLDER.findall(text)))


def fill_placeholders(text: str, values: Mapping[str, str]) -> str:
    """Put each value where its placeholder stands; one without a value stays as it is.

    A value goes in as it is: what looks like a placeholder in it is none.
    """
    return _PLACEHOLDER.sub(lambda found: values.get(found[1], found[0]), text)
