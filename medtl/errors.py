"""The two ways in which medtl says no: the work failed, or a parameter is wrong."""

from __future__ import annotations

from medtl.masking import masked, masked_value

LONGEST = 1000  # characters of a line


class MedtlError(Exception):
    """The work cannot be done; the message is one line: what, where, what to do (exit status 1).

    No password that stands in a URL is in the message. It may cite what files hold: what cannot be
    printed is shown as a space, and the middle of a very long line is left out.
    """

    def __init__(self, message: str) -> None:
        line = masked(_shortened(message, 10 * LONGEST))
        line = "".join(each if each.isprintable() else " " for each in line)
        super().__init__(_shortened(line, LONGEST))


class ParameterError(MedtlError):
    """A parameter has a value that is not allowed (exit status 2).

    `name` is the parameter as the user typed it, `allowed` says what may stand there instead.
    """

    def __init__(self, name: str, value: object, allowed: str) -> None:
        super().__init__(f"{name}={masked_value(str(value))} is not allowed: {allowed}")
        self.name = name
        self.value = value
        self.allowed = allowed


def _shortened(line: str, longest: int) -> str:
    half = longest // 2
    return line if len(line) <= longest else f"{line[:half]} ... {line[-half:]}"
