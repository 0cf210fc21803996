"""A store's file that is written over in place under running servers: nothing acknowledged is lost."""

import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import apsw
import pytest

from engine import another_program, file_of
from soulkeep.app import open_backups, open_home
from soulkeep.engines import STORE_NAME
from soulkeep.errors import StoreError, StoreOverwrittenError, StoreReplacedError
from soulkeep.models import NewMemory
from soulkeep.repository.sqlite.files import MainFile, set_log_aside
from soulkeep.service.home import Home
from wire import Wire

_WRITE = """
import os, sys
path, offset = sys.argv[1], sys.argv[2]
content = sys.stdin.buffer.read()
with open(path, "r+b" if offset else "wb") as file:
    file.seek(int(offset or 0))
    file.write(content)
"""


@pytest.fixture
def no_checkpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait hardly for a checkpoint of another process: there is none."""
    monkeypatch.setattr("soulkeep.repository.sqlite.files._CHECKPOINT_LOOKS", 3)


@pytest.fixture
def homes(make_home: Callable[..., Home]) -> tuple[Home, Home]:
    return make_home(embedder="none"), make_home(embedder="none")


@pytest.fixture
def store(homes: tuple[Home, Home]) -> Path:
    return file_of(homes[0])


def keep(home: Home, content: str) -> None:
    home.memories.remember([NewMemory(content)])


def contents(home: Home) -> set[str]:
    return {memory.content for memory in home.lifecycle.list_memories(limit=100)}


def overwrite(store: Path, content: bytes, offset: int | None = None) -> None:
    """Write into the file as another program does: all of it, or at an offset."""
    place = "" if offset is None else str(offset)
    command = [sys.executable, "-I", "-S", "-c", _WRITE, str(store), place]
    subprocess.run(command, input=content, check=True, timeout=60)


def read(path: Path) -> bytes:
    """Read a file in another process: to close it in this one would drop SQLite's locks on it."""
    command = [
        sys.executable,
        "-I",
        "-S",
        "-c",
        "import sys; sys.stdout.buffer.write(open(sys.argv[1],'rb').read())",
    ]
    return subprocess.run([*command, str(path)], capture_output=True, check=True, timeout=60).stdout


def checkpoint(store: Path, mode: int) -> None:
    with closing(another_program(store)) as connection:
        connection.execute("SELECT 1 FROM memories")  # opens the log
        assert connection.wal_checkpoint(mode=mode)[0] >= 0


def with_log(store: Path) -> None:
    """Leave what was written in the log."""


def after_checkpoint(store: Path) -> None:
    checkpoint(store, apsw.SQLITE_CHECKPOINT_PASSIVE)


def after_emptying_the_log(store: Path) -> None:
    checkpoint(store, apsw.SQLITE_CHECKPOINT_TRUNCATE)


STATES = pytest.mark.parametrize("state", [with_log, after_checkpoint, after_emptying_the_log])


def truncated(content: bytes) -> bytes:
    return b""


def with_another_beginning(content: bytes) -> bytes:
    return b"\xa5" * 512 + content[512:]


