"""The programs that soulkeep can be connected to: where each has its configuration, what stands in it.

Facts of other programs, as data, and pure functions of them: the machine is an argument.
"""

import json
import re
import shlex
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import PurePath, PurePosixPath, PureWindowsPath
from typing import Any, Literal

from soulkeep.configs import Keys, Syntax, drop, put, read
from soulkeep.wording import command_line

NAME = "soulkeep"
"""What the server is called in every configuration."""

SAVE_NOW = (
    "This conversation was just shortened to a summary. Before you go on, save with soulkeep's tool"
    " `remember` the facts, decisions and preferences in it that are not kept yet."
)
KEEP_IN_SUMMARY = (
    "List in the summary, under the title `To save`, each fact, decision and preference of the user that"
    " was not yet saved with soulkeep's tool `remember`, so that it can be saved afterwards."
)
ASK_TO_SAVE = (
    "soulkeep: this conversation is about to be shortened. Ask for what matters to be remembered, if it"
    " was not."
)

Part = Literal["server", "hooks"]
"""What soulkeep has in a file of a client."""


@dataclass(frozen=True, slots=True)
class Machine:
    """Where programs run and keep their files; `platform` is as in `sys.platform`, `home` the user's."""

    platform: str
    environment: Mapping[str, str]
    home: str

    def files(self, templates: Sequence[str]) -> list[PurePath]:
        """Return where a file may be; a variable of the environment decides alone where it is set.

        A template begins with a root in braces, and before it with the platform that it is for, if any.
        """
        path = PureWindowsPath if self.platform == "win32" else PurePosixPath
        config = self.environment.get("XDG_CONFIG_HOME") or f"{self.home}/.config"
        apps = {
            "darwin": f"{self.home}/Library/Application Support",
            "win32": self.environment.get("APPDATA") or f"{self.home}/AppData/Roaming",
        }
        local = self.environment.get("LOCALAPPDATA") or f"{self.home}/AppData/Local"
        roots = {
            "HOME": self.home,
            "CONFIG": config,
            "APPS": apps.get(self.platform, config),
            "LOCAL": local,
        }
        found = list[PurePath]()
        for template in templates:
            platform, _, place = template.rpartition(":")
            root, _, rest = place.removeprefix("{").partition("}")
            if platform in ("", self.platform) and root in roots:
                found.append(path(roots[root] + rest))
            elif value := self.environment.get(root):
                return [path(value + rest)]
        return found


@dataclass(frozen=True, slots=True)
class Hooks:
    """Commands that a client runs as a session begins and before it shortens a conversation.

    `start` and `shortening` are its names of these moments, `timeout` is half a minute in its unit.
    """

    files: Sequence[str]
    start: str = "SessionStart"
    shortening: str = "PreCompact"
    timeout: int = 30
    syntax: Syntax = "json"


@dataclass(frozen=True, slots=True)
class Client:
    """A program that starts MCP servers.

    Its configuration is the first of `files` that is there, else the last. `program` is its command.
    `hands_on` says which environment its servers get: `desktop` is what a program with windows has, a
    short PATH and no HOME; `listed` are a few variables of the shell, `all` is the shell's.

    It may have more of them: in a folder that it works in (`in_folders`, for variants of a program with
    that alone), for profiles of its user (`profiles`, beside its own), and in its own by folder (under
    `by_folder`).
    """

    name: str
    title: str
    files: Sequence[str]
    servers: str
    restart: str
    program: str = ""
    syntax: Syntax = "json"
    type: Literal["", "stdio", "local"] = ""
    hands_on: Literal["desktop", "listed", "all"] = "desktop"
    hooks: Hooks | None = None
    in_folders: Sequence[str] = ()
    profiles: str = ""
    by_folder: str = ""

    @property
    def keys(self) -> Keys:
        """What leads to the block of soulkeep in its configuration."""
        return (self.servers, NAME)


_VSCODE = Client(
    "vscode",
    "VS Code",
    ("{VSCODE_PORTABLE}/user-data/User/mcp.json", "{APPS}/Code/User/mcp.json"),
    "servers",
    "VS Code starts it at the next chat; its command `MCP: List Servers` lists the servers.",
    program="code",
    syntax="jsonc",
    type="stdio",
    in_folders=(".vscode/mcp.json",),
    profiles="profiles/*/mcp.json",
)
_WINDSURF = Client(
    "windsurf",
    "Windsurf",
    ("{HOME}/.codeium/windsurf/mcp_config.json",),
    "mcpServers",
    "Refresh the list of MCP servers in Windsurf's settings, or restart it.",
    program="windsurf",
)

