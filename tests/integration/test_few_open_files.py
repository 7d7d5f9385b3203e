"""A process that may open few files, as with `ulimit -n 64`: it does less at once, and all the same work."""

import resource
import signal
from pathlib import Path

from tests.support.command_line import CommandLine, Watching
from tests.support.stored_runs import Reader, store_run

FILES = 64
LIMITED = ("sh", "-c", f'ulimit -n {FILES} && exec "$@"', "sh")


def test_with_few_open_files_everything_is_carried(
    command_line: CommandLine, pixaris: Reader, tmp_path: Path
) -> None:
    """Goal: fewer uploads at once, and no run suffers. Method: `backfill`, `watch` and `status` under it.

    Files larger than what goes in one request stay open while they are sent.
    """
    limited = command_line.within(*LIMITED)
    settings = {"resumable_threshold_bytes": 256 * 1024, "chunk_bytes": 256 * 1024}
    runs = [store_run(limited.folder, f"run-{at}", images=40).name for at in range(3)]
    for image in sorted(limited.folder.glob("*/*/*_run-0/generated_images/*.png")):
        with image.open("ab") as file:
            file.write(bytes(300 * 1024))

    outcome = limited.having(**settings).run("backfill", "--json")

    assert outcome.code == 0, outcome
    assert outcome.document["runs"]["synced"] == len(runs)
    assert outcome.stderr.count(f"only {FILES} files may be open") == 1
    assert "Traceback" not in outcome.stderr
    with Watching(limited.having(**settings), tmp_path) as watch:
        watch.wait_until_ready()
        runs += [store_run(limited.folder, f"later-{at}", images=40).name for at in range(3)]
        watch.until(lambda: pixaris.runs() == runs, "all runs arrive")
        watch.until(lambda: limited.status()["runs"]["synced"] == len(runs), "they are read back")
        assert watch.log().count(f"only {FILES} files may be open") == 1
        assert "Traceback" not in watch.log()
        assert watch.end(signal.SIGTERM) == 0
    assert limited.status()["problems"] == []


def test_where_more_files_may_be_open_it_asks_for_them(command_line: CommandLine, pixaris: Reader) -> None:
    """Goal: a small default costs nothing. Method: a soft limit of 64 below the hard one; nothing is said."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert most > FILES
    run = store_run(command_line.folder, images=3)

    outcome = command_line.within("sh", "-c", f'ulimit -Sn {FILES} && exec "$@"', "sh").run("sync")

    assert outcome.code == 0, outcome
    assert "may be open" not in outcome.stderr
    assert pixaris.runs() == [run.name]
