"""The command line of the benchmark; see `tests.benchmarks.command_line`."""

import sys

from tests.benchmarks.command_line import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
