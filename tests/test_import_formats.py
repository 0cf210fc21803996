"""What each program's data becomes: frozen files of the real ones (tests/moving), exports by hand."""

import gzip
import json
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import apsw
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from soulkeep.days import Days
from soulkeep.engines import opened_foreign
from soulkeep.errors import SourceError
from soulkeep.imports import (
    FORMATS,
    MemoryRecord,
    MessageRecord,
    Reading,
    Record,
    ThreadRecord,
    open_records,
)
from soulkeep.imports.values import JsonStream
from soulkeep.models import NewMemory
from wire import OFFLINE

MOVING = Path(__file__).with_name("moving")


def read(source: Path, named: str | None = None) -> tuple[str, list[Record], Reading]:
    reading = Reading(Days(), opened_foreign)
    with open_records(source, reading, named) as (form, records):
        return form, list(records), reading


def memories(source: Path) -> list[NewMemory]:
    return [record.memory for record in read(source)[1] if isinstance(record, MemoryRecord)]


def said(source: Path) -> list[tuple[str, str]]:
    messages = [record.message for record in read(source)[1] if isinstance(record, MessageRecord)]
    return [(message.role, message.content) for message in messages]


def written(path: Path, value: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(value if isinstance(value, str) else json.dumps(value), encoding="utf-8")
    return path


def zipped(path: Path, files: Mapping[str, object]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, value in files.items():
            archive.writestr(name, value if isinstance(value, str) else json.dumps(value))
    return path


# Files of the real programs


@pytest.fixture
def frozen(tmp_path: Path) -> Path:
    folder = tmp_path / "moving"
    shutil.copytree(MOVING, folder)
    packed = folder / "sqlite_vec.db.gz"
    (folder / "sqlite_vec.db").write_bytes(gzip.decompress(packed.read_bytes()))
    return folder


def test_the_official_memory_servers_observations_and_relations_are_memories(frozen: Path) -> None:
    form, _, reading = read(frozen / "memory.jsonl")

    assert form == "server-memory"
    assert [(m.subject, m.content, m.source) for m in memories(frozen / "memory.jsonl")] == [
        ("Anna", "Anna is allergic to peanuts.", "server-memory (person)"),
        ("Anna", "Zoë keeps Anna's ledger in Kraków 📒", "server-memory (person)"),
        ("Kitchen", "The kitchen is painted blue.", "server-memory (project)"),
        ("Anna", "Anna works on Kitchen", "server-memory"),
    ]
    assert not reading.problems


def test_mcp_memory_services_database_comes_with_its_dates_tags_and_types(frozen: Path) -> None:
    form, _, reading = read(frozen / "sqlite_vec.db")
    found = memories(frozen / "sqlite_vec.db")

    assert form == "mcp-memory-service"
    assert [(m.content, m.memory_type, m.subject, m.source, m.created_at) for m in found] == [
        (
            *("Anna is allergic to peanuts.", "fact", "anna, health"),
            *("mcp-memory-service (observation)", "2026-01-01T00:00:00.500Z"),
        ),
        ("We ship on Fridays.", "decision", "work", "meeting", "2026-01-02T00:00:00.000Z"),
        (
            *("Zoë keeps the ledger.", "fact", "zoe"),
            *("mcp-memory-service (observation)", "2026-01-03T00:00:00.000Z"),
        ),
    ]
    assert reading.not_kept == {
        "embeddings": 3,
        "weight": 1,
        "memories that were deleted or replaced there": 1,
    }


def test_basic_memorys_categories_and_relations_are_read_as_they_are_meant(frozen: Path) -> None:
    form, _, reading = read(frozen / "basic_memory")

    assert form == "basic-memory"
    assert [(m.content, m.memory_type, m.subject) for m in memories(frozen / "basic_memory")] == [
        (
            *("The kitchen is painted blue #paint (after three tries)", "decision"),
            "Kitchen (decision, home, renovation, paint)",
        ),
        ("Anna likes matt paint #paint", "preference", "Kitchen (preference, home, renovation, paint)"),
        ("The oven is 60 cm wide", "fact", "Kitchen (fact, home, renovation)"),
        ("Kitchen belongs to Anna's house", "fact", "Kitchen (home, renovation)"),
    ]
    assert {m.source for m in memories(frozen / "basic_memory")} == {"house/Kitchen.md"}
    assert reading.not_kept == {"permalink": 1}


def _runs(python: str) -> bool:
    command = [python, "-c", "from typing import override"]
    return shutil.which(python) is not None and not subprocess.call(command, stderr=subprocess.DEVNULL)


@pytest.mark.clients
def test_the_real_programs_still_write_what_is_frozen_here(frozen: Path, tmp_path: Path) -> None:
    import os

    if not any(map(_runs, ("python3.12", "python3.13", "python3.14"))):
        pytest.skip("no Python of 3.12 or later is on the path, which basic-memory needs")
    online = {name: value for name, value in os.environ.items() if name not in OFFLINE}
    made, script = tmp_path / "made", str(MOVING / "make.py")
    subprocess.run([sys.executable, script, str(made)], check=True, timeout=1_500, env=online)
    packed = made / "sqlite_vec.db.gz"
    (made / "sqlite_vec.db").write_bytes(gzip.decompress(packed.read_bytes()))

    for name in ("memory.jsonl", "basic_memory", "sqlite_vec.db"):
        new = [m.content for m in memories(made / name)]
        assert new == [m.content for m in memories(frozen / name)]


# Data exports of ChatGPT and Claude


def node(key: str, parent: str | None, children: list[str], message: object) -> dict[str, Any]:
    return {"id": key, "parent": parent, "children": children, "message": message}


def spoken(role: str, *parts: object, **more: object) -> dict[str, Any]:
    content = {"content_type": "text", "parts": list(parts)}
    return {"id": f"{role}-{parts}", "author": {"role": role}, "content": content, **more}


CHAT = {
    "conversation_id": "c-1",
    "title": "A trip",
    "create_time": 1_767_225_600.25,
    "update_time": 1_767_229_200,
    "current_node": "e",
    "mapping": {
        "a": node("a", None, ["b"], None),
        "b": node("b", "a", ["c", "d"], spoken("user", "Where to?", create_time=1_767_225_601)),
        "c": node("c", "b", [], spoken("assistant", "To Rome.")),
        "d": node("d", "b", ["e"], spoken("assistant", "User plans trips by train.", recipient="bio")),
        "e": node(
            *("e", "d", []),
            spoken("assistant", "To Graz.", {"content_type": "image_asset_pointer", "asset": "x"}),
        ),
    },
}


@pytest.fixture
def chatgpt(tmp_path: Path) -> Path:
    files = {"conversations.json": [CHAT], "chat.html": "<html>", "user.json": {"id": "u"}}
    return zipped(tmp_path / "export.zip", files)


def test_a_chatgpt_export_becomes_threads_of_the_last_branch_and_what_was_remembered(
    chatgpt: Path,
) -> None:
    form, records, reading = read(chatgpt)

    assert form == "chatgpt"
    assert said(chatgpt) == [("user", "Where to?"), ("assistant", "To Graz.")]
    assert [m.content for m in memories(chatgpt)] == ["User plans trips by train."]
    assert records[0]._asdict() == {
        "place": "conversations.json:[0]",
        "key": "chatgpt:c-1",
        "title": "A trip",
        "created_at": "2026-01-01T00:00:00.250Z",
        "last_active_at": "2026-01-01T01:00:00.000Z",
        "system_prompt": None,
        "archived": False,
    }
    assert reading.not_kept == {
        "messages of other branches": 1,
        "image asset pointer": 1,
        "user.json": 1,
        "other files": 1,
    }


def test_an_export_is_read_packed_unpacked_and_as_its_one_file(chatgpt: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(chatgpt) as archive:
        archive.extractall(tmp_path / "unpacked")

    for source in (tmp_path / "unpacked", tmp_path / "unpacked" / "conversations.json"):
        assert (read(source)[0], said(source)) == ("chatgpt", said(chatgpt))


def test_chatgpts_own_list_of_memories_is_taken_line_by_line(tmp_path: Path) -> None:
    listed = "1. [2025-05-01]. Anna likes tea.\n2. [2025-06-02]. Anna lives in Graz."
    content = {"content_type": "model_editable_context", "model_set_context": listed}
    message = {"id": "m", "author": {"role": "system"}, "content": content}
    chat = CHAT | {"current_node": "m", "mapping": {"m": node("m", None, [], message)}}

    found = memories(written(tmp_path / "conversations.json", [chat]))

    assert [m.content for m in found] == ["Anna likes tea.", "Anna lives in Graz."]
    assert [m.created_at and m.created_at[:7] for m in found] == ["2025-05", "2025-06"]


def test_branches_that_lead_in_circles_or_nowhere_end(tmp_path: Path) -> None:
    circle = {
        "a": node("a", "b", ["b"], spoken("user", "One")),
        "b": node("b", "a", ["a"], spoken("assistant", "Two")),
    }
    chats = [
        CHAT | {"mapping": circle, "current_node": "b"},
        CHAT | {"mapping": circle, "current_node": "gone", "conversation_id": "c-2"},
        CHAT | {"mapping": {"a": None, "b": 3}, "conversation_id": "c-3"},
    ]

    assert said(written(tmp_path / "conversations.json", chats)) == [
        ("user", "One"),
        ("assistant", "Two"),
    ]


def test_of_a_chatgpt_conversation_only_what_was_said_in_it_comes(tmp_path: Path) -> None:
    thought = {"content_type": "thoughts", "thoughts": [{"content": "Hm."}]}
    recap = {"content_type": "reasoning_recap", "content": "Thought for 5 seconds"}
    code = {"content_type": "code", "language": "python", "text": "print(1)"}
    instructions = {"content_type": "user_editable_context", "user_profile": "An engineer"}
    hidden = {"metadata": {"is_visually_hidden_from_conversation": True}}
    messages: list[dict[str, Any]] = [
        {"author": {"role": "system"}, "content": {"content_type": "text", "parts": [""]}, **hidden},
        {"author": {"role": "user"}, "content": instructions, **hidden},
        spoken("user", "How many?", create_time=None),
        {"author": {"role": "assistant"}, "content": thought},
        {"author": {"role": "assistant"}, "content": recap},
        {"author": {"role": "assistant"}, "content": code, "recipient": "python"},
        spoken("tool", "Retrieved.", **hidden),
        spoken("assistant", "One.", recipient="all"),
    ]
    mapping = {
        str(n): node(str(n), str(n - 1) if n else None, [str(n + 1)], message)
        for n, message in enumerate(messages)
    }
    chat = CHAT | {"mapping": mapping, "current_node": str(len(messages) - 1)}

    source = written(tmp_path / "conversations-000.json", [chat])

    assert said(source) == [("user", "How many?"), ("assistant", "One.")]
    assert read(source)[2].not_kept == {
        "user editable context": 1,
        "thoughts": 1,
        "reasoning recap": 1,
        "calls of tools": 1,
        "hidden messages": 1,
    }


CLAUDE = {
    "uuid": "u-1",
    "name": "Paint",
    "summary": "Anna chose blue.",
    "created_at": "2026-01-02T03:04:05.678901Z",
    "updated_at": "2026-01-02T04:04:05Z",
    "chat_messages": [
        {
            "uuid": "m-1",
            "sender": "human",
            "text": "",
            "content": [{"type": "text", "text": "Which colour?"}],
            "created_at": "2026-01-02T03:05:00Z",
            "attachments": [{"file_name": "list.txt", "extracted_content": "blue, red"}],
            "files": [{"file_name": "photo.jpg"}],
        },
        {
            "uuid": "m-2",
            "sender": "assistant",
            "text": "Blue.",
            "content": [{"type": "tool_use", "input": {}}],
            "created_at": "2026-01-02T03:06:00Z",
        },
    ],
}


def test_a_claude_export_brings_conversations_summaries_projects_and_memories(tmp_path: Path) -> None:
    project = {
        "uuid": "p-1",
        "name": "House",
        "description": "All of the house.",
        "prompt_template": "Answer briefly.",
        "created_at": "2026-01-01T00:00:00Z",
        "docs": [{"filename": "rooms.md", "content": "# Rooms\n\n- Kitchen\n- Bath"}],
    }
    remembered = {
        "conversations_memory": "**Home**\n\nAnna lives in Graz.",
        "project_memories": {"p-1": "It has a garden."},
    }
    source = zipped(
        tmp_path / "claude.zip",
        {
            "data/conversations.json": [CLAUDE],
            "data/projects.json": [project],
            "data/memories.json": [remembered],
            "data/users.json": [{"uuid": "u"}],
        },
    )

    form, records, reading = read(source)

    assert form == "claude"
    assert said(source) == [
        ("user", "Which colour?"),
        ("user", "list.txt:\n\nblue, red"),
        ("assistant", "Blue."),
    ]
    assert [(m.content, m.memory_type, m.source, m.thread_id) for m in memories(source)] == [
        ("Anna chose blue.", "summary", "Claude", "claude:u-1"),
        ("All of the house.", "summary", "Claude project", "claude:p-1"),
        ("Kitchen", "fact", "Claude project", "claude:p-1"),
        ("Bath", "fact", "Claude project", "claude:p-1"),
        ("Anna lives in Graz.", "fact", "Claude memory", None),
        ("It has a garden.", "fact", "Claude memory", "claude:p-1"),
    ]
    assert memories(source)[-2].subject == "Home"
    prompts = [record.system_prompt for record in records if isinstance(record, ThreadRecord)]
    assert prompts == [None, "Answer briefly."]
    assert reading.not_kept == {"tool use": 1, "files": 1, "other files": 1}
    assert not reading.problems


def test_a_single_file_of_an_export_and_a_single_conversation_are_known(tmp_path: Path) -> None:
    project = {
        "uuid": "p",
        "name": "House",
        "description": "All of it.",
        "prompt_template": "",
        "docs": [],
    }
    remembered = [{"conversations_memory": "Likes tea.", "project_memories": {"p": "Has a garden."}}]
    of_claude = {"uuid": "u", "name": "n", "chat_messages": [{"sender": "human", "text": "Hello"}]}
    for form, value, told in (
        ("claude", remembered, ["Likes tea.", "Has a garden."]),
        ("claude", [project], ["All of it."]),
        ("claude", project, ["All of it."]),
        ("claude", of_claude, ["Hello"]),
        ("chatgpt", CHAT, ["Where to?", "User plans trips by train.", "To Graz."]),
        (
            "chatgpt",
            {"c-1": CHAT, "c-2": CHAT},
            ["Where to?", "User plans trips by train.", "To Graz."] * 2,
        ),
    ):
        for indent in (None, 2):
            path = written(tmp_path / "odd name.bin", json.dumps(value, indent=indent))
            found, records, _ = read(path)
            contents = [
                record.memory.content if isinstance(record, MemoryRecord) else record.message.content
                for record in records
                if isinstance(record, MemoryRecord | MessageRecord)
            ]
            assert (found, sorted(contents)) == (form, sorted(told))
    folder = tmp_path / "claude"
    written(folder / "conversations.json", [of_claude])
    written(folder / "projects" / "p.json", project)
    assert [m.content for m in memories(folder)] == ["All of it."]


# Records with fields

MEM0 = {
    "id": "1",
    "memory": "Anna likes tea",
    "hash": "h",
    "user_id": "anna",
    "run_id": "talk 7",
    "categories": ["food", "drinks"],
    "metadata": {"mood": "good"},
    "created_at": "2026-01-02T03:04:05-08:00",
    "score": 0.5,
}


@pytest.mark.parametrize("shape", [[MEM0], {"results": [MEM0]}, {"total": 1, "memories": [MEM0]}])
def test_mem0s_exports_keep_whose_memory_it_is_its_categories_and_run(
    shape: object, tmp_path: Path
) -> None:
    form, records, reading = read(written(tmp_path / "export.json", shape))

    assert form == "mem0"
    assert [record.place.endswith("[0]") for record in records] == [True, True]
    (memory,) = (record.memory for record in records if isinstance(record, MemoryRecord))
    assert (memory.content, memory.subject, memory.source, memory.thread_id, memory.created_at) == (
        *("Anna likes tea", "food, drinks", "mem0 (anna)", "talk 7"),
        "2026-01-02T11:04:05.000Z",
    )
    assert reading.not_kept == {"mood": 1, "score": 1}


def test_mem0s_relations_and_the_graph_of_the_official_server_in_json_are_memories(
    tmp_path: Path,
) -> None:
    relation = {"source": "anna", "relationship": "likes_to_drink", "target": "tea"}
    entity = {"name": "Anna", "entityType": "person", "observations": ["Sings."]}
    graph = {"entities": [entity], "relations": [{"from": "a", "relationType": "is", "to": "b"}]}

    with_relations = written(tmp_path / "mem0.json", {"results": [MEM0], "relations": [relation]})
    assert [m.content for m in memories(with_relations)] == ["Anna likes tea", "anna likes to drink tea"]
    assert [m.content for m in memories(written(tmp_path / "graph.json", graph))] == ["Sings.", "a is b"]


def test_lines_and_tables_are_read_by_the_names_of_their_fields(tmp_path: Path) -> None:
    line = {
        "Text": "One.",
        "type": "preference",
        "about": "Anna",
        "url": "https://a.example",
        "stars": 3,
    }
    jsonl = written(tmp_path / "notes.jsonl", json.dumps(line) + "\n\n" + json.dumps("Two.") + "\n")
    table = 'note;tags;created;rating\n"One; with\n\na break";home, work;2026-01-02;5\nTwo;;;\n'
    csv = written(tmp_path / "notes.csv", table)
    tsv = tmp_path / "notes.tsv"
    tsv.write_bytes("content\tdate\nÜber\t2026-01-02 10:00\n".encode("utf-16"))

    assert [(m.content, m.memory_type, m.subject, m.source) for m in memories(jsonl)] == [
        ("One.", "preference", "Anna", "https://a.example"),
        ("Two.", "fact", None, None),
    ]
    assert [(m.content, m.subject) for m in memories(csv)] == [
        ("One; with\n\na break", "home, work"),
        ("Two", None),
    ]
    assert read(csv)[2].not_kept == {"rating": 1}
    assert [m.content for m in memories(tsv)] == ["Über"]


def test_what_follows_the_end_of_a_list_is_told(tmp_path: Path) -> None:
    for more in ('[{"content": "Two."}]', "junk", "]"):
        _, records, reading = read(written(tmp_path / "a.json", f'[{{"content": "One."}}]\n{more}\n'))
        assert len(records) == 1
        assert [problem.reason for problem in reading.problems] == [
            "is no JSON from here on: more follows its end"
        ]
    assert not read(written(tmp_path / "a.json", '[{"content": "One."}]\n \n'))[2].problems


def test_names_in_an_archive_may_be_those_of_windows(tmp_path: Path) -> None:
    source = zipped(tmp_path / "a.zip", {"x": ""})
    with zipfile.ZipFile(source, "w") as archive:
        entry = zipfile.ZipInfo("export/conversations.json")
        entry.filename = "export\\conversations.json"
        archive.writestr(entry, json.dumps([CHAT]))

    assert read(source)[0] == "chatgpt"
    assert len(said(source)) == 2


def test_one_record_on_many_lines_is_one(tmp_path: Path) -> None:
    one = {"content": "One.", "tags": ["a", "b"], "parts": [1, 2]}
    named = {"first": {"content": "One."}, "second": {"content": "Two."}}
    graph = {"entities": [{"name": "A", "entityType": "t", "observations": ["One."]}], "relations": []}
    for value, form, told in (
        (one, "json", ["One."]),
        (named, "json", ["One.", "Two."]),
        (graph, "server-memory", ["One."]),
        ({"memories": [{"content": "One."}], "by": "us"}, "json", ["One."]),
    ):
        path = written(tmp_path / "any.json", json.dumps(value, indent=2))
        assert (read(path)[0], [m.content for m in memories(path)]) == (form, told)


@pytest.mark.parametrize(
    ("table", "subject", "created"),
    [
        ("Inhalt;Schlagwörter;Erstellt am\nEins;Tee;2.1.2026\n", "Tee", "2026-01-02"),
        ("Contenu,Sujet,Date\nEins,Tee,2026-1-2\n", "Tee", "2026-01-02"),
        ("sep=|\r\n内容|タグ|日付\r\nEins|Tee|2026/1/2\r\n", "Tee", "2026-01-02"),
        ("\ufeff내용\t주제\t날짜\nEins\tTee\t02.01.2026 13:00\n", "Tee", "2026-01-02"),
    ],
)
def test_tables_of_other_languages_and_signs_are_read(
    table: str, subject: str, created: str, tmp_path: Path
) -> None:
    (memory,) = memories(written(tmp_path / "odd name", table))

    assert (memory.content, memory.subject) == ("Eins", subject)
    assert memory.created_at is not None
    assert memory.created_at[:10] == created


def test_a_row_whose_quotes_do_not_fit_takes_no_other_with_it(tmp_path: Path) -> None:
    table = 'content,tags\n"One",a\n"never closed,b\nTwo,c\n"a "bad" one",d\n"Three\nlines",e\n'

    _, records, reading = read(written(tmp_path / "notes.csv", table))

    assert [(r.place, r.memory.content) for r in records if isinstance(r, MemoryRecord)] == [
        ("notes.csv:2", "One"),
        ("notes.csv:4", "Two"),
        ("notes.csv:6", "Three\nlines"),
    ]
    assert [problem.place for problem in reading.problems] == ["notes.csv:3", "notes.csv:5"]


def test_a_cell_may_be_long(tmp_path: Path) -> None:
    assert (
        len(memories(written(tmp_path / "a.csv", f"content\n{'x' * 200_000}\n"))[0].content) == 200_000
    )


def database(path: Path, columns: str, *contents: str) -> Path:
    path.parent.mkdir(exist_ok=True)
    with closing(apsw.Connection(str(path))) as made:
        made.execute(f"CREATE TABLE memories ({columns})")
        made.executemany(
            "INSERT INTO memories (content, content_hash) VALUES (?, ?)",
            ((content, f"h{n}") for n, content in enumerate(contents)),
        )
    return path


def test_of_a_damaged_database_what_can_be_read_comes(tmp_path: Path) -> None:
    contents = [f"Number {n} {'x' * 500}" for n in range(60)]
    path = database(tmp_path / "a.db", "id INTEGER PRIMARY KEY, content, content_hash", *contents)
    content = bytearray(path.read_bytes())
    at = content.index(b"Number 30 ") // 4_096 * 4_096
    content[at : at + 4_096] = b"\xff" * 4_096
    path.write_bytes(content)

    found, reading = memories(path), read(path)[2]

    assert 40 < len(found) < 60
    assert (found[0].content, found[-1].content) == (contents[0], contents[-1])
    (problem,) = reading.problems
    assert "damaged" in problem.reason
    assert found[int(problem.place.rsplit(" ", 1)[1]) - 1].content in contents[20:30]


@pytest.mark.parametrize("share", [0.5, 0.999])
def test_of_a_database_that_is_cut_off_what_is_there_comes(share: float, tmp_path: Path) -> None:
    contents = [f"Number {n} {'x' * 500}" for n in range(60)]
    path = database(tmp_path / "a.db", "id INTEGER PRIMARY KEY, content, content_hash", *contents)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])

    found, reading = memories(path), read(path)[2]

    assert [m.content for m in found if m.content in contents][:20] == contents[:20]
    assert (reading.problems[0].place, reading.problems[0].reason.split(";")[0]) == (
        "a.db",
        "is cut off",
    )


def test_a_database_of_another_schema_and_one_beside_its_backups_are_read(tmp_path: Path) -> None:
    database(tmp_path / "backups" / "a.db", "content, content_hash", "Old.")
    database(tmp_path / "sqlite_vec.db", "content TEXT, content_hash TEXT, later BLOB", "New.")

    _, records, reading = read(tmp_path)

    assert [r.memory.content for r in records if isinstance(r, MemoryRecord)] == ["New."]
    assert reading.not_kept == {"other databases": 1}


def test_a_page_called_by_no_day_of_the_calendar_is_a_page(tmp_path: Path) -> None:
    written(tmp_path / "SOUL.md", "# Soul\n")
    for day in ("2026-13-45", "2026-02-30", "2026_02_31", "2026-01_05"):
        written(tmp_path / "memory" / f"{day}.md", f"- On {day}.")
    written(tmp_path / "journals" / "2026_01_05.md", "- Painted.")

    assert [m.content for m in memories(tmp_path)] == [
        *("On 2026-01_05.", "On 2026-02-30.", "On 2026-13-45.", "On 2026_02_31."),
    ]
    (logged,) = memories(tmp_path / "journals")
    assert logged.occurred_at == "2026-01-05T00:00:00.000Z"


def test_records_with_roles_in_a_thread_are_its_messages(tmp_path: Path) -> None:
    lines = [
        {"thread": "Talk", "role": role, "content": text, "created_at": 1_767_225_600_000}
        for role, text in (("human", "Hello"), ("ai", "Hi"))
    ]
    source = written(tmp_path / "log.jsonl", "".join(json.dumps(line) + "\n" for line in lines))

    assert said(source) == [("user", "Hello"), ("assistant", "Hi")]


@pytest.mark.parametrize(
    ("value", "moment"),
    [
        *((1_767_225_600, "2026-01-01T00:00:00.000Z"), ("1767225600", "2026-01-01T00:00:00.000Z")),
        (1_767_225_600_123, "2026-01-01T00:00:00.123Z"),
        (1_767_225_600_123_456, "2026-01-01T00:00:00.123Z"),
        ("2026-01-01T00:00:00+01:00", "2025-12-31T23:00:00.000Z"),
        ("Thu, 01 Jan 2026 00:00:00 GMT", "2026-01-01T00:00:00.000Z"),
        ("Jan 2, 2026", "2026-01-02T00:00:00.000Z"),
        ("2nd January 2026", "2026-01-02T00:00:00.000Z"),
        ("Friday, January 2nd 2026, 3:04:05 pm", "2026-01-02T15:04:05.000Z"),
        ("2026-01-02 12:04 AM", "2026-01-02T00:04:00.000Z"),
        ("02.01.2026 9:04", "2026-01-02T09:04:00.000Z"),
        *(("2026年1月2日", "2026-01-02T00:00:00.000Z"), ("2026년 1월 2일", "2026-01-02T00:00:00.000Z")),
        *(
            ("Smarch 2, 2026", None),
            ("Jan 32, 2026", None),
            ("1/2/2026", None),
            ("2026-01-02 25:00", None),
        ),
        *((None, None), ("", None), ("soon", None), (2026, None), (True, None), (float("nan"), None)),
        *((float("inf"), None), ([], None), ("9" * 400, None)),
    ],
)
def test_dates_are_understood_however_programs_write_them(value: object, moment: str | None) -> None:
    assert Reading(Days(), opened_foreign).moment(value) == moment


def test_what_expires_on_a_date_lasts_through_that_day(tmp_path: Path) -> None:
    source = written(
        tmp_path / "m.json",
        [
            {"memory": name, "user_id": "a", "expiration_date": end}
            for name, end in (("One", "2099-12-31"), ("Two", "2099-12-31T10:00:00Z"))
        ],
    )

    assert [m.expires_at for m in memories(source)] == [
        "2099-12-31T23:59:59.999Z",
        "2099-12-31T10:00:00.000Z",
    ]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
def test_a_file_is_read_in_whatever_encoding_with_whatever_line_ends(
    encoding: str, line_end: str, tmp_path: Path
) -> None:
    observed = {"type": "entity", "name": "Zoë", "entityType": "p", "observations": ["Sings 📒"]}
    texts = {
        "memory.jsonl": [json.dumps(observed, ensure_ascii=False), ""],
        "a.csv": ["", "content,subject,date", "Sings 📒,Zoë,2026-01-02", ""],
        "a.md": ["---", "title: Zoë", "---", "Sings 📒", ""],
    }
    for name, lines in texts.items():
        path = tmp_path / name
        path.write_bytes(line_end.join(lines).encode(encoding))
        assert [(m.content, m.subject) for m in memories(path)] == [("Sings 📒", "Zoë")], name


def test_entities_say_what_they_say_however_their_observations_are_written(tmp_path: Path) -> None:
    dated = {"content": "Reads.", "createdAt": "2026-01-02"}
    entities: list[dict[str, object]] = [
        {"name": "A", "observations": "Sings."},
        {"name": "B", "observations": [dated, {"text": "Runs."}]},
        {"name": "C", "observations": [None, 5, "", "Cooks."]},
        {"name": "D"},
        {"name": "E", "observations": []},
    ]
    lines = [json.dumps({"type": "entity", "entityType": "person", **one}) for one in entities]
    source = written(tmp_path / "memory.jsonl", "\n".join(lines))

    form, _, reading = read(source)

    assert form == "server-memory"
    assert [(m.subject, m.content) for m in memories(source)] == [
        *(("A", "Sings."), ("B", "Reads."), ("B", "Runs."), ("C", "Cooks.")),
    ]
    assert [m.created_at for m in memories(source)][1] == "2026-01-02T00:00:00.000Z"
    assert [one.place for one in reading.problems] == [
        f"memory.jsonl:3, observation {number}" for number in (1, 2, 3)
    ]
    assert reading.not_kept == {"entities of which nothing is said": 2}


@pytest.mark.parametrize(
    "value",
    [
        {"data": {"memories": [{"content": "One"}]}},
        {"status": "ok", "result": {"points": [{"id": 1, "payload": {"data": "One", "hash": "h"}}]}},
        [{"id": 1, "metadata": '{"content": "One"}'}],
    ],
)
def test_records_are_found_one_level_deeper(value: object, tmp_path: Path) -> None:
    assert [m.content for m in memories(written(tmp_path / "a.json", value))] == ["One"]


def test_an_archive_inside_is_told_of_and_not_opened(tmp_path: Path) -> None:
    zipped(tmp_path / "inner.zip", {"conversations.json": [CHAT]})
    with pytest.raises(SourceError, match=r"inner\.zip is an archive itself"):
        read(tmp_path)
    inner = (tmp_path / "inner.zip").read_bytes()
    with zipfile.ZipFile(tmp_path / "outer.zip", "w") as archive:
        archive.writestr("Takeout/inner.ZIP", inner)
        archive.writestr("Takeout/notes.md", "One.")
    _, _, reading = read(tmp_path / "outer.zip")

    written(tmp_path / "a.jsonl", '{"content": "One."}')
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress((tmp_path / "a.jsonl").read_bytes()))
    with pytest.raises(SourceError, match="it is packed"):
        read(tmp_path / "a.jsonl.gz")

    assert [one.place for one in reading.problems] == ["Takeout/inner.ZIP"]
    assert [m.content for m in memories(tmp_path / "outer.zip")] == ["One."]


