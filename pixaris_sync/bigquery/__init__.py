"""The row sink on BigQuery.

* `sink` is the port that the engine sees: asynchronous, bounded, with a time limit for every call.
* `calls` makes the requests, one blocking method each; `errors` translates what Google's client raises.
* `glance` asks what a first run must know before it sends a file, without that client.
* `inspection` asks how the dataset is set up, for whom that is to be told, by the requests in `trials`.
* `connection` sees to it that no request goes on after its sender has given it up.
* `sql` and `wire` are pure: statements and names of types, rows as they travel and refusals as they return.
"""
