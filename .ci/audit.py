"""Asks whether any locked package has a known hole. Usage: audit.py [OPTIONS OF PIP-AUDIT].

Ends with 0 where there is none, 1 where there is one, and 2 where the question got no full answer.
"""

# ruff: noqa: INP001, S603, T201 - a script of its own, which starts pip-audit and prints what it said

import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement

LOCK = Path(__file__).parent / "lock"
NONE, SOME, NOT_ASKED = 0, 1, 2


def main(options: Sequence[str]) -> int:
    """Ask about all files of the lock at once."""
    versions = locked_versions()
    count = sum(map(len, versions.values()))
    found: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as scratch:
        for path in write_lists(versions, Path(scratch)):
            report = path.with_suffix(".json")
            said = subprocess.run(
                [
                    *(sys.executable, "-m", "pip_audit", "--disable-pip", "--no-deps"),
                    *("--progress-spinner=off", "--format=json", f"--output={report}"),
                    *(f"--requirement={path}", *options),
                ],
                check=False,
                capture_output=True,
                text=True,
            )
            if not report.is_file() or not (text := report.read_text(encoding="utf-8")):
                return not_asked(" ".join(said.stderr.splitlines()[-1:]) or f"exit code {said.returncode}")
            found += json.loads(text)["dependencies"]
    # pip-audit counts it as no hole when the service does not know a package, or answers for another one.
    unknown = [package for package in found if "skip_reason" in package]
    holes = [(package, hole) for package in found for hole in package.get("vulns", ())]
    for package, hole in holes:
        print(f"{package['name']} {package['version']}: {hole['id']}, mended in {mended_in(hole)}")
    if holes:
        print(f"error: {len(holes)} known holes in {count} locked packages", file=sys.stderr)
        print("hint: make upgrade, and raise the bounds in pyproject.toml", file=sys.stderr)
        return SOME
    if unknown or len(found) != count:
        reason = unknown[0]["skip_reason"] if unknown else "the others are not in its answer"
        asked = len(found) - len(unknown)
        return not_asked(f"it answered for {asked} of {count} packages: {reason}")
    print(f"no known hole in {count} locked packages")
    return NONE


def not_asked(cause: str) -> int:
    """Say so: silence here would look like a clean bill."""
    print(f"error: the service that knows of holes could not be asked: {cause}", file=sys.stderr)
    print("hint: try where it can be reached, or another one: make audit ARGS='-s osv'", file=sys.stderr)
    return NOT_ASKED


def locked_versions() -> Mapping[str, Sequence[str]]:
    """Every version of every package that some Python is given."""
    versions: dict[str, set[str]] = {}
    for path in LOCK.glob("*.txt"):
        for line in path.read_text(encoding="utf-8").splitlines():
            if line and not line.startswith(("#", " ")):
                requirement = Requirement(line.rstrip(" \\"))
                versions.setdefault(requirement.name, set()).add(
                    str(requirement.specifier).removeprefix("==")
                )
    return {name: sorted(numbers) for name, numbers in sorted(versions.items())}


def write_lists(versions: Mapping[str, Sequence[str]], folder: Path) -> Sequence[Path]:
    """Lists for pip-audit, which takes one version of a package in each."""
    paths = []
    for number in range(max(map(len, versions.values()))):
        path = folder / f"{number}.txt"
        path.write_text(
            "".join(f"{name}=={each[number]}\n" for name, each in versions.items() if number < len(each)),
            encoding="utf-8",
        )
        paths.append(path)
    return paths


def mended_in(hole: Mapping[str, Any]) -> str:
    """The versions without the hole."""
    return " or ".join(hole["fix_versions"]) or "no version"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
