"""Connecting soulkeep to the programs of this machine: their files changed, the server tried."""

import os
import shutil
import stat
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from glob import escape, glob
from pathlib import Path
from typing import Any, NoReturn

import click

from soulkeep.app import Settings
from soulkeep.cli import Command, Refused, current_settings, home_option, json_option
from soulkeep.cli.connect import check_start, client_command
from soulkeep.cli.terminal import print_facts, report
from soulkeep.clients import (
    CLIENTS,
    NAME,
    SWITCHES,
    Client,
    Machine,
    Part,
    entries_in,
    home_of,
    hook_command,
    misplaced_in,
    new_entry,
    resolved,
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
_WRITING_S = 60
_BACKUP = ".before-soulkeep"
_OURS = 0o700
"""The permissions of a folder that soulkeep makes."""
_OVER_HTTP = ("url", "issuer", "http_")
"""Settings that begin so are for `serve --http`."""


@dataclass
class _File:
    """A file of a client as it was read; `content` is None where it is not there.

    `kept_folder` stays, even if it is empty.
    """

    path: Path
    parts: set[Part]
    kept_folder: Path | None = None
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

    def entries(self, client: Client) -> dict[str, Any]:
        """Return the blocks of soulkeep in it by the folder that each is for, "" for any.

        Raises:
            Refused: It breaks the rules of its syntax.
        """
        try:
            return entries_in(client, self.text)
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
        folder, kept = self.target.parent, {Path.home(), self.kept_folder}
        with suppress(OSError):
            while stat.S_IMODE(folder.stat().st_mode) == _OURS and folder not in kept:
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


def _files(client: Client, machine: Machine, *, hooks: bool, named: Path | None = None) -> list[_File]:
    """Read the configuration of a client, and perhaps the file of its hooks, which may be the same.

    One that is `named` has no hooks.
    """
    if named:
        path = named.expanduser().absolute()
        # The folder that it is for is the user's: of .mcp.json its own, of .vscode/mcp.json the next.
        is_inner = path.parent.name.startswith(".")
        return [_File(path, {"server"}, Path(os.path.realpath(path.parents[is_inner])))]
    wanted: list[tuple[Part, Sequence[str]]] = [("server", client.files)]
    if hooks and client.hooks:
        wanted.append(("hooks", client.hooks.files))
    parts = dict[Path, set[Part]]()
    for part, templates in wanted:
        parts.setdefault(_place(machine, templates), set()).add(part)
    return [_File(path, of_path) for path, of_path in parts.items()]


def _other_files(client: Client, machine: Machine) -> dict[Path, str]:
    """Find the configurations that a client has beside its own: those of profiles, and here of folders.

    Each with the folder that it is for, "" for any. Folders are the current one and those above it in
    its repository.
    """
    own, found = _place(machine, client.files), dict[Path, str]()
    if client.profiles:
        names = sorted(glob(client.profiles, root_dir=own.parent))  # noqa: PTH207 - as below
        found = {own.parent / name: "" for name in names}
    with suppress(FileNotFoundError):  # the current folder may be gone
        above = [Path.cwd(), *Path.cwd().parents]
        roots = [number for number, one in enumerate(above) if os.path.exists(one / ".git")]  # noqa: PTH110
        for one in above[: roots[0] + 1 if roots else 1]:
            found |= {one / name: str(one) for name in client.in_folders}
    real = os.path.realpath(own)
    # Other than those of `Path` these say no of what may not be looked at.
    others = [path for path in found if os.path.isfile(path) and os.path.realpath(path) != real]  # noqa: PTH113
    return {path: found[path] for path in others}


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


_client_argument = click.argument(
    "name", metavar="[CLIENT]", required=False, type=click.Choice(list(CLIENTS), case_sensitive=False)
)
_file_option = click.option(
    "--file",
    "named",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Another configuration of it than the user's: a profile's, or a folder's such as .mcp.json.",
)


@click.command(cls=Command, epilog=_NAMES)
@_client_argument
@_file_option
@click.option("--hooks", is_flag=True, help="Also give each session its context, where a client can.")
@click.option("--print", "is_shown", is_flag=True, help="Show the block and its file; change nothing.")
@json_option
@home_option
def install(name: str | None, named: Path | None, *, hooks: bool, is_shown: bool, as_json: bool) -> None:
    """Connect a program to soulkeep, in its own configuration; without a name, ask which.

    All else in its file stays as it is, and the former file is kept beside it. The block has --home and
    the SOULKEEP_ variables of now. Before, the server is started as that program would start it.
    """
    settings, machine = current_settings(), this_machine()
    client = CLIENTS[name or _asked(machine)]
    if hooks and (named or client.hooks is None):
        able = ", ".join(known.name for known in CLIENTS.values() if known.hooks)
        problem = "--file names no file of hooks" if named else f"{client.title} has no hooks for this"
        raise click.UsageError(f"{problem}; these have hooks of their own: {able}.")
    command, variables = client_command()[:-1], _variables(settings)
    line = hook_command(client, command, variables, machine.platform) if hooks else ""
    files, texts = _files(client, machine, hooks=hooks, named=named), list[str]()
    former = None if is_shown else files[0].entries(client).get("")
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
    words, given = started_by(client, entry)
    tools = check_start(words, start_environment(client, machine, given), client.title)
    changed, backups = list[str](), list[str]()
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
    others = _told_of_others(client, settings, files)
    document |= {"restart": client.restart, "others": list(others)}
    report(as_json, document, *lines, *others.values(), client.restart)


@click.command(cls=Command, epilog=_NAMES)
@_client_argument
@_file_option
@json_option
def uninstall(name: str | None, named: Path | None, *, as_json: bool) -> None:
    """Take soulkeep out of the configuration of a program, with its hooks; without a name, ask which.

    All else in its files stays as it is, and so does what soulkeep keeps.
    """
    machine = this_machine()
    client = CLIENTS[name or _asked(machine)]
    files = [f for f in _files(client, machine, hooks=True, named=named) if f.content is not None]
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
    others = _told_of_others(client, current_settings(), files)
    document = {"client": client.name, "changed": changed, "others": list(others)}
    report(as_json, document, *said, *others.values())


def _again(client: Client, path: str | Path = "", command: str = "install") -> str:
    """Return what to run for a client, or for one of its files that is not its own."""
    more = ["--file", str(path)] if path else []
    return f"run `{command_line(['soulkeep', command, client.name, *more])}`"


def _told_of_others(client: Client, settings: Settings, but: Sequence[_File]) -> dict[str, str]:
    """Return what is to be said of the other configurations of a client, by their files."""
    machine = this_machine()
    connected = {Path(one.file): one.folder for one in _connections_of(client, machine, settings)[0]}
    said = dict[str, str]()
    for path, folder in {_place(machine, client.files): "any", **_other_files(client, machine)}.items():
        if os.path.realpath(path) in {str(file.target) for file in but}:
            continue
        if path in connected:
            said[str(path)] = (
                f"{path} starts soulkeep too: {_again(client, path, 'uninstall')} to end that."
            )
        elif not folder:  # in a profile what the user has in general does not count
            said[str(path)] = f"{path} does not start soulkeep: {_again(client, path)} to connect it."
    return said


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
    """A program that is connected: what it starts, over which home, and what is odd about that.

    `file` says where, if `is_usual` the one where the program has what its user wants everywhere;
    `folder` for which folder, "" for any. What it starts cannot be found where it `is_gone`.
    """

    client: str
    file: str
    command: list[str]
    home: str
    remark: str
    folder: str = ""
    is_usual: bool = True
    is_gone: bool = False


def list_connections(settings: Settings) -> tuple[list[Connection], list[Fault]]:
    """Return the programs of this machine that are connected, and what keeps them from it."""
    machine = this_machine()
    found = [_connections_of(client, machine, settings) for client in CLIENTS.values()]
    return [one for some, _ in found for one in some], [one for _, some in found for one in some]


def _connections_of(
    client: Client, machine: Machine, settings: Settings
) -> tuple[list[Connection], list[Fault]]:
    connections, faults = list[Connection](), list[Fault]()
    own = _place(machine, client.files)
    for path, of_folder in {own: "", **_other_files(client, machine)}.items():
        again = _again(client, "" if path == own else path)
        try:
            file = _File(path, {"server"})
        except Refused:
            continue  # whether it is connected cannot be seen
        try:
            entries = file.entries(client)
        except Refused as refused:
            if NAME in file.text:
                faults.append(Fault("client", f"{client.title}: {refused.message}", again))
            continue
        if not entries and (other := misplaced_in(client, file.text)):
            said = f"has {NAME} under {other}; {client.title} looks under {client.servers}"
            faults.append(Fault("client", f"{path} {said}", f"take it out there, then {again}"))
        for folder, entry in entries.items():
            found = _connection(client, machine, settings, path, folder or of_folder, entry)
            if found and found.is_gone:
                gone = f"{client.title} starts {found.command[0]}, which it cannot find ({path})"
                by_hand = f"correct or take out the block for {folder} in it"
                faults.append(Fault("client", gone, by_hand if folder else again))
            connections += [replace(found, is_usual=path == own and not folder)] if found else []
    return connections, faults


def _connection(
    client: Client, machine: Machine, settings: Settings, path: Path, folder: str, entry: Any
) -> Connection | None:
    """Return what a block of soulkeep does; None for one that starts nothing."""
    words, variables = started_by(client, entry)
    if not words:
        return None
    elsewhere = Settings.model_fields["home"].get_default(call_default_factory=True, validated_data={})
    found, own = resolved(words[0], machine, folder), client_command()[0]
    home = resolved(home_of(client, entry), machine, folder) or str(elsewhere)
    remarks = [f"starts another soulkeep, {words[0]}"] * (found != own)
    if any(entry.get(name) is (not is_on) for name, is_on in SWITCHES.items()):
        remarks.append("is switched off in its configuration")
    remarks += [f"serves another home, {home}"] * (Path(home) != settings.home)
    paths = start_environment(client, machine, variables).get("PATH", "")
    if folder and os.path.dirname(found):  # noqa: PTH120
        found = os.path.join(folder, found)  # noqa: PTH118 - where it is started
    is_gone = "$" not in found and shutil.which(found, path=paths) is None
    return Connection(client.name, str(path), words, home, "; ".join(remarks), folder, is_gone=is_gone)
