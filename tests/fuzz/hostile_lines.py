"""Harm done with tracking lines: torn, mixed up, swollen, and records that lead somewhere else."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from pixaris_sync.model import ColumnType
from pixaris_sync.rules.schema import companion_names, hashed_column_name
from tests.fuzz import awkward_names
from tests.fuzz.folder import TRACKING_FILE, HostileFolder

Harm = Callable[[HostileFolder], None]

_MANY_KEYS: Final = 10_000
_MEGABYTE: Final = 1024 * 1024
#: Keys and paths for their values; `tail` is where the run's own saved files stand.
_PATHS: Final = (
    ("secret", "{outside}/secret.png"),
    ("pose", "{outside}/{tail}/pose.png"),
    ("{up}/secret", "{tail}/{up}/secret.png"),
    ("..", "{tail}/...png"),
    ("../args", "{tail}/../args.json"),
    ("args", "{tail}/args.json"),
    ("generated_images/0", "{tail}/generated_images/0.png"),
    ("0", "{tail}/generated_images/0.png"),
    ("generated_images\\0", "{tail}\\generated_images\\0.png"),
    ("\0", "{tail}/\0.png"),
    ("nul", "{tail}/nul.png\0"),
    ("new\nline", "{tail}/new\nline.png"),
    ("dot", "{tail}/./dot.png"),
    ("half\ud800", "{tail}/half\ud800.json"),
    ("passwd", "/etc/passwd"),
    ("url", "file:///etc/passwd"),
    ("/etc/passwd", "{tail}//etc/passwd.json"),
    ("", "{tail}/.png"),
    (".", "{tail}/..json"),
    ("n" * 300, "{tail}/" + "n" * 300 + ".png"),
)


def _values(hostile: HostileFolder, text: str) -> None:
    """A run whose line holds this JSON text beside its name, as it stands: no parser has seen it."""
    run = hostile.run(hostile.dataset())
    name = json.dumps(run.name)
    line = f'{{"timestamp": "{run.name[:15]}", "experiment_run_name": {name}, {text}}}'.encode(
        "utf-8", "surrogatepass"
    )
    _learn(hostile, line)
    if hostile.random.random() < 0.5:
        (run / "args.json").write_bytes(line)
    hostile.append(run.parent, line + b"\n")


def _learn(hostile: HostileFolder, line: bytes) -> None:
    """Remember the metrics of a line, as far as anybody can read it."""
    try:
        hostile.record(Path("20250101-000000_x"), json.loads(line))
    except (ValueError, RecursionError):
        return


def hundred_thousand_levels(hostile: HostileFolder) -> None:
    _values(hostile, f'"deep": {awkward_names.nested(hostile.random, 100_000)}')


def about_as_deep_as_python_goes(hostile: HostileFolder) -> None:
    """What one stack can still parse, another can no longer print."""
    for _ in range(4):
        _values(hostile, f'"deep": {awkward_names.nested(hostile.random, hostile.random.randint(60, 1100))}')


def million_digits(hostile: HostileFolder) -> None:
    kind = hostile.random.choice(["{}", "-{}", "{}e5", "{}.5", "1e{}", "0.{}", "[{}]", '{{"a": {}}}'])
    _values(hostile, f'"number": {kind.format("7" * 10**6)}')


def about_as_long_as_python_converts(hostile: HostileFolder) -> None:
    for _ in range(4):
        _values(hostile, f'"number": {"7" * hostile.random.randint(4290, 4310)}, "in": [{"7" * 4300}]')


def numbers_at_their_limits(hostile: HostileFolder) -> None:
    numbers = ["NaN", "Infinity", "-Infinity", "1e999", "-0", "-0.0", str(2**63), str(-(2**63) - 1), "1E-400"]
    _values(hostile, ", ".join(f'"n{index}": {number}' for index, number in enumerate(numbers)))


def keys_that_come_twice(hostile: HostileFolder) -> None:
    other = json.dumps(hostile.run_name())
    _values(hostile, f'"a": 1, "a": {{"b": 2}}, "a": "c", "timestamp": 5, "experiment_run_name": {other}')


def name_that_comes_twice(hostile: HostileFolder) -> None:
    run = hostile.run(hostile.dataset())
    hostile.append(
        run.parent, b'{"experiment_run_name": "../x", "experiment_run_name": %s}\n' % _json(run.name)
    )


def bare_surrogates(hostile: HostileFolder) -> None:
    _values(hostile, r'"\ud800": "\udfff", "a": "\ud83d", "b": ["\ud800"], "c": {"\udc80": "\ud800"}')
    _values(hostile, '"\ud800": "\udc80"')


def odd_keys(hostile: HostileFolder) -> None:
    for _ in range(3):
        run = hostile.run(hostile.dataset())
        keys = hostile.random.sample(awkward_names.KEYS, 12)
        hostile.track(run, {key: awkward_names.value(hostile.random) for key in keys})


def odd_values(hostile: HostileFolder) -> None:
    """The same keys with values of other types each time, so that columns drift."""
    where = hostile.dataset()
    for _ in range(6):
        run = hostile.run(where)
        hostile.track(
            run,
            {
                key: awkward_names.value(hostile.random)
                for key in ("score", "Score", "a", "a__string", "metric")
            },
        )


def odd_run_names(hostile: HostileFolder) -> None:
    where = hostile.dataset()
    for name in hostile.random.sample(awkward_names.RUN_NAMES, 6):
        hostile.append(
            where, _json({"timestamp": "20250101-000000", "experiment_run_name": name, "a": 1}) + b"\n"
        )


def names_of_runs_elsewhere(hostile: HostileFolder) -> None:
    where = hostile.dataset()
    outside = next((hostile.outside / "project" / "dataset").glob("2025*"))
    for name in (
        str(outside),
        os.path.relpath(outside, where),
        f"../../calm/plain/{hostile.sound[0].name}",
        f"../../calm/feedback_iterations/{next(hostile.forbidden[0].glob('2025*')).name}",
        hostile.sound[0].name,
        f"./{hostile.sound[-1].name}",
    ):
        hostile.append(where, _json({"experiment_run_name": name, "pose": f"{name}/pose.png"}) + b"\n")


def paths_that_lead_elsewhere(hostile: HostileFolder) -> None:
    """Values that look like the run's own saved files, and keys that would lead out of its folder."""
    where = hostile.dataset()
    for key, path in hostile.random.sample(_PATHS, 8):
        run = hostile.run(where)
        up = os.path.relpath(hostile.outside, run)
        fill = {"outside": str(hostile.outside), "up": up, "tail": "/".join(run.parts[-3:])}
        hostile.track(run, {key.format_map(fill): path.format_map(fill)})


