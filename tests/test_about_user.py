"""Questions about the user, and questions that name a memory by its id."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from soulkeep.errors import SoulkeepError
from soulkeep.models import Memory, NewMemory
from soulkeep.search.questions import asks_about_user, named_ids, user_fit
from soulkeep.service.home import Home

QUESTIONS = {
    "facts": """
        What do you know about me? / who am I / Tell me about myself.
        / What have you learned about me so far? / Do you remember me?
        / what do you know about the user / user background / facts about the user
        / Wer bin ich? / Was weißt du über mich?
        / Erzähl mir etwas über mich / Qui suis-je ? / Que sais-tu de moi ? / ¿Quién soy?
        / ¿Qué sabes de mí? / Chi sono? / Cosa sai di me? / O que você sabe sobre mim?
        / Wat weet je over mij? / Кто я? / Что ты знаешь обо мне? / Ποιος είμαι;
        / Τι ξέρεις για μένα; / Ben kimim? / Hakkımda ne biliyorsun? / Tôi là ai?
        / Bạn biết gì về tôi? / ماذا تعرف عني؟ / מה אתה יודע עליי? / मैं कौन हूँ?
        / तुम मेरे बारे में क्या जानते हो? / 你对我了解多少？ / 我是谁？ / 私について何を知っていますか？
        / 私は誰ですか？ / 나는 누구야? / 나에 대해 무엇을 알고 있어? / ฉันคือใคร
        / คุณรู้อะไรเกี่ยวกับฉันบ้าง / ฉันเป็นใคร / เล่าเรื่องของฉันให้ฟังหน่อย
        / Kim jestem? / Co o mnie wiesz? / Opowiedz mi coś o mnie. / Czy wiesz, kim jestem?
        / Vem är jag? / Vad vet du om mig? / Berätta något om mig. / Känner du mig?
        / Kdo jsem? / Co o mně víš? / Řekni mi něco o mně. / Co si o mně pamatuješ?
        / Хто я? / Що ти знаєш про мене? / Розкажи мені про мене. / Hvem er jeg?
        / Hvad ved du om mig? / Fortæl mig noget om mig selv. / Hva vet du om meg?
        / Fortell meg om meg selv. / Kuka minä olen? / Mitä tiedät minusta? / Kerro jotain minusta.
        / Ki vagyok én? / Mit tudsz rólam? / Mesélj rólam! / Cine sunt eu? / Ce știi despre mine?
        / Spune-mi ceva despre mine. / Siapa saya? / Apa yang kamu ketahui tentang saya?
        / Ceritakan tentang diri saya. / Apa yang Anda tahu tentang saya? / 我是誰？
        / 你知道我的哪些事？ / 告訴我關於我自己的事 / 介绍一下我 / 내가 누구야? / 나에 대해 말해줘
        / 私のこと知ってる？ / 私について教えてください / Kendim hakkında bana bilgi ver
        / Benim hakkımda ne biliyorsun? / أخبرني عن نفسي / من أنا؟ / ספר לי על עצמי / מי אני?
        / मेरे बारे में बताओ / Πες μου κάτι για μένα. / Расскажи мне обо мне. / Kể về tôi
        / whoami / What have you stored about me? / What do you already know about me?
        / What do you have on me? / Who do you think I am? / Give me a summary of what you know about me
        / Was hast du über mich gespeichert? / Mein Profil / Qu'as-tu enregistré sur moi ?
        / ¿Qué tienes guardado sobre mí? / Cosa hai salvato su di me? / O que você tem sobre mim?
        / Wat heb je over mij opgeslagen?
        / Parlami di me / Fale sobre mim / Vertel me iets over mezelf / Háblame de mí
        / Parle-moi de moi / Erzähl mir etwas über mich selbst
    """,
    "name": """
        What's my name? / what is my surname / What should you call me? / Wie ist mein Nachname?
        / what is my full name / What am I called? / Do you know my name?
        / Wie heiße ich? / Weißt du meinen Namen? / Comment je m'appelle ? / Quel est mon nom ?
        / ¿Cómo me llamo? / Come mi chiamo? / Qual é o meu nome? / Hoe heet ik? / Как меня зовут?
        / Adım ne? / ما اسمي؟ / מה השם שלי? / मेरा नाम क्या है? / 我叫什么名字？ / 私の名前は何ですか
        / 내 이름이 뭐야? / ฉันชื่ออะไร / Jak się nazywam? / Jak mam na imię? / Vad heter jag?
        / Vad är mitt namn? / Jak se jmenuji? / Jaké je moje jméno? / Як мене звати? / Яке моє ім'я?
        / Hvad hedder jeg? / Hva heter jeg? / Hva er navnet mitt? / Mikä minun nimeni on?
        / Mikä on nimeni? / Mi a nevem? / Hogy hívnak engem? / Cum mă numesc? / Cum mă cheamă?
        / Care este numele meu? / Siapa nama saya? / 我叫什麼名字？ / 私の名前は？ / ما هو اسمي؟
        / איך קוראים לי? / Πώς με λένε; / Tên tôi là gì? / İsmim ne? / Wat is mijn naam?
    """,
}

STATED = [
    "The user's name is Tom Berg.",
    "The user is called Tom.",
    "User goes by Tom.",
    "My name is Tom.",
    "Der Nutzer heißt Tom.",
    "L'utilisateur s'appelle Tom.",
    "El usuario se llama Tom.",
    "L'utente si chiama Tom.",
    "O nome do usuário é Tom.",
    "De gebruiker heet Tom.",
    "Пользователя зовут Том.",
    "Τον χρήστη λένε Τομ.",
    "Kullanıcının adı Tom.",
    "Người dùng tên là Tom.",
    "اسم المستخدم توم.",
    "שם המשתמש הוא תום.",
    "उपयोगकर्ता का नाम टॉम है।",
    "用户的名字是汤姆。",
    "ユーザーの名前はトムです。",
    "사용자의 이름은 톰이다.",
    "ผู้ใช้ชื่อทอม",
    "Użytkownik nazywa się Tom.",
    "Mam na imię Tom.",
    "Användaren heter Tom.",
    "Jag heter Tom.",
    "Uživatel se jmenuje Tom.",
    "Користувача звати Том.",
    "Brugeren hedder Tom.",
    "Brukeren heter Tom.",
    "Käyttäjän nimi on Tom.",
    "A felhasználó neve Tom.",
    "Utilizatorul se numește Tom.",
    "Pengguna bernama Tom.",
    "Nama saya Tom.",
]
"""The user's name, in the languages of the questions."""


