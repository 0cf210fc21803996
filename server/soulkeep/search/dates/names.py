"""The words of dates in English, German, French and Spanish, in lower case and without accents."""

import re
import unicodedata
from collections.abc import Iterable


def numbered(table: str) -> dict[str, int]:
    """Number the rows, separated by "/", from the number before the colon; each name has its row's."""
    start, _, rows = table.partition(":")
    return {name: n for n, row in enumerate(rows.split("/"), int(start)) for name in row.split()}


# A trailing underscore marks a word in lower case that may be a verb.
MONTHS = numbered("""1: january jan januar janner janvier enero / february feb februar fevrier febrero
    / march march_ mar marz mars marzo / april apr avril abril / may may_ mai mayo
    / june jun juni juin junio / july jul juli juillet julio / august aug aout agosto
    / september sep sept septembre septiembre / october oct oktober octobre octubre
    / november nov novembre noviembre / december dec dezember decembre diciembre""")
WEEKDAYS = numbered("""0: monday montag lundi lunes / tuesday dienstag mardi martes
    / wednesday mittwoch mercredi miercoles / thursday donnerstag jeudi jueves
    / friday freitag vendredi viernes / saturday samstag samedi sabado
    / sunday sonntag dimanche domingo""")
DAYS = numbered("""-3: vorvorgestern / vorgestern avant-hier anteayer antier
    / yesterday gestern hier ayer anoche / today tonight heute aujourd'hui hoy / tomorrow demain
    / ubermorgen apres-demain""")
DAYS |= {"day before yesterday": -2, "antes de ayer": -2, "day after tomorrow": 2, "pasado manana": 2}
MORNINGS = ("morgen", "manana")
"""Tomorrow, or a morning."""
NUMBERS = numbered("""1: a an one ein eine einem einer un une una / two couple par zwei deux dos
    / three few several some paar einigen mehreren drei trois quelques plusieurs tres unos unas
    varios varias / four vier quatre cuatro / five funf cinq cinco / six sechs seis
    / seven sieben sept siete / eight acht huit ocho / nine neun neuf nueve / ten zehn dix diez
    / eleven elf onze once / twelve dozen zwolf douze doce / thirteen dreizehn treize trece
    / fourteen vierzehn quatorze catorce / fifteen funfzehn quinze quince
    / sixteen sechzehn seize / seventeen siebzehn / eighteen achtzehn / nineteen neunzehn
    / twenty zwanzig vingt veinte""")
NUMBERS |= dict.fromkeys("thirty dreissig trente treinta".split(), 30)
_ENGLISH = """first/second/third/fourth/fifth/sixth/seventh/eighth/ninth/tenth/eleventh/twelfth
    /thirteenth/fourteenth/fifteenth/sixteenth/seventeenth/eighteenth/nineteenth/twentieth/twenty-first
    /twenty-second/twenty-third/twenty-fourth/twenty-fifth/twenty-sixth/twenty-seventh/twenty-eighth
    /twenty-ninth/thirtieth/thirty-first"""
_GERMAN = """erst/zweit/dritt/viert/funft/sechst/siebt/acht/neunt/zehnt/elft/zwolft/dreizehnt/vierzehnt
    /funfzehnt/sechzehnt/siebzehnt/achtzehnt/neunzehnt/zwanzigst/einundzwanzigst/zweiundzwanzigst
    /dreiundzwanzigst/vierundzwanzigst/funfundzwanzigst/sechsundzwanzigst/siebenundzwanzigst
    /achtundzwanzigst/neunundzwanzigst/dreissigst/einunddreissigst"""
ENGLISH_ORDINALS = numbered(f"1: {_ENGLISH}")
OTHER_ORDINALS = {
    stem + ending: number
    for stem, number in numbered(f"1: {_GERMAN}").items()
    for ending in ("e", "en", "er", "es")
}
OTHER_ORDINALS |= numbered("""1: premier premiere primer primero primera
    / deuxieme seconde segundo segunda / troisieme tercer tercero tercera
    / quatrieme cuarto cuarta / cinquieme quinto quinta""")
