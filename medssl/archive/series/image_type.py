"""The words of ImageType (0008,0008) and FrameType (0008,9007). PS3.3 C.7.6.1.1.2, C.8.3.1, C.8.13.3."""

_LOCALIZER = frozenset({"LOCALIZER", "SCOUT", "TOPOGRAM", "SCANOGRAM"})
# Signal other than the magnitude: phase, real and imaginary parts, and images computed from phase.
_PHASE_WORDS = """
P PHASE R REAL I IMAGINARY PHASE_MAP PHASE_IMAGE PHASEMAP VELOCITY VELOCITY_MAP FIELD_MAP B0 B0_MAP B1 B1_MAP
PHASECONTRAST FREQUENCY
FIELDMAPHZ REAL_IMAGE IMAGINARY_IMAGE P_FFE R_FFE I_FFE P_SE R_SE I_SE P_IR R_IR I_IR P_PCA
"""
_MAP_WORDS = """
ADC ADC_UNSPECIFIED FA FRACTIONAL_ANISOTROPY EADC EXP_ADC CBF CBV MTT TTP TMAX RCBF RCBV PERFUSION_MAP DIFFUSION_ANISO
TENSOR TENSOR_B0
T1_MAP T2_MAP T2STAR_MAP R2_MAP R2STAR_MAP PD_MAP FAT_FRACTION T1MAP T2MAP MAP TTEST T-TEST GSP STDDEV CSA_RESAMPLED
"""
_PROJECTION_WORDS = """
MIP MINIP MAXIP MIP_SAG MIP_COR MIP_TRA PROJECTION PROJECTION_IMAGE PROJECTION_MIP VOLUME_RENDERING VRT SSD CURVED
SUBTRACTION SUBTRACT SUB
SUBTRACTED MPR REFORMATTED REFORMAT MULTIPLANAR CPR MEAN_IP RESAMPLED
"""
_PHASE = frozenset(_PHASE_WORDS.split())
_DERIVED = _PHASE | frozenset(_MAP_WORDS.split()) | frozenset(_PROJECTION_WORDS.split())


def words_of(image_type: tuple[str, ...]) -> frozenset[str]:
    """The values in upper case with underscores for blanks, and also the single words of values with blanks."""
    values = {value.upper().replace(" ", "_") for value in image_type}
    return frozenset(values | {word for value in image_type for word in value.upper().split()})


def is_localizer(image_type: tuple[str, ...]) -> bool:
    """Whether a slice is a localizer, which only plans other scans."""
    return bool(_LOCALIZER & words_of(image_type))


def is_derived(image_type: tuple[str, ...]) -> bool:
    """Whether a slice is computed from others, or shows a part of the signal other than the magnitude."""
    # DERIVED alone does not count: filtered and distortion-corrected images carry it. With SECONDARY it means a
    # reformatted image.
    words = words_of(image_type)
    return bool(_DERIVED & words) or {"DERIVED", "SECONDARY"} <= words
