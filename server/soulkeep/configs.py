"""Changes single values in the text of a configuration, and not a byte besides: JSON, JSONC and TOML.

Comments, trailing commas, indentation, line endings and a byte order mark stay as they are. All are pure
functions from text to text. No maintained package for Python edits JSON with comments in place, so that
is done here; TOML is read by the standard library, and tomlkit changes what stands in it.
"""

import json
import re
import tomllib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Literal, NoReturn

from soulkeep.errors import SoulkeepError


class ConfigError(SoulkeepError):
    """The text of a client's configuration breaks a rule, at a `line` and a `column` from 1."""

    def __init__(self, problem: str, line: int, column: int) -> None:
        self.problem, self.line, self.column = problem, line, column
        super().__init__(f"line {line}, column {column}: {problem}; correct it there.")


Syntax = Literal["json", "commented", "jsonc", "toml"]
"""`commented` is JSON with comments; `jsonc` may have a comma after the last item too."""

Keys = Sequence[str | int]
"""The names and places that lead to a value."""

_DEEPEST = 200
_SPACE = re.compile(r"[ \t\r\n]*")
_TRIVIA = re.compile(r"(?:[ \t\r\n]+|//[^\r\n]*|/\*.*?\*/)*", re.DOTALL)
_STRING = re.compile(r'"(?:[^"\\\x00-\x1f]|\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4}))*"')
_SCALAR = re.compile(r"-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?(?![\w.])|(?:true|false|null)\b")
_COMMENT = re.compile(r"//[^\r\n]*|/\*.*?\*/", re.DOTALL)
_LINE_ENDS = re.compile(r"[ \t]*\r?(?:\n|$)")
_SAME_LINE = re.compile(r"(?:[ \t]*(?://[^\r\n]*|/\*[^\r\n]*?\*/))*")


@dataclass(slots=True)
class _Node:
    """A value in a JSON text: where it stands, and what it holds if it is an object or an array."""

    start: int
    end: int = 0
    items: "list[_Item] | None" = None


@dataclass(slots=True)
class _Item:
    """A member of an object, or an item of an array, which has no key; where a comma follows, if any."""

    start: int
    key: str | None
    node: _Node
    comma: int | None = None


