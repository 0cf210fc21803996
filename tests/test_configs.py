"""One value in a configuration is changed, and not a byte besides: JSON, JSONC and TOML."""

import json
import re
import tomllib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from soulkeep.configs import ConfigError, Syntax, drop, put, read

KEYS = ("mcpServers", "soulkeep")
TABLE = ("mcp_servers", "soulkeep")
ENTRY = {"command": "/opt/soulkeep", "args": ["serve"], "env": {"SOULKEEP_HOME": "/home/zoë/memory"}}
NEWER = {**ENTRY, "command": "/new/soulkeep", "env": {**ENTRY["env"], "SOULKEEP_TOOLS": "full"}}  # type: ignore[dict-item]

SYNTAXES: tuple[Syntax, ...] = ("json", "commented", "jsonc")
SCALARS = (
    "0",
    "-12.50e3",
    "123456789012345678901",
    "true",
    "null",
    '"a // \\u0041 /* \\" }"',
    '"é😀"',
    '""',
)


class Style:
    """How somebody writes JSON: draws what stands between two signs."""

    def __init__(self, draw: st.DrawFn, syntax: Syntax) -> None:
        self.draw, self.syntax = draw, syntax
        self.newline = draw(st.sampled_from(["\n", "\r\n"]))
        self.unit = draw(st.sampled_from(["  ", "    ", "\t", ""]))
        self.is_minified = draw(st.booleans())

    def gap(self, depth: int) -> str:
        line = self.newline + self.unit * depth
        plain = [" ", line, self.newline + line] if not self.is_minified else ["", " "]
        comments = (
            [f" // it's }}{line}", " /* [ */ ", f"{line}// , {line}"] if self.syntax != "json" else []
        )
        return self.draw(st.sampled_from(plain + comments))

    def value(self, depth: int) -> str:
        kinds = ["scalar", "object", "array"] if depth < 3 else ["scalar"]
        kind = self.draw(st.sampled_from(kinds))
        if kind == "scalar":
            return self.draw(st.sampled_from(SCALARS))
        count = self.draw(st.integers(0, 3))
        if kind == "array":
            return self.items("[]", [self.value(depth + 1) for _ in range(count)], depth)
        return self.object({f"k{n}": self.value(depth + 1) for n in range(count)}, depth)

    def object(self, members: dict[str, str], depth: int) -> str:
        colon = self.draw(st.sampled_from([":", ": "]))
        return self.items("{}", [f'"{key}"{colon}{value}' for key, value in members.items()], depth)

    def items(self, brackets: str, items: list[str], depth: int) -> str:
        text = brackets[0]
        for place, item in enumerate(items):
            text += self.gap(depth + 1) + item
            is_last = place == len(items) - 1
            if not is_last or (self.syntax == "jsonc" and self.draw(st.booleans())):
                text += self.draw(st.sampled_from(["", "" if self.is_minified else " "])) + ","
        return text + self.gap(depth) + brackets[1]


@st.composite
def configurations(draw: st.DrawFn) -> tuple[str, Syntax]:
    """Any configuration of other servers and settings, as text, with its syntax."""
    syntax: Syntax = draw(st.sampled_from(SYNTAXES))
    style = Style(draw, syntax)
    members = {f"k{n}": style.value(1) for n in range(draw(st.integers(0, 2)))}
    if draw(st.booleans()):
        servers = {name: style.value(2) for name in draw(st.sets(st.sampled_from(["other", "böse"])))}
        members["mcpServers"] = style.object(servers, 1)
    members |= {f"m{n}": style.value(1) for n in range(draw(st.integers(0, 1)))}
    ends = draw(st.sampled_from(["", style.newline, style.gap(0)]))
    return draw(st.sampled_from(["", "\ufeff"])) + style.object(members, 0) + ends, syntax


def kept(text: str, syntax: Syntax) -> int:
    return int("mcpServers" in read(text, syntax))


def signs(text: str) -> str:
    return re.sub(r"\s", "", text)


@given(configurations())
def test_a_block_goes_in_and_out_of_any_configuration_and_all_else_stays(
    made: tuple[str, Syntax],
) -> None:
    text, syntax = made

    with_it = put(text, syntax, KEYS, ENTRY)

    data = read(text, syntax)
    assert read(with_it, syntax) == data | {
        "mcpServers": data.get("mcpServers", {}) | {"soulkeep": ENTRY}
    }
    assert put(with_it, syntax, KEYS, ENTRY) == with_it
    without = drop(with_it, syntax, KEYS, kept(text, syntax))
    assert signs(without) == signs(text)
    if data and data.get("mcpServers") != {}:
        assert without == text
    assert drop(text, syntax, KEYS, 0) == text


@given(configurations())
def test_a_block_that_changes_touches_nothing_else(made: tuple[str, Syntax]) -> None:
    text, syntax = made
    with_it = put(text, syntax, KEYS, ENTRY)

    changed = put(with_it, syntax, KEYS, NEWER)

    assert read(changed, syntax)["mcpServers"]["soulkeep"] == NEWER
    assert drop(changed, syntax, KEYS, 1) == drop(with_it, syntax, KEYS, 1)
    assert signs(put(changed, syntax, KEYS, ENTRY)) == signs(with_it)


