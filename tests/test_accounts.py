"""Accounts, teams and their tokens: who gets in, where, and who does not any more."""

import json
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import SecretStr

from conftest import Run, TickingClock
from database_server import new_database
from soulkeep.app import open_accounts, open_home
from soulkeep.errors import InvalidInputError, NotFoundError, StoreNotWritableError
from soulkeep.models import Access, NewMemory, Options
from soulkeep.service.accounts import KEY_S, KEY_SHARED_S, Accounts, new_token, valid_name


@pytest.fixture(params=["file", pytest.param("database", marks=pytest.mark.postgres)])
def kept_in(request: pytest.FixtureRequest) -> Options:
    """Where accounts are kept: in a file beside the homes, or in PostgreSQL."""
    url = new_database() if request.param == "database" else ""
    return Options(store=SecretStr(url))


@pytest.fixture
def accounts(tmp_path: Path, clock: TickingClock, kept_in: Options) -> Iterator[Accounts]:
    with closing(open_accounts(tmp_path, clock=clock, options=kept_in)) as opened:
        yield opened


def test_a_token_leads_to_its_account_and_no_other(accounts: Accounts) -> None:
    ann, bob = accounts.add("ann"), accounts.add("Bob")

    assert [accounts.account_of(token).name for token in (ann, bob)] == ["ann", "bob"]  # type: ignore[union-attr]
    assert accounts.access("ann", "ann") == Access("ann", "ann", may_write=True)
    assert accounts.access("ann", "bob") is None
    assert accounts.home_path("Bob") == accounts.home_path("bob") != accounts.home_path("ann")


@pytest.mark.parametrize("kept_in", ["file"], indirect=True)
def test_what_is_kept_of_a_token_lets_nobody_in(accounts: Accounts, tmp_path: Path) -> None:
    token = accounts.add("ann")

    secret = token[26:].encode()
    for path in tmp_path.glob("accounts.db*"):
        assert secret not in path.read_bytes()
    with closing(sqlite3.connect(tmp_path / "accounts.db")) as file:
        ((token_id, digest),) = file.execute("SELECT id, digest FROM tokens")
    assert accounts.account_of(digest) is None
    assert accounts.account_of(f"soulkeep_{token_id}_{'A' * 43}") is None


@pytest.mark.parametrize(
    "spoilt",
    [
        lambda token: token[:-1] + ("A" if token[-1] != "A" else "B"),
        lambda token: token + "A",
        lambda token: f" {token}",
        lambda token: token.upper(),
        lambda token: token.removeprefix("soulkeep_"),
        lambda token: token[:25],
        lambda token: "\ud800",
        lambda token: "",
    ],
)
def test_a_token_that_is_not_quite_right_is_wrong(accounts: Accounts, spoilt: object) -> None:
    token = accounts.add("ann")

    assert accounts.account_of(spoilt(token)) is None  # type: ignore[operator]


def test_rotating_and_revoking_end_a_token_at_once(accounts: Accounts) -> None:
    first = accounts.add("ann")
    second = accounts.rotate("ann")
    assert accounts.account_of(first) is None
    assert accounts.account_of(second) is not None

    accounts.revoke("ann")
    assert accounts.account_of(second) is None
    assert accounts.access("ann", "ann") is None
    (listed,) = accounts.all()
    assert listed.revoked_at is not None

    third = accounts.rotate("ANN")
    assert accounts.account_of(third) is not None
    assert accounts.account_of(second) is None


def test_it_is_noted_when_an_account_was_last_used(accounts: Accounts, clock: TickingClock) -> None:
    account = accounts.account_of(accounts.add("ann"))
    assert account is not None
    assert account.last_used_at is None

    accounts.note_use(account)

    (listed,) = accounts.all()
    assert listed.last_used_at is not None
    assert listed.last_used_at > listed.created_at


@pytest.mark.parametrize(
    "name",
    [
        *(
            "",
            " ",
            ".",
            "..",
            "a/b",
            "a\\b",
            "a.b",
            "-a",
            "a-",
            "a--b",
            "a b",
            "a\0",
            "~",
            "a:b",
            "a%2fb",
        ),
        *("\xe4", "\u212aelvin", "\u0661", "a" * 33),
        *("con", "NUL", "lpt1", "mcp", "healthz", "login", ".well-known"),
    ],
)
def test_a_name_that_a_file_system_or_an_address_would_confuse_is_refused(
    accounts: Accounts, name: str
) -> None:
    with pytest.raises(InvalidInputError):
        accounts.add(name)
    with pytest.raises(InvalidInputError):
        accounts.add_team(name)
    with pytest.raises(InvalidInputError):
        accounts.home_path(name)
    assert accounts.all() == []
    assert accounts.teams() == []


