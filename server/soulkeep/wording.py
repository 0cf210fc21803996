"""Numbers with their nouns, as every layer says them to people and models."""


def counted(count: int, noun: str, many: str = "") -> str:
    """Write a number with its noun: 1 memory, 2 memories, 1,000 former texts.

    `many` is the plural where it is neither the noun with an s nor, after a y, with -ies.
    """
    if count == 1:
        return f"1 {noun}"
    ends_in_ies = noun.endswith("y") and noun[-2:] not in ("ay", "ey", "oy")
    return f"{count:,} {many or (noun[:-1] + 'ies' if ends_in_ies else noun + 's')}"


def agreeing(count: int, one: str = "is", many: str = "are") -> str:
    """Return the verb that agrees with a number: 1 is, 2 are."""
    return one if count == 1 else many
