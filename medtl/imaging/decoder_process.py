"""Child process that decodes one file after another for its parent.

Protocol: the parent writes the length of a message, such as a file, and a number, 8 bytes each
(little endian), then the message; the child writes the length of its answer, 8 bytes, then the
answer.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping

from medtl.imaging.pixels import UnreadableImage


class DecoderProcess:
    """Process of a decoder script; exits with this process, as its standard input closes.

    Args:
        arguments: path of the script, and its command line.
        failure: message of the error after a crash.
        environment: variables of the process; by default those of this one.
        process_group: group that the process joins, 0 for a new one, None for that of this one.
    """

    def __init__(
        self,
        arguments: list[str],
        failure: str,
        environment: Mapping[str, str] | None = None,
        process_group: int | None = None,
    ) -> None:
        self._failure = failure
        # -P: modules beside the script are not the ones that it imports
        self._process = subprocess.Popen(
            [sys.executable, "-P", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
            process_group=process_group,
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._input, self._output = self._process.stdin, self._process.stdout

    def end(self) -> None:
        """Kills the process and closes its pipes."""
        self._process.kill()
        self._process.communicate()

    def _send(self, data: bytes, number: int) -> None:
        """Writes a file and its number.

        Raises:
            UnreadableImage: the process crashed.
        """
        numbers = len(data).to_bytes(8, "little") + number.to_bytes(8, "little")
        try:
            self._input.write(numbers + data)
            self._input.flush()
        except OSError:
            raise UnreadableImage(self._failure) from None

    def _receive(self) -> bytes:
        """Reads an answer.

        Raises:
            UnreadableImage: the process crashed.
        """
        return self._read(int.from_bytes(self._read(8), "little"))

    def _read(self, length: int) -> bytes:
        data = self._output.read(length)
        if len(data) < length:
            raise UnreadableImage(self._failure)
        return data
