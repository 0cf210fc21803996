"""Connecting soulkeep to the programs of this machine: their files changed, the server tried."""

import json
import os
import shutil
import stat
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from glob import escape
from pathlib import Path
from typing import Any, NoReturn

import click

from soulkeep import __version__
from soulkeep.app import Settings
from soulkeep.cli import Command, Refused, current_settings, home_option, json_option
from soulkeep.cli.connect import client_command
from soulkeep.cli.terminal import print_facts, report
from soulkeep.clients import (
    CLIENTS,
    NAME,
    SWITCHES,
    Client,
    Machine,
    Part,
    entry_in,
    home_of,
    hook_command,
    new_entry,
    start_environment,
    started_by,
    with_ours,
    without_ours,
)
from soulkeep.configs import ConfigError
from soulkeep.disk import copy_file, make_folder, sync_folder
from soulkeep.models import Fault
from soulkeep.wording import command_line, counted

_NAMES = f"CLIENT is one of {', '.join(CLIENTS)}."
_CHECK_S = 60
_WRITING_S = 60
_BACKUP = ".before-soulkeep"
_OURS = 0o700
"""The permissions of a folder that soulkeep makes."""
_OVER_HTTP = ("url", "issuer", "http_")
"""Settings that begin so are for `serve --http`."""

_REQUESTS = (
    {
        "id": 1,
        "method": "initialize",
        "params": {
            "protocolVersion": "2025-11-25",
            "capabilities": {},
            "clientInfo": {"name": "soulkeep install", "version": __version__},
        },
    },
    {"method": "notifications/initialized"},
    {"id": 2, "method": "tools/list", "params": {}},
)


@dataclass
class _File:
    """A file of a client as it was read; `content` is None where it is not there."""

    path: Path
    parts: set[Part]
    text: str = field(init=False)

    def __post_init__(self) -> None:
        """Read it, through a link, and the copy of what it was before.

        Raises:
            Refused: It cannot be read.
        """
        self.target = Path(os.path.realpath(self.path))
        self.backup = self.target.with_name(self.target.name + _BACKUP)
        self.content, self.former = _content(self.target), _content(self.backup)
        try:
            self.text = (self.content or b"").decode()
        except UnicodeDecodeError as error:
            before = (self.content or b"")[: error.start]
            line, column = before.count(b"\n") + 1, len(before) - before.rfind(b"\n")
            self.refuse(ConfigError("this is not UTF-8", line, column), error)

    def refuse(self, error: ConfigError, cause: Exception | None = None) -> NoReturn:
        """Say in which file an error is.

        Raises:
            Refused: Always.
        """
        place = f"{self.path}, line {error.line}, column {error.column}"
        said = f"{place}: {error.problem}; correct it there. Nothing was changed."
        raise Refused(said) from cause or error

    def entry(self, client: Client) -> Any:
        """Return the block of soulkeep in it, or None.

        Raises:
            Refused: It breaks the rules of its syntax.
        """
        try:
            return entry_in(client, self.text)
        except ConfigError as error:
            self.refuse(error)

    def without_ours(self, client: Client) -> str | None:
        """Return what it says without soulkeep; None where soulkeep made it.

        Raises:
            Refused: It breaks the rules of its syntax.
        """
        before = (self.former or b"").decode(errors="replace")
        try:
            for former in dict.fromkeys((before, "")):
                left = without_ours(client, self.text, former, self.parts)
                if left == former and left != self.text:
                    return left if left or self.former == b"" else None
            left = without_ours(client, self.text, before, self.parts)
        except ConfigError as error:
            self.refuse(error)
        # Where there is no copy, there was no file either.
        is_empty = self.former is None and left != self.text and "".join(left.split()) in ("", "{}")
        return None if is_empty else left

    def save(self, text: str | None) -> None:
        """Make it say this, in one step and with its permissions and owner; None takes it away.

        Raises:
            Refused: It was changed meanwhile, or cannot be written.
        """
        new = self.target.with_name(f".{self.target.name}.{os.getpid()}.new")
        try:
            for left in self.target.parent.glob(f".{escape(self.target.name)}.*.new"):
                # Of a process that was killed as it wrote this file, which takes no moment.
                is_ours = left.name.split(".")[-2].isdigit()
                if is_ours and time.time() - left.stat().st_mtime > _WRITING_S:
                    left.unlink()
            if text is not None:
                make_folder(self.target.parent, parents=True)
                _write(new, text.encode(), self.target if self.content is not None else None)
            if _content(self.target) != self.content:
                raise Refused(f"{self.path}: changed meanwhile, and left as it is; run this again.")
            if text is None:
                self.target.unlink()
            else:
                new.replace(self.target)
            sync_folder(self.target.parent)
        except OSError as error:
            raise Refused(f"{self.path}: it cannot be written ({error.strerror}).") from error
        finally:
            new.unlink(missing_ok=True)

    def keep(self, client: Client) -> Path | None:
        """Copy it as it is, unless there is a copy of what it was before soulkeep; return the copy.

        A file that soulkeep made needs none.

        Raises:
            Refused: It cannot be copied.
        """
        left = None if self.content is None else self.without_ours(client)
        if left is None:  # all of it is soulkeep's
            return None
        try:
            if self.former is None or left != self.former.decode(errors="replace"):
                copy_file(self.target, self.backup)
        except OSError as error:
            raise Refused(f"{self.backup}: it cannot be written ({error.strerror}).") from error
        return self.backup

    def clear(self) -> None:
        """Take the copy away if the file says the same again, and the folders that were made for it."""
        if self.former is not None and _content(self.target) == self.former:
            self.backup.unlink()
        folder = self.target.parent
        with suppress(OSError):
            while stat.S_IMODE(folder.stat().st_mode) == _OURS and folder != Path.home():
                folder.rmdir()  # one that is not empty stays
                folder = folder.parent


