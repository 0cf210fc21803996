import re
from types import ModuleType

import pytest

from soulkeep import embedders, errors
from soulkeep.errors import EmbedderError, SoulkeepError


def _names(kind: type[SoulkeepError], module: str) -> list[str]:
    subs = [sub for sub in kind.__subclasses__() if sub.__module__ == module]
    return [name for sub in subs for name in (sub.__name__, *_names(sub, module))]


@pytest.mark.parametrize(("module", "root"), [(errors, SoulkeepError), (embedders, EmbedderError)])
def test_the_tree_of_errors_is_drawn_as_it_is(module: ModuleType, root: type[SoulkeepError]) -> None:
    drawn = re.findall(r"\w+Error", module.__doc__ or "")
    assert drawn == [root.__name__, *_names(root, module.__name__)]
