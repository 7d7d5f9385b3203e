"""What becomes of bad input in the results folder.

Where one sync can meet several kinds of trouble, it does: none may hide another.
"""

import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.command_line import CommandLine
from tests.support.open_watch import watch_opens
from tests.support.stored_runs import (
    DATASET,
    PROJECT,
    TRACKING_FILE,
    Reader,
    StoredRun,
    append_line,
    picture,
    run_objects,
    store_run,
)

#: Nothing is young, so that everything is judged at once.
_NOTHING_IS_YOUNG = ("--young-file-seconds", "0", "--incomplete-after-seconds", "0")
#: The emulators show a row as soon as they took it, so doubt needs no long settling.
_QUICK_DOUBT = {"doubt_settle_seconds": 0.5}
_SECRET = b"a secret that nobody may carry anywhere"


def _problem(document: dict[str, Any], run: str) -> dict[str, Any]:
    """The one problem that a document has for a run, a line or a path; it comes with a remedy."""
    found = [problem for problem in document["problems"] if problem["run"] == run]
    assert len(found) == 1, document["problems"]
    problem: dict[str, Any] = found[0]
    assert problem["cause"]
    assert problem["hint"]
    assert problem["since"]
    return problem


# -- the tracking file ------------------------------------------------------------------------------------


def test_a_torn_last_line_waits_also_after_a_restart(command_line: CommandLine, pixaris: Reader) -> None:
    """Goal: it may still be written. Method: cut the last line; two processes wait; then the rest comes."""
    whole, torn = store_run(command_line.folder, "whole"), store_run(command_line.folder, "torn")
    lines = whole.tracking.read_text()
    whole.tracking.write_text(lines[:-20])

    documents = [command_line.sync(expect=5) for _ in range(2)]

    assert [document["torn_lines"] for document in documents] == [1, 1]
    assert [document["rows_synced"] for document in documents] == [1, 0]
    assert command_line.status()["torn_lines"] == 1
    assert pixaris.runs() == [whole.name]
    assert not pixaris.objects(f"results/{torn.key}/")
    append_line(whole.tracking, lines[-20:])
    assert command_line.sync()["torn_lines"] == 0
    assert pixaris.runs() == sorted([whole.name, torn.name])


def _zeroed(line: str) -> str:
    return "\0" * len(line)


