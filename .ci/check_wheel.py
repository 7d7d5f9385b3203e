"""Checks that a wheel holds what the package needs, and nothing else. Usage: check_wheel.py WHEEL."""

# ruff: noqa: INP001, T201 - a script of its own, which prints what it found

import sys
import zipfile
from pathlib import Path

PACKAGE = "pixaris_sync/"
#: Without these the package installs, imports, and fails later.
NEEDED = (f"{PACKAGE}py.typed", f"{PACKAGE}ledger/sql/", f"{PACKAGE}monitoring/web/")


def main(wheel: Path) -> int:
    """Compare the wheel with the source tree beside this script."""
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if not name.endswith("/")}
    source = Path(__file__).parent.parent
    meant = {
        path.relative_to(source).as_posix()
        for path in (source / PACKAGE).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    packed = {name for name in names if ".dist-info/" not in name}
    faults = [f"missing: {name}" for name in sorted(meant - packed)]
    faults += [f"does not belong there: {name}" for name in sorted(packed - meant)]
    faults += [f"missing: {need}" for need in NEEDED if not any(name.startswith(need) for name in packed)]
    if not any(name.endswith(".dist-info/licenses/LICENSE") for name in names):
        faults.append("missing: LICENSE")
    print(*faults or [f"{wheel.name}: {len(packed)} files, all there"], sep="\n")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
