"""Dates in questions, and how well a memory's day fits them."""

from collections.abc import Callable
from datetime import UTC, date, datetime
from unicodedata import normalize
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from soulkeep.days import DateSpan, date_score
from soulkeep.models import NewMemory
from soulkeep.search.dates import asks_when, day_words, find_dates, has_time_word
from soulkeep.search.words import split_query
from soulkeep.service.home import Home

NOW = datetime(2023, 6, 14, 15, tzinfo=UTC)
"""A Wednesday."""


def day(text: str, *, year_stated: bool = True) -> DateSpan:
    return DateSpan("day", date.fromisoformat(text), date.fromisoformat(text), year_stated)


def month(first: str, last: str, *, year_stated: bool = True) -> DateSpan:
    return DateSpan("month", date.fromisoformat(first), date.fromisoformat(last), year_stated)


def year(number: int) -> DateSpan:
    return DateSpan("year", date(number, 1, 1), date(number, 12, 31))


def days(first: str, last: str, *, year_stated: bool = True) -> DateSpan:
    return DateSpan("range", date.fromisoformat(first), date.fromisoformat(last), year_stated)


MARCH_3 = day("2023-03-03")
ANY_MARCH_3 = day("2023-03-03", year_stated=False)
MAY = month("2023-05-01", "2023-05-31")
ANY_MAY = month("2023-05-01", "2023-05-31", year_stated=False)
ANY_MARCH = month("2023-03-01", "2023-03-31", year_stated=False)
LAST_WEEK = days("2023-06-05", "2023-06-11")
TWO_WEEKS_AGO = days("2023-05-28", "2023-06-03")


@pytest.mark.parametrize(
    ("query", "span"),
    [
        ("What did I do on 3 March?", ANY_MARCH_3),
        ("What happened on 3 March 2023?", MARCH_3),
        ("Where was I on March 3rd, 2023?", MARCH_3),
        ("the 3rd of march", ANY_MARCH_3),
        ("on march 3 we met", ANY_MARCH_3),
        ("log of 2023-03-03", MARCH_3),
        ("2023-03-03T10:00", MARCH_3),
        ("03/03/2023", MARCH_3),
        ("13/04/2023", day("2023-04-13")),
        ("04/13/2023", day("2023-04-13")),
        ("am 3.4.2023", day("2023-04-03")),
        ("on 20 December", day("2022-12-20", year_stated=False)),
        ("on 29 February", day("2020-02-29", year_stated=False)),
        ("Where did I go in May?", ANY_MAY),
        ("what did we do in may?", ANY_MAY),
        ("the trip at the end of May", days("2023-05-21", "2023-05-31", year_stated=False)),
        ("What did I do last May?", MAY),
        ("What happened in May 2023?", MAY),
        ("this June", month("2023-06-01", "2023-06-30")),
        ("last June", month("2023-06-01", "2023-06-30")),
        ("last December", month("2022-12-01", "2022-12-31")),
        ("next May", month("2024-05-01", "2024-05-31")),
        ("Where did I work in 2022?", year(2022)),
        ("the summer of 2022", days("2022-06-01", "2022-08-31")),
        ("What did I eat yesterday?", day("2023-06-13")),
        ("the day before yesterday", day("2023-06-12")),
        ("Who called today?", day("2023-06-14")),
        ("What did I plan for tomorrow?", day("2023-06-15")),
        ("What did I eat this morning?", day("2023-06-14")),
        ("Whom did I meet last night?", day("2023-06-13")),
        ("What did we decide last week?", LAST_WEEK),
        ("next week", days("2023-06-19", "2023-06-25")),
        ("last weekend", days("2023-06-10", "2023-06-11")),
        ("What did I buy two weeks ago?", TWO_WEEKS_AGO),
        ("a couple of weeks ago", TWO_WEEKS_AGO),
        ("3 days ago", day("2023-06-11")),
        ("What did I plan a month ago?", days("2023-05-04", "2023-05-24")),
        ("two years ago", year(2021)),
        ("in the last two weeks", days("2023-05-31", "2023-06-14")),
        ("last month", MAY),
        ("Where was I last year?", year(2022)),
        ("Whom did I meet last Tuesday?", day("2023-06-13")),
        ("last Wednesday", day("2023-06-07")),
        ("on Wednesday", day("2023-06-14")),
        ("this Friday", day("2023-06-16")),
        ("next Wednesday", day("2023-06-21")),
        ("December the 24th, 2022", day("2022-12-24")),
        ("24-Dec-2022", day("2022-12-24")),
        ("the first of March 2023", day("2023-03-01")),
        ("on the twenty-fourth of December 2022", day("2022-12-24")),
        ("March third, 2023", MARCH_3),
        ("on May first, 2023", day("2023-05-01")),
        ("What did we do on the 3rd?", day("2023-06-03")),
        ("the 24th", day("2023-05-24")),
        ("What happened the 24th?", day("2023-05-24")),
        ("since the 31st", day("2023-05-31")),
        ("Tuesday the 13th", day("2023-06-13")),
        ("the 24th of last month", day("2023-05-24")),
        ("the first of this month", day("2023-06-01")),
        ("the last day of May 2022", day("2022-05-31")),
        ("the last Friday of March 2022", day("2022-03-25")),
        ("the second Sunday in May 2023", day("2023-05-14")),
        ("the first Monday of last month", day("2023-05-01")),
        ("Monday last week", day("2023-06-05")),
        ("on Friday of last week", day("2023-06-09")),
        ("two Mondays ago", day("2023-06-05")),
        ("the day after tomorrow", day("2023-06-16")),
        ("a fortnight ago", TWO_WEEKS_AGO),
        ("two fortnights ago", days("2023-05-14", "2023-05-20")),
        ("two weeks back", TWO_WEEKS_AGO),
        ("half a year ago", days("2022-12-04", "2022-12-24")),
        ("twelve years ago", year(2011)),
        ("an hour ago", day("2023-06-14")),
        ("sixteen hours ago", day("2023-06-13")),
        ("2023-W12-3", day("2023-03-22")),
    ],
)
def test_an_english_question_names_a_date(query: str, span: DateSpan) -> None:
    assert find_dates(query, NOW) == (span,)


