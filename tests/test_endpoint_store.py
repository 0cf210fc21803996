"""A store whose embedder is an endpoint: whatever that does, nothing is lost and no key is shown."""

import json
import logging
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest
from pydantic import SecretStr

from conftest import Run, TickingClock
from endpoint_server import KEY, WITHOUT_END, WRONG, EndpointServer, Handler, status
from soulkeep.app import open_home
from soulkeep.models import EmbedderChoice, NewMemory, Options
from soulkeep.search.ranking import FITS
from soulkeep.service.home import Home
from wire import Wire

pytest.importorskip("numpy")

Open = Callable[..., Home]


@pytest.fixture
def server() -> Iterator[EndpointServer]:
    with EndpointServer() as running:
        yield running


@pytest.fixture
def open_with(home_path: Path, clock: TickingClock, monkeypatch: pytest.MonkeyPatch) -> Iterator[Open]:
    """Open a home whose vectors an endpoint makes; its recalls wait for them, however busy all is."""
    monkeypatch.setattr("soulkeep.service.memories.PATIENCE_S", 20.0)
    opened: list[Home] = []

    def open_with(server: EndpointServer, name: str = "", **settings: object) -> Home:
        choice = EmbedderChoice("openai:a-model", server.url, SecretStr(KEY), **settings)  # type: ignore[arg-type]
        path = home_path.with_name(name) if name else home_path
        opened.append(open_home(path, clock=clock, options=Options(embedder=choice)))
        return opened[-1]

    yield open_with
    for home in opened:
        home.close()


def keep(home: Home, *contents: str) -> list[int]:
    return [r.id for r in home.memories.remember([NewMemory(content) for content in contents])]


def written(path: Path) -> bytes:
    return b"".join(file.read_bytes() for file in path.rglob("*") if file.is_file())


