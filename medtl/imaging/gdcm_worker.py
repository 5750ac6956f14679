"""Script of a child process that decodes frames with GDCM; see `gdcm_client`.

Reads from standard input the length of a DICOM file and the index of a frame, 8 bytes each, then
the file. Writes to standard output the length of the answer, 8 bytes, then the answer: a numpy
file, or nothing if the frame cannot be decoded. It imports no module of this package, which may not
be on the path of the process.
"""

import io
import os
import sys
import warnings

import numpy as np
import pydicom
from pydicom.pixels import get_decoder


def answer(data: bytes, place: int) -> bytes:
    """Returns the pixels of a frame of a DICOM file as a numpy file; empty where there are none."""
    file = io.BytesIO()
    try:
        header = pydicom.dcmread(io.BytesIO(data), force=True)
        decoder = get_decoder(header.file_meta.TransferSyntaxUID)
        pixels, _ = decoder.as_array(
            header,
            index=place,
            decoding_plugin="gdcm",
            correct_unused_bits=False,  # type: ignore[arg-type]  # pydicom's type of its options
        )
        np.save(file, pixels, allow_pickle=False)
    except Exception:  # decoders answer malformed bytes with almost any exception
        return b""
    return file.getvalue()


def serve() -> None:
    """Answers until standard input is closed."""
    warnings.simplefilter("ignore")
    # output of native code must not mix with an answer
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    asked = sys.stdin.buffer
    while len(numbers := asked.read(16)) == 16:
        length, place = (int.from_bytes(numbers[at : at + 8], "little") for at in (0, 8))
        found = answer(asked.read(length), place)
        answers.write(len(found).to_bytes(8, "little") + found)
        answers.flush()


if __name__ == "__main__":
    serve()
