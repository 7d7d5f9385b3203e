"""The object store on Google Cloud Storage.

* `store` is the port that the engine sees: look up, list, upload, download.
* `calls` makes the requests, one method each, over a `connection` with `tokens` that are renewed in time; a
  request of which nothing moves is ended by `standstill`.
* `bodies` sends the content of small files in one request, `resumable` that of large ones in pieces;
  `bodies` checks what is downloaded.
* `inspection` asks how the bucket is set up, for whom that is to be told.
* `answers` turns what comes back, or nothing at all, into objects and errors.
"""