@given(configurations())
def test_what_others_add_afterwards_stays_when_the_block_goes(made: tuple[str, Syntax]) -> None:
    text, syntax = made
    other = ("mcpServers", "later")
    with_it = put(put(text, syntax, KEYS, ENTRY), syntax, other, {"command": "x"})

    left = drop(with_it, syntax, KEYS, 0)

    assert read(left, syntax) == read(put(text, syntax, other, {"command": "x"}), syntax)
    assert signs(left) == signs(put(text, syntax, other, {"command": "x"}))


CHUNKS = (
    'model = "gpt"  # mine\n',
    '[mcp_servers.other]\ncommand = "npx"\nargs = [\n  "-y", # two\n  "[x]",\n]\n',
    "# over the table\n[projects.\"/home/zoë/[x]\"]\ntrust_level = 'trusted'\n",
    '[notes]\ntext = """\n[mcp_servers.soulkeep]\ncommand = "no"\n"""\n# after it\n',
    "[[lists]]\nn = 1\n\n[[lists]]\nn = 2\n",
    "\n\n# the end",
)


@st.composite
def tables(draw: st.DrawFn) -> str:
    """Any TOML out of parts as people write them."""
    first = draw(st.sampled_from(["", CHUNKS[0], "mcp_servers.first.command = 'f'\n"]))
    chosen = draw(st.lists(st.sampled_from(CHUNKS[1:]), unique=True))
    text = first + draw(st.sampled_from(["", "\n"])).join(chosen)
    text = text.replace("\n", draw(st.sampled_from(["\n", "\r\n"])))
    return draw(st.sampled_from(["", "\ufeff"])) + draw(st.sampled_from([text, text.rstrip()]))


@given(tables())
def test_a_table_goes_in_and_out_of_any_toml_and_all_else_stays(text: str) -> None:
    with_it = put(text, "toml", TABLE, ENTRY)

    data: Any = tomllib.loads(text.removeprefix("\ufeff"))
    servers = data.get("mcp_servers", {}) | {"soulkeep": ENTRY}
    assert read(with_it, "toml") == data | {"mcp_servers": servers}
    assert with_it.startswith(text)
    assert put(with_it, "toml", TABLE, ENTRY) == with_it
    assert drop(with_it, "toml", TABLE, 0) == text
    assert drop(text, "toml", TABLE, 0) == text


@given(tables(), st.sampled_from(CHUNKS[1:4]))
def test_a_table_that_changes_touches_nothing_else(text: str, after: str) -> None:
    newline = "\r\n" if "\r\n" in text else "\n"
    later = newline + after.replace("other", "later").replace("projects", "p2").replace("notes", "n2")
    with_it = (
        put(text, "toml", TABLE, ENTRY) + newline + later.replace("\n", newline).replace("\r\r", "\r")
    )

    changed = put(with_it, "toml", TABLE, NEWER)

    assert read(changed, "toml")["mcp_servers"]["soulkeep"] == NEWER
    assert ("\n" in changed.replace("\r\n", "")) == ("\n" in with_it.replace("\r\n", ""))
    left = drop(changed, "toml", TABLE, 0)
    assert left == drop(with_it, "toml", TABLE, 0)
    assert left.startswith(text.rstrip())
    assert left.endswith(later.replace("\n", newline).replace("\r\r", "\r").lstrip())


@pytest.mark.parametrize(
    "text",
    [
        'mcp_servers = { other = { command = "c" } } # mine\n',
        '[mcp_servers]\nother = { command = "c" }\n[x]\na = [\n  [1],\n  [2],\n]\n',
        'mcp_servers.other.command = "c"\n',
        '[ mcp_servers . "other" ]\ncommand = "c"\n',
    ],
)
def test_a_table_is_added_to_servers_in_whatever_form_they_are_written(text: str) -> None:
    with_it = put(text, "toml", TABLE, ENTRY)

    servers = read(with_it, "toml")["mcp_servers"]
    assert servers == {"other": {"command": "c"}, "soulkeep": ENTRY}
    assert drop(with_it, "toml", TABLE, 1) == text


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize("after", ["", "[other]\nz = 1", "\n# the end\n"])
@pytest.mark.parametrize(
    "variables",
    ['env = { A = "b" }\n', "[mcp_servers.soulkeep.env]\nA = 'b' # mine\n", "env.A = 'b'\n", ""],
)
def test_a_table_that_somebody_wrote_grows_by_its_own_lines_alone(
    variables: str, after: str, newline: str
) -> None:
    own = f'[mcp_servers.soulkeep]\ncommand = "old"\nargs = ["serve"]\nwait = 20 # s\n{variables}'
    text = f'model = "m"\n{own}{after}'.replace("\n", newline)
    former: Any = read(text, "toml")["mcp_servers"]["soulkeep"]
    new = {**former, "command": "/new", "env": {**former.get("env", {}), "SOULKEEP_HOME": "/m"}}

    changed = put(text, "toml", TABLE, new)

    assert read(changed, "toml")["mcp_servers"]["soulkeep"] == new
    assert changed.endswith(after.replace("\n", newline))
    assert drop(changed, "toml", TABLE, 1) == drop(text, "toml", TABLE, 1)
    assert ("\n" in changed.replace("\r\n", "")) == (newline == "\n")
    assert "wait = 20 # s" in changed


