"""The terms for structures that may leave the archive, and how archives spell them.

The name of a segment or region is free text and may name a patient, so only a term of this list replaces it, or one
that the user has chosen. Spellings follow TG-263, TotalSegmentator, Slicer and common contouring software; codes are
SNOMED CT ('SCT') and the older SNOMED RT ('SRT'), as in PS3.16 annex O and pydicom's dictionary.
"""

import re
from collections.abc import Sequence
from functools import lru_cache

# term: spellings in lower case without blanks and punctuation; SNOMED CT code; SNOMED RT code
_SINGLE = """
aorta: aorta aaorta; 15825003; T-42000
bladder: bladder urinarybladder; 89837001; T-74000
bowel: bowel bowelbag bowelspace; ;
brain: brain; 12738006; T-A0100
brainstem: brainstem; 119238007; T-D0558
cerebellum: cerebellum; 113305005; T-A6000
colon: colon bowellarge largebowel; 71854001; T-59300
duodenum: duodenum; 38848004; T-58200
gallbladder: gallbladder; 28231008; T-63000
heart: heart; 80891009; T-32000
inferior-vena-cava: inferiorvenacava ivc postcava vvenacavai; 64131007; T-48710
larynx: larynx; 4596009; T-24100
left-atrium: leftatrium heartatriumleft atriuml; 82471001; T-32300
left-ventricle: leftventricle heartventricleleft ventriclel; 87878005; T-32600
lesion: lesion; 52988006; M-01100
liver: liver; 10200004; T-62000
lymph-node: lymphnode node; 59441001; T-C4000
mandible: mandible bonemandible; 91609006; T-11180
necrosis: necrosis; 6574001; M-54000
nodule: nodule lungnodule pulmonarynodule; 27925004; M-03010
oedema: edema oedema; 79654002; M-36300
oesophagus: esophagus oesophagus; 32849002; T-56000
optic-chiasm: opticchiasm chiasm; 244453006; T-A800B
pancreas: pancreas; 15776009; T-65000
portal-vein: portalvein portalveinandsplenicvein; 32764006; T-48810
prostate: prostate; 41216001; T-92000
pulmonary-artery: pulmonaryartery; 81040000; T-44000
rectum: rectum; 34402009; T-59600
right-atrium: rightatrium heartatriumright atriumr; 73829009; T-32200
right-ventricle: rightventricle heartventricleright ventricler; 53085002; T-32500
sacrum: sacrum; 54735007; T-11AD0
seminal-vesicles: seminalvesicle seminalvesicles seminalves; 64739004; T-93000
small-bowel: smallbowel smallintestine bowelsmall; 30315005; T-58000
spinal-cord: spinalcord cord; 2748008; T-A7010
spleen: spleen; 78961009; T-C3000
sternum: sternum; 56873002; T-11210
stomach: stomach; 69695003; T-57000
thyroid: thyroid thyroidgland glndthyroid; ;
trachea: trachea; 44567001; T-25000
tumour: tumor tumour gtv gtvp neoplasm mass cancer carcinoma; 108369006; M-8FFFF
uterus: uterus; 35039007; T-83000
"""
# Terms with or without a side.
_PAIRED = """
adrenal-gland: adrenal adrenalgland glndadrenal; 23451007; T-B3000
amygdala: amygdala; 4958002; T-A3230
breast: breast; 76752008; T-04000
caudate: caudate caudatenucleus; 11000004; T-A3200
clavicle: clavicle clavicula; 51299004; T-12310
cochlea: cochlea; ;
eye: eye eyeball; 81745001; T-AA000
femoral-head: femoralhead femurhead headoffemur femheadneck; 2812003; T-12711
femur: femur; 71341001; T-12710
hip: hip; 29836001; T-D2500
hippocampus: hippocampus hippocampi; 5366008; T-A2570
humerus: humerus; 85050009; T-12410
kidney: kidney kidneys; 64033007; T-71000
lens: lens; 78076003; T-AA700
lung: lung lungs; 39607008; T-28000
optic-nerve: opticnerve opticnrv; 18234004; T-A8040
ovary: ovary; 15497006; T-87000
parotid: parotid parotidgland glandparotid; 45289007; T-61100
putamen: putamen; 89278009; T-A3400
scapula: scapula; 79601000; T-12280
submandibular-gland: submandibular submandibulargland glndsubmand; 54019009; T-61300
thalamus: thalamus; 42695009; T-A4000
"""
_MORE_CODES = {"SCT:372087000": "tumour", "SCT:86049000": "tumour", "SCT:4147007": "tumour", "SRT:M-03000": "tumour"}
_SIDES = {"l": "left", "lt": "left", "left": "left", "r": "right", "rt": "right", "right": "right"}
_SIDE_CODES = {"SCT:7771000": "left", "SRT:G-A101": "left", "SCT:24028007": "right", "SRT:G-A100": "right"}
# A number only counts these. A numbered organ is another structure (a vertebra, a segment of the liver).
_COUNTED = frozenset({"lesion", "lymph-node", "nodule", "tumour"})


def _tables(text: str) -> tuple[dict[str, str], dict[str, str]]:
    """(spelling to term, code to term)."""
    names, codes = {}, {}
    for line in filter(None, text.split("\n")):
        term, columns = line.split(":", 1)
        spellings, sct, srt = (column.strip() for column in columns.split(";"))
        names.update(dict.fromkeys(spellings.split(), term))
        codes.update({f"{scheme}:{value}": term for scheme, value in (("SCT", sct), ("SRT", srt)) if value})
    return names, codes


_SINGLE_NAMES, _SINGLE_CODES = _tables(_SINGLE)
_PAIRED_NAMES, _PAIRED_CODES = _tables(_PAIRED)


@lru_cache(maxsize=4096)
def term_of_name(name: str) -> str | None:
    """The term for a structure's name, with its side ('lung-left') if it names one; None for unlisted text."""
    spaced = re.sub(r"([a-z])([A-Z])", r"\1 \2", name)
    parts = re.findall(r"[a-z]+|[0-9]+", spaced.lower())
    joined = "".join(parts)
    if joined in _SINGLE_NAMES:
        return _SINGLE_NAMES[joined]
    bare = "".join(part for part in parts if not part.isdigit())
    if _SINGLE_NAMES.get(bare) in _COUNTED:
        return _SINGLE_NAMES[bare]
    sides = {_SIDES[part] for part in parts if part in _SIDES}
    term = _PAIRED_NAMES.get("".join(part for part in parts if part not in _SIDES))
    if term is None or len(sides) > 1:
        return None
    return "-".join((term, *sides))


def term_of_codes(codes: Sequence[str]) -> str | None:
    """The term for a segment's codes (property type, then modifiers such as a side); None if they are not listed."""
    if not codes:
        return None
    # 99SDM and SNM3 are older designators of SNOMED RT.
    property_type, *modifiers = (code.replace("99SDM:", "SRT:").replace("SNM3:", "SRT:") for code in codes)
    if single := _SINGLE_CODES.get(property_type) or _MORE_CODES.get(property_type):
        return single
    term = _PAIRED_CODES.get(property_type)
    sides = {_SIDE_CODES[code] for code in modifiers if code in _SIDE_CODES}
    return "-".join((term, *sides)) if term and len(sides) <= 1 else None
