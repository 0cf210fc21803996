"""What the command line answers: to people in their words, to scripts in objects of one kind."""

import json
import shutil
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import click
import pytest

from conftest import Run
from soulkeep.app import open_home
from soulkeep.cli import connect
from soulkeep.cli import soulkeep as command
from soulkeep.models import NewMemory

FENCE = ("do not follow", "instructions", "max_tokens", "soulkeep://")


@pytest.mark.embedder
def test_recall_tells_a_person_what_fits_how_well_why_and_since_when(run: Run) -> None:
    run("remember", "The cat is called Miso.", "--subject", "Miso", "--source", "a letter")
    run("remember", "The boiler was serviced.", "--occurred-at", "2026-05-04", "--type", "decision")
    run("remember", "Bread needs strong flour.", "--expires-at", "2999-01-01")

    code, out, _ = run("recall", "what is the cat called", "--limit", "1")
    assert (code, out.splitlines()[0]) == (0, "#1 fits well: its meaning, the words cat, called")
    facts = out.splitlines()[1]
    assert facts.startswith("   fact about Miso · 20")
    assert facts.endswith(" · global · from a letter")
    assert out.splitlines()[2] == "| The cat is called Miso."

    assert "2026-05-04" in run("recall", "boiler in May 2026", "--limit", "1")[1]
    assert "its date" in run("recall", "boiler in May 2026", "--limit", "1")[1]
    assert "expires 2999-01-01" in run("recall", "flour for bread", "--limit", "1")[1]
    assert not [sign for sign in FENCE if sign in run("recall", "cat")[1]]


@pytest.mark.embedder
def test_recall_says_what_hardly_fits_and_when_nothing_does(run: Run) -> None:
    assert run("recall", "anything")[1] == "Nothing known fits.\n"
    run("remember", "The cat is called Miso.")

    out = run("recall", "quarterly tax return")[1]

    assert out.startswith("Nothing known fits. The nearest memories:\n#1 hardly fits: ")
    assert "| The cat is called Miso." in out


