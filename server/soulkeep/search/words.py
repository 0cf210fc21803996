"""Text as words, in every script: what the full-text index holds and what a query is looked up by.

A run is what `run_pattern` finds: letters and digits, with the signs between them and what stands beside
a number. Numbers, versions, identifiers and names such as C++ are words of their own: a run is compared
whole, so that 3.2.11 has nothing of 3.11.2, and C nothing of C++, and it is the same word however it is
written: HARB-1042 and HARB1042, 12,500 and 12.500. A text is found by a little more than a question asks
for: "GPT 4" by "gpt4" too, 555-0199 by "0199".
"""

import re
import sys
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from functools import cache, lru_cache
from itertools import chain, groupby, pairwise
from operator import attrgetter
from typing import NamedTuple

from soulkeep.wording import in_one_form

TEXT_RULES = 5
"""Grows with every change of what `split_words` returns, or of how documents are read: a store that
older rules indexed is indexed anew when it is opened."""

# Function words that say nothing of what is looked for; in a query they only pull in long memories.
STOP_WORDS = frozenset(
    """
    a about after all also am an and any are as at be because been before being but by can could did do
    does doing for from had has have having he her here hers him his how i if in into is it its just me
    more most my no nor not now of off on once only or other our ours out over own she should so some
    such than that the their theirs them then there these they this those through to too under until up
    us very was we were what when where which while who whom whose why will with would you your yours
    """.split()
)

# Marks that readers leave out at will: accents, Cyrillic titlo, niqqud, tashkeel. Those of Indic scripts
# are vowels and stay.
_OPTIONAL_MARKS = re.compile(
    "[\u0300-\u036f\u0483-\u0487\u0591-\u05bd\u05bf\u05c1\u05c2\u05c4\u05c5\u05c7"
    "\u0610-\u061a\u0640\u064b-\u065f\u0670\u06d6-\u06ed\u200c\u200d]"
)

# Letters that are written either way, and that no decomposition takes apart; dashes and other signs.
_SAME = (
    "\u0131iđdĐDøoØOłlŁL\u0649\u064a\u0629\u0647\u2010-\u2011-\u2012-\u2013-\u2212-"
    "\u2044/\u066b.\u266f#\u266db"
)

# Signs that set thousands apart and do nothing else there.
_THIN_SPACE = re.compile("(?<=\\d)[\u00a0\u066c\u2007-\u2009\u2019\u202f](?=\\d{3}(?!\\d))")

# Scripts that are written without spaces (Thai, Lao, Myanmar, Khmer, kana, Han), and Hangul, whose
# particles are written without one. 々 and ー repeat and lengthen what stands before them.
_UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3005\u3040-\u30ff\u3400-\u9fff\uac00-\ud7a3\uf900-\ufaff"
)
_UNSPACED += "\U00020000-\U0003ffff"

_INDIC = range(0x900, 0x1100)
_DIGITS = (*range(0x660, 0x1100), *range(0x17E0, 0x17EA))
_ASCII_WORD = re.compile("[A-Za-z0-9]+")
_IDENTIFIER = re.compile("[0-9_@&+#*]|[.-][A-Za-z]")
"""Without any of these a text in ASCII has only words of letters, which are found more quickly."""


class Read(NamedTuple):
    """The words that a run is asked for by, and those that it is found by; the first is all of it."""

    asked: tuple[str, ...]
    found: tuple[str, ...]


@cache
def _run() -> re.Pattern[str]:
    # Built on the first text that needs it: most of the world's marks are looked up here.
    marks = "".join(chr(point) for point in _INDIC if unicodedata.category(chr(point)) in ("Mn", "Mc"))
    word = f"(?:(?![{_UNSPACED}])[^\\W_]|[{marks}])"
    return re.compile(f"([{_UNSPACED}]+)|" + run_pattern(word, r"[^\W\d_]"))


@cache
def _same_signs() -> dict[int, str]:
    digits = {d: str(unicodedata.decimal(chr(d))) for d in _DIGITS if chr(d).isdecimal()}
    return digits | {ord(one): other for one, other in zip(_SAME[::2], _SAME[1::2], strict=True)}


