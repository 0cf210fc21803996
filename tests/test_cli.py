"""The command line as a person types it."""

import json
import sys
from contextlib import closing
from pathlib import Path

import pytest

from conftest import Run
from engine import another_program, database_of, file_of
from soulkeep.app import open_home
from soulkeep.cli.connect import MEMORIES, QUESTIONS
from soulkeep.models import NewMemory


def test_help_lists_every_command(run: Run) -> None:
    code, out, _ = run("--help")

    assert code == 0
    for command in ("serve", "demo", "remember", "recall", "prompts", "doctor", "reindex", "compact"):
        assert f"\n  {command} " in out


def test_the_version_is_the_packages(run: Run) -> None:
    assert run("--version") == (0, "soulkeep, version 0.1.0\n", "")


@pytest.mark.embedder
def test_a_memory_is_kept_and_recalled(run: Run) -> None:
    code, out, _ = run("remember", "The cat is called Miso.", "--type", "fact", "--source", "me")
    assert (code, out) == (0, "Stored as #1 (fact, global).\n")

    code, out, _ = run("recall", "name of the pet", "--limit", "3", "--since", "2020-01-01")

    assert code == 0
    assert "| The cat is called Miso." in out


def test_a_memory_may_come_from_stdin(run: Run) -> None:
    run("remember", "-", typed="Piped words.")

    assert "| Piped words." in run("recall", "piped")[1]


@pytest.mark.embedder
def test_stored_control_characters_do_not_reach_the_terminal(run: Run, home_path: Path) -> None:
    home = open_home(home_path)
    home.memories.remember([NewMemory("Red \x1b[31malert\x07.")])
    home.close()

    assert "| Red �[31malert�." in run("recall", "alert")[1]


def test_the_home_is_chosen_before_or_after_the_command_and_by_the_environment(
    run: Run, tmp_path: Path
) -> None:
    run("--home", str(tmp_path / "one"), "remember", "In one.")
    run("remember", "In two.", "--home", str(tmp_path / "two"))
    run("remember", "In the environment's.")

    stores = {path.parent.name for path in tmp_path.glob("*/soulkeep.db")}
    assert stores == {"one", "two", "home"}


def test_an_expected_failure_is_one_line_on_stderr(run: Run, home_path: Path) -> None:
    for arguments in (
        ("recall", "x", "--thread", "nope"),
        ("recall", "x", "--since", "someday"),
        ("recall", " "),
        ("remember", ""),
        ("prompts", "activate", "9"),
    ):
        code, out, err = run(*arguments)
        assert (code, out) == (1, "")
        assert err.startswith("soulkeep: ")
        assert err.count("\n") == 1


def test_a_wrong_option_is_a_usage_error(run: Run) -> None:
    code, _, err = run("recall", "x", "--limt", "3")

    assert code == 2
    assert "--limt" in err


def test_prompts_are_managed_from_the_command_line(run: Run) -> None:
    assert "There are no global prompts" in run("prompts", "list")[1]
    assert run("prompts", "add", "Tone", "Be brief.", "--priority", "2")[1] == (
        "Added prompt 1: Tone (priority 2, active)\n"
    )
    run("prompts", "add", "Safety", "-", "--priority", "9", typed="Ask first.")
    assert (
        run("prompts", "change", "1", "--name", "Voice")[1]
        == "Changed prompt 1: Voice (priority 2, active)\n"
    )
    assert "inactive" in run("prompts", "deactivate", "1")[1]
    assert run("prompts", "list")[1] == (
        "prompt 2: Safety (priority 9, active)\nprompt 1: Voice (priority 2, inactive)\n"
    )
    assert "(priority 2, active)" in run("prompts", "activate", "1")[1]
    assert run("prompts", "remove", "2", "--yes")[1].endswith("Ask first.\n")
    assert run("prompts", "list")[1] == "prompt 1: Voice (priority 2, active)\n"


def test_removing_a_prompt_asks_first(run: Run) -> None:
    run("prompts", "add", "Tone", "Be brief.")

    assert run("prompts", "remove", "1", typed="n\n")[0] == 1
    assert "Tone" in run("prompts", "list")[1]
    assert run("prompts", "remove", "1", typed="y\n")[0] == 0
    assert "no global prompts" in run("prompts", "list")[1]


def test_a_change_of_nothing_is_a_usage_error(run: Run) -> None:
    code, _, err = run("prompts", "change", "1")

    assert code == 2
    assert "--name" in err