_CLAUDE = "Claude/claude_desktop_config.json"
_GEMINI = ("{GEMINI_CLI_HOME}/.gemini/settings.json", "{HOME}/.gemini/settings.json")

CLIENTS = {
    client.name: client
    for client in (
        Client(
            "claude-desktop",
            "Claude Desktop",
            (
                f"win32:{{LOCAL}}/Packages/Claude_pzs8sxrjxfjjc/LocalCache/Roaming/{_CLAUDE}",
                f"{{APPS}}/{_CLAUDE}",
            ),
            "mcpServers",
            "Quit Claude Desktop, by its menu or its icon in the tray, and start it again.",
        ),
        Client(
            "claude-code",
            "Claude Code",
            ("{CLAUDE_CONFIG_DIR}/.claude.json", "{HOME}/.claude/.config.json", "{HOME}/.claude.json"),
            "mcpServers",
            "Start a new session of Claude Code; its command /mcp lists the servers.",
            program="claude",
            type="stdio",
            hands_on="all",
            hooks=Hooks(("{CLAUDE_CONFIG_DIR}/settings.json", "{HOME}/.claude/settings.json")),
            in_folders=(".mcp.json",),
            by_folder="projects",
        ),
        _VSCODE,
        replace(
            _VSCODE,
            name="vscode-insiders",
            title="VS Code Insiders",
            files=("{APPS}/Code - Insiders/User/mcp.json",),
            program="code-insiders",
            in_folders=(),
        ),
        replace(
            _VSCODE,
            name="vscodium",
            title="VSCodium",
            files=("{APPS}/VSCodium/User/mcp.json",),
            restart=_VSCODE.restart.replace(_VSCODE.title, "VSCodium"),
            program="codium",
            in_folders=(),
        ),
        Client(
            "cursor",
            "Cursor",
            ("{HOME}/.cursor/mcp.json",),
            "mcpServers",
            "Restart Cursor; its settings list the servers, and may ask you to switch soulkeep on.",
            program="cursor",
            syntax="jsonc",
            type="stdio",
            in_folders=(".cursor/mcp.json",),
        ),
        _WINDSURF,
        replace(
            _WINDSURF,
            name="windsurf-next",
            title="Windsurf Next",
            files=("{HOME}/.codeium/windsurf-next/mcp_config.json",),
            program="windsurf-next",
        ),
        Client(
            "zed",
            "Zed",
            ("{CONFIG}/zed/settings.json", "win32:{APPS}/Zed/settings.json"),
            "context_servers",
            "Zed starts it at once; the settings of its agent list the servers.",
            program="zed",
            syntax="jsonc",
            in_folders=(".zed/settings.json",),
        ),
        Client(
            "codex",
            "Codex",
            ("{CODEX_HOME}/config.toml", "{HOME}/.codex/config.toml"),
            "mcp_servers",
            "Start Codex again; its command /mcp lists the servers.",
            program="codex",
            syntax="toml",
            hands_on="listed",
            hooks=Hooks(("{CODEX_HOME}/hooks.json", "{HOME}/.codex/hooks.json")),
            in_folders=(".codex/config.toml",),
        ),
        Client(
            "gemini-cli",
            "Gemini CLI",
            _GEMINI,
            "mcpServers",
            "Start Gemini CLI again; its command /mcp lists the servers.",
            program="gemini",
            syntax="commented",
            hands_on="all",
            hooks=Hooks(_GEMINI, shortening="PreCompress", timeout=30_000, syntax="commented"),
            in_folders=(".gemini/settings.json",),
        ),
        Client(
            "opencode",
            "opencode",
            (
                "{OPENCODE_CONFIG}",
                "{CONFIG}/opencode/opencode.json",
                "{CONFIG}/opencode/opencode.jsonc",
            ),
            "mcp",
            "Start opencode again; `opencode mcp list` lists the servers.",
            program="opencode",
            syntax="jsonc",
            type="local",
            hands_on="all",
            in_folders=(
                *("opencode.json", "opencode.jsonc"),
                *(".opencode/opencode.json", ".opencode/opencode.jsonc"),
            ),
        ),
    )
}

_DESKTOP_PATH = "/usr/bin:/bin:/usr/sbin:/sbin"
_LISTED = ("HOME", "LANG", "LC_ALL", "LOGNAME", "PATH", "SHELL", "TERM", "TMPDIR", "TZ", "USER")
_ON_WINDOWS = (
    *("APPDATA", "COMSPEC", "HOMEDRIVE", "HOMEPATH", "LOCALAPPDATA", "PATH", "PATHEXT", "PROGRAMFILES"),
    *("SYSTEMDRIVE", "SYSTEMROOT", "TEMP", "TMP", "USERNAME", "USERPROFILE"),
)


