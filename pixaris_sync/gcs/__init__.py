"""The object store on Google Cloud Storage.

* `store` is the port that the engine sees: look up, list, upload.
* `connection` makes the requests, with access tokens that are renewed in time.
* `bodies` sends the content of small files in one request, `resumable` that of large ones in pieces.
* `answers` turns what comes back, or nothing at all, into objects and errors.
* `deadlines` sees to the time limits of all requests.
"""
