"""The walk over a header, independent of what was walked before; a mosaic's private header as nibabel reads it."""

import math
import struct
import warnings

import numpy as np
import pytest
from test_mutated_files import LIMITS, mutated
from written_dicom import Series, random_voxels, save

from medssl.archive.dicom import mosaic
from medssl.archive.dicom.dataset import read_dataset
from medssl.archive.dicom.elements import Walker, _header_cache
from medssl.archive.dicom.header import record_of
from medssl.archive.rejection import Rejected


def scanned(data: bytes) -> object:
    try:
        return record_of(read_dataset(lambda count: data[:count], data[:512], len(data), LIMITS), len(data))
    except Rejected as rejected:
        return rejected.reason, rejected.detail


def header(tmp_path, **changes) -> bytes:
    ds = Series(random_voxels((20, 16, 1))).dataset(0)
    for name, value in changes.items():
        setattr(ds, name, value)
    save(ds, tmp_path / "x")
    return (tmp_path / "x").read_bytes()


def test_header_cache_does_not_change_records(tmp_path):
    draw = np.random.default_rng(5)
    sound = header(tmp_path)
    files = [sound, *(mutated(sound, draw) for _ in range(300))]
    _header_cache.cache_clear()
    forwards = [scanned(data) for data in files]
    _header_cache.cache_clear()
    backwards = [scanned(data) for data in reversed(files)][::-1]
    alone = []
    for data in files:
        _header_cache.cache_clear()
        alone.append(scanned(data))
    assert forwards == alone
    assert backwards == alone
    assert len({str(one) for one in alone}) > 20


@pytest.mark.parametrize("little", [True, False])
@pytest.mark.parametrize("explicit", [True, False])
def test_walker_keeps_selected_values_in_every_syntax(explicit, little):
    """Written by hand from PS3.5 7.1: short form, and long form with more than 64 KB."""
    sign = "<" if little else ">"

    def element(tag: int, vr: bytes, value: bytes) -> bytes:
        head = struct.pack(sign + "HH", tag >> 16, tag & 0xFFFF)
        if not explicit:
            return head + struct.pack(sign + "I", len(value)) + value
        if vr in (b"OB", b"UN", b"UT"):
            return head + vr + b"\0\0" + struct.pack(sign + "I", len(value)) + value
        return head + vr + struct.pack(sign + "H", len(value)) + value

    rows = [(0x00080005, b"CS", b"ab"), (0x00090010, b"LO", b"xy" * 8), (0x00091001, b"OB", b"z" * 70_000)]
    rows += [(0x00100020, b"LO", b"P1"), (0x00110012, b"UN", b"q" * 6), (0x00180050, b"DS", b"2.50")]
    rows += [(0x00200032, b"UT", b"long"), (0x00300001, b"LO", b"behind")]
    data = b"".join(element(*row) for row in rows)
    selected = frozenset({0x00100020, 0x00180050, 0x00200032})
    for _ in range(2):  # the second walk meets heads that the first has left behind
        walker = Walker(data, 0, explicit=explicit, little=little, value_tags=selected)
        walker.walk(0x0028FFFF, complete=True)
        assert walker.elements == {0x00100020: b"P1", 0x00180050: b"2.50", 0x00200032: b"long"}
        assert data[walker.position :] == element(*rows[-1])


def csa_header(*, newer: bool) -> bytes:
    """A private header as Siemens writes it; before VB lengths count from the number of items of the second element."""
    n_items = 6

    def element(name: bytes, n_values: int, vr: bytes, texts: list[bytes]) -> bytes:
        out = struct.pack("<64si4s3i", name, n_values, vr, 0, len(texts), 77)
        for text in texts:
            length = len(text)
            out += struct.pack("<4i", length if newer else length + n_items, length, 77, length)
            out += text + b"\0" * (-length % 4)
        return out

    def padded(*texts: bytes) -> list[bytes]:
        return [*texts, *[b""] * (n_items - len(texts))]

    elements = [
        element(b"EchoLinePosition", 1, b"IS", []),
        element(b"B_value", 1, b"IS", padded(b"1000 \0\0\0")),
        element(b"NumberOfImagesInMosaic", 1, b"US", padded(b"32  \0")),
        element(b"SliceNormalVector", 3, b"FD", padded(b"0.1\0", b"-0.2", b"0.97 ")),
    ]
    return (b"SV10\4\3\2\1" if newer else b"") + struct.pack("<2I", len(elements), 77) + b"".join(elements)


@pytest.mark.parametrize("newer", [True, False])
def test_csa_header_equals_nibabel(newer):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it calls itself experimental on import
        from nibabel.nicom import csareader
    raw = csa_header(newer=newer)
    elements = csareader.read(raw)["tags"]
    expected = {name: [float(item) for item in elements[name]["items"]] for name in mosaic._CSA_ELEMENTS}
    assert mosaic._csa(raw) == expected
    assert expected["SliceNormalVector"] == [0.1, -0.2, 0.97]


@pytest.mark.parametrize("newer", [True, False])
def test_damaged_csa_header_gives_finite_numbers_or_none(newer):
    raw, draw = csa_header(newer=newer), np.random.default_rng(3)
    for _ in range(2000):
        found = mosaic._csa(mutated(raw, draw))
        assert all(math.isfinite(number) for numbers in found.values() for number in numbers)
