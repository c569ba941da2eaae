"""Errors whose text is the one line that the user sees."""


class ConfigError(ValueError):
    """Wrong use: exit code 2."""


class Stopped(RuntimeError):
    """The run cannot go on: exit code 1. What was measured is kept."""
