"""What kind of file system a folder is on, by Linux' table of mounts."""

from pathlib import Path
from typing import Final

MOUNTS: Final = Path("/proc/self/mountinfo")
#: File systems that other machines, or the host of this one, write to: no event tells of that here, and their
#: locks are not to be trusted with a database (https://www.sqlite.org/wal.html: "WAL does not work over a
#: network filesystem"). With autofs, what will be mounted is not there yet.
_SHARED: Final = frozenset(
    {
        *("9p", "acfs", "afs", "autofs", "beegfs", "ceph", "cifs", "coda", "cvfs", "davfs", "drvfs", "exfs"),
        *("fakeowner", "gfs", "gfs2", "glusterfs", "gpfs", "grpcfuse", "hostfs", "juicefs", "kafs", "lustre"),
        *("ncpfs", "nfs", "nfs4", "ocfs2", "orangefs", "osxfs", "panfs", "prl_fs", "pvfs2", "quobyte", "smb"),
        *("smb2", "smb3", "smbfs", "vboxsf", "virtiofs", "vmhgfs", "wekafs"),
    }
)
#: Programs that serve a file system from a disk of this machine, or from folders on one. Any other that is
#: mounted as ``fuse.<program>``, or as ``fuse`` without a name, may have its files from anywhere.
_LOCAL_FUSE: Final = frozenset(
    {
        *("apfs", "archivemount", "bindfs", "btrfs", "cryfs", "encfs", "exfat", "exfat-fuse", "ext2", "ext4"),
        *("fuse-ext2", "fuse-overlayfs", "fuse2fs", "gocryptfs", "lowntfs-3g", "lxcfs", "mergerfs", "mhddfs"),
        *("ntfs", "ntfs-3g", "portal", "securefs", "snapfuse", "squashfuse", "unionfs", "unionfs-fuse"),
        *("zfs", "zfs-fuse"),
    }
)


def network_filesystem(folder: Path, mounts: Path = MOUNTS, *, below: bool = False) -> str | None:
    """The kind of network or shared file system that a folder is on; None: it is local or cannot be told.

    Args:
        folder: need not exist; its nearest parent that does is looked at.
        mounts: the table, in the form that proc(5) describes for ``/proc/<pid>/mountinfo``.
        below: it counts, too, where something below the folder is on one.
    """
    try:
        lines = mounts.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return None
    path = folder.resolve()
    kind, depth = "", -1
    inside: dict[Path, str] = {}
    for line in lines:
        before, _, after = line.partition(" - ")
        point, found = Path(_unescaped(before.split(" ")[4])), after.split(" ")[0]
        # Of several mounts at one place the last one is seen.
        if path.is_relative_to(point) and len(point.parts) >= depth:
            kind, depth = found, len(point.parts)
            inside.clear()
        elif point.is_relative_to(path):
            inside[point] = found
    kinds = [kind, *(inside.values() if below else ())]
    return next((kind for kind in kinds if _is_shared(kind)), None)


def _is_shared(kind: str) -> bool:
    program = kind.removeprefix("fuse.")
    if kind in ("fuse", program):
        return kind == "fuse" or kind in _SHARED
    return program not in _LOCAL_FUSE


def _unescaped(text: str) -> str:
    """Undo the octal escapes of the table: blank, tab, newline and backslash."""
    for code, character in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        text = text.replace(code, character)
    return text
