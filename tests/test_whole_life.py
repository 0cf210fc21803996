"""Every operation in any order, against a plain model, undo included.

In one process and in two, with the store in a file and in PostgreSQL.
"""

import copy
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Protocol

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from database_server import place_in_postgres
from examples import DEAR
from forks import context
from soulkeep.app import open_home
from soulkeep.errors import SoulkeepError
from soulkeep.models import MEMORY_TYPES, Memory, NewMemory, NewMessage
from soulkeep.service.home import Home

TEXTS = st.sampled_from(["tea", "coffee", "tea and coffee", "水", "slates", "a roof"])


class RefusedError(Exception):
    """A service refused what it was asked."""


class SetClock:
    """A clock that is set before each step, so that each run of one example sees the same times."""

    def __init__(self) -> None:
        self.now = datetime(2026, 3, 1, 12, tzinfo=UTC)

    def set(self, turn: int) -> None:
        self.now = datetime(2026, 3, 1, 12, tzinfo=UTC) + timedelta(seconds=turn)

    def __call__(self) -> datetime:
        self.now += timedelta(milliseconds=1)
        return self.now


class Actor(Protocol):
    """Whoever works on the home."""

    def open(self, path: str, place: dict[str, Any]) -> None:
        """Open a home, whose store is where `open_home` is told by `place`."""

    def call(self, turn: int, name: str, *arguments: Any, **named: Any) -> Any:
        """Call a method of the home by its path, at a time that is told by the turn."""

    def close(self) -> None:
        """Close the home."""


class Here:
    """Works on the home in this process."""

    def open(self, path: str, place: dict[str, Any]) -> None:
        self.clock = SetClock()
        self.home = open_home(path, embedder="none", clock=self.clock, **place)

    def call(self, turn: int, name: str, *arguments: Any, **named: Any) -> Any:
        self.clock.set(turn)
        try:
            return _called(self.home, name, arguments, named)
        except SoulkeepError as error:
            raise RefusedError(str(error)) from error

    def close(self) -> None:
        self.home.close()


class Elsewhere:
    """Works on the home in a process of its own, which is used for one home after another."""

    def __init__(self) -> None:
        self._pipe, theirs = context().Pipe()
        self.process = context().Process(target=_work, args=(theirs,), daemon=True)
        self.process.start()

    def _ask(self, *request: Any) -> Any:
        self._pipe.send(request)
        assert self._pipe.poll(60), "the other process does not answer"
        done, result = self._pipe.recv()
        if not done:
            raise RefusedError(result)
        return result

    def open(self, path: str, place: dict[str, Any]) -> None:
        self._ask("open", 0, path, (), place)

    def call(self, turn: int, name: str, *arguments: Any, **named: Any) -> Any:
        return self._ask("call", turn, name, arguments, named)

    def close(self) -> None:
        self._ask("close", 0, "", (), {})

    def end(self) -> None:
        self._pipe.close()
        self.process.join(10)


def _work(pipe: Connection) -> None:
    with ExitStack() as opened:
        home, clock = None, SetClock()
        while True:
            try:
                verb, turn, name, arguments, named = pipe.recv()
            except EOFError:
                return
            clock.set(turn)
            try:
                if verb == "open":
                    made = open_home(name, embedder="none", clock=clock, **named)
                    home = opened.enter_context(closing(made))
                    pipe.send((True, None))
                elif verb == "close":
                    opened.close()
                    pipe.send((True, None))
                else:
                    pipe.send((True, _called(home, name, arguments, named)))
            except SoulkeepError as error:
                pipe.send((False, str(error)))


def _called(home: Home | None, name: str, arguments: Any, named: Any) -> Any:
    method: Any = home
    for part in name.split("."):
        method = getattr(method, part)
    return method(*arguments, **named)


Statement = tuple[str, str, str | None, str | None]
"""What a memory says: its content, type, thread and subject."""