def test_conversations_of_one_title_without_ids_are_two_and_archived_ones_stay_so(
    tmp_path: Path,
) -> None:
    bare = {name: value for name, value in CHAT.items() if name not in ("id", "conversation_id")}
    claude = {"name": "T", "chat_messages": [{"sender": "human", "content": "Hello"}]}
    chats = [bare, {**bare, "create_time": 1.6e9, "is_archived": True}, {**bare, "mapping": {}}]
    for name, value in (
        ("chatgpt", chats),
        (
            "claude",
            [
                {**claude, "created_at": "2026-01-01"},
                {**claude, "created_at": "2026-01-02", "is_archived": True},
                {**claude, "chat_messages": []},
            ],
        ),
    ):
        form, records, reading = read(written(tmp_path / name / "conversations.json", value))
        threads = [record for record in records if isinstance(record, ThreadRecord)]
        assert form == name
        assert len({thread.key for thread in threads}) == 2
        assert [thread.archived for thread in threads] == [False, name == "chatgpt"]
        assert reading.not_kept["empty conversations"] == 1
    assert said(tmp_path / "claude" / "conversations.json") == [("user", "Hello")] * 2


# Notes


def test_a_vaults_front_matter_tags_names_and_links_are_kept(tmp_path: Path) -> None:
    head = (
        '---\ntitle: "Our kitchen"\ntags:\n  - home\n  - "paint"\ncreated: 2026-01-02\ncss: wide\n'
        "aliases: [Galley]\nurl: https://a.example\n---\n"
    )
    body = (
        "Intro with [[Anna|her]].\n\n## Preferences\n\n"
        "- Matt paint #colour, not `#code`\n  - on all walls\n"
    )
    written(tmp_path / "vault" / "House" / "kitchen.md", head + body)
    written(tmp_path / "vault" / "2026-03-04.md", "Slept well.")
    written(tmp_path / "vault" / ".obsidian" / "app.json", "{}")
    written(tmp_path / "vault" / "photo.jpg", "x")

    form, _, reading = read(tmp_path / "vault")
    found = memories(tmp_path / "vault")

    assert form == "markdown"
    assert [(m.content, m.memory_type, m.subject, m.source) for m in found] == [
        ("Slept well.", "fact", "2026-03-04", "2026-03-04.md"),
        (
            *("Intro with [[Anna|her]].", "fact", "Our kitchen (home, paint, Anna, Galley)"),
            "House/kitchen.md (https://a.example)",
        ),
        (
            *("Matt paint #colour, not `#code`\n- on all walls", "preference"),
            "Our kitchen: Preferences (home, paint, colour, Galley)",
            "House/kitchen.md (https://a.example)",
        ),
    ]
    assert found[0].occurred_at is not None
    assert found[0].occurred_at[:7] == "2026-03"
    assert found[1].created_at is not None
    assert found[1].created_at[:7] == "2026-01"
    assert reading.not_kept == {
        "hidden files and folders": 1,
        "css": 1,
        "files that are no Markdown": 1,
    }
    assert [m.content for m in memories(tmp_path / "vault" / "2026-03-04.md")] == ["Slept well."]


