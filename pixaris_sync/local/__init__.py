"""The results folder on this machine: listed, tailed, watched, read; never changed."""