@dataclass
class Model:
    """What a home holds, as plain values by id."""

    memories: dict[int, Statement] = field(default_factory=dict)
    trash: dict[int, Statement] = field(default_factory=dict)
    threads: dict[str, tuple[str, str | None, bool]] = field(default_factory=dict)
    prompts: dict[int, tuple[str, str, bool, int]] = field(default_factory=dict)
    messages: dict[int, tuple[str, str]] = field(default_factory=dict)

    @property
    def held(self) -> tuple[Any, ...]:
        """All that is there, without the trash."""
        return self.memories, self.threads, self.prompts, self.messages


class WholeLife(RuleBasedStateMachine):
    """Rules that change a home through one of its actors, and the model alike."""

    def team(self) -> Sequence[Actor]:
        """Return who takes the steps, in turn."""
        return (_here(),)

    def place(self) -> dict[str, Any]:
        """Return where the store of the home is, as `open_home` takes it: in a file."""
        return {}

    @initialize()
    def open(self) -> None:
        self.folder = Path(tempfile.mkdtemp())
        for actor in self.team():
            actor.open(str(self.folder / "home"), self.place())
        self.model = Model()
        self.before: dict[int, Model] = {}
        self.latest = 0
        self.turn = 0

    def act(self, name: str, *arguments: Any, **named: Any) -> Any:
        self.turn += 1
        team = self.team()
        return team[self.turn % len(team)].call(self.turn, name, *arguments, **named)

    def made(self, former: Model) -> None:
        """Note what a change was made to, if one was."""
        (latest,) = self.act("changes.list_changes", 1) or [None]
        if latest is not None and latest.id > self.latest:
            self.latest = latest.id
            self.before[latest.id] = former

    def some(self, data: st.DataObject, ids: Any) -> Any:
        return data.draw(st.sampled_from(list(ids)))

    # Memories.

    @rule(
        data=st.data(),
        content=TEXTS,
        kind=st.sampled_from(MEMORY_TYPES[:2]),
        subject=st.sampled_from([None, "Ada"]),
    )
    def remember(self, data: st.DataObject, content: str, kind: str, subject: str | None) -> None:
        former = copy.deepcopy(self.model)
        thread = data.draw(st.sampled_from([None, *self.model.threads]))
        (receipt,) = self.act("memories.remember", [NewMemory(content, kind, thread, subject=subject)])
        known = (content, kind, thread, subject)
        assert receipt.stored == (known not in self.model.memories.values())
        self.model.memories.setdefault(receipt.id, known)
        self.made(former)

    @precondition(lambda self: len(self.model.memories) > 1)
    @rule(data=st.data())
    def replace_some(self, data: st.DataObject) -> None:
        former = copy.deepcopy(self.model)
        ids = data.draw(
            st.lists(st.sampled_from(list(self.model.memories)), min_size=1, max_size=3, unique=True)
        )
        content = data.draw(st.sampled_from([f"in place of {ids}", "tea", "a roof"]))
        (receipt,) = self.act("memories.remember", [NewMemory(content)], replaces=ids)
        assert set(receipt.replaced) == set(ids) - {receipt.id}
        for memory_id in receipt.replaced:
            self.model.trash[memory_id] = self.model.memories.pop(memory_id)
        known = self.model.memories.setdefault(receipt.id, (content, "fact", None, None))
        assert known == (content, "fact", None, None)
        self.made(former)

    @precondition(lambda self: self.model.memories)
    @rule(data=st.data())
    def revise(self, data: st.DataObject) -> None:
        former = copy.deepcopy(self.model)
        asked = self.some(data, {**self.model.memories, **self.model.trash})
        newest = self.act("lifecycle.find_memory", asked)
        content = f"version {self.turn}"
        if newest is None:
            with pytest.raises(RefusedError):
                self.act("lifecycle.revise", asked, content)
            return
        assert asked not in self.model.memories or newest.id == asked
        _, kind, thread, subject = self.model.memories[newest.id]
        receipt = self.act("lifecycle.revise", asked, content)
        self.model.trash[newest.id] = self.model.memories.pop(newest.id)
        self.model.memories[receipt.id] = (content, kind, thread, subject)
        assert self.act("lifecycle.get_memory", asked).id == receipt.id
        self.made(former)

    @precondition(lambda self: self.model.memories)
    @rule(data=st.data())
    def forget(self, data: st.DataObject) -> None:
        former = copy.deepcopy(self.model)
        memory_id = self.some(data, self.model.memories)
        self.act("lifecycle.forget", [memory_id])
        self.model.trash[memory_id] = self.model.memories.pop(memory_id)
        self.made(former)

    @precondition(lambda self: self.model.trash)
    @rule(data=st.data())
    def restore(self, data: st.DataObject) -> None:
        former = copy.deepcopy(self.model)
        asked = self.some(data, self.model.trash)
        newest = self.act("repository.changes.latest_ids", [asked])[asked]
        memory_id = newest if newest in self.model.trash else asked
        thread = self.model.trash[memory_id][2]
        if thread is not None and thread not in self.model.threads:
            with pytest.raises(RefusedError):
                self.act("lifecycle.restore", [asked])
            return
        self.act("lifecycle.restore", [asked])
        self.model.memories[memory_id] = self.model.trash.pop(memory_id)
        self.made(former)

    @precondition(lambda self: self.model.memories)
    @rule(data=st.data())
    def move(self, data: st.DataObject) -> None:
        former = copy.deepcopy(self.model)
        memory_id = self.some(data, self.model.memories)
        thread = data.draw(st.sampled_from([None, *self.model.threads]))
        self.act("lifecycle.move", [memory_id], thread)
        content, kind, _, subject = self.model.memories[memory_id]
        self.model.memories[memory_id] = (content, kind, thread, subject)
        self.made(former)

    @precondition(lambda self: self.model.memories or self.model.trash)
    @rule(data=st.data())
    def purge(self, data: st.DataObject) -> None:
        memory_id = self.some(data, {**self.model.memories, **self.model.trash})
        purged = self.act("purges.purge", [memory_id])
        assert memory_id in purged.memory_ids
        for gone in purged.memory_ids:
            self.model.memories.pop(gone, None)
            self.model.trash.pop(gone, None)
        # What a purge took cannot come back, so the changes before it lead elsewhere.
        self.before.clear()

    # Threads and messages.

    @rule(title=st.sampled_from(["Roof", "Trip"]), prompt=st.none() | st.just("Be brief."))
    def create_thread(self, title: str, prompt: str | None) -> None:
        former = copy.deepcopy(self.model)
        thread = self.act("threads.create_thread", title, prompt)
        self.model.threads[thread.id] = (title, prompt, False)
        self.made(former)

    @precondition(lambda self: self.model.threads)
    @rule(data=st.data(), what=st.sampled_from(["rename", "set_prompt", "archive"]))
    def change_thread(self, data: st.DataObject, what: str) -> None:
        former = copy.deepcopy(self.model)
        thread_id = self.some(data, self.model.threads)
        title, prompt, archived = self.model.threads[thread_id]
        if what == "rename":
            title = f"Title {self.turn}"
            self.act("threads.rename", thread_id, title)
        elif what == "set_prompt":
            prompt = None if prompt else "Be kind."
            self.act("threads.set_prompt", thread_id, prompt)
        else:
            archived = not archived
            self.act("threads.set_archived", thread_id, archived=archived)
        self.model.threads[thread_id] = (title, prompt, archived)
        self.made(former)

    @precondition(lambda self: self.model.threads)
    @rule(data=st.data(), fate=st.sampled_from(["global", "forget"]))
    def delete_thread(self, data: st.DataObject, fate: str) -> None:
        former = copy.deepcopy(self.model)
        thread_id = self.some(data, self.model.threads)
        deleted = self.act("threads.delete", thread_id, fate)
        del self.model.threads[thread_id]
        for memory_id in deleted.memory_ids:
            content, kind, thread, subject = self.model.memories.pop(memory_id)
            assert thread == thread_id
            if fate == "global":
                self.model.memories[memory_id] = (content, kind, None, subject)
            else:
                self.model.trash[memory_id] = (content, kind, thread, subject)
        self.model.messages = {i: m for i, m in self.model.messages.items() if m[0] != thread_id}
        self.made(former)

    @precondition(lambda self: self.model.threads)
    @rule(data=st.data(), contents=st.lists(TEXTS, min_size=1, max_size=3))
    def save_messages(self, data: st.DataObject, contents: list[str]) -> None:
        former = copy.deepcopy(self.model)
        thread_id = self.some(data, self.model.threads)
        texts = [f"{content} {self.turn}" for content in contents]
        saved = self.act("messages.save", thread_id, [NewMessage("user", text) for text in texts])
        assert all(one.stored for one in saved)
        self.model.messages |= {
            one.id: (thread_id, text) for one, text in zip(saved, texts, strict=True)
        }
        self.made(former)

    # Prompts.

    @rule(name=st.sampled_from(["Tone", "Safety"]), priority=st.integers(-2, 2))
    def add_prompt(self, name: str, priority: int) -> None:
        former = copy.deepcopy(self.model)
        prompt = self.act("prompts.add_prompt", name, "Be kind.", priority)
        self.model.prompts[prompt.id] = (name, "Be kind.", True, priority)
        self.made(former)

    @precondition(lambda self: self.model.prompts)
    @rule(data=st.data(), is_active=st.booleans())
    def change_prompt(self, data: st.DataObject, is_active: bool) -> None:
        former = copy.deepcopy(self.model)
        prompt_id = self.some(data, self.model.prompts)
        content = f"Be kind, {self.turn}."
        self.act("prompts.change_prompt", prompt_id, content=content, is_active=is_active)
        name, _, _, priority = self.model.prompts[prompt_id]
        self.model.prompts[prompt_id] = (name, content, is_active, priority)
        self.made(former)

    @precondition(lambda self: self.model.prompts)
    @rule(data=st.data())
    def remove_prompt(self, data: st.DataObject) -> None:
        former = copy.deepcopy(self.model)
        prompt_id = self.some(data, self.model.prompts)
        self.act("prompts.remove_prompt", prompt_id)
        del self.model.prompts[prompt_id]
        self.made(former)

    # Undoing.

    @precondition(lambda self: self.before)
    @rule()
    def undo_the_latest(self) -> None:
        latest = max(self.before)
        former, self.model = copy.deepcopy(self.model), copy.deepcopy(self.before[latest])
        self.act("changes.undo", latest)
        self.trash_of_now()
        self.made(former)

    @precondition(lambda self: self.before)
    @rule(data=st.data())
    def undo_since(self, data: st.DataObject) -> None:
        changes = self.act("changes.list_changes", 1000)
        chosen = self.some(data, self.before)
        moment = next(change.made_at for change in changes if change.id == chosen)
        first = min(change.id for change in changes if change.made_at >= moment)
        if first not in self.before:
            return
        former, self.model = copy.deepcopy(self.model), copy.deepcopy(self.before[first])
        self.act("changes.undo_since", moment)
        self.trash_of_now()
        self.made(former)

    def trash_of_now(self) -> None:
        """Take over which memories can be restored: more than before, as undoing is a change too."""
        past = self.act("lifecycle.list_trash", 1000)
        gone = {p.memory.id: p.memory for p in past}
        self.model.trash = {i: _statement(m) for i, m in sorted(gone.items())}
        assert not self.model.trash.keys() & self.model.memories.keys()

    # The rest of what can be done at any time.

    @rule(
        verb=st.sampled_from(["indexes.reindex", "repairs.compact", "sessions.flush", "repairs.repair"])
    )
    def keep_house(self, verb: str) -> None:
        self.act(verb)

    @invariant()
    def the_home_is_what_the_model_says(self) -> None:
        if not hasattr(self, "model"):
            return
        memories = self.act("lifecycle.list_memories", limit=1000)
        threads = self.act("threads.list_threads", 1000, None)
        prompts = self.act("prompts.list_prompts", include_inactive=True)
        messages = {
            message.id: (thread.id, message.content)
            for thread in threads
            for message in self.act("messages.list_messages", thread.id, 200).messages
        }
        assert (
            {m.id: _statement(m) for m in memories},
            {t.id: (t.title, t.system_prompt, t.archived) for t in threads},
            {p.id: (p.name, p.content, p.is_active, p.priority) for p in prompts},
            messages,
        ) == self.model.held
        assert {p.memory.id for p in self.act("lifecycle.list_trash", 1000)} == self.model.trash.keys()
        assert self.act("check") == []

    @invariant()
    def recall_finds_what_is_there_and_nothing_else(self) -> None:
        if hasattr(self, "model"):
            found = self.act("memories.recall", "tea coffee", limit=100).matches
            assert {match.memory.id for match in found} == {
                i
                for i, (content, *_) in self.model.memories.items()
                if "tea" in content or "coff" in content
            }

    def teardown(self) -> None:
        if hasattr(self, "model"):
            for actor in self.team():
                actor.close()
            shutil.rmtree(self.folder)


