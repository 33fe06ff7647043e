"""Faults, with real processes; a package, so that its cluster ends with its last test."""