@pytest.mark.parametrize(
    ("asked", "query"),
    [(asked, query.strip()) for asked, queries in QUESTIONS.items() for query in queries.split(" / ")],
)
def test_a_question_about_the_user_is_known(asked: str, query: str) -> None:
    assert asks_about_user(query) == asked


@pytest.mark.parametrize(
    "query",
    [
        "What is my dog's name?",
        "Who are you?",
        "What is your name?",
        "Where do I live?",
        "What's my address?",
        "What do you have on my desk?",
        "What do you know about Tom?",
        "Tell me everything about tea",
        "what is my van?",
        "Wo wohne ich?",
        "Wie heißt meine Katze?",
        "Qui est mon médecin ?",
        "我的狗叫什么",
        "私の犬の名前は",
        "Kim jesteś?",
        "Jak masz na imię?",
        "Jak się nazywa mój pies?",
        "Vem är du?",
        "Vad heter min hund?",
        "Berätta för mig allt",
        "Kdo jsi?",
        "Jak se jmenuje můj pes?",
        "Як звати мого собаку?",
        "Розкажи мені все",
        "Hvad hedder du?",
        "Hva heter katten min?",
        "Mikä koirani nimi on?",
        "Ki vagy?",
        "Hogy hívják a kutyámat?",
        "Cine ești?",
        "Cum se numește câinele meu?",
        "Siapa kamu?",
        "Ben",
        "Mia",
        "Meg",
        "EU",
        "MIT",
        "RAM",
        "Kuka on Mina?",
        "Siapa nama anjing saya?",
        "Fortæl mig alt",
        "ספר לי הכל",
        "Who",
        "?",
    ],
)
def test_another_question_is_not_about_the_user(query: str) -> None:
    assert asks_about_user(query) is None