@pytest.mark.parametrize("name", WRONG)
def test_whatever_an_endpoint_does_wrong_nothing_is_lost_and_it_is_made_up_for(
    name: str,
    server: EndpointServer,
    open_with: Open,
    clock: TickingClock,
    home_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    server.answer = WRONG[name]
    home = open_with(server, timeout_s=0.3 if name in WITHOUT_END else 30.0)

    ids = keep(home, "The ferry leaves at nine.", "Bread is baked at dawn.")
    home.queue.step()
    recall = home.memories.recall("ferry")

    assert (recall.mode, [match.memory.id for match in recall.matches]) == ("lexical", ids[:1])
    said = " ".join([*recall.remarks, recall.advice, home.queue.waiting().reason])
    assert "by words alone" in said
    assert "127.0.0.1" in said or "vectors of a-model" in said.lower()
    assert home.queue.waiting().pending == 2
    assert home.check() == []

    server.answer = Handler.embed
    clock.now += timedelta(days=1)
    home.queue.work_off()
    home.memories.recall("When does the ferry leave?")  # perhaps too late for the first answer
    assert home.queue.waiting().pending == 0
    assert [home.memories.recall("ferry").mode for _ in range(2)][-1] == "hybrid"
    assert home.check() == []
    assert KEY[4:12] not in said + caplog.text
    assert KEY[4:12].encode() not in written(home_path)


@pytest.mark.parametrize("name", ["refuses the key", "hangs", "is no JSON", "redirects"])
def test_a_server_says_why_it_searches_by_words_alone_and_shows_no_key(
    name: str, server: EndpointServer, tmp_path: Path
) -> None:
    server.answer = WRONG[name]
    wire = Wire(
        tmp_path / "home",
        SOULKEEP_EMBEDDER="openai:a-model",
        SOULKEEP_EMBEDDER_URL=server.url,
        SOULKEEP_EMBEDDER_KEY=KEY,
        SOULKEEP_EMBEDDER_TIMEOUT="0.3" if name in WITHOUT_END else "30",
    )
    try:
        wire.initialize()
        kept = wire.call("remember", content="The ferry leaves at nine.")
        recalled = wire.call("recall", query="ferry")
        context = wire.call("get_context", query="ferry")
        _, log, code = wire.finish()
    finally:
        wire.kill()

    answers = json.dumps([kept, recalled, context])
    assert not any(answer.get("isError") for answer in (kept, recalled, context))
    assert "The ferry leaves at nine." in recalled["content"][0]["text"]
    assert "by words alone" in recalled["content"][0]["text"]
    assert code == 0
    assert KEY[4:12] not in answers + log
    assert KEY[4:12].encode() not in written(tmp_path / "home")


def test_no_command_shows_the_key(
    server: EndpointServer, run: Run, monkeypatch: pytest.MonkeyPatch, home_path: Path
) -> None:
    monkeypatch.setenv("SOULKEEP_EMBEDDER", "openai:a-model")
    monkeypatch.setenv("SOULKEEP_EMBEDDER_URL", server.url)
    monkeypatch.setenv("SOULKEEP_EMBEDDER_KEY", KEY)
    server.answer = status(401, f"Incorrect API key provided: {KEY}")

    said = [
        run(*command)
        for command in (
            ("remember", "The ferry leaves at nine."),
            ("recall", "ferry"),
            ("doctor",),
            ("doctor", "--json"),
            ("stats",),
            ("reindex",),
            ("log",),
        )
    ]

    assert KEY[4:12] not in json.dumps(said)
    assert "refuses the key" in said[1][1] + said[1][2]
    assert "openai:a-model:1536:unit" in said[2][1]
    assert said[0][0] == 0
    assert KEY[4:12].encode() not in written(home_path)


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("KEY", f"{KEY}\nX-Other: 1"),
        ("URL", f"http://user:{KEY}@127.0.0.1"),
        ("DIMENSIONS", KEY),
        ("PRICES", KEY),
        ("TIMEOUT", KEY),
    ],
)
def test_a_wrong_setting_is_refused_in_one_line_that_does_not_repeat_it(
    variable: str, value: str, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOULKEEP_EMBEDDER", "openai:a-model")
    monkeypatch.setenv("SOULKEEP_EMBEDDER_KEY", KEY)
    monkeypatch.setenv(f"SOULKEEP_EMBEDDER_{variable}", value)

    code, out, err = run("stats")

    assert (code != 0, out, err.count("\n")) == (True, "", 1)
    assert f"SOULKEEP_EMBEDDER_{variable}" in err
    assert KEY[4:12] not in err


def test_what_fits_is_told_from_what_does_not_whatever_cosines_a_model_gives(open_with: Open) -> None:
    figures = {}
    for common in (0.0, 0.4, 0.8):
        with EndpointServer(dimensions=1024, common=common) as server:
            home = open_with(server, f"home{common}")
            keep(
                home,
                "The ferry to the island leaves the harbour at nine.",
                "Bread is baked at dawn by Marta.",
                "Anna is allergic to peanuts.",
                "Invoices go into the blue folder.",
            )
            home.queue.work_off()
            asked = [
                home.memories.recall("From which harbour leaves the island's ferry?") for _ in range(2)
            ]
            about_else = home.memories.recall("Who repaired our telescope?")
            figures[common] = [match.relevance for match in asked[-1].matches]

            assert asked[-1].mode == "hybrid"
            assert asked[-1].matches[0].memory.id == 1
            assert asked[-1].matches[0].relevance > 0.5
            assert all(match.relevance < FITS for match in asked[-1].matches[1:])
            assert all(match.relevance < FITS for match in about_else.matches)

    # The question has words of one memory only: what all texts have in common changes little.
    assert figures[0.8][0] == pytest.approx(figures[0.0][0], abs=0.1)


def test_uses_are_recorded_with_their_tokens_and_cost(server: EndpointServer, open_with: Open) -> None:
    priced = open_with(server, "priced", prices={"a-model": 0.5})
    keep(priced, "The ferry leaves at nine.")
    priced.queue.work_off()

    (usage,) = priced.statistics.figures().usage

    assert usage.model == "openai:a-model:1536:unit"
    assert usage.input_tokens == 5 * 17  # and 16 short texts that measure the model
    assert usage.cost == pytest.approx(usage.input_tokens * 0.5 / 1e6)


def test_a_home_opens_and_closes_without_asking_an_endpoint_anything(
    server: EndpointServer, open_with: Open
) -> None:
    with closing(open_with(server)) as home:
        home.check()
        home.statistics.figures()

    assert server.requests == []
