import re

from soulkeep import errors
from soulkeep.errors import SoulkeepError


def _names(kind: type[SoulkeepError]) -> list[str]:
    return [name for sub in kind.__subclasses__() for name in (sub.__name__, *_names(sub))]


def test_the_tree_of_errors_is_drawn_as_it_is() -> None:
    drawn = re.findall(r"\w+Error", (errors.__doc__ or "").partition("\n\n")[2])
    assert drawn == ["SoulkeepError", *_names(SoulkeepError)]