@pytest.mark.parametrize("content", STATED)
def test_a_statement_of_the_name_is_known_in_each_language(content: str) -> None:
    assert user_fit("name", memory(content)) == 1


@pytest.mark.parametrize(
    ("content", "subject", "source", "fits"),
    [
        ("Lives in Kiel.", "user", None, 0.8),
        ("Lives in Kiel.", "Me", None, 0.8),
        ("Is called Tom.", "the user", None, 1.0),
        ("Name: Tom", "User", None, 1.0),
        ("Lives in Kiel.", None, "MEMORY.md: User Facts", 0.8),
        ("Lives in Kiel.", None, "MEMORY.md: **User Facts**:", 0.8),
        ("Lives in Kiel.", None, "MEMORY.md: Facts", 0.0),
        ("The user lives in Kiel.", None, None, 0.8),
        ("Der Nutzer wohnt in Kiel.", None, None, 0.8),
        ("I live in Kiel.", None, None, 0.5),
        ("I live in Kiel.", "Anna", None, 0.0),
        ("The user's dog is called Rex.", None, None, 0.8),
        ("Likes tea.", "Ben", None, 0.0),
        ("Likes tea.", "Mia", None, 0.0),
        ("Likes tea.", "Mina", None, 0.0),
        ("Has 27 members.", "EU", None, 0.0),
        ("Ben likes tea.", None, None, 0.0),
        ("Mit dem Bus kommt Tom.", None, None, 0.0),
        ("Tom bruger te.", None, None, 0.0),
        ("Ben çay seviyorum.", None, None, 0.5),
        ("Jag bor i Kiel.", None, None, 0.5),
        ("Użytkownik mieszka w Kilonii.", None, None, 0.8),
        ("Uživatel bydlí v Kielu.", None, None, 0.8),
        ("Lives in Kiel.", "użytkownik", None, 0.8),
        ("Tea is green.", None, None, 0.0),
    ],
)
def test_what_is_about_the_user_fits(
    content: str, subject: str | None, source: str | None, fits: float
) -> None:
    assert user_fit("facts", memory(content, subject, source)) == fits


def memory(content: str, subject: str | None = None, source: str | None = None) -> Memory:
    when = "2026-03-01T12:00:00.000Z"
    return Memory(1, None, content, "fact", source, when, subject, when)


@given(st.text() | st.lists(st.sampled_from("who am i ? me 我 谁 は #".split())).map(" ".join))
def test_any_text_is_a_question_about_the_user_or_not(text: str) -> None:
    assert asks_about_user(text) in {"name", "facts", None}
    assert 0 <= user_fit("facts", memory(text)) <= 1
    assert all(0 <= memory_id < 10**18 for memory_id in named_ids(text))


OTHERS = [
    "What you know about tea matters.",
    "Who am I to judge, said the cook.",
    "The name of the boat is Nixe.",
    "About me: a song by the band.",
    "Tell Anna about the myth.",
]


@pytest.mark.parametrize("embedder", [pytest.param("auto", marks=pytest.mark.embedder), "none"])
def test_the_user_s_name_and_facts_come_before_what_shares_a_stop_word(
    make_home: Callable[..., Home], embedder: str
) -> None:
    home = make_home(embedder=embedder)
    (home.path / "MEMORY.md").write_text("## **User Facts**\n\n- Sails on Sundays.\n", encoding="utf-8")
    home.memories.remember(
        [
            NewMemory("The user's name is Tom Berg."),
            NewMemory("Lives in Kiel.", subject="user"),
            NewMemory("Der Nutzer trinkt Tee.", memory_type="preference"),
            *map(NewMemory, OTHERS),
            *(NewMemory(f"The harbour of town {number} is deep.") for number in range(50)),
        ]
    )

    for query in (
        "What do you know about me?",
        "who am I",
        "What's my name?",
        "Tell me about myself",
        "Wer bin ich?",
    ):
        first, *following = home.memories.recall(query, limit=4).matches

        assert first.memory.content == "The user's name is Tom Berg.", query
        assert {match.memory.content for match in following} == {
            "Lives in Kiel.",
            "Der Nutzer trinkt Tee.",
            "Sails on Sundays.",
        }, query
        assert first.relevance > max(match.relevance for match in following) > 0, query