@given(st.text(max_size=40))
def test_a_name_that_is_taken_stays_itself_and_in_its_folder(name: str) -> None:
    try:
        kept = valid_name("name", name)
    except InvalidInputError:
        return
    assert valid_name("name", kept) == kept == kept.casefold()
    assert re.fullmatch(r"[a-z0-9-]{1,32}", kept)
    assert Path(kept).name == kept


def test_every_token_is_of_one_shape_and_a_new_one() -> None:
    made = [new_token() for _ in range(200)]

    assert all(re.fullmatch(r"soulkeep_[0-9a-f]{16}_[A-Za-z0-9_-]{43}", token) for token, _, _ in made)
    assert len({part for each in made for part in each}) == 600


@given(st.text(st.sampled_from("soulkeep_0af-AZ\n")) | st.from_regex(r"soulkeep_[0-9a-f]{16}_.{40,46}"))
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_is_no_token_of_ours_is_wrong_without_a_fault(accounts: Accounts, text: str) -> None:
    assert accounts.account_of(text) is None


def test_accounts_and_teams_share_their_names(accounts: Accounts) -> None:
    accounts.add("ann")
    accounts.add_team("crew")
    accounts.delete_team("crew")

    for taken in ("ann", "ANN", "crew"):
        with pytest.raises(InvalidInputError, match="taken"):
            accounts.add(taken)
        with pytest.raises(InvalidInputError, match="taken"):
            accounts.add_team(taken)


def test_members_read_or_write_in_a_teams_home_until_they_leave(accounts: Accounts) -> None:
    accounts.add("ann")
    accounts.add("bob")
    accounts.add_team("crew")

    accounts.put_member("crew", "ann", may_write=True)
    team = accounts.put_member("crew", "bob", may_write=False)
    assert tuple(team.members) == (
        Access("ann", "crew", may_write=True),
        Access("bob", "crew", may_write=False),
    )
    assert accounts.access("bob", "crew") == Access("bob", "crew", may_write=False)

    accounts.put_member("crew", "bob", may_write=True)
    assert accounts.access("bob", "crew") == Access("bob", "crew", may_write=True)

    accounts.remove_member("crew", "bob")
    assert accounts.access("bob", "crew") is None
    assert accounts.access("ann", "crew") is not None
    with pytest.raises(NotFoundError, match="member"):
        accounts.remove_member("crew", "bob")


def test_a_deleted_team_lets_nobody_in_and_comes_back_with_its_members(accounts: Accounts) -> None:
    accounts.add("ann")
    accounts.add_team("crew")
    accounts.put_member("crew", "ann", may_write=True)

    assert accounts.delete_team("crew").deleted_at is not None
    assert accounts.access("ann", "crew") is None
    with pytest.raises(NotFoundError):
        accounts.put_member("crew", "ann", may_write=True)
    with pytest.raises(NotFoundError):
        accounts.delete_team("crew")

    assert accounts.restore_team("crew").deleted_at is None
    assert accounts.access("ann", "crew") == Access("ann", "crew", may_write=True)
    with pytest.raises(NotFoundError, match="deleted"):
        accounts.restore_team("crew")


def filled(accounts: Accounts, name: str, kept_in: Options) -> Path:
    path = accounts.home_path(name)
    with closing(open_home(path, embedder="none", options=kept_in, owner=name)) as home:
        home.memories.remember([NewMemory("Peanuts.")], home.sessions.open("test"))
        home.backups.make("before", on_demand=True)
    return path


def memories_of(accounts: Accounts, name: str, kept_in: Options) -> int:
    path = accounts.home_path(name)
    with closing(open_home(path, embedder="none", options=kept_in, owner=name)) as home:
        return home.count_rows()["memories"]


