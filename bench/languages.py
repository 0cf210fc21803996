"""How well recall finds memories in sixteen kinds of text, all of them in one store."""

import argparse
import json
import tempfile
from contextlib import closing
from pathlib import Path
from typing import TypedDict

from report import print_machine, print_table
from soulkeep.app import open_home
from soulkeep.models import EmbedderName, NewMemory
from soulkeep.service.home import Home

DATA = Path(__file__).resolve().parent.parent / "tests" / "languages.json"
BATCH = 100
LIMIT = 5


class Question(TypedDict):
    """A query, and the place of the memory that answers it in the list of its language."""

    query: str
    answer: int


class Language(TypedDict):
    """The memories of one language and questions about them."""

    memories: list[str]
    questions: list[Question]


def load_languages() -> dict[str, Language]:
    """Read the evaluation set."""
    languages: dict[str, Language] = json.loads(DATA.read_text(encoding="utf-8"))
    return languages


def languages_report(embedder: EmbedderName) -> dict[str, tuple[int, float, float]]:
    """Keep all memories in one store; return questions, recall@5 and recall@1 of each language."""
    languages = load_languages()
    texts = [text for language in languages.values() for text in language["memories"]]
    with (
        tempfile.TemporaryDirectory() as folder,
        closing(open_home(Path(folder) / "home", embedder=embedder)) as home,
    ):
        kept = _keep(home, texts)
        return {name: _measure(home, language, kept) for name, language in languages.items()}


def _keep(home: Home, texts: list[str]) -> dict[str, int]:
    ids: dict[str, int] = {}
    for begin in range(0, len(texts), BATCH):
        batch = texts[begin : begin + BATCH]
        receipts = home.memories.remember([NewMemory(text) for text in batch])
        ids.update((text, receipt.id) for text, receipt in zip(batch, receipts, strict=True))
    return ids


def _measure(home: Home, language: Language, kept: dict[str, int]) -> tuple[int, float, float]:
    within, first = 0, 0
    for question in language["questions"]:
        answer = kept[language["memories"][question["answer"]]]
        found = [m.memory.id for m in home.memories.recall(question["query"], limit=LIMIT).matches]
        within += answer in found
        first += found[:1] == [answer]
    count = len(language["questions"])
    return count, within / count, first / count


def main() -> None:
    """Measure and print; a low number fails nothing."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--embedder", choices=("auto", "none"), default="auto")
    options = parser.parse_args()
    print_machine()
    rows = [[name, *numbers] for name, numbers in languages_report(options.embedder).items()]
    title = f"The answer among the first {LIMIT} and as the first, embedder {options.embedder}"
    print_table(title, ["language", "questions", f"recall@{LIMIT}", "recall@1"], rows)


if __name__ == "__main__":
    main()
