"""Compares the local folder, the ledger and the cloud, and changes nothing.

* `findings` is what a comparison says.
* `expected` reads the folder anew, whatever the ledger believes, and says what the cloud should hold.
* `objects` and `rows` compare that with listings of the bucket, and with tables read into frames.
* `comparison` goes through all datasets and adds what the ledger says.

Limits: one dataset's expected objects and records, one page of a listing and one table's frame are held at a
time, and some files are read at once, in pieces. No request is made for a single object or row.

What another process carries in the meantime may show as missing.
"""

from pixaris_sync.verify.comparison import verify
from pixaris_sync.verify.findings import Finding, Kind, Sign

__all__ = ["Finding", "Kind", "Sign", "verify"]
