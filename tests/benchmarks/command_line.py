"""``python -m tests.benchmarks [WORD] [options]``: the measurements of this package.

Without a word, contenders are compared.
"""

import argparse
import compileall
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pixaris_sync
from tests.benchmarks.arrays import array_shape, measure_arrays
from tests.benchmarks.check import check_table, checks, recorded_cases
from tests.benchmarks.comparison import AGAIN, Comparison, available
from tests.benchmarks.contenders import CONTENDERS, OURS, RAW, TREE
from tests.benchmarks.flame import profile, small_flame_graph, summary
from tests.benchmarks.handlers import CALLS, handlers_text, measure_handlers
from tests.benchmarks.levels import LevelCase, Levels, levels_text, write_levels
from tests.benchmarks.many import measure_scale, measure_shards, ratio_text
from tests.benchmarks.picture import draw
from tests.benchmarks.readings import measure_readings
from tests.benchmarks.results import SETTINGS, Case, machine, machine_text, read_json, table, write_json
from tests.benchmarks.sets import SHAPES
from tests.benchmarks.training import measure_slowdown
from tests.benchmarks.watch_latency import watch_latency, write_latencies

CACHE = Path("build/benchmarks")
#: Levels of concurrency are compared in these.
LEVEL_CASES = ("A:0", "A:20", "A:50", "A:200", "B:0", "B:50", "C:0", "C:50", "C:50:40")
#: What is measured when nothing else is asked for; it ends within half an hour on two cores.
DEFAULT_CASES = ("A:50", "A:0", "B:50", "C:0", f"C{AGAIN}:0", f"C{AGAIN}:50")
DEFAULT_CONTENDERS = (
    OURS,
    "handlers",
    "GCPExperimentHandler",
    "transfer_manager/32",
    "gcsfs",
    "gcloud-aio/64",
    "gcloud-aio/128",
    "obstore/64",
    "obstore/128",
    "gcloud rsync",
    "rclone/32",
)


#: What was measured last, and what `--check` compares with.
RECORDED = Path(__file__).parent / "result.json"

#: What a word does; None is success.
_Word = Callable[[argparse.Namespace], int | None]


def main(arguments: Sequence[str]) -> int:
    """Run the command; its exit code."""
    words: Mapping[str, tuple[_Word, Callable[[argparse.ArgumentParser], None]]] = {
        "compare": (_compare, _compare_options),
        "watch-latency": (_watch_latency, _watch_latency_options),
        "scale": (_scale, _scale_options),
        "shards": (_shards, _shards_options),
        "idle": (_idle, _idle_options),
        "training": (_training, _training_options),
        "flame": (_flame, _flame_options),
        "levels": (_levels, _levels_options),
        "handlers": (_handlers, _handlers_options),
        "readings": (_readings, _readings_options),
        "array": (_array, _array_options),
    }
    word = arguments[0] if arguments and arguments[0] in words else "compare"
    run, add_options = words[word]
    parser = argparse.ArgumentParser(
        prog=f"python -m tests.benchmarks {word}", description=f"Other words: {', '.join(words)}."
    )
    parser.add_argument("--cache", type=Path, default=CACHE, help="where sets are kept [%(default)s]")
    add_options(parser)
    options = parser.parse_args(arguments[1:] if arguments[:1] == [word] else arguments)
    options.cache.mkdir(parents=True, exist_ok=True)
    options.cache = options.cache.resolve()
    # As an installed program is, wherever Python may write no bytecode: else each run would compile it anew.
    compileall.compile_dir(Path(pixaris_sync.__file__).parent, quiet=1)
    return run(options) or 0


def _compare(options: argparse.Namespace) -> int | None:
    if options.check:
        return _check(options)
    cases = options.cases or _crossed(options.sets, options.latencies)
    comparison = Comparison(
        cases=[replace(case, setting=setting) for case in cases for setting in options.settings],
        contenders=available(options.contenders),
        repeats=options.repeats,
        cache=options.cache,
    )
    runs = comparison.run()
    descriptions = comparison.descriptions()
    _say(table(runs, descriptions))
    if options.json:
        write_json(options.json, runs, descriptions)
    if options.svg:
        draw(options.svg, runs, descriptions)
    return None


