"""Script of a process that decodes images of a data set; see `decoding`.

Reads from standard input the length of a message and a number that has no meaning, 8 bytes each
(little endian), then the message: a file with its frame, and a rendering, pickled. Writes to
standard output the length of the answer, 8 bytes, then the decoded image or an error, pickled. The
argument is the folder of the package.
"""

from __future__ import annotations

import os
import pickle
import sys
import warnings


def serve() -> None:
    """Decodes images until standard input closes."""
    sys.path.insert(0, sys.argv[1])
    from medtl.data.decoded_image import decode_image

    warnings.simplefilter("ignore")
    # output of native code must not mix with an answer
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    asked = sys.stdin.buffer
    while len(numbers := asked.read(16)) == 16:
        message = asked.read(int.from_bytes(numbers[:8], "little"))
        answer: object
        try:
            answer = decode_image(*pickle.loads(message))
        except Exception as error:
            answer = error
        found = pickle.dumps(answer, protocol=5)
        answers.write(len(found).to_bytes(8, "little") + found)
        answers.flush()


if __name__ == "__main__":
    serve()