def _content(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise Refused(f"{path}: it cannot be read ({error.strerror}).") from error


def _write(path: Path, content: bytes, like: Path | None) -> None:
    """Write a new file down to the disk, for its user alone or as another one is."""
    with open(path, "xb", opener=lambda name, flags: os.open(name, flags, 0o600)) as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
    if like is not None:
        status, made = like.stat(), path.stat()
        if (status.st_uid, status.st_gid) != (made.st_uid, made.st_gid):
            os.chown(path, status.st_uid, status.st_gid)
        path.chmod(stat.S_IMODE(status.st_mode))


def this_machine() -> Machine:
    """Return where programs look for their files."""
    return Machine(sys.platform, os.environ, str(Path.home()))


def _files(client: Client, machine: Machine, *, hooks: bool) -> list[_File]:
    """Read the configuration of a client, and perhaps the file of its hooks, which may be the same."""
    wanted: list[tuple[Part, Sequence[str]]] = [("server", client.files)]
    if hooks and client.hooks:
        wanted.append(("hooks", client.hooks.files))
    parts = dict[Path, set[Part]]()
    for part, templates in wanted:
        parts.setdefault(_place(machine, templates), set()).add(part)
    return [_File(path, of_path) for path, of_path in parts.items()]


def _require_writable(files: Sequence[_File], texts: Sequence[str | None]) -> None:
    """Check that files may be changed which are to say something else.

    Raises:
        Refused: One is read-only.
    """
    for file, text in zip(files, texts, strict=True):
        is_changed = file.content is not None and text != file.text
        if is_changed and not file.target.stat().st_mode & stat.S_IWUSR:
            raise Refused(f"{file.path}: it is read-only; make it writable, and run this again.")


def _place(machine: Machine, templates: Sequence[str]) -> Path:
    places = [Path(place) for place in machine.files(templates)]
    return next((place for place in places if os.path.exists(place)), places[-1])  # noqa: PTH110


def _variables(settings: Settings) -> dict[str, str]:
    """Return the settings of this shell that a client's server needs too, in whatever it is started."""
    chosen = [name for name in settings.model_fields_set if not name.startswith(_OVER_HTTP)]
    names = sorted(f"SOULKEEP_{name.upper()}" for name in chosen if name != "home")
    # Where data are kept may be said by a variable that clients do not hand on.
    is_named = settings.is_home_named or "XDG_DATA_HOME" in os.environ
    home = {"SOULKEEP_HOME": str(settings.home)} if is_named else {}
    return home | {name: os.environ[name] for name in names if name in os.environ}


def _check(client: Client, machine: Machine, entry: Any) -> int:
    """Start the server as the client would, and return how many tools it lists.

    Raises:
        Refused: It does not answer.
    """
    words, variables = started_by(client, entry)
    sent = "".join(json.dumps({"jsonrpc": "2.0", **request}) + "\n" for request in _REQUESTS)
    said = ""
    try:
        done = subprocess.run(  # noqa: S603 - our own command
            words,
            input=sent.encode(),
            env=start_environment(client, machine, variables),
            cwd=os.path.abspath(os.sep),  # noqa: PTH100
            capture_output=True,
            timeout=_CHECK_S,
            check=False,
        )
        said = done.stderr.decode(errors="replace").strip().rpartition("\n")[2]
        answers = {answer.get("id"): answer for answer in map(json.loads, done.stdout.splitlines())}
        if "result" in answers.get(1, {}) and (tools := answers[2]["result"]["tools"]):
            return len(tools)
    except subprocess.TimeoutExpired:
        said = f"no answer within {_CHECK_S} s"
    except (OSError, ValueError, KeyError) as error:
        said = said or str(error)
    command = command_line(words)
    raise Refused(
        f"{command} does not answer as {client.title} would start it ({said}). Nothing changed."
    )


_client_argument = click.argument(
    "name", metavar="[CLIENT]", required=False, type=click.Choice(list(CLIENTS), case_sensitive=False)
)


@click.command(cls=Command, epilog=_NAMES)
@_client_argument
@click.option("--hooks", is_flag=True, help="Also give each session its context, where a client can.")
@click.option("--print", "is_shown", is_flag=True, help="Show the block and its file; change nothing.")
@json_option
@home_option
def install(name: str | None, *, hooks: bool, is_shown: bool, as_json: bool) -> None:
    """Connect a program to soulkeep, in its own configuration; without a name, ask which.

    All else in its file stays as it is, and the former file is kept beside it. The block has --home and
    the SOULKEEP_ variables of now. Before, the server is started as that program would start it.
    """
    settings, machine = current_settings(), this_machine()
    client = CLIENTS[name or _asked(machine)]
    if hooks and client.hooks is None:
        able = ", ".join(known.name for known in CLIENTS.values() if known.hooks)
        raise click.UsageError(f"{client.title} has no hooks for this; these have: {able}.")
    command, variables = client_command()[:-1], _variables(settings)
    line = hook_command(client, command, variables, machine.platform) if hooks else ""
    files, texts = _files(client, machine, hooks=hooks), list[str]()
    former = None if is_shown else files[0].entry(client)
    entry = new_entry(client, [*command, "serve"], variables, former)
    for file in files:
        own = entry if "server" in file.parts else None
        of_hooks = line if "hooks" in file.parts else ""
        try:
            texts.append(with_ours(client, "" if is_shown else file.text, entry=own, line=of_hooks))
        except ConfigError as error:
            file.refuse(error)
    if is_shown:
        shown = {str(file.path): text for file, text in zip(files, texts, strict=True)}
        lines = [f"{path}:\n\n{text}" for path, text in shown.items()]
        report(as_json, {"client": client.name, "files": shown}, *lines)
        return
    _require_writable(files, texts)
    tools, changed, backups = _check(client, machine, entry), list[str](), list[str]()
    for file, text in zip(files, texts, strict=True):
        if text != file.text:
            backups += [str(kept)] if (kept := file.keep(client)) else []
            file.save(text)
            changed.append(str(file.path))
    document = {"client": client.name, "changed": changed, "backups": backups, "tools": tools}
    done = "is connected to soulkeep" if changed else "was connected to soulkeep already"
    lines = [f"{client.title} {done}: {', '.join(str(file.path) for file in files)}"]
    lines += [f"What was there before is kept in {backup}" for backup in backups]
    lines.append(f"The server answers as {client.title} starts it, with {counted(tools, 'tool')}.")
    if line and client.name == "codex":
        lines.append("Codex runs hooks once you have let it: its command /hooks shows them.")
    report(as_json, document | {"restart": client.restart}, *lines, client.restart)


@click.command(cls=Command, epilog=_NAMES)
@_client_argument
@json_option
def uninstall(name: str | None, *, as_json: bool) -> None:
    """Take soulkeep out of the configuration of a program, with its hooks; without a name, ask which.

    All else in its files stays as it is, and so does what soulkeep keeps.
    """
    machine = this_machine()
    client = CLIENTS[name or _asked(machine)]
    files = [file for file in _files(client, machine, hooks=True) if file.content is not None]
    left, changed = [file.without_ours(client) for file in files], list[str]()
    _require_writable(files, left)
    for file, text in zip(files, left, strict=True):
        if text != file.text:
            file.save(text)
            file.clear()
            changed.append(str(file.path))
    said = [f"soulkeep is taken out of {client.title}: {', '.join(changed)}", client.restart]
    if not changed:
        said = [f"{client.title} was not connected to soulkeep; nothing was changed."]
    report(as_json, {"client": client.name, "changed": changed}, *said)


def _asked(machine: Machine) -> str:
    """List the programs that are found on this machine, and ask which is meant.

    Raises:
        UsageError: A script wants JSON, which a question would spoil.
    """
    if click.get_current_context().params.get("as_json"):
        raise click.UsageError("With --json nothing is asked; name the program.")
    found = dict[str, str]()
    for client in CLIENTS.values():
        place = _place(machine, client.files)
        is_there = any(os.path.exists(p) for p in (place, place.parent) if p != Path.home())  # noqa: PTH110
        if is_there or (client.program and shutil.which(client.program)):
            found[client.name] = f"{client.title}, {place}"
    if not found:
        raise Refused(f"none of the programs it knows is found here. {_NAMES}")
    print_facts("Found on this machine:", found)
    chosen: str = click.prompt("Which", type=click.Choice(list(found), case_sensitive=False))
    return chosen


@dataclass(frozen=True, slots=True)
class Connection:
    """A program that is connected: what it starts, over which home, and what is odd about that."""

    client: str
    file: str
    command: list[str]
    home: str
    remark: str


def list_connections(settings: Settings) -> tuple[list[Connection], list[Fault]]:
    """Return the programs of this machine that are connected, and what keeps them from it."""
    machine, connections, faults = this_machine(), list[Connection](), list[Fault]()
    elsewhere = Settings.model_fields["home"].get_default(call_default_factory=True, validated_data={})
    for client in CLIENTS.values():
        again = f"run `soulkeep install {client.name}`"
        try:
            (file,) = _files(client, machine, hooks=False)
        except Refused:
            continue  # whether it is connected cannot be seen
        try:
            entry = file.entry(client)
        except Refused as refused:
            if NAME in file.text:
                faults.append(Fault("client", f"{client.title}: {refused.message}", again))
            continue
        words, variables = started_by(client, entry)
        if not words:
            continue
        path = start_environment(client, machine, variables).get("PATH", "")
        home, own = home_of(client, entry) or str(elsewhere), client_command()[0]
        remarks = [f"starts another soulkeep, {words[0]}"] * (words[0] != own)
        if any(entry.get(name) is (not is_on) for name, is_on in SWITCHES.items()):
            remarks.append("is switched off in its configuration")
        remarks += [f"serves another home, {home}"] * (Path(home) != settings.home)
        if shutil.which(words[0], path=path) is None:
            gone = f"{client.title} starts {words[0]}, which it cannot find ({file.path})"
            faults.append(Fault("client", gone, again))
        connections.append(Connection(client.name, str(file.path), words, home, "; ".join(remarks)))
    return connections, faults
