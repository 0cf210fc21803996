"""The full text of a home: words in tsvectors, found over GIN and ranked as FTS5 ranks by BM25.

What BM25 needs of all texts is kept as counts: how many texts there are and how long they are together
(`numbers`), and in how many a word occurs (`word_counts`).
"""

import hashlib
import math
from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple

from soulkeep.models import MemoryFilter
from soulkeep.repository.postgres.database import Database, Row, columns_of, limited
from soulkeep.repository.postgres.schema import WHEN
from soulkeep.repository.values import LATEST
from soulkeep.search.endings import without_ending
from soulkeep.search.words import is_single_unspaced, split_words

FullTextName = Literal["memories_fts", "messages_fts"]

K1, B, SMALLEST_IDF = 1.2, 0.75, 1e-6
"""The constants of FTS5's bm25(): https://www.sqlite.org/fts5.html#the_bm25_function"""

_LONGEST_WORD = 200
"""In bytes: of a longer one, for which an index has no room, its beginning stands with a digest."""

_LARGEST_BYTES = 900_000
"""A tsvector takes a mebibyte; the words that come first in a text are kept."""

_LAST_PLACE, _MOST_PLACES = 16_383, 255
"""What a tsvector can hold of the places of a word."""

_COUNT = (
    "CASE WHEN a.is_whole THEN round(1 / (1.6449340668482264 * (1 - ts_rank('{1,1,1,1}', f.words,"
    " a.term)::double precision)) - 0.5) ELSE ts_rank_cd('{1,1,1,1}', f.words, a.term) END"
)
"""How often a word stands in a text: all places weigh 1. ts_rank adds up 1/n² over them, as a share
of π²/6, and what is missing from that is 1 / (count + 0.5), nearly enough to count by. ts_rank_cd counts
them, but slower: for a character that begins several words, and for words in subjects alone."""

PASSING = {
    "thread_id": "(m.thread_id = %(thread_id)s OR m.thread_id IS NULL)",
    "memory_type": "m.memory_type = %(memory_type)s",
    "since": f"{WHEN} >= %(since)s",
    "until": f"{WHEN} <= %(until)s",
}


def conditions(
    allowed: MemoryFilter, passing: dict[str, str] | None = None
) -> tuple[str, dict[str, str]]:
    """Return SQL that begins with AND for each field that is set, and its values.

    `passing` says for each field what passes; without it, of `memories AS m`.
    """
    passing = PASSING if passing is None else passing
    values = {name: value for name in passing if (value := getattr(allowed, name)) is not None}
    return "".join(f" AND {passing[name]}" for name in values), values


