"""The data exports of ChatGPT and Claude: conversations as threads with messages, and their memories."""

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

from soulkeep.documents.markdown import list_entries
from soulkeep.imports.reading import MemoryRecord, MessageRecord, Reading, Record, Source, ThreadRecord
from soulkeep.imports.tables import role_of
from soulkeep.imports.values import json_records
from soulkeep.models import NewMemory, NewMessage

_CONVERSATIONS = re.compile(r"(^|/)conversations[\w-]*\.json$")

_REMEMBERED = re.compile(r"^\d+\. \[(\d{4}-\d{2}-\d{2})\]\.? (.+)$", re.MULTILINE)
"""A line of the list of memories that ChatGPT reads before a conversation."""

_NOT_SAID = ("user_editable_context", "thoughts", "reasoning_recap")
"""What a message of ChatGPT may hold that is no part of a conversation."""

_HEADING = re.compile(r"^\*\*([^*\n]+)\*\*:?[ \t]*$", re.MULTILINE)
"""What Claude's list of memories has in the place of headings."""

_PROJECTS = re.compile(r"(^|/)projects(/[^/]+)?\.json$")
_MEMORIES = re.compile(r"(^|/)memor(ies|y)\.json$")

_UNTITLED = "Untitled conversation"


def conversation_files(source: Source) -> list[str]:
    """Return the names of the files that hold conversations; of a single file its own."""
    if source.is_file:
        return list(source.sizes)
    return [name for name in source.names(".json") if _CONVERSATIONS.search(name)]


def read_chatgpt(source: Source, reading: Reading) -> Iterator[Record]:
    """Yield the conversations of a ChatGPT export, each as it was last, and what it remembered in them.

    A message that was edited, or answered again, has several continuations: the others are not kept.
    """
    for name in conversation_files(source):
        for _, place, chat in json_records(source, name, reading):
            nodes = chat.get("mapping") if isinstance(chat, dict) else None
            if isinstance(nodes, dict):
                yield from _of_chatgpt(chat, nodes, place, reading)
            else:
                reading.report(place, "is no conversation with a mapping of messages")
    for name in [] if source.is_file else [name for name in source.sizes if _MEMORIES.search(name)]:
        for _, place, given in json_records(source, name, reading):
            yield from _remembered(given, place, "ChatGPT", reading, ())
    _leave_others(source, reading, _CONVERSATIONS, _MEMORIES)


def _of_chatgpt(
    chat: Mapping[str, Any], nodes: Mapping[str, Any], place: str, reading: Reading
) -> Iterator[Record]:
    branch = _branch(nodes, chat.get("current_node"))
    every = [node.get("message") for node in nodes.values() if isinstance(node, dict)]
    others = sum(isinstance(message, dict) for message in every) - len(branch)
    reading.leave("messages of other branches", others)
    key = f"chatgpt:{_key(chat, 'conversation_id', 'id')}"
    title = reading.label(chat.get("title")) or _UNTITLED
    created, last = reading.moment(chat.get("create_time")), reading.moment(chat.get("update_time"))
    records: list[Record] = []
    for number, message in enumerate(branch):
        author = message.get("author")
        role = role_of(author.get("role") if isinstance(author, dict) else author)
        content, where = message.get("content"), f"{place}, message {number + 1}"
        text = _text_of(content, reading) if isinstance(content, dict) else reading.text(content)
        moment = reading.moment(message.get("create_time"))
        if (aside := _aside(message, text, where, moment or created, reading)) is not None:
            records += aside
        elif role is None:
            reading.report(where, "has no author that is known")
        elif text:
            said_by = f"{key}:{message.get('id') or number}"
            records.append(MessageRecord(where, key, said_by, NewMessage(role, text, moment or created)))
    if any(isinstance(record, MessageRecord) for record in records):
        is_archived = chat.get("is_archived") is True
        yield ThreadRecord(place, key, title, created, last, archived=is_archived)
    reading.leave("empty conversations", int(not branch))
    yield from records


