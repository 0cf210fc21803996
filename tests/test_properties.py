"""Whatever is kept comes back unchanged or is refused, in any order of operations."""

import contextlib
import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, rule

from conftest import TickingClock
from database_server import place_in_postgres
from examples import DEAR
from soulkeep.app import open_home
from soulkeep.cli.terminal import printable
from soulkeep.errors import InvalidInputError
from soulkeep.mcp_server.protocol import RefusedError, parse_line
from soulkeep.models import MEMORY_TYPES, NewMemory
from soulkeep.service.home import Home
from soulkeep.wording import quoted, without_hidden

any_text = st.text(st.characters(codec=None, categories=None), max_size=200)


def _acceptable(text: str) -> bool:
    return bool(text.strip()) and "\0" not in text and not any("\ud800" <= c <= "\udfff" for c in text)


@given(content=any_text, source=any_text)
def test_any_text_is_kept_to_the_letter_or_refused(content: str, source: str, home: Home) -> None:
    memory = NewMemory(content, source=source or None)
    try:
        (receipt,) = home.memories.remember([memory])
    except InvalidInputError:
        assert not _acceptable(content) or (source and not _acceptable(without_hidden(source)))
        return

    kept = home.lifecycle.get_memory(receipt.id)
    assert kept.content == content
    if receipt.stored:
        assert kept.source == (without_hidden(source).strip() if source else None)


@DEAR
@given(seed=st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=20))
def test_texts_up_to_the_maximum_are_kept_to_the_letter(seed: str, home: Home) -> None:
    content = (seed + "x") * (100_000 // (len(seed) + 1))

    (receipt,) = home.memories.remember([NewMemory(content)])

    assert home.lifecycle.get_memory(receipt.id).content == content


@given(query=any_text)
@pytest.mark.embedder("universal")
def test_any_query_is_answered_or_refused(query: str, home: Home) -> None:
    home.memories.remember([NewMemory("The only memory.")])
    try:
        matches = home.memories.recall(query).matches
    except InvalidInputError:
        assert not _acceptable(query)
    else:
        assert len(matches) == 1


@given(line=st.binary(max_size=300))
def test_any_line_is_a_message_or_refused_with_an_answer(line: bytes) -> None:
    try:
        answer = parse_line(line)
    except RefusedError as refused:
        answer = refused.error

    assert answer.model_dump_json()


@given(any_text)
def test_what_is_printed_or_quoted_cannot_drive_a_terminal(text: str) -> None:
    assert "\x1b" not in printable(text)
    assert len(quoted(text)) < 500
    assert quoted(text).encode().isascii() or quoted(text).isprintable()


class HomeMachine(RuleBasedStateMachine):
    """A home against a plain model: a dict of memories, a dict of prompts and a set of threads."""

    threads = Bundle("threads")

    @initialize()
    def open(self) -> None:
        self.folder = Path(tempfile.mkdtemp())
        self.memories: dict[int, tuple[str, str, str | None]] = {}
        self.prompts: dict[int, tuple[str, bool, int]] = {}
        self._open("auto")

    def _open(self, embedder: str) -> None:
        self.home: Home = open_home(self.folder, embedder=embedder, clock=TickingClock(), **self.place())

    def place(self) -> dict[str, Any]:
        """Return where the store of the home is, as `open_home` takes it: in a file."""
        return {}

    @rule(target=threads, title=st.sampled_from(["One", "Two"]))
    def create_thread(self, title: str) -> str:
        return self.home.threads.create_thread(title).id

    @rule(
        contents=st.lists(st.sampled_from(["tea", "coffee", "tea and coffee", "水", " "]), max_size=3),
        memory_type=st.sampled_from(MEMORY_TYPES),
        thread=st.none() | threads,
    )
    def remember(self, contents: list[str], memory_type: str, thread: str | None) -> None:
        with contextlib.suppress(InvalidInputError):
            receipts = self.home.memories.remember(
                [NewMemory(content, memory_type, thread) for content in contents]
            )
            for receipt, content in zip(receipts, contents, strict=True):
                known = (content, memory_type, thread)
                assert receipt.stored == (known not in self.memories.values())
                assert self.memories.setdefault(receipt.id, known) == known

    @rule(thread=st.none() | threads, memory_type=st.none() | st.sampled_from(MEMORY_TYPES))
    def recall(self, thread: str | None, memory_type: str | None) -> None:
        matches = self.home.memories.recall(
            "tea", limit=100, thread_id=thread, memory_type=memory_type
        ).matches

        expected = {
            memory_id
            for memory_id, (_, kind, scope) in self.memories.items()
            if memory_type in (None, kind) and (thread is None or scope in (None, thread))
        }
        assert {match.memory.id for match in matches} == expected

    @rule(name=st.sampled_from(["Tone", "Safety"]), priority=st.integers(-3, 3))
    def add_prompt(self, name: str, priority: int) -> None:
        prompt = self.home.prompts.add_prompt(name, "Be kind.", priority)
        self.prompts[prompt.id] = (name, True, priority)

    @rule(data=st.data(), is_active=st.booleans())
    def switch_prompt(self, data: st.DataObject, is_active: bool) -> None:
        if self.prompts:
            prompt_id = data.draw(st.sampled_from(sorted(self.prompts)))
            self.home.prompts.change_prompt(prompt_id, is_active=is_active)
            self.prompts[prompt_id] = (self.prompts[prompt_id][0], is_active, self.prompts[prompt_id][2])

    @rule(data=st.data())
    def remove_prompt(self, data: st.DataObject) -> None:
        if self.prompts:
            prompt_id = data.draw(st.sampled_from(sorted(self.prompts)))
            self.home.prompts.remove_prompt(prompt_id)
            del self.prompts[prompt_id]

    @rule()
    def reopen(self) -> None:
        self.home.close()
        self._open("auto")

    @rule()
    def reindex(self) -> None:
        assert self.home.indexes.reindex() == len(self.memories)

    @invariant()
    def prompts_are_those_of_the_model_in_order(self) -> None:
        if hasattr(self, "home"):
            listed = self.home.prompts.list_prompts(include_inactive=True)
            assert {p.id: (p.name, p.is_active, p.priority) for p in listed} == self.prompts
            assert [p.priority for p in listed] == sorted((p.priority for p in listed), reverse=True)

    @invariant()
    def the_store_is_whole(self) -> None:
        if hasattr(self, "home"):
            assert self.home.check() == []
            assert self.home.repository.count_rows()["memories"] == len(self.memories)

    def teardown(self) -> None:
        if hasattr(self, "home"):
            self.home.close()
            shutil.rmtree(self.folder)


class HomeInPostgresMachine(HomeMachine):
    """The same, with the store in PostgreSQL."""

    def place(self) -> dict[str, Any]:
        """Return a home of its own in the database."""
        return place_in_postgres(self.folder)


TestHomeMachine = pytest.mark.embedder(HomeMachine.TestCase)
TestHomeMachine.settings = DEAR

TestHomeInPostgresMachine = pytest.mark.postgres(pytest.mark.embedder(HomeInPostgresMachine.TestCase))
TestHomeInPostgresMachine.settings = DEAR