def _check(options: argparse.Namespace) -> int:
    measured_on, recorded = read_json(options.recorded)
    cases = recorded_cases(recorded)
    if not cases:
        _say(f"{options.recorded} has no case that {OURS} and {RAW} have carried: record one by --json")
        return 1
    _say(f"Recorded on {machine_text(measured_on)}.\nMeasured on {machine_text(machine())}.\n")
    comparison = Comparison(
        cases=cases,
        contenders=available([name for name in CONTENDERS if name.partition("/")[0] in (OURS, RAW)]),
        repeats=options.repeats,
        cache=options.cache,
    )
    found = list(checks(recorded, comparison.run()))
    _say(check_table(found))
    return int(any(check.is_worse for check in found))


def _compare_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--cases",
        type=lambda text: [_case(part) for part in text.split(",")],
        help=f"SET:LATENCY_MS, comma-separated; SET{AGAIN} with nothing new [{','.join(DEFAULT_CASES)}]",
    )
    parser.add_argument(
        "--sets", type=_sets, help=f"with --latencies, instead of --cases: {', '.join(SHAPES)}"
    )
    parser.add_argument("--latencies", type=lambda text: [float(part) for part in text.split(",")])
    parser.add_argument(
        "--contenders",
        type=_contenders,
        default=list(DEFAULT_CONTENDERS),
        help=f"comma-separated, or all: {', '.join(CONTENDERS)}",
    )
    parser.add_argument(
        "--settings",
        type=_settings,
        default=list(SETTINGS),
        help="of the machine, comma-separated: "
        + ", ".join(f"{name} ({words})" for name, words in SETTINGS.items())
        + f" [{','.join(SETTINGS)}]",
    )
    parser.add_argument("--repeats", type=int, default=3, help="rounds [%(default)s]")
    parser.add_argument(
        "--check",
        action="store_true",
        help=f"measure only {OURS} and {RAW}, in the cases and settings that are recorded, and end with 1 "
        "where a ratio has become worse",
    )
    parser.add_argument(
        "--recorded",
        type=_file,
        default=RECORDED,
        help="file of --json that --check compares with [%(default)s]",
    )
    parser.add_argument("--json", type=Path, help="file to write everything to")
    parser.add_argument("--svg", type=Path, help="file to draw the picture to")


def _watch_latency(options: argparse.Namespace) -> None:
    found = []
    for copies in dict.fromkeys((0, options.backfill_copies)):
        found.append(
            watch_latency(
                options.cache,
                runs=options.runs,
                backfill_copies=copies,
                flags=options.flags,
                table_settle_seconds=options.table_settle_seconds,
            )
        )
        _say(found[-1].text())
    if options.json:
        write_latencies(options.json, found)


def _watch_latency_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--runs", type=int, default=200, help="how many runs are written [%(default)s]")
    parser.add_argument(
        "--backfill-copies", type=int, default=20, help="how many sets C are carried meanwhile [%(default)s]"
    )
    parser.add_argument(
        "--table-settle-seconds", type=float, default=0, help="as in the settings [%(default)s]"
    )
    parser.add_argument("--json", type=Path, help="file to write every latency to")
    _add_flags(parser)


def _scale(options: argparse.Namespace) -> None:
    scales = []
    for files in options.files:
        scales.append(measure_scale(options.cache, files=files, idle_seconds=0, flags=options.flags))
        _say(scales[-1].text())
    _say(ratio_text(scales))


def _scale_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--files",
        type=lambda text: [int(part) for part in text.split(",")],
        default=[22_000, 1_000_000],
        help="sizes of folders, comma-separated [22000,1000000]",
    )
    _add_flags(parser)


def _shards(options: argparse.Namespace) -> None:
    measured = measure_shards(options.cache, files=options.files, shards=options.shards, flags=options.flags)
    _say(measured.text())
    if options.machine:
        measured.measured(options.machine).write()


