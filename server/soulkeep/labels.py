"""Short texts by which things are found (titles, names, subjects, sources), without what nobody sees.

Two that look the same would else be two: a zero-width space, a byte order mark, a bidirectional control
or a tag shows as nothing. What words and emoji are written with stays.
"""

import re
import unicodedata

_BREAK = re.compile("[\t-\r\x1c-\x1f\x85\u2028\u2029]+")
_FLAG = "\U0001f3f4[\U000e0030-\U000e0039\U000e0061-\U000e007a]{1,6}\U000e007f"
"""The flag of a region, which is spelt in tags."""

_HIDDEN = re.compile(
    f"({_FLAG})|[\x01-\x1f\x7f-\x9f\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f"
    "\u202a-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff9-\ufffb\U0001bca0-\U0001bca3"
    "\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)
_JOINERS, _VARIANTS, _DIRECTIONS = "\u200c\u200d", "\ufe0e\ufe0f", "\u200e\u200f\u061c"
_OF_EMOJI = "\ufe0f\u20e3\U0001f3fb\U0001f3fc\U0001f3fd\U0001f3fe\U0001f3ff"
_KEYCAPS = "0123456789#*"

# Scripts whose letters change their shape beside a joiner: from Arabic to Mandaic, from Devanagari to
# Sinhala, Myanmar, Khmer, Mongolian, and the forms of Arabic.
_JOINED = re.compile("[\u0600-\u085f\u08a0-\u0dff\u1000-\u109f\u1780-\u17ff\u1800-\u18af\ufb50-\ufdff]")


def without_hidden(text: str) -> str:
    """Return a text on one line, without the characters that show as nothing."""
    if text.isascii() and text.isprintable():
        return text
    text = _BREAK.sub(" ", text)
    # Where one goes, what stood beside it may have lost what it was kept for.
    while (shown := _without(text)) != text:
        text = shown
    return text


def _without(text: str) -> str:
    return _HIDDEN.sub(lambda hidden: hidden[1] or _kept(text, hidden.start()), text)


def in_one_form(text: str) -> str:
    """Return what texts share that look the same: composed (NFC), with single spaces."""
    shown = without_hidden(unicodedata.normalize("NFC", text))
    if not shown.isascii():
        shown = "".join(sign for sign in shown if sign not in _VARIANTS + _DIRECTIONS)
    return " ".join(unicodedata.normalize("NFC", shown).split())


def _kept(text: str, at: int) -> str:
    """Return a hidden character where it does something to those beside it, else nothing."""
    sign, before, after = text[at], text[at - 1 : at], text[at + 1 : at + 2]
    if sign in _JOINERS:
        is_kept = bool(_JOINED.match(before) and _JOINED.match(after))
        is_kept |= sign == "\u200d" and (_is_emoji(before) or before in _OF_EMOJI) and _is_emoji(after)
    elif sign in _VARIANTS:
        is_kept = _is_emoji(before) or (before in _KEYCAPS and after == "\u20e3")
    else:
        # Right-to-left words beside others are set in order by these.
        is_kept = sign in _DIRECTIONS and any(unicodedata.bidirectional(s) in ("R", "AL") for s in text)
    return sign if before and is_kept else ""


def _is_emoji(sign: str) -> bool:
    return bool(sign) and (unicodedata.category(sign) in ("So", "Sm") or sign in "\u203c\u2049")