SWITCHES = {"enabled": True, "disabled": False}
"""What clients switch a server off by, and what it says where that is on."""


def entry_in(client: Client, text: str) -> Any:
    """Return the block of soulkeep in a configuration, or None.

    Raises:
        ConfigError: The text cannot be read.
    """
    return _found(read(text, client.syntax), client.keys)


def entries_in(client: Client, text: str) -> dict[str, Any]:
    """Return the blocks of soulkeep in a configuration by the folder that each is for, "" for any.

    Raises:
        ConfigError: The text cannot be read.
    """
    data = read(text, client.syntax)
    of_folders = _found(data, (client.by_folder,)) if client.by_folder else None
    blocks = {"": _found(data, client.keys)}
    for folder, inside in of_folders.items() if isinstance(of_folders, dict) else ():
        blocks[folder] = _found(inside, client.keys)
    return {folder: block for folder, block in blocks.items() if block is not None}


def misplaced_in(client: Client, text: str) -> str:
    """Return under which name a configuration has soulkeep where other programs look, "" if nowhere.

    Raises:
        ConfigError: The text cannot be read.
    """
    data, others = read(text, client.syntax), {one.servers for one in CLIENTS.values()}
    found = (name for name in others if isinstance(_found(data, (name, NAME)), dict))
    return next((name for name in found if name != client.servers), "")


_REFERENCE = re.compile(r"\$\{(env:)?([A-Za-z_]\w*)(?::-([^}]*))?\}")


def resolved(word: str, machine: Machine, folder: str) -> str:
    """Return a word of a block with what its client puts into it: variables, folders.

    What only the client knows stays as it is written.
    """
    places: Mapping[str, str] = {"workspaceFolder": folder, "userHome": machine.home}

    def put_in(found: re.Match[str]) -> str:
        of_environment, name, default = found.groups()
        values = places if not of_environment and name in places else machine.environment
        return values.get(name, found[0] if default is None else default)

    return _REFERENCE.sub(put_in, word)


def started_by(client: Client, entry: Any) -> tuple[list[str], dict[str, str]]:
    """Return the command of a block and its variables; of one that starts nothing, no words."""
    if not isinstance(entry, dict):
        return [], {}
    command, arguments = entry.get("command"), entry.get("args", [])
    words = [*([command] if isinstance(command, str) else command or []), *(arguments or [])]
    variables = entry.get("environment" if client.type == "local" else "env") or {}
    is_known = isinstance(variables, dict) and all(isinstance(word, str) for word in words)
    return (words, {name: str(value) for name, value in variables.items()}) if is_known else ([], {})


def home_of(client: Client, entry: Any) -> str:
    """Return the home that a block names, or "" if it leaves that to soulkeep."""
    words, variables = started_by(client, entry)
    named = [after for word, after in pairwise(words) if word == "--home"]
    named += [word.removeprefix("--home=") for word in words if word.startswith("--home=")]
    return named[-1] if named else variables.get("SOULKEEP_HOME", "")


def new_entry(
    client: Client, command: Sequence[str], variables: Mapping[str, str], former: Any = None
) -> dict[str, Any]:
    """Return the block that starts a command with these variables.

    What a former block says besides stays: settings of the client's, variables that are not given anew.
    Only what switches it off does not.
    """
    words, kept_variables = started_by(client, former)
    entry = dict(former) if words else {}
    home = home_of(client, former)
    kept = ({"SOULKEEP_HOME": home} if home else {}) | kept_variables | dict(variables)
    if client.type:
        entry["type"] = client.type
    if client.type == "local":
        entry |= {"command": list(command)}
    else:
        entry |= {"command": command[0], "args": list(command[1:])}
    entry |= {name: is_on for name, is_on in SWITCHES.items() if entry.get(name) is not None}
    if kept:
        entry["environment" if client.type == "local" else "env"] = kept
    return entry


def start_environment(client: Client, machine: Machine, variables: Mapping[str, str]) -> dict[str, str]:
    """Return the environment in which a client would start a server whose block has these variables."""
    shell = machine.environment
    given = {name: value for name, value in shell.items() if not name.startswith("SOULKEEP_")}
    if client.hands_on != "all":
        listed = _ON_WINDOWS if machine.platform == "win32" else _LISTED
        given = {name: shell[name] for name in listed if name in shell}
    if client.hands_on == "desktop" and machine.platform != "win32":
        given.pop("HOME", None)
        given["PATH"] = _DESKTOP_PATH
    return given | dict(variables)