def split_words(text: str) -> list[str]:
    """Return the words that a text is found by, some of them twice: in one case, without optional marks.

    A run of a script without spaces becomes its overlapping pairs of characters and its last character
    alone, so that a pair finds it anywhere, and one character as the beginning of a word does too.
    """
    # The language Go has a capital, and does not begin a sentence.
    also = ["golang"] if "Go" in text and re.search(_GO, text) else []
    return _split(text, attrgetter("found")) + also


def split_query(text: str) -> list[str]:
    """Return the words that a question asks for; a text that says the same is found by each of them."""
    return _split(text, attrgetter("asked"))


def _split(text: str, side: Callable[[Read], tuple[str, ...]]) -> list[str]:
    lower = text.lower()
    if any(map(lower.__contains__, _SAID_PARTS)):
        text = re.sub(_SAID_APART, _with_signs, text)
    if re.search(_IN_GROUPS, text):
        text = re.sub(_GROUPS, _in_one_run, text)
    if text.isascii():
        if _IDENTIFIER.search(text) is None:
            return list(chain.from_iterable(map(letter_words, _ASCII_WORD.findall(text))))
        return list(chain.from_iterable(map(side, map(read_run, re.findall(_ASCII_RUN, text)))))
    words: list[str] = []
    for match in _run().finditer(fold(text)):
        run, unspaced = match[0], match[1]
        pairs = (run[at : at + 2] for at in range(len(run)))
        words.extend(pairs if unspaced else side(read_run(run)))
    return words


def same_title(text: str) -> str:
    """Return what titles share that differ in case at most, or in what a reader cannot see."""
    return in_one_form(in_one_form(text).casefold())


def fold(text: str) -> str:
    """Return a text without optional marks, digits and dashes as in ASCII; letters keep their case."""
    if text.isascii():
        return text
    bare = _OPTIONAL_MARKS.sub("", unicodedata.normalize("NFKD", _THIN_SPACE.sub(",", text)))
    return unicodedata.normalize("NFC", bare).translate(_same_signs())


def is_single_unspaced(word: str) -> bool:
    """Whether a word is one character of a script without spaces, which only begins indexed words."""
    match = None if word.isascii() or len(word) != 1 else _run().fullmatch(word)
    return match is not None and match[1] is not None


SIGNS = ".:-+#*%&"
"""The signs that a word may have."""

LONG_NUMBER = 7
"""From so many digits on, groups of them are one number (a phone's, a date); fewer are numbers apart."""

MAX_PARTS = 15
"""Parts after the first that are read as one: a list of a million numbers is no identifier."""

SHORT_NUMBERS = 8
"""Up to so many digits, groups with spaces between them may as well be two numbers."""

SHORT_HASH = 7
"""Characters to which Git cuts a hash."""

_SAID = {
    "csharp": ("c#",),
    "fsharp": ("f#",),
    "cpp": ("c++",),
    "cplusplus": ("c++",),
    "dotnet": (".net",),
    "objc": ("objectivec", "objective"),
    "golang": ("golang", "go"),
}
"""Names with signs, and Go, as they are also written, in one word."""

