"""Detects truncated JPEG 2000 files, which GDAL reads without an error."""

import os
from pathlib import Path
from typing import Final

_CODESTREAM: Final = b"\xff\x4f\xff\x51"
_END: Final = b"\xff\xd9"


def is_whole(path: Path) -> bool:
    """Whether a JPEG 2000 file has its end-of-codestream marker; the data before it is not checked."""
    size = path.stat().st_size
    with path.open("rb") as file:
        start, end = 0, size
        if file.read(4) != _CODESTREAM:  # boxes, one of which holds the codestream
            while start + 8 <= size:
                file.seek(start)
                length, kind = int.from_bytes(file.read(4)), file.read(4)
                length = int.from_bytes(file.read(8)) if length == 1 else length or size - start
                end = start + length
                if kind == b"jp2c" or length < 8:
                    break
                start = end
        if end > size:
            return False
        file.seek(max(end - len(_END), 0), os.SEEK_SET)
        return file.read(len(_END)) == _END
