"""`soulkeep accounts` and `soulkeep teams`: who may use a server, and which homes several share."""

import json
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from soulkeep.app import open_accounts
from soulkeep.cli import (
    Group,
    WrongSetting,
    current_days,
    current_settings,
    home_option,
    json_option,
    yes_option,
)
from soulkeep.cli.terminal import confirm, print_json, print_table, report, say
from soulkeep.wording import counted, quoted

if TYPE_CHECKING:
    from soulkeep.models import Account
    from soulkeep.service.accounts import Accounts

_WHERE_IT_LISTENS = "http://127.0.0.1:8765"
"""Where `soulkeep serve --http` listens unless it is told otherwise."""


@contextmanager
def _opened() -> "Iterator[Accounts]":
    settings = current_settings()
    with closing(open_accounts(settings.home, options=settings.options)) as accounts:
        yield accounts


def _address(team: str = "") -> str:
    return "/".join([current_settings().url or _WHERE_IT_LISTENS, *([team] if team else []), "mcp"])


_account = click.argument("account")


@click.group(cls=Group)
def accounts() -> None:
    """Say who may use `serve --http`; each account has a home of its own."""


@accounts.command()
@click.argument("name")
@click.option("--subject", help="Who this is to the issuer in SOULKEEP_ISSUER, the `sub` in its tokens.")
@json_option
@home_option
def add(name: str, subject: str | None, *, as_json: bool) -> None:
    """Make an account, and print its token, which is shown this once."""
    issuer = current_settings().issuer
    if subject is not None and not issuer:
        raise WrongSetting(
            "--subject needs SOULKEEP_ISSUER; set it to the issuer whose subject this is."
        )
    with _opened() as opened:
        token = opened.add(name, issuer=issuer if subject is not None else None, subject=subject)
        account = opened.account_of(token)
    _show_token(account, token, as_json=as_json)


@accounts.command("list")
@json_option
@home_option
def list_(*, as_json: bool) -> None:
    """List the accounts, and when each was last used."""
    with _opened() as opened:
        found = opened.all()
    if as_json:
        print_json({"accounts": [asdict(account) for account in found]})
    elif found:
        date = current_days().date_text
        rows = [
            (
                account.name,
                date(account.created_at),
                date(account.last_used_at) if account.last_used_at else "never",
                f"deleted {date(account.deleted_at)}"
                if account.deleted_at
                else f"revoked {date(account.revoked_at)}"
                if account.revoked_at
                else "",
                account.subject,
            )
            for account in found
        ]
        print_table(("NAME", "MADE", "LAST USED", "STATE", "SUBJECT"), rows)
    else:
        say("There are no accounts; `soulkeep accounts add NAME` makes one.")


@accounts.command()
@click.argument("name")
@json_option
@home_option
def revoke(name: str, *, as_json: bool) -> None:
    """Let an account in no more, by any token; its home stays, and `rotate` lets it in again."""
    with _opened() as opened:
        account = opened.revoke(name)
        home = opened.home_path(account.name)
    said = f"{account.name} is let in no more. Its home stays ({home})."
    report(
        as_json, asdict(account), said, f"`soulkeep accounts rotate {account.name}` lets it in again."
    )


@accounts.command()
@click.argument("name")
@json_option
@home_option
def rotate(name: str, *, as_json: bool) -> None:
    """Print a new token for an account; the old one, and the programs it let in, end now."""
    with _opened() as opened:
        token = opened.rotate(name)
        account = opened.account_of(token)
    _show_token(account, token, as_json=as_json)


@accounts.command()
@_account
@yes_option
@json_option
@home_option
def delete(account: str, *, yes: bool, as_json: bool) -> None:
    """Delete an account: it is let in no more; its home stays until `purge`, for `restore`."""
    with _opened() as opened:
        if not yes:
            confirm(f"Delete the account {quoted(account)}? Its home is kept.")
        found = opened.delete(account)
        home = opened.home_path(found.name)
    report(
        as_json,
        asdict(found),
        f"{found.name} is let in no more. Its home stays ({home}).",
        f"`soulkeep accounts restore {found.name}` brings both back;"
        f" `soulkeep accounts purge {found.name}` deletes the home for good.",
    )


@accounts.command()
@_account
@json_option
@home_option
def restore(account: str, *, as_json: bool) -> None:
    """Bring a deleted account back, with its home and its teams, and print its new token."""
    with _opened() as opened:
        token = opened.restore(account)
        found = opened.account_of(token)
    _show_token(found, token, as_json=as_json)


@accounts.command()
@_account
@yes_option
@json_option
@home_option
def purge(account: str, *, yes: bool, as_json: bool) -> None:
    """Delete the home of a deleted account for good: memories, documents and backups."""
    _purge(account, yes=yes, as_json=as_json, is_team=False)


def _purge(name: str, *, yes: bool, as_json: bool, is_team: bool) -> None:
    with _opened() as opened:
        if not yes:
            confirm(f"Delete all that is in the home of {quoted(name)}, with its backups, for good?")
        folder, is_final = opened.purge(name, is_team=is_team)
    report(
        as_json,
        {"name": folder.name, "purged": str(folder), "is_final": is_final},
        f"The home of {folder.name} is deleted for good. Nobody else is ever given that name.",
    )
    if not is_final:
        say(
            "Others were reading: what is left on freed pages goes by the next purge, or vacuum.",
            err=True,
        )