# Strings, so that `re` compiles and keeps them at first use: it would take milliseconds of the start.
_SAID_APART = (
    r"(?i)\b(?:(?:(?P<sharp>[cfjq])[ -]sharp|(?P<plus>c[ -]?plus[ -]?plus)|(?P<net>dot[ -]net)"
    r"|obj(?:ective)?[ -]c|(?P<js>node|next|nuxt|nest|vue|react|express|three)[ -]js)"
    r"\b(?![+#])|(?P<version>cpp)(?=[0-9]))"
)
_SAID_PARTS = ("sharp", "plus", "dot net", "dot-net", " js", "-js", "obj", "cpp")
"""A text without any of these, which are found quickly, has no such name."""
# What is written in groups although it is one identifier: a bank account with letters, the zero of a
# phone that is left out from abroad, the address of a device or of IPv6, USB C, A/B.
# Each of these begins with a sign, for which `re` looks quickly.
_IN_GROUPS = (
    r" (?:(?<=[0-9] )[A-Za-z0-9]{4} |(?<=[A-Z]{2} )[B-HJ-Z]\b)|:(?<=[0-9A-Fa-f]:)[0-9A-Fa-f:]|\(0\)"
    r"|/(?<=[A-Za-z]/)[A-Za-z]"
)
_HEX = "[0-9A-Fa-f]"
_GROUPS = (
    r"\b(?P<account>[A-Za-z]{2}[0-9]{2} [A-Za-z0-9]{4}(?: (?=[A-Za-z]?[0-9]{3})[A-Za-z0-9]{4}){1,6}"
    r"(?: [0-9][A-Za-z0-9]{0,2})?)(?!\w)"
    r"|(?<=[0-9])(?P<zero> ?\(0\) ?)(?=[0-9])"
    rf"|(?<![\w:.])(?P<address>(?:{_HEX}{{2}}:){{5}}{_HEX}{{2}}"
    rf"|(?=[0-9:]*(?:[A-Fa-f]|::))(?:{_HEX}{{1,4}}:{{1,2}}){{2,7}}{_HEX}{{1,4}})(?![\w:])"
    r"|\b(?P<name>[A-Z]{2,5}) (?=[B-HJ-Z]\b(?![+#'.]))"
    r"|(?<![\w/.])(?P<pair>[A-Za-z]{1,2}(?:/[A-Za-z]{1,2})+)(?![\w/+#])"
)
_GO = r"(?<=[a-z,;:(] )Go\b|\bGo(?=[ -](?:code|developer|lang|module|program|service))"
_CAMEL = re.compile("(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_MARKS = re.compile("[\u0300-\u036f]")
_EXACT = re.compile("[0-9.:+#*%&-]")
_ATOM = r"(?:^\.)?(?:(?![0-9_])[^\s!-/:-@\[-^`{-~])+(?:\+\+|[+#*](?![^\W_]))?|[0-9]+(?:[.:][0-9]+)*%?"
_SPACES = r"[ )]+#?|#(?=[0-9])|(?<=-[0-9]{2})T(?=[0-9]{2}:)"
_THOUSANDS = (
    r"(?<![\d.,'_])[1-9]\d{0,2}(?:(?:,\d\d\d?)*,\d{3}|(?:\.\d{3})+|(?:['_]\d{3})+)"
    r"(?:[.,]\d+)?(?![.,'_]?\d)"
)
_DECIMAL_COMMA = r"(?<![\d.,])(\d+),(\d+)(?![.,]?\d)"
_VERSION = r"^[vV](?=\d+\.\d)"
_DOTTED_PHONE = r"(?<![\d.])(\d{3})\.(\d{3})\.(\d{4})(?![.]?\d)"
_DAY = r"(\d\d?)[./-](\d\d?)[./-]((?:19|20)\d\d)"
_DAY_AFTER_YEAR = r"((?:19|20)\d\d)\.(\d\d?)\.(\d\d?)"
_FROM_ABROAD = "^00(?=[1-9][0-9]{7})"
"""What a phone's number may begin with in the place of a plus."""
_YEAR = "(?:19|20)[0-9]{2}"
_GROUP = r"[a-z]{0,4}\d+(?:\.\d+)?"
_HASH = "(?=.*[0-9])(?=.*[a-f])[0-9a-f]{12,}"


def run_pattern(word: str, letter: str) -> str:
    """Return the pattern of a run, from those of one character of a word and of one letter."""
    joined = "|".join(
        (
            r"[._@&-]",
            r"(?<=[0-9])[/:,'](?=[0-9])",
            r"\+\+(?=[0-9])",
            r"(?:\) ?| ?)#?(?=[0-9])",
            rf"(?<=[0-9]) (?={letter}{{1,3}}(?!{word}))",
        )
    )
    # A star is one of a name beside a single letter, unless it is one of a pair, which is emphasis.
    star = rf"(?:(?<=[^*\w]{letter})|(?<=^{letter}))\*(?![*\w])"
    signs = rf"\+\+|[+#](?!{word})|(?<=[0-9]) ?%|{star}"
    dot = rf"(?<![\w.])\.(?={letter}{letter})"
    parts = rf"(?:{word})+(?:(?:{joined})(?:{word})+){{0,{MAX_PARTS}}}"
    return rf"(?:{dot})?{parts}(?:{signs})?"


# Most runs are words of letters before another one or the end of a sentence, and found first.
_ASCII_RUN = r"[A-Za-z]++(?=[.,;:!?)]?(?: [A-Za-z(]|\Z))|" + run_pattern("[A-Za-z0-9]", "[A-Za-z]")


def _with_signs(match: re.Match[str]) -> str:
    """Write a name that is said in several words with its sign: C sharp, node js."""
    if match["sharp"]:
        return match["sharp"] + "#"
    if match["js"]:
        return match["js"] + ".js"
    if match["plus"] or match["version"]:
        return "C++"
    return ".NET" if match["net"] else "Objective-C"


def _in_one_run(match: re.Match[str]) -> str:
    """Write an identifier in groups without the spaces or colons between them."""
    signs = {"zero": (match[0], " "), "name": (" ", "-"), "pair": ("/", "_"), "account": (" ", "")}
    if (kind := match.lastgroup or "") in signs:
        return match[0].replace(*signs[kind])
    address = match["address"]
    if len(address) == len("00:1a:2b:3c:4d:5e") and address.count(":") == 5 and "::" not in address:
        return address.replace(":", "-")
    from ipaddress import AddressValueError, IPv6Address

    try:
        return IPv6Address(address).exploded.replace(":", "")
    except AddressValueError:
        return address


def is_exact(word: str) -> bool:
    """Whether a word has digits or signs, so that only the same word says the same."""
    return _EXACT.search(word) is not None


@lru_cache(50_000)
def letter_words(word: str) -> tuple[str, ...]:
    """Return a word of letters in one case, and the parts of one such as `camelCase`."""
    lower = sys.intern(word.casefold())
    if lower in _SAID:
        return _SAID[lower]
    if word.islower() or word.isupper() or len(parts := _CAMEL.split(word)) == 1:
        # Case folding can bring a mark of its own: the Turkish capital İ does.
        return (lower if lower.isascii() else _MARKS.sub("", lower),)
    return (lower, *(part.casefold() for part in parts))


@lru_cache(50_000)
def read_run(run: str) -> Read:
    """Read a run; a number belongs to the word beside it, too, if that is none of the stop words."""
    word, _, number = run.partition(" ")
    if number.isdigit() and word.isalpha() and run.isascii():
        # Most runs that no text before had are such: they are read in a third of the time.
        words = *dict.fromkeys(letter_words(word)), number
        also = (words[0] + number,) if words[0].isalpha() and words[0] not in STOP_WORDS else ()
        return Read(words, words + also)
    segments = [read for text in re.split(_SPACES, run.replace(" %", "%")) if (read := _read(text))]
    if len(segments) == 1:
        return segments[0]
    asked = [word for read in segments for word in read.asked]
    found = [word for read in segments for word in read.found]
    in_groups = sum(read.found[0][-1:].isdigit() for read in segments) > 1
    of_groups = segments if in_groups else ()  # most runs have one number at most
    for is_number, group in groupby(of_groups, lambda read: bool(re.fullmatch(_GROUP, read.found[0]))):
        numbers = list(group)
        if not is_number or len(numbers) == 1:
            continue
        whole = "".join(read.found[0] for read in numbers)
        whole = re.sub(r"\.0+$" if _are_thousands(numbers) else _FROM_ABROAD, "", whole)
        if _are_thousands(numbers) or _digits(whole) >= LONG_NUMBER:
            parts = {word for read in numbers for word in read.asked}
            asked = [whole, *(word for word in asked if word not in parts or _tells_much(word, numbers))]
            found.insert(0, whole)
    for one, other in pairwise(read.found[0] for read in segments):
        if one not in STOP_WORDS and other not in STOP_WORDS and (one.isalpha() or other.isalpha()):
            found.append(one + other)
    return Read(tuple(dict.fromkeys(asked)), tuple(dict.fromkeys(found)))


def _tells_much(part: str, numbers: Sequence[Read]) -> bool:
    """Whether a part may also be asked for alone: a year, most of a phone's number, or a short one's."""
    if _are_thousands(numbers):
        return False
    digits = sum(_digits(read.found[0]) for read in numbers)
    return digits <= SHORT_NUMBERS or _digits(part) > 4 or re.fullmatch(_YEAR, part) is not None


def _are_thousands(numbers: Sequence[Read]) -> bool:
    said = " ".join(read.found[0] for read in numbers)
    return re.fullmatch(r"\d{1,3}(?: \d{3})+(?:\.\d+)?", said, re.ASCII) is not None


def _read(segment: str) -> Read | None:
    """Read what has no spaces; None if there is nothing in it."""
    if segment.isascii() and (segment.isdigit() or segment.isalpha()):
        return _read_one(segment)
    segment = re.sub(_VERSION, "", segment)
    segment = re.sub(_DOTTED_PHONE, r"\1-\2-\3", segment)
    segment = re.sub(_THOUSANDS, _without_thousands, segment)
    segment = re.sub(_DECIMAL_COMMA, r"\1.\2", segment)
    atoms, gaps, end = [], [], 0
    for match in re.finditer(_ATOM, segment):
        atoms.append(match[0])
        gaps.append(segment[end : match.start()])
        end = match.end()
    if not atoms:
        return None
    if len(atoms) == 1:
        return _read_one(atoms[0])
    numbers = [atom for atom in atoms if atom[0].isdigit()]
    if not numbers:
        return _read_name(atoms, gaps)
    whole = _whole(atoms, gaps)
    if len(numbers) < len(atoms):
        return _read_mixed(whole, atoms, gaps)
    # Numbers with signs between them: those of a range, or the groups of a long one.
    parts = [word for atom in atoms for word in _read_one(atom).found]
    found = _both((whole, *parts)).found
    if date := _day_of(segment):
        return Read((date, date[:4]), (date, *found))
    few = _digits(whole) < LONG_NUMBER
    return Read(found if few else _both((whole, *(p for p in parts if _digits(p) > 3))).asked, found)


def _without_thousands(match: re.Match[str]) -> str:
    """Write a number such as 12.500,75 as 12500.75."""
    number = match[0]
    signs = [sign for sign in number if not sign.isdigit()]
    ends_in_decimals = signs[-1] != signs[0] or len(re.split("[.,'_]", number)[-1]) != 3
    whole, decimals = number.rsplit(signs[-1], 1) if ends_in_decimals else (number, "")
    return re.sub("[.,'_]", "", whole) + (f".{decimals}" if decimals.strip("0") else "")


def _whole(atoms: Sequence[str], gaps: Sequence[str]) -> str:
    """Join the parts; a few digits beside a few digits stay apart, so that 1-12 is not 11-2."""
    few = sum(map(_digits, atoms)) < LONG_NUMBER
    whole = atoms[0].casefold()
    for before, gap, atom in zip(atoms, gaps[1:], atoms[1:], strict=False):
        numbers = before[-1].isdigit() and atom[0].isdigit()
        whole += ("&" if gap == "&" else "-" if numbers and few else "") + atom.casefold()
    return whole


def _digits(text: str) -> int:
    return sum(map(str.isdigit, text))


def _both(words: Iterable[str]) -> Read:
    kept = tuple(dict.fromkeys(words))
    return Read(kept, kept)


def _read_one(atom: str) -> Read:
    if not atom[0].isdigit():
        return _both(_letters(atom))
    if atom.isdigit():
        return _both((re.sub(_FROM_ABROAD, "", atom),))
    if date := _day_of(atom):
        return Read((date,), (date, date[:4]))
    bare = atom.rstrip("%")
    parts = bare.split(":") if "." in bare else ()
    return Read(tuple(dict.fromkeys((atom, bare))), tuple(dict.fromkeys((atom, bare, *parts))))


def _day_of(text: str) -> str:
    """Return a day in digits as 20260725; "" for what is none, or where day and month may be swapped."""
    if match := re.fullmatch(_DAY_AFTER_YEAR, text):
        year, month, day = match.groups()
    elif match := re.fullmatch(_DAY, text):
        day, month, year = match.groups()
        if "." not in text and int(day) <= 12:
            day, month = month, day
            if int(day) <= 12 and int(day) != int(month):
                return ""
    else:
        return ""
    is_one = 1 <= int(month) <= 12 and 1 <= int(day) <= 31
    return f"{year}{int(month):02}{int(day):02}" if is_one else ""


def _letters(atom: str) -> tuple[str, ...]:
    """Read letters with their signs: C++ is one word, and .env and Disney+ are also env and Disney."""
    bare = atom.strip(".+#*")
    if bare == atom:
        return letter_words(atom)
    if atom.endswith("#") and len(bare) > 2:
        return letter_words(bare)
    also = not bare.isupper() if atom.startswith(".") else len(bare) > 2
    return (atom.casefold(), *(letter_words(bare) if also else ()))


def _read_name(atoms: Sequence[str], gaps: Sequence[str]) -> Read:
    """Read letters with signs between them: node.js, snake_case, R&D, Objective-C."""
    hyphened = set(gaps[1:]) == {"-"}
    if hyphened and min(map(len, atoms)) > 1:
        return _both(word for atom in atoms for word in _letters(atom))
    whole = _whole(atoms, gaps)
    # The C of Objective-C is no C, and the e of e.g. no word.
    told = atoms[:-1] if hyphened and len(atoms[-1]) == 1 else atoms
    parts = [w for atom in told for w in _letters(atom) if len(w) > 1 or hyphened]
    ending = [f".{atoms[-1].casefold()}"] if gaps[-1] == "." and 2 <= len(atoms[-1]) <= 5 else []
    asked = _both((whole, *parts)).asked
    return Read(asked, tuple(dict.fromkeys((*asked, *ending))))


def _read_mixed(whole: str, atoms: Sequence[str], gaps: Sequence[str]) -> Read:
    """Read letters and digits: HARB-1042, 5km, GPT-4o, python3.12, a hash."""
    pieces: list[list[str]] = []
    for atom, gap in zip(atoms, gaps, strict=True):
        if gap or not pieces:
            pieces.append([])
        pieces[-1].append(atom)
    words = [whole]
    for piece in pieces:
        if len(pieces) > 1:
            words += ["".join(piece).casefold()]
        words += [w for atom in piece if not atom[0].isdigit() for w in _letters(atom)]
        # The number of HARB1042 is told alone, too, but 4o is no 4, and a hash has no numbers.
        if len(piece) == 2 and (piece[1][0].isdigit() or len(pieces) == 1):
            words += [atom for atom in piece if atom[0].isdigit()]
    if re.fullmatch(_HASH, whole):
        words.append(whole[:SHORT_HASH])
    found = [word for word in words if len(word) > 1 or word.isdigit()]
    return Read(_both(w for w in found if len(w) > 1).asked, _both(found).found)


ENGLISH = frozenset(
    """
    a about after all always an and any are as at be because been before between but by can could did do
    does each every for from had has have he her his how i if in into is it its me more most my never no
    not of off on only or our out over she should so some than that the their them then there these they
    this those to under up us was we were what when where which who whom whose why will with would you
    your
    """.split()
)

OTHERS = frozenset(
    """
    al alla ao au auf aux avec bei benim bij bir bizim bu ce cette che chi co com como con cuál
    cuándo cómo da dans das dat de dei del della delle dem den der des değil di dla dlaczego du
    dónde een ein eine einen einer el elle em en er es est está et für gdzie gli habe haben hangi
    het hoe ich ik il ile im ist için jak je jest kaç kiedy kto która które który la las le les lo
    los ma mein meine mes meu mi mia mijn minha mio mis mit moja mon mu más mój na naar nas nasz
    nasza nas\u0131l ne neden nel nella nerede nicht nie niet non nos nossa nosso nostra nostro
    notre nous nuestra nuestro não od oder onde onze op os où par para pas per perché po por
    pourquoi przez qual quale quali quand quando que quel quelle quelles quels quem qui qué se si
    sich sind się soll sono sont sur são te um uma un una und une uno unser unsere var ve von voor
    waar waarom wann wanneer warum wat welche welcher welches welke wer wie wij wir wird wo z za
    zijn zu è é że
    """.split()
)

_WORD = re.compile(r"[^\W\d_]+")
_ASCII_LETTERS = re.compile("[a-z]+")


@lru_cache(20_000)
def is_english(text: str) -> bool:
    """Whether a text reads as English: more of its words do than those of other languages."""
    lower = text.lower()
    if lower.isascii():
        words = _ASCII_LETTERS.findall(lower)
        other = sum(map(OTHERS.__contains__, words))
    else:
        words = _WORD.findall(lower)
        other = sum(word in OTHERS or not word.isascii() for word in words)
    return not other or sum(map(ENGLISH.__contains__, words)) > other