def _aside(
    message: Mapping[str, Any], text: str, where: str, moment: str | None, reading: Reading
) -> list[Record] | None:
    """Return what a message keeps as memories that nobody said to anybody; None for any other."""
    content, metadata, to = message.get("content"), message.get("metadata"), message.get("recipient")
    kept = [(text, moment)] if text and to == "bio" else []
    if isinstance(content, dict) and content.get("content_type") == "model_editable_context":
        listed = _REMEMBERED.findall(str(content.get("model_set_context", "")))
        kept = [(reading.text(one), reading.moment(day)) for day, one in listed]
    elif isinstance(metadata, dict) and metadata.get("is_visually_hidden_from_conversation"):
        reading.leave("hidden messages", int(bool(text)))
    elif to not in (None, "", "all", "bio", "assistant", "user"):
        reading.leave("calls of tools", int(bool(text)))
    elif not kept:
        return None
    return [
        MemoryRecord(where, NewMemory(one, source="ChatGPT", created_at=at)) for one, at in kept if one
    ]


def _branch(nodes: Mapping[str, Any], last: object) -> list[Mapping[str, Any]]:
    """Return the messages that lead to the last one, the first one first."""
    if last not in nodes:
        leaves = [
            name for name, node in nodes.items() if isinstance(node, dict) and not node.get("children")
        ]
        last = leaves[-1] if leaves else None
    found, seen = list[Mapping[str, Any]](), set[object]()
    while isinstance(last, str) and last in nodes and last not in seen and isinstance(nodes[last], dict):
        seen.add(last)
        message, last = nodes[last].get("message"), nodes[last].get("parent")
        if isinstance(message, dict):
            found.append(message)
    return found[::-1]


def _text_of(content: Mapping[str, Any], reading: Reading) -> str:
    """Return the text of a message; what is no text in it is counted by what it is."""
    parts = content.get("parts")
    if not isinstance(parts, list):
        parts = [content.get("text") or content.get("result") or content.get("content")]
    said = []
    for part in parts:
        if isinstance(part, dict):
            if isinstance(part.get("text"), str):
                said.append(part["text"])
            else:
                reading.leave(str(part.get("content_type") or "attachments").replace("_", " "))
        elif isinstance(part, str):
            said.append(part)
    if content.get("content_type") in _NOT_SAID:
        reading.leave(str(content["content_type"]).replace("_", " "))
        return ""
    return reading.text("\n".join(said))


def read_claude(source: Source, reading: Reading) -> Iterator[Record]:
    """Yield the conversations, projects and memories of a Claude export, or of a single file of it."""
    chats, projects = conversation_files(source), set[object]()
    others = () if source.is_file else source.names(".json")
    files = [name for form in (_PROJECTS, _MEMORIES) for name in others if form.search(name)]
    for name in [*chats, *files]:
        for _, place, given in json_records(source, name, reading):
            if isinstance(given, dict) and isinstance(given.get("chat_messages"), list):
                yield from _of_claude(given, place, reading)
            elif isinstance(given, dict) and {"docs", "prompt_template"} & given.keys():
                for record in _of_project(given, place, reading):
                    projects.add(record.key if isinstance(record, ThreadRecord) else None)
                    yield record
            elif _PROJECTS.search(name):
                reading.report(place, "is no project")
            elif name in files or (isinstance(given, dict) and "conversations_memory" in given):
                yield from _remembered(given, place, "Claude", reading, projects)
            else:
                reading.report(place, "is no conversation with a list of chat_messages")
    _leave_others(source, reading, _CONVERSATIONS, _PROJECTS, _MEMORIES)


def _of_claude(chat: Mapping[str, Any], place: str, reading: Reading) -> Iterator[Record]:
    key = f"claude:{_key(chat, 'uuid', 'id')}"
    created, last = reading.moment(chat.get("created_at")), reading.moment(chat.get("updated_at"))
    thread = ThreadRecord(place, key, reading.label(chat.get("name")) or _UNTITLED, created, last)
    if summary := reading.text(chat.get("summary")):
        yield thread
        yield MemoryRecord(
            place, NewMemory(summary, "summary", key, "Claude", created_at=last or created)
        )
    elif chat["chat_messages"]:
        yield thread
    else:
        reading.leave("empty conversations")
    for number, message in enumerate(chat["chat_messages"]):
        where = f"{place}, message {number + 1}"
        role = role_of(message.get("sender")) if isinstance(message, dict) else None
        if role is None:
            reading.report(where, "has no sender that is known")
            continue
        moment = reading.moment(message.get("created_at")) or created
        said_by, before = f"{key}:{message.get('uuid') or number}", reading.not_kept.total()
        texts = list(_said(message, reading))
        for part, text in enumerate(texts):
            yield MessageRecord(where, key, f"{said_by}:{part}", NewMessage(role, text, moment))
        reading.leave("empty messages", int(not texts and reading.not_kept.total() == before))


