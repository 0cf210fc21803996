"""Fixtures: a home in a temporary folder, clients in both protocol eras, and a server process."""

import gc
import io
import json
import os
import runpy
import shutil
import subprocess
import sys
import tempfile
import zlib
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, closing
from datetime import UTC, datetime, timedelta
from importlib.util import find_spec
from multiprocessing.util import Finalize
from pathlib import Path
from typing import Any, Literal

import pytest
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]
from mcp import Client
from mcp.client import ClientRequestContext
from mcp.types import ElicitRequestParams, ElicitResult

import database_server
import once  # noqa: F401 - it changes the SDK
from database_server import choose_folder, end_server, place_in_postgres
from forks import end_forking
from shells import forking_folder
from soulkeep.app import build_server, open_home
from soulkeep.cli import main
from soulkeep.service.home import Home
from wire import COMMAND, OFFLINE, STARTUP, USER_CACHE, piped

Run = Callable[..., tuple[int, str, str]]
"""Runs the command line in this process; returns its exit code, stdout and stderr."""


# For this process and for those that inherit its environment.
runpy.run_path(str(STARTUP / "sitecustomize.py"))
os.environ.update(OFFLINE)
if os.environ.pop("PYTHONDONTWRITEBYTECODE", None):
    # Compiled once elsewhere, rather than by each of more than a hundred processes.
    os.environ["PYTHONPYCACHEPREFIX"] = str(USER_CACHE / "bytecode")
    sys.dont_write_bytecode, sys.pycache_prefix = False, os.environ["PYTHONPYCACHEPREFIX"]
# The suite runs a process on each core; numpy reads this as it is imported.
os.environ["OPENBLAS_NUM_THREADS"] = "1"


ERAS = ("auto", "legacy")
"""How a client connects: in the modern era of the protocol, and with its handshake."""

MEMORY = Path("/dev/shm")  # noqa: S108 - a folder of our own in it
ROOM = 2 * 1024**3


def pytest_xdist_auto_num_workers() -> int:
    """Start two processes more than there are cores: many tests wait for a server."""
    return (os.cpu_count() or 1) + 2


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Put the files of tests into memory where there is room; choose the number of examples.

    Each test waits for the disk many times.
    """
    is_asked = config.option.basetemp is not None or hasattr(config, "workerinput")
    if not is_asked and MEMORY.is_dir() and shutil.disk_usage(MEMORY).free > ROOM:
        folder = Path(tempfile.mkdtemp(prefix="soulkeep-tests-", dir=MEMORY))
        # After multiprocessing has taken away its own in it.
        Finalize(None, shutil.rmtree, (folder, True), exitpriority=-1_000)
        config.option.basetemp, os.environ["TMPDIR"] = str(folder / "of-tests"), str(folder)
        tempfile.tempdir = None
    choose_folder()
    if hasattr(config, "workerinput") or not config.option.numprocesses:  # it runs tests itself
        choose_examples("long" if config.option.markexpr == "campaign" else "short")


def choose_examples(profile: Literal["short", "long"]) -> None:
    """Try what holds of any values with few by default, and with many by `-m campaign`."""
    # Imported where its bytecode is kept: pytest rewrites all of it.
    from hypothesis import HealthCheck, settings

    few = settings(
        max_examples=15,
        stateful_step_count=20,
        deadline=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture],
    )
    settings.register_profile("short", few)
    settings.register_profile("long", few, max_examples=2_000, stateful_step_count=40)
    settings.load_profile(profile)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Let those tests have a database that are marked so."""
    database_server.is_wanted = item.get_closest_marker("postgres") is not None


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Wait for the process that forks, so that nothing outlasts the tests."""
    end_forking()
    if not hasattr(session.config, "workerinput"):
        end_server()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option that writes the answers of the tools in `golden/` anew."""
    parser.addoption("--write-golden", action="store_true", help="write tests/golden/ anew")


def _check_each_schema_once() -> None:
    """Keep clients from checking again that the schema of an answer is one."""
    check = Draft202012Validator.check_schema
    checked: set[str] = set()

    def check_once(schema: Any) -> None:
        if (text := json.dumps(schema)) not in checked:
            check(schema)
            checked.add(text)

    Draft202012Validator.check_schema = check_once


_check_each_schema_once()


