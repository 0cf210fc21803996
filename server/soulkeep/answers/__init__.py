"""What the tools answer: typed data for programs and compact text for the model, of the same values."""

from typing import Annotated, TypeVar

from pydantic import WithJsonSchema

_Item = TypeVar("_Item")

Items = Annotated[list[_Item], WithJsonSchema({"type": "array", "items": {"type": "object"}})]
"""A list whose items the schema leaves open: a client carries it in every request, and sees them in the
answer."""