ORDINALS = ENGLISH_ORDINALS | OTHER_ORDINALS
LAST = "last final letzte letzten letzter letztes dernier derniere ultimo ultima".split()
"""The last of what is counted, where it is said of what; else the one before this."""
SHIFTS = numbered("""-2: vorletzte vorletzten vorletzter vorletztes antepasado antepasada avant-derniere
    / last past previous letzte letzten letzter letztes letztem vorige vorigen voriges voriger vorigem
    vergangene vergangenen vergangener vergangenes vergangenem dernier derniere derniers dernieres
    passe passee ultimo ultima ultimos ultimas pasado pasada
    / this diese diesem diesen dieser dieses ce cet cette este esta
    / next nachste nachsten nachster nachstes kommende kommenden kommender kommendes
    prochain prochaine proximo proxima
    / ubernachste ubernachsten ubernachstes""")
SHIFTS |= {"before last": -2, "after next": 2}
SHIFTS_AFTER = "dernier derniere passe passee pasado pasada antepasado antepasada prochain".split()
SHIFTS_AFTER += ["prochaine", "before last", "after next"]
"""Those that follow their noun."""

UNIT_NAMES = {
    "minute": "minute minutes minuten minuto minutos",
    "hour": "hour hours stunde stunden heure heures hora horas",
    "day": "day days tag tage tagen jour jours dia dias",
    "week": "week weeks woche wochen semaine semaines semana semanas",
    "fortnight": "fortnight fortnights quinzaine quinzaines quincena quincenas",
    "month": "month months monat monate monaten monats mois mes meses",
    "year": "year years jahr jahre jahren jahres an ans annee annees ano anos",
    "decade": "decade decades jahrzehnt jahrzehnte jahrzehnten decennie decennies decada decadas",
    "weekend": "weekend wochenende week-end",
    "quarter": "quarter quartal quartals trimestre",
    "part": "morning afternoon evening night nacht matin apres-midi soir nuit manana tarde noche",
}
UNITS = {name: unit for unit, names in UNIT_NAMES.items() for name in names.split()}
HALVES = "half halbjahr jahreshalfte semestre".split()
MONTH_HALVES = "half halfte moitie mitad quinzaine quincena".split()

SEASONS = numbered("""0: spring fruhling fruhjahr printemps primavera / summer sommer ete verano
    / autumn fall herbst automne otono / winter hiver invierno""")
DECADES = numbered("""2: twenties zwanziger / thirties dreissiger / forties vierziger / fifties funfziger
    / sixties sechziger / seventies siebziger / eighties achtziger / nineties neunziger""")
THIRDS = numbered("""0: early start beginning anfang beginn debut principios comienzos inicios
    / mid middle mitte milieu mi mediados / late end ende fin finales fines""")
"""Words for the first, the second and the last third of a time."""

# What must stand beside a month name that is also a verb, a first name, a planet or a sauce.
SURE = set("in|since|during|until|last|mid|end of|start of|beginning of|middle of|month of".split("|"))
EN = SURE | set("this next early late by before after around".split())
DE = set("im seit bis anfang mitte ende letzten letzter vorigen vorletzten diesen nachsten".split())
FR = {*"en depuis fin debut dernier passe ce prochain mi".split(), "mois de"}
FR |= {"debut de", "milieu de", "fin de"}
ES = {*"en desde hasta ultimo pasado este proximo".split(), "mes de", "principios de", "finales de"}
ES |= {"mediados de", "comienzos de", "inicios de", "fin de", "fines de"}
BESIDE = dict.fromkeys("may march june jan feb mar apr jun jul aug sep sept oct nov dec".split(), EN)
BESIDE |= {"april": EN | DE, "august": EN | DE, "mai": DE | FR, "mars": FR, "mayo": ES}
BESIDE |= {"juli": DE, "may_": SURE, "march_": SURE}
BESIDE_YEAR = EN | DE | FR | ES | {"year", "jahr", "annee", "ano"}

_MARKS = re.compile("[\u0300-\u036f]+")
_SIGNS = {0x2019: "'", 0xDF: "ss", **dict.fromkeys(range(0x2010, 0x2016), "-")}


def folded(text: str) -> str:
    """Return a text without accents, its dashes and apostrophes as in ASCII."""
    if text.isascii():
        return text
    return _MARKS.sub("", unicodedata.normalize("NFD", text)).translate(_SIGNS)


def any_of(names: Iterable[str]) -> str:
    """Return a pattern of any of the names, the longest first."""
    return "(?:" + "|".join(map(re.escape, sorted(names, key=len, reverse=True))) + ")"
