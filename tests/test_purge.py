"""Purging: what is erased is in no file of the home any more, and nothing else is gone."""

import json
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any, Literal
from unicodedata import normalize

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from mcp import Client

from conftest import Action, Run, TickingClock, asking
from engine import another_program, database_of, store_of
from examples import DEAR
from forks import context
from soulkeep.app import open_home
from soulkeep.engines import STORE_NAME
from soulkeep.errors import BackupNotFoundError, InvalidInputError, MemoryNotFoundError
from soulkeep.mcp_server.answers.changes import PurgedAnswer
from soulkeep.models import NewMemory, NewMessage
from soulkeep.service.home import Home
from soulkeep.service.purge import Purged

SECRET = "The vault opens with zanzibar quokka and nothing else."  # noqa: S105 - not a password
WORDS = (b"zanzibar", b"quokka", b"Zanzibar", b"zanzibarquokka")


@pytest.fixture
def home(make_home: Callable[..., Home]) -> Home:
    return make_home(embedder="none")


def keep(home: Home, content: str, **fields: Any) -> int:
    (receipt,) = home.memories.remember([NewMemory(content, **fields)])
    return receipt.id


def fill(home: Home, count: int = 30) -> list[int]:
    memories = [NewMemory(f"Filler number {n} about slates.") for n in range(count)]
    return [receipt.id for receipt in home.memories.remember(memories)]


def files_with(folder: Path, *words: bytes) -> list[str]:
    """The files below a folder in whose bytes any of the words stands."""
    return sorted(
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file() and any(word in path.read_bytes() for word in words)
    )


@pytest.mark.embedder("universal")
def test_no_file_of_the_home_holds_what_was_purged(make_home: Callable[..., Home]) -> None:
    home = make_home()
    others = fill(home)
    first = keep(home, SECRET, subject="zanzibar", source="quokka")
    vector = database_of(home).execute(
        "SELECT content_embedding FROM vec_memories WHERE memory_id = ?", (first,)
    )[0][0][:64]
    home.curator.promote(first, "User Facts")
    home.memories.recall("What opens the vault?")
    second = home.lifecycle.revise(first, "The vault opens with Zanzibar alone.").id
    third = home.lifecycle.revise(second, "The vault opens by ZanzibarQuokka.").id
    home.lifecycle.forget([third])
    fill(home, 60)
    kept = home.backups.make("before", on_demand=True)
    before = {m.id: m.content for m in home.lifecycle.list_memories(limit=1000)}
    everywhere = files_with(home.path, *WORDS, vector)
    assert len(everywhere) >= 4

    purged = home.purges.purge([third], [kept.id])

    assert purged.memory_ids == (first, second, third)
    assert (purged.lines, purged.texts, purged.kept_in, purged.is_final) == (0, 3, (), True)
    assert files_with(home.path, *WORDS, vector) == []
    assert {m.id: m.content for m in home.lifecycle.list_memories(limit=1000)} == before
    assert set(others) <= before.keys()
    assert home.check() == []


def test_a_backup_that_was_written_anew_restores_without_what_was_purged(home: Home) -> None:
    memory_id = keep(home, SECRET)
    other = keep(home, "Slates are grey.")
    home.curator.promote(memory_id, "Preferences")
    home.curator.log_day("Looked at the slates.")
    kept = home.backups.make("mine", on_demand=True)

    (rewritten,) = home.purges.purge([memory_id], [kept.id]).backups
    home.lifecycle.forget([other])
    home.backups.restore(rewritten)

    assert [m.content for m in home.lifecycle.list_memories()] == ["Slates are grey."]
    assert home.check() == []
    (listed,) = [backup for backup in home.backups.list_backups() if not backup.automatic]
    assert (listed.id, listed.label, listed.made_at) == (rewritten, "mine", kept.made_at)
    assert files_with(home.path, *WORDS) == []


