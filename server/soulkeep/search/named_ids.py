"""Ids of memories that a question names."""

import re

MAX_NAMED = 100
"""Memories that one question names; of a longer range the first."""

_MEMORY = (
    r"\b(?:memory|memories|erinnerung(?:en)?|souvenirs?|recuerdos?|ricord[io]|mem[oó]rias?"
    r"|herinnering(?:en)?)\b"
)
_NUMBER = r"\b(?:no|nos|nr|n|numbers?|nummern?|numéros?|números?|ids?)\b[ .:°º]*"
_TO = r"(?: ?[-\u2010-\u2015] ?| (?:to|through|bis|à|a|al|tot) )"
_AND = rf"(?:{_TO}|(?: ?[,;&/+])? ?\b(?:and|or|und|oder|et|ou|y|o|e|en|of) (?:also |auch )?| ?[,;&/+] ?)"
_AFTER = (
    r"(?=\W*$| ?[?!;:,)&/]| ?[-\u2010-\u2015] ?#?[0-9]|\.(?![0-9])| (?:says?|said|means?|tells?"
    r"|is|are|was|were|about|have|has|hold|holds|contain|contains|again|please|together|sagt|sagen|ist|sind"
    r"|steht|stehen|bitte|dit|disent|est|sont|dice|dicen|es|son|por|and|or|to|und|oder|bis|et|ou|y|o)\b)"
)
_BEFORE = (
    r"\b(?:is|was|are|were|about|show|me|of|in|does|do|did|say|compare|between|with|from|forget|revise"
    r"|delete|update|open|read|get|give|explain|see|list|ist|sind|war|zeige?|mir|sagt|von|zu|est|sont|de"
    r"|montre|dit|et|es|son|muestra|dice) "
)
_IDS = (
    rf"(?:(?:{_MEMORY} *(?:{_NUMBER})?|{_BEFORE}|^\W*?)#|{_MEMORY} *{_NUMBER}|^\W*{_MEMORY} "
    rf"|{_MEMORY} (?=[0-9]+(?:{_AND}#?[0-9]+)*{_AFTER}))"
    rf"(?P<ids>[0-9]{{1,18}}\b(?:{_AND}(?:(?:{_NUMBER})?#[0-9]{{1,18}}\b|[0-9]{{1,18}}\b{_AFTER}))*)"
)
"""Ids as answers write them. "Issue #4" is another's, and the memory of a laptop has 16 gigabytes."""


def named_ids(query: str) -> list[int]:
    """Return the ids of memories that a query names: "memory #2", "#9, #11 and #13", "memories 4-6"."""
    if not re.search("[0-9]", query):
        return []
    named: dict[int, None] = {}
    for match in re.finditer(_IDS, query, re.IGNORECASE):
        for first, last in re.findall(rf"([0-9]+)(?:{_TO}#?([0-9]+))?", match["ids"], re.IGNORECASE):
            end = min(int(last or first), int(first) + MAX_NAMED - 1)
            named |= dict.fromkeys(range(int(first), end + 1) or (int(first), int(last)))
    return list(named)[:MAX_NAMED]