def test_tables_below_the_own_one_go_with_it_and_a_comment_over_the_next_one_stays() -> None:
    own = (
        '[mcp_servers.soulkeep]\ncommand = "s"\n\n[mcp_servers."soulkeep".tools.recall]\nmode = "auto"\n'
    )
    before, after = 'model = "m"\n\n', "\n# mine\n[mcp_servers.soulkeeper]\ncommand = 't'\n"

    assert drop(before + own + after, "toml", TABLE, 0) == 'model = "m"\n' + after


@pytest.mark.parametrize(
    ("syntax", "text", "line", "column", "problem"),
    [
        ("json", '{\n  "a": 1,\n}', 2, 9, "comma"),
        ("json", '{"a": 1 // one\n}', 1, 9, "comma or }"),
        ("commented", '{"a": [1, /* x */ ]}', 1, 9, "comma"),
        ("jsonc", '{"a": 1\n "b": 2}', 2, 2, "comma or }"),
        ("jsonc", '\ufeff{\r\n  "ä": "ü", b: 2}', 2, 13, "double quotes"),
        ("jsonc", '{"a" 1}', 1, 6, "colon"),
        ("jsonc", '{"mcpServers": {"x": {', 1, 23, "} is missing"),
        ("jsonc", '{"a": tru}', 1, 7, "value"),
        ("jsonc", '{"a": 01}', 1, 7, "value"),
        ("jsonc", '{"a": "\n"}', 1, 7, "value"),
        ("jsonc", '{"a": 1} }', 1, 10, "nothing more"),
        ("jsonc", "/* never ends", 1, 1, "value"),
        ("jsonc", "[" * 5_000, 1, 202, "deeply"),
        ("jsonc", '{"mcpServers": [1]}', 1, 16, "does not begin with {"),
        ("jsonc", '{"mcpServers": null}', 1, 16, "does not begin with {"),
        ("jsonc", "7", 1, 1, "does not begin with {"),
        ("jsonc", '{"mcpServers": {},\n "mcpServers": {}}', 2, 2, "twice"),
        ("toml", "a = 1\nb = \n", 2, 5, "Invalid value"),
        ("toml", "a = 1\na = 2\n", 2, 6, "overwrite"),
        ("toml", '\ufeffx = """\n', 2, 1, "Unterminated"),
        ("toml", "x = 1\nmcp_servers = 3\n", 2, 1, "cannot be added to"),
    ],
)
def test_a_text_that_breaks_the_rules_is_refused_at_its_line_and_column(
    syntax: Syntax, text: str, line: int, column: int, problem: str
) -> None:
    keys = TABLE if syntax == "toml" else KEYS

    with pytest.raises(ConfigError) as refused:
        put(text, syntax, keys, ENTRY)

    assert (refused.value.line, refused.value.column) == (line, column)
    assert problem in str(refused.value)


def test_a_list_grows_at_its_end_and_shrinks_to_what_it_was() -> None:
    text = '{\n\t"hooks": {\n\t\t"Start": [\n\t\t\t{"a": 1} // first\n\t\t]\n\t}\n}\n'

    longer = put(text, "jsonc", ("hooks", "Start"), [{"a": 1}, {"b": [1, 2]}])

    assert longer == text.replace(
        '{"a": 1} // first\n', '{"a": 1}, // first\n\t\t\t{\n\t\t\t\t"b": [1, 2]\n\t\t\t}\n'
    )
    assert drop(longer, "jsonc", ("hooks", "Start", 1), 0) == text


def test_a_comment_at_the_end_of_a_line_never_takes_in_what_follows() -> None:
    text = '{"mcpServers": {"a": {}, // one\n "soulkeep": {} }, "x": 1}'

    left = drop(text, "jsonc", KEYS, 0)

    assert read(left, "jsonc") == {"mcpServers": {"a": {}}, "x": 1}
    assert "// one" in left


@pytest.mark.parametrize("text", ["", "\ufeff", "\n", " \r\n"])
def test_a_file_that_says_nothing_gets_a_whole_configuration(text: str) -> None:
    with_it = put(text, "json", KEYS, ENTRY)

    assert json.loads(with_it.removeprefix("\ufeff")) == {"mcpServers": {"soulkeep": ENTRY}}
    assert with_it.startswith(text)
    assert with_it.endswith("\r\n" if "\r" in text else "}\n")