def test_a_deleted_account_is_let_in_no_more_and_comes_back_with_all_it_had(
    accounts: Accounts, kept_in: Options
) -> None:
    token = accounts.add("ann")
    accounts.add_team("crew")
    accounts.put_member("crew", "ann", may_write=True)
    filled(accounts, "ann", kept_in)

    assert accounts.delete("Ann").deleted_at is not None
    assert accounts.account_of(token) is None
    assert accounts.access("ann", "ann") is accounts.access("ann", "crew") is None
    with pytest.raises(NotFoundError, match="account"):
        accounts.delete("ann")
    with pytest.raises(NotFoundError, match="accounts restore ann"):
        accounts.rotate("ann")
    with pytest.raises(InvalidInputError, match="taken"):
        accounts.add("ann")

    renewed = accounts.restore("ann")
    assert accounts.account_of(token) is None
    assert accounts.account_of(renewed) is not None
    assert accounts.access("ann", "crew") is not None
    assert memories_of(accounts, "ann", kept_in) == 1
    with pytest.raises(NotFoundError, match="deleted account"):
        accounts.restore("ann")


@pytest.mark.parametrize("is_team", [False, True])
def test_what_is_purged_is_gone_for_good_and_its_name_stays_taken(
    accounts: Accounts, kept_in: Options, is_team: bool
) -> None:
    for name in ("ann", "bob"):
        accounts.add(name)
    accounts.add_team("crew")
    for name in ("ann", "bob"):
        accounts.put_member("crew", name, may_write=True)
    homes = {name: filled(accounts, name, kept_in) for name in ("ann", "bob", "crew")}
    name, delete = ("crew", accounts.delete_team) if is_team else ("ann", accounts.delete)
    with pytest.raises(NotFoundError, match="deleted"):
        accounts.purge(name, is_team=is_team)
    delete(name)
    with pytest.raises(NotFoundError):
        accounts.purge(name, is_team=not is_team)

    assert accounts.purge(name.upper(), is_team=is_team)[0] == homes[name]

    in_files = [] if kept_in.store.get_secret_value() else sorted({*homes} - {name})
    assert sorted(path.name for path in homes[name].parent.glob("[!.]*")) == in_files
    assert memories_of(accounts, "bob", kept_in) == 1
    assert name not in [one.name for one in accounts.all()] + [one.name for one in accounts.teams()]
    assert name not in [one.account for team in accounts.teams() for one in team.members]
    assert accounts.access("bob", "bob") is not None
    for again in (accounts.add, accounts.add_team):
        with pytest.raises(InvalidInputError, match="taken"):
            again(name)
    with pytest.raises(NotFoundError):
        accounts.purge(name, is_team=is_team)
    assert memories_of(accounts, name, kept_in) == 0


@pytest.mark.parametrize("kept_in", ["file"], indirect=True)
def test_a_purge_that_was_cut_off_goes_on_when_it_is_asked_again(
    accounts: Accounts, kept_in: Options, monkeypatch: pytest.MonkeyPatch
) -> None:
    accounts.add("ann")
    path = filled(accounts, "ann", kept_in)
    accounts.delete("ann")

    def full(_: object) -> None:
        raise OSError("busy")

    with monkeypatch.context() as patched:
        patched.setattr("shutil.rmtree", full)
        with pytest.raises(StoreNotWritableError):
            accounts.purge("ann", is_team=False)
    assert not path.exists()
    assert [account.deleted_at is None for account in accounts.all()] == [False]

    accounts.purge("ann", is_team=False)
    assert list(path.parent.iterdir()) == []


def test_whatever_takes_something_away_is_noticed_by_every_process(
    accounts: Accounts, tmp_path: Path, kept_in: Options
) -> None:
    for name in ("ann", "bob"):
        accounts.add(name)
    accounts.add_team("crew")
    accounts.put_member("crew", "ann", may_write=True)
    accounts.put_member("crew", "bob", may_write=True)
    with closing(open_accounts(tmp_path, options=kept_in)) as other:
        for change in (
            lambda: accounts.rotate("ann"),
            lambda: accounts.put_member("crew", "ann", may_write=False),
            lambda: accounts.remove_member("crew", "ann"),
            lambda: accounts.revoke("ann"),
            lambda: accounts.delete_team("crew"),
            lambda: accounts.delete("bob"),
        ):
            before = other.access_changes()
            assert other.access_changes() == before
            change()
            assert other.access_changes() != before
        assert not any(other.is_open(name) for name in ("ann", "bob", "crew", "nobody"))


def test_processes_share_their_keys_and_change_them_together(
    accounts: Accounts, tmp_path: Path, kept_in: Options, clock: TickingClock
) -> None:
    with closing(open_accounts(tmp_path, options=kept_in, clock=clock)) as other:
        (first,) = accounts.keys()
        assert len(first) >= 32
        assert other.keys() == [first]

        clock.now += timedelta(seconds=KEY_S)
        sealed_with, second = accounts.keys()
        assert sealed_with == first != second
        assert other.keys() == [first, second]
        clock.now += timedelta(seconds=KEY_SHARED_S)
        assert accounts.keys() == other.keys() == [second, first]

        clock.now += timedelta(seconds=KEY_S)
        assert first not in list(accounts.keys())
        assert other.keys()[0] == second


