"""The user's global prompts: stored system prompts, loaded by priority, and offered to MCP clients."""

import hashlib
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from soulkeep.errors import InvalidInputError, PromptNameNotFoundError
from soulkeep.models import Clock, GlobalPrompt, PromptChange, PromptOffer, Session, timestamp
from soulkeep.repository import Repository
from soulkeep.search.words import same_title
from soulkeep.service.callers import (
    MAX_CONTENT,
    MAX_NAME,
    MAX_PRIORITY,
    Sessions,
    require_range,
    require_text,
)
from soulkeep.service.changes import Changes
from soulkeep.wording import list_placeholders, without_hidden

RESERVED_NAMES = frozenset({"start"})
"""The names of prompts that are part of the server."""

_MAX_SLUG = 48
_MAX_DESCRIPTION = 120

_NOT_IN_SLUGS = re.compile("[^a-z0-9]+")
_LETTER = re.compile("[a-z]")
# Case folding and decomposition leave these as they are.
_LATIN = str.maketrans(
    {"æ": "ae", "œ": "oe", "ø": "o", "đ": "d", "ð": "d", "ł": "l", "þ": "th", "\u0131": "i"}
)
_APOSTROPHES = re.compile("['\u2019]")


def offer_prompts(prompts: Sequence[GlobalPrompt]) -> list[PromptOffer]:
    """Offer those of `prompts` that are in force, in their order.

    Of those that would have one name the oldest has it, and the others add their id.
    """
    active = [prompt for prompt in prompts if prompt.in_force]
    offers: dict[str, PromptOffer] = {}
    for prompt in sorted(active, key=lambda prompt: prompt.id):
        # The name in a-z, 0-9 and hyphens, or the id where no letter of it can be written so.
        plain = _APOSTROPHES.sub("", prompt.name.casefold()).translate(_LATIN)
        letters = unicodedata.normalize("NFKD", plain)
        bare = "".join(letter for letter in letters if not unicodedata.combining(letter))
        slug = _NOT_IN_SLUGS.sub("-", bare.casefold()).strip("-")[:_MAX_SLUG].rstrip("-")
        name = slug if _LETTER.search(slug) else f"prompt-{prompt.id}"
        while name in offers or name in RESERVED_NAMES:
            name = f"{name}-{prompt.id}"
        line = " ".join(prompt.content.strip().partition("\n")[0].split())
        line = line if len(line) <= _MAX_DESCRIPTION else line[: _MAX_DESCRIPTION - 1] + "…"
        offers[name] = PromptOffer(name, prompt, line, tuple(list_placeholders(prompt.content)))
    return sorted(offers.values(), key=lambda offer: active.index(offer.prompt))


def fingerprint(offers: Sequence[PromptOffer]) -> str:
    """Return a text that two lists of offers share exactly when clients see the same in them."""
    seen = [(offer.name, offer.prompt.name, offer.description, offer.arguments) for offer in offers]
    return hashlib.sha256(ascii(seen).encode()).hexdigest()