@pytest.mark.parametrize(
    "tags",
    [
        *("tags: home, paint", 'tags: "#home #paint"', "tags: home paint", "tag: [home, '#paint']"),
        *("tags: [home, paint] # mine", "tags: # mine\n  - home\n  - paint", "tags:\n- [home, paint]"),
        *("Tags: home; paint", "tags: home\naliases: null\nTag:\n  paint", 'tags: ["home", "paint"]'),
    ],
)
def test_tags_are_read_however_a_note_has_them(tags: str, tmp_path: Path) -> None:
    page = written(tmp_path / "a.md", f"---\n{tags}\n---\n- One.\n")

    assert [m.subject for m in memories(page)] == ["a (home, paint)"]


def test_a_head_is_read_as_its_program_writes_it(tmp_path: Path) -> None:
    head = (
        "title: >-\n  Our\n  kitchen\nsource:\n  - https://a.example\n  - https://b.example\n"
        'created: "[[2026-01-02]]"\naliases: ["A, B", C]\nextra:\n  inner: kept apart\n'
    )
    page = written(tmp_path / "a.md", f"---\n{head}---\nOne.\n")

    (found,) = memories(page)

    assert found.subject == "Our kitchen (A, B, C)"
    assert found.source == "a.md (https://a.example, https://b.example)"
    assert found.created_at is not None
    assert found.created_at[:7] == "2026-01"
    assert read(page)[2].not_kept == {"extra": 1}


