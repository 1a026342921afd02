"""Find damage inside of JPEG files, which decoders skip with no more than a warning on stderr."""

import io
import re
import warnings
from collections.abc import Iterator
from typing import Final, NamedTuple

import numpy as np
from PIL import JpegImagePlugin

TRUNCATED: Final = "truncated (no end-of-image marker)"
DAMAGED: Final = "damaged, a part of the image data is missing or overwritten"
RUN = 32  # equal bytes in a row: either a flat area, or a hole
AHEAD = 8  # bytes that a decoder reads ahead
LEFT = 4  # bytes that it may leave unread

_END, _SCAN, _PROGRESSIVE, _TABLES, _RESTARTS = 0xD9, 0xDA, 0xC2, 0xC4, 0xDD
_BETWEEN = {_TABLES, *range(_END, 0xF0), 0xFE}  # what may follow image data: tables, the end, scans, comments
_MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")  # other than stuffed bytes, fill bytes and restart markers
_RESTART = re.compile(rb"\xff[\xd0-\xd7]")


class _Segment(NamedTuple):
    marker: int
    start: int  # of what follows the marker
    stop: int  # of the segment
    end: int  # of the image data after it


def find_damage(content: bytes) -> str | None:
    """Return what is wrong with the structure of a JPEG file whose header is valid, or None.

    Bytes after the end of the image are harmless.
    """
    segments = list(_segments(content))
    scans = [segment for segment in segments if segment.marker == _SCAN]
    first = segments.index(scans[0]) if scans else len(segments)
    markers = [segment.marker for segment in segments]
    progressive, restarts = _PROGRESSIVE in markers[:first], _RESTARTS in markers
    if not _BETWEEN.issuperset(markers[first:]):
        return DAMAGED
    if not segments or segments[-1].marker != _END:
        return TRUNCATED
    for scan in scans:
        image = content[scan.stop : scan.end]
        if restarts and not _restarts_in_order(image):
            return DAMAGED
        if _has_run(image):
            # scans of AC coefficients have no valid code for a run, and most tables have none for a run of zeros
            later = progressive and content[scan.stop - 3] > 0
            zeros = bytes(RUN) in image and not _zeros_are_flat(content, segments[:first])
            alone = len(scans) == 1 and not progressive
            if later or (alone and (zeros or not _is_complete(content[: scan.end]))):
                return DAMAGED
    return None


def _zeros_are_flat(content: bytes, segments: list[_Segment]) -> bool:
    """Return whether all Huffman tables of coefficients have the end of a block as the code of zeros."""
    for segment in segments:
        position = segment.start + 2
        while segment.marker == _TABLES and position + 17 < segment.stop:
            if content[position] >= 0x10 and content[position + 17] != 0:
                return False
            position += 17 + sum(content[position + 1 : position + 17])
    return True


def _segments(content: bytes) -> Iterator[_Segment]:
    """Yield the segments from the start of an image to its end marker, or to the end of the file."""
    match = _MARKER.search(content, 2)
    while match is not None:
        marker, start = content[match.end() - 1], match.end()
        if marker == _END:
            yield _Segment(marker, start, start, start)
            return
        stop = start + int.from_bytes(content[start : start + 2])
        match = _MARKER.search(content, stop)
        yield _Segment(marker, start, stop, len(content) if match is None else match.start())


def _restarts_in_order(image: bytes) -> bool:
    """Return whether restart markers are numbered 0 to 7 in turn."""
    numbers = [restart[1] - 0xD0 for restart in _RESTART.findall(image)]
    return numbers == [index % 8 for index in range(len(numbers))]


def _has_run(image: bytes) -> bool:
    values = np.frombuffer(image, np.uint8)
    return b"\1" * (RUN - 1) in (values[1:] == values[:-1]).tobytes()


def _is_complete(content: bytes) -> bool:
    """Return whether the image data, without the end marker, are those of all pixels, neither fewer nor more."""
    return _decodes(content + bytes(AHEAD)) and not _decodes(content[:-LEFT])


def _decodes(content: bytes) -> bool:
    try:
        with warnings.catch_warnings(action="ignore"), JpegImagePlugin.JpegImageFile(io.BytesIO(content)) as image:
            image.load()
    except OSError:
        return False
    return True
