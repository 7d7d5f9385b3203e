"""The results folder on disk: what is listed, tailed and found in runs, and what is left alone."""

import errno
import itertools
import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pixaris_sync.errors import ConfigurationError, Failure, LocalFileError
from pixaris_sync.local.results_folder import LocalResults
from pixaris_sync.model import DatasetKey, RunKey, Tail, TailPosition

TRACKING = "experiment_tracking.jsonl"
DATASET = DatasetKey("shop", "shoes")
LIMIT = 1 << 20


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "local_results" / DATASET.project / DATASET.dataset).mkdir(parents=True)
    return tmp_path / "local_results"


def results(root: Path, **options: Any) -> LocalResults:
    return LocalResults(root, TRACKING, **options)


def tracking(root: Path) -> Path:
    return root / DATASET.project / DATASET.dataset / TRACKING


def name(number: int) -> str:
    return f"20240101-{number:06d}_run"


def run_key(number: int) -> RunKey:
    return RunKey(DATASET.project, DATASET.dataset, name(number))


def line(number: int, **values: Any) -> bytes:
    record = {"timestamp": name(number)[:15], **values, "experiment_run_name": name(number)}
    return json.dumps(record).encode()


def make_run(
    root: Path, number: int, *, images: tuple[str, ...] = ("a.png",), args: bytes | None = None
) -> Path:
    folder = root / DATASET.project / DATASET.dataset / name(number)
    (folder / "generated_images").mkdir(parents=True)
    for image in images:
        (folder / "generated_images" / image).write_bytes(b"image")
    if args is not None:
        (folder / "args.json").write_bytes(args)
    return folder


def read(local: LocalResults, position: TailPosition | None = None, limit: int = LIMIT) -> Tail:
    tail = local.tail(DATASET, position, bytes_limit=limit)
    assert tail is not None
    return tail


def runs(tail: Tail) -> list[str]:
    return [record.run.run for record in tail.records]


# Listing


@pytest.mark.parametrize("kind", ["missing", "file"])
def test_a_results_folder_that_is_none_is_a_configuration_error(tmp_path: Path, kind: str) -> None:
    """Goal: one clear line before any work. Method: no folder, and a file in its place."""
    if kind == "file":
        (tmp_path / "x").write_text("")
    with pytest.raises(ConfigurationError) as raised:
        results(tmp_path / "x").check()
    assert raised.value.hint
    assert str(tmp_path / "x") in str(raised.value)