def test_a_backup_that_was_not_named_stays_as_it_is_and_is_told(home: Home) -> None:
    memory_id = keep(home, SECRET)
    kept = home.backups.make("mine", on_demand=True)

    assert home.purges.purge([memory_id]).kept_in == (f"backup {kept.id}",)

    assert files_with(home.path, *WORDS) == [f"backups/{kept.id}/{STORE_NAME}"]
    home.backups.restore(kept.id)
    assert [m.content for m in home.lifecycle.list_memories()] == [SECRET]


def test_where_the_text_stands_by_other_hands_it_is_left_and_told(home: Home) -> None:
    thread = home.threads.create_thread("Roof")
    memory_id = keep(home, SECRET)
    also = keep(home, f"Somebody said: {SECRET}")
    home.messages.save(thread.id, [NewMessage("user", f"Remember: {SECRET}")])
    home.curator.log_day(f"The user said:\n{SECRET.replace(' and', chr(10) + 'and')}")
    memory = home.path / "MEMORY.md"
    memory.write_text(f"# Mine\n\n{SECRET}\n", encoding="utf-8")
    log = f"daily/{home.documents.today()}.md"

    purged = home.purges.purge([memory_id])

    assert purged.kept_in == (f"memory #{also}", f"messages of thread {thread.id}", "MEMORY.md", log)
    assert memory.read_text(encoding="utf-8") == f"# Mine\n\n{SECRET}\n"


def test_a_promoted_line_that_the_user_rewrote_is_theirs(home: Home) -> None:
    memory_id = keep(home, SECRET)
    home.curator.promote(memory_id, "User Facts")
    memory = home.path / "MEMORY.md"
    text = memory.read_text(encoding="utf-8").replace("nothing else", "a key")
    memory.write_text(text, encoding="utf-8")

    purged = home.purges.purge([memory_id])

    assert purged.lines == 0
    assert memory.read_text(encoding="utf-8") == text


def test_former_texts_lose_the_line_and_keep_the_rest(home: Home) -> None:
    memory_id = keep(home, SECRET)
    home.curator.promote(memory_id, "User Facts")
    home.curator.add_entry("User Facts", "Lives in Kraków.")
    home.curator.add_entry("Preferences", "Likes tea.")

    purged = home.purges.purge([memory_id])

    assert purged.texts == 3
    texts = [
        home.documents.read_version("MEMORY.md", version.id)
        for version in home.documents.list_versions("MEMORY.md")
    ]
    assert [("Kraków" in text, "Likes tea" in text) for text in texts] == [
        (True, True),
        (True, False),
        (False, False),
        (False, False),
    ]
    assert not any("zanzibar" in text for text in texts)


@pytest.mark.parametrize(("kept", "written"), [("NFC", "NFD"), ("NFD", "NFC")])
def test_a_text_with_accents_is_erased_and_told_of_in_either_form(
    home: Home, kept: Literal["NFC", "NFD"], written: Literal["NFC", "NFD"]
) -> None:
    memory_id = keep(home, normalize(kept, "Zoë hides the crème brûlée."))
    home.curator.promote(memory_id, "User Facts")
    memory = home.path / "MEMORY.md"
    memory.write_text(normalize(written, memory.read_text(encoding="utf-8")), encoding="utf-8")
    home.curator.add_entry("Preferences", "Likes tea.")
    home.curator.add_entry("Preferences", "Likes milk.")
    also = keep(home, normalize(written, "Note: Zoë hides the crème brûlée."))

    purged = home.purges.purge([memory_id])

    assert (purged.lines, purged.texts, purged.kept_in) == (1, 3, (f"memory #{also}",))
    in_files = [normalize(form, "brûlée").encode() for form in (kept, written)]
    assert all(name.startswith(STORE_NAME) for name in files_with(home.path, *in_files))


