"""How well recall finds the memories that answer a question: the quality of the service's rankings.

Each turn of a long conversation becomes one memory and each question one recall; right are the turns
that hold the question's evidence. Neither the conversations nor the evaluator belong to the project,
so the command line says where they are:

- `--data`: LoCoMo, `data/locomo10.json` of snap-research/locomo on GitHub, or some of its
  conversations. Its licence is CC BY-NC 4.0: measure with it, and copy nothing from it. Questions on
  the first five conversations are asked.
- `--evaluator`: a Python file that reads the data and has the metrics, as `Evaluator` states.
"""

import argparse
import importlib.util
import tempfile
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from statistics import median, quantiles
from time import perf_counter
from typing import Any, Protocol, TypedDict, cast

from report import print_machine, print_table
from soulkeep.app import open_home
from soulkeep.models import EmbedderName, NewMemory, timestamp
from soulkeep.service.home import Home

BATCH = 100
"""How many turns one call keeps."""

HEADINGS = ("mode,R@5,R@10,target,NDCG@10,target,MRR@10,questions,fill s,median ms,p95 ms").split(",")
METRICS = ("R@5", "R@10", "NDCG@10", "MRR@10")
EXCLUDED = "adversarial"
"""The category whose questions the conversation does not answer; it does not count."""


@dataclass(frozen=True, slots=True)
class Mode:
    """What a client says about each turn, and the stores and the search it is measured with.

    With `threads`, each session of a conversation is one thread; `described` turns have a subject, who
    spoke, and others begin with the speaker's name. A `pooled` store holds all conversations. The
    targets are of R@10 and NDCG@10.
    """

    name: str
    target: float
    target_ndcg: float | None = None
    threads: bool = True
    described: bool = True
    pooled: bool = False
    embedder: EmbedderName = "auto"


MODES = (
    Mode("sessions", 0.80, 0.65),
    Mode("isolated-subject", 0.73, threads=False),
    Mode("isolated", 0.70, threads=False, described=False),
    Mode("pooled", 0.78, pooled=True),
    Mode("lexical", 0.72, embedder="none"),
)


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
Search = Callable[[str, int], list[str]]


class Evaluator(Protocol):
    """The part of the evaluator that is used here.

    `evaluate` builds one store for each conversation, or one for all, and returns for each question
    its `category`, its metrics by name, and how many milliseconds (`ms`) the search took.
    """

    CATEGORIES: dict[int, str]

    def load_locomo(self, path: Path) -> list[dict[str, Any]]:
        """Read the conversations."""

    def evaluate(
        self,
        build: Callable[[list[Turn]], Search],
        convs: list[dict[str, Any]],
        split: str,
        pooled: bool,
    ) -> list[Row]:
        """Ask the questions of a split of the conversations."""

    def mean(self, rows: Sequence[Row], key: str) -> float:
        """Return the mean of a metric."""


class Stores:
    """Builds a store for each list of turns; `fill_seconds` adds up how long that took."""

    def __init__(self, mode: Mode, limit: int, cleanup: ExitStack) -> None:
        self._mode = mode
        self._limit = limit
        self._cleanup = cleanup
        self.fill_seconds = 0.0

    def build(self, turns: list[Turn]) -> Search:
        """Keep the turns in a new home; return a search that answers with their ids."""
        folder = self._cleanup.enter_context(tempfile.TemporaryDirectory())
        home = self._cleanup.enter_context(closing(open_home(folder, embedder=self._mode.embedder)))
        started = perf_counter()
        turn_ids = _fill(home, turns, self._mode)
        self.fill_seconds += perf_counter() - started

        def search(query: str, depth: int) -> list[str]:
            matches = home.memories.recall(query, limit=min(depth, self._limit)).matches
            return [turn_id for match in matches for turn_id in turn_ids[match.memory.id]]

        return search


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


def load_evaluator(path: Path) -> Evaluator:
    """Import the evaluator from its file."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise SystemExit(f"{path} is no Python file")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return cast("Evaluator", module)


def measure(
    evaluator: Evaluator, conversations: list[dict[str, Any]], mode: Mode, limit: int
) -> list[object]:
    """Measure one mode; return its row of the table."""
    with ExitStack() as cleanup:
        stores = Stores(mode, limit, cleanup)
        rows = evaluator.evaluate(stores.build, conversations, "dev", mode.pooled)
    counted = [row for row in rows if evaluator.CATEGORIES[row["category"]] != EXCLUDED]
    means = {metric: f"{evaluator.mean(counted, metric):.3f}" for metric in METRICS}
    times = [row["ms"] for row in counted]
    return [
        mode.name,
        means["R@5"],
        means["R@10"],
        mode.target,
        means["NDCG@10"],
        mode.target_ndcg,
        means["MRR@10"],
        len(counted),
        stores.fill_seconds,
        median(times),
        quantiles(times, n=20)[-1],
    ]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--evaluator", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--mode", choices=[*(mode.name for mode in MODES), "all"], default="all")
    parser.add_argument("--limit", type=int, choices=range(1, 101), default=100, metavar="1..100")
    options = parser.parse_args()
    print_machine()
    evaluator = load_evaluator(options.evaluator)
    conversations = evaluator.load_locomo(options.data)
    print_table(
        "Recall of the turns that answer a question",
        HEADINGS,
        [
            measure(evaluator, conversations, mode, options.limit)
            for mode in MODES
            if options.mode in (mode.name, "all")
        ],
    )


if __name__ == "__main__":
    main()
