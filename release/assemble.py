"""Put together what is released, into one folder: `python release/assemble.py OUT --downloads URL`.

The wheel and the sdist, the bundle for Claude Desktop (`.mcpb`) around that same wheel, `server.json`
for the registry of MCP servers, a bill of materials (CycloneDX) and the checksums of all. It needs what
`tests/clients/release.txt` names, and `mcpb` (npm `@anthropic-ai/mcpb`), on the PATH.
"""

import argparse
import hashlib
import json
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
BUNDLE = ROOT / "release/bundle"
PINS = ROOT / "constraints.txt"


def run(*command: str | Path, cwd: Path = ROOT) -> None:
    """Run a command and stop the build where it fails."""
    # On Windows a command from npm is found only with its ending.
    found = shutil.which(str(command[0])) or sys.exit(f"{command[0]} is not on the PATH")
    subprocess.run([found, *command[1:]], cwd=cwd, check=True)  # noqa: S603 - our own arguments


def pins() -> list[str]:
    """Return the versions of all that soulkeep needs, with their conditions and without their hashes."""
    lines = re.findall(r"^[a-z0-9].*?==.*$", PINS.read_text(encoding="utf-8"), re.M)
    return [line.removesuffix("\\").strip() for line in lines]


def write_project(folder: Path, wheel: Path, version: str) -> None:
    """Write the project that uv installs for a bundle: the wheel in it and the pinned versions."""
    shutil.copy(wheel, folder)
    (folder / "pyproject.toml").write_text(
        f"""[project]
name = "soulkeep-bundle"
version = "{version}"
requires-python = ">=3.11,<3.15"
dependencies = ["soulkeep"]

[tool.uv]
package = false
constraint-dependencies = {json.dumps(pins(), indent=2)}

[tool.uv.sources]
soulkeep = {{ path = "{wheel.name}" }}
""",
        encoding="utf-8",
    )
    # With the hashes of every file, for all platforms.
    run("uv", "lock", "--quiet", "--project", folder)


def make_bundle(out: Path, wheel: Path, version: str) -> Path:
    """Make the bundle of a wheel, validated by the tool of the format."""
    bundle = out / f"soulkeep-{version}.mcpb"
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "bundle"
        shutil.copytree(BUNDLE, folder)
        shutil.copy(ROOT / "LICENSE", folder)
        manifest = json.loads((BUNDLE / "manifest.json").read_text(encoding="utf-8"))
        manifest["version"] = version
        (folder / "manifest.json").write_text(json.dumps(manifest, indent=2), encoding="utf-8")
        write_project(folder, wheel, version)
        run("mcpb", "validate", folder / "manifest.json")
        run("mcpb", "pack", folder, bundle)
    return bundle


def digest(file: Path) -> str:
    """Return the SHA-256 of a file, in hex."""
    return hashlib.sha256(file.read_bytes()).hexdigest()


def write_entry(out: Path, bundle: Path, downloads: str) -> None:
    """Write the registry's entry, with the bundle as it can be downloaded."""
    entry = json.loads((ROOT / "server.json").read_text(encoding="utf-8"))
    entry["packages"].append(
        {
            "registryType": "mcpb",
            "identifier": f"{downloads}/{bundle.name}",
            "fileSha256": digest(bundle),
            "transport": {"type": "stdio"},
        }
    )
    (out / "server.json").write_text(json.dumps(entry, indent=2) + "\n", encoding="utf-8")


def main() -> None:
    """Put everything into an empty folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--downloads", required=True, help="where the files can be downloaded from")
    arguments = parser.parse_args()
    out: Path = arguments.out.absolute()
    if out.exists() and any(out.iterdir()):
        sys.exit(f"{out} is not empty; name another folder")
    run(sys.executable, "-m", "hatchling", "build", "-d", out)
    wheel = next(out.glob("*.whl"))
    version = wheel.name.split("-")[1]
    write_entry(out, make_bundle(out, wheel, version), arguments.downloads)
    materials = out / f"soulkeep-{version}.cdx.json"
    run("cyclonedx-py", "requirements", PINS, "--pyproject", ROOT / "pyproject.toml", "-o", materials)
    sums = [f"{digest(file)}  {file.name}" for file in sorted(out.iterdir()) if file.is_file()]
    (out / "SHA256SUMS").write_text("\n".join(sums) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