@pytest.mark.parametrize(
    ("query", "span"),
    [
        ("Was habe ich gestern gegessen?", day("2023-06-13")),
        ("Was war vor zwei Wochen?", TWO_WEEKS_AGO),
        ("vor einem Jahr", year(2022)),
        ("Wo war ich letzten Mai?", MAY),
        ("am 3. März 2023", MARCH_3),
        ("im März", ANY_MARCH),
        ("letzte Woche", LAST_WEEK),
        ("seit 2022", year(2022)),
        ("letzten Dienstag", day("2023-06-13")),
        ("Où étais-je hier ?", day("2023-06-13")),
        ("Qu\u2019ai-je mangé avant-hier ?", day("2023-06-12")),
        ("aujourd\u2019hui", day("2023-06-14")),
        ("il y a deux semaines", TWO_WEEKS_AGO),
        ("le 3 mars 2023", MARCH_3),
        ("le 3 mars", ANY_MARCH_3),
        ("en mars", ANY_MARCH),
        ("en mai dernier", MAY),
        ("la semaine dernière", LAST_WEEK),
        ("¿Qué comí ayer?", day("2023-06-13")),
        ("hace dos semanas", TWO_WEEKS_AGO),
        ("el 3 de marzo de 2023", MARCH_3),
        ("en mayo de 2023", MAY),
        ("mayo pasado", MAY),
        ("la semana pasada", LAST_WEEK),
        ("el año pasado", year(2022)),
        ("Was habe ich übermorgen vor?", day("2023-06-16")),
        ("Was habe ich morgen vor?", day("2023-06-15")),
        ("vorvorgestern", day("2023-06-11")),
        ("vergangene Woche", LAST_WEEK),
        ("vor vierzehn Tagen", day("2023-05-31")),
        ("vor einem halben Jahr", days("2022-12-04", "2022-12-24")),
        ("am 24.12.22", day("2022-12-24")),
        ("24.12.22", day("2022-12-24")),
        ("Was war am 3.?", day("2023-06-03")),
        ("am 24. des letzten Monats", day("2023-05-24")),
        ("Dienstag letzter Woche", day("2023-06-06")),
        ("am letzten Freitag im März 2022", day("2022-03-25")),
        ("am ersten Mai 2022", day("2022-05-01")),
        ("après-demain", day("2023-06-16")),
        ("il y a quinze jours", day("2023-05-30")),
        ("il y a une quinzaine", TWO_WEEKS_AGO),
        ("l'an dernier", year(2022)),
        ("le premier mai 2022", day("2022-05-01")),
        ("Qu'ai-je fait le 3 ?", day("2023-06-03")),
        ("le 24 du mois dernier", day("2023-05-24")),
        ("lundi de la semaine dernière", day("2023-06-05")),
        ("pasado mañana", day("2023-06-16")),
        ("¿Qué tengo mañana?", day("2023-06-15")),
        ("antes de ayer", day("2023-06-12")),
        ("hace quince días", day("2023-05-30")),
        ("hace medio año", days("2022-12-04", "2022-12-24")),
        ("el día 24", day("2023-05-24")),
        ("el primero de mayo de 2022", day("2022-05-01")),
        ("el lunes de la semana pasada", day("2023-06-05")),
    ],
)
def test_a_german_french_or_spanish_question_names_a_date(query: str, span: DateSpan) -> None:
    assert find_dates(query, NOW) == (span,)


