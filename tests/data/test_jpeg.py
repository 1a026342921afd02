"""Damage within a JPEG is found; other encoders' files and bytes after the image are harmless."""

import io

import numpy as np
import pytest
from PIL import Image

from competition.data.jpeg import DAMAGED, TRUNCATED, find_damage

GENERATOR = np.random.default_rng(0)
PICTURES = {
    "photo": np.add.outer(np.arange(256), np.arange(256))[..., None] / 3 + GENERATOR.uniform(0, 80, (256, 256, 3)),
    "black": np.zeros((256, 256, 3)),
    "white": np.full((256, 256, 3), 255),
    "half black": np.concatenate([np.zeros((200, 256, 3)), GENERATOR.uniform(0, 255, (56, 256, 3))]),
}  # fmt: skip
ENCODERS = {
    "standard": {}, "small tables": {"optimize": True}, "progressive": {"progressive": True},
    "restarts": {"restart_marker_blocks": 4}, "full colour": {"subsampling": 0}, "coarse": {"quality": 10},
    "fine": {"quality": 98}, "exif": {"exif": b"Exif\0\0MM\0*\0\0\0\x08\0\0\xff\xd9"},
    "comment": {"comment": b"\xff\xda" * 9},
}  # fmt: skip


def encode(picture: str, encoder: str) -> bytes:
    out = io.BytesIO()
    Image.fromarray(PICTURES[picture].astype(np.uint8)).save(out, "JPEG", **ENCODERS[encoder])
    return out.getvalue()


@pytest.mark.parametrize("encoder", ENCODERS)
@pytest.mark.parametrize("picture", PICTURES)
def test_undamaged_files_pass(picture: str, encoder: str):
    content = encode(picture, encoder)
    for end in (b"", bytes(5), bytes(5000), b"trailer" * 90, b"\xff\xd8\xff\xe0", b"\xff" * 70):
        assert find_damage(content + end) is None
    assert find_damage(content[:-2] + b"\xff\xff\xff\xd9") is None  # fill bytes


@pytest.mark.parametrize("encoder", [name for name in ENCODERS if name != "coarse"])
@pytest.mark.parametrize("fill", [b"\0", b"\xff", b"\xaa", b"\xff\xe3", b"\xff\x01"])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_a_hole_is_found(encoder: str, fill: bytes, share: float):
    content = encode("photo", encoder)
    data = content.rindex(b"\xff\xda") + 14
    start, size = data + int(share * (len(content) - data - 800)), 700
    hole = content[:start] + (fill * size)[:size] + content[start + size :]
    assert find_damage(hole) is not None
    assert find_damage(content[:start] + (fill * 64)[:64] + content[start + 64 :]) or fill == b"\xaa"


def test_missing_ends_are_found():
    content = encode("photo", "standard")
    assert find_damage(content[:-2]) == find_damage(b"\xff\xd8") == TRUNCATED
    assert find_damage(content[:5000]) == TRUNCATED
    assert find_damage(content[:5000] + b"\xff\xe0\0\4\0\0" + content[5000:-2]) == TRUNCATED
    assert find_damage(content[:5000] + b"\xff\xc0\0\4\0\0" + content[5000:]) == DAMAGED
