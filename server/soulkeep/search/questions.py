"""What a question asks for: its words, the ids that it names, and whether it is about the user.

A question about the user ("who am I?") has no word that says what is looked for, so it is known by
having no others than those of `_ASKING`, one of `_SELF` among them. Its answers are known by what a
memory says first.
"""

import math
import re
from collections.abc import Mapping, Sequence
from functools import cache, lru_cache
from itertools import accumulate
from typing import Literal

from soulkeep.models import Memory
from soulkeep.search.words import STOP_WORDS, fold, is_single_unspaced, split_query, split_words

MAX_TERMS = 64
"""Words of a query that are looked up; the rest of a longer one is left out."""

MAX_OCCURRENCES = 5_000
"""Occurrences of words that BM25 reads in a few milliseconds."""


def query_terms(query: str) -> list[str]:
    """Split a query into distinct words without stop words, at most 64.

    A query of nothing but stop words keeps them, so that "The Who" still finds something.
    """
    words = list(dict.fromkeys(split_query(query)))
    return ([word for word in words if word not in STOP_WORDS] or words)[:MAX_TERMS]


def inverse_document_frequency(count: int, frequency: int) -> float:
    """Return ln(1 + (N - n + 0.5) / (n + 0.5)), Robertson and Spärck Jones's weight, positive."""
    return math.log(1 + (count - frequency + 0.5) / (frequency + 0.5))


