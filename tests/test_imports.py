"""Moving in from another memory server: what comes, what is told, once each, and as one change."""

import json
from pathlib import Path
from typing import Any

import pytest

from conftest import Run


@pytest.fixture
def graph(tmp_path: Path) -> Path:
    lines = [
        {
            "type": "entity",
            "name": "Anna",
            "entityType": "person",
            "observations": ["Is allergic to peanuts.", "Drinks tea."],
        },
        {"type": "relation", "from": "Anna", "to": "Acme", "relationType": "works_at"},
    ]
    path = tmp_path / "memory.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


def imported(run: Run, source: Path, *options: str) -> dict[str, Any]:
    code, out, err = run("import", str(source), *options, "--json")
    assert code == 0, err
    found: dict[str, Any] = json.loads(out)["import"]
    return found


def listed(run: Run) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(run("memories", "list", "--json")[1])["memories"]
    return found[::-1]


def added(report: dict[str, Any]) -> dict[str, int]:
    return {name: kind["added"] for name, kind in report["kinds"].items() if kind["added"]}


def test_a_second_run_adds_nothing_and_leaves_alone_what_was_changed_here(run: Run, graph: Path) -> None:
    assert added(imported(run, graph)) == {"memories": 3}
    run("memories", "revise", "2", "Drinks coffee.")
    run("memories", "forget", "3", "--yes")

    again = imported(run, graph)

    assert added(again) == {}
    assert again["change_id"] == 0
    assert [memory["content"] for memory in listed(run)] == ["Is allergic to peanuts.", "Drinks coffee."]


def test_an_import_is_one_change_after_whose_undoing_everything_can_come_again(
    run: Run, graph: Path
) -> None:
    change = imported(run, graph)["change_id"]

    assert run("undo", str(change), "--yes")[0] == 0
    assert listed(run) == []
    assert added(imported(run, graph)) == {"memories": 3}


def test_a_dry_run_shows_what_would_come_and_writes_nothing(run: Run, graph: Path) -> None:
    code, out, _ = run("import", str(graph), "--dry-run")

    assert code == 0
    assert "| Anna: Is allergic to peanuts." in out
    assert listed(run) == []
    assert added(imported(run, graph, "--dry-run")) == {"memories": 3}
