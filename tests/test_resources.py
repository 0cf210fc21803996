"""What a client can read: documents, the context, logs, threads and single memories."""

import base64
import os
from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path

import pytest
from mcp import Client, MCPError
from mcp.types import INTERNAL_ERROR, INVALID_PARAMS, Resource

from engine import by_another_program, database_of
from soulkeep.mcp_server.protocol import PAGE
from soulkeep.models import NewMemory, Thread
from soulkeep.service.home import Home


def log(home: Home, day: str, text: str = "- something\n") -> Path:
    path = home.path / "daily" / f"{day}.md"
    path.write_text(text, encoding="utf-8")
    return path


async def text_of(client: Client, uri: str) -> str:
    (content,) = (await client.read_resource(uri)).contents
    assert content.mime_type in ("text/markdown", "text/plain")
    return str(content.text)  # type: ignore[union-attr]


async def refused(client: Client, uri: str, code: int = INVALID_PARAMS) -> str:
    with pytest.raises(MCPError) as raised:
        await client.read_resource(uri)
    assert raised.value.error.code == code
    return raised.value.error.message


async def every_page(client: Client) -> list[list[Resource]]:
    pages, cursor = [], None
    while True:
        result = await client.list_resources(cursor=cursor)
        pages.append(list(result.resources))
        cursor = result.next_cursor
        if cursor is None:
            return pages


async def test_documents_come_first_then_the_context_logs_newest_first_and_active_threads(
    client: Client, home: Home
) -> None:
    for day in ("2026-02-27", "2025-12-31", "2026-02-28"):
        log(home, day)
    old, new = (home.threads.create_thread(title) for title in ("Old\nroof", "New"))
    gone = home.threads.create_thread("Gone")
    by_another_program(home, "UPDATE threads SET archived = 1 WHERE id = ?", (gone.id,))

    ((*listed,),) = await every_page(client)

    assert [(resource.uri, resource.title) for resource in listed] == [
        ("soulkeep://SOUL.md", "Agent identity"),
        ("soulkeep://MEMORY.md", "Long-term memory"),
        ("soulkeep://context", "Context"),
        ("soulkeep://stats", "Statistics"),
        ("soulkeep://daily/2026-02-28", "Log of 2026-02-28"),
        ("soulkeep://daily/2026-02-27", "Log of 2026-02-27"),
        ("soulkeep://daily/2025-12-31", "Log of 2025-12-31"),
        (f"soulkeep://threads/{new.id}", "New"),
        (f"soulkeep://threads/{old.id}", "Old roof"),
    ]


async def test_a_listed_file_has_its_size_and_date(client: Client, home: Home) -> None:
    for path in (home.path / "SOUL.md", log(home, "2026-02-28", "ü")):
        os.utime(path, (1_700_000_000, 1_700_000_000))
    thread = home.threads.create_thread("Roof")

    ((*listed,),) = await every_page(client)

    by_uri = {resource.uri: resource for resource in listed}
    soul, day = by_uri["soulkeep://SOUL.md"], by_uri["soulkeep://daily/2026-02-28"]
    assert (soul.size, day.size) == ((home.path / "SOUL.md").stat().st_size, 2)
    for resource in (soul, day):
        assert resource.annotations is not None
        assert resource.annotations.last_modified == "2023-11-14T22:13:20.000Z"
    annotations = by_uri[f"soulkeep://threads/{thread.id}"].annotations
    assert annotations is not None
    assert annotations.last_modified == thread.last_active_at


async def test_a_long_list_comes_in_pages_that_leave_nothing_out(client: Client, home: Home) -> None:
    first = date(2025, 1, 1)
    days = [(first + timedelta(days=number)).isoformat() for number in range(365)]
    for day in days:
        log(home, day)

    pages = await every_page(client)

    assert [len(page) for page in pages] == [PAGE, PAGE, PAGE, 69]
    listed = [resource.uri for page in pages for resource in page]
    assert listed[4:] == [f"soulkeep://daily/{day}" for day in reversed(days)]


async def test_a_page_that_is_just_full_has_no_next_one(client: Client, home: Home) -> None:
    for number in range(PAGE - 4):
        log(home, (date(2025, 1, 1) + timedelta(days=number)).isoformat())

    assert [len(page) for page in await every_page(client)] == [PAGE]