@pytest.mark.parametrize(
    "head",
    [
        '{\n  "title": "T",\n  "tags": ["x", "y"],\n  "date": "2026-01-02"\n}\n\n',
        '+++\ntitle = "T"\ndate = 2026-01-02\n[taxonomies]\ntags = ["x", "y"]\n+++\n',
        "---\nTitle: T\nDate: 2026-01-02\nTags:\n  - x\n  - y\n---\n",
    ],
)
def test_a_head_may_be_json_toml_or_yaml(head: str, tmp_path: Path) -> None:
    form, _, reading = read(written(tmp_path / "a.md", f"{head}One.\n"))

    (found,) = memories(tmp_path / "a.md")

    assert (form, found.content, found.subject) == ("markdown", "One.", "T (x, y)")
    assert found.created_at is not None
    assert found.created_at[:7] == "2026-01"
    assert not reading.problems


@pytest.mark.parametrize(
    ("line", "content"),
    [
        ("- uses [[B]]", "K uses B"),
        ("- [[B]]", "K relates to B"),
        ("- part_of [[B|the house]] (since 2020)", "K part of B (since 2020)"),
        ("Paint as in [[B]], or [[C]].", "Paint as in [[B]], or [[C]]."),
        ("- see [[B]] and [[C]]", "see [[B]] and [[C]]"),
    ],
)
def test_only_a_relation_of_basic_memory_is_read_as_one(line: str, content: str, tmp_path: Path) -> None:
    written(tmp_path / "k.md", f"---\ntitle: K\npermalink: k\n---\n{line}\n")

    assert [m.content for m in memories(tmp_path)] == [content]


