"""What can be set.

* `model` is one frozen object: each value, its unit, its bounds.
* `sources` merges flags, environment, config file and defaults into it, and explains what is wrong with them.
"""
