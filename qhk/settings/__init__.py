"""Typed settings of a run: every key with its type and range, no default values (YAML holds those)."""
