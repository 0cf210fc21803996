"""English endings are taken off as FTS5's porter tokenizer takes them off."""

import random
import re
from pathlib import Path

import apsw

from soulkeep.search.endings import without_ending

TABLE = (
    "CREATE VIRTUAL TABLE f USING fts5(a, tokenize ="
    " \"porter unicode61 remove_diacritics 0 categories 'L* N* Co Mn Mc'\")"
)
ENDINGS = (
    "s sses ies ing ed y ational tional enci anci izer logi bli alli entli eli ousli ization ation ator"
    " alism iveness fulness ousness aliti iviti biliti icate ative alize iciti ical ful ness al ance"
    " ence er ic able ible ant ement ment ent ion ou ism ate iti ous ive ize e ll at bl iz tt"
).split()


def of_fts5(words: list[str]) -> dict[str, str]:
    database = apsw.Connection(":memory:")
    database.execute(TABLE)
    database.execute("CREATE VIRTUAL TABLE v USING fts5vocab(f, 'instance')")
    database.executemany("INSERT INTO f (rowid, a) VALUES (?, ?)", enumerate(words))
    return {words[row]: term for term, row in database.execute("SELECT term, doc FROM v")}


def test_words_of_texts_lose_the_endings_that_they_lose_in_fts5() -> None:
    root = Path(__file__).parents[1]
    texts = [path.read_text(encoding="utf-8") for path in (*root.glob("*.md"), *root.glob("tests/*.py"))]
    words = sorted({word.lower() for text in texts for word in re.findall(r"[^\W_]+", text)})
    words = [word for word in words if word.isascii()]
    assert len(words) > 4_000
    assert {word: without_ending(word) for word in words} == of_fts5(words)


def test_made_up_words_with_one_or_two_endings_do_too() -> None:
    chance = random.Random(7)  # noqa: S311 - no secret
    heads = ["".join(chance.choices("abcdeiloprstuy", k=chance.randint(1, 6))) for _ in range(20_000)]
    made = {h + chance.choice(ENDINGS) + chance.choice(["", *ENDINGS]) for h in heads}
    words = sorted(made)
    found = of_fts5(words)
    assert {word: without_ending(word) for word in words} == found


def test_words_of_other_scripts_are_cut_alike() -> None:
    words = ["été", "straßes", "naïvely", "живёт", "格拉", "x" * 64 + "ing", "is", "as", "été" * 25]
    assert [without_ending(word) for word in words] == [of_fts5([word])[word] for word in words]
