"""Decisions as functions of values: no disk, no network, no clock."""