@pytest.mark.parametrize(
    ("query", "first", "last"),
    [
        ("2026-07-25/26", "2026-07-25", "2026-07-26"),
        ("2022-07-25/08-02", "2022-07-25", "2022-08-02"),
        ("2022/07/25-26", "2022-07-25", "2022-07-26"),
        ("25.-26.07.2022", "2022-07-25", "2022-07-26"),
        ("vom 25. bis 26.7.2022", "2022-07-25", "2022-07-26"),
        ("25-26/07/2022", "2022-07-25", "2022-07-26"),
        ("in 2022-07", "2022-07-01", "2022-07-31"),
        ("2022/12", "2022-12-01", "2022-12-31"),
        ("07/2022", "2022-07-01", "2022-07-31"),
        ("seit 07.2022", "2022-07-01", "2022-07-31"),
        ("2022-11 to 2023-02", "2022-11-01", "2023-02-28"),
        ("from 2022-12-30 to 2023-01-02", "2022-12-30", "2023-01-02"),
        ("2022-07-25\u20132022-07-28", "2022-07-25", "2022-07-28"),
        ("on 25-26 July 2022", "2022-07-25", "2022-07-26"),
        ("25\u201326 July 2022", "2022-07-25", "2022-07-26"),
        ("from 3 to 5 May 2022", "2022-05-03", "2022-05-05"),
        ("between the 3rd and 5th of May 2022", "2022-05-03", "2022-05-05"),
        ("July 25-26, 2022", "2022-07-25", "2022-07-26"),
        ("from May 3 to 5, 2022", "2022-05-03", "2022-05-05"),
        ("from 3 May to 5 June 2022", "2022-05-03", "2022-06-05"),
        ("from 20 December to 5 January 2023", "2022-12-20", "2023-01-05"),
        ("25./26. Juli 2022", "2022-07-25", "2022-07-26"),
        ("vom 25. bis 26. Juli 2022", "2022-07-25", "2022-07-26"),
        ("du 3 au 5 mai 2022", "2022-05-03", "2022-05-05"),
        ("del 3 al 5 de mayo de 2022", "2022-05-03", "2022-05-05"),
        ("from March to May 2022", "2022-03-01", "2022-05-31"),
        ("November bis Februar 2023", "2022-11-01", "2023-02-28"),
        ("from 2019 to 2021", "2019-01-01", "2021-12-31"),
        ("2019-2021", "2019-01-01", "2021-12-31"),
        ("Q3 2022", "2022-07-01", "2022-09-30"),
        ("2022-Q3", "2022-07-01", "2022-09-30"),
        ("2022Q3", "2022-07-01", "2022-09-30"),
        ("in the third quarter of 2022", "2022-07-01", "2022-09-30"),
        ("im 3. Quartal 2022", "2022-07-01", "2022-09-30"),
        ("Q4 last year", "2022-10-01", "2022-12-31"),
        ("last quarter", "2023-01-01", "2023-03-31"),
        ("letztes Quartal", "2023-01-01", "2023-03-31"),
        ("the first half of 2022", "2022-01-01", "2022-06-30"),
        ("H2 2022", "2022-07-01", "2022-12-31"),
        ("last summer", "2022-06-01", "2022-08-31"),
        ("letzten Sommer", "2022-06-01", "2022-08-31"),
        ("l\u2019été dernier", "2022-06-01", "2022-08-31"),
        ("el verano pasado", "2022-06-01", "2022-08-31"),
        ("last winter", "2022-12-01", "2023-02-28"),
        ("the summer before last", "2021-06-01", "2021-08-31"),
        ("this winter", "2022-12-01", "2023-02-28"),
        ("this summer", "2023-06-01", "2023-08-31"),
        ("next winter", "2023-12-01", "2024-02-29"),
        ("last spring", "2023-03-01", "2023-05-31"),
        ("spring 2022", "2022-03-01", "2022-05-31"),
        ("in the fall of 2022", "2022-09-01", "2022-11-30"),
        ("winter 2021/22", "2021-12-01", "2022-02-28"),
        ("Winter 2021", "2021-12-01", "2022-02-28"),
        ("in the 90s", "1990-01-01", "1999-12-31"),
        ("the 1980s", "1980-01-01", "1989-12-31"),
        ("in the nineties", "1990-01-01", "1999-12-31"),
        ("in den 90ern", "1990-01-01", "1999-12-31"),
        ("in den neunziger Jahren", "1990-01-01", "1999-12-31"),
        ("les années 80", "1980-01-01", "1989-12-31"),
        ("the 2010s", "2010-01-01", "2019-12-31"),
        ("the week before last", "2023-05-29", "2023-06-04"),
        ("vorletzte Woche", "2023-05-29", "2023-06-04"),
        ("the weekend before last", "2023-06-03", "2023-06-04"),
        ("la semana antepasada", "2023-05-29", "2023-06-04"),
        ("the month before last", "2023-04-01", "2023-04-30"),
        ("the year before last", "2021-01-01", "2021-12-31"),
        ("the Tuesday before last", "2023-06-06", "2023-06-06"),
        ("the week after next", "2023-06-26", "2023-07-02"),
        ("last weekend", "2023-06-10", "2023-06-11"),
        ("early March 2022", "2022-03-01", "2022-03-10"),
        ("mid-March 2022", "2022-03-11", "2022-03-20"),
        ("late March 2022", "2022-03-21", "2022-03-31"),
        ("Anfang März 2022", "2022-03-01", "2022-03-10"),
        ("mid-2022", "2022-05-02", "2022-08-31"),
        ("Mitte 2022", "2022-05-02", "2022-08-31"),
        ("end of last year", "2022-09-01", "2022-12-31"),
        ("Ende letzten Jahres", "2022-09-01", "2022-12-31"),
        ("at the beginning of this year", "2023-01-01", "2023-05-01"),
        ("à la fin de 2022", "2022-09-01", "2022-12-31"),
        ("a mediados de 2022", "2022-05-02", "2022-08-31"),
        ("late summer 2022", "2022-08-01", "2022-08-31"),
        ("the early 1990s", "1990-01-01", "1993-05-01"),
        ("at the end of the month", "2023-06-21", "2023-06-30"),
        ("Monatsende", "2023-06-21", "2023-06-30"),
        ("fin del mes", "2023-06-21", "2023-06-30"),
        ("Anfang des Jahres", "2023-01-01", "2023-05-01"),
        ("end of the year 2022", "2022-09-01", "2022-12-31"),
        ("last quarter of 2022", "2022-10-01", "2022-12-31"),
        ("the final quarter of last year", "2022-10-01", "2022-12-31"),
        ("first quarter 2023", "2023-01-01", "2023-03-31"),
        ("letztes Quartal 2022", "2022-10-01", "2022-12-31"),
        ("le dernier trimestre 2022", "2022-10-01", "2022-12-31"),
        ("último trimestre de 2022", "2022-10-01", "2022-12-31"),
        ("H1 2023", "2023-01-01", "2023-06-30"),
        ("zweite Jahreshälfte 2022", "2022-07-01", "2022-12-31"),
        ("the first half of the year", "2023-01-01", "2023-06-30"),
        ("the first half of May 2022", "2022-05-01", "2022-05-15"),
        ("primera quincena de mayo de 2022", "2022-05-01", "2022-05-15"),
        ("2022-W12", "2022-03-21", "2022-03-27"),
        ("KW 12/2022", "2022-03-21", "2022-03-27"),
        ("week 12 of 2022", "2022-03-21", "2022-03-27"),
        ("calendar week 3 of 2022", "2022-01-17", "2022-01-23"),
        ("in der 12. Kalenderwoche 2022", "2022-03-21", "2022-03-27"),
        ("semaine 12 de 2022", "2022-03-21", "2022-03-27"),
        ("semana 12 de 2022", "2022-03-21", "2022-03-27"),
        ("KW 12-14 2022", "2022-03-21", "2022-04-10"),
        ("the last week of 2022", "2022-12-26", "2023-01-01"),
        ("the third week of March 2022", "2022-03-15", "2022-03-21"),
        ("the last week of May 2022", "2022-05-25", "2022-05-31"),
        ("la primera semana de mayo de 2022", "2022-05-01", "2022-05-07"),
        ("the last weekend of May 2022", "2022-05-28", "2022-05-29"),
        ("fin de semana pasado", "2023-06-10", "2023-06-11"),
        ("at the weekend", "2023-06-10", "2023-06-11"),
        ("two weekends ago", "2023-06-03", "2023-06-04"),
        ("vor zwei Wochenenden", "2023-06-03", "2023-06-04"),
        ("hace dos fines de semana", "2023-06-03", "2023-06-04"),
        ("hace un par de semanas", "2023-05-28", "2023-06-03"),
        ("entre el 3 y el 5 de mayo de 2022", "2022-05-03", "2022-05-05"),
        ("à la fin du mois de mai 2022", "2022-05-21", "2022-05-31"),
        ("May '22", "2022-05-01", "2022-05-31"),
        ("Q1 '22", "2022-01-01", "2022-03-31"),
        ("last fortnight", "2023-05-31", "2023-06-14"),
        ("les trois derniers mois", "2023-03-14", "2023-06-14"),
        ("a month and a half ago", "2023-04-30", "2023-05-06"),
        ("a decade ago", "2011-01-01", "2015-12-31"),
        ("from the 3rd to the 5th", "2023-06-03", "2023-06-05"),
        ("du 3 au 5", "2023-06-03", "2023-06-05"),
    ],
)
def test_a_question_names_a_time_of_several_days(query: str, first: str, last: str) -> None:
    (span,) = find_dates(query, NOW)

    assert (span.first, span.last) == (date.fromisoformat(first), date.fromisoformat(last))
    assert span.year_stated


