"""How often what holds of any values is tried: few times by default, many times by `-m campaign`."""

from hypothesis import settings

DEAR = settings(max_examples=settings.default.max_examples // 4)  # type: ignore[union-attr]
"""For what opens homes for each example."""
