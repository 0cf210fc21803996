"""Where the home is: what clients hand on is expanded, and what cannot be is refused by name."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from conftest import Run
from soulkeep.app import Settings
from wire import Wire


@pytest.mark.parametrize(
    "written",
    [
        "$HOME/sk",
        "${HOME}/sk",
        "%HOME%/sk",
        "~/sk",
        "  ~/sk  ",
        '"$HOME/sk"',
        "'~/sk'",
        "$ROOT/$NAME",
        "${ROOT}/s${LETTER}",
        "%ROOT%/%NAME%",
    ],
)
def test_variables_quotes_and_the_users_folder_are_understood(
    written: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, value in {
        "HOME": str(tmp_path),
        "ROOT": str(tmp_path),
        "NAME": "sk",
        "LETTER": "k",
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("SOULKEEP_HOME", written)

    assert Settings().home == tmp_path / "sk"
    assert Settings(home=Path(written)).home == tmp_path / "sk"


@pytest.mark.parametrize(
    ("written", "named"),
    [
        ("$NOWHERE/sk", "$NOWHERE"),
        ("${NOWHERE}/sk", "${NOWHERE}"),
        ("%NOWHERE%/sk", "%NOWHERE%"),
        ("/data/$NOWHERE", "$NOWHERE"),
        ("${env:HOME}/sk", "${env:HOME}"),
        ("${HOME:-/x}/sk", "${HOME:-/x}"),
        ("${}/sk", "${}"),
        ("~no-such-user/sk", "~no-such-user"),
        ("memory", "'memory'"),
        ("./memory", "'./memory'"),
        ("../memory", "'../memory'"),
        ("   ", "'   '"),
        ('""', "'\"\"'"),
        ("$LETTER/sk", "'$LETTER/sk'"),
    ],
)
def test_what_cannot_be_meant_is_refused_and_named(
    written: str, named: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("NOWHERE", raising=False)
    monkeypatch.setenv("LETTER", "relative")
    monkeypatch.setenv("SOULKEEP_HOME", written)

    with pytest.raises(ValidationError) as refused:
        Settings()

    assert named in str(refused.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("days", ["36500", "1000000", "9999999999"])
def test_a_retention_may_be_as_long_as_anybody_likes(
    run: Run, monkeypatch: pytest.MonkeyPatch, days: str
) -> None:
    monkeypatch.setenv("SOULKEEP_RETENTION_DAYS", days)
    monkeypatch.setenv("SOULKEEP_TIMEZONE", " Europe/Berlin ")

    run("remember", "Kept.")
    run("memories", "forget", "1", "--yes")

    assert "Kept." in run("trash")[1]


def test_a_folder_that_is_called_so_is_taken_by_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    odd = tmp_path / "$100" / "50%of%it"
    odd.mkdir(parents=True)
    monkeypatch.setenv("SOULKEEP_HOME", str(odd))

    assert Settings().home == odd


@pytest.mark.parametrize("written", ["$NOWHERE/sk", "memory"])
def test_a_server_with_a_home_nobody_can_tell_says_so_in_one_line_and_makes_nothing(
    written: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Run
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SOULKEEP_HOME", written)

    code, out, err = run("serve")
    by_option = run("serve", "--home", written)

    assert (code, out, err.count("\n"), "write the whole path" in err) == (2, "", 1, True)
    assert "SOULKEEP_HOME" in err
    assert (by_option[0], by_option[2].count("\n")) == (2, 1)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", ["serve", "stats", "remember"])
@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("$NOWHERE/sk", "--home has $NOWHERE in it, and there is no such variable"),
        ("~no-such-user/sk", "--home names the user ~no-such-user, whom nobody knows here"),
        ("%NOWHERE%/sk", "--home has %NOWHERE% in it, and there is no such variable"),
        ("/caf\udce9", "--home is no UTF-8"),
    ],
)
def test_what_was_given_as_an_option_is_named_so_and_what_is_in_the_environment_so(
    command: str, written: str, said: str, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = ("Tea.",) if command == "remember" else ()
    by_option = run(command, *text, "--home", written)
    monkeypatch.setenv("SOULKEEP_BACKUPS", "many")
    monkeypatch.setenv("SOULKEEP_HOME", "relative")
    by_both = run(command, *text, "--home", str(Path.cwd()))

    assert (by_option[0], by_option[1]) == (2, "")
    assert by_option[2].startswith(f"soulkeep: {said}")
    assert by_both[2].startswith("soulkeep: SOULKEEP_BACKUPS: ")


def test_a_home_that_was_named_by_an_option_is_to_be_changed_by_it(
    tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "soulkeep.db").write_text("Mine.", encoding="utf-8")
    (tmp_path / "file").touch()

    for wrong in (tmp_path, tmp_path / "file"):
        by_option = run("stats", "--home", str(wrong))[2]
        monkeypatch.setenv("SOULKEEP_HOME", str(wrong))
        by_variable = run("stats")[2]

        assert ("set --home to" in by_option, "SOULKEEP_HOME" in by_option) == (True, False)
        assert ("--home" in by_variable, "set SOULKEEP_HOME to" in by_variable) == (False, True)


@pytest.mark.parametrize("command", ["serve", "stats"])
def test_a_home_whose_name_is_no_utf8_is_refused_in_one_line(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Run
) -> None:
    monkeypatch.setenv("SOULKEEP_HOME", str(tmp_path / "caf\udce9"))

    code, out, err = run(command)

    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "SOULKEEP_HOME is no UTF-8" in err
    assert list(tmp_path.iterdir()) == []


def test_by_hand_a_home_may_be_in_the_current_folder_and_a_new_one_is_announced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Run
) -> None:
    monkeypatch.chdir(tmp_path)

    code, _, err = run("remember", "The roof leaks.", "--home", "sk")
    again = run("recall", "roof", "--home", str(tmp_path / "sk"))

    assert (code, err) == (0, f"soulkeep: new home at {tmp_path / 'sk'}\n")
    assert (again[0], again[2], "leaks" in again[1]) == (0, "", True)


@pytest.mark.parametrize("command", ["serve", "stats", "remember"])
@pytest.mark.parametrize("written", ["", "  "])
def test_an_empty_home_is_refused_rather_than_made_in_the_current_folder(
    command: str, written: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Run
) -> None:
    monkeypatch.chdir(tmp_path)

    code, out, err = run(command, "--home", written)

    assert (code, out, "names no folder" in err) == (2, "", True)
    assert list(tmp_path.iterdir()) == []


def test_a_client_that_finds_nothing_is_told_that_its_home_is_new(tmp_path: Path) -> None:
    answers, contexts = [], []
    for _ in range(2):
        wire = Wire(tmp_path / "home", SOULKEEP_EMBEDDER="none")
        try:
            wire.initialize()
            answers.append(wire.call("recall", query="What is known?"))
            contexts.append(wire.call("get_context"))
            wire.finish()
        finally:
            wire.kill()

    first, second = (answer["content"][0]["text"] for answer in answers)
    assert f"This is a new home at {tmp_path / 'home'}." in first
    assert "new home" not in second
    assert "new home" in answers[0]["structuredContent"]["note"]
    assert ["in a new home at" in context["content"][0]["text"] for context in contexts] == [True, False]
    assert "new home" in contexts[0]["structuredContent"]["kept"]
