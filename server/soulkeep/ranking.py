"""From candidates to an ordered answer: pure functions, no store, no model."""

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence

RRF_K = 20
"""The rank offset of reciprocal rank fusion. Cormack, Clarke and Büttcher (SIGIR 2009) used 60 for long
lists of documents; a smaller one gives more weight to the first few of each ranking."""

MAX_TERMS = 64
"""Words of a query that the lexical half looks up; later ones are left to the semantic half."""

_WORD = re.compile(r"[^\W_]+")

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


def query_terms(query: str) -> list[str]:
    """Split a query into distinct lower-case words without stop words, at most 64.

    A query of nothing but stop words keeps them, so that "who am I" still finds something.
    """
    words = list(dict.fromkeys(_WORD.findall(query.lower())))
    return ([word for word in words if word not in STOP_WORDS] or words)[:MAX_TERMS]


def reciprocal_rank_fusion(rankings: Iterable[Sequence[int]], limit: int) -> list[tuple[int, float]]:
    """Merge rankings of ids, each best first, into at most `limit` pairs of id and score.

    The score of an id is the sum over the rankings of 1 / (RRF_K + rank), the best rank being 1
    (Cormack, Clarke and Büttcher, "Reciprocal Rank Fusion outperforms Condorcet and individual Rank
    Learning Methods", SIGIR 2009). Equal scores are ordered by the newer id first.
    """
    scores: defaultdict[int, float] = defaultdict(float)
    for ranking in rankings:
        for rank, candidate in enumerate(ranking, start=1):
            scores[candidate] += 1 / (RRF_K + rank)
    ordered = sorted(scores.items(), key=lambda pair: (-pair[1], -pair[0]))
    return ordered[:limit]