def test_a_workspace_of_an_agent_that_has_only_logs_is_known(tmp_path: Path) -> None:
    written(tmp_path / "AGENTS.md", "Do this.")
    written(tmp_path / "memory" / "2026-01-05.md", "- Painted.")

    form, records, reading = read(tmp_path)

    assert (form, [record.place for record in records]) == ("openclaw", ["memory/2026-01-05.md"])
    assert reading.not_kept == {"AGENTS.md": 1}


# Whatever is in a file

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
NAMES = st.sampled_from(
    [
        "content",
        "text",
        "mapping",
        "chat_messages",
        "type",
        "observations",
        "tags",
        "thread",
        "role",
        "id",
    ]
)
RECORDS = JSON | st.dictionaries(NAMES | st.text(max_size=4), JSON, max_size=6)


@given(values=st.lists(RECORDS, max_size=5), form=st.sampled_from(sorted({*FORMATS} - {"csv"})))
def test_any_json_is_taken_or_reported(values: list[object], form: str, tmp_path: Path) -> None:
    path = written(tmp_path / "any.json", values)

    _, records, reading = read(path, form)

    if form == "json":
        told = [record.place for record in records] + [problem.place for problem in reading.problems]
        places = {place.split(",")[0] for place in told}
        assert len(places) + reading.not_kept["entities of which nothing is said"] >= len(values)


