"""What surrounds the engine in a process: signals, systemd, ownership, limits that can be changed."""
