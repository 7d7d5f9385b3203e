"""What is said of this machine, by folders that stand for the system's."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from pixaris_sync.doctor import machine
from pixaris_sync.doctor.checks import Verdict
from pixaris_sync.doctor.machine import (
    look_at_certificates,
    look_at_folder,
    look_at_inotify,
    look_at_open_files,
    look_at_proxies,
    look_at_state_folder,
)
from pixaris_sync.doctor.side_by_side import side_by_side
from pixaris_sync.settings.model import Settings


def _settings(tmp_path: Path, **others: Any) -> Settings:
    (tmp_path / "results").mkdir(exist_ok=True)
    return Settings(
        gcp_project_id="p",
        gcp_bq_experiment_dataset="p.d",
        gcp_pixaris_bucket_name="b",
        local_results_folder=tmp_path / "results",
        state_dir=tmp_path / "state",
        **others,
    )


def _limits(tmp_path: Path, watches: int, instances: int) -> Path:
    (tmp_path / "max_user_watches").write_text(f"{watches}\n")
    (tmp_path / "max_user_instances").write_text(f"{instances}\n")
    return tmp_path


@pytest.mark.parametrize(
    ("watches", "instances", "verdict"),
    [(100, 10, Verdict.OK), (6, 10, Verdict.OK), (5, 10, Verdict.WARNING), (100, 1, Verdict.WARNING)],
)
def test_inotify_is_judged_by_what_is_left(
    tmp_path: Path, watches: int, instances: int, verdict: Verdict
) -> None:
    """Goal: `watch` that would look by rounds is foreseen. Method: three folders, three watches in use."""
    (tmp_path / "results" / "project" / "dataset").mkdir(parents=True)
    process = tmp_path / "proc" / "17"
    for folder in ("fd", "fdinfo"):
        (process / folder).mkdir(parents=True)
    (process / "fd" / "5").symlink_to("anon_inode:inotify")
    (process / "fdinfo" / "5").write_text("pos: 0\n" + "inotify wd:1 ino:2\n" * 3)
    (process / "fd" / "6").symlink_to("/dev/null")
    (process / "fdinfo" / "6").write_text("pos: 0\n")

    check = look_at_inotify(
        tmp_path / "results", _limits(tmp_path, watches, instances), processes=tmp_path / "proc"
    )

    assert (check.verdict, bool(check.remedy)) == (verdict, verdict is Verdict.WARNING)


def test_limits_that_the_system_does_not_tell_are_not_checked(tmp_path: Path) -> None:
    """Goal: no error elsewhere than on Linux. Method: no such files."""
    assert look_at_inotify(tmp_path, tmp_path / "nowhere", tmp_path).verdict is Verdict.NOT_CHECKED


def test_open_files_are_judged_by_what_uploads_need(tmp_path: Path) -> None:
    """Goal: fewer uploads than set are foreseen. Method: around the number that is wanted."""
    settings = _settings(tmp_path, upload_concurrency_limit=10, warehouse_threads_limit=4)
    assert look_at_open_files(settings, 60).verdict is Verdict.OK
    assert look_at_open_files(settings, 59).verdict is Verdict.WARNING
    assert look_at_open_files(settings, -1).verdict is Verdict.OK


@pytest.mark.parametrize(
    ("free", "verdict"), [(1 << 30, Verdict.OK), (1 << 27, Verdict.WARNING), (1 << 20, Verdict.FAILED)]
)
def test_a_state_folder_without_room_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: int, verdict: Verdict
) -> None:
    """Goal: a disk that fills is told before. Method: three amounts of free space; nothing is made."""
    usage = type("Usage", (), {"free": free})
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    assert [check.verdict for check in look_at_state_folder(_settings(tmp_path))] == [verdict]
    assert not (tmp_path / "state").exists()


def test_folders_of_other_machines_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: no events, no locks to be trusted. Method: both folders on a network file system."""
    monkeypatch.setattr(machine, "network_filesystem", lambda *_, **__: "nfs4")
    settings = _settings(tmp_path)
    verdicts = [check.verdict for check in (*look_at_folder(settings), *look_at_state_folder(settings))]
    assert verdicts == [Verdict.OK, Verdict.WARNING, Verdict.WARNING]


def test_a_state_folder_that_all_may_write_is_told(tmp_path: Path) -> None:
    """Goal: nobody else writes the ledger. Method: a mode that lets all write."""
    settings = _settings(tmp_path)
    (tmp_path / "state").mkdir()
    (tmp_path / "state").chmod(0o777)
    [check] = look_at_state_folder(settings)
    assert (check.verdict, check.remedy) == (Verdict.WARNING, f"`chmod o-w {tmp_path / 'state'}`")


def test_no_password_of_a_proxy_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: the report can be sent to others. Method: a proxy with a password; then one that is none."""
    for name in ("http_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setenv("https_proxy", "http://me:secret@proxy:3128")
    assert look_at_proxies().found == "https by proxy:3128"
    monkeypatch.setenv("https_proxy", "http://me:secret@proxy:none")
    assert look_at_proxies().verdict is Verdict.FAILED
    assert "secret" not in look_at_proxies().found


def test_a_bundle_of_certificates_is_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: TLS that will fail is foreseen. Method: none, one that is not there, no PEM, a folder."""
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE", "SSL_CERT_DIR"):
        monkeypatch.delenv(name, raising=False)
    assert look_at_certificates().verdict is Verdict.OK
    (tmp_path / "text").write_text("text")
    for path, verdict in (("nowhere", Verdict.FAILED), ("text", Verdict.FAILED), (".", Verdict.FAILED)):
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / path))
        check = look_at_certificates()
        assert (check.verdict, "SSL_CERT_FILE" in check.found) == (verdict, True), path


def test_nobody_waits_for_what_hangs() -> None:
    """Goal: ten seconds, whatever is silent. Method: one job that never ends, and one that does."""
    import threading  # noqa: PLC0415 - of this test alone

    never, done = threading.Event(), []
    side_by_side([never.wait, lambda: done.append(1)], 0.2)
    assert done == [1]
    never.set()
