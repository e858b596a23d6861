"""UIDs of transfer syntaxes and SOP classes, and how each is read. PS3.5 section 10 and annex A, PS3.4 annex B."""

from typing import Literal

Codec = Literal["native", "deflated", "rle", "jpeg", "jpegls", "jpeg2000", "htj2k"]

IMPLICIT_VR_LITTLE_ENDIAN = "1.2.840.10008.1.2"
EXPLICIT_VR_LITTLE_ENDIAN = "1.2.840.10008.1.2.1"
DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN = "1.2.840.10008.1.2.1.99"
EXPLICIT_VR_BIG_ENDIAN = "1.2.840.10008.1.2.2"
# Private to GE: pixels in big endian, the header in implicit little endian.
GE_PRIVATE_IMPLICIT_VR_BIG_ENDIAN = "1.2.840.113619.5.2"

CODECS: dict[str, Codec] = {
    IMPLICIT_VR_LITTLE_ENDIAN: "native",
    EXPLICIT_VR_LITTLE_ENDIAN: "native",
    EXPLICIT_VR_BIG_ENDIAN: "native",
    DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN: "deflated",
    GE_PRIVATE_IMPLICIT_VR_BIG_ENDIAN: "native",
    "1.2.840.10008.1.2.5": "rle",
    "1.2.840.10008.1.2.4.50": "jpeg",
    "1.2.840.10008.1.2.4.51": "jpeg",
    "1.2.840.10008.1.2.4.57": "jpeg",
    "1.2.840.10008.1.2.4.70": "jpeg",
    "1.2.840.10008.1.2.4.80": "jpegls",
    "1.2.840.10008.1.2.4.81": "jpegls",
    "1.2.840.10008.1.2.4.90": "jpeg2000",
    "1.2.840.10008.1.2.4.91": "jpeg2000",
    "1.2.840.10008.1.2.4.201": "htj2k",
    "1.2.840.10008.1.2.4.202": "htj2k",
    "1.2.840.10008.1.2.4.203": "htj2k",
}
# 203 is HTJ2K, lossy or lossless: only its header (0028,2110) says which.
LOSSY = frozenset(f"1.2.840.10008.1.2.4.{number}" for number in (50, 51, 81, 91))

_STORAGE = "1.2.840.10008.5.1.4.1.1."
CT, MR, PET = _STORAGE + "2", _STORAGE + "4", _STORAGE + "128"
CLASSIC = frozenset({CT, MR, PET})
ENHANCED = frozenset(_STORAGE + tail for tail in ("2.1", "2.2", "4.1", "4.4", "130", "128.1"))
SEGMENTATION, LABEL_MAP, RT_STRUCTURE = _STORAGE + "66.4", _STORAGE + "66.7", _STORAGE + "481.3"
LABELS = frozenset({SEGMENTATION, LABEL_MAP, RT_STRUCTURE})
SECONDARY_CAPTURE = frozenset(_STORAGE + tail for tail in ("7", "7.1", "7.2", "7.3", "7.4"))
PARAMETRIC_MAP = frozenset({_STORAGE + "30"})
COLOR_MR = _STORAGE + "4.3"
DICOMDIR = "1.2.840.10008.1.3.10"
# Image classes without a geometry from which a volume could be proven.
NO_VOLUME = frozenset(
    _STORAGE + tail
    for tail in (
        "1", "1.1", "1.1.1", "1.2", "1.2.1", "1.3", "1.3.1", "6.1", "6.2", "3.1", "12.1", "12.1.1", "12.2", "12.2.1",
        "13.1.1",
        "13.1.2", "13.1.3", "20", "77.1.1", "77.1.2", "77.1.4", "77.1.5.1", "77.1.5.4", "77.1.6",
    )
)  # fmt: skip


def modality_of_sop_class(sop_class: str) -> str:
    """CT, MR or PT, for classic and enhanced classes alike; 'other' for any other class."""
    tail = sop_class.removeprefix(_STORAGE)
    return {"2": "CT", "4": "MR", "1": "PT"}.get(tail[:1], "other")
