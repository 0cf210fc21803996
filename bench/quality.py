"""How well recall finds what answers a question, and how sure it can be: the service's own rankings.

Three sets of memories and questions, the first two of which come with this project:

- meaning: short memories asked for in other words, by keywords, by what was refused, and in other
  languages, in one store; and questions about other subjects, to which nothing fits.
- languages: sixteen languages and kinds of text in one store, asked for by some of their words.
- dialogues: LoCoMo, `data/locomo10.json` of snap-research/locomo on GitHub, or some of its
  conversations, where `--data` and `--evaluator` say where they are. Its licence is CC BY-NC 4.0:
  measure with it, and copy nothing from it. Questions on the first five conversations are asked.
  The evaluator is a Python file that reads the data and has the metrics, as `dialogues.py` states.

With `--postgres` all is measured a second time with the stores in a PostgreSQL of its own.
"""

import argparse
import json
from contextlib import ExitStack
from pathlib import Path
from typing import Any, get_args

from database import server
from dialogues import (
    MODES,
    Conversation,
    Evaluator,
    load_evaluator,
    measure_dialogues,
    queries_of,
)
from meaning import FALSE_ALARMS, RECOGNISED, UNKNOWN, measure_meaning
from question_sets import Figures, measure_languages
from report import print_machine, print_table
from soulkeep.models import EmbedderName

COLUMNS = ("questions", "@1", "@3", "@5", "@10", "MRR@10", "NDCG@10")

# What the default embedder has to reach.
FINDS = {
    "meaning, all": ("@3", 0.74),
    "meaning, paraphrase": ("@3", 0.58),
    "meaning, agent": ("@3", 0.95),
    "meaning, negation": ("@3", 0.60),
    "meaning, foreign": ("@3", 0.86),
    "meaning, crosslingual": ("@3", 0.60),
    "languages, all": ("@5", 1.0),
    "dialogues, sessions": ("@10", 0.805),
    "dialogues, isolated-subject": ("@10", 0.745),
    "dialogues, isolated": ("@10", 0.73),
    "dialogues, pooled": ("@10", 0.79),
}
FINDS_BY_WORDS = {"languages, all": ("@5", 1.0), "dialogues, sessions": ("@10", 0.72)}
IS_SURE = {UNKNOWN: ">= 0.65", RECOGNISED: ">= 0.50", FALSE_ALARMS: "<= 0.07"}

Dialogues = tuple[Evaluator, list[Conversation], list[str]]
"""What reads and judges the dialogues, they, and the modes to measure them in."""


Measured = dict[str, dict[str, Figures]]
"""What was measured, by the embedder and the engine."""

IN_POSTGRES = " in PostgreSQL"
MAY_DIFFER = 0.005
"""How far a figure of one engine may be from that of the other."""


def measure(embedder: EmbedderName, dialogues: Dialogues | None, url: str = "") -> dict[str, Figures]:
    """Measure one embedder with all sets: what it `finds` and how sure it `is`."""
    meaning, sure = measure_meaning(embedder, queries_of(dialogues[1]) if dialogues else [], url)
    finds = _named("meaning", meaning) | _named("languages", measure_languages(embedder, url=url))
    if dialogues:
        evaluator, conversations, modes = dialogues
        figures = {
            m: measure_dialogues(evaluator, conversations, MODES[m], embedder, url) for m in modes
        }
        finds |= _named("dialogues", figures)
    return {"finds": finds, "is sure": sure}


def _named(name: str, figures: Figures) -> Figures:
    return {f"{name}, {row}": columns for row, columns in figures.items()}


def print_figures(measured: Measured) -> None:
    """Print the rows of all sets, for each embedder one below the other."""
    first = next(iter(measured.values()))
    finds = [
        [
            name,
            embedder,
            *(_cell(figures["finds"][name].get(c)) for c in COLUMNS),
            _target(name, embedder),
        ]
        for name in first["finds"]
        for embedder, figures in measured.items()
    ]
    print_table(
        "Questions whose answer is among the first, or the share of their evidence (dialogues)",
        ["set", "embedder", *COLUMNS, "target"],
        finds,
    )
    sure = [
        [name, embedder, *map(_cell, figures["is sure"][name].values()), IS_SURE.get(name)]
        for name in dict.fromkeys(n for figures in measured.values() for n in figures["is sure"])
        for embedder, figures in measured.items()
        if name in figures["is sure"]
    ]
    print_table("What relevance tells, meaning set", ["what", "embedder", "of", "share", "target"], sure)


def print_differences(measured: Measured) -> None:
    """Print where the engines are furthest apart."""
    rows = []
    for name in (name for name in measured if name + IN_POSTGRES in measured):
        for kind, of_file in measured[name].items():
            of_database = measured[name + IN_POSTGRES][kind]
            apart, row, column = max(
                (abs(value - of_database[row][column]), row, column)
                for row, columns in of_file.items()
                for column, value in columns.items()
                if column not in ("questions", "of")
            )
            rows.append([name, kind, f"{apart:.4f}", f"{row}, {column}", f"<= {MAY_DIFFER}"])
    print_table("Engines apart by at most", ["embedder", "what", "apart", "where", "target"], rows)


def _cell(value: float | None) -> str | None:
    return f"{value:.3f}" if isinstance(value, float) else value and str(value)


def _target(name: str, embedder: str) -> str | None:
    targets = FINDS_BY_WORDS if embedder.startswith("none") else FINDS
    return "{} {:.3f}".format(*targets[name]) if name in targets else None


def _options() -> Any:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument(
        "--embedder", nargs="+", choices=get_args(EmbedderName), default=["auto", "none"]
    )
    parser.add_argument("--evaluator", type=Path)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--mode", nargs="+", choices=list(MODES), default=list(MODES))
    parser.add_argument("--postgres", action="store_true", help="measure PostgreSQL beside the file")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there, too")
    options = parser.parse_args()
    if (options.evaluator is None) != (options.data is None):
        parser.error("--evaluator and --data go together")
    return options


def main() -> None:
    """Measure and print; a low number fails nothing."""
    options = _options()
    print_machine()
    dialogues = None
    if options.data:
        evaluator = load_evaluator(options.evaluator)
        dialogues = evaluator, evaluator.load_locomo(options.data), options.mode
    measured: Measured = {}
    with ExitStack() as stack:
        url = stack.enter_context(server()) if options.postgres else ""
        for embedder in options.embedder:
            measured[embedder] = measure(embedder, dialogues)
            if url:
                measured[embedder + IN_POSTGRES] = measure(embedder, dialogues, url)
    print_figures(measured)
    if options.postgres:
        print_differences(measured)
    if options.json:
        options.json.write_text(
            json.dumps(measured, indent=1, ensure_ascii=False) + "\n", encoding="utf-8"
        )


if __name__ == "__main__":
    main()
