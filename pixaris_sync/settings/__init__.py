"""What can be set.

* `model` is one frozen object: each value, its unit, its bounds. `kinds` is what values may be and how they
  are written, `fields` reads what is given, and `bounds` tells in words what is taken.
* `names` is what a setting is called where it is given, and what may be meant by another name.
* `document` reads a YAML file with the lines of its keys, `config_file` finds the one to take and says what
  it sets, and `additions` adds to one without changing what is there.
* `messages` says what is wrong with settings, and what to do.
* `sources` merges flags, environment, config file and defaults.
"""