@pytest.mark.parametrize(
    ("query", "first", "last"),
    [
        ("25-26 May", "2023-05-25", "2023-05-26"),
        ("25-26 July", "2022-07-25", "2022-07-26"),
        ("from 3 to 5 May", "2023-05-03", "2023-05-05"),
        ("in Q3", "2022-07-01", "2022-09-30"),
        ("in Q1", "2023-01-01", "2023-03-31"),
        ("in the summer", "2023-06-01", "2023-08-31"),
        ("im Herbst", "2022-09-01", "2022-11-30"),
        ("early in March", "2023-03-01", "2023-03-31"),
        ("early March", "2023-03-01", "2023-03-10"),
        ("Ende Mai", "2023-05-21", "2023-05-31"),
        ("from March to May", "2023-03-01", "2023-05-31"),
        ("from 20 December to 5 January", "2022-12-20", "2023-01-05"),
        ("24.12.", "2022-12-24", "2022-12-24"),
        ("am 24.12.", "2022-12-24", "2022-12-24"),
        ("Am 24.12 waren wir wo?", "2022-12-24", "2022-12-24"),
        ("Dienstag, 24.12.", "2022-12-24", "2022-12-24"),
        ("vom 24.12. bis 2.1.", "2022-12-24", "2023-01-02"),
        ("vom 3. bis 5.4.", "2023-04-03", "2023-04-05"),
        ("le 24/12", "2022-12-24", "2022-12-24"),
        ("el 3/4", "2023-04-03", "2023-04-03"),
        ("on 12/24", "2022-12-24", "2022-12-24"),
        ("week 12", "2023-03-20", "2023-03-26"),
        ("in KW 50", "2022-12-12", "2022-12-18"),
        ("im 2. Halbjahr", "2022-07-01", "2022-12-31"),
        ("the last week of May", "2023-05-25", "2023-05-31"),
        ("in der ersten Maiwoche", "2023-05-01", "2023-05-07"),
        ("fin de mayo", "2023-05-21", "2023-05-31"),
    ],
)
def test_without_a_year_a_time_is_that_of_any_year_and_the_latest_is_given(
    query: str, first: str, last: str
) -> None:
    (span,) = find_dates(query, NOW)

    assert (span.first, span.last) == (date.fromisoformat(first), date.fromisoformat(last))
    assert not span.year_stated
    assert date_score([span], span.first) == date_score([span], span.moved(-1).last) == 1