def test_where_the_text_stood_in_other_words_is_told_too(home: Home) -> None:
    memory_id = keep(home, SECRET)
    other = keep(home, f"Mind that {SECRET}")
    home.lifecycle.forget([other])
    home.curator.add_entry("User Facts", f"Heard: {SECRET}")
    home.curator.replace_entry("User Facts", f"Heard: {SECRET}", None)
    (with_it, _) = home.documents.list_versions("MEMORY.md")

    purged = home.purges.purge([memory_id])

    assert purged.kept_in == (f"the past of #{other}", f"history/MEMORY.md/{with_it.id}.md")
    home.purges.empty_trash()
    assert files_with(home.path, *WORDS) == []


def test_what_a_purged_memory_replaced_goes_too_unless_it_came_back(home: Home) -> None:
    first, second = keep(home, "One zanzibar."), keep(home, "Two quokkas.")
    (receipt,) = home.memories.remember([NewMemory("Both.")], replaces=[first, second])
    home.lifecycle.restore([second])

    assert home.purges.purge([receipt.id]).memory_ids == (first, receipt.id)

    assert [m.content for m in home.lifecycle.list_memories()] == ["Two quokkas."]
    assert home.lifecycle.list_trash() == []


def test_changes_of_other_memories_are_still_undone(home: Home) -> None:
    mine, other = keep(home, SECRET), keep(home, "Slates are grey.")
    home.lifecycle.forget([mine, other])

    home.purges.purge([mine])

    (forgotten,) = [c for c in home.changes.list_changes() if c.action == "memory.forgotten"]
    home.changes.undo(forgotten.id)
    assert [m.content for m in home.lifecycle.list_memories()] == ["Slates are grey."]
    home.changes.undo_since("2020-01-01")
    assert home.lifecycle.list_memories() == []


def test_emptying_the_trash_erases_all_that_was_deleted_and_nothing_that_is_there(home: Home) -> None:
    thread = home.threads.create_thread("The zanzibar affair", "Speak of the quokka.")
    keep(home, SECRET, thread_id=thread.id)
    home.messages.save(thread.id, [NewMessage("user", "zanzibar quokka")])
    prompt = home.prompts.add_prompt("Tone", "Mention the quokka.")
    home.curator.add_entry("User Facts", SECRET)
    home.curator.replace_entry("User Facts", SECRET, None)
    home.threads.delete(thread.id, "forget")
    home.prompts.remove_prompt(prompt.id)
    other = keep(home, "Slates are grey.")

    purged = home.purges.empty_trash()

    assert purged.texts == 2
    assert files_with(home.path, *WORDS) == []
    assert [m.id for m in home.lifecycle.list_memories()] == [other]
    assert home.lifecycle.list_trash() == []
    assert home.changes.list_changes() == []
    assert home.check() == []


def test_a_purge_while_another_process_reads_shows_as_unfinished_and_goes_on(home: Home) -> None:
    memory_id = keep(home, SECRET)
    assert home.purges.finish() is None
    database_of(home)._connection.set_busy_timeout(50)

    with closing(another_program(home.path / STORE_NAME)) as reader:
        reader.execute("BEGIN; SELECT count(*) FROM memories")
        assert not home.purges.purge([memory_id]).is_final
        (fault,) = home.check()
        assert (fault.name, fault.remedy) == ("purge", "run `soulkeep purge`")

    finished = home.purges.finish()
    assert finished is not None
    assert finished.is_final
    assert files_with(home.path, *WORDS) == []
    assert home.check() == []


def _write_until(path: str, go: Any, stop: Any) -> None:
    with closing(open_home(path, embedder="none")) as home:
        go.set()
        number = 0
        while not stop.is_set():
            number += 1
            home.memories.remember([NewMemory(f"Written meanwhile, number {number}.")])


def test_others_write_on_while_one_purges(home: Home) -> None:
    memory_id = keep(home, SECRET)
    fill(home, 200)
    go, stop = context().Event(), context().Event()
    writer = context().Process(target=_write_until, args=(str(home.path), go, stop))
    writer.start()
    try:
        assert go.wait(30)
        purged = home.purges.purge([memory_id])
    finally:
        stop.set()
        writer.join(30)

    assert writer.exitcode == 0
    if not purged.is_final:
        home.purges.finish()
    assert files_with(home.path, *WORDS) == []
    assert home.check() == []