def test_a_question_about_the_user_keeps_to_its_filters(make_home: Callable[..., Home]) -> None:
    home = make_home(embedder="none")
    kiel = home.threads.create_thread("Kiel").id
    home.memories.remember(
        [
            NewMemory("The user rows.", thread_id=kiel),
            NewMemory("The user's name is Tom.", thread_id=home.threads.create_thread("Else").id),
            NewMemory("Likes tea.", subject="user", memory_type="preference"),
        ]
    )

    def said(**filters: str) -> set[str]:
        matches = home.memories.recall("who am I?", **filters).matches  # type: ignore[arg-type]
        return {match.memory.content for match in matches}

    assert said(thread_id=kiel) == {"The user rows.", "Likes tea."}
    assert said(memory_type="preference") == {"Likes tea."}


@pytest.mark.parametrize(
    ("query", "ids"),
    [
        ("memory #2", [2]),
        ("Memory 2", [2]),
        ("What is #2 about?", [2]),
        ("#2", [2]),
        ("memories #2 and #5", [2, 5]),
        ("memory no. 2", [2]),
        ("Erinnerung Nr. 2", [2]),
        ("memories 9 and 11", [9, 11]),
        ("What do memories 9, 11 and 13 say?", [9, 11, 13]),
        ("#9, #11 and #13", [9, 11, 13]),
        ("Compare #9 and #11", [9, 11]),
        ("What are #9 and 11 about?", [9, 11]),
        ("memory 4-6", [4, 5, 6]),
        ("memories #4\u2013#6", [4, 5, 6]),
        ("memories 4 to 6", [4, 5, 6]),
        ("memories 4-6 and 9", [4, 5, 6, 9]),
        ("memories 6-4", [6, 4]),
        ("What does memory 4 say?", [4]),
        ("Erinnerungen 4 und 7", [4, 7]),
        ("Erinnerungen 4 bis 6", [4, 5, 6]),
        ("souvenirs 4 et 7", [4, 7]),
        ("recuerdos 4, 5 y 7", [4, 5, 7]),
        ("memory ids 4 and 5", [4, 5]),
        ("memory 1-999999999", list(range(1, 101))),
        ("#2, 3 times a day", [2]),
        ("lost her memory 3 times", []),
        ("her memories 5 years on", []),
        ("the issues #2 and #3", []),
        ("issue #2", []),
        ("C#2", []),
        ("my laptop has memory 16 GB", []),
        ("2", []),
        ("memory #99999999999999999999", []),
    ],
)
def test_an_id_is_read_where_it_is_a_memory_s(query: str, ids: list[int]) -> None:
    assert named_ids(query) == ids


@pytest.mark.parametrize("embedder", [pytest.param("auto", marks=pytest.mark.embedder), "none"])
def test_a_memory_that_is_named_comes_first_in_its_newest_version(
    make_home: Callable[..., Home], embedder: str
) -> None:
    home = make_home(embedder=embedder)
    tea, _, coffee = (
        home.memories.remember([NewMemory(text)])[0].id
        for text in ("Tea is green.", "A memory of memory 2: number 1.", "Coffee is black.")
    )

    def first(query: str) -> tuple[str, float]:
        match = home.memories.recall(query).matches[0]
        return match.memory.content, match.relevance

    assert first(f"memory #{tea}") == ("Tea is green.", 1)
    both = home.memories.recall(f"memories {tea} and {coffee}").matches[:2]
    assert {match.memory.id for match in both} == {tea, coffee}
    assert first(f"What does memory #{coffee} say?") == ("Coffee is black.", 1)
    home.memories.remember([NewMemory("Tea is brown.")], replaces=[tea])
    assert first(f"memory #{tea}") == ("Tea is brown.", 1)
    assert home.memories.recall("memory #12345", memory_type="decision").matches == ()
    with pytest.raises(SoulkeepError):
        home.memories.recall("")
