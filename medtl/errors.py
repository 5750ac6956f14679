"""The two ways in which medtl says no: the work failed, or a parameter is wrong."""

from __future__ import annotations


class MedtlError(Exception):
    """The work cannot be done; the message is one line: what, where, what to do (exit status 1)."""


class ParameterError(MedtlError):
    """A parameter has a value that is not allowed (exit status 2).

    `name` is the parameter as the user typed it, `allowed` says what may stand there instead.
    """

    def __init__(self, name: str, value: object, allowed: str) -> None:
        super().__init__(f"{name}={value!s} is not allowed: {allowed}")
        self.name = name
        self.value = value
        self.allowed = allowed
