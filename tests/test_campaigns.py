"""Many processes on one store, and kill -9: a short form by default, a long one by `-m campaign`."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

import pytest

from forks import ForkedProcess, context
from kill import kill_campaign
from many_processes import start_together, write_together
from server_process import ServerProcess
from soulkeep.models import EmbedderName
from soulkeep.service.vectors import SENT_AT_ONCE
from vector_queue import embed_under_fire

long = pytest.mark.campaign


@pytest.fixture(autouse=True)
def _forked(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fork the servers of the short forms."""

    def fork(
        command: Sequence[str], env: Mapping[str, str], stderr: IO[bytes], **_: object
    ) -> ForkedProcess:
        return ForkedProcess(command[1:], env, errors_to=stderr.fileno())

    if sys.platform != "win32" and not request.node.get_closest_marker("campaign"):
        monkeypatch.setattr(ServerProcess, "start", staticmethod(fork))


@pytest.mark.parametrize(("processes", "rounds"), [(2, 1), pytest.param(6, 30, marks=long)])
def test_servers_start_at_once_on_one_new_store(processes: int, rounds: int, tmp_path: Path) -> None:
    starts = start_together(tmp_path, rounds=rounds, processes=processes, embedder="none")

    assert (starts.failures, starts.stderr_lines, starts.faults) == ([], [], [])
    assert starts.started == processes * rounds


@pytest.mark.parametrize(
    ("writes", "embedder"), [(10, "universal"), pytest.param(500, "auto", marks=long)]
)
@pytest.mark.embedder
def test_two_servers_writing_at_once_lose_nothing(
    writes: int, embedder: EmbedderName, tmp_path: Path
) -> None:
    result = write_together(tmp_path / "home", writes=writes, processes=2, embedder=embedder)

    assert (result.errors, result.faults, result.stderr_lines) == ([], [], [])
    assert result.acknowledged == result.rows == result.full_text == 2 * writes
    assert result.vectors == result.expected_vectors


@pytest.mark.parametrize(
    ("kills", "embedder"), [(2, "none"), pytest.param(50, "auto", marks=[long, pytest.mark.embedder])]
)
def test_after_kill_9_everything_acknowledged_is_there_and_the_store_is_whole(
    kills: int, embedder: EmbedderName, tmp_path: Path
) -> None:
    campaign = kill_campaign(tmp_path / "home", kills=kills, seed=7, embedder=embedder)

    assert campaign.correct, campaign
    assert campaign.acknowledged


@pytest.mark.parametrize(
    ("kills", "memories", "processes"),
    [
        (1, 150, 2),
        pytest.param(30, 10_000, 1, marks=long),
        pytest.param(30, 10_000, 2, marks=long),
    ],
)
def test_what_waits_is_embedded_in_the_end_however_often_that_is_killed(
    kills: int, memories: int, processes: int, tmp_path: Path
) -> None:
    fire = embed_under_fire(
        tmp_path / "home",
        memories=memories,
        kills=kills,
        seed=5,
        processes=processes,
        process=context().Process,
    )

    assert (fire.faults, fire.lost, fire.left) == ([], 0, 0)
    assert fire.kills == kills
    assert fire.embedded_again <= SENT_AT_ONCE * kills
