"""How well recall finds the turns of long dialogues that hold the evidence for a question.

Each turn of a conversation becomes one memory and each question one recall. Neither the conversations
nor the evaluator, which reads them and has the metrics, belong to the project.
"""

import importlib.util
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol, TypedDict, cast

from question_sets import BATCH, new_home
from soulkeep.models import EmbedderName, NewMemory, timestamp
from soulkeep.service.home import Home

SPLIT = "dev"
ASKED = 5
"""How many conversations, the first ones, the split is of."""

METRICS = {"@1": "R@1", "@5": "R@5", "@10": "R@10", "MRR@10": "MRR@10", "NDCG@10": "NDCG@10"}
EXCLUDED = "adversarial"
"""The category whose questions the conversation does not answer; it does not count."""


@dataclass(frozen=True, slots=True)
class Mode:
    """What a client says about each turn, and the stores it is measured with.

    With `threads`, each session of a conversation is one thread; `described` turns have a subject, who
    spoke, and others begin with the speaker's name. A `pooled` store holds all conversations.
    """

    threads: bool = True
    described: bool = True
    pooled: bool = False


MODES = {
    "sessions": Mode(),
    "isolated-subject": Mode(threads=False),
    "isolated": Mode(threads=False, described=False),
    "pooled": Mode(pooled=True),
}


class Turn(TypedDict):
    """What was said once; `created_at` is the date of its session, without a zone."""

    id: str
    text: str
    caption: str | None
    speaker: str
    session: int
    created_at: datetime
    conversation: str


Row = dict[str, Any]
Conversation = dict[str, Any]
Search = Callable[[str, int], list[str]]


class Evaluator(Protocol):
    """The part of the evaluator that is used here.

    `evaluate` builds one store for each conversation, or one for all, and returns for each question
    its `category` and its metrics by name.
    """

    CATEGORIES: dict[int, str]

    def load_locomo(self, path: Path) -> list[Conversation]:
        """Read the conversations."""

    def evaluate(
        self,
        build: Callable[[list[Turn]], Search],
        convs: list[Conversation],
        split: str,
        pooled: bool,
    ) -> list[Row]:
        """Ask the questions of a split of the conversations."""

    def mean(self, rows: Sequence[Row], key: str) -> float:
        """Return the mean of a metric."""


def load_evaluator(path: Path) -> Evaluator:
    """Import the evaluator from its file."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise SystemExit(f"{path} is no Python file")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return cast("Evaluator", module)


def queries_of(conversations: Sequence[Conversation]) -> list[str]:
    """Return the questions that are asked about the conversations."""
    return [asked["question"] for c in conversations[:ASKED] for asked in c["questions"]]


def measure_dialogues(
    evaluator: Evaluator,
    conversations: list[Conversation],
    mode: Mode,
    embedder: EmbedderName,
    url: str = "",
) -> dict[str, float]:
    """Fill stores as the mode says and ask all questions; return the figures of a row."""
    with ExitStack() as cleanup:

        def build(turns: list[Turn]) -> Search:
            home = cleanup.enter_context(new_home(embedder, url))
            turn_ids = _fill(home, turns, mode)

            def search(query: str, depth: int) -> list[str]:
                matches = home.memories.recall(query, limit=depth).matches
                return [turn_id for match in matches for turn_id in turn_ids[match.memory.id]]

            return search

        rows = evaluator.evaluate(build, conversations, SPLIT, mode.pooled)
    counted = [row for row in rows if evaluator.CATEGORIES[row["category"]] != EXCLUDED]
    means = {column: evaluator.mean(counted, metric) for column, metric in METRICS.items()}
    return {"questions": len(counted), **means}


def _fill(home: Home, turns: Sequence[Turn], mode: Mode) -> dict[int, list[str]]:
    """Keep all turns in order; return their ids by memory, for equal turns share a memory."""
    threads: dict[tuple[str, int], str] = {}
    turn_ids: dict[int, list[str]] = defaultdict(list)
    for start in range(0, len(turns), BATCH):
        batch = turns[start : start + BATCH]
        if mode.threads:
            for session in dict.fromkeys(_session(turn) for turn in batch):
                if session not in threads:
                    threads[session] = home.threads.create_thread(f"{session[0]}, {session[1]}").id
        memories = [_memory(turn, threads.get(_session(turn)), mode.described) for turn in batch]
        for turn, receipt in zip(batch, home.memories.remember(memories), strict=True):
            turn_ids[receipt.id].append(turn["id"])
    return turn_ids


def _session(turn: Turn) -> tuple[str, int]:
    return turn["conversation"], turn["session"]


def _memory(turn: Turn, thread_id: str | None, described: bool) -> NewMemory:
    caption = f" [image: {turn['caption']}]" if turn["caption"] else ""
    occurred_at = timestamp(turn["created_at"].replace(tzinfo=UTC))
    if not described:
        return NewMemory(f"{turn['speaker']}: {turn['text']}{caption}", occurred_at=occurred_at)
    memory = NewMemory(turn["text"] + caption, thread_id=thread_id, subject=turn["speaker"])
    return replace(memory, occurred_at=occurred_at)
