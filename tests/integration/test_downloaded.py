"""Run folders that the Pixaris UI downloaded: what the cloud has already is no work and no problem."""

from pathlib import Path

import pytest

from tests.support.command_line import CommandLine
from tests.support.proxy import Answer, Proxies, Request
from tests.support.stored_runs import DATASET, PROJECT, Reader, store_run


def test_a_downloaded_copy_is_no_problem(
    proxied: CommandLine, proxies: Proxies, pixaris: Reader, tmp_path: Path
) -> None:
    """Goal: one notice a dataset, exit 0, and the cloud is asked once.

    Method: two runs of another machine are downloaded by Pixaris itself. The bucket cannot be asked at first,
    neither while the folders are old nor while they are young.
    """
    here = CommandLine(tmp_path / "here", tmp_path / "state of here", proxied.environment)
    here.folder.mkdir()
    here = here.having(incomplete_after_seconds=0)
    runs = [store_run(proxied.folder, f"run-{number}", images=2) for number in range(2)]
    proxied.sync()
    for run in runs:
        assert len(pixaris.images(run.key, here.folder)) == 2
    proxies.storage.rule = _refuse

    unknown = here.sync(expect=3)
    young = here.sync("--incomplete-after-seconds", "3600", expect=5)
    proxies.storage.rule = lambda _: None
    known = here.sync("--incomplete-after-seconds", "3600")
    proxies.forget()
    again = here.sync()

    assert unknown["runs"]["incomplete"] == 2
    [waiting] = young["waiting"]
    cause = "being stored, or downloaded by Pixaris: no tracking line yet"
    assert (waiting["runs"], waiting["cause"]) == (2, cause)
    for document in (known, again):
        assert {state: count for state, count in document["runs"].items() if count} == {"downloaded": 2}
        [notice] = document["problems"]
        assert (notice["run"], notice["state"]) == (f"{PROJECT}/{DATASET}", "notice")
        copies = "2 run folders are copies of what is in the cloud, without a tracking line"
        assert (notice["cause"], notice["hint"]) == (copies, "nothing to do")
        assert document["waiting"] == []
    assert proxies.seen == []
    # It is asked again once the folder has changed.
    (here.folder / str(runs[0].key) / "generated_images" / "other.png").write_bytes(b"other")
    changed = here.sync(expect=3)
    assert (changed["runs"]["downloaded"], changed["runs"]["incomplete"]) == (1, 1)
    assert len(pixaris.runs()) == 2


def _refuse(request: Request) -> Answer | None:
    return Answer(403, b'{"error": {"code": 403, "message": "no"}}') if request.method == "GET" else None


@pytest.mark.large
def test_the_hints_for_a_folder_whose_row_is_there_make_no_second_row(
    command_line: CommandLine, pixaris: Reader, tmp_path: Path
) -> None:
    """Goal: each half of the hint works.

    Method: cut a download off and delete it; take a line out and an object away, then put the line back.
    """
    here = command_line.having(incomplete_after_seconds=0)
    run = store_run(here.folder, images=2)
    here.sync()
    line = run.line
    run.tracking.write_text("")
    pixaris._bucket().blob(f"results/{run.key}/generated_images/image_1.png").delete()
    here.forget_ledger()

    own = here.sync(expect=3)
    run.tracking.write_text((run.folder / "args.json").read_text() + "\n")
    here.sync("--repair")

    [problem] = own["problems"]
    assert problem["cause"].endswith("its files as they are here: 1 differ")
    assert problem["hint"].startswith("delete the folder, if it is a download that was cut off")
    assert run.line == line
    assert (pixaris.runs(), len(pixaris.objects())) == ([run.name], 2)
    elsewhere = CommandLine(tmp_path / "elsewhere", tmp_path / "state of elsewhere", here.environment)
    elsewhere.folder.mkdir()
    pixaris.images(run.key, elsewhere.folder)
    copy = elsewhere.folder / str(run.key)
    image = copy / "generated_images" / "image_1.png"
    image.write_bytes(image.read_bytes()[:30])
    assert elsewhere.sync(expect=3)["problems"][0]["cause"] == problem["cause"]
    for path in (image, copy / "generated_images" / "image_0.png"):
        path.unlink()
    (copy / "generated_images").rmdir()
    copy.rmdir()
    pixaris.images(run.key, elsewhere.folder)
    assert elsewhere.sync()["runs"]["downloaded"] == 1
