"""What the service may ask of a store."""

from soulkeep.repository.sqlite import SqliteRepository as Repository

__all__ = ["Repository"]