def metrics_that_lead_elsewhere(hostile: HostileFolder) -> None:
    """Dicts, which become objects, under keys that would make them the objects of others."""
    run = hostile.run(hostile.dataset())
    other = hostile.run(run.parent)
    for key in (
        "../x",
        f"../{other.name}/generated_images/0",
        "generated_images/y",
        "..",
        "",
        "args",
        "a" * 1500,
    ):
        hostile.track(hostile.run(run.parent), {key: {"n": hostile.number()}})


def ten_thousand_keys(hostile: HostileFolder) -> None:
    _values(hostile, ", ".join(f'"key {number % 9999}": {number}' for number in range(_MANY_KEYS)))


def columns_made_to_collide(hostile: HostileFolder) -> None:
    """Keys that take the names which the rules would give to other keys."""
    hashed = [hashed_column_name(key) for key in ("a b", "A b", "score")]
    companions = [
        name for name, _ in zip(companion_names("score", ColumnType.STRING), range(5), strict=False)
    ]
    where = hostile.dataset()
    for _ in range(4):
        values = {
            key: awkward_names.value(hostile.random)
            for key in ("a b", "A b", "A B", "score", *hashed, *companions)
        }
        hostile.track(hostile.run(where), values)


def line_of_megabytes(hostile: HostileFolder) -> None:
    _values(hostile, f'"long": "{"x" * hostile.random.randint(1, 4 * _MEGABYTE)}"')


def line_that_no_record_can_be(hostile: HostileFolder) -> None:
    where = hostile.dataset()
    with (where / TRACKING_FILE).open("ab") as file:
        file.truncate(file.tell() + 70 * _MEGABYTE)
    hostile.append(where, b"\n")
    hostile.sound_run(where)


def zeros_without_end(hostile: HostileFolder) -> None:
    where = hostile.dataset()
    with (where / TRACKING_FILE).open("ab") as file:
        file.truncate(file.tell() + hostile.random.choice([1, 4096, 100 * _MEGABYTE]))


def torn_lines(hostile: HostileFolder) -> None:
    """A crash cuts a line; the next stands right behind it, or never comes."""
    where = hostile.dataset()
    for _ in range(hostile.random.randint(1, 3)):
        line = hostile.track(hostile.run(where), {"a": "b" * 50, "m": {"n": hostile.number()}}, end=b"")
        tracking = where / TRACKING_FILE
        os.truncate(tracking, tracking.stat().st_size - hostile.random.randint(1, len(line)))


