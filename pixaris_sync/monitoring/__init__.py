"""What shows how it is: to people in a terminal or a browser, to machines as metrics and health.

Everything that is shown comes from one reading of the ledger, so that no two places disagree. It is
read in a thread, over a connection of its own, and only when somebody looks: whoever works with the ledger is
not held up. Nothing here changes anything, and nothing here asks a service.

* `view` is that reading, and `grouping` puts problems of one cause together.
* `page` is the whole page, `sections` its larger parts, and `markup` makes HTML of both in which every text
  stays a text. Style and script of the page are the files in ``web``.
* `server` serves it beside the engine, `guards` say to whom, and `thumbnails` keeps the small pictures.
* `measured` counts requests behind the ports. `metrics` puts these and a view into Prometheus' words, and
  `textfile` into a file. `heartbeat` asks an address for as long as all is well.
"""
