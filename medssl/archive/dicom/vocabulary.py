"""The words that may leave the archive. All other text in a header becomes 'other', because it may name a patient."""

import re
from functools import lru_cache

# DICOM PS3.3 C.7.3.1.1.1: modalities that can hold volumes, and those that often accompany them.
_MODALITY_WORDS = """
CT MR PT NM US CR DX MG XA RF SC OT SEG RTSTRUCT RTDOSE RTPLAN REG SR PR KO AU ECG DOC OP OPT ES SM IO PX BDUS
"""
_MODALITIES = frozenset(_MODALITY_WORDS.split())

# PS3.16 annex L (body part examined), the coarse ones, with spellings seen in archives.
_BODY_PART_WORDS = """
abdomen: abdomen abd
abdomen-pelvis: abdomenpelvis abdpelvis
ankle: ankle
arm: arm humerus
bladder: bladder
brain: brain
breast: breast
cervical-spine: cervicalspine cspine
chest: chest thorax lung
chest-abdomen: chestabdomen
chest-abdomen-pelvis: chestabdpelvis chestabdomenpelvis
elbow: elbow
extremity: extremity
foot: foot
hand: hand
head: head skull ear iac eye orbit jaw
head-neck: headneck
heart: heart cardiac
hip: hip
kidney: kidney
knee: knee
leg: leg femur thigh calf
liver: liver
lumbar-spine: lumbarspine lspine
neck: neck
pancreas: pancreas
pelvis: pelvis
prostate: prostate
rectum: rectum
shoulder: shoulder clavicle
spine: spine sspine coccyx
thoracic-spine: thoracicspine tspine
uterus: uterus
whole-body: wholebody
wrist: wrist
"""
_BODY_PARTS = {
    spelling: word
    for word, spellings in (line.split(":") for line in _BODY_PART_WORDS.split("\n") if line)
    for spelling in spellings.split()
}

# First match wins; searched in lower case.
_MANUFACTURERS = (
    ("siemens", "siemens"), ("ge medical", "ge"), ("ge healthcare", "ge"), ("general electric", "ge"),
    ("philips", "philips"), ("toshiba", "canon"), ("canon", "canon"), ("uih", "uih"), ("united imaging", "uih"),
    ("hitachi", "hitachi"), ("fujifilm", "fujifilm"), ("shimadzu", "shimadzu"), ("neusoft", "neusoft"),
    ("bruker", "bruker"), ("mediso", "mediso"), ("hologic", "hologic"), ("carestream", "carestream"),
    ("esaote", "esaote"), ("samsung", "samsung"), ("neurologica", "neurologica"), ("picker", "philips"),
    ("marconi", "philips"), ("elscint", "elscint"), ("imatron", "ge"), ("accuray", "accuray"),
    ("varian", "varian"), ("planmed", "planmed"),
)  # fmt: skip

_MODEL_WORDS = """
achieva ingenia intera elition ambition gyroscan panorama brilliance ict iqon ingenuity mx8000 incisive spectral
vereos gemini trio triotim prisma prisma_fit skyra verio avanto aera vida sola lumina altea espree symphony
symphonytim sonata allegra harmony biograph biograph_mmr magnetom terra investigational_device_7t emotion sensation
somatom definition definition_as definition_flash definition_edge force drive edge_plus go.top go.up go.now go.all
perspective scope spirit volume_zoom naeotom somatom_definition somatom_definition_as somatom_definition_as+
somatom_definition_flash somatom_force somatom_drive somatom_edge_plus signa signa_hdxt signa_excite optima_mr450w
optima_mr360 discovery_mr750 discovery_mr750w architect premier artist pioneer voyager genesis_signa hispeed
lightspeed lightspeed_vct lightspeed16 lightspeed_pro_16 optima_ct660 optima_ct540 discovery_ct750_hd revolution
revolution_ct revolution_evo brightspeed discovery_st discovery_ste discovery_690 discovery_710 aquilion
aquilion_one aquilion_prime aquilion_lightning asteion titan vantage galan orian excelart umr_570 umr_560 umr_770
umr_780 umr_790 uct_760 uct_780 uct_530 umi_550 umi_780 oasis echelon airis scenaria supria
"""
_MODELS = frozenset(_MODEL_WORDS.split())


@lru_cache(maxsize=1024)
def modality_word(text: str) -> str:
    """A modality code of DICOM, or 'unknown'."""
    word = text.strip().upper()
    return word if word in _MODALITIES else "unknown"


@lru_cache(maxsize=1024)
def body_part_word(text: str) -> str:
    """A coarse body part; 'unknown' for blank text, 'other' for unlisted text."""
    word = re.sub(r"[^a-z]", "", text.lower())
    return _BODY_PARTS.get(word, "other") if word else "unknown"


@lru_cache(maxsize=1024)
def manufacturer_word(text: str) -> str:
    """A listed manufacturer; 'unknown' for blank text, 'other' for unlisted text."""
    lower = text.lower()
    listed = next((word for part, word in _MANUFACTURERS if part in lower), None)
    return listed or ("other" if lower.strip() else "unknown")


@lru_cache(maxsize=1024)
def model_word(text: str) -> str:
    """A listed model; 'unknown' for blank text, 'other' for unlisted text."""
    word = re.sub(r"\s+", "_", text.strip().lower())
    return word if word in _MODELS else ("other" if word else "unknown")