@pytest.mark.embedder("universal")
def test_another_process_finds_what_was_purged_no_more(make_home: Callable[..., Home]) -> None:
    home, other = make_home(), make_home()
    memory_id = keep(home, SECRET)
    fill(home)
    found = other.memories.recall("vault zanzibar").matches
    assert found[0].memory.id == memory_id

    home.purges.purge([memory_id])

    assert memory_id not in [m.memory.id for m in other.memories.recall("vault zanzibar").matches]
    codes = store_of(other)._scan._codes
    assert codes is not None
    place = int(codes._column("ids").searchsorted(memory_id))
    assert not any(codes._column(name)[place].any() for name in codes._columns if "codes" in name)


@pytest.mark.parametrize(
    ("memory_ids", "error"),
    [([], InvalidInputError), ([1, 77], MemoryNotFoundError), ([2], InvalidInputError)],
    ids=["none", "one that is not there", "an entry of a document"],
)
def test_what_cannot_be_purged_is_named_and_nothing_is_done(
    memory_ids: list[int], error: type[Exception], home: Home
) -> None:
    keep(home, SECRET)
    home.curator.add_entry("User Facts", "An entry.")
    home.memories.recall("entry")

    with pytest.raises(error):
        home.purges.purge(memory_ids)

    assert [m.content for m in home.lifecycle.list_memories()] == [SECRET]


def test_a_backup_that_is_not_there_is_named_before_anything_is_done(home: Home) -> None:
    memory_id = keep(home, SECRET)

    with pytest.raises(BackupNotFoundError):
        home.purges.purge([memory_id], ["yesterday"])

    assert [m.content for m in home.lifecycle.list_memories()] == [SECRET]


def test_the_log_says_what_was_purged_and_not_what_it_said(home: Home) -> None:
    memory_id = keep(home, SECRET)

    home.purges.purge([memory_id])

    (entry,) = home.repository.ledger.list_log(10, "", None, "memory.purged")
    assert entry.details == {"memory_ids": [memory_id], "backups": []}


