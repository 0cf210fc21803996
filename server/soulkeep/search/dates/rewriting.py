"""Times that are written in one of several ways, each made the way that the rules read."""

import re

from soulkeep.search.dates.names import HALVES, MONTHS, SHIFTS, THIRDS, UNIT_NAMES, any_of

_PERIODS = any_of(
    name for unit in ("week", "month", "quarter", "year") for name in UNIT_NAMES[unit].split()
)
_PARTS = any_of((*THIRDS, "half", "quarter", "quartal", "trimestre", *HALVES))
_MONTHS = any_of(name for name in MONTHS if name.isalpha())
_OR_A_HALF = "half a|(?:einem |ein )?halbe[sn]?|(?:une? )?demi-?|medio"

# Strings, so that `re` compiles and keeps them at first use: it would take milliseconds of the start.
_FORMS = (
    (r"\bfin(?:es)? de semana\b", "weekend"),
    (rf"\b({_MONTHS}|[qh][1-4]) ?'([0-4]\d)\b", r"\1 20\2"),
    (rf"\b({_MONTHS})(woche|halfte|wochenende)\b", r"\2 im \1"),
    (r"\bjahres(anfang|mitte|ende) (?=(?:im jahr )?(?:19|20)\d\d)", r"\1 "),
    (r"\bjahres(anfang|mitte|ende)\b", r"\1 of this year"),
    (r"\bmonats(anfang|mitte|ende)\b", r"\1 of this month"),
    (rf"\b(?:{_OR_A_HALF}) ?(?:year|jahr|annee|an|ano)\b", "6 months"),
    (r"\b(?:(?:a|one) year and a half|(?:anderthalb|eineinhalb) jahren?)\b", "18 months"),
    (r"\b(?:un an et demi|un ano y medio|one and a half years)\b", "18 months"),
    (r"\b(?:(?:a|one) month and a half|(?:anderthalb|eineinhalb) monaten?)\b", "6 weeks"),
    (r"\b(?:un mois et demi|un mes y medio)\b", "6 weeks"),
    (
        rf"\b({_PARTS}) (?:of the|des|der|du|de la|de l'|del|de) ?(?={_PERIODS}\b)"
        rf"(?!\S+ (?:{any_of(SHIFTS)}\b|\d|de\b|of\b))",
        r"\1 of this ",
    ),
)


def in_plain_form(text: str) -> str:
    """Return a question with such times in the form that is read; `text` is folded, in lower case."""
    for form, plain in _FORMS:
        text = re.sub(form, plain, text)
    return text
