"""Tells what is set up wrong before it costs a run: each check with its verdict and its remedy.

* `examination` is the whole, and the part of it that every first run begins with; it does all `side_by_side`.
* `checks` is what a check is. `judgements` makes checks of what was found out, and asks nobody.
* `configuration` looks at settings, `machine` at folders and at what the system allows, and `cloud` asks both
  services.
"""