@pytest.mark.parametrize(
    ("query", "first", "last"),
    [
        ("昨天我们说了什么", "2023-06-13", "2023-06-13"),
        ("昨日の会議", "2023-06-13", "2023-06-13"),
        (normalize("NFD", "어제 뭐 했어?"), "2023-06-13", "2023-06-13"),
        ("上周发生了什么", "2023-06-05", "2023-06-11"),
        ("两周前", "2023-05-28", "2023-06-03"),
        ("3일 전에", "2023-06-11", "2023-06-11"),
        ("2023年3月3日的会议", "2023-03-03", "2023-03-03"),
        ("2022년 3월", "2022-03-01", "2022-03-31"),
        ("Cosa ho fatto ieri?", "2023-06-13", "2023-06-13"),
        ("L\u2019estate scorsa", "2022-06-01", "2022-08-31"),
        ("O que fiz na semana passada?", "2023-06-05", "2023-06-11"),
        ("Wat deed ik eergisteren?", "2023-06-12", "2023-06-12"),
        ("Что было вчера?", "2023-06-13", "2023-06-13"),
        ("Co było w zeszłym tygodniu?", "2023-06-05", "2023-06-11"),
        ("Dün ne yapt\u0131m?", "2023-06-13", "2023-06-13"),
        ("What did we eat at Christmas?", "2022-12-24", "2022-12-26"),
        ("Christmas 2021", "2021-12-24", "2021-12-26"),
        ("on New Year\u2019s Eve", "2022-12-31", "2022-12-31"),
        ("Was war an Silvester?", "2022-12-31", "2022-12-31"),
        ("à Noël", "2022-12-24", "2022-12-26"),
        ("between March and May", "2023-03-01", "2023-05-31"),
        ("summer of '22", "2022-06-01", "2022-08-31"),
        ("in '22", "2022-01-01", "2022-12-31"),
        ("Q3/22", "2022-07-01", "2022-09-30"),
        ("2Q22", "2022-04-01", "2022-06-30"),
    ],
)
def test_a_time_is_read_in_other_languages_and_by_its_name(query: str, first: str, last: str) -> None:
    assert [(f"{span.first}", f"{span.last}") for span in find_dates(query, NOW)] == [(first, last)]