@dataclass(eq=False)
class Prompts:
    """The service behind `list_prompts`, `set_prompt`, MCP prompts and `soulkeep prompts`."""

    _repository: Repository
    _changes: Changes
    _sessions: Sessions
    _clock: Clock

    def list_prompts(self, *, include_inactive: bool = False) -> list[GlobalPrompt]:
        """Return the prompts that are in force, or all, highest priority first, older among equals."""
        prompts = self._repository.prompts.list_prompts()
        return [prompt for prompt in prompts if include_inactive or prompt.in_force]

    def list_offers(self) -> list[PromptOffer]:
        """Return the active prompts as MCP clients see them, highest priority first.

        Raises:
            StoreError: The store cannot be read.
        """
        return offer_prompts(self.list_prompts())

    def outline(self) -> str:
        """Return a text that changes with states and lengths of prompts, at little cost."""
        return self._repository.prompts.outline()

    def add_prompt(
        self, name: str, content: str, priority: int = 0, session: Session | None = None
    ) -> GlobalPrompt:
        """Store an active prompt.

        Raises:
            InvalidInputError: The name, the content or the priority breaks a rule.
        """
        session, name = session or self._sessions.current(), without_hidden(name)
        with self._changes.recording("prompt.created", session):
            values = {"content": content, "priority": priority}
            return self._add(name, values, session, agreed=session.is_users)

    def change_prompt(
        self,
        prompt_id: int,
        *,
        name: str | None = None,
        content: str | None = None,
        priority: int | None = None,
        is_active: bool | None = None,
        session: Session | None = None,
    ) -> GlobalPrompt:
        """Change what is given and keep the rest; return the prompt as it is now.

        Raises:
            PromptNotFoundError: There is none with this id.
            InvalidInputError: A new value breaks a rule.
        """
        session = session or self._sessions.current()
        name = None if name is None else without_hidden(name)
        changes = _given(name=name, content=content, priority=priority, is_active=is_active)
        with self._changes.recording("prompt.changed", session):
            former = self._repository.prompts.get_prompt(prompt_id)
            agreed = _agrees(former, changes, session)
            return self._change(former, changes, session, agreed=agreed)

    def remove_prompt(self, prompt_id: int, session: Session | None = None) -> GlobalPrompt:
        """Delete a prompt and return it, so that the caller can put it back.

        Raises:
            PromptNotFoundError: There is none with this id.
        """
        session = session or self._sessions.current()
        with self._changes.recording("prompt.removed", session):
            prompt = self._repository.prompts.get_prompt(prompt_id)
            self._repository.prompts.delete_prompt(prompt_id)
            self._sessions.audit(session, "prompt.removed", {"prompt_id": prompt_id})
        return prompt

    def set_prompt(
        self,
        name: str = "",
        content: str = "",
        *,
        priority: int | None = None,
        is_active: bool | None = None,
        remove: bool = False,
        prompt_id: int | None = None,
        session: Session | None = None,
        agreed: bool = False,
    ) -> PromptChange:
        """Create, change or remove one prompt; what is empty or unset stays as it is.

        `prompt_id` says which, and a name with it is its new one. Without it the name does, in any case:
        the prompt of that name is changed, or a new one created.

        What the user did not write or agree to is no instruction: a new prompt is then inactive, and one
        that is there stays as it is if it would be in force, or if the user agreed to its text.

        Raises:
            PromptNotFoundError: There is none with this id.
            PromptNameNotFoundError: There is none of this name, and no content to create it with.
            InvalidInputError: A value breaks a rule, or several prompts have the name.
        """
        session, name = session or self._sessions.current(), without_hidden(name)
        changes = _given(content=content or None, priority=priority, is_active=is_active)
        if remove and changes:
            raise InvalidInputError(
                "remove", f"must be sent without {', '.join(changes)}; leave one out"
            )
        with self._changes.recording("prompt.set", session):
            former = self._known(name, prompt_id)
            if former is None:
                if "content" not in changes:
                    raise PromptNameNotFoundError(name)
                agreed = agreed or session.is_users
                changes |= {} if agreed else {"is_active": False}
                change = PromptChange("created", self._add(name, changes, session, agreed=agreed))
            elif remove:
                self._repository.prompts.delete_prompt(former.id)
                self._sessions.audit(session, "prompt.removed", {"prompt_id": former.id})
                change = PromptChange("removed", former)
            else:
                changes |= {"name": name.strip()} if prompt_id is not None and name.strip() else {}
                change = self._changed(former, changes, session, agreed=agreed)
            names = {offer.prompt.id: offer.name for offer in self.list_offers()}
            return replace(change, offered_as=names.get(change.prompt.id))

    def find_unagreed(
        self,
        name: str = "",
        content: str = "",
        *,
        priority: int | None = None,
        is_active: bool | None = None,
        remove: bool = False,
        prompt_id: int | None = None,
    ) -> GlobalPrompt | None:
        """Return the prompt as `set_prompt` would put it in force, if the user has yet to agree to it.

        Raises:
            As `set_prompt`.
        """
        name = without_hidden(name)
        former = None if remove else self._known(name, prompt_id)
        if former is None:
            if remove or is_active is False or not content:
                return None
            _require(name, content, priority or 0)
            return GlobalPrompt(0, name.strip(), content, True, priority or 0, "", None, False)
        changes = _given(content=content or None, priority=priority, is_active=is_active)
        changes |= {"name": name.strip()} if prompt_id is not None and name.strip() else {}
        changed = replace(former, **changes)
        _require(changed.name, changed.content, changed.priority)
        return changed if changes and changed.is_active and not self._is_agreed(changed) else None

    def _known(self, name: str, prompt_id: int | None) -> GlobalPrompt | None:
        if prompt_id is not None:
            return self._repository.prompts.get_prompt(prompt_id)
        require_text("name", name, MAX_NAME)
        found = [
            p for p in self.list_prompts(include_inactive=True) if same_title(p.name) == same_title(name)
        ]
        if len(found) > 1:
            ids = ", ".join(str(prompt.id) for prompt in found)
            raise InvalidInputError("name", f"fits the prompts {ids}; say which with prompt_id")
        return found[0] if found else None

    def _changed(
        self,
        former: GlobalPrompt,
        changes: dict[str, Any],
        session: Session,
        *,
        agreed: bool,
    ) -> PromptChange:
        if not changes:
            raise InvalidInputError("content", "priority, is_active or remove must say what to change")
        changed = replace(former, **changes)
        # Whether it would be an instruction, or take the place of one.
        counts = changed.is_active or former.is_agreed
        if counts and not (agreed or session.is_users or self._is_agreed(changed)):
            return PromptChange("kept", former, former)
        agreed = agreed or _agrees(former, changes, session)
        changed = self._change(former, changes, session, agreed=agreed)
        return PromptChange("changed", changed, former)

    def _is_agreed(self, prompt: GlobalPrompt) -> bool:
        return self._repository.consents.origin("global_prompts", prompt.id, prompt.agreed_text)[1]

    def _add(
        self,
        name: str,
        values: Mapping[str, Any],
        session: Session,
        *,
        agreed: bool,
    ) -> GlobalPrompt:
        content, priority = values["content"], values.get("priority", 0)
        _require(name, content, priority)
        table = self._repository.prompts
        now, is_active = timestamp(self._clock()), values.get("is_active", True)
        prompt_id = table.add_prompt(name.strip(), content, priority, now, is_active=is_active)
        prompt = table.get_prompt(prompt_id)
        self._note(prompt, session, agreed=agreed)
        details = {"prompt_id": prompt_id, "priority": priority}
        self._sessions.audit(session, "prompt.created", details)
        return table.get_prompt(prompt_id)

    def _change(
        self,
        former: GlobalPrompt,
        changes: Mapping[str, Any],
        session: Session,
        *,
        agreed: bool,
    ) -> GlobalPrompt:
        changed = replace(former, **changes)
        _require(changed.name, changed.content, changed.priority)
        self._repository.prompts.update_prompt(changed)
        self._note(changed, session, agreed=agreed)
        details = {"prompt_id": former.id, "fields": sorted(changes)}
        self._sessions.audit(session, "prompt.changed", details)
        return self._repository.prompts.get_prompt(former.id)

    def _note(self, prompt: GlobalPrompt, session: Session, *, agreed: bool) -> None:
        note, by = self._repository.consents.note, session.agent_id
        note("global_prompts", prompt.id, prompt.agreed_text, by, agreed=agreed)


def _given(**values: object) -> dict[str, Any]:
    return {field: value for field, value in values.items() if value is not None}


def _agrees(former: GlobalPrompt, changes: Mapping[str, Any], session: Session) -> bool:
    """Whether the user, by hand, wrote or switched on what a prompt says."""
    wrote = former.is_agreed or "content" in changes or changes.get("is_active") is True
    return session.is_users and wrote


def _require(name: str, content: str, priority: int) -> None:
    require_text("name", name, MAX_NAME)
    require_text("content", content, MAX_CONTENT)
    require_range("priority", priority, -MAX_PRIORITY, MAX_PRIORITY)
