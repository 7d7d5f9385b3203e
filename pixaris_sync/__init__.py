"""pixaris-sync: carries Pixaris runs from ``local_results/`` to Google Cloud Storage and BigQuery.

Each folder is a room::

    pixaris_sync/
      cli/        the command line: arguments, wiring, exit codes
      doctor/     what is set up wrong, and what to do: before the first run and whenever something is odd
      handlers/   the Python API that Pixaris documents: store and load runs
      process/    what surrounds the engine: signals, systemd, ownership, limits that can be changed, priority
      monitoring/ what shows how it is: live view, page, metrics, health
      ui/         Pixaris' own UI over what was synced
      history/    old runs: their files leave this disk once they are proven in the cloud, and come back
      plans/      plans of a backfill: written, looked at, and done exactly or refused
      pipeline/   the engine: scan, upload, deliver, read back
      verify/     folder, ledger and cloud compared
      local/      the results folder: listed, read on, watched; changed by `removal` and `storing` alone
      ledger/     what is known of every run, file and row
      gcs/        the bucket
      bigquery/   the tables
      login/      who one is: tokens for both, certificates, proxies
      settings/   everything that can be set, and where each value comes from
      limits/     how much at once, how fast, when again
      rules/      decisions as functions of values
      sandbox/    emulators and the demonstration; stands apart

The modules beside them are what every room speaks: values, errors, ports, time. ``README.md`` in
this folder is the map: it follows one run through the rooms.

Public are the command line, its JSON and its exit codes, the settings, and for import `handlers`, which this
package offers too, and the errors that they raise. Everything else that can be imported is internal, and may
change with any version.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pixaris_sync.handlers import ExperimentHandler, GCPExperimentHandler, LocalExperimentHandler

__all__ = ["USER_AGENT", "ExperimentHandler", "GCPExperimentHandler", "LocalExperimentHandler", "__version__"]

__version__ = "0.1.0"

#: What this program calls itself in its requests (RFC 9110, 10.1.5).
USER_AGENT = f"pixaris-sync/{__version__}"


def __getattr__(name: str) -> Any:  # noqa: ANN401 - whatever is asked for
    """Import the handlers when they are asked for: the command does without."""
    if name in ("ExperimentHandler", "GCPExperimentHandler", "LocalExperimentHandler"):
        from pixaris_sync import handlers  # noqa: PLC0415 - see above

        return getattr(handlers, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