@pytest.mark.parametrize(
    "query",
    [
        "a christmas tree",
        "a present for Christmas",
        "a 2q2 chip",
        "Noel said so",
        "D\u0131t jaar",
        "月",
    ],
)
def test_what_only_sounds_like_a_named_time_is_none(query: str) -> None:
    assert find_dates(query, NOW) == ()


@pytest.mark.parametrize(
    ("zone", "summer"),
    [
        ("Europe/Berlin", "2022-06-01"),
        ("Australia/Sydney", "2022-12-01"),
        ("America/Sao_Paulo", "2022-12-01"),
        ("Pacific/Auckland", "2022-12-01"),
        ("Africa/Nairobi", "2022-06-01"),
    ],
)
def test_a_season_is_that_of_the_hemisphere_of_the_user_s_zone(zone: str, summer: str) -> None:
    (span,) = find_dates("last summer", NOW.astimezone(ZoneInfo(zone)))

    assert span.first == date.fromisoformat(summer)


def test_today_is_the_day_on_the_user_s_clocks() -> None:
    late = datetime(2023, 6, 14, 23, 30, tzinfo=UTC)

    assert find_dates("today", late) == (day("2023-06-14"),)
    assert find_dates("today", late.astimezone(ZoneInfo("Asia/Tokyo"))) == (day("2023-06-15"),)