def _statement(memory: Memory) -> Statement:
    return memory.content, memory.memory_type, memory.thread_id, memory.subject


class LifeInTwoProcesses(WholeLife):
    """The same, each step by the other one of two processes that have the home open."""

    def team(self) -> Sequence[Actor]:
        """Return two processes, started at first use."""
        return _two_processes()


class LifeInPostgres(WholeLife):
    """The same, with the store in PostgreSQL."""

    def place(self) -> dict[str, Any]:
        """Return a home of its own in the database."""
        return place_in_postgres(self.folder)


class LifeInTwoProcessesInPostgres(LifeInTwoProcesses, LifeInPostgres):
    """The same, each step by the other one of two processes."""


@cache
def _here() -> Actor:
    return Here()


@cache
def _two_processes() -> tuple["Elsewhere", ...]:
    return Elsewhere(), Elsewhere()


@pytest.fixture(autouse=True, scope="module")
def _end_processes() -> Iterator[None]:
    yield
    if _two_processes.cache_info().currsize:
        for actor in _two_processes():
            actor.end()


TestWholeLife = WholeLife.TestCase
TestWholeLife.settings = DEAR


FEW = settings(DEAR, max_examples=DEAR.max_examples // 2, stateful_step_count=10)

TestLifeInTwoProcesses = LifeInTwoProcesses.TestCase
TestLifeInTwoProcesses.settings = FEW


TestLifeInPostgres = pytest.mark.postgres(LifeInPostgres.TestCase)
TestLifeInPostgres.settings = DEAR


TestLifeInTwoProcessesInPostgres = pytest.mark.postgres(LifeInTwoProcessesInPostgres.TestCase)
TestLifeInTwoProcessesInPostgres.settings = FEW


class LongLife(WholeLife):
    """The same, for as long as it takes to meet what is rare."""


class LongLifeInPostgres(LifeInPostgres):
    """The same, with the store in PostgreSQL."""


LONG = settings(deadline=None, max_examples=1_000, stateful_step_count=40)

TestLongLife = pytest.mark.campaign(LongLife.TestCase)
TestLongLife.settings = LONG

TestLongLifeInPostgres = pytest.mark.postgres(pytest.mark.campaign(LongLifeInPostgres.TestCase))
TestLongLifeInPostgres.settings = LONG