def test_an_accounts_own_home_is_no_team(accounts: Accounts) -> None:
    accounts.add("ann")
    accounts.add("bob")

    with pytest.raises(NotFoundError, match="team"):
        accounts.put_member("ann", "bob", may_write=False)
    with pytest.raises(NotFoundError, match="team"):
        accounts.remove_member("ann", "ann")
    with pytest.raises(NotFoundError, match="team"):
        accounts.delete_team("ann")
    assert accounts.access("ann", "ann") is not None
    assert accounts.access("bob", "ann") is None


def test_nobody_of_a_name_is_an_error_that_says_where_the_names_are(accounts: Accounts) -> None:
    accounts.add_team("crew")

    with pytest.raises(NotFoundError, match="accounts list"):
        accounts.revoke("nobody")
    with pytest.raises(NotFoundError, match="accounts list"):
        accounts.rotate("nobody")
    with pytest.raises(NotFoundError, match="accounts list"):
        accounts.put_member("crew", "nobody", may_write=True)
    with pytest.raises(NotFoundError, match="teams list"):
        accounts.put_member("nobody", "crew", may_write=True)


def test_two_processes_share_accounts(accounts: Accounts, tmp_path: Path, kept_in: Options) -> None:
    with closing(open_accounts(tmp_path, options=kept_in)) as other:
        token = accounts.add("ann")
        assert other.account_of(token) is not None

        with pytest.raises(InvalidInputError):
            other.add("ann")
        other.revoke("ann")
        assert accounts.account_of(token) is None


def test_a_subject_of_an_issuer_has_one_account_whose_name_nobody_chose(accounts: Accounts) -> None:
    accounts.add("ann")
    made = [
        accounts.of_subject("https://a.example", subject, adds=True)
        for subject in ("ann", "auth0|64F1", "é")
    ]

    names = [account.name for account in made if account]
    assert len({"ann", *names}) == 4
    assert names[1].startswith("auth0-64f1-")
    assert all(valid_name("name", name) == name for name in names)
    assert accounts.of_subject("https://a.example", "ann", adds=True) == made[0]
    assert accounts.of_subject("https://b.example", "ann", adds=True) != made[0]
    assert accounts.of_subject("https://c.example", "ann") is None

    accounts.revoke(names[0])
    assert accounts.of_subject("https://a.example", "ann", adds=True) is None


