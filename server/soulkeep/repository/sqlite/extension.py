"""The extension sqlite-vec, loaded into connections."""

from importlib.util import find_spec
from pathlib import Path

import apsw


def load_vectors(connection: apsw.Connection) -> None:
    """Load sqlite-vec into a connection."""
    connection.enable_load_extension(True)
    connection.load_extension(_vec_library())
    connection.enable_load_extension(False)


def _vec_library() -> str:
    # Importing sqlite_vec would import numpy, so its library is loaded by path.
    spec = find_spec("sqlite_vec")
    if spec is None or spec.origin is None:
        raise ImportError("the package sqlite-vec is not installed")
    return str(Path(spec.origin).with_name("vec0"))