@pytest.mark.parametrize(
    "query",
    [
        "What may I eat?",
        "May I ask?",
        "Could this may work?",
        "Did May like the film?",
        "step 3 may fail",
        "1. May I go?",
        "I march to work",
        "the next march",
        "Give me a second",
        "the sun",
        "The answer is 42",
        "upgrade to v1.2.3",
        "room 2010",
        "April told me",
        "tuna in mayo",
        "Is Mars bigger?",
        "Was ist hier los?",
        "every Monday",
        "on Mardi Gras",
        "2023-13-45",
        "2010-13",
        "v1.07.2022",
        "3.2022",
        "on 03/04/2023",
        "it cost $2000",
        "port 8080",
        "Who is my sister?",
        "",
        "a year",
        "2020 people",
        "a spring in the mattress",
        "prices fall, then rise",
        "it took 30s",
        "in her thirties",
        "the second half of the match",
        "question 3 of 5",
        "an H1 visa",
        "steps 3 to 5 may fail",
        "pages 3-5",
        "3/4 of a cup",
        "chapter 24.12",
        "see chapter 24.12.",
        "version 24.12.",
        "version 24.12.25",
        "3.2.11",
        "Ubuntu 24.04. or older",
        "3.4. is a section",
        "it costs 24.12 euros",
        "am 3.4 Liter",
        "24.13.",
        "am 31.2.",
        "open 24/7",
        "it is on 24/7",
        "on 3/4",
        "on the 24th floor",
        "on the 3rd try",
        "on the 3rd in a row",
        "for the 2nd time",
        "Compare the 1st and the 2nd.",
        "am 3. Tag der Reise",
        "zum 30. Geburtstag",
        "le 24 heures du Mans",
        "el 3 de la lista",
        "week 12 of pregnancy",
        "per week 12 hours",
        "week 60",
        "week 53 of 2022",
        "a 75 kW engine",
        "a third of March sales",
        "the second May I ask",
        "in the first place",
        "the final quarter",
        "the 5 in line",
        "5th Avenue",
        "Guten Morgen",
        "por la mañana",
        "two steps back",
        "play Fortnite",
    ],
)
def test_what_only_looks_like_a_date_is_none(query: str) -> None:
    assert find_dates(query, NOW) == ()


def test_a_question_may_name_more_than_one_date_and_each_counts_once() -> None:
    spans = find_dates("Between 3 March 2023 and yesterday, or was it 2023-03-03?", NOW)

    assert set(spans) == {MARCH_3, day("2023-06-13")}
    assert len(spans) == 2
    assert date_score(spans, date(2023, 3, 3)) == date_score(spans, date(2023, 6, 13)) == 1


@pytest.mark.parametrize(
    ("span", "occurred", "score"),
    [
        (MARCH_3, "2023-03-03", 1),
        (MARCH_3, "2023-03-05", 1),
        (MARCH_3, "2023-03-06", 0.7),
        (MARCH_3, "2023-03-11", 0.7),
        (MARCH_3, "2023-03-12", 0.2),
        (MARCH_3, "2023-03-02", 0.4),
        (MARCH_3, "2023-03-01", 0.2),
        (MARCH_3, "2023-04-03", 0.2),
        (MARCH_3, "2023-04-04", 0),
        (MARCH_3, "2022-03-03", 0),
        (ANY_MARCH_3, "2021-03-04", 1),
        (day("2022-12-31", year_stated=False), "2020-01-01", 1),
        (day("2020-02-29", year_stated=False), "2023-03-01", 1),
        (MAY, "2023-05-31", 1),
        (MAY, "2023-06-10", 0.3),
        (MAY, "2023-06-11", 0),
        (MAY, "2023-04-30", 0),
        (MAY, "2022-05-10", 0),
        (ANY_MAY, "2021-05-10", 1),
        (month("2022-12-01", "2022-12-31", year_stated=False), "2020-01-05", 0.3),
        (year(2022), "2022-07-01", 0.3),
        (year(2022), "2023-01-01", 0),
        (LAST_WEEK, "2023-06-05", 1),
        (LAST_WEEK, "2023-06-11", 1),
        (LAST_WEEK, "2023-06-18", 0.3),
        (LAST_WEEK, "2023-05-29", 0.3),
        (LAST_WEEK, "2023-06-19", 0),
        (LAST_WEEK, "2023-05-28", 0),
    ],
)
def test_a_day_scores_by_its_distance_from_the_span(span: DateSpan, occurred: str, score: float) -> None:
    assert date_score([span], date.fromisoformat(occurred)) == score


def test_without_a_span_the_score_is_zero() -> None:
    assert date_score([], date(2023, 3, 3)) == 0


