"""``python -m pixaris_sync``."""

from pixaris_sync.cli import main

if __name__ == "__main__":
    main()