def _shards_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--machine", help="what kind it is: write it down for deploy/scale.md")
    parser.add_argument("--files", type=int, default=200_000, help="in the folder [%(default)s]")
    parser.add_argument("--shards", type=int, default=4, help="of it [%(default)s]")
    _add_flags(parser)


def _idle(options: argparse.Namespace) -> None:
    scale = measure_scale(
        options.cache,
        files=options.files,
        idle_seconds=options.seconds,
        flags=options.flags,
        listen=options.listen,
    )
    _say(scale.text())


def _idle_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--files", type=int, default=1_000_000, help="how many are known [%(default)s]")
    parser.add_argument("--seconds", type=float, default=300, help="how long nothing happens [%(default)s]")
    parser.add_argument("--listen", action="store_true", help="serve the page meanwhile; nobody looks at it")
    _add_flags(parser)


def _training(options: argparse.Namespace) -> None:
    found = measure_slowdown(
        options.cache,
        what=options.set,
        latency_ms=options.latency,
        loop_seconds=options.seconds,
        repeats=options.repeats,
        flags=options.flags,
    )
    _say(found.text())


def _training_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--set", default="C", choices=sorted(SHAPES), help="what is carried [%(default)s]")
    parser.add_argument("--latency", type=float, default=20, help="of the cloud, in ms [%(default)s]")
    parser.add_argument(
        "--seconds", type=float, default=5, help="how long the loop takes alone [%(default)s]"
    )
    parser.add_argument("--repeats", type=int, default=3, help="rounds [%(default)s]")
    _add_flags(parser)


def _flame(options: argparse.Namespace) -> None:
    for what in options.sets:
        found = profile(
            options.cache, options.tree, what=what, latency_ms=options.latency, flags=options.flags
        )
        _say(found.parts())
        if not options.parts:
            found.write(options.out)
            _say(summary(found.stacks, what))
        if options.small:
            options.small.parent.mkdir(parents=True, exist_ok=True)
            Path(f"{options.small}-{what}.svg").write_text(small_flame_graph(found.stacks))


def _flame_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--sets", type=_sets, default=["A", "C"], help="what is carried [A,C]")
    parser.add_argument("--latency", type=float, default=0, help="of the cloud, in ms [%(default)s]")
    parser.add_argument("--out", type=Path, default=Path("build/flame"), help="folder [%(default)s]")
    parser.add_argument("--parts", action="store_true", help="print only the work by part, and draw nothing")
    parser.add_argument(
        "--small", type=Path, metavar="PREFIX", help="draw PREFIX-SET.svg too, small enough for a document"
    )
    parser.add_argument(
        "--tree", type=Path, default=TREE, help="the checkout whose program is profiled [%(default)s]"
    )
    _add_flags(parser)


def _levels(options: argparse.Namespace) -> None:
    runs = Levels(
        options.cache,
        options.cases,
        options.fixed,
        repeats=options.repeats,
        files_min=options.files,
        seconds_max=options.seconds,
        flags=options.flags,
    ).run()
    _say(levels_text(runs))
    if options.json:
        write_levels(options.json, runs)


def _levels_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--cases",
        type=lambda text: [_level_case(part) for part in text.split(",")],
        default=[_level_case(text) for text in LEVEL_CASES],
        help="SET:LATENCY_MS or SET:LATENCY_MS:AT_ONCE, where the service refuses more uploads than that, "
        f"comma-separated [{','.join(LEVEL_CASES)}]",
    )
    parser.add_argument(
        "--fixed",
        type=lambda text: [int(part) for part in text.split(",")],
        default=[8, 16, 32, 64, 128, 192],
        help="levels to hold, comma-separated [8,16,32,64,128,192]",
    )
    parser.add_argument("--repeats", type=int, default=1, help="rounds [%(default)s]")
    parser.add_argument("--files", type=int, default=10_000, help="at least so many, by copies [%(default)s]")
    parser.add_argument("--seconds", type=float, default=20, help="limit of each run [%(default)s]")
    parser.add_argument("--json", type=Path, help="file to write everything to")
    _add_flags(parser)


