"""Decisions as pure functions: no await, no clock, no I/O; each is tested with a table of cases."""
