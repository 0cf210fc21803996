"""What the caller asks for and cannot have."""

from collections.abc import Sequence

from soulkeep.errors.wording import TITLES, SoulkeepError, excerpt, row_name


class UndoConflictError(SoulkeepError):
    """What a change did was changed again, so it cannot be taken back alone.

    `first` are the later changes to be undone before, in this order; without any, no change that is kept
    explains it. `text` is what a document no longer says as it was written, `held_by` the kinds and keys
    of rows that belong to what would go, or without which nothing can come back.
    """

    def __init__(
        self,
        change_id: int,
        kind: str,
        key: str,
        *,
        text: str = "",
        first: Sequence[int] = (),
        held_by: Sequence[tuple[str, str]] = (),
    ) -> None:
        self.change_id = change_id
        self.kind = kind
        self.key = key
        self.text = text
        self.first = tuple(first)
        self.held_by = tuple(held_by)
        what = f"what it did in {key}" if kind == "documents" else row_name(kind, key)
        if self.first:
            more = f" and {rest:,} before them" if (rest := len(self.first) - TITLES) > 0 else ""
            order = ", then ".join(map(str, self.first[:TITLES]))
            remedy = f"undo the later changes first: change {order}{more}"
        elif kind == "documents":
            there = f"put {excerpt(text)} back where it stood and undo again" if text else "read it"
            remedy = f"it was edited by hand, so {there}, or edit it by hand"
        else:
            remedy = "no change that is kept did that, so look at what is there and change it by hand"
        super().__init__(
            f"Change {change_id} cannot be undone: {what} was changed or is used since; {remedy}."
        )


class InvalidInputError(SoulkeepError):
    """An argument breaks a rule; `argument` names it, `rule` says what to send instead."""

    def __init__(self, argument: str, rule: str) -> None:
        self.argument = argument
        self.rule = rule
        super().__init__(f"`{argument}` {rule}.")


class UnknownArgumentError(SoulkeepError):
    """A tool has no argument of this name, but one of which it is a misspelt or shortened form."""

    def __init__(self, tool: str, argument: str, close: str, known: Sequence[str]) -> None:
        self.tool = tool
        self.argument = argument
        self.close = close
        self.known = tuple(known)
        super().__init__(
            f"{tool} has no argument {excerpt(argument)}; did you mean `{close}`? "
            f"It takes {', '.join(known)}. Nothing was done."
        )