def test_a_results_folder_that_may_not_be_read_is_a_configuration_error(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Goal: a missing permission is told at the start. Method: listing it, or entering it, is refused."""
    results(root).check()
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(ConfigurationError, match="permission denied"):
        results(root).check()

    def refuse(_path: Path) -> None:
        raise PermissionError(errno.EACCES, "refused")

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(ConfigurationError, match="permission denied"):
        results(root).check()


def test_datasets_are_the_folders_two_levels_deep(root: Path) -> None:
    """Goal: everything that can hold runs, no noise. Method: datasets beside all sorts of other things."""
    for folder in ("shop/hats", "shop/feedback_iterations", "shop/.cache", ".hidden/x", "empty", "zoo/a b"):
        (root / folder).mkdir(parents=True)
    (root / "stray.txt").write_text("")
    (root / "shop" / "feedback_tracking.jsonl").write_text("")
    (root / "shop" / "link.txt").symlink_to(root / "stray.txt")
    found = results(root).datasets()
    assert found.keys == (DatasetKey("shop", "hats"), DATASET, DatasetKey("zoo", "a b"))
    assert found.problems == ()


def test_links_and_names_that_are_no_utf8_are_reported_and_not_entered(root: Path, tmp_path: Path) -> None:
    """Goal: invariant 6, and nothing is dropped silently. Method: links at both levels, one odd name."""
    (tmp_path / "elsewhere" / "secret").mkdir(parents=True)
    (root / "linked").symlink_to(tmp_path / "elsewhere")
    (root / "shop" / "linked").symlink_to(tmp_path / "elsewhere")
    (root / "circle").symlink_to(root / "circle")
    os.mkdir(os.fsencode(root) + b"/shop/\xff")  # noqa: PTH102 - a Path cannot hold these bytes readably
    found = results(root).datasets()
    assert found.keys == (DATASET,)
    assert sorted(problem.subject for problem in found.problems) == [
        "circle",
        "linked",
        "shop/\\udcff",
        "shop/linked",
    ]
    assert all(problem.hint for problem in found.problems)


def test_one_unreadable_project_is_a_problem_and_others_go_on(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Goal: invariant 5. Method: opening one project is refused."""
    (root / "locked" / "x").mkdir(parents=True)
    real = os.open

    def refuse(path: Any, flags: int, **rest: Any) -> int:
        if path == "locked":
            raise PermissionError(errno.EACCES, "refused")
        return real(path, flags, **rest)

    monkeypatch.setattr(os, "open", refuse)
    found = results(root).datasets()
    assert found.keys == (DATASET,)
    assert [problem.cause for problem in found.problems] == ["permission denied"]


def test_a_results_folder_that_went_away_is_transient(root: Path) -> None:
    """Goal: an unmounted disk empties nothing. Method: list a folder that is gone."""
    with pytest.raises(LocalFileError) as raised:
        results(root / "gone").datasets()
    assert raised.value.failure is Failure.TRANSIENT


def test_run_folders_are_those_with_the_name_of_a_run(root: Path, tmp_path: Path) -> None:
    """Goal: orphans can be found, strays make no noise. Method: runs beside all sorts of other things."""
    first = make_run(root, 1)
    make_run(root, 2)
    dataset = first.parent
    (dataset / "notes").mkdir()
    (dataset / ".20240101-000009_x").mkdir()
    (dataset / "20240101-000003_file").write_text("")
    (dataset / "20240101-000004_link").symlink_to(tmp_path)
    found = results(root).run_folders(DATASET)
    assert [run.name for run in found] == [name(1), name(2)]
    assert found[0].changed_ns == first.stat().st_mtime_ns


# Tailing


def test_a_missing_tracking_file_or_dataset_is_nothing(root: Path) -> None:
    """Goal: a dataset without runs is no error. Method: no file, no dataset; then a file that went away."""
    assert results(root).tail(DATASET, None, bytes_limit=LIMIT) is None
    assert results(root).tail(DatasetKey("no", "where"), None, bytes_limit=LIMIT) is None
    tracking(root).write_bytes(line(1) + b"\n")
    position = read(results(root)).position
    tracking(root).unlink()
    assert results(root).tail(DATASET, position, bytes_limit=LIMIT) is None


def test_an_unchanged_file_is_not_read(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: quiet. Method: reading is made impossible after the first time; the torn end is still told of."""
    tracking(root).write_bytes(line(1) + b"\n" + b'{"torn')
    local = results(root)
    first = read(local)
    assert (runs(first), first.torn_bytes, first.from_start) == ([name(1)], 6, True)
    monkeypatch.setattr(os, "pread", lambda *_: pytest.fail("read"))
    for again in (read(local, first.position), read(results(root), first.position)):
        assert again == first._replace(from_start=False, records=())


def test_a_torn_line_waits_for_its_rest_also_after_a_restart(root: Path) -> None:
    """Goal: a line is read when it is whole, once. Method: append half, restart, append the rest."""
    whole = line(1)
    tracking(root).write_bytes(whole[:20])
    first = read(results(root))
    assert (runs(first), first.torn_bytes, first.position.offset) == ([], 20, 0)
    with tracking(root).open("ab") as file:
        file.write(whole[20:])
    second = read(results(root), first.position)
    assert (runs(second), second.torn_bytes) == ([], len(whole))
    with tracking(root).open("ab") as file:
        file.write(b"\n")
    third = read(results(root), second.position)
    assert (runs(third), third.torn_bytes, third.from_start) == ([name(1)], 0, False)


@settings(max_examples=60, deadline=None)
@given(
    numbers=st.lists(st.integers(1, 99), max_size=12),
    cuts=st.lists(st.integers(0, 1500), max_size=6),
    limit=st.integers(1, 400),
    restarts=st.booleans(),
)
def test_repeated_tails_give_each_record_exactly_once_in_order(
    tmp_path_factory: pytest.TempPathFactory,
    *,
    numbers: list[int],
    cuts: list[int],
    limit: int,
    restarts: bool,
) -> None:
    """Goal: exactly once. Method: a file that grows by arbitrary pieces, read with arbitrary limits."""
    root = tmp_path_factory.mktemp("results")
    tracking(root).parent.mkdir(parents=True)
    data = b"".join(line(number) + b"\n" for number in numbers)
    bounds = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    found: list[tuple[str, int]] = []
    position: TailPosition | None = None
    local = results(root)
    for start, end in itertools.pairwise(bounds):
        with tracking(root).open("ab") as file:
            file.write(data[start:end])
        more = True
        while more:
            local = results(root) if restarts else local
            tail = read(local, position, limit)
            assert tail.from_start == (position is None)
            assert sum(len(line(int(run[9:15]))) + 1 for run in runs(tail)) <= limit or len(tail.records) == 1
            found += [(record.run.run, record.line) for record in tail.records]
            assert not tail.damaged
            position, more = tail.position, tail.more
    assert found == [(name(number), index) for index, number in enumerate(numbers, start=1)]
    assert position is None or position.offset == len(data)


@pytest.mark.parametrize("change", ["edit", "truncate", "replace", "shrink and grow"])
def test_a_file_rewritten_before_the_position_is_read_from_its_start(root: Path, change: str) -> None:
    """Goal: nothing is missed after an edit by hand. Method: each way to rewrite what was consumed."""
    path = tracking(root)
    path.write_bytes(line(1, a=1) + b"\n" + line(2) + b"\n")
    position = read(results(root)).position
    rewritten = line(1, a=9) + b"\n" + line(2) + b"\n" + line(3) + b"\n"
    expected = [name(1), name(2), name(3)]
    if change == "truncate":
        rewritten, expected = line(1, a=1) + b"\n", [name(1)]
    if change == "shrink and grow":
        path.write_bytes(b"")
    if change == "replace":
        path.with_name("new").write_bytes(rewritten)
        path.with_name("new").replace(path)
    else:
        path.write_bytes(rewritten)
    tail = read(results(root), position)
    assert (tail.from_start, runs(tail)) == (True, expected)


def test_a_copy_with_the_same_beginning_goes_on_where_it_stood(root: Path) -> None:
    """Goal: moving a folder to another disk repeats nothing. Method: replace the file by a longer copy."""
    path = tracking(root)
    path.write_bytes(line(1) + b"\n")
    position = read(results(root)).position
    path.with_name("copy").write_bytes(line(1) + b"\n" + line(2) + b"\n")
    path.with_name("copy").replace(path)
    tail = read(results(root), position)
    assert (tail.from_start, runs(tail)) == (False, [name(2)])
    assert tail.position.inode != position.inode
    assert tail.records[0].line == 2


def test_a_prefix_changed_between_two_readings_of_one_backlog_is_noticed(root: Path) -> None:
    """Goal: a remembered hash counts only while the file stays the same. Method: edit between readings."""
    path = tracking(root)
    path.write_bytes(line(1, a=1) + b"\n" + line(2) + b"\n")
    local = results(root)
    first = read(local, limit=10)
    assert (runs(first), first.more) == ([name(1)], True)
    path.write_bytes(line(1, a=2) + b"\n" + line(2) + b"\n")
    os.utime(path, ns=(1, 1))
    second = read(local, first.position)
    assert (second.from_start, runs(second)) == (True, [name(1), name(2)])


def test_a_backlog_is_read_in_work_that_grows_with_its_length_only(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Goal: no quadratic backfill. Method: count the bytes read for a backlog in small portions."""
    data = b"".join(line(number) + b"\n" for number in range(1, 201))
    tracking(root).write_bytes(data)
    real = os.pread
    amounts: list[int] = []

    def pread(handle: int, length: int, offset: int) -> bytes:
        block = real(handle, length, offset)
        amounts.append(len(block))
        return block

    monkeypatch.setattr(os, "pread", pread)
    local, tail = results(root), None
    while tail is None or tail.more:
        tail = read(local, tail.position if tail else None, limit=500)
    assert len(data) <= sum(amounts) < 2 * len(data)


def test_a_line_longer_than_the_limit_is_read_whole(root: Path) -> None:
    """Goal: a small limit blocks nothing. Method: one long line between two short ones."""
    tracking(root).write_bytes(line(1) + b"\n" + line(2, text="x" * 5000) + b"\n" + line(3) + b"\n")
    local = results(root)
    first = read(local, limit=100)
    second = read(local, first.position, limit=100)
    third = read(local, second.position, limit=100)
    assert [runs(first), runs(second), runs(third)] == [[name(1)], [name(2)], [name(3)]]
    assert [first.more, second.more, third.more] == [True, True, False]


def test_a_line_too_long_to_hold_is_damaged_and_its_neighbours_go_on(root: Path) -> None:
    """Goal: bounded memory. Method: a small limit; a longer line between two records, then a torn one."""
    tracking(root).write_bytes(line(1) + b"\n" + b"x" * 5000 + b"\n" + line(2) + b"\n" + b"y" * 3000)
    tail = read(results(root, line_bytes_max=1000))
    assert runs(tail) == [name(1), name(2)]
    assert [damaged.line for damaged in tail.damaged] == [2]
    assert tail.torn_bytes == 3000


def test_a_damaged_line_is_recovered_from_its_runs_args(root: Path) -> None:
    """Goal: the record is not lost. Method: a damaged line in the middle, the run's args.json whole."""
    make_run(root, 1, args=line(1))
    make_run(root, 2, args=line(2, prompt="shoe"))
    make_run(root, 3, args=line(3))
    whole = line(2, prompt="shoe")
    tracking(root).write_bytes(line(1) + b"\n" + whole[:-30] + b"\n" + line(3) + b"\n")
    tail = read(results(root))
    assert runs(tail) == [name(1), name(2), name(3)]
    assert tail.damaged == ()
    tracking(root).write_bytes(line(1) + b"\n" + whole + b"\n" + line(3) + b"\n")
    assert [record.digest for record in read(results(root)).records] == [
        record.digest for record in tail.records
    ]


def test_a_damaged_line_without_whole_args_stays_damaged_with_its_line(root: Path) -> None:
    """Goal: it is quarantined, not dropped. Method: cut args.json; args.json behind a link; no folder."""
    folder = make_run(root, 2, args=line(2)[:-5])
    tracking(root).write_bytes(line(1) + b"\n" + line(2)[:-5] + b"\n" + line(3) + b"\n")
    for _ in range(2):
        tail = read(results(root))
        assert runs(tail) == [name(1), name(3)]
        assert [damaged.line for damaged in tail.damaged] == [2]
        (folder / "args.json").unlink(missing_ok=True)
        (folder.parent / "elsewhere.json").write_bytes(line(2))
        (folder / "args.json").symlink_to(folder.parent / "elsewhere.json")


def test_a_run_that_a_whole_line_names_anywhere_is_not_recovered_again(root: Path) -> None:
    """Goal: one record, one row. Method: a cut line, and the same run's whole line much later or earlier."""
    make_run(root, 1, args=line(1))
    for lines in ([line(1)[:-5], line(2), line(1)], [line(1), line(2), line(1)[:-5]]):
        tracking(root).write_bytes(b"\n".join(lines) + b"\n")
        local, position, found, more = results(root), None, list[str](), True
        while more:
            tail = read(local, position, limit=10)
            position, more = tail.position, tail.more
            found += runs(tail)
        assert sorted(found) == [name(1), name(2)]


def test_pieces_of_one_record_in_two_readings_are_recovered_once(root: Path) -> None:
    """Goal: one record, one row, across restarts. Method: its pieces come in lines of separate readings."""
    long = line(1, prompt="x" * 300)
    make_run(root, 1, args=long)
    tracking(root).write_bytes(long[:150] + line(2) + b"\n")
    first = read(results(root))
    assert sorted(runs(first)) == [name(1), name(2)]
    with tracking(root).open("ab") as file:
        file.write(long[150:] + b"\n" + line(3) + b"\n")
    second = read(results(root), first.position)
    assert (runs(second), second.damaged) == ([name(3)], ())


@pytest.mark.parametrize("kind", ["link", "folder", "fifo"])
def test_a_tracking_file_that_is_no_regular_file_is_an_error(root: Path, tmp_path: Path, kind: str) -> None:
    """Goal: never opened, never silent. Method: a link to a good file, a folder, a FIFO."""
    (tmp_path / "good").write_bytes(line(1) + b"\n")
    if kind == "link":
        tracking(root).symlink_to(tmp_path / "good")
    elif kind == "folder":
        tracking(root).mkdir()
    else:
        os.mkfifo(tracking(root))
    with pytest.raises(LocalFileError) as raised:
        results(root).tail(DATASET, None, bytes_limit=LIMIT)
    assert raised.value.failure is Failure.PERMANENT


def test_a_disk_error_while_tailing_is_transient(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: foreign errors are translated once. Method: reading fails as a broken disk does."""
    tracking(root).write_bytes(line(1) + b"\n")

    def broken(*_: Any) -> bytes:
        raise OSError(errno.EIO, "broken")

    monkeypatch.setattr(os, "pread", broken)
    with pytest.raises(LocalFileError) as raised:
        results(root).tail(DATASET, None, bytes_limit=LIMIT)
    assert raised.value.failure is Failure.TRANSIENT


# Inspection


def test_a_run_is_its_images_and_its_saved_files(root: Path) -> None:
    """Goal: just what belongs in the bucket. Method: a run with everything that can lie beside it."""
    folder = make_run(root, 1, images=("b.png", "a.JPG", ".hidden.png", "notes.txt"), args=line(1))
    (folder / "generated_images" / "folder.png").mkdir()
    (folder / "generated_images" / "link.txt").symlink_to("/etc/passwd")
    (folder / "flow.json").write_bytes(b"{}")
    (folder / "other.json").write_bytes(b"{}")
    seen = results(root).inspect(run_key(1), ["flow.json", "flow.json"])
    assert [file.path for file in seen.files] == [
        "flow.json",
        "generated_images/a.JPG",
        "generated_images/b.png",
    ]
    assert seen.problems == ()
    status = (folder / "flow.json").stat()
    version = seen.files[0].version
    assert (version.size, version.mtime_ns, version.inode) == (2, status.st_mtime_ns, status.st_ino)


def test_what_a_run_lacks_is_named(root: Path) -> None:
    """Goal: quarantined with what is missing. Method: no folder; no images; empty images; no saved file."""
    local = results(root)
    (missing,) = local.inspect(run_key(9), []).problems
    assert name(9) in missing.subject
    assert local.inspect(run_key(9), []).signature == ""
    folder = make_run(root, 1, images=())
    (empty,) = local.inspect(run_key(1), []).problems
    assert empty.subject.endswith("generated_images")
    (folder / "generated_images").rmdir()
    none, saved = local.inspect(run_key(1), ["flow.json"]).problems
    assert none.subject.endswith("generated_images")
    assert saved.subject.endswith("flow.json")
    assert all(problem.hint for problem in (missing, empty, none, saved))


def test_runs_without_images_can_be_accepted(root: Path) -> None:
    """Goal: a setting decides. Method: no images folder and an empty one, with the setting on."""
    folder = make_run(root, 1, images=())
    assert results(root).inspect(run_key(1), [], accept_without_images=True).problems == ()
    (folder / "generated_images").rmdir()
    assert results(root).inspect(run_key(1), [], accept_without_images=True).problems == ()
    (folder / "generated_images").write_text("a file")
    assert len(results(root).inspect(run_key(1), [], accept_without_images=True).problems) == 1


@pytest.mark.parametrize("where", ["image", "images", "run", "saved"])
def test_a_link_in_a_run_is_a_problem_and_its_target_no_file(root: Path, tmp_path: Path, where: str) -> None:
    """Goal: invariant 6. Method: a link to a good copy in the place of each part of a run."""
    folder = make_run(root, 1, images=("a.png", "b.png"))
    (folder / "flow.json").write_bytes(b"{}")
    component = {
        "image": folder / "generated_images" / "a.png",
        "images": folder / "generated_images",
        "run": folder,
        "saved": folder / "flow.json",
    }[where]
    component.rename(tmp_path / "elsewhere")
    component.symlink_to(tmp_path / "elsewhere")
    seen = results(root).inspect(run_key(1), ["flow.json"])
    (problem,) = seen.problems
    assert "symbolic link" in problem.cause
    below = component.relative_to(folder).as_posix()
    assert not any(where == "run" or file.path.startswith(below) for file in seen.files)


@pytest.mark.parametrize("path", ["../args.json", "/etc/passwd", "..", "a/../../x"])
def test_a_saved_file_outside_the_run_is_never_looked_at(root: Path, path: str) -> None:
    """Goal: a record cannot name another file. Method: hostile names."""
    folder = make_run(root, 1)
    (folder.parent / "args.json").write_bytes(b"{}")
    seen = results(root).inspect(run_key(1), [path])
    assert [file.path for file in seen.files] == ["generated_images/a.png"]
    assert len(seen.problems) == 1


def test_names_that_gcs_refuses_are_problems_with_the_rule(root: Path) -> None:
    """Goal: the rule is named. Method: a line feed and a byte that is no UTF-8 in images' names."""
    folder = make_run(root, 1, images=("a\nb.png",))
    (Path(os.fsdecode(os.fsencode(folder) + b"/generated_images/\xff.png"))).write_bytes(b"")
    seen = results(root).inspect(run_key(1), [])
    assert seen.files == ()
    assert sorted("line feed" in problem.cause for problem in seen.problems) == [False, True]
    for problem in seen.problems:
        str(problem).encode()


def test_an_image_that_may_not_be_read_is_a_problem(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: nothing is uploaded that would look complete. Method: the system refuses access to one image."""
    make_run(root, 1, images=("a.png", "b.png"))
    monkeypatch.setattr(os, "access", lambda image, *_, **__: image != "b.png")
    seen = results(root).inspect(run_key(1), [])
    assert [file.path for file in seen.files] == ["generated_images/a.png"]
    assert [problem.cause for problem in seen.problems] == ["permission denied"]


def test_a_signature_changes_with_the_folder_and_its_images_only(root: Path) -> None:
    """Goal: an unchanged run costs two looks. Method: compare before and after each kind of change."""
    local = results(root)
    assert local.signature(run_key(1)) is None
    folder = make_run(root, 1)
    images = folder / "generated_images"
    for path in (folder, images):
        os.utime(path, ns=(1, 1))
    first = local.signature(run_key(1))
    assert first == local.inspect(run_key(1), []).signature
    (images / "a.png").write_bytes(b"again")
    assert local.signature(run_key(1)) == first
    (images / "b.png").write_bytes(b"")
    second = local.signature(run_key(1))
    (folder / "args.json").write_bytes(b"")
    third = local.signature(run_key(1))
    assert len({first, second, third}) == 3


def test_the_last_change_of_a_run_counts_its_images(root: Path) -> None:
    """Goal: a run whose images still arrive is not old. Method: set all times to long ago, add an image."""
    folder = make_run(root, 1, args=line(1))
    for path in (
        folder / "generated_images" / "a.png",
        folder / "args.json",
        folder / "generated_images",
        folder,
    ):
        os.utime(path, ns=(1000, 1000))
    before = results(root).changed_ns(run_key(1))
    assert before == folder.stat().st_ctime_ns
    image = folder / "generated_images" / "b.png"
    image.write_bytes(b"x")
    assert results(root).changed_ns(run_key(1)) >= image.stat().st_ctime_ns >= before


def test_an_inspection_tells_when_a_run_changed_whatever_times_were_set(root: Path) -> None:
    """Goal: copying shows. Method: set times of a file; begin a hidden one beside the images."""
    folder = make_run(root, 1, args=line(1))
    local = results(root)
    written = local.inspect(run_key(1), []).times
    assert written is not None
    assert not written.times_set
    assert 0 < written.oldest_ns <= written.newest_ns
    os.utime(folder / "args.json", ns=(1000, 1000))
    copied = local.inspect(run_key(1), []).times
    temporary = folder / "generated_images" / ".b.png.x7Qz1a"
    temporary.write_bytes(b"a piece")
    arriving = local.inspect(run_key(1), []).times
    assert copied is not None
    assert arriving is not None
    assert copied.times_set
    assert arriving.newest_ns >= temporary.stat().st_ctime_ns >= copied.newest_ns
    assert local.inspect(run_key(9), []).times is None


@pytest.mark.parametrize(
    ("args", "words"),
    [(None, "missing"), (b'{"cut": [', "not whole"), (line(1), "is whole"), (b"", "not whole")],
)
def test_an_incomplete_run_has_a_reason(root: Path, args: bytes | None, words: str) -> None:
    """Goal: status says why. Method: args.json missing, cut, whole and empty."""
    make_run(root, 1, args=args)
    assert words in results(root).incomplete_reason(run_key(1))


def test_nothing_in_the_results_folder_is_changed(root: Path) -> None:
    """Goal: invariant 6. Method: every method once; entries, sizes and mtimes stay as they were."""
    make_run(root, 1, args=line(1))
    tracking(root).write_bytes(line(1)[:-9] + b"\n" + line(2))

    def state() -> list[tuple[str, int, int]]:
        found = [(str(path), path.lstat()) for path in sorted(root.rglob("*"))]
        return [(path, status.st_size, status.st_mtime_ns) for path, status in found]

    before = state()
    local = results(root)
    local.check()
    local.datasets()
    local.run_folders(DATASET)
    read(local)
    local.inspect(run_key(1), ["x.json"])
    local.incomplete_reason(run_key(1))
    local.changed_ns(run_key(1))
    assert state() == before