@DEAR
@example(text="\x1b")
@example(text="a\x7fb\x1cc")
@given(text=st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=300))
def test_any_text_is_erased_from_the_store_and_from_memory_md(
    text: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    content = f"zanzibar {text} quokka"
    path = tmp_path_factory.mktemp("any") / "home"
    with closing(open_home(path, embedder="none", clock=TickingClock())) as home:
        try:
            memory_id = keep(home, content)
            home.curator.promote(memory_id, "User Facts")
        except InvalidInputError:
            return
        purged = home.purges.purge([memory_id])

        assert purged.kept_in == ()
        assert files_with(path, *WORDS) == []
        assert home.check() == []


def test_the_command_shows_what_goes_asks_and_says_where_it_may_still_stand(
    run: Run, home_path: Path
) -> None:
    run("remember", SECRET)
    _, _, _ = run("backup")

    code, out, _ = run("purge", "1", typed="n\n")
    assert (code, "zanzibar" in out, "no way back" in out) == (1, True, True)
    assert run("memories", "show", "1")[0] == 0

    code, out, err = run("purge", "1", typed="y\n")
    assert (code, err) == (0, "")
    assert "Erased: 1 memory" in out
    assert "May still hold it: backup " in out

    assert run("purge", "1", "--yes")[0] == 1
    code, out, _ = run("purge", "1", "--all-backups", "--yes")
    assert code == 0
    assert "zanzibar" not in out
    assert files_with(home_path, *WORDS) == []


def test_the_command_empties_the_trash_and_finds_nothing_to_go_on_with(
    run: Run, home_path: Path
) -> None:
    run("remember", SECRET)
    run("memories", "forget", "1", "--yes")

    assert "no purge to go on with" in run("purge")[1]
    assert run("purge", "--trash", typed="n\n")[0] == 1
    assert run("purge", "--trash", "--yes", "--json")[0] == 0

    assert files_with(home_path, *WORDS) == []
    assert run("purge", "1", "--trash")[0] == 2
    assert run("purge", "1", "--yes")[0] == 1


async def test_the_tool_erases_only_after_the_user_agreed(mode: str, home: Home) -> None:
    memory_id = keep(home, SECRET)
    kept = home.backups.make("mine", on_demand=True)

    async with asking(home, mode, "accept", agree=True, backups=True) as (client, asked):
        result = await client.call_tool("purge", {"memory_ids": [memory_id]})

    assert [SECRET in question for question in asked] == [True]
    assert result.structured_content == {
        "state": "erased",
        "memory_ids": [memory_id],
    }
    assert kept.id not in [backup.id for backup in home.backups.list_backups()]
    assert files_with(home.path, *WORDS) == []


async def test_the_tool_names_the_memories_that_may_still_say_it(mode: str, home: Home) -> None:
    memory_id, also = keep(home, SECRET), keep(home, f"Somebody said: {SECRET}")
    other = keep(home, f"Mind that {SECRET}")
    home.lifecycle.forget([other])

    async with asking(home, mode, "accept", agree=True, backups=True) as (client, _):
        result = await client.call_tool("purge", {"memory_ids": [memory_id]})

    (text,) = [block.text for block in result.content if block.type == "text"]
    places = [f"memory #{also}", f"the past of #{other}"]
    assert text.endswith(f"It may still stand in: {', '.join(places)}.")
    assert (result.structured_content or {})["kept_in"] == places


@pytest.mark.parametrize("ids", [range(1, 6_000), range(1_000_000, 1_020_000, 3)])
def test_the_answer_is_bounded_however_many_versions_went(ids: range) -> None:
    answer = PurgedAnswer.of(Purged(tuple(ids)), "")

    text, data = answer.as_text(), json.dumps(answer.as_data())
    assert max(len(text), len(data)) < 20_000
    assert f" and {len(ids) - 1_000:,} more." in text
    assert f'"more_memories": {len(ids) - 1_000}' in data


async def test_the_user_is_not_shown_more_than_can_be_read(mode: str, home: Home) -> None:
    ids = fill(home, 30)

    async with asking(home, mode, "decline") as (client, asked):
        await client.call_tool("purge", {"memory_ids": ids})

    assert asked[0].count("slates") == 20
    assert asked[0].endswith("- and 10 more")


@pytest.mark.parametrize(("action", "content"), [("accept", {"agree": False}), ("decline", {})])
async def test_without_consent_the_tool_erases_nothing(
    action: Action, content: dict[str, bool], mode: str, home: Home
) -> None:
    memory_id = keep(home, SECRET)

    async with asking(home, mode, action, **content) as (client, _):
        result = await client.call_tool("purge", {"memory_ids": [memory_id]})

    assert result.structured_content is not None
    assert result.structured_content["state"] == "declined"
    assert [m.content for m in home.lifecycle.list_memories()] == [SECRET]


async def test_a_client_that_cannot_ask_gets_the_command(client: Client, home: Home) -> None:
    memory_id = keep(home, SECRET)

    result = await client.call_tool("purge", {"memory_ids": [memory_id]})

    assert result.structured_content is not None
    assert result.structured_content["state"] == "not asked"
    (block,) = result.content
    assert block.type == "text"
    assert block.text.endswith(f"soulkeep purge {memory_id} --home {home.path}")
    assert [m.content for m in home.lifecycle.list_memories()] == [SECRET]


async def test_the_tool_names_what_is_not_there_without_asking(mode: str, home: Home) -> None:
    async with asking(home, mode, "accept", agree=True) as (client, asked):
        result = await client.call_tool("purge", {"memory_ids": [5]})

    assert result.is_error
    assert asked == []
