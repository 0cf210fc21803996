"""Whether a text is English, by its function words."""

import re
from functools import lru_cache

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


@lru_cache(20_000)
def is_english(text: str) -> bool:
    """Whether a text reads as English: more of its words do than those of other languages."""
    words = _WORD.findall(text.lower())
    other = sum(word in OTHERS or not word.isascii() for word in words)
    return not other or sum(word in ENGLISH for word in words) > other
