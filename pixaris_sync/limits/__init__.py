"""How much at once, how fast, and when again. Time is passed in.

* `gates` bounds what happens at once: bytes in memory, and pauses of a destination in trouble.
* `concurrency` finds how many uploads at once pay.
* `bandwidth` and `cpu` hold to rates: bytes and objects a second, updates of a table, time of the processor.
* `fleet` says which part of these a machine has where many share a bucket and its tables.
* `timetable` says which rate holds at which time of the day.
* `backoff` says when to try again.
"""
