"""Which folders are on a network file system."""

from pathlib import Path

import pytest

from pixaris_sync.local.mounts import network_filesystem

TABLE = """\
22 1 254:0 / / rw,relatime - ext4 /dev/vda rw
30 22 0:40 / /mnt/share rw,relatime shared:1 - nfs4 server:/export rw
31 22 0:41 / /mnt/share/local rw - xfs /dev/vdb rw
32 22 0:42 / /mnt/with\\040blank rw - cifs //server/share rw
33 22 0:43 / /mnt/ssh rw - fuse.sshfs host:/ rw
34 22 0:44 / /mnt/appimage rw - fuse.portal portal rw
35 22 0:45 / /mnt/twice rw - ext4 /dev/vdc rw
36 35 0:46 / /mnt/twice rw - nfs server:/late rw
37 22 0:47 / /data rw - ext4 /dev/vdd rw
38 37 0:48 / /data/results/shop/shared rw - nfs4 server:/shop rw
"""
#: A folder on each of these is polled.
SHARED = (
    *("9p", "virtiofs", "vboxsf", "vmhgfs", "fuse.vmhgfs-fuse", "prl_fs", "ceph", "fuse.ceph", "lustre"),
    *("fuse.juicefs", "fuse.JuiceFS", "fuse.gcsfuse", "fuse.goofys", "fuse.s3fs", "fuse.rclone", "autofs"),
    *("fuse.something-new", "fuse", "gpfs", "beegfs", "afs", "cifs", "smb3", "nfs", "nfs4", "fuse.sshfs"),
)
#: On these every change makes an event.
LOCAL = (
    *("ext4", "xfs", "btrfs", "zfs", "tmpfs", "overlay", "f2fs", "vfat", "exfat", "ntfs3", "fuseblk", "aufs"),
    *("fuse.ntfs-3g", "fuse.exfat", "fuse.gocryptfs", "fuse.mergerfs", "fuse.fuse-overlayfs", "fuse.bindfs"),
)


@pytest.mark.parametrize(
    ("folder", "kind"),
    [
        ("/home/user/local_results", None),
        ("/mnt/share/team/local_results", "nfs4"),
        ("/mnt/shared", None),
        ("/mnt/share/local/results", None),
        ("/mnt/with blank/results", "cifs"),
        ("/mnt/ssh/results", "fuse.sshfs"),
        ("/mnt/appimage/results", None),
        ("/mnt/twice/results", "nfs"),
    ],
)
def test_the_deepest_and_last_mount_tells(tmp_path: Path, folder: str, kind: str | None) -> None:
    """Goal: the file system that a path is really on decides. Method: a table with nested mounts."""
    table = tmp_path / "mountinfo"
    table.write_text(TABLE)
    assert network_filesystem(Path(folder), table) == kind


@pytest.mark.parametrize("kind", [*SHARED, *LOCAL])
def test_what_others_write_to_is_known_by_its_kind(tmp_path: Path, kind: str) -> None:
    """Goal: whose changes make no event is polled. Method: kinds of file systems, also one nobody knows."""
    table = tmp_path / "mountinfo"
    table.write_text(f"22 1 254:0 / / rw - ext4 /dev/vda rw\n23 22 0:9 / /results rw - {kind} what rw\n")
    assert network_filesystem(Path("/results"), table) == (kind if kind in SHARED else None)


def test_a_dataset_on_the_network_counts_for_who_watches(tmp_path: Path) -> None:
    """Goal: a mount inside the results folder is seen. Method: ask with and without what lies below."""
    table = tmp_path / "mountinfo"
    table.write_text(TABLE)
    assert network_filesystem(Path("/data/results"), table, below=True) == "nfs4"
    assert network_filesystem(Path("/data/results"), table) is None
    assert network_filesystem(Path("/data/other"), table, below=True) is None


def test_without_a_table_everything_is_local(tmp_path: Path) -> None:
    """Goal: other systems go on. Method: no table."""
    assert network_filesystem(Path("/mnt/share"), tmp_path / "none") is None


def test_this_machines_table_is_understood(tmp_path: Path) -> None:
    """Goal: the real table parses. Method: ask for a folder of this test."""
    assert network_filesystem(tmp_path) in (None, "9p")
