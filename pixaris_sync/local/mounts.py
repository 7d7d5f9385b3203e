"""What kind of file system a folder is on, by Linux' table of mounts."""

from pathlib import Path
from typing import Final

MOUNTS: Final = Path("/proc/self/mountinfo")
#: File systems that other machines write to: no event tells of that here, and their locks are not to be
#: trusted with a database (https://www.sqlite.org/wal.html: "WAL does not work over a network filesystem").
_NETWORK: Final = frozenset(
    {"9p", "afs", "beegfs", "ceph", "cifs", "glusterfs", "gpfs", "lustre", "nfs", "nfs4", "smb3", "smbfs"}
)
#: Network file systems that run as programs: ``fuse.<name>``.
_NETWORK_FUSE: Final = frozenset({"gcsfuse", "glusterfs", "rclone", "s3fs", "sshfs"})


def network_filesystem(folder: Path, mounts: Path = MOUNTS) -> str | None:
    """The kind of network file system that a folder is on, or None where it is local or cannot be told.

    Args:
        folder: need not exist; its nearest parent that does is looked at.
        mounts: the table, in the form that proc(5) describes for ``/proc/<pid>/mountinfo``.
    """
    try:
        lines = mounts.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return None
    path = folder.resolve()
    kind, depth = "", -1
    for line in lines:
        before, _, after = line.partition(" - ")
        point = Path(_unescaped(before.split(" ")[4]))
        # Of several mounts at one place the last one is seen.
        if path.is_relative_to(point) and len(point.parts) >= depth:
            kind, depth = after.split(" ")[0], len(point.parts)
    program = kind.removeprefix("fuse.")
    return kind if kind in _NETWORK or (program != kind and program in _NETWORK_FUSE) else None


def _unescaped(text: str) -> str:
    """Undo the octal escapes of the table: blank, tab, newline and backslash."""
    for code, character in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        text = text.replace(code, character)
    return text
