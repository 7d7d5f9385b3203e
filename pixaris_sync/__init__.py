"""pixaris-sync: carries Pixaris runs from ``local_results/`` to Google Cloud Storage and BigQuery.

Each folder is a room::

    pixaris_sync/
      cli/        the command line: arguments, wiring, exit codes
      process/    what surrounds the engine: signals, systemd, ownership, limits that can be changed, priority
      pipeline/   the engine: scan, upload, deliver, read back
      verify/     folder, ledger and cloud compared
      local/      the results folder: listed, read on, watched; never changed
      ledger/     what is known of every run, file and row
      gcs/        the bucket
      bigquery/   the tables
      limits/     how much at once, how fast, when again
      rules/      decisions as functions of values
      sandbox/    emulators and the demonstration; stands apart

The modules beside them are what every room speaks: values, errors, ports, settings, time. ``README.md`` in
this folder is the map: it follows one run through the rooms.

Public are the command line, its JSON and its exit codes, and the settings. Everything that can be imported is
internal, and may change with any version.
"""

__version__ = "0.1.0"

#: What this program calls itself in its requests (RFC 9110, 10.1.5).
USER_AGENT = f"pixaris-sync/{__version__}"
