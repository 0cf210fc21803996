"""Putting text that others wrote on the user's terminal."""

import unicodedata


def printable(text: str) -> str:
    """Replace the control characters with which a stored text could drive the terminal."""
    return "".join("�" if _drives_terminal(character) else character for character in text)


def _drives_terminal(character: str) -> bool:
    return unicodedata.category(character) == "Cc" and character not in "\n\t"