@pytest.mark.parametrize(
    ("query", "asked"),
    [
        ("When did I move?", True),
        ("how long have I known Ana", True),
        ("What year was it?", True),
        ("what time is lunch", True),
        ("Wann war das?", True),
        ("Wie lange wohne ich hier?", True),
        ("In welchem Jahr war das?", True),
        ("Depuis quand ?", True),
        ("Quelle année ?", True),
        ("¿Cuándo me mudé?", True),
        ("¿Qué día fue?", True),
        ("What did I do when I moved?", False),
        ("Whenever", False),
        ("What timezone am I in?", False),
        ("", False),
    ],
)
def test_a_question_for_a_time_is_known_by_its_first_words(query: str, asked: bool) -> None:
    assert asks_when(query) is asked


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("We moved in May.", True),
        ("on Tuesday", True),
        ("yesterday", True),
        ("next week", True),
        ("long ago", True),
        ("built in 1998", True),
        ("at 7:30", True),
        ("am Dienstag im März", True),
        ("el miércoles", True),
        ("It may rain", False),
        ("We march", False),
        ("The user likes tea", False),
        ("port 8080", False),
        ("ratio 30:99", False),
        ("Was ist hier los?", False),
    ],
)
def test_a_time_word_is_seen(text: str, found: bool) -> None:
    assert has_time_word(text) is found


def test_a_day_in_words_has_no_leading_zero() -> None:
    assert day_words(date(2023, 5, 8)) == ("8", "may", "2023", "20230508")
    assert day_words(date(2024, 12, 31)) == ("31", "december", "2024", "20241231")
    for asked in ("2023-05-08", "8.5.2023", "8 May", "May 2023"):
        assert set(split_query(asked)) <= set(day_words(date(2023, 5, 8)))


PIECES = st.sampled_from(
    """3 31 0 99 999 03/04/2023 2023-02-30 31.12. 2000 May may March mars Mai mayo April February Monday
    of on in last next this vor hace ago il y a two few days weeks months years year hier gestern
    yesterday 1st morning weekend dernier pasado , . \u017f \u0131 \u0130 Q3 quarter half summer hiver
    90s nineties early mid- end to - / before after the 24th 24. 24.12. 24/12 am le el
    2026-W53 KW week 12 half fortnight weekend hours back of mois del Maiwoche Jahresende third
    2023-02-28/03-01 1999 2020 vorletzte""".split()
)


@given(
    st.text() | st.lists(PIECES, max_size=12).map(" ".join),
    st.datetimes(timezones=st.just(UTC)),
    st.dates(),
)
def test_any_text_gives_ordered_spans_and_a_score_from_0_to_1(
    query: str, now: datetime, occurred: date
) -> None:
    spans = find_dates(query, now)

    assert all(span.first <= span.last for span in spans)
    assert 0 <= date_score(spans, occurred) <= 1
    assert asks_when(query) in {True, False}
    assert has_time_word(query) in {True, False}


@pytest.mark.parametrize("query", ["I bought 3 in May", "3 days in May", "a third of our May plans"])
def test_a_number_beside_a_month_is_no_day_of_it(query: str) -> None:
    assert all(span.kind == "month" for span in find_dates(query, NOW))


@given(
    st.integers(1, 31), st.integers(1, 12), st.sampled_from("chapter version section Python v".split())
)
def test_two_numbers_with_a_dot_are_a_day_only_where_a_day_is_meant(
    number: int, other: int, noun: str
) -> None:
    assert find_dates(f"{noun} {number}.{other}", NOW) == ()
    assert find_dates(f"What is in {noun} {number}.{other}.?", NOW) == ()
    for span in find_dates(f"am {number}.{other}.", NOW):
        assert (span.first.day, span.first.month) == (number, other)


@pytest.mark.parametrize("occurred", [date.min, date.max])
def test_the_ends_of_the_calendar_have_a_score(occurred: date) -> None:
    assert date_score([ANY_MARCH_3, ANY_MAY, LAST_WEEK, year(2022)], occurred) == 0


@pytest.mark.parametrize(
    ("query", "first"),
    [
        ("What did we sail last summer?", "2025-07-25"),
        ("What did we sail in Q4?", "2025-12-20"),
        ("What did we sail on 2025-07-24/25?", "2025-07-25"),
        ("What did we sail at the end of last year?", "2025-12-20"),
        ("What did we sail in the week before last?", "2026-02-18"),
        ("Was segelten wir letzten Frühling?", "2025-04-10"),
    ],
)
def test_a_memory_of_the_time_that_is_asked_for_comes_first(
    make_home: Callable[..., Home], query: str, first: str
) -> None:
    home = make_home(embedder="none")
    days = ("2025-07-25", "2025-12-20", "2026-02-18", "2025-04-10")
    home.memories.remember([NewMemory(f"We sail, wir segelten {day}.", occurred_at=day) for day in days])

    assert home.memories.recall(query).matches[0].memory.occurred_at.startswith(first)