@pytest.mark.embedder
def test_doctor_reads_versions_paths_and_counts_and_finds_a_whole_store_in_order(
    run: Run, home_path: Path
) -> None:
    run("remember", "Counted.")

    code, out, _ = run("doctor")

    assert code == 0
    assert out.endswith("Everything is in order.\n")
    for part in ("sqlite-vec", "use-multilingual-v3", str(home_path), "SOUL.md"):
        assert part in out
    assert {"memories 1", "vectors 1", "threads 0"} <= {
        " ".join(line.split()) for line in out.splitlines()
    }


@pytest.mark.embedder("auto")
def test_doctor_names_each_fault_with_what_to_do_and_fails(run: Run, home_path: Path) -> None:
    run("remember", "Its vector will vanish.")
    home = open_home(home_path)
    with home.repository.transaction():
        database_of(home).execute("DELETE FROM vec_memories")
    home.close()
    if sys.platform != "win32":
        home_path.chmod(0o755)

    code, out, _ = run("doctor")

    assert code == 1
    assert "FAULT vectors: 1 memory has no vector; run `soulkeep reindex`" in out
    if sys.platform != "win32":
        assert f"chmod go-rwx '{home_path}'" in out
    assert run("reindex")[1].startswith("Indexed 1 memory with minilm-l6-v2+use-multilingual-v3:896")
    home_path.chmod(0o700)
    assert run("doctor")[0] == 0


@pytest.mark.embedder
def test_doctor_names_the_mismatch_of_embedders(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    run("remember", "With a vector.")
    monkeypatch.setenv("SOULKEEP_EMBEDDER", "none")

    code, out, _ = run("doctor")

    assert code == 1
    assert "searching by words alone" in out
    assert "FAULT embedder" in out
    assert "soulkeep reindex" in out


@pytest.mark.embedder("auto")
def test_the_demo_finds_answers_that_share_no_word_with_the_question(run: Run) -> None:
    code, out, _ = run("demo")

    assert code == 0
    assert "24 memories kept" in out
    first, asked = (int(word) for word in out.split(" answers came first")[0].split()[-3::2])
    assert first == asked == len(QUESTIONS) == 10
    assert json.loads(out[out.index("{") :])["mcpServers"]["soulkeep"]["args"] == ["serve"]


def test_the_demo_uses_the_settings_that_a_user_has_chosen(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOULKEEP_EMBEDDER", "none")
    monkeypatch.setenv("SOULKEEP_TOOLS", "full")

    code, out, err = run("demo")

    assert (code, err) == (0, "")
    assert f"{len(QUESTIONS)} of {len(QUESTIONS)} answers came first" in out
    assert "lexical search" in out
    assert "Asked for by one of their words" in out


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("EMBEDDER", "wordlama", "SOULKEEP_EMBEDDER is none of auto, universal, "),
        ("TIMEZONE", "Mars", "SOULKEEP_TIMEZONE is no time zone"),
        ("HOME", "relative", "SOULKEEP_HOME is 'relative'"),
    ],
)
def test_a_demo_with_a_wrong_setting_names_it_in_one_line(
    name: str, value: str, said: str, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"SOULKEEP_{name}", value)

    code, out, err = run("demo")

    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith(f"soulkeep: {said}")


def test_the_demos_questions_share_no_word_with_their_answers() -> None:
    def words(text: str) -> set[str]:
        return set("".join(c if c.isalnum() else " " for c in text.lower()).split())

    for _, question, word in QUESTIONS:
        (answer,) = (content for _, _, content in MEMORIES if word in content)
        assert words(question) & words(answer) == set()


def test_all_runs_of_the_command_line_share_one_session(run: Run, home_path: Path) -> None:
    run("remember", "One.")
    run("remember", "Two.")

    file = another_program(home_path / "soulkeep.db")
    assert list(file.execute("SELECT agent_id, session_key FROM sessions")) == [("soulkeep", "soulkeep")]


def test_compact_gives_back_the_space_of_deleted_vectors(run: Run, home_path: Path) -> None:
    assert run("compact", "--home", str(home_path))[:2] == (0, "There is nothing to give back.\n")
    with closing(open_home(home_path, embedder="none")) as home:
        database = another_program(file_of(home))
        database.execute(
            "CREATE TABLE other (x); INSERT INTO other VALUES (zeroblob(1000000)); DROP TABLE other"
        )
        database.close()

    code, out, _ = run("compact", "--home", str(home_path))

    assert code == 0
    assert out.startswith("The store is 1.0 MB")