def affordable(frequencies: Mapping[str, int], count: int) -> tuple[list[str], list[str]]:
    """Return the words to look up among `count` memories, and those that too many of them have.

    Both are rarest first, without words that no memory has. The former occur in at most 5,000 memories
    together, or in one in fifty. Of the latter, only what has two of them is worth looking up.
    """
    room = max(MAX_OCCURRENCES, count // 50)
    words = sorted(filter(frequencies.get, frequencies), key=frequencies.__getitem__)
    sums = accumulate(map(frequencies.__getitem__, words))
    chosen = [word for word, total in zip(words, sums, strict=True) if total <= room]
    return chosen, words[len(chosen) :]


def text_words(content: str, subject: str | None, day: Sequence[str]) -> tuple[str, ...]:
    """Return the distinct words of a memory: its content, its subject and the words of its day."""
    about = split_words(subject) if subject else ()
    return tuple(dict.fromkeys((*split_words(content), *about, *day)))


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


Asked = Literal["name", "facts"]
"""Whether a question is for the user's name, or for whatever is known of the user."""

USER_FACTS = "MEMORY.md: User Facts"
"""The source of entries that are about the user, whatever they say; the heading may stand in marks."""

MEANING = {"user": 1.0, "name": 1.0}
"""The words, with their weights, that stand for such a question where vectors are compared."""

_FITS: dict[Asked, tuple[float, float, float]] = {"name": (1.0, 0.3, 0.2), "facts": (1.0, 0.8, 0.5)}
"""How well fit the name, another fact about the user, and a sentence in the first person, 0 to 1."""

MAX_CHARACTERS = 200
"""A longer question says more than that it is about the user."""

_OPENING = 40
"""Characters within which a memory about the user names the user."""

# The words of the one who asks. Where "me" only says to whom to tell it, it is taken out before.
_SELF = """
    en: i me my mine myself user whoami
    de: ich mich mir mein meine meinen meinem meiner nutzer nutzerin benutzer benutzerin
    fr: je j me m moi mon ma mes utilisateur utilisatrice
    es: yo me mi mis mio mia soy usuario usuaria
    it: io mi me mio mia miei sono utente
    pt: eu me mim meu minha sou usuario
    nl: ik me mij mijn mezelf mijzelf gebruiker
    sv: jag mig mej min mitt mina anvandare anvandaren
    da: jeg mig min mit mine bruger brugeren
    no: jeg meg min mitt mine bruker brukeren
    pl: ja mnie mi mna moj moja moje moim mojego jestem nazywam imie uzytkownik uzytkowniku
    uzytkownika
    cs: ja me mi mne mnou muj moje jsem jmenuji jmenuju uzivatel uzivateli
    ro: eu ma mi mine meu mea mele sunt numesc utilizator utilizatorul utilizatorului
    hu: en engem rolam nekem vagyok magamrol nevem keresztnevem vezeteknevem felhasznalo
    felhasznalorol
    fi: mina minua minut minun minulla minusta olen nimeni itsestani kayttaja kayttajan kayttajasta
    id: saya aku namaku diriku pengguna
    ru: я меня мне мной мое мои моя моего пользователь пользователе
    uk: я мене мені мною моє мій моя користувач користувача
    el: εγω με εμενα μενα μου ειμαι χρηστης χρηστη
    tr: ben beni benim bana adim ismim kimim hakkimda kendim kendimden kullanici
    vi: toi minh
    ar: انا عني اسمي نفسي المستخدم
    he: אני עצמי עליי עלי אותי שלי לי שמי המשתמש
    hi: मैं मेरे मुझे मेरा मेरी
    ko: 나 내 저 제 나는 나를 저는 제가 내가 사용자
    zh: 我 我自己 用户 使用者
    ja: 自分 私 僕 俺 わたし ユーザー
    th: ฉัน ผม ดิฉัน ตัวฉัน ผู้ใช้
"""
_NAMES_OF_PEOPLE = {"ben", "mia", "mina"}
"""Words of `_SELF` that may as well be another's name, and do not make a question one about the user."""
_NOT_ALONE = {*_NAMES_OF_PEOPLE, *"meg min mit eu ma io mi je en ja mio aku muj".split()}
"""Words of `_SELF` that alone may be a name, an abbreviation or another language's word."""
_COMMON_ELSEWHERE = {"en", "mit", "ja", "min"}
"""Words of `_SELF` that are frequent words of other languages, by which nothing is looked up."""

_TO_ME = (
    r"\bshould you(?= call me\b)|\bdo you think(?= i am\b)|\bon(?= me$)|\bon file(?= about me\b)"
    r"|\b(?:tell|give|show|remind|let|sagt?|erzahle?|zeige?|gib|nenne?) (?:me|mir)\b"
    r"|\b(?:dis|dites|parle|parlez|raconte|rappelle) moi\b"
    r"|\b(?:скажи|расскажи|напомни) мне\b|\b(?:скажи|розкажи|нагадаи) мені\b|\bπες μου\b"
    r"|\bberatta for (?:mig|mej)\b|\b(?:fortæl|fortael|sig) mig\b|\b(?:fortell|si) meg\b"
    r"|\b(?:powiedz|opowiedz|przypomnij|rekni|povez|pripomen) mi\b|\b(?:spune|povesteste) mi\b"
    r"|\bkerro minulle\b|\b(?:mondj?|mondd|meselj) (?:el )?nekem\b|\bbana (?:anlat|soyle)\b"
    r"|\bberi ?tahu saya\b|\b(?:ceritakan|katakan) (?:ke)?pada (?:saya|aku)\b|\bcho toi (?=biet)"
    r"|\b(?:ספר|ספרי|תגיד|תגידי) לי\b"
)
_ASKING = """
    en: what who do you does know remember about am are is was s m re ll have has learned learnt
    been told tell say said can could please everything anything all something far so the of a an
    your memory memories name names full first last called call describe summarize summarise give
    show list facts fact profile information info details introduce recall background identity bio
    overview basic personal data whats whos and kind person that let remind d would like it
    surname nickname already actually currently really stored store saved recorded kept keep hold
    noted summary any these known
    de: was wer wie weisst weiss wissen kennst du denn noch uber von bin ist heisse heisst sag
    sage erzahl erzahle bitte alles etwas hast hat gelernt gemerkt erinnerst dich an name namen
    der die das den dem ein eine kannst zu so bisher eigentlich schon fakten informationen
    genannt selbst ist gespeichert notiert nachname vorname profil gerade wirklich
    werde nenne beschreibe fasse zusammen person fur zeig gib und sie
    fr: que qu qui quoi quel quelle sais sait savez tu vous connais connaissez de d sur a au
    propos est es suis ce c il y nom prenom appelle comment dis dites parle parlez rappelle
    souviens souvenez te t tout le les la l un une des informations faits raconte as avez appris
    retenu s meme quelque chose ca enregistre note memorise profil resume deja actuellement
    es: que quien quienes soy sabes sabe acerca de sobre lo todo cual es nombre llamo llama como
    dime cuentame conoces recuerdas has aprendido tu usted y el la los las informacion datos
    hablame algo mismo misma guardado guardada anotado perfil resumen apellido ya actualmente
    tienes
    it: chi sono cosa che sai sapete di su riguardo come chiamo nome qual quale e dimmi parlami
    raccontami tutto quello hai imparato ricordi il la lo ti conosci qualcosa stesso stessa salvato
    memorizzato profilo cognome gia
    pt: quem sou o que voce sabe sabes sobre de qual e nome como chamo diga fale tudo lembra
    conhece a os as tu se conte conta algo mesmo mesma guardou guardado salvou perfil sobrenome ja
    tem
    nl: wie ben wat weet je u jij over hoe heet is naam vertel alles de het van ken herinner jou
    iets mij zelf opgeslagen onthouden profiel achternaam al hebt heb
    sv: vem ar vad vet du om heter kallas namn namnet fornamn efternamn beratta for allt nagot sjalv
    kanner till kommer ihag minns har lart dig hittills vilket det de som och ni kan saga
    da: hvem er hvad ved du om hedder kaldes navn navnet fornavn efternavn fortæl fortael alt
    noget selv
    kender husker har lært laert dig det de som og kan sige til indtil videre
    no: hvem er hva vet du om heter kalles navn navnet fornavn etternavn fortell alt noe selv
    kjenner
    husker har lært laert deg det de som og kan si til så langt hittil
    pl: kim kto co o wiesz wie wiecie jak sie mam na nazwisko jakie jest czy znasz pamietasz
    opowiedz
    powiedz cos wszystko samym samej tym dowiedziales dowiedzialas prosze ty informacje fakty
    przypomnij profil zapisane zapisales zapisalas
    cs: kdo co o vis vite vi jak se jmeno prijmeni krestni jake je rekni povez neco vsechno sobe
    samem
    same si pamatujes pamatujete znas znate ty vy a
    ro: cine ce stii stiti despre cum cheama care este e numele nume prenumele spune povesteste
    tot ceva
    tu iti amintesti aduci aminte de cunosti ai aflat invatat pana acum si insumi
    hu: ki mit tudsz tud mi a az hogy hivnak mesélj meselj mondj mondd el valamit mindent amit
    emlekszel
    ismersz te on is tanultal eddig
    fi: kuka mita mika tiedat tiedatte tiedatko sina te on nimi kerro jotain kaikki kaiken muistatko
    muistat tunnetko tunnet mitaan oikein sukunimeni etunimeni
    id: siapa siapakah apa apakah yang kamu anda kau ketahui tahu mengetahui tentang mengenai
    nama lengkap
    ceritakan diri sendiri semua segala sesuatu ingat kenal mengenal sudah telah pelajari tolong
    bisa
    ru: кто что как ты вы знаешь знаете обо о про зовут имя расскажи расскажите скажи помнишь
    помните есть все какое такои такая напомни самом самой что-нибудь
    uk: хто що як ти ви знаєш знаєте про звати звуть ім'я прізвище яке є розкажи розкажіть скажи
    скажіть пам'ятаєш пам'ятаєте все щось себе самого чи відомо тобі вам
    el: ποιος ποια ποιο ειμαι τι ξερεις ξερετε γνωριζεις για πως λενε λεγομαι ονομα το τον την
    ειναι πες θυμασαι ολα οτι σχετικα εαυτο κατι
    tr: kim ne nedir biliyorsun biliyor musun hakkinda anlat soyle taniyor hatirliyor neler her
    seyi bahset bilgi ver hatirliyorsun taniyorsun soyler hakkinda bana
    vi: la ai ban biet gi ve ten cua noi cho nho co khong nhung dieu nay ke hay nho
    ar: من ماذا ما تعرف تعلم هو هي اخبرني كل شيء تذكر هل انت حدثني تعرفني تتذكرني تتذكر عن
    he: מי מה אתה את יודע יודעת על שם השם הוא קוראים איך ספר ספרי זוכר זוכרת הכל
    hi: कौन हूँ हूं क्या जानते जानती हो हैं है बारे में नाम तुम आप बताओ बताइए को याद सब कुछ पता
    जानकारी बता दो
    ko: 에 대해 대해서 에대해 누구 누구야 누구인가요 누구예요 이름 이름이 이름은 뭐 뭐야 무엇
    무엇을 뭘 알고 있어 있나요 있니 아는 것 말해줘 알려줘 알아 알아요 뭐예요 무엇인가요 뭔지
    기억해 너 너는 당신 당신은
    zh: 是谁 是誰 叫什么 叫什麼 什么 什麼 名字 你 知道 了解 记得 記得 认识 認識 关于 關於 对 對 的
    多少 哪些 吗 嗎 呢 告诉 告訴 说说 一下 有 都 事 所有 一切 请 請 是 谁 叫 些 介绍 介紹 讲讲
    講講 哪 個 个
    ja: は の を が に って について 誰 だれ 何 なに 名前 知って いる います 教えて ください
    覚えて か ですか です 知ってる こと と も 言って 話して 覚えてる なんですか どんな 人
    th: คือ ใคร ชื่อ อะไร คุณ รู้ เกี่ยวกับ จำ ได้ ไหม บ้าง บอก ของ กับ เป็น รู้จัก เล่า ให้ ฟัง
    เรื่อง หน่อย
"""
_SELF_OR_ASKING = _SELF + _ASKING
_NAME = """
    name names surname nickname called call namen vorname nachname apellido cognome
    sobrenome achternaam heisse heisst genannt nom prenom appelle nombre llamo llama nome
    chiamo chamo naam heet зовут имя ονομα λενε λεγομαι adim ismim ten اسمي שם השם שמי קוראים नाम
    imie nazywam nazwisko namn namnet heter kallas navn navnet hedder kaldes kalles jmeno jmenuji
    jmenuju
    prijmeni ім звати звуть nimi nimeni sukunimeni etunimeni nevem keresztnevem hivnak numele nume
    numesc cheama nama namaku
    이름 이름이 이름은 名字 叫什么 叫什麼 名前 ชื่อ
"""

_USER = (
    r"\b(?:user|(?:be)?nutzer(?:in)?|utilisat(?:eur|rice)|usuari[oa]|utente|gebruiker|kullanici\w*"
    r"|nguoi dung|anvandaren?s?|brugerens?|brukerens?|uzytkowni\w+|uzivatel\w*|utilizator\w*"
    r"|felhasznalo\w*|kayttaja\w*|pengguna|користувач\w*|пользовател[ьяюе]м?|χρηστη\w?)\b"
    r"|المستخدم|משתמש|उपयोगकर्ता|用户|使用者"
    r"|ユーザー|사용자|ผู้ใช้"
)
_FIRST_PERSON = (
    r"(?:i|my|ich|mein\w*|je|j|mon|ma|mes|yo|mi|mis|io|il mio|la mia|eu|meu|minha|ik|mijn|я|у меня"
    r"|меня|мо[ия]|мое|у мене|мене|моє|міи|εγω|ben(?=.*[a-z]{3}[iu]m$)|benim|toi"
    r"|jag|mitt|jeg|jestem|nazywam|moj[ae]?|jsem|jmenuj[iu]|muj|sunt|ma numesc|vagyok|minun|olen"
    r"|saya|aku)\b|انا|אני|मैं|मेर[ाीे]|我|私|僕|나는|저는|내 |ฉัน|ผม"
)
_KIND_OF = "(?:(?:full|first|last|real|given|family|preferred) )?"
_NAMED = (
    rf"\buser(?: s)? {_KIND_OF}(?:nick|sur)?name\b"
    r"|\buser (?:(?:is|was|be|also|likes|wants|prefers|asks|asked|to) )*(?:called|named|goes by)\b"
    rf"|\b(?:call|calls|calling) (?:me|the user)\b|\bmy {_KIND_OF}(?:nick|sur)?name\b|\bi am called\b"
    r"|nutzer(?:in)? (?:heisst|nennt sich)|nutzer(?:in)? (?:wird|mochte|will) \w+ genannt"
    r"|\bname (?:des|der) (?:be)?nutzer|\bich heisse\b|\bmein name\b|\bnenn\w* mich\b"
    r"|utilisat\w+ s appelle|\bnom (?:de l |de la )utilisat|\bje m appelle\b|\bmon (?:pre)?nom\b"
    r"|usuari[oa] se (?:llama|chama)|nom(?:br)?e (?:del?|do|da) (?:la )?usuari"
    r"|\bme llamo\b|\bmi nombre\b"
    r"|utente si chiama|\bnome dell utente|\bmi chiamo\b|\bmio nome\b|\bme chamo\b|\bmeu nome\b"
    r"|gebruiker heet|\bnaam van de gebruiker|\bik heet\b|\bmijn naam\b"
    r"|пользовател\w+ зовут|имя пользовател|\bменя зовут\b|\bмое имя\b"
    r"|anvandaren heter|anvandarens namn|\bjag heter\b|\bmitt namn\b"
    r"|brugeren hedder|brugerens navn|\bjeg hedder\b|\bmit navn\b"
    r"|brukeren heter|brukerens navn|\bjeg heter\b|\bnavnet mitt\b|\bmitt navn\b"
    r"|uzytkowni\w+ (?:nazywa sie|ma na imie)|imie uzytkowni\w+|\bnazywam sie\b|\bmam na imie\b"
    r"|\bmoje imie\b|uzivatel\w* se jmenuje|jmeno uzivatele|\bjmenuj[iu] se\b|\bmoje jmeno\b"
    r"|utilizator\w* se numeste|utilizator\w* il cheama|numele utilizator|\bma (?:numesc|cheama)\b"
    r"|\bnumele meu\b|felhasznalo\w* (?:neve|hivjak)|felhasznalot \w+ hivjak|\ba nevem\b|hivnak engem"
    r"|kayttajan nimi|kayttaja on nimeltaan|\bnimeni on\b|nama pengguna|pengguna bernama|\bnama saya\b"
    r"|\bnamaku\b|користувача (?:звати|звуть)|ім я користувача|\bмене (?:звати|звуть)\b|\bмоє ім я\b"
    r"|χρηστη λενε|ονομα του χρηστη|χρηστη\w (?:ονομαζεται|λεγεται)|\bμε λενε\b|ονομα μου"
    r"|kullanicinin (?:adi|ismi)|\bbenim adim|\badim\b|\bismim\b|nguoi dung ten|ten (?:cua )?nguoi dung"
    r"|\btoi ten\b|ten toi|اسم المستخدم|المستخدم (?:يدعي|اسمه)|اسمي"
    r"|שם המשתמש|שמי|קוראים לי|למשתמש קוראים"
    r"|उपयोगकर्ता का नाम|मेरा नाम|用户的?(?:名字|姓名)|用户名?叫|使用者(?:叫|的名字)|我叫|我的名字"
    r"|ユーザーの名前|ユーザーは.{1,12}と(?:いう|いい|呼)|私の名前|사용자의? 이름|[내제] 이름"
    r"|ผู้ใช้ชื่อ|ชื่อของผู้ใช้|(?:ฉัน|ผม)ชื่อ"
)
_NAMED_AT_FIRST = (
    r"(?:(?:is|was|the|full|first|his|her|their|my|preferred) )*(?:name|named|called|goes by)\b|heisst\b"
    r"|s appelle\b|se llama\b|si chiama\b|se chama\b|heet\b|heter\b"
    r"|hedder\b|nazywa sie\b|ma na imie\b|jmenuje se\b|se numeste\b|bernama\b"
)


def asks_about_user(query: str) -> Asked | None:
    """Return what a question about the user is for; None for every other question."""
    if len(query) > MAX_CHARACTERS:
        return None
    text = re.sub(_TO_ME, " ", _plain(query))
    words, run = set(text.split()), text.replace(" ", "")
    if words <= _NOT_ALONE and len(words) == 1:
        return None
    # Most questions have a word that is in no list, and need not be held against each.
    if text.isascii() and not words <= _words(_SELF_OR_ASKING):
        return None
    selves, asking = _by_language(_SELF), _by_language(_ASKING)
    if not any(_is_spoken(words, run, selves[language], asking[language]) for language in selves):
        return None
    names = _words(_NAME)
    return "name" if not words.isdisjoint(names) or _in_one(names).search(run) else "facts"


def _is_spoken(words: set[str], run: str, selves: frozenset[str], asking: frozenset[str]) -> bool:
    """Whether all is said in the words of one language, one of the asker among them."""
    if next(iter(selves)).isascii() or words <= selves | asking:
        return words <= selves | asking and not words.isdisjoint(selves - _NAMES_OF_PEOPLE)
    return bool(_in_one(selves | asking).fullmatch(run) and _in_one(selves).search(run))


def user_fit(asked: Asked, memory: Memory) -> float:
    """Return how well a memory answers a question about the user, 0 to 1."""
    named, about, own = _FITS[asked]
    text = _plain(memory.content[:500])
    is_about = _plain(memory.source or "") == _plain(USER_FACTS)
    is_about = is_about or (memory.subject is not None and _is_user(memory.subject))
    if memory.subject is not None and not is_about:
        return 0.0
    if re.search(_NAMED, text) or (is_about and re.match(_NAMED_AT_FIRST, text)):
        return named
    if is_about or re.search(_USER, text[:_OPENING]):
        return about
    return own if re.match(_FIRST_PERSON, text) else 0.0


@cache
def user_terms(*, in_subjects: bool = False) -> tuple[str, ...]:
    """Return the words by which texts, or subjects, are looked for that may be about the user."""
    about = _words(_SELF) | _words(_NAME)
    words = _words(_SELF) - _NOT_ALONE if in_subjects else about - _COMMON_ELSEWHERE
    pieces = dict.fromkeys(piece for word in sorted(words) for piece in split_query(word))
    # One character of a script without spaces would find all that begins with it.
    return tuple(piece for piece in pieces if not is_single_unspaced(piece))


@lru_cache(1_000)
def _is_user(subject: str) -> bool:
    words = set(_plain(subject).split()) - {"the", "der", "die", "l", "el", "la", "de", "o"}
    return bool(words) and words <= _words(_SELF) - _NOT_ALONE


def _plain(text: str) -> str:
    """Return a text in one case, without marks, with single spaces in the place of all signs."""
    return " ".join(re.sub(r"[^\w\s\u0900-\u0eff]", " ", fold(text).casefold()).split())


@cache
def _by_language(table: str) -> dict[str, frozenset[str]]:
    _, *rows = re.split(r"\s([a-z]{2}): ", table)
    return {
        language: frozenset(_plain(words).split())
        for language, words in zip(rows[::2], rows[1::2], strict=True)
    }


@cache
def _words(table: str) -> frozenset[str]:
    return frozenset(_plain(re.sub(r"\s[a-z]{2}: ", " ", table)).split())


@cache
def _in_one(words: frozenset[str]) -> re.Pattern[str]:
    """Return what finds a run of words that are written without spaces."""
    longest = sorted((word for word in words if not word.isascii()), key=len, reverse=True)
    return re.compile(f"(?:{'|'.join(map(re.escape, longest))})+")
