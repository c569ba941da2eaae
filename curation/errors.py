"""Errors whose text is the one line that the user sees, and how text of unknown origin is shown in one."""


class ConfigError(ValueError):
    """Wrong use: exit code 2."""


class Stopped(RuntimeError):
    """The run cannot go on: exit code 1. What was measured is kept."""


def shown(text: str) -> str:
    """The text with control characters escaped: a terminal shows what a file's name holds, and does not obey it."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