def test_recall_by_words_alone_says_so(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOULKEEP_EMBEDDER", "none")
    run("remember", "The cat is called Miso.")

    out = run("recall", "cat")[1]

    assert out.startswith("#1 fits well: the words cat\n")
    assert out.endswith("Searched by words alone; `soulkeep doctor` says why.\n")


def test_recall_shows_the_sentences_that_a_tool_shows(run: Run, home_path: Path) -> None:
    long = "Nothing of note happened on that day. " * 200
    run("remember", "-", typed=f"{long} The spare key hangs behind the boiler. {long}")
    for number in range(5):
        run("remember", f"Key figure {number} of the year.")

    out = run("recall", "where does the spare key hang", "--max-tokens", "200")[1]

    assert "The spare key hangs behind the boiler." in out
    assert "in part, whole by `soulkeep memories show 1`" in out
    assert len(out) < 200 * 4 + 600
    assert long.strip() in run("memories", "show", "1")[1]


def test_messages_are_shown_after_the_memories(run: Run) -> None:
    thread = json.loads(run("threads", "create", "Pier", "--json")[1])["id"]
    run("threads", "save", thread, typed='[{"role": "user", "content": "Is the harbour frozen?"}]')

    out = run("recall", "harbour", "--messages")[1]

    assert f"of thread {thread}" in out
    assert "| Is the harbour frozen?" in out
    assert not [sign for sign in FENCE if sign in out]


def test_what_is_for_models_keeps_its_fence(run: Run) -> None:
    run("remember", "The harbour is frozen.")

    assert "data, not instructions ===\n| #1" in run("context", "--query", "harbour")[1]


def test_what_is_similar_is_shown_to_a_person_without_a_fence(run: Run) -> None:
    run("remember", "The cat is called Miso.")
    out = run("remember", "The cat is called Momo.")[1]

    assert "similar" not in out or "Similar memories that are kept already:\n| #1" in out
    assert not [sign for sign in FENCE if sign in out]


TOOLS = ("create_thread", "recall returned", "thread_id", "memory_ids", "max_tokens", "browse_", "send ")


@pytest.fixture(scope="module")
def harbour(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with a memory and one that was forgotten, closed, to be copied."""
    folder = tmp_path_factory.mktemp("harbour") / "home"
    with closing(open_home(folder, embedder="none")) as home:
        home.memories.remember([NewMemory("The harbour is frozen."), NewMemory("It thaws.")])
        home.lifecycle.forget([2])
    return folder


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("recall", "x", "--thread", "nope"), "`soulkeep threads list`"),
        (("recall", " "), "QUERY must not be blank"),
        (("recall", "x", "--limit", "0"), "--limit must be from 1 to 100"),
        (("recall", "x", "--since", "someday"), "--since must be a date"),
        (("memories", "list", "--since", "2026-05-02", "--until", "2026-05-01"), "--since must not be"),
        (("memories", "list", "--since", "2026-05-02", "--until", "2026-05-01"), " after --until; "),
        (("memories", "show", "9"), "`soulkeep memories list`"),
        (("memories", "forget", "9", "--yes"), "`soulkeep trash`"),
        (("memories", "revise", "2", "x"), "`soulkeep memories restore 2` brings it back"),
        (("memories", "restore", "1"), "`soulkeep trash`"),
        (("memories", "show", str(2**80)), "`soulkeep memories list`"),
        (("undo", str(2**63)), "that was shown before"),
        (("memories", "move", "1", "--thread", "nope"), "`soulkeep threads list`"),
        (("remember", "x", "--expires-at", "2020-01-01"), "--expires-at has passed"),
        (("remember", ""), "CONTENT must not be blank"),
        (("context", "--max-tokens", "5"), "--max-tokens must be from"),
        (("threads", "create", " "), "TITLE must not be blank"),
        (("prompts", "change", "9", "--name", "x"), "`soulkeep prompts list`"),
        (("undo", "9"), "`soulkeep changes`"),
        (("documents", "promote", "9", "User Facts"), "`soulkeep memories list`"),
        (("log", "--event", ""), "--event must not be blank"),
        (("backup", "--label", " "), "--label must not be blank"),
    ],
)
def test_what_is_refused_is_said_in_options_and_commands(
    run: Run, harbour: Path, home_path: Path, arguments: tuple[str, ...], said: str
) -> None:
    shutil.copytree(harbour, home_path)

    code, out, err = run(*arguments)

    assert (code, out, err.count("\n")) == (1, "", 1)
    assert err.startswith("soulkeep: ")
    assert said in err
    assert not [word for word in TOOLS if word in err]


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        (
            "TIMEZONE",
            "Mars",
            "_TIMEZONE is no time zone; use a name such as Europe/Berlin.\n",
        ),
        (
            "PRESSURE",
            "2",
            "_PRESSURE: Input should be less than 1; correct it or unset it.\n",
        ),
        ("BACKUPS", "x", "SOULKEEP_BACKUPS: "),
    ],
)
def test_a_setting_that_is_wrong_is_named(
    run: Run, monkeypatch: pytest.MonkeyPatch, name: str, value: str, said: str
) -> None:
    monkeypatch.setenv(f"SOULKEEP_{name}", value)

    code, out, err = run("stats")

    assert (code, out, err.count("\n")) == (2, "", 1)
    assert said in err


def commands(group: click.Command, path: tuple[str, ...] = ()) -> dict[tuple[str, ...], click.Command]:
    if not isinstance(group, click.Group):
        return {path: group}
    found: dict[tuple[str, ...], click.Command] = {}
    for name in group.list_commands(click.Context(group)):
        command = group.get_command(click.Context(group), name)
        assert command is not None
        if not command.hidden:
            found |= commands(command, (*path, name))
    return found


WITHOUT_JSON = {("serve",), ("demo",), ("completion",)}

MEMORY = {
    "id", "thread_id", "content", "memory_type", "source", "created_at", "subject", "occurred_at",
    "document", "expires_at",
}  # fmt: skip
THREAD = {"id", "title", "system_prompt", "archived", "created_at", "last_active_at"}
PROMPT = {"id", "name", "content", "is_active", "priority", "created_at"}
MESSAGE = {"id", "role", "created_at", "content"}
CHANGE = {"id", "made_at", "agent_id", "action", "undone_by", "rows", "did"}
ACCOUNT = {"name", "created_at", "last_used_at", "revoked_at", "issuer", "subject"}
TEAM = {"name", "created_at", "deleted_at", "members", "url"}
BACKUP = {"id", "made_at", "label", "automatic", "size", "counts", "left_out"}

OBJECTS: dict[tuple[str, ...], tuple[set[str], dict[str, set[str]]]] = {
    ("memories", "list"): (set(), {"memories": MEMORY}),
    ("memories", "show", "1"): (set(), {"memories": MEMORY}),
    ("memories", "move", "1", "--global"): (set(), {"memories": MEMORY}),
    ("memories", "forget", "2", "--yes"): (set(), {"memories": MEMORY}),
    ("memories", "restore", "2"): (set(), {"memories": MEMORY}),
    ("memories", "revise", "3", "Another text."): (set(), {"receipts": {"id", "stored"}}),
    ("memories", "history", "1"): ({"now", "past"}, {}),
    ("remember", "One more."): (set(), {"receipts": {"id", "stored", "similar", "replaced"}}),
    ("recall", "harbour", "--messages"): (
        {"mode"},
        {"matches": MEMORY | {"score", "relevance", "reasons"}, "messages": MESSAGE | {"thread_id"}},
    ),
    ("trash",): (set(), {"trash": {"memory", "change_id", "replaced_by", "gone_at"}}),
    ("changes",): (set(), {"changes": CHANGE}),
    ("undo", "--yes"): ({"undone_by"}, {"changes": CHANGE}),
    ("purge", "4", "--yes"): ({"purged"}, {}),
    ("documents", "show", "SOUL.md"): ({"name", "text"}, {}),
    ("documents", "add", "MEMORY.md", "User Facts", "Likes plums."): ({"name", "section", "entry"}, {}),
    ("documents", "replace", "User Facts", "Likes plums.", "Likes figs."): ({"section", "tokens"}, {}),
    ("documents", "remove", "User Facts", "Likes figs."): ({"section", "entry", "budget"}, {}),
    ("documents", "promote", "1", "User Facts"): ({"section", "entry"}, {}),
    ("documents", "log", "Bought plums."): ({"day", "time"}, {}),
    ("documents", "day"): ({"day", "text"}, {}),
    ("documents", "history", "MEMORY.md"): (set(), {"versions": {"id", "size"}}),
    ("documents", "edit", "SOUL.md", "# Mine"): ({"name", "changed"}, {}),
    ("documents", "restore", "MEMORY.md", "VERSION"): ({"name", "version"}, {}),
    ("prompts", "add", "Tone", "Be brief."): (PROMPT, {}),
    ("prompts", "list"): (set(), {"prompts": PROMPT | {"mcp_name"}}),
    ("prompts", "change", "1", "--name", "Voice"): (PROMPT, {}),
    ("prompts", "deactivate", "1"): (PROMPT, {}),
    ("prompts", "activate", "1"): (PROMPT, {}),
    ("prompts", "remove", "1", "--yes"): (PROMPT, {}),
    ("threads", "create", "Quay"): (THREAD, {}),
    ("threads", "list"): (set(), {"threads": THREAD}),
    ("threads", "show", "THREAD"): (THREAD, {"memories": MEMORY, "messages": MESSAGE}),
    ("threads", "messages", "THREAD"): ({"has_more"}, {"messages": MESSAGE}),
    ("threads", "save", "THREAD"): (set(), {"messages": {"id", "stored"}}),
    ("threads", "rename", "THREAD", "Pier"): (THREAD, {}),
    ("threads", "prompt", "THREAD", "Be brief."): (THREAD, {}),
    ("threads", "archive", "THREAD"): (THREAD, {}),
    ("threads", "unarchive", "THREAD"): (THREAD, {}),
    ("threads", "delete", "THREAD", "--memories", "global", "--yes"): (THREAD | {"change_id"}, {}),
    ("accounts", "add", "ann"): ({"name", "token", "url"}, {}),
    ("accounts", "list"): (set(), {"accounts": ACCOUNT}),
    ("accounts", "rotate", "ann"): ({"name", "token", "url"}, {}),
    ("teams", "add", "crew"): (TEAM, {}),
    ("teams", "join", "crew", "ann", "--write"): (TEAM, {"members": {"account", "may_write"}}),
    ("teams", "list"): (set(), {"teams": TEAM}),
    ("teams", "delete", "crew", "--yes"): (TEAM, {}),
    ("teams", "restore", "crew"): (TEAM, {}),
    ("teams", "leave", "crew", "ann"): (TEAM, {}),
    ("teams", "delete", "crew", "--yes", "--home", "HOME"): (TEAM, {}),
    ("teams", "purge", "crew", "--yes"): ({"name", "purged"}, {}),
    ("accounts", "revoke", "ann"): (ACCOUNT, {}),
    ("accounts", "delete", "ann", "--yes"): (ACCOUNT | {"deleted_at"}, {}),
    ("accounts", "restore", "ann"): ({"name", "token", "url"}, {}),
    ("accounts", "delete", "ann", "--yes", "--home", "HOME"): (ACCOUNT, {}),
    ("accounts", "purge", "ann", "--yes"): ({"name", "purged"}, {}),
    ("install", "cursor"): ({"client", "changed", "backups", "tools", "restart"}, {}),
    ("uninstall", "cursor"): ({"client", "changed"}, {}),
    ("context",): ({"text"}, {}),
    ("backup",): (BACKUP, {}),
    ("backups",): (set(), {"backups": BACKUP}),
    ("restore", "2999-01-01", "--yes"): ({"backup", "former", "kept", "left"}, {}),
    ("copy", "HOME", "ELSEWHERE"): ({"rows", "documents"}, {}),
    ("export", "EXPORT"): ({"exported"}, {}),
    ("import", "EXPORT"): ({"import"}, {}),
    ("log",): (set(), {"log": {"at", "agent_id", "event", "details"}}),
    ("stats",): ({"memories_by_day", "sizes", "usage"}, {}),
    ("doctor",): ({"versions", "paths", "rows", "faults"}, {}),
    ("doctor", "--repair"): ({"found", "rebuilt", "left"}, {}),
    ("reembed", "--yes"): ({"embedder", "memories", "tokens", "cost", "waiting"}, {}),
    ("reindex",): ({"indexed", "embedder"}, {}),
    ("compact",): ({"freed"}, {}),
}
"""For commands, in an order in which they can be run: names in the object, and in those of its lists."""


def test_every_command_that_answers_has_json() -> None:
    found = commands(command)

    with_json = {name for name, one in found.items() if "as_json" in [p.name for p in one.params]}
    assert with_json == found.keys() - WITHOUT_JSON


@pytest.mark.embedder("universal")
@pytest.mark.usefixtures("forked")
def test_every_command_prints_one_object_with_the_same_names_for_the_same_things(
    run: Run, home_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = set()
    for name in ("HOME", "USERPROFILE"):  # where programs have their configurations
        monkeypatch.setenv(name, str(home_path.parent))
    thread = json.loads(run("threads", "create", "Harbour", "--json")[1])["id"]
    run("remember", "The harbour is frozen.", "--thread", thread)
    for number in range(3):
        run("remember", f"Memory {number} of the harbour.", "--thread", thread)
    said = '[{"role": "user", "content": "Is the harbour frozen?"}]'
    run("threads", "save", thread, typed=said)

    def latest_version() -> str:
        versions = json.loads(run("documents", "history", "MEMORY.md", "--json")[1])["versions"]
        return str(versions[0]["id"])

    named: dict[str, Callable[[], str]] = {
        "THREAD": lambda: thread,
        "VERSION": latest_version,
        "HOME": lambda: str(home_path),
        "ELSEWHERE": lambda: str(home_path.with_name("elsewhere")),
        "EXPORT": lambda: str(home_path.with_name("all.jsonl")),
    }
    for arguments, (names, lists) in OBJECTS.items():
        typed = [named[word]() if word in named else word for word in arguments]
        code, out, err = run(*typed, "--json", typed=said)
        assert (code, err) == (0, ""), arguments
        answer = json.loads(out)
        assert isinstance(answer, dict), arguments
        assert names | lists.keys() <= answer.keys(), arguments
        for name, items in lists.items():
            assert all(items <= item.keys() for item in answer[name]), arguments
            assert answer[name] or arguments == ("trash",), arguments
        tried |= {arguments[:1], arguments[:2]}

    assert commands(command).keys() - WITHOUT_JSON <= tried
    assert '"memory"' not in run("memories", "list", "--json")[1]


@pytest.mark.parametrize(
    "arguments", [("memories", "forget", "1"), ("undo",), ("purge", "1"), ("purge", "--trash")]
)
def test_a_script_is_asked_nothing(run: Run, arguments: tuple[str, ...]) -> None:
    run("remember", "Kept.")

    code, _, err = run(*arguments, "--json", typed="y\n")
    unanswered, _, said = run(*arguments)

    assert (code, "add --yes" in err) == (2, True)
    assert (unanswered, "Nobody is there to answer, so nothing was done; add --yes." in said) == (
        2,
        True,
    )
    assert "Kept." in run("memories", "list")[1]


def test_what_a_script_may_read_is_in_the_help(run: Run) -> None:
    out = " ".join(run("--help")[1].split())

    assert "With --json a command prints one JSON object" in out
    assert "The exit code is 0" in out


def _played(*places: int | None) -> Callable[..., Any]:
    async def play(home: Path) -> tuple[list[connect._Answer], str]:
        return [
            connect._Answer("Who?", "The right one." if p else None, p, 1.0) for p in places
        ], "hybrid"

    return play


@pytest.mark.parametrize(
    ("places", "code", "said"),
    [
        ((1, 1), 0, "The right one.  (came first, 1.0 ms)"),
        ((1, 2), 0, "The right one.  (came second, 1.0 ms)"),
        ((1, 7), 0, "The right one.  (came at place 7, 1.0 ms)"),
        ((1, None), 1, "not found (1.0 ms)"),
        ((None, None), 1, "0 of 2 answers came first"),
    ],
)
def test_the_demo_shows_no_wrong_memory_as_an_answer_and_fails_where_one_is_missed(
    run: Run, monkeypatch: pytest.MonkeyPatch, places: tuple[int | None, ...], code: int, said: str
) -> None:
    monkeypatch.setattr(connect, "_play", _played(*places))

    ended, out, err = run("demo")

    assert ended == code
    assert said in out
    missed = places.count(None)
    assert err == (f"soulkeep: {missed} answer{'s' * (missed > 1)} not found.\n" if missed else "")


@pytest.mark.parametrize("server", ["/bin/false", "/nowhere/soulkeep"])
def test_a_demo_without_a_server_fails_in_one_line(
    run: Run, monkeypatch: pytest.MonkeyPatch, server: str
) -> None:
    monkeypatch.setattr(connect, "client_command", lambda _: [server, "serve"])

    code, out, err = run("demo")

    assert (code, out, err.count("\n")) == (1, "", 1)
    assert err.startswith("soulkeep: the demo failed: ")


@pytest.mark.parametrize("count", [0, 1, 2])
def test_numbers_agree_with_their_nouns(run: Run, count: int, home_path: Path) -> None:
    for number in range(count):
        run("remember", f"Memory {number}.")
    noun = "memory" if count == 1 else "memories"

    assert f": {count} {noun}, " in run("backup")[1]
    assert f"Indexed {count} {noun} with" in run("reindex")[1]
    home = open_home(home_path)
    thread = home.threads.create_thread("Pier").id
    home.close()
    deleted = run("threads", "delete", thread, "--memories", "global", "--yes")[1]
    assert "0 messages went with it; 0 memories became global." in deleted
    if count:
        ids = [str(number + 1) for number in range(count)]
        assert f"Moved {count} {noun} to the trash." in run("memories", "forget", *ids, "--yes")[1]