def noise(content: bytes) -> bytes:
    return bytes(range(1, 256)) * (len(content) // 255 + 1)


DAMAGE = [truncated, with_another_beginning, noise]


def kept_bytes(home: Path) -> bytes:
    """All that is left of former stores beside the present one."""
    kept = [*home.glob(f"{STORE_NAME}-wal"), *home.glob("backups/*/*-wal")]
    return b"".join(read(path) for path in kept)


@pytest.mark.usefixtures("no_checkpoint")
@STATES
@pytest.mark.parametrize("damage", DAMAGE)
def test_what_was_written_over_is_refused_and_goes_on_when_the_former_file_is_back(
    homes: tuple[Home, Home],
    store: Path,
    state: Callable[[Path], None],
    damage: Callable[[bytes], bytes],
) -> None:
    one, other = homes
    keep(one, "Before the checkpoint.")
    state(store)
    keep(other, "After the checkpoint.")
    former, log = read(store), read(store.with_name(f"{STORE_NAME}-wal"))
    overwrite(store, damage(former))

    for home in homes:
        for _ in range(2):
            with pytest.raises(StoreOverwrittenError, match="written over the store"):
                keep(home, "Into nowhere.")
            with pytest.raises(StoreOverwrittenError):
                home.lifecycle.list_memories()
    assert read(store) == damage(former)
    assert read(store.with_name(f"{STORE_NAME}-wal")) == log

    overwrite(store, former)
    keep(one, "Good again.")
    keep(other, "For both.")
    expected = {"Before the checkpoint.", "After the checkpoint.", "Good again.", "For both."}
    assert [contents(home) for home in homes] == [expected, expected]
    assert one.check() == []


@pytest.mark.usefixtures("no_checkpoint")
@STATES
def test_what_is_damaged_in_the_middle_is_refused_or_kept(
    homes: tuple[Home, Home], store: Path, state: Callable[[Path], None]
) -> None:
    one, other = homes
    for number in range(12):
        keep(one, f"Number {number}: " + f"word{number} " * 400)
    state(store)
    keep(other, "The last one.")
    contents(one)
    former = read(store)
    middle = len(former) // 2
    overwrite(store, b"\xa5" * (len(former) - middle), middle)

    for home in homes:
        try:
            keep(home, "Acknowledged.")
        except StoreOverwrittenError:
            continue
        else:
            assert "Acknowledged." in contents(home)
            assert home.check() == []

    overwrite(store, former)
    assert {"The last one."} < contents(one)
    assert len(contents(other)) >= 13
    assert one.check() == []


def test_a_file_that_loses_its_end_is_refused(homes: tuple[Home, Home], store: Path) -> None:
    one, other = homes
    keep(one, "Before.")
    after_emptying_the_log(store)
    assert contents(one) == contents(other)
    os.truncate(store, 32768)

    for home in homes:
        with pytest.raises(StoreOverwrittenError, match="damaged now"):
            keep(home, "Into nowhere.")


def foreign_store(path: Path, *, sealed: bool) -> bytes:
    """The bytes of another store, as a backup of it or its live file has them."""
    with closing(open_home(path, embedder="none")) as other:
        keep(other, "Yours.")
        if sealed:
            backup = other.backups.make("copy")
            return read(other.backups.folder / backup.id / STORE_NAME)
        after_emptying_the_log(file_of(other))
        return read(file_of(other))


@pytest.mark.usefixtures("no_checkpoint")
@STATES
@pytest.mark.parametrize("sealed", [True, False])
def test_another_store_is_refused_and_neither_takes_in_what_is_the_others(
    homes: tuple[Home, Home],
    store: Path,
    make_home: Callable[..., Home],
    tmp_path: Path,
    state: Callable[[Path], None],
    *,
    sealed: bool,
) -> None:
    one, other = homes
    keep(one, "Before the checkpoint.")
    state(store)
    keep(one, "After the checkpoint.")
    assert contents(one) == contents(other)
    foreign, former = foreign_store(tmp_path / "other", sealed=sealed), read(store)
    overwrite(store, foreign)

    for home in homes:
        with pytest.raises(StoreReplacedError, match="another store"):
            keep(home, "Into whose?")
        with pytest.raises(StoreReplacedError):
            home.lifecycle.list_memories()
    assert read(store) == foreign

    overwrite(store, former)
    assert contents(one) == contents(other) == {"Before the checkpoint.", "After the checkpoint."}
    keep(other, "Good again.")

    overwrite(store, foreign)
    for home in homes:
        home.close()
    assert read(store) == foreign
    restarted = make_home(embedder="none")
    assert contents(restarted) == {"Yours."}
    assert restarted.check() == []
    assert b"Good again." in kept_bytes(restarted.path)
    assert "Good again." not in contents(restarted)


@pytest.mark.usefixtures("no_checkpoint")
@STATES
@pytest.mark.parametrize("live", [False, True])
def test_an_older_copy_of_the_store_is_opened_and_what_it_lacks_is_kept_aside(
    make_home: Callable[..., Home], state: Callable[[Path], None], *, live: bool
) -> None:
    home = make_home(embedder="none")
    store = file_of(home)
    keep(home, "In the copy.")
    backup = home.backups.make("copy")
    after_emptying_the_log(store)
    older = read(store if live else home.backups.folder / backup.id / STORE_NAME)
    for number in range(12):
        keep(home, f"Later {number}: " + f"word{number} " * 400)
    after_checkpoint(store)
    keep(home, "Later.")
    state(store)
    keep(home, "Latest.")
    overwrite(store, older)

    assert contents(home) == {"In the copy."}
    keep(home, "New.")
    assert contents(home) == {"In the copy.", "New."}
    assert home.check() == []
    assert b"Latest." in kept_bytes(home.path)
    home.close()
    with closing(open_home(home.path, embedder="none")) as restarted:
        assert contents(restarted) == {"In the copy.", "New."}


@pytest.mark.parametrize("state", [with_log, after_checkpoint])
def test_who_sets_a_log_aside_second_finds_that_it_is_done(
    homes: tuple[Home, Home], store: Path, state: Callable[[Path], None]
) -> None:
    keep(homes[0], "In the log.")
    state(store)

    set_log_aside(store)
    set_log_aside(store)

    assert b"In the log." in kept_bytes(homes[0].path)
    for home in homes:
        home.close()


def until_free(server: Wire, content: str) -> dict[str, Any]:
    """Keep a memory, again where it was refused: other servers may be taking the copy in just then."""
    for _ in range(10):
        answer = server.call("remember", content=content)
        if not answer.get("isError"):
            break
    return answer


@pytest.mark.parametrize("live", [False, True])
def test_an_older_copy_is_opened_by_all_servers(tmp_path: Path, *, live: bool) -> None:
    servers = [Wire(tmp_path / "home", SOULKEEP_EMBEDDER="none") for _ in range(2)]
    store = tmp_path / "home" / STORE_NAME
    try:
        for number, server in enumerate(servers):
            server.initialize()
            assert not server.call("remember", content=f"In the backup {number}.").get("isError")
        backup = open_backups(tmp_path / "home").make("copy")
        after_emptying_the_log(store)
        older = store if live else tmp_path / "home" / "backups" / backup.id / STORE_NAME
        copy = older.read_bytes()
        for number in range(10):
            servers[0].call("remember", content=f"Later {number}: " + f"word{number} " * 400)
        after_checkpoint(store)
        servers[1].call("remember", content="Later.")
        store.write_bytes(copy)
        after = [until_free(server, f"After {number}.") for number, server in enumerate(servers)]
        codes = [server.finish()[2] for server in servers]
    finally:
        for server in servers:
            server.kill()

    assert [answer for answer in after if answer.get("isError")] == []
    assert codes == [0, 0]
    with closing(open_home(tmp_path / "home", embedder="none")) as home:
        expected = {"In the backup 0.", "In the backup 1.", "After 0.", "After 1."}
        assert contents(home) == expected
        assert home.check() == []
        assert b"Later." in kept_bytes(home.path)


@pytest.mark.parametrize("damage", [truncated, with_another_beginning])
@pytest.mark.parametrize("state", [with_log, after_emptying_the_log])
def test_a_restore_brings_back_what_was_written_over_under_those_who_have_it_open(
    homes: tuple[Home, Home],
    store: Path,
    state: Callable[[Path], None],
    damage: Callable[[bytes], bytes],
) -> None:
    one, other = homes
    keep(one, "In the backup.")
    backup = one.backups.make("copy")
    state(store)
    keep(one, "Later.")
    damaged = damage(read(store))
    overwrite(store, damaged)
    with pytest.raises(StoreOverwrittenError, match=f"soulkeep restore {backup.id}"):
        keep(one, "Into nowhere.")

    restored = open_backups(one.path).restore(backup.id)

    assert restored.kept is not None
    assert (restored.kept / STORE_NAME).read_bytes() == damaged
    assert b"Later." in (restored.kept / f"{STORE_NAME}-wal").read_bytes()
    keep(other, "Good again.")
    assert contents(one) == contents(other) == {"In the backup.", "Good again."}
    assert one.check() == []


@pytest.mark.parametrize("damage", [truncated, noise])
def test_who_starts_on_what_was_written_over_changes_nothing(
    homes: tuple[Home, Home], store: Path, damage: Callable[[bytes], bytes]
) -> None:
    keep(homes[0], "Acknowledged.")
    former = read(store)
    overwrite(store, damage(former))
    for home in homes:
        home.close()

    log = store.with_name(f"{STORE_NAME}-wal").read_bytes()
    for read_only in (False, True):
        with pytest.raises(StoreError, match=r"left as it is|nothing was changed"):
            open_home(homes[0].path, embedder="none", read_only=read_only)
    assert store.read_bytes() == damage(former)
    assert store.with_name(f"{STORE_NAME}-wal").read_bytes() == log

    store.write_bytes(former)
    with closing(open_home(homes[0].path, embedder="none")) as home:
        assert contents(home) == {"Acknowledged."}
        assert home.check() == []


def test_a_backup_copied_over_while_nobody_runs_takes_in_nothing_of_a_log_that_was_left(
    homes: tuple[Home, Home], store: Path
) -> None:
    one = homes[0]
    keep(one, "In the backup.")
    backup = one.backups.make("copy")
    keep(one, "Later.")
    log = read(store.with_name(f"{STORE_NAME}-wal"))
    for home in homes:
        home.close()
    store.write_bytes((one.backups.folder / backup.id / STORE_NAME).read_bytes())
    store.with_name(f"{STORE_NAME}-wal").write_bytes(log)

    with closing(open_home(one.path, embedder="none")) as home:
        assert contents(home) == {"In the backup."}
        assert home.check() == []
    assert b"Later." in kept_bytes(one.path)


def test_what_is_written_over_in_the_middle_of_a_write_takes_nothing_along(
    homes: tuple[Home, Home], store: Path
) -> None:
    one, other = homes
    keep(one, "Before.")
    former = read(store)

    def write_and_truncate() -> None:
        with one.repository.transaction():
            one.repository.vectors.retry_pending()
            overwrite(store, b"")

    with pytest.raises(StoreOverwrittenError):
        write_and_truncate()
    overwrite(store, former)
    keep(other, "After.")
    assert contents(one) == {"Before.", "After."}


def test_what_others_do_to_a_store_by_right_is_never_refused(
    homes: tuple[Home, Home], store: Path
) -> None:
    one, other = homes
    for number in range(10):
        keep(one, f"Number {number}: " + f"word{number} " * 400)
    for act in (
        lambda: after_checkpoint(store),
        lambda: after_emptying_the_log(store),
        lambda: os.utime(store),
        lambda: store.chmod(0o640),
        other.purges.empty_trash,
        lambda: open_backups(other.path).restore(other.backups.make("now").id),
        lambda: list(other.repository.tidy()),
    ):
        act()
        assert len(contents(one)) >= 10
        keep(one, "Goes on.")
        keep(other, "Here too.")
    assert contents(one) == contents(other)
    assert one.check() == []


def test_what_no_longer_grows_is_known_by_the_end_of_its_former_log(
    homes: tuple[Home, Home], store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, _ = homes
    keep(one, "Before.")
    read_whole: list[str] = []
    is_whole = MainFile._is_whole

    def noted(main: MainFile, how: str, check: str) -> bool:
        read_whole.append(check)
        return is_whole(main, how, check)

    monkeypatch.setattr(MainFile, "_is_whole", noted)
    with closing(another_program(store)) as other, closing(another_program(store)) as reader:
        for number in range(20):
            other.execute("UPDATE memories SET source = ?", (f"{number}",))
            if number % 5 == 0:
                reader.execute("BEGIN; SELECT source FROM memories")
            if number % 5 == 2:  # a part of the log, up to where another reads
                other.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
                assert contents(one) == {"Before."}
                reader.execute("ROLLBACK")
            if number % 5 == 3:
                other.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
            if number % 5 == 4:
                assert contents(one) == {"Before."}

    assert read_whole == []
    assert one.check() == []


def test_a_log_begun_anew_tells_of_the_checkpoint_before_it_without_reading_the_whole_file(
    homes: tuple[Home, Home], store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = homes
    read_whole: list[str] = []
    is_whole = MainFile._is_whole

    def noted(main: MainFile, how: str, check: str) -> bool:
        read_whole.append(check)
        return is_whole(main, how, check)

    keep(one, "Before.")
    after_emptying_the_log(store)
    assert contents(one) == contents(other) == {"Before."}
    monkeypatch.setattr(MainFile, "_is_whole", noted)
    log = store.with_name(f"{store.name}-wal")

    for number in range(3):
        keep(other, f"Number {number}: " + f"word{number} " * 9_000)
        after_checkpoint(store)
        before = log.read_bytes()[:24]
        while log.read_bytes()[:24] == before or len(contents(other)) < 3 * number + 3:
            keep(other, f"As long as the log was, {len(contents(other))}: " + "word " * 9_000)
        assert contents(one) == contents(other)

    assert read_whole == []
    assert one.check() == []


def test_two_servers_refuse_while_their_store_is_written_over_and_go_on_when_it_is_back(
    tmp_path: Path,
) -> None:
    servers = [Wire(tmp_path / "home", SOULKEEP_EMBEDDER="none") for _ in range(2)]
    store = tmp_path / "home" / STORE_NAME
    try:
        for server in servers:
            server.initialize()
            assert not server.call("remember", content="Before.").get("isError")
        former = store.read_bytes()
        store.write_bytes(b"")
        away = [server.call("remember", content="Away.") for server in servers]
        away += [server.call("recall", query="before") for server in servers]
        store.write_bytes(former)
        back = [server.call("remember", content=f"After {n}.") for n, server in enumerate(servers)]
        codes = [server.finish()[2] for server in servers]
    finally:
        for server in servers:
            server.kill()

    assert all(answer["isError"] for answer in away)
    assert all("written over the store" in answer["content"][0]["text"] for answer in away)
    assert not any(answer.get("isError") for answer in back)
    assert codes == [0, 0]
    with closing(open_home(tmp_path / "home", embedder="none")) as home:
        assert contents(home) == {"Before.", "After 0.", "After 1."}
        assert home.check() == []
