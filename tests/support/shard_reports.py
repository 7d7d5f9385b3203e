"""What shards leave in a state folder, made up."""

from pathlib import Path
from typing import Any

from pixaris_sync.process.shard_report import SUFFIX, ShardReport
from pixaris_sync.rules.shards import Shard

#: A machine that no test runs on.
ELSEWHERE = "node-17.cluster.example"
DESTINATION = ("bucket", "project", "dataset", "", "")


def report_of(shard: str, now: float, **others: Any) -> ShardReport:
    """A shard on another machine that began an hour before `now`, and told of itself five seconds before."""
    values: dict[str, Any] = {
        "selection": "",
        "folder": "/data/local_results",
        "destination": DESTINATION,
        "host": ELSEWHERE,
        "pid": 7,
        "begun_at": now - 3600,
        "told_at": now - 5,
        "runs_found": 10,
        "runs_done": 4,
        "runs_waiting": 6,
        "files_there": 40,
        "files_waiting": 60,
        "bytes_waiting": 6 * 1024 * 1024,
        "files_sent": 40,
        "bytes_sent": 4 * 1024 * 1024,
    }
    if "exit_code" in others:
        values["ended_at"] = now - 5
    return ShardReport(shard=Shard.parse(shard), **{**values, **others})


def done(shard: str, now: float, **others: Any) -> ShardReport:
    """The same once it has ended with nothing left."""
    whole = {"runs_done": 10, "runs_waiting": 0, "files_there": 100, "files_waiting": 0, "bytes_waiting": 0}
    return report_of(shard, now, **{**whole, "exit_code": 0, **others})


def leave(report: ShardReport, state_folder: Path, name: str = "results") -> Path:
    """Leave it there, as the shard would."""
    state_folder.mkdir(parents=True, exist_ok=True)
    number, count, begun = report.shard.number, report.shard.count, int(report.begun_at)
    path = state_folder / f"{name}-{number}-of-{count}-{begun}{SUFFIX}"
    path.write_bytes(report.as_json())
    return path
