"""Pixaris' own UI over what was synced. Needs the ``ui`` extra.

* `feedback_table` is the table that the UI does not start without.
* `serving` builds the UI of Pixaris and serves it at a port of one's choice.
"""