def _readings(options: argparse.Namespace) -> None:
    for reading in measure_readings(options.cache, options.files):
        _say(reading.text())


def _readings_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--files", type=int, default=1_000_000, help="how many are known [%(default)s]")


def _array(options: argparse.Namespace) -> None:
    for carried in measure_arrays(
        options.cache,
        array_shape(options.files, options.datasets),
        tasks=options.tasks,
        kills=options.kills,
        seed=options.seed,
        latency_ms=options.latency,
        at_once=options.at_once,
    ):
        _say(carried)


def _array_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--files", type=int, default=200_000, help="how many are carried [%(default)s]")
    parser.add_argument(
        "--datasets", type=int, default=40, help="so many; one of them has half of all [%(default)s]"
    )
    parser.add_argument("--tasks", type=int, default=4, help="of the array [%(default)s]")
    parser.add_argument("--kills", type=int, default=20, help="of its tasks, meanwhile [%(default)s]")
    parser.add_argument("--seed", type=int, default=0, help="of the kills [%(default)s]")
    parser.add_argument("--latency", type=float, default=100, help="of the cloud, in ms [%(default)s]")
    parser.add_argument(
        "--at-once", type=int, default=40, help="uploads of a task at the same time [%(default)s]"
    )


def _handlers(options: argparse.Namespace) -> None:
    calls = [call for call in CALLS if call.where in options.where]
    found = measure_handlers(
        options.cache, calls, latencies=options.latencies, repeats=options.repeats, times=options.times
    )
    _say(handlers_text(found))


def _handlers_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--where",
        type=lambda text: text.split(","),
        default=["local", "cloud"],
        help="which handlers: local, cloud [local,cloud]",
    )
    parser.add_argument(
        "--latencies",
        type=lambda text: [float(part) for part in text.split(",")],
        default=[0.0, 50.0],
        help="of the cloud, in ms, comma-separated [0,50]",
    )
    parser.add_argument("--repeats", type=int, default=3, help="rounds [%(default)s]")
    parser.add_argument(
        "--times", type=int, default=3, help="calls of each process; the first is not counted [%(default)s]"
    )


def _add_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--flags", default="", help="further flags for pixaris-sync, as one argument: --flags='...'"
    )


def _say(text: str) -> None:
    print(text, flush=True)  # noqa: T201 - what was asked for


def _crossed(sets: list[str] | None, latencies: list[float] | None) -> list[Case]:
    if sets is None and latencies is None:
        return [_case(text) for text in DEFAULT_CASES]
    return [Case(what, latency) for what in sets or ["A"] for latency in latencies or [0.0]]


def _case(text: str) -> Case:
    what, _, latency = text.partition(":")
    return Case(_sets(what)[0], float(latency or 0))


def _level_case(text: str) -> LevelCase:
    what, latency, at_once = (*text.split(":"), "0", "0")[:3]
    return LevelCase(_sets(what)[0], float(latency), int(at_once))


def _sets(text: str) -> list[str]:
    names = text.split(",")
    if unknown := {name.removesuffix(AGAIN) for name in names} - set(SHAPES):
        raise argparse.ArgumentTypeError(
            f"no set {', '.join(sorted(unknown))}; there are {', '.join(SHAPES)}"
        )
    return names


def _file(text: str) -> Path:
    if not Path(text).is_file():
        raise argparse.ArgumentTypeError(f"no file {text}")
    return Path(text)


def _settings(text: str) -> list[str]:
    names = text.split(",")
    if unknown := set(names) - set(SETTINGS):
        known = ", ".join(SETTINGS)
        raise argparse.ArgumentTypeError(f"no setting {', '.join(sorted(unknown))}; there are {known}")
    return names


def _contenders(text: str) -> list[str]:
    names = list(CONTENDERS) if text == "all" else text.split(",")
    if unknown := set(names) - set(CONTENDERS):
        known = ", ".join(CONTENDERS)
        raise argparse.ArgumentTypeError(f"no contender {', '.join(sorted(unknown))}; there are {known}")
    return names