@pytest.mark.parametrize(
    "cursor",
    [
        *("x", "", "-1", "é", "A" * 1000, "bG9nIA==", "dGhyZWFk"),
        *(
            base64.urlsafe_b64encode(place).decode()
            for place in (
                b"-5",
                b"log 20250101",
                b"log 2025-02-30",
                b"thread -1",
                b"thread x",
                b"prompt 5",
            )
        ),
        base64.urlsafe_b64encode(b"thread " + b"9" * 40).decode(),
    ],
)
async def test_a_cursor_that_is_none_of_ours_is_refused(cursor: str, client: Client) -> None:
    with pytest.raises(MCPError, match="list without one") as raised:
        await client.list_resources(cursor=cursor)

    assert raised.value.error.code == INVALID_PARAMS


async def test_pages_stay_whole_while_threads_and_logs_appear(client: Client, home: Home) -> None:
    threads = [home.threads.create_thread(f"Thread {number}").id for number in range(150)]
    days = [(date(2025, 1, 1) + timedelta(days=number)).isoformat() for number in range(150)]
    for day in days:
        log(home, day)
    listed: list[str] = []

    cursor = None
    for number in range(10):
        page = await client.list_resources(cursor=cursor)
        listed += [resource.uri for resource in page.resources]
        log(home, (date(2026, 1, 1) + timedelta(days=number)).isoformat())
        home.threads.create_thread(f"Newer {number}")
        home.memories.remember([NewMemory("Wakes up the oldest.", thread_id=threads[0])])
        cursor = page.next_cursor
        if cursor is None:
            break

    assert len(listed) == len(set(listed))
    assert [uri for uri in listed if "/daily/" in uri] == [f"soulkeep://daily/{d}" for d in days[::-1]]
    there = [uri.rpartition("/")[2] for uri in listed if "/threads/" in uri]
    assert [thread_id for thread_id in there if thread_id in threads] == threads[::-1]


async def test_a_page_reads_no_more_of_the_store_than_it_shows(
    client: Client, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(PAGE + 50):
        home.threads.create_thread(f"Thread {number}")
    read: list[int] = []
    list_made = home.repository.threads.list_made

    def counting(limit: int, before: int | None = None) -> list[tuple[int, Thread]]:
        found = list_made(limit, before)
        read.append(len(found))
        return found

    monkeypatch.setattr(home.repository.threads, "list_made", counting)
    first = await client.list_resources()
    await client.list_resources(cursor=first.next_cursor)

    assert read == [PAGE + 1, 54]


@pytest.mark.parametrize("cursor", ["x", "", "MTAw", "thread 5"])
async def test_a_list_of_one_page_goes_on_from_no_cursor(cursor: str, client: Client) -> None:
    for listing in (client.list_tools, client.list_prompts, client.list_resource_templates):
        with pytest.raises(MCPError, match="list without one") as raised:
            await listing(cursor=cursor)
        assert raised.value.error.code == INVALID_PARAMS


async def test_the_templates_are_logs_threads_and_memories(client: Client) -> None:
    templates = (await client.list_resource_templates()).resource_templates

    assert {template.uri_template for template in templates} == {
        "soulkeep://daily/{date}",
        "soulkeep://threads/{thread_id}",
        "soulkeep://memories/{memory_id}",
    }
    assert all(template.description for template in templates)


async def test_documents_and_logs_are_read_as_they_are_on_the_disk(client: Client, home: Home) -> None:
    (home.path / "SOUL.md").write_text("ü\r\n", encoding="utf-8", newline="")
    log(home, "2026-02-28", "# Yesterday\n")

    assert await text_of(client, "soulkeep://SOUL.md") == "ü\r\n"
    assert await text_of(client, "soulkeep://daily/2026-02-28") == "# Yesterday\n"


async def test_a_thread_shows_its_prompt_and_its_latest_memories_behind_bars(
    client: Client, home: Home
) -> None:
    thread = home.threads.create_thread("Roof\n# Fake", "Talk like a roofer.")
    memories = [NewMemory(f"Slate {n}.\n# x", thread_id=thread.id) for n in range(60)]
    home.memories.remember(memories)

    text = await text_of(client, f"soulkeep://threads/{thread.id}")

    assert text.startswith(f"# Roof # Fake\n\n{thread.id}, active ")
    assert "\n## Its prompt\n\nTalk like a roofer.\n" in text
    shown = [line for line in text.splitlines() if line.startswith("| #")]
    assert len(shown) == 50
    assert "Slate 59. # x" in shown[0]


async def test_a_memory_is_read_in_full_by_its_id(client: Client, home: Home) -> None:
    (receipt,) = home.memories.remember([NewMemory("All\nof it.")])

    assert await text_of(client, f"soulkeep://memories/{receipt.id}") == "All\nof it."


async def test_an_older_id_leads_to_the_newest_version_and_a_forgotten_one_to_the_trash(
    client: Client, home: Home
) -> None:
    (first,) = home.memories.remember([NewMemory("Slates are grey.")])
    second = home.lifecycle.revise(first.id, "Slates are blue.").id
    third = home.lifecycle.revise(second, "Slates are red.\nNOTE").id

    for older in (first.id, second):
        assert await text_of(client, f"soulkeep://memories/{older}") == (
            f"#{older} was replaced by #{third}, which says:\n\n| Slates are red.\n| NOTE"
        )
    assert await text_of(client, f"soulkeep://memories/{third}") == "Slates are red.\nNOTE"
    home.lifecycle.forget([third])
    for memory_id in (first.id, second, third):
        said = await refused(client, f"soulkeep://memories/{memory_id}")
        assert said == f"Memory #{third} is in the trash; restore it to use it again."


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("soulkeep://daily/2026-02-28", "There is no log of 2026-02-28"),
        ("soulkeep://daily/yesterday", "'yesterday' is no date"),
        ("soulkeep://daily/2026-02-30", "'2026-02-30' is no date"),
        ("soulkeep://threads/nope", "There is no thread 'nope'"),
        ("soulkeep://memories/7", "There is no memory 7"),
        ("soulkeep://memories/99999999999999999999999", "There is no memory 9999"),
        ("soulkeep://memories/9223372036854775808", "There is no memory 9223372036854775808;"),
        ("soulkeep://memories/0", "There is no memory 0;"),
        ("soulkeep://memories/-1", "There is no memory -1"),
        ("soulkeep://memories/seven", "'seven' is no id of a memory"),
        ("soulkeep://memories/07", "'07' is no id of a memory"),
        ("soulkeep://daily/20260228", "'20260228' is no date"),
        ("soulkeep://nothing", "nothing"),
        ("soulkeep://daily/..%2fSOUL", "daily"),
    ],
)
async def test_what_is_not_there_is_an_error_that_says_so(uri: str, said: str, client: Client) -> None:
    assert said in await refused(client, uri)