def _is_left_to_the_other_era(item: pytest.Item) -> bool:
    """Whether a test takes the other era by default: of what tools answer, and where it is marked so.

    A campaign takes both.
    """
    parameters = getattr(getattr(item, "callspec", None), "params", {})
    era = parameters.get("client") or (item.get_closest_marker("one_era") and parameters.get("mode"))
    if era not in ERAS or any(marker.args[0] == "client" for marker in item.iter_markers("parametrize")):
        return False
    return zlib.crc32(item.nodeid.replace(era, "", 1).encode()) % 2 == ERAS.index(era)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Try many examples in a campaign; leave out what needs an embedder whose packages have no wheel.

    Modules come in an order without meaning: by name, those that wait for servers stand together, and
    nothing fills their pauses.
    """
    from hypothesis import is_hypothesis_test, settings

    items.sort(key=lambda item: zlib.crc32(item.path.name.encode()))
    for item in items:
        if _is_left_to_the_other_era(item):
            item.add_marker(pytest.mark.campaign)
        is_long = settings.get_current_profile_name() == "long"
        if is_long and isinstance(item, pytest.Function) and is_hypothesis_test(item.obj):
            item.add_marker(pytest.mark.campaign)
    if find_spec("sentencepiece") is None:
        for item in items:
            if item.get_closest_marker("embedder"):
                item.add_marker(pytest.mark.skip(reason="the embedder has no wheel for this Python"))


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """Keep the search for cycles from looking through all tests each time: none of them goes."""
    gc.disable()
    collected = yield
    gc.freeze()
    gc.enable()
    return collected


class TickingClock:
    """A clock that moves one second at each look, from noon on 1 March 2026."""

    def __init__(self) -> None:
        self.now = datetime(2026, 3, 1, 12, tzinfo=UTC)

    def __call__(self) -> datetime:
        self.now += timedelta(seconds=1)
        return self.now


@pytest.fixture(autouse=True)
def _own_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    monkeypatch.setenv("SOULKEEP_HOME", str(tmp_path / "home"))
    # No configuration of the user's programs is looked at, nor changed.
    for name, folder in (("HOME", ""), ("USERPROFILE", ""), ("APPDATA", "/AppData/Roaming")):
        monkeypatch.setenv(name, f"{tmp_path / 'user'}{folder}")
    for name in ("XDG_CONFIG_HOME", "XDG_DATA_HOME", "LOCALAPPDATA", "CODEX_HOME", "CLAUDE_CONFIG_DIR"):
        monkeypatch.delenv(name, raising=False)
    # What is marked `embedder` has the lighter half of the default one, or the one that it names; all
    # else is quicker without.
    marker = request.node.get_closest_marker("embedder")
    name = "none" if marker is None else next(iter(marker.args), "universal")
    monkeypatch.setenv("SOULKEEP_EMBEDDER", name)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def clock() -> TickingClock:
    return TickingClock()


@pytest.fixture(scope="session")
def new_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home as it is made, closed again."""
    path = tmp_path_factory.mktemp("new") / "home"
    open_home(path, embedder="none", clock=TickingClock()).close()
    return path


@pytest.fixture
def make_home(new_home: Path, tmp_path: Path, clock: TickingClock) -> Iterator[Callable[..., Home]]:
    """Open a home that holds nothing yet: a copy, as to make one takes far longer."""
    opened: list[Home] = []

    def make(name: str = "home", embedder: str | None = None) -> Home:
        embedder = embedder or os.environ["SOULKEEP_EMBEDDER"]
        if not (tmp_path / name).exists():
            shutil.copytree(new_home, tmp_path / name)
        opened.append(open_home(tmp_path / name, embedder=embedder, clock=clock))
        return opened[-1]

    yield make
    for home in opened:
        home.close()


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    def run(*arguments: str, typed: str = "") -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["soulkeep", *arguments])
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(typed.encode()), "utf-8"))
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capsys.readouterr()
        return int(ended.value.code or 0), out, err

    return run


@pytest.fixture
def forked(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Fork a server that is started, rather than let it import all anew."""
    start = subprocess.run
    with forking_folder() as folder:

        def start_forked(words: list[str], **options: Any) -> Any:
            assert words[0] == str(COMMAND)
            return start([str(folder / "soulkeep"), *words[1:]], **options)

        if sys.platform != "win32":
            monkeypatch.setattr(subprocess, "run", start_forked)
        yield


@pytest.fixture
def home_path(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture
def home(make_home: Callable[..., Home]) -> Home:
    return make_home()


@pytest.fixture(params=["folder", pytest.param("postgres", marks=pytest.mark.postgres)])
def home_anywhere(
    request: pytest.FixtureRequest,
    make_home: Callable[..., Home],
    tmp_path: Path,
    clock: TickingClock,
) -> Iterator[Home]:
    """A home whose store and documents are files, or rows of a database."""
    if request.param == "folder":
        yield make_home(embedder="none")
        return
    where = place_in_postgres(tmp_path / "home")
    with closing(open_home(tmp_path / "home", embedder="none", clock=clock, **where)) as home:
        yield home


@pytest.fixture(params=ERAS)
async def client(home: Home, request: pytest.FixtureRequest) -> AsyncIterator[Client]:
    """A client in memory, in the modern and in the handshake era."""
    async with Client(build_server(home), mode=request.param, cache=None) as connected:
        yield connected


@pytest.fixture(params=ERAS)
async def process_client(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Client]:
    """A client of a server process, in both eras."""
    pipes = piped(tmp_path / "home")
    async with Client(pipes, mode=request.param, read_timeout_seconds=30) as connected:
        yield connected


@pytest.fixture(params=ERAS)
def mode(request: pytest.FixtureRequest) -> str:
    """How a client connects: in the modern and in the handshake era."""
    return str(request.param)


Action = Literal["accept", "decline", "cancel"]


@asynccontextmanager
async def asking(
    home: Home, mode: str, action: Action, **content: bool
) -> AsyncIterator[tuple[Client, list[str]]]:
    """Give a client whose user answers so, and what the user was asked."""
    asked: list[str] = []

    async def user(context: ClientRequestContext, params: ElicitRequestParams) -> ElicitResult:
        asked.append(params.message)
        return ElicitResult(action=action, content=dict(content) if content else None)

    async with Client(build_server(home), mode=mode, cache=None, elicitation_callback=user) as client:
        yield client, asked