def test_an_account_is_made_by_hand_with_what_to_paste_into_a_client(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SOULKEEP_URL", "https://memory.example.org/")

    code, out, err = run("accounts", "add", "Ann")

    (token,) = set(re.findall(r"soulkeep_[\w-]+", out))
    assert (code, err) == (0, "")
    block = json.loads(out[out.index("{") : out.rindex("}") + 1])["mcpServers"]["soulkeep"]
    assert block["url"] == "https://memory.example.org/mcp"
    assert block["headers"] == {"Authorization": f"Bearer {token}"}
    with closing(open_accounts(tmp_path / "home")) as accounts:
        assert accounts.account_of(token) is not None
        renewed = json.loads(run("accounts", "rotate", "ann", "--json")[1])["token"]
        assert accounts.account_of(token) is None
        assert accounts.account_of(renewed) is not None
        assert "revoked" not in run("accounts", "list")[1]
        run("accounts", "revoke", "ann")
        assert accounts.account_of(renewed) is None
    assert "revoked" in run("accounts", "list")[1]
    assert token not in run("accounts", "list")[1]


def test_an_account_is_deleted_by_hand_with_a_way_back(run: Run, home_path: Path) -> None:
    run("accounts", "add", "ann")
    folder = home_path / "accounts" / "ann"
    folder.mkdir(parents=True)
    for command in (("accounts", "purge", "ann", "--yes"), ("accounts", "restore", "ann")):
        assert run(*command)[::2] == (
            1,
            "soulkeep: There is no deleted account 'ann'; `soulkeep accounts list` shows all.\n",
        )
    assert run("accounts", "delete", "ann", typed="n\n")[0] == 1
    assert "deleted" not in run("accounts", "list")[1]

    code, out, _ = run("accounts", "delete", "ann", typed="y\n")
    assert code == 0
    assert "accounts restore ann" in out
    assert "accounts purge ann" in out
    assert "deleted" in run("accounts", "list")[1]
    assert run("accounts", "restore", "ann")[1].startswith("The token of ann")
    assert "deleted" not in run("accounts", "list")[1]

    run("accounts", "delete", "ann", "--yes")
    assert run("accounts", "purge", "ann", typed="n\n")[0] == 1
    assert folder.exists()
    assert json.loads(run("accounts", "purge", "ann", "--yes", "--json")[1])["name"] == "ann"
    assert not folder.exists()
    assert "There are no accounts" in run("accounts", "list")[1]
    assert run("accounts", "add", "ann")[0] == 1


@pytest.mark.parametrize("group", ["accounts", "teams"])
def test_what_to_do_instead_of_renaming_is_said(run: Run, group: str) -> None:
    for names in ((), ("ann",), ("ann", "anna"), ("ann", "--to", "anna")):
        code, _, err = run(group, "rename", *names)
        assert code == 2
        assert "keep their names" in err
        assert "soulkeep copy" in err


def test_a_team_is_looked_after_by_hand(run: Run) -> None:
    for name in ("ann", "bob"):
        run("accounts", "add", name)
    assert "/crew/mcp" in run("teams", "add", "crew")[1]
    run("teams", "join", "crew", "ann", "--write")
    run("teams", "join", "crew", "bob")
    assert "ann (writes), bob (reads)" in run("teams", "list")[1]

    run("teams", "leave", "crew", "bob")
    assert "bob" not in run("teams", "list")[1]
    assert run("teams", "delete", "crew", typed="n\n")[0] == 1
    assert "deleted" not in run("teams", "list")[1]
    assert run("teams", "delete", "crew", "--yes")[0] == 0
    assert "deleted" in run("teams", "list")[1]
    assert "1 member" in run("teams", "restore", "crew")[1]
    run("teams", "delete", "crew", "--yes")
    assert run("teams", "purge", "crew", typed="n\n")[0] == 1
    assert run("teams", "purge", "crew", "--yes")[0] == 0
    assert "There are no teams" in run("teams", "list")[1]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("accounts", "add", "a/b"), "NAME must have 1 to 32 letters"),
        (("accounts", "add", "mcp"), "NAME must not be mcp"),
        (("accounts", "revoke", "nobody"), "There is no account 'nobody'; `soulkeep accounts list`"),
        (("accounts", "add", "ann", "--subject", "x"), "SOULKEEP_ISSUER"),
        (("accounts", "add", "ann", "--subject", ""), "SOULKEEP_ISSUER"),
        (("teams", "add", "-x"), "No such option"),
        (("teams", "add", "a b"), "TEAM must have 1 to 32 letters"),
        (("teams", "join", "crew", "ann"), "There is no team 'crew'; `soulkeep teams list`"),
    ],
)
def test_what_cannot_be_meant_is_refused_in_one_line(
    run: Run, arguments: tuple[str, ...], said: str
) -> None:
    code, out, err = run(*arguments)

    assert code != 0
    assert out == ""
    assert said in err


@pytest.mark.parametrize("subject", ["", "  ", "a\0b", "a\nb", "\ud800", "x" * 256])
def test_a_subject_that_no_token_can_name_makes_no_account(accounts: Accounts, subject: str) -> None:
    with pytest.raises(InvalidInputError, match="subject"):
        accounts.add("ann", issuer="https://issuer.example", subject=subject)
    assert accounts.all() == []


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("URL", "memory.example.org"),
        ("URL", "https://memory.example.org/soulkeep"),
        ("URL", "https://ann:secret@memory.example.org"),
        ("URL", "https://memory.example.org:99999"),
        ("HTTP_ORIGINS", "https://page.example, *"),
        ("HTTP_ORIGINS", "page.example"),
        ("HTTP_ORIGINS", "https://page.example/app"),
        ("HTTP_ORIGINS", "https://page.example:99999"),
        ("ISSUER", "http://issuer.example"),
        ("ISSUER_JWKS_URL", "file:///etc/passwd"),
    ],
)
def test_an_address_that_cannot_serve_is_a_wrong_setting(
    run: Run, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(f"SOULKEEP_{name}", value)

    code, _, err = run("accounts", "list")

    assert (code, err.count("\n")) == (2, 1)
    assert f"SOULKEEP_{name}" in err
    assert "secret" not in err