def hook_command(
    client: Client, command: Sequence[str], variables: Mapping[str, str], platform: str
) -> str:
    """Return the line by which a client's shell asks for the context of a home, or for a reminder.

    On Windows, where that shell may be any of three, variables cannot be set in it.
    """
    home = variables.get("SOULKEEP_HOME", "")
    words = [*command, "context", "--hook", client.name, *(["--home", home] if home else [])]
    if platform == "win32":
        return command_line([word.replace("\\", "/") for word in words], windows=True)
    others = {name: value for name, value in variables.items() if name != "SOULKEEP_HOME"}
    line = command_line(words, windows=False)
    return " ".join([*(f"{name}={shlex.quote(value)}" for name, value in others.items()), line])


def own_hooks(client: Client, text: str) -> list[tuple[str | int, ...]]:
    """Return what leads to each hook of soulkeep in the file of a client's hooks, the last one first.

    Raises:
        ConfigError: The text cannot be read.
    """
    found = list[tuple[str | int, ...]]()
    if client.hooks is None:
        return found
    data = read(text, client.hooks.syntax)
    for event in (client.hooks.start, client.hooks.shortening):
        for place in range(len(_found(data, ("hooks", event)) or ())):
            for number in range(len(_found(data, ("hooks", event, place, "hooks")) or ())):
                keys = ("hooks", event, place, "hooks", number)
                if f" context --hook {client.name}" in str(_found(data, (*keys, "command"))):
                    found.append(keys)
    return found[::-1]


def with_ours(client: Client, text: str, *, entry: Any = None, line: str = "") -> str:
    """Return a configuration with this block of soulkeep, and with hooks that run this line.

    Raises:
        ConfigError: The text cannot be read, or something else stands in their place.
    """
    if entry is not None:
        text = put(text, client.syntax, client.keys, entry)
    if client.hooks is None or not line:
        return text
    there = own_hooks(client, text)
    for keys in there:
        text = put(text, client.hooks.syntax, (*keys, "command"), line)
    group = {"hooks": [{"type": "command", "command": line, "timeout": client.hooks.timeout}]}
    for event in (client.hooks.start, client.hooks.shortening):
        if all(keys[1] != event for keys in there):
            found = _found(read(text, client.hooks.syntax), ("hooks", event))
            groups = [*found, group] if isinstance(found, list) else [group]
            text = put(text, client.hooks.syntax, ("hooks", event), groups)
    return text


def without_ours(client: Client, text: str, former: str, parts: Collection[Part]) -> str:
    """Return the file of these parts without what is soulkeep's in them.

    `former` is its text before soulkeep was added: what the file says again if nothing else changed, and
    otherwise what tells whether an object that is empty then was there.

    Raises:
        ConfigError: One of the texts cannot be read.
    """
    there, pasted = (own_hooks(client, one) if "hooks" in parts else [] for one in (text, former))
    syntax = client.hooks.syntax if client.hooks and there else client.syntax
    line = _found(read(text, syntax), (*there[0], "command")) if there else ""
    entry = pasted_entry = None
    if "server" in parts:
        entry, pasted_entry = entry_in(client, text), entry_in(client, former)
    is_former = pasted_entry is None and not pasted  # what a user had pasted goes too
    if is_former and with_ours(client, former, entry=entry, line=line) == text:
        return former
    owned = [*there, *([client.keys] if entry is not None else [])]
    before = read(former, syntax)
    for keys in owned:
        keep = sum(_found(before, keys[:depth]) is not None for depth in range(1, min(3, len(keys))))
        text = drop(text, syntax, keys, keep)
    return text


def hook_answer(client: Client, event: Any, context: Callable[[], str]) -> str:
    """Return what a hook prints when its client tells of an event: a context, or a reminder to save.

    Claude Code takes what is printed before it shortens a conversation as instructions for the summary;
    others show a message to the user then.
    """
    named = event.get("hook_event_name") if isinstance(event, dict) else None
    if client.hooks and named == client.hooks.start:
        text = context()
        if event.get("source") == "compact":
            text = f"{SAVE_NOW}\n\n{text}"
        answer = {"hookEventName": named, "additionalContext": text}
        return json.dumps({"hookSpecificOutput": answer})
    if client.hooks and named == client.hooks.shortening:
        return (
            KEEP_IN_SUMMARY
            if client.name == "claude-code"
            else json.dumps({"systemMessage": ASK_TO_SAVE})
        )
    return "{}"


def _found(data: Any, keys: Keys) -> Any:
    """Return what stands where these keys lead, or None."""
    for key in keys:
        if isinstance(data, dict):
            data = data.get(key)
        elif isinstance(data, list) and isinstance(key, int) and key < len(data):
            data = data[key]
        else:
            return None
    return data
