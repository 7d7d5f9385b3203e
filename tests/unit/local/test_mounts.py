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
"""


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


def test_without_a_table_everything_is_local(tmp_path: Path) -> None:
    """Goal: other systems go on. Method: no table."""
    assert network_filesystem(Path("/mnt/share"), tmp_path / "none") is None


def test_this_machines_table_is_understood(tmp_path: Path) -> None:
    """Goal: the real table parses. Method: ask for a folder of this test."""
    assert network_filesystem(tmp_path) in (None, "9p")