def _cut(line: str) -> str:
    return line[: len(line) // 2]


@pytest.mark.parametrize("damage", [_zeroed, _cut], ids=["zeros", "cut"])
def test_a_damaged_line_is_recovered_from_args_json(
    command_line: CommandLine, pixaris: Reader, damage: Callable[[str], str]
) -> None:
    """Goal: the record exists twice. Method: damage the middle line of three; all rows arrive, once each."""
    runs = [store_run(command_line.folder, f"run-{number}", args={"number": number}) for number in range(3)]
    lines = runs[0].tracking.read_text().splitlines()
    # Of zeros alone nobody can tell whose record they were: a piece of it must be left.
    lines[1] = damage(lines[1][:-40]) + lines[1][-40:] if damage is _zeroed else damage(lines[1])
    runs[0].tracking.write_text("\n".join(lines) + "\n")

    document = command_line.sync()

    assert document["rows_synced"] == 3
    assert document["problems"] == []
    assert list(pixaris.frame()["number"]) == [0, 1, 2]
    assert command_line.sync()["rows_synced"] == 0


def test_a_damaged_line_without_args_json_is_quarantined_with_its_number(
    command_line: CommandLine, pixaris: Reader
) -> None:
    """Goal: file and line are named, neighbours go on. Method: damage line and args.json; then repair it."""
    runs = [store_run(command_line.folder, f"run-{number}") for number in range(3)]
    text = runs[0].tracking.read_text()
    lines = text.splitlines()
    (runs[1].folder / "args.json").write_text(lines[1][:10])
    runs[0].tracking.write_text("\n".join([lines[0], _cut(lines[1]), lines[2]]) + "\n")

    document = command_line.sync(*_NOTHING_IS_YOUNG, expect=3)

    problem = _problem(document, f"{PROJECT}/{DATASET}/{TRACKING_FILE}:2")
    assert problem["state"] == "quarantined"
    assert _problem(document, str(runs[1].key))["state"] == "incomplete"
    assert pixaris.runs() == [runs[0].name, runs[2].name]
    assert not pixaris.objects(f"results/{runs[1].key}/")
    runs[0].tracking.write_text(text)
    assert command_line.sync()["rows_synced"] == 1
    assert pixaris.runs() == [run.name for run in runs]


_NO_RECORDS = (
    "[1, 2]",
    '{"timestamp": "20240101-000000"}',
    '{"experiment_run_name": 5}',
    '{"experiment_run_name": "../../elsewhere"}',
    '{"experiment_run_name": "a//b"}',
    '{"experiment_run_name": "line\\nfeed"}',
    '{"experiment_run_name": ""}',
    "not JSON at all",
    "[" * 100_000,
)


def test_lines_that_are_no_records_hold_nobody_up(command_line: CommandLine, pixaris: Reader) -> None:
    """Goal: odd lines are listed by number. Method: all kinds behind a good run and before another."""
    first = store_run(command_line.folder, "first")
    for line in _NO_RECORDS:
        append_line(first.tracking, f"{line}\n")
    second = store_run(command_line.folder, "second")

    document = command_line.sync(expect=3)

    for number, _ in enumerate(_NO_RECORDS, 2):
        problem = _problem(document, f"{PROJECT}/{DATASET}/{TRACKING_FILE}:{number}")
        assert problem["state"] == "quarantined"
    assert len(document["problems"]) == document["runs"]["quarantined"] == len(_NO_RECORDS)
    assert pixaris.runs() == [first.name, second.name]
    assert set(pixaris.objects()) == {
        name for run in (first, second) for name in run_objects(run, "generated_images/image_0.png")
    }


# -- what a record names and is not there -----------------------------------------------------------------


def _no_folder(run: StoredRun) -> None:
    shutil.rmtree(run.folder)


def _no_images_folder(run: StoredRun) -> None:
    shutil.rmtree(run.folder / "generated_images")


def _no_image(run: StoredRun) -> None:
    (run.folder / "generated_images" / "image_0.png").unlink()


def _no_saved_file(run: StoredRun) -> None:
    (run.folder / "flow.json").unlink()


def test_runs_with_something_missing_are_quarantined_and_nothing_of_them_is_uploaded(
    command_line: CommandLine, pixaris: Reader, tmp_path: Path
) -> None:
    """Goal: nothing looks complete. Method: runs that lose one part each; put all back and sync again."""
    args = {"flow": {"a": 1}}
    good = store_run(command_line.folder, "good")
    losses: dict[Callable[[StoredRun], None], str] = {
        _no_folder: "does not exist",
        _no_images_folder: "generated_images",
        _no_image: "no image",
        _no_saved_file: "flow.json",
    }
    bad = {lose: store_run(command_line.folder, lose.__name__, args=args) for lose in losses}
    shutil.copytree(command_line.folder, tmp_path / "spare")
    for lose, run in bad.items():
        lose(run)

    document = command_line.sync(expect=3)

    for lose, run in bad.items():
        problem = _problem(document, str(run.key))
        assert problem["state"] == "quarantined"
        assert losses[lose] in problem["cause"]
    assert pixaris.runs() == [good.name]
    assert set(pixaris.objects()) == run_objects(good, "generated_images/image_0.png")
    shutil.copytree(tmp_path / "spare", command_line.folder, dirs_exist_ok=True)
    assert command_line.having(**_QUICK_DOUBT).sync()["runs"]["synced"] == 5
    for run in bad.values():
        objects = set(pixaris.objects(f"results/{run.key}/"))
        assert objects == run_objects(run, "flow.json", "generated_images/image_0.png")


def test_runs_without_images_may_be_meant(command_line: CommandLine, pixaris: Reader) -> None:
    """Goal: the setting that accepts them. Method: a run stored without any image, with and without it."""
    run = store_run(command_line.folder, images=0, args={"flow": {"a": 1}})

    command_line.sync(expect=3)
    command_line.having(**_QUICK_DOUBT).sync("--accept-runs-without-images")

    assert pixaris.runs() == [run.name]
    assert set(pixaris.objects()) == run_objects(run, "flow.json")


def test_a_run_that_the_handler_gave_up_is_incomplete(command_line: CommandLine, pixaris: Reader) -> None:
    """Goal: pillow_images make the handler raise half way. Method: let it; the run is listed, not dropped."""
    with pytest.raises(TypeError, match="not JSON serializable"):
        store_run(
            command_line.folder,
            "half",
            args={"pillow_images": [{"node_name": "a", "pillow_image": picture()}]},
        )

    young = command_line.sync(expect=5)
    old = command_line.sync("--incomplete-after-seconds", "0", expect=3)

    assert young["problems"] == []
    assert len(old["problems"]) == 1
    problem = _problem(old, old["problems"][0]["run"])
    assert problem["state"] == "incomplete"
    assert problem["run"].endswith("_half")
    assert "args.json" in problem["cause"]
    assert pixaris.objects() == {}


# -- images -----------------------------------------------------------------------------------------------


def test_an_image_cut_short_waits_while_it_is_young(command_line: CommandLine, pixaris: Reader) -> None:
    """Goal: it may still be written. Method: cut one; young, old, then whole again."""
    good, bad = store_run(command_line.folder, "good"), store_run(command_line.folder, "bad", images=2)
    image = bad.folder / "generated_images" / "image_1.png"
    content = image.read_bytes()
    image.write_bytes(content[: len(content) // 2])
    begun = time.monotonic()

    young = command_line.sync("--young-file-seconds", "3600", expect=5)

    assert time.monotonic() - begun < 600, "it waited instead of leaving the run to a later try"
    assert (young["runs"]["failing"], young["runs"]["synced"]) == (1, 1)
    assert pixaris.runs() == [good.name]
    an_hour_ago = time.time() - 3601
    os.utime(image, (an_hour_ago, an_hour_ago))
    old = command_line.sync("--young-file-seconds", "3600", expect=3)
    problem = _problem(old, str(bad.key))
    assert problem["state"] == "quarantined"
    assert "image_1.png" in problem["cause"]
    assert pixaris.runs() == [good.name]
    image.write_bytes(content)
    assert command_line.sync()["runs"]["synced"] == 2
    assert pixaris.runs() == sorted([good.name, bad.name])


def test_what_is_no_image_is_not_uploaded_as_one(command_line: CommandLine, pixaris: Reader) -> None:
    """Goal: Pixaris must be able to show it. Method: other content under an image's name."""
    contents = {"empty": b"", "text": b"no image", "head": b"\x89PNG\r\n\x1a\n"}
    runs = {name: store_run(command_line.folder, name) for name in contents}
    for name, content in contents.items():
        (runs[name].folder / "generated_images" / "image_0.png").write_bytes(content)

    document = command_line.sync(*_NOTHING_IS_YOUNG, expect=3)

    for run in runs.values():
        assert "generated_images/image_0.png" in _problem(document, str(run.key))["cause"]
    assert pixaris.objects() == {}


# -- paths that lead elsewhere ----------------------------------------------------------------------------


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    """A folder outside the results folder that holds what nobody may carry away."""
    folder = tmp_path / "secret"
    (folder / "generated_images").mkdir(parents=True)
    for name in ("flow.json", "flow.png", "args.json", TRACKING_FILE, "generated_images/image_0.png"):
        (folder / name).write_bytes(_SECRET)
    return folder


def _everything(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def _assert_no_secret(pixaris: Reader) -> None:
    assert all(_SECRET not in pixaris.content(name) for name in pixaris.objects())


def test_a_path_in_a_record_that_is_not_its_own_file_stays_a_string(
    command_line: CommandLine, pixaris: Reader, secret: Path
) -> None:
    """Goal: never opened, whatever a record says. Method: records naming files outside; ask the kernel."""
    other = store_run(command_line.folder, "other", args={"flow": {"other": True}})
    paths = {
        "flow": str(secret / "flow.json"),
        "up": "../../../secret/flow.json",
        "twisted": f"{PROJECT}/{DATASET}/../../../secret/flow.json",
        "generated_images/image_0": str(secret / "generated_images" / "image_0.png"),
        "of_another_run": str(other.folder / "flow.json"),
        "device": "/dev/zero",
    }
    run = store_run(command_line.folder, args=paths)

    with watch_opens(*_everything(secret)) as watch:
        command_line.sync()
        assert not watch.happened()
        (secret / "flow.json").read_bytes()
        assert watch.happened(), "the proof proves nothing"

    frame = pixaris.frame().set_index("experiment_run_name")
    assert frame.loc[run.name, "flow"] == paths["flow"]
    cells = set(frame.loc[run.name])
    assert set(paths.values()) <= cells
    assert set(pixaris.objects(f"results/{run.key}/")) == run_objects(run, "generated_images/image_0.png")
    _assert_no_secret(pixaris)


def _link_image(run: StoredRun, secret: Path) -> str:
    image = run.folder / "generated_images" / "image_0.png"
    image.unlink()
    image.symlink_to(secret / "generated_images" / "image_0.png")
    return str(run.key)


def _link_images(run: StoredRun, secret: Path) -> str:
    shutil.rmtree(run.folder / "generated_images")
    (run.folder / "generated_images").symlink_to(secret / "generated_images")
    return str(run.key)


def _link_saved_file(run: StoredRun, secret: Path) -> str:
    (run.folder / "flow.json").unlink()
    (run.folder / "flow.json").symlink_to(secret / "flow.json")
    return str(run.key)


def _link_run(run: StoredRun, secret: Path) -> str:
    shutil.rmtree(run.folder)
    run.folder.symlink_to(secret)
    return str(run.key)


def _link_tracking_file(run: StoredRun, secret: Path) -> str:
    run.tracking.unlink()
    run.tracking.symlink_to(secret / TRACKING_FILE)
    return f"{run.key.dataset_key}/{TRACKING_FILE}"


def _link_dataset(run: StoredRun, secret: Path) -> str:
    shutil.rmtree(run.folder.parent)
    run.folder.parent.symlink_to(secret)
    return str(run.key.dataset_key)


def _link_project(run: StoredRun, secret: Path) -> str:
    shutil.rmtree(run.folder.parent.parent)
    run.folder.parent.parent.symlink_to(secret.parent)
    return run.key.project


def test_links_that_leave_the_folder_are_problems_and_never_followed(
    command_line: CommandLine, pixaris: Reader, secret: Path
) -> None:
    """Goal: never opened. Method: a link in each place; the kernel tells that its target stays closed."""
    links = (
        *(_link_image, _link_images, _link_saved_file, _link_run),
        *(_link_tracking_file, _link_dataset, _link_project),
    )
    good = store_run(command_line.folder, "good", project="good")
    subjects = []
    for link in links:
        run = store_run(command_line.folder, project=link.__name__, args={"flow": {"a": 1}})
        subjects.append(link(run, secret))

    with watch_opens(*_everything(secret)) as watch:
        document = command_line.sync(*_NOTHING_IS_YOUNG, expect=3)
        assert not watch.happened()

    for subject in subjects:
        assert "link" in _problem(document, subject)["cause"], subject
    assert pixaris.runs("good") == [good.name]
    assert set(pixaris.objects()) == run_objects(good, "generated_images/image_0.png")
    _assert_no_secret(pixaris)


def test_a_fifo_in_the_place_of_a_file_holds_nobody_up(command_line: CommandLine, pixaris: Reader) -> None:
    """Goal: opening one would block for ever. Method: FIFOs as an image, a saved file and a tracking file."""
    good = store_run(command_line.folder, "good")
    runs = [store_run(command_line.folder, f"bad-{number}", args={"flow": {"a": 1}}) for number in range(2)]
    places = (runs[0].folder / "generated_images" / "image_0.png", runs[1].folder / "flow.json")
    for place in places:
        place.unlink()
        os.mkfifo(place)
    stuck = store_run(command_line.folder, dataset="stuck").tracking
    stuck.unlink()
    os.mkfifo(stuck)

    document = command_line.sync(expect=3)

    for run, named in zip(runs, ("generated_images", "flow.json"), strict=True):
        assert named in _problem(document, str(run.key))["cause"]
    _problem(document, f"{PROJECT}/stuck/{TRACKING_FILE}")
    assert pixaris.runs() == [good.name]


# -- names ------------------------------------------------------------------------------------------------


def test_names_that_the_services_refuse_are_quarantined_with_the_rule(
    command_line: CommandLine, pixaris: Reader
) -> None:
    """Goal: the broken rule is told, others go on. Method: the real handler stores under such names."""
    good = store_run(command_line.folder, "good", project="good")
    refused = {
        ("pro:ject", DATASET, "run", "image"): "':'",
        (PROJECT, "data 🦜 set", "run", "image"): "'🦜'",
        ("pickled_results", DATASET, "run", "image"): "sets this project name aside",
        (PROJECT, DATASET, "line\nfeed", "image"): "line feed",
        ("p" * 250, "d" * 250, "r" * 230, "i" * 250): "1024",
    }
    for project, dataset, name, image in refused:
        images = [(picture(), f"{image}.png")]
        store_run(command_line.folder, name, project=project, dataset=dataset, images=images)

    document = command_line.sync(expect=3)

    assert len(document["problems"]) == len(refused)
    for (project, dataset, _, _), rule in refused.items():
        found = [at for at in document["problems"] if at["run"].startswith(f"{project}/{dataset}/")]
        assert len(found) == 1
        assert _problem(document, found[0]["run"])["state"] == "quarantined"
        assert rule in found[0]["cause"]
    assert pixaris.runs("good") == [good.name]
    assert set(pixaris.objects()) == run_objects(good, "generated_images/image_0.png")


def test_datasets_that_share_a_table_are_told_and_both_go_on(
    command_line: CommandLine, pixaris: Reader
) -> None:
    """Goal: a_b + c and a + b_c meet. Method: a run in each; both have their row, status says it."""
    runs = [
        store_run(command_line.folder, name, project=project, dataset=dataset)
        for name, project, dataset in (("one", "a_b", "c"), ("two", "a", "b_c"))
    ]

    document = command_line.sync()

    assert len(document["problems"]) == 1
    assert "share the table" in document["problems"][0]["cause"]
    assert pixaris.runs("a", "b_c") == pixaris.runs("a_b", "c") == sorted(run.name for run in runs)


def test_what_is_no_run_is_left_out_without_noise(command_line: CommandLine, pixaris: Reader) -> None:
    """Goal: feedback, stray and hidden files. Method: all of them beside one run; no problem, no word."""
    run = store_run(command_line.folder)
    dataset = run.tracking.parent
    (dataset.parent / "feedback_iterations" / "iteration").mkdir(parents=True)
    (dataset.parent / "feedback_iterations" / TRACKING_FILE).write_text("not for us\n")
    (dataset.parent / "feedback_tracking.jsonl").write_text("{}\n")
    (command_line.folder / ".git").mkdir()
    (command_line.folder / ".DS_Store").write_text("")
    (command_line.folder / "README.txt").write_text("")
    (command_line.folder / "empty project").mkdir()
    (dataset.parent / ".ipynb_checkpoints").mkdir()
    (dataset / "notes.txt").write_text("")
    (dataset / "plots").mkdir()
    (run.folder / "notes.txt").write_text("")
    (run.folder / "generated_images" / "Thumbs.db").write_text("")
    (run.folder / "generated_images" / ".image_0.png.swp").write_text("")

    outcome = command_line.run("sync", "--json", *_NOTHING_IS_YOUNG)

    assert outcome.code == 0, str(outcome)
    assert outcome.document["problems"] == []
    assert [line for line in outcome.stderr.splitlines() if " INFO " not in line] == []
    assert set(pixaris.objects()) == run_objects(run, "generated_images/image_0.png")
    assert pixaris.handler.load_projects_and_datasets() == {PROJECT: [DATASET]}


def test_a_record_in_status_says_where_it_stands_in_the_file(command_line: CommandLine) -> None:
    """Goal: status text is for people. Method: a damaged line; its number, cause and hint are printed."""
    run = store_run(command_line.folder)
    append_line(run.tracking, json.dumps({"no": "name"}) + "\n")
    command_line.sync(expect=3)

    text = command_line.run("status").stdout

    assert f"quarantined: {PROJECT}/{DATASET}/{TRACKING_FILE}:2" in text
    assert "cause: " in text
    assert "hint: " in text
