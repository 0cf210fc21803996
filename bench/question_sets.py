"""Memories with questions about them, and what the service finds for these in a store of its own."""

import json
import secrets
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from soulkeep.app import open_home
from soulkeep.models import LOCAL_OWNER, EmbedderName, NewMemory, Options
from soulkeep.service.home import Home

MEANING = Path(__file__).parent / "meaning.json"
LANGUAGES = Path(__file__).resolve().parent.parent / "tests" / "languages.json"
LIMIT = 10
BATCH = 100
"""How many memories one call keeps."""

OTHER = "other"
"""The kind of the questions about another subject, which no memory answers."""

Figures = dict[str, dict[str, float]]
"""What was measured, by row and column of a table."""


@dataclass(frozen=True, slots=True)
class Question:
    """A query, its kind, and the numbers of the memories that answer it, any of which will do."""

    query: str
    kind: str
    answers: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class QuestionSet:
    """Memories by number, and questions about them."""

    memories: Mapping[int, NewMemory]
    questions: Sequence[Question]

    @property
    def answerable(self) -> list[Question]:
        """The questions that a memory answers."""
        return [question for question in self.questions if question.answers]


@dataclass(frozen=True, slots=True)
class Found:
    """One memory that was found: whether it answers the question, and how sure the service is of it."""

    is_right: bool
    relevance: float


Ask = Callable[[Question], list[Found]]
"""Returns the first ten memories that a store finds for a question, best first."""


def load_meaning() -> QuestionSet:
    """Read short memories and questions about them in other words and in other languages."""
    data = json.loads(MEANING.read_text(encoding="utf-8"))
    return QuestionSet(
        {m["id"]: NewMemory(m["content"], memory_type=m["memory_type"]) for m in data["memories"]},
        [Question(q["query"], q["kind"], frozenset(q["gold"])) for q in data["questions"]],
    )


def load_languages() -> QuestionSet:
    """Read memories of sixteen languages and kinds of text; a question shares a word with its answer."""
    memories: dict[int, NewMemory] = {}
    questions: list[Question] = []
    for language, data in json.loads(LANGUAGES.read_text(encoding="utf-8")).items():
        first = len(memories)
        memories |= {first + i: NewMemory(text) for i, text in enumerate(data["memories"])}
        questions += [
            Question(asked["query"], language, frozenset({first + asked["answer"]}))
            for asked in data["questions"]
        ]
    return QuestionSet(memories, questions)


@contextmanager
def new_home(embedder: EmbedderName, url: str) -> Iterator[Home]:
    """Make a home for the block: with its store in a file, or in the database at `url`."""
    from pydantic import SecretStr

    options = Options(store=SecretStr(url))
    owner = f"measured {secrets.token_hex(8)}" if url else LOCAL_OWNER
    with (
        tempfile.TemporaryDirectory() as folder,
        closing(open_home(folder, embedder=embedder, options=options, owner=owner)) as home,
    ):
        yield home


@contextmanager
def filled_store(
    memories: Mapping[int, NewMemory], embedder: EmbedderName, url: str = ""
) -> Iterator[Ask]:
    """Keep the memories in a new home, and ask it.

    Raises:
        SystemExit: The embedder took no part in an answer.
    """
    mode = "lexical" if embedder == "none" else "hybrid"
    numbers, ids = list(memories), dict[int, int]()
    with new_home(embedder, url) as home:
        for begin in range(0, len(numbers), BATCH):
            batch = numbers[begin : begin + BATCH]
            receipts = home.memories.remember([memories[number] for number in batch])
            ids.update((n, receipt.id) for n, receipt in zip(batch, receipts, strict=True))

        def ask(question: Question) -> list[Found]:
            recall = home.memories.recall(question.query, limit=LIMIT)
            if recall.mode != mode:
                raise SystemExit(f"embedder {embedder}: the search is {recall.mode}. {recall.advice}")
            right = {ids[number] for number in question.answers & ids.keys()}
            return [Found(match.memory.id in right, match.relevance) for match in recall.matches]

        yield ask


def found_by_kind(questions: Iterable[Question], ask: Ask) -> dict[str, list[list[Found]]]:
    """Ask all questions; return what was found for each, by kind."""
    kinds: defaultdict[str, list[list[Found]]] = defaultdict(list)
    for question in questions:
        kinds[question.kind].append(ask(question))
    return dict(kinds)


def ranking_figures(answers: Sequence[Sequence[Found]]) -> dict[str, float]:
    """Return how many questions had an answer among the first 1, 3, 5 and 10, and MRR@10."""
    places = [next((i for i, f in enumerate(found, start=1) if f.is_right), None) for found in answers]
    within = {
        f"@{depth}": sum(place is not None and place <= depth for place in places) / len(places)
        for depth in (1, 3, 5, 10)
    }
    reciprocal = sum(1 / place for place in places if place) / len(places)
    return {"questions": len(places), **within, "MRR@10": reciprocal}


def measure_languages(embedder: EmbedderName, every: int = 1, url: str = "") -> Figures:
    """Keep the memories of all languages in one store; return how well each is found, and all.

    Of the questions each is asked, or `every` second or third one.
    """
    languages = load_languages()
    with filled_store(languages.memories, embedder, url) as ask:
        kinds = found_by_kind(languages.questions[::every], ask)
    figures = {language: ranking_figures(answers) for language, answers in kinds.items()}
    return figures | {"all": ranking_figures([found for answers in kinds.values() for found in answers])}