@dataclass
class _Json:
    """A JSON text with its values, and what is to be changed in it."""

    text: str
    syntax: Syntax
    edits: list[tuple[int, int, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.trivia = _SPACE if self.syntax == "json" else _TRIVIA
        at = self._skip(self.text.startswith("\ufeff"))
        self.root = None
        if at < len(self.text):
            self.root = self._value(at, 0)
            if (rest := self._skip(self.root.end)) < len(self.text):
                raise self.error("nothing more was expected here", rest)
        first = self.root.items[0] if self.root and self.root.items else None
        before = self.text[: first.start] if first else ""
        indent = before[before.rfind("\n") + 1 :]
        self.unit = indent if indent and not indent.strip() else "  "
        self.is_one_line = bool(first and self.root and "\n" not in before[self.root.start :])
        self.newline = "\r\n" if re.search(r"\r?\n", self.text + "\n")[0] == "\r\n" else "\n"  # type: ignore[index]

    def error(self, problem: str, at: int) -> ConfigError:
        """Return an error that names the line and the column of a place, both from 1."""
        before = self.text[:at].removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
        return ConfigError(problem, before.count("\n") + 1, len(before) - before.rfind("\n"))

    def _skip(self, at: int) -> int:
        found = self.trivia.match(self.text, at)
        return found.end() if found else at

    def _value(self, at: int, depth: int) -> _Node:
        if self.text[at : at + 1] in ("{", "["):
            if depth > _DEEPEST:
                raise self.error("it is nested too deeply", at)
            return self._items(_Node(at, items=[]), depth)
        found = _STRING.match(self.text, at) or _SCALAR.match(self.text, at)
        if found is None:
            raise self.error("a value was expected here", at)
        return _Node(at, found.end())

    def _items(self, node: _Node, depth: int) -> _Node:
        """Read the items of an object or array up to its closing bracket."""
        is_object, at, items = self.text[node.start] == "{", node.start + 1, list[_Item]()
        closing = "}" if is_object else "]"
        node.items = items
        while (at := self._skip(at)) < len(self.text):
            if self.text[at] == closing:
                if items and self.syntax != "jsonc" and items[-1].comma is not None:
                    raise self.error("no comma may follow the last item", items[-1].comma)
                node.end = at + 1
                return node
            if items and items[-1].comma is None:
                raise self.error(f"a comma or {closing} was expected here", at)
            start, key = at, None
            if is_object:
                key, at = self._name(at)
            items.append(_Item(start, key, self._value(at, depth + 1)))
            at = self._skip(items[-1].node.end)
            if self.text[at : at + 1] == ",":
                items[-1].comma, at = at, at + 1
        raise self.error(f"it ends here, and {closing} is missing", len(self.text))

    def _name(self, at: int) -> tuple[str, int]:
        found = _STRING.match(self.text, at)
        if found is None:
            raise self.error("a name in double quotes or } was expected here", at)
        colon = self._skip(found.end())
        if self.text[colon : colon + 1] != ":":
            raise self.error("a colon was expected here", colon)
        name: str = json.loads(found[0])
        return name, self._skip(colon + 1)

    def data(self, node: _Node | None) -> Any:
        """Return what a value says."""
        if node is None:
            return {}
        if node.items is None:
            return json.loads(self.text[node.start : node.end])
        if self.text[node.start] == "{":
            return {item.key: self.data(item.node) for item in node.items}
        return [self.data(item.node) for item in node.items]

    def find(self, keys: Keys) -> tuple[list[_Node], Keys]:
        """Return the values that the keys lead through, and the keys that lead to nothing yet.

        Raises:
            ConfigError: Something else than an object or array is in the way, or a name is there twice.
        """
        nodes = [self.root] if self.root else []
        for place, key in enumerate(keys if nodes else ()):
            node = nodes[-1]
            wanted = "{" if isinstance(key, str) else "["
            if self.text[node.start] != wanted:
                name = f"the value of {json.dumps(keys[place - 1])}" if place else "this"
                raise self.error(f"{name} does not begin with {wanted}", node.start)
            items = node.items or []
            found = [n for n, item in enumerate(items) if key in (item.key, n)]
            if len(found) > 1:
                raise self.error(f"{json.dumps(key)} is there twice", items[found[-1]].start)
            if not found:
                return nodes, keys[place:]
            nodes.append(items[found[0]].node)
        return nodes, () if nodes else keys

    def base(self, node: _Node) -> str:
        """Return the line break and the indentation of the line on which a value begins."""
        line = self.text[self.text.rfind("\n", 0, node.start) + 1 : node.start].removeprefix("\ufeff")
        return self.newline + line[: len(line) - len(line.lstrip())]

    def render(self, value: object, base: str) -> str:
        """Write a value, its further lines with this before them; without it, on one line.

        Lists that hold no objects stay on a line.
        """
        is_object = isinstance(value, dict)
        is_long = bool(value) and (
            is_object or (isinstance(value, list) and any(isinstance(one, dict) for one in value))
        )
        if not base or not is_long:
            return json.dumps(value, ensure_ascii=False)
        lines = [f"{base}{self.unit}{line}" for line in self.lines(value, base + self.unit)]
        return ("{" if is_object else "[") + ",".join(lines) + base + ("}" if is_object else "]")

    def lines(self, value: Any, base: str) -> list[str]:
        """Write each item of an object or array."""
        if isinstance(value, list):
            return [self.render(one, base) for one in value]
        named = {
            json.dumps(key, ensure_ascii=False): self.render(one, base) for key, one in value.items()
        }
        return [f"{name}: {written}" for name, written in named.items()]

    def insert(self, node: _Node, new: Any) -> None:
        """Add items at the end of an object or array."""
        items = node.items or []
        lead = self.text[node.start : items[0].start] if items else ""
        is_one_line = self.is_one_line and "//" not in self.text[node.start : node.end]
        base = "" if is_one_line else self.base(node) + self.unit
        if items:
            base = self.newline + lead[lead.rfind("\n") + 1 :] if "\n" in lead else ""
        gap = base or " "
        written = f",{gap}".join(self.lines(new, base))
        if not items:
            inner = self.text[node.start + 1 : node.end - 1]
            at = node.start + 1 + len(inner.rstrip())
            tail = "" if not base or "\n" in inner[len(inner.rstrip()) :] else self.base(node)
            self.edits.append((at, at, base + written + tail))
            return
        comma = items[-1].comma
        at = items[-1].node.end if comma is None else comma + 1
        after = _SAME_LINE.match(self.text, at)
        end = after.end() if after and base else at
        if comma is None:
            self.edits.append((at, at, ","))
        self.edits.append((end, end, gap + written + ("," if comma is not None else "")))

    def equalise(self, node: _Node, value: Any) -> None:
        """Change what a value says, where it says something else."""
        old = self.data(node)
        if old == value:
            return
        if isinstance(old, dict) and isinstance(value, dict) and old.keys() <= value.keys():
            for item in node.items or []:
                self.equalise(item.node, value[item.key])
            if new := {key: one for key, one in value.items() if key not in old}:
                self.insert(node, new)
        elif isinstance(old, list) and isinstance(value, list) and old and value[: len(old)] == old:
            self.insert(node, value[len(old) :])
        else:
            is_one_line = self.is_one_line or (old and "\n" not in self.text[node.start : node.end])
            base = "" if is_one_line and isinstance(old, dict | list) else self.base(node)
            self.edits.append((node.start, node.end, self.render(value, base)))

    def remove(self, node: _Node, place: int) -> None:
        """Take an item out, with what joins it to its neighbours: the reverse of `insert`."""
        items = node.items or []
        item = items[place]
        start, end = len(self.text[: item.start].rstrip()), item.node.end
        after = end if item.comma is None else item.comma + 1
        if len(items) == 1 and start == node.start + 1 and not self.text[after : node.end - 1].strip():
            self.edits.append((start, node.end - 1, ""))
            return
        since = (items[place - 1].comma or node.start) + 1 if place else node.start + 1
        comments = _COMMENT.findall(self.text[since:start])
        if comments and comments[-1][1] == "/" and not _LINE_ENDS.match(self.text, after):
            start = item.start  # the comment before would take in what follows
        self.edits.append((start, end, ""))
        comma = item.comma if item.comma is not None or not place else items[place - 1].comma
        if comma is not None:
            self.edits.append((comma, comma + 1, ""))

    def changed(self) -> str:
        """Return the text with all edits."""
        parts, at = list[str](), 0
        for start, end, new in sorted(self.edits, key=lambda edit: edit[:2]):
            parts += [self.text[at:start], new]
            at = end
        return "".join(parts) + self.text[at:]


def read(text: str, syntax: Syntax) -> Any:
    """Return what a configuration says; one that holds nothing says {}.

    Raises:
        ConfigError: It breaks the rules of its syntax.
    """
    if syntax == "toml":
        return _toml(text)
    with suppress(ValueError, RecursionError):  # some have megabytes, and say JSON without more
        return json.loads(text.removeprefix("\ufeff"), parse_constant=_no_constant)
    parsed = _Json(text, syntax)
    return parsed.data(parsed.root)


def _no_constant(name: str) -> NoReturn:
    raise ValueError(name)  # NaN and the like are no JSON


def put(text: str, syntax: Syntax, keys: Keys, value: Any) -> str:
    """Return the text with a value where these keys lead; what already says so is not touched.

    A list that only got longer keeps its former items as they are, and so do the members of an object
    that only got more.

    Raises:
        ConfigError: The text cannot be read, or something else is in the way.
    """
    if syntax == "toml":
        return _put_toml(text, [str(key) for key in keys], value)
    parsed = _Json(text, syntax)
    nodes, missing = parsed.find(keys)
    if not missing:
        parsed.equalise(nodes[-1], value)
        return parsed.changed()
    for key in reversed(missing[bool(nodes) :]):
        value = {key: value}
    if nodes:
        parsed.insert(nodes[-1], {missing[0]: value})
        return parsed.changed()
    newline = parsed.newline
    begun = text if not text.strip("\ufeff") or text.endswith("\n") else text + newline
    return begun + parsed.render(value, newline) + newline


def drop(text: str, syntax: Syntax, keys: Keys, keep: int) -> str:
    """Return the text without the value where these keys lead, and without what is empty then.

    What the first `keep` keys lead to stays, even if empty. Where there is no such value, all stays.

    Raises:
        ConfigError: The text cannot be read, or something else is in the way.
    """
    if syntax == "toml":
        return _drop_toml(text, [str(key) for key in keys])
    for depth in range(len(keys), keep, -1):
        parsed = _Json(text, syntax)
        nodes, missing = parsed.find(keys[:depth])
        if missing:
            break
        if depth < len(keys) and parsed.text[nodes[-1].start + 1 : nodes[-1].end - 1].strip():
            break
        items = [item.node for item in nodes[-2].items or []]
        parsed.remove(nodes[-2], items.index(nodes[-1]))
        text = parsed.changed()
    return text


_PLACE = re.compile(r"(.*?) *\(at (?:line (\d+), column (\d+)|end of document)\)", re.DOTALL)


def _toml(text: str) -> dict[str, Any]:
    plain = text.removeprefix("\ufeff")
    try:
        return tomllib.loads(plain)
    except tomllib.TOMLDecodeError as error:
        found = _PLACE.match(str(error))
        problem = found[1] if found else str(error)
        if found and found[2]:
            raise ConfigError(problem, int(found[2]), int(found[3])) from error
        lines = plain.split("\n")
        raise ConfigError(f"{problem} at its end", len(lines), len(lines[-1]) + 1) from error


def _table(data: dict[str, Any], keys: Sequence[str], new: object = None) -> Any:
    """Return what stands where these keys lead, or None; with `new`, all with that there instead."""
    key, *rest = keys
    inner = data.get(key)
    if new is None:
        return _table(inner, rest) if rest and isinstance(inner, dict) else (None if rest else inner)
    return {**data, key: _table(inner if isinstance(inner, dict) else {}, rest, new) if rest else new}


def _put_toml(text: str, keys: Sequence[str], value: dict[str, Any]) -> str:
    data = _toml(text)
    if _table(data, keys) == value:
        return text
    wanted = _table(data, keys, value)
    if _table(data, keys) is None:
        newline = "\r\n" if "\r\n" in text else "\n"
        lines = [f"[{'.'.join(map(_toml_key, keys))}]"]
        lines += [f"{_toml_key(key)} = {_toml_value(one)}" for key, one in value.items()]
        is_empty = not text.strip("\ufeff")
        # It ends as the text did, so that without it the text is what it was.
        ends = newline if is_empty or text.endswith("\n") else ""
        gap = "" if is_empty else newline if ends else 2 * newline
        appended = text + gap + newline.join(lines) + ends
        if _says(appended, wanted):
            return appended
    return _edit_toml(text, keys, value, wanted)


_TOML_TEXT = re.compile(
    r"""\"{3}(?:\\.|(?!\"{3}).)*\"{3,5}|'{3}.*?'{3,5}|"(?:\\.|[^"\\\n])*"|'[^'\n]*'|\#[^\n]*""",
    re.DOTALL,
)


_LAST_LINES = re.compile(r"(?:\r?\n[ \t]*(?:#[^\n]*)?)*\r?\Z")


def _masked(text: re.Match[str]) -> str:
    """Return a text of several lines without what would pass for a table in it, as long as it was."""
    return text[0].replace("[", " ") if text[0].startswith(('"' * 3, "'" * 3)) else text[0]


def _own_tables(text: str, keys: Sequence[str]) -> list[tuple[int, int]]:
    """Return where the table stands that these keys lead to, and those below it, without line ends.

    Comments and empty lines before the next table belong to that.
    """
    names = [re.escape(key) for key in keys]
    header = r"[ \t]*\.[ \t]*".join(f"(?:{name}|\"{name}\"|'{name}')" for name in names)
    own = rf"^\ufeff?[ \t]*\[[ \t]*{header}[ \t]*[.\]][^\n]*(?:\n(?![ \t]*\[)[^\n]*)*"
    found = re.finditer(own, _TOML_TEXT.sub(_masked, text), re.MULTILINE)
    starts = [(table.start() + table[0].startswith("\ufeff"), table[0]) for table in found]
    return [(at, at + len(re.sub(_LAST_LINES, "", table.lstrip("\ufeff")))) for at, table in starts]


def _drop_toml(text: str, keys: Sequence[str]) -> str:
    data, shorter = _toml(text), text
    if _table(data, keys) is None:
        return text
    for start, end in reversed(_own_tables(text, keys)):
        before, after = shorter[:start], shorter[end:]
        newline = "\r\n" if before.endswith("\r\n") else "\n"
        if before.endswith(2 * newline):
            before = before[: -len(newline) * (1 if after else 2)]
        shorter = before + re.sub(r"\A\r?\n", "", after)
    wanted = _table(data, keys, {})
    if _says(shorter, wanted, keys) and _table(_toml(shorter), keys) is None:
        return shorter
    return _edit_toml(text, keys, None, wanted)


def _says(text: str, wanted: dict[str, Any], keys: Sequence[str] = ()) -> bool:
    """Whether a TOML text says this, or would with an empty table where these keys lead."""
    try:
        data = _toml(text)
        return (_table(data, keys, {}) if keys else data) == wanted
    except ConfigError:
        return False


def _edit_toml(
    text: str, keys: Sequence[str], value: dict[str, Any] | None, wanted: dict[str, Any]
) -> str:
    """Change a table where it stands, in whatever form; None takes it out.

    Raises:
        ConfigError: It is written in a form that cannot be changed without touching something else.
    """
    import tomlkit
    from tomlkit.exceptions import TOMLKitError

    newline = "\r\n" if "\r\n" in text else "\n"
    own, changed = _own_tables(text, keys), ""
    start, end = (own[0][0], own[-1][1]) if own and value is not None else (0, len(text))
    if line_end := re.compile(r"\r?\n").match(text, end):
        end = line_end.end()  # else what is added would have one of its own
    start += text.startswith("\ufeff", start)
    try:
        document = tomlkit.parse(text[start:end])
        table: Any = document
        for key in keys[:-1]:
            table = table[key] if isinstance(table, Mapping) else None
        if isinstance(table, Mapping) and tomlkit.dumps(document) == text[start:end]:
            if value is None:
                del table[keys[-1]]  # type: ignore[attr-defined]
            else:
                _set_table(table, keys[-1], value, newline)
            written = tomlkit.dumps(document)
            if newline == "\r\n" and "\n" not in text[start:end].replace("\r\n", ""):
                written = re.sub(r"\r?\n", newline, written)
            changed = text[:start] + written + text[end:]
    except TOMLKitError:
        changed = ""
    if changed and _says(changed, wanted, keys if value is None else ()):
        return changed
    begins = re.search(rf"^[ \t\[]*{re.escape(keys[0])}\b", text, re.MULTILINE)
    line = text.count("\n", 0, begins.start()) + 1 if begins else 1
    raise ConfigError(f"{keys[0]} is written in a form that cannot be added to", line, 1)


def _set_table(table: Any, key: str, value: dict[str, Any], newline: str) -> None:
    """Make a table say this, leaving what already does as it is written."""
    import tomlkit

    if key not in table:
        table[key] = tomlkit.inline_table()
    inner = table[key]
    for name in [name for name in inner if name not in value]:
        del inner[name]
    for name, one in value.items():
        if isinstance(one, dict):
            _set_table(inner, name, one, newline)
        elif inner.get(name) != one:
            item = tomlkit.item(one)
            is_new = name not in inner
            inner[name] = item
            if is_new and not isinstance(inner, tomlkit.items.InlineTable):
                inner[name].trivia.trail = newline


def _toml_key(key: str) -> str:
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else _toml_value(key)


def _toml_value(value: Any) -> str:
    if isinstance(value, dict):
        pairs = ", ".join(f"{_toml_key(key)} = {_toml_value(one)}" for key, one in value.items())
        return f"{{ {pairs} }}"
    # Texts, their lists and truth are written as in JSON, which has no escape for this one sign.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
