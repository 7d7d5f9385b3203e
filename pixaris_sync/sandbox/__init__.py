"""Local stand-ins for Google Cloud Storage and BigQuery, and a demonstration of the whole journey on them.

* `emulators` starts both as `child` processes with a bucket and a dataset.
* `data_folder` lets one sandbox at a time use a folder, and remembers its ports there.
* `storage` is the one; with a data folder, `kept_storage` keeps its objects.
* `bigquery` is the other: `bigquery_front` takes requests, `bigquery_writes` and `bigquery_rows` take rows,
  and `bigquery_repairs` mends what the emulator does differently from the service.
* `demo` takes real Pixaris through both, with `watch_process` in between, `pictures` to carry and
  `demo_report` to show.

Only this package knows emulators. What they do differently from the real services is mended here, so that
the product speaks to them as it speaks to Google. Needs the ``sandbox`` extra.
"""