def attempt(path: Path, form: str | None) -> str:
    try:
        read(path, form)
    except SourceError as error:
        return str(error)
    return "read."


@given(
    content=st.binary(max_size=400)
    | st.text(max_size=200).map(lambda said: said.encode("utf-8", "replace"))
)
@example(content=b"\r\x00")
def test_any_bytes_are_taken_or_reported_or_refused_in_a_sentence(
    content: bytes, tmp_path: Path
) -> None:
    for name in ("a.md", "a.csv", "a.json", "a.jsonl", "a.db", "a.zip"):
        path = tmp_path / name
        path.write_bytes(content)
        for form in (None, *FORMATS):
            assert attempt(path, form).endswith(".")


@given(rows=st.lists(st.lists(st.text(max_size=20), min_size=1, max_size=4), max_size=5))
def test_any_table_is_taken_row_by_row(rows: list[list[str]], tmp_path: Path) -> None:
    import csv

    with (tmp_path / "any.csv").open("w", encoding="utf-8", errors="replace", newline="") as file:
        csv.writer(file).writerows([["content", "tags", "date", "x"], *rows])

    _, records, reading = read(tmp_path / "any.csv", "csv")

    filled = sum(any(row) for row in rows)
    assert len(records) + reading.problem_count == filled


@given(values=st.lists(JSON, max_size=6), size=st.integers(1, 9), indent=st.sampled_from([None, 1]))
def test_a_stream_of_json_has_the_values_of_the_text(
    values: list[object], size: int, indent: int | None
) -> None:
    class Small:
        """Yields a few bytes at a time, so that values lie across reads."""

        def __init__(self, text: bytes) -> None:
            self.text = text

        def read(self, _: int) -> bytes:
            part, self.text = self.text[:size], self.text[size:]
            return part

    whole = {"list": values, "beside": 1, "more": values}
    for text, names in ((values, [""]), (whole, ["list", "more"])):
        stream = JsonStream(Small(json.dumps(text, indent=indent).encode()))  # type: ignore[arg-type]
        found = [(name, number, json.loads(part or b"")) for name, number, part in stream.items()]
        expected = [(name, number, value) for name in names for number, value in enumerate(values)]
        assert repr([one for one in found if one[1] >= 0]) == repr(expected)