class FullText:
    """The words of one table, each text by its id."""

    def __init__(self, database: Database, table: FullTextName) -> None:
        """Keep words in `table`, of the home that `database` has open."""
        self._database = database
        self._table = table
        self._names = f"{table} texts", f"{table} length"

    def add(self, texts: Iterable[tuple[int, str, str, str]]) -> None:
        """Add texts, by id what it says, its subject and its day; inside a transaction."""
        rows = [(i, *self._vector(*parts)) for i, *parts in texts]
        if not rows:
            return
        self._database.execute(
            f"INSERT INTO {self._table} (owner, id, words, length)"
            " SELECT %(owner)s, * FROM unnest(%(ids)s::bigint[], %(words)s::tsvector[],"
            " %(lengths)s::integer[])",
            **columns_of(rows, "ids", "words", "lengths"),
        )
        self._count([row[0] for row in rows], 1)

    def delete(self, ids: Sequence[int]) -> None:
        """Take out texts; inside a transaction."""
        self._count(ids, -1)
        self._database.execute(
            f"DELETE FROM {self._table} WHERE owner = %(owner)s AND id = ANY(%(ids)s)", ids=list(ids)
        )

    def clear(self) -> None:
        """Take out all texts; inside a transaction."""
        for statement in (
            f"DELETE FROM {self._table} WHERE owner = %(owner)s",
            "DELETE FROM word_counts WHERE owner = %(owner)s AND kind = %(kind)s",
            "DELETE FROM numbers WHERE owner = %(owner)s AND name = ANY(%(names)s)",
        ):
            self._database.execute(statement, kind=self._table, names=list(self._names))

    def _count(self, ids: Sequence[int], sign: Literal[1, -1]) -> None:
        """Add texts that are there to the counts, or take them from them."""
        words = (
            f"SELECT word, %(sign)s * count(*) AS texts FROM {self._table},"
            " unnest(tsvector_to_array(words)) AS word"
            " WHERE owner = %(owner)s AND id = ANY(%(ids)s) GROUP BY word"
        )
        ((texts, length),) = self._database.execute(
            f"SELECT count(*), coalesce(sum(length), 0) FROM {self._table}"
            " WHERE owner = %(owner)s AND id = ANY(%(ids)s)",
            ids=list(ids),
        )
        if not texts:
            return
        self._database.execute(
            "INSERT INTO word_counts (owner, kind, word, texts)"
            f" SELECT %(owner)s, %(kind)s, word, texts FROM ({words}) AS counted ORDER BY word"
            " ON CONFLICT (owner, kind, word) DO UPDATE SET texts = word_counts.texts + excluded.texts",
            kind=self._table,
            ids=list(ids),
            sign=sign,
        )
        for name, count in zip(self._names, (texts, int(length)), strict=True):
            self._database.add_to(name, sign * count)
        if sign < 0:
            self._database.execute(
                "DELETE FROM word_counts USING (SELECT word FROM"
                f" {self._table}, unnest(tsvector_to_array(words)) AS word"
                " WHERE owner = %(owner)s AND id = ANY(%(ids)s)) AS gone"
                " WHERE word_counts.owner = %(owner)s AND kind = %(kind)s"
                " AND word_counts.word = gone.word AND texts <= 0",
                kind=self._table,
                ids=list(ids),
            )

    def _vector(self, content: str, subject: str, day: str) -> tuple[str, int]:
        """Return a tsvector of the words of a text, and how many they are.

        The subject's come first and are marked, so that those of the subject alone can be counted.
        """
        places: dict[str, list[str]] = {}
        at = 0
        parts = ((split_words(subject), "A"), (split_words(content), ""), (day.split(), ""))
        for words, mark in parts:
            for word in words:
                at += 1
                places.setdefault(word, []).append(f"{min(at, _LAST_PLACE)}{mark}")
        stems: dict[str, list[str]] = {}
        for word, found in places.items():
            stems.setdefault(self._stored(word), []).extend(found)
        kept_words, size = [], 0
        for stem, found in stems.items():
            kept = dict.fromkeys(found[:_MOST_PLACES])
            size += len(stem.encode()) + 2 * len(kept) + 4
            if size > _LARGEST_BYTES:
                break
            kept_words.append(
                f"{_quoted(stem)}:{','.join(sorted(kept, key=lambda place: int(place.rstrip('A'))))}"
            )
        return " ".join(kept_words), at

    def _stored(self, word: str) -> str:
        stem = without_ending(word)
        letters = stem.encode()
        if len(letters) > _LONGEST_WORD:
            digest = hashlib.blake2b(letters, digest_size=16).hexdigest()
            stem = f"{letters[: _LONGEST_WORD // 2].decode(errors='ignore')}{digest}"
        return f"{self._database.number}.{stem}"

    def _asked(self, term: str) -> "_Asked":
        return _Asked(self._stored(term), is_single_unspaced(term))

    def matching(
        self,
        terms: Sequence[str],
        limit: int,
        *,
        filtered: tuple[str, str, dict[str, str]] = ("", "", {}),
        order: str = "ASC",
        in_subject: bool = False,
        latest: tuple[str, Sequence[str]] | None = None,
    ) -> list[Row]:
        """Return ids and BM25 scores of the texts that have any of these words, best first.

        `filtered` are a JOIN with `f.id`, its conditions, and their values; `order` says how the ids of
        equals are. With `latest` only the LATEST texts count that have its word and any of those beside.
        """
        asked = list(dict.fromkeys(map(self._asked, terms)))
        if not asked:
            return []
        texts, length, having = self._counts(asked, in_subject=in_subject)
        join, where, values = filtered
        first = ""
        if latest is not None:
            term, beside = latest
            values = {**values, "both": self._both(term, beside)}
            first = (
                f"WITH latest AS MATERIALIZED (SELECT f.id FROM {self._table} AS f{join}"
                f"{where or ' WHERE TRUE'} AND f.words @@ %(both)s::tsquery AND f.owner = %(owner)s"
                f" ORDER BY f.id DESC LIMIT {LATEST}) "
            )
            join, where = " JOIN latest ON latest.id = f.id", ""
        return self._database.query(
            f"{first}SELECT id, sum(idf * count * %(more)s / (count + %(k1)s * (%(rest)s + %(b)s"
            f" * length / %(average)s))) AS score FROM (SELECT f.id, f.length, a.idf, {_COUNT} AS count"
            " FROM unnest(%(terms)s::tsquery[], %(idf)s::double precision[], %(whole)s::boolean[])"
            " AS a (term, idf, is_whole)"
            f" CROSS JOIN LATERAL (SELECT * FROM {self._table} AS f WHERE f.words @@ a.term"
            # OFFSET keeps it from being worked out at each place where it is used.
            f" AND f.owner = %(owner)s) AS f{join}{where} OFFSET 0) AS hits"
            f" GROUP BY id ORDER BY score DESC, id {order} LIMIT %(limit)s",
            **values,
            terms=[one.query(in_subject=in_subject) for one in asked],
            # The inverse document frequency, ln((N - n + 0.5) / (n + 0.5)), as FTS5 has it.
            idf=[max(math.log(max(texts - n + 0.5, 0.5) / (n + 0.5)), SMALLEST_IDF) for n in having],
            whole=[not (one.begins or in_subject) for one in asked],
            more=K1 + 1,
            k1=K1,
            b=B,
            rest=1 - B,
            average=max(length, 1) / max(texts, 1),
            limit=limited(limit),
        )

    def _both(self, term: str, beside: Sequence[str]) -> str:
        """Return the tsquery of texts with a word and, where there are some, any of those beside it."""
        asked = [[self._asked(one).query(in_subject=False) for one in some] for some in ([term], beside)]
        return " & ".join(f"({' | '.join(some)})" for some in asked if some)

    def count_and_frequencies(self, terms: Sequence[str]) -> tuple[int, dict[str, int]]:
        """Return how many texts there are, and in how many each word of `terms` occurs."""
        texts, _, counts = self._counts([self._asked(term) for term in terms])
        return texts, dict(zip(terms, counts, strict=True))

    def _counts(
        self, asked: "Sequence[_Asked]", *, in_subject: bool = False
    ) -> tuple[int, int, list[int]]:
        """Return how many texts there are, how long they are together, and how many have each word."""
        counted = () if in_subject else [one.word for one in asked if not one.begins]
        known: dict[str, int] = dict(
            self._database.query(
                "SELECT name, value FROM numbers WHERE owner = %(owner)s AND name = ANY(%(names)s)"
                " UNION ALL SELECT word, texts FROM word_counts WHERE owner = %(owner)s"
                " AND kind = %(kind)s AND word = ANY(%(words)s)",
                names=list(self._names),
                kind=self._table,
                words=list(counted),
            )
        )
        found = {_Asked(word, begins=False): known.get(word, 0) for word in counted}
        others = [one for one in asked if in_subject or one.begins]
        if others:
            rows = self._database.query(
                f"SELECT (SELECT count(*) FROM {self._table} AS f WHERE f.words @@ a.term"
                " AND f.owner = %(owner)s)"
                " FROM unnest(%(terms)s::tsquery[]) WITH ORDINALITY AS a (term, place) ORDER BY a.place",
                terms=[one.query(in_subject=in_subject) for one in others],
            )
            found |= {one: row[0] for one, row in zip(others, rows, strict=True)}
        texts, length = (int(known.get(name, 0)) for name in self._names)
        return texts, length, [found[one] for one in asked]


def _quoted(word: str) -> str:
    escaped = word.replace("\\", "\\\\").replace("'", "''")
    return f"'{escaped}'"


class _Asked(NamedTuple):
    """A word that is looked up, as it is stored; one that `begins` others finds those."""

    word: str
    begins: bool

    def query(self, *, in_subject: bool) -> str:
        """Return it as a tsquery has it."""
        marks = f"{'*' if self.begins else ''}{'A' if in_subject else ''}"
        return f"{_quoted(self.word)}{marks and f':{marks}'}"