def _said(message: Mapping[str, Any], reading: Reading) -> Iterator[str]:
    """Yield the text of a message, and of each file that was sent with it and read."""
    blocks, texts = message.get("content"), list[str]()
    if isinstance(blocks, str):
        texts.append(blocks)
    for block in blocks if isinstance(blocks, list) else ():
        if isinstance(block, dict) and isinstance(block.get("text"), str):
            texts.append(block["text"])
        elif isinstance(block, dict):
            reading.leave(str(block.get("type") or "attachments").replace("_", " "))
    if text := reading.text("\n\n".join(texts)) or reading.text(message.get("text")):
        yield text
    for attached in _dicts(message.get("attachments")):
        if content := reading.text(attached.get("extracted_content")):
            yield f"{attached.get('file_name') or 'Attachment'}:\n\n{content}"
        else:
            reading.leave("attachments")
    reading.leave("files", sum(1 for _ in _dicts(message.get("files"))))


def _of_project(project: Mapping[str, Any], place: str, reading: Reading) -> Iterator[Record]:
    key, title = f"claude:{project.get('uuid')}", reading.label(project.get("name"))
    created, last = reading.moment(project.get("created_at")), reading.moment(project.get("updated_at"))
    prompt, about = (reading.text(project.get(name)) for name in ("prompt_template", "description"))
    docs = list(_dicts(project.get("docs")))
    if not (prompt or about or docs):
        return
    yield ThreadRecord(place, key, title or "Untitled project", created, last, prompt or None)
    if about:
        memory = NewMemory(about, "summary", key, "Claude project", title, created_at=created)
        yield MemoryRecord(place, memory)
    for doc in docs:
        name, moment = (
            reading.label(doc.get("filename")),
            reading.moment(doc.get("created_at")) or created,
        )
        where = f"{place}, {name or 'a document'}"
        yield from _entries(doc.get("content"), where, reading, "Claude project", name, moment, key)


def _remembered(
    given: object, place: str, origin: str, reading: Reading, projects: Collection[object]
) -> Iterator[Record]:
    """Yield what a record of memories says: a text, or a record of one, and perhaps of each project."""
    record = given if isinstance(given, dict) else {"content": given}
    moment = reading.moment(record.get("updated_at") or record.get("created_at"))
    names, of_projects = ("conversations_memory", "content", "memory", "text"), "project_memories"
    texts = [("", record.get(name)) for name in names]
    if isinstance(parts := record.get(of_projects), dict):
        texts += [(f"claude:{key}", text) for key, text in parts.items()]
    if not any(isinstance(text, str) and text.strip() for _, text in texts):
        reading.report(place, "is no memory with a text")
    for key, text in texts:
        thread = key if key in projects else None
        said = _HEADING.sub(r"## \1", reading.text(text))
        yield from _entries(said, place, reading, f"{origin} memory", None, moment, thread)


def _entries(
    text: object,
    place: str,
    reading: Reading,
    source: str,
    subject: str | None,
    created: str | None,
    thread: str | None,
) -> Iterator[Record]:
    """Yield a memory for each entry of a text in Markdown."""
    for entry in list_entries(reading.text(text)):
        about = reading.label(subject or entry.heading, [entry.heading])
        memory = NewMemory(entry.text, "fact", thread, source, about, created_at=created)
        yield MemoryRecord(f"{place}, line {entry.first + 1}", memory)


def _key(chat: Mapping[str, Any], *names: str) -> str:
    """Return what a conversation is known by: an id, else its title and when it began."""
    known = next((str(chat[name]) for name in names if chat.get(name)), "")
    title, began = chat.get("title", chat.get("name")), chat.get("create_time", chat.get("created_at"))
    return known or f"{title}:{began}"


def _dicts(value: object) -> Iterable[Mapping[str, Any]]:
    return (one for one in value if isinstance(one, dict)) if isinstance(value, list) else ()


def _leave_others(source: Source, reading: Reading, *known: re.Pattern[str]) -> None:
    """Count the files of an export that hold neither conversations nor memories."""
    for name in source.sizes if not source.is_file else ():
        if not any(form.search(name) for form in known):
            reading.leave(name if "/" not in name and name.endswith(".json") else "other files")