@accounts.command(hidden=True, context_settings={"ignore_unknown_options": True})
@click.argument("names", nargs=-1, type=click.UNPROCESSED)
def rename(names: tuple[str, ...]) -> None:
    """Say what to do instead."""
    raise WrongSetting(
        "Accounts and teams keep their names, by which it is known what is whose. Make another, copy the"
        " home to it with `soulkeep copy`, and delete the first."
    )


def _show_token(account: "Account | None", token: str, *, as_json: bool) -> None:
    name, url = account.name if account else "", _address()
    if as_json:
        print_json({"name": name, "token": token, "url": url})
        return
    entry = {"type": "http", "url": url, "headers": {"Authorization": f"Bearer {token}"}}
    say(f"The token of {name}, which is shown this once:\n")
    click.echo(f"  {token}\n")
    say("Clients with a configuration of MCP servers take this:\n")
    click.echo(json.dumps({"mcpServers": {"soulkeep": entry}}, indent=2) + "\n")
    say("Claude Code takes a command instead:\n")
    header = f'--header "Authorization: Bearer {token}"'
    click.echo(f"  claude mcp add --scope user --transport http soulkeep {url} {header}\n")
    say(f"claude.ai, ChatGPT and others that ask for no token take the address alone, {url},")
    say("and open a page that asks for the token.")


@click.group(cls=Group)
def teams() -> None:
    """Make homes with several members, each at an address of its own."""


teams.add_command(rename)
_team = click.argument("team")


@teams.command("add")
@_team
@json_option
@home_option
def add_team(team: str, *, as_json: bool) -> None:
    """Make a home for a team, which has no members yet."""
    with _opened() as opened:
        made = opened.add_team(team)
    joining = f"`soulkeep teams join {made.name} ACCOUNT` lets somebody in."
    _report(made, f"The home of {made.name} is at {_address(made.name)}.", joining, as_json=as_json)


@teams.command("list")
@json_option
@home_option
def list_teams(*, as_json: bool) -> None:
    """List the teams with their members, deleted ones too."""
    with _opened() as opened:
        found = opened.teams()
    if as_json:
        print_json({"teams": [_shape(team) for team in found]})
    elif found:
        date = current_days().date_text
        rows = [
            (
                team.name,
                ", ".join(f"{one.account} ({_MAY[one.may_write]})" for one in team.members) or "nobody",
                _address(team.name),
                f"deleted {date(team.deleted_at)}" if team.deleted_at else "",
            )
            for team in found
        ]
        print_table(("NAME", "MEMBERS", "ADDRESS", "STATE"), rows)
    else:
        say("There are no teams; `soulkeep teams add TEAM` makes one.")


@teams.command()
@_team
@_account
@click.option("--write", "may_write", is_flag=True, help="To write there too, not to read alone.")
@json_option
@home_option
def join(team: str, account: str, *, may_write: bool, as_json: bool) -> None:
    """Let an account read in a team's home, or with --write also write; for a member, change that."""
    with _opened() as opened:
        found = opened.put_member(team, account, may_write=may_write)
    said = f"{account.lower()} {_MAY[may_write]} in the home of {found.name}, at {_address(found.name)}."
    _report(found, said, as_json=as_json)


@teams.command()
@_team
@_account
@json_option
@home_option
def leave(team: str, account: str, *, as_json: bool) -> None:
    """Take an account out of a team; what it wrote there stays in the team's home."""
    with _opened() as opened:
        found = opened.remove_member(team, account)
    _report(
        found, f"{account.lower()} is out of {found.name}; what it wrote there stays.", as_json=as_json
    )


@teams.command("delete")
@_team
@yes_option
@json_option
@home_option
def delete_team(team: str, *, yes: bool, as_json: bool) -> None:
    """Close a team's home for all; everything in it stays on the disk, and `restore` opens it again."""
    with _opened() as opened:
        members = counted(len(opened.team(team).members), "member")
        if not yes:
            confirm(f"Close the home of {quoted(team)}, which has {members}?")
        found = opened.delete_team(team)
        home = opened.home_path(found.name)
    said = f"The home of {found.name} is closed for all. All of it stays ({home})."
    _report(
        found,
        said,
        f"`soulkeep teams restore {found.name}` opens it again;"
        f" `soulkeep teams purge {found.name}` deletes it for good.",
        as_json=as_json,
    )


@teams.command("purge")
@_team
@yes_option
@json_option
@home_option
def purge_team(team: str, *, yes: bool, as_json: bool) -> None:
    """Delete the home of a deleted team for good: memories, documents and backups."""
    _purge(team, yes=yes, as_json=as_json, is_team=True)


@teams.command("restore")
@_team
@json_option
@home_option
def restore_team(team: str, *, as_json: bool) -> None:
    """Open a deleted team's home again, for those who were its members."""
    with _opened() as opened:
        found = opened.restore_team(team)
    members = counted(len(found.members), "member")
    _report(found, f"The home of {found.name} is open again, with {members}.", as_json=as_json)


_MAY = {True: "writes", False: "reads"}


def _shape(team: Any) -> dict[str, Any]:
    return asdict(team) | {"url": _address(team.name)}


def _report(team: Any, *lines: str, as_json: bool) -> None:
    report(as_json, _shape(team), *lines)