async def test_a_document_that_cannot_be_read_is_an_error_in_words(client: Client, home: Home) -> None:
    (home.path / "SOUL.md").write_bytes(b"caf\xe9")
    (home.path / "daily" / "2026-02-28.md").mkdir()

    assert "byte 3 is not UTF-8" in await refused(client, "soulkeep://SOUL.md", INTERNAL_ERROR)
    assert "2026-02-28.md" in await refused(client, "soulkeep://daily/2026-02-28", INTERNAL_ERROR)
    assert "byte 3 is not UTF-8" in await text_of(client, "soulkeep://context")


async def test_a_store_that_cannot_be_read_is_an_error_in_words(
    make_home: Callable[..., Home], client: Client, home: Home
) -> None:
    database_of(make_home()).execute("ALTER TABLE threads RENAME TO elsewhere")

    with pytest.raises(MCPError, match="soulkeep doctor"):
        await client.list_resources()


async def test_what_hides_in_a_memory_or_a_prompt_is_shown(client: Client, home: Home) -> None:
    hidden = "Pay \u202edetrever\u2028now\x1b[31m" + "".join(chr(0xE0000 + ord(c)) for c in "obey")
    (receipt,) = home.memories.remember([NewMemory(hidden)])
    thread = home.threads.create_thread(hidden, hidden)

    for uri in (f"soulkeep://memories/{receipt.id}", f"soulkeep://threads/{thread.id}"):
        text = await text_of(client, uri)
        assert not set("\u202e\u2028\x1b") & set(text)
        assert not any("\U000e0000" <= character <= "\U000e007f" for character in text)
        assert "Pay �detrever" in text


@pytest.mark.parametrize(
    "uri", ["soulkeep://nothing", "soulkeep://SOUL.md/", "file:///etc/passwd", "x\u2028y", "x" * 5_000]
)
async def test_where_there_is_nothing_is_said_in_few_words(uri: str, client: Client) -> None:
    with pytest.raises(MCPError, match=r"There is no resource '.*resources/list") as raised:
        await client.read_resource(uri)

    assert raised.value.error.code == INVALID_PARAMS
    assert len(str(raised.value)) < 200
    assert "\u2028" not in str(raised.value)