def lines_with_zeros(hostile: HostileFolder) -> None:
    where = hostile.dataset()
    line = hostile.track(hostile.run(where), {"a": "b" * 50}, end=b"")
    size = (where / TRACKING_FILE).stat().st_size
    with (where / TRACKING_FILE).open("r+b") as file:
        file.seek(size - hostile.random.randint(1, len(line)))
        file.write(bytes(hostile.random.randint(1, 5000)))
    hostile.sound.append(where / _appended(hostile, where))


def interleaved_lines(hostile: HostileFolder) -> None:
    where = hostile.dataset()
    size = (where / TRACKING_FILE).stat().st_size
    one, other = (
        hostile.track(hostile.run(where), {"a": "b" * 200, "n": hostile.number()}) for _ in range(2)
    )
    os.truncate(where / TRACKING_FILE, size)
    step = hostile.random.randint(1, 300)
    pieces = [
        text[start : start + step]
        for start in range(0, max(len(one), len(other)), step)
        for text in (one, other)
    ]
    hostile.append(where, b"".join(pieces) + b"\n\n")


def marks_and_line_ends(hostile: HostileFolder) -> None:
    where = hostile.dataset()
    for start, end in (
        (b"\xef\xbb\xbf", b"\r\n"),
        (b"\n\r\n \t\n", b"\n"),
        (b"", b"\r\r\n"),
        (b"\xff\xfe", b"\n"),
    ):
        hostile.append(where, start)
        hostile.track(hostile.run(where), {"a": 1}, end=end)


def json_that_is_no_record(hostile: HostileFolder) -> None:
    where = hostile.dataset()
    for text in (
        "[]",
        "{}",
        "null",
        "1",
        '"x"',
        "[" * 99,
        "{" * 500,
        '{"a":' * 300,
        "}{",
        "\0",
        "\\",
        "\x1a",
    ):
        hostile.append(where, text.encode() + b"\n")
    for _ in range(300):
        hostile.append(
            where,
            b'{"timestamp": "20250101-000000", "experiment_run_name": "x'
            + hostile.random.randbytes(3)
            + b"\n",
        )


def noise(hostile: HostileFolder) -> None:
    where = hostile.dataset()
    hostile.append(where, hostile.random.randbytes(hostile.random.randint(1, 20_000)))


def mutated_lines(hostile: HostileFolder) -> None:
    where = hostile.dataset()
    tracking = where / TRACKING_FILE
    sound = tracking.read_bytes()
    for _ in range(4):
        hostile.track(
            hostile.run(where),
            {
                awkward_names.key(hostile.random): awkward_names.value(hostile.random),
                "m": {"n": hostile.number()},
            },
        )
    tracking.write_bytes(
        sound + awkward_names.mutated(hostile.random, tracking.read_bytes().removeprefix(sound))
    )
    hostile.mutated.add(where)


def the_same_line_often(hostile: HostileFolder) -> None:
    run = hostile.run(hostile.dataset())
    line = hostile.track(run, {"a": 1})
    hostile.append(run.parent, (line + b"\n") * hostile.random.randint(1, 200))


def _appended(hostile: HostileFolder, where: Path) -> str:
    """End the line that is there, and store one more sound run."""
    hostile.append(where, b"\n")
    run = hostile.run(where)
    hostile.track(run, {"score": 0.5})
    return run.name


def _json(value: Any) -> bytes:
    return json.dumps(value).encode()


HARMS: Final[tuple[Harm, ...]] = (
    hundred_thousand_levels,
    about_as_deep_as_python_goes,
    million_digits,
    about_as_long_as_python_converts,
    numbers_at_their_limits,
    keys_that_come_twice,
    name_that_comes_twice,
    bare_surrogates,
    odd_keys,
    odd_values,
    odd_run_names,
    names_of_runs_elsewhere,
    paths_that_lead_elsewhere,
    metrics_that_lead_elsewhere,
    ten_thousand_keys,
    columns_made_to_collide,
    line_of_megabytes,
    line_that_no_record_can_be,
    zeros_without_end,
    torn_lines,
    lines_with_zeros,
    interleaved_lines,
    marks_and_line_ends,
    json_that_is_no_record,
    noise,
    mutated_lines,
    the_same_line_often,
)
