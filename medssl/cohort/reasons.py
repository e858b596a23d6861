"""Every verdict of ingest: why a scan was left out, and what was noticed about one that is stored.

This is the only list. The manifest, the report, the JSON and docs/archive.md are written from it.
"""

from enum import StrEnum


class Reason(StrEnum):
    """Why a file, a series or a scan is not in the store.

    Attributes:
        meaning: one sentence on what it means.
        action: one sentence on what to do.
    """

    meaning: str
    action: str

    # The defaults are for type checkers alone: Reason("LOCALIZER") looks a member up by its code.
    def __new__(cls, code: str, meaning: str = "", action: str = "") -> "Reason":
        """A code with what it means and what to do."""
        member = str.__new__(cls, code)
        member._value_ = code
        member.meaning, member.action = meaning, action
        return member

    # Files
    EMPTY_FILE = "EMPTY_FILE", "The file has no bytes.", "Export it again from the archive."
    DATASET_JSON = (
        "DATASET_JSON",
        "A dataset.json that cannot be read as one of the Decathlon or of nnU-Net; it was ignored.",
        "Mend it if it belongs to scans; else nothing: labels are matched by file name.",
    )
    NOT_DICOM = (
        "NOT_DICOM",
        "The file is neither DICOM nor NIfTI.",
        "Nothing to do, unless a scan is expected here: then it is damaged in its first bytes.",
    )
    BAD_HEADER = "BAD_HEADER", "The header cannot be parsed.", "Export the file again; it is damaged."
    TRUNCATED = (
        "TRUNCATED",
        "The file holds fewer voxels than its header promises.",
        "Copy or export it again; the copy was cut short.",
    )
    IN_FLUX = (
        "IN_FLUX",
        "The file was changed while it was read, or after its header was read.",
        "Run the same command again when the export has ended.",
    )
    DICOMDIR = "DICOMDIR", "A DICOMDIR lists files; it holds no scan.", "Nothing to do: the folder itself is walked."
    IO_ERROR = "IO_ERROR", "The file or folder cannot be opened or read.", "Check its permissions and the disk."
    CONTAINER = (
        "CONTAINER",
        "A zip, tar or gzip file, which was not looked into.",
        "Add --containers to read what is in it.",
    )
    CONTAINER_BROKEN = (
        "CONTAINER_BROKEN",
        "The zip, tar or gzip file, or a member of it, cannot be read to its end.",
        "Make the file again; members before the damage are used.",
    )
    CONTAINER_ENCRYPTED = (
        "CONTAINER_ENCRYPTED",
        "The zip file, or a member of it, is locked with a password.",
        "Unpack it, and name the folder as a source.",
    )
    CONTAINER_BOMB = (
        "CONTAINER_BOMB",
        "The zip, tar or gzip file unpacks to far more than its size allows for, or has too many members.",
        "Raise limits.container_ratio or limits.container_members if it is meant to be so; else treat it as hostile.",
    )
    CONTAINER_NESTED = (
        "CONTAINER_NESTED",
        "A zip, tar or gzip file within another one.",
        "Unpack the outer one, and name the folder as a source.",
    )
    CONTAINER_UNSAFE = (
        "CONTAINER_UNSAFE",
        "A member that is a link or a device, or whose name leads out of its zip or tar file or occurs twice.",
        "Look at the zip or tar file; a scan is a regular file with a name of its own.",
    )
    SYMLINK_OUTSIDE_ROOT = (
        "SYMLINK_OUTSIDE_ROOT",
        "A symbolic link leads out of the source folder.",
        "Name the folder it leads to as a source of its own.",
    )
    DEFLATE_LIMIT = (
        "DEFLATE_LIMIT",
        "A deflated DICOM file inflates beyond the limits.",
        "Export it in an uncompressed transfer syntax.",
    )
    TOO_DEEP = (
        "TOO_DEEP",
        "Sequences are nested deeper than any scanner nests them.",
        "Export the file again; treat it as hostile until then.",
    )
    HEADER_LIMIT = (
        "HEADER_LIMIT",
        "The header does not end within the bytes that are read for one.",
        "Look at the file; a private element of many megabytes lies before the image.",
    )
    SCAN_CRASH = (
        "SCAN_CRASH",
        "The worker that read this header died or ran out of time.",
        "Keep the file away from other tools, and report it to us if you may share it.",
    )
    SOP_UID_COLLISION = (
        "SOP_UID_COLLISION",
        "Two files carry one SOP Instance UID with different content.",
        "Find out which one is right; neither is used.",
    )
    # Objects that are no scans
    NOT_IMAGE_SOP = (
        "NOT_IMAGE_SOP",
        "A report, plan, waveform, presentation state or other object without a volume.",
        "Nothing to do.",
    )
    LABEL_OBJECT = (
        "LABEL_OBJECT",
        "A DICOM SEG or RTSTRUCT: it labels the series it refers to, and is no scan itself.",
        "Nothing to do.",
    )
    SECONDARY_CAPTURE = "SECONDARY_CAPTURE", "A screenshot or secondary capture.", "Nothing to do."
    COLOR = "COLOR", "A colour image (RGB, YBR or palette).", "Nothing to do; it is no measured intensity."
    BURNED_IN_RISK = (
        "BURNED_IN_RISK",
        "The header says that text may be burned into the pixels.",
        "Have it cleaned by a de-identification tool first.",
    )
    PARAMETRIC_MAP = (
        "PARAMETRIC_MAP",
        "A parametric map with float pixels.",
        "Nothing to do; maps are no training scans.",
    )
    UNSUPPORTED_MODALITY = (
        "UNSUPPORTED_MODALITY",
        "The modality yields no volume with a geometry that can be proven (projection, ultrasound, ...).",
        "Nothing to do.",
    )
    # Pixels
    UNSUPPORTED_SYNTAX = (
        "UNSUPPORTED_SYNTAX",
        "The transfer syntax is retired, unknown or has no safe decoder here.",
        "Export the series uncompressed, or as JPEG 2000, JPEG-LS, JPEG lossless or RLE.",
    )
    BAD_PIXELS = (
        "BAD_PIXELS",
        "The compressed pixels do not decode to what the header describes.",
        "Export the series again, best uncompressed.",
    )
    BAD_NUMBER = (
        "BAD_NUMBER",
        "A number that geometry or intensity rests on is not a finite number.",
        "Export the file again; if the scanner writes it so, report the device to its vendor.",
    )
    DECODER_CRASH = (
        "DECODER_CRASH",
        "The worker died twice while loading this scan.",
        "Keep the files away from other tools, and report them to us if you may share them.",
    )
    TIMEOUT = (
        "TIMEOUT",
        "Loading took longer than the limit.",
        "Raise limits.scan_seconds if the disk is slow; else treat the files as hostile.",
    )
    TOO_LARGE = (
        "TOO_LARGE",
        "The scan needs more voxels or bytes than the limits allow.",
        "Raise limits.voxels if it is meant to be so large.",
    )
    # Geometry
    NO_GEOMETRY = (
        "NO_GEOMETRY",
        "Position, orientation or spacing is missing (DICOM), or sform and qform are both unset (NIfTI).",
        "Nothing is guessed: export with geometry, or write the affine into the NIfTI header.",
    )
    BAD_GEOMETRY = (
        "BAD_GEOMETRY",
        "Orientation is not orthonormal, or a spacing is zero, negative or not a number.",
        "Export it again; if it persists the scan cannot be trusted.",
    )
    OUT_OF_RANGE = (
        "OUT_OF_RANGE",
        "Voxels are smaller than 0.05 mm or larger than 20 mm, or the field of view is below 30 mm.",
        "Adjust limits.spacing_mm or limits.field_of_view_mm for specimens and phantoms.",
    )
    MULTIFRAME_NO_GEOMETRY = (
        "MULTIFRAME_NO_GEOMETRY",
        "A multi-frame object without a position for each frame.",
        "Export it as single frames or as an enhanced object.",
    )
    UIH_GRID = ("UIH_GRID", "A UIH grid image whose tiles carry no usable geometry.", "Export it as single slices.")
    BAD_MOSAIC = (
        "BAD_MOSAIC",
        "A Siemens mosaic without a usable private header.",
        "Export it again with private elements, or as single slices.",
    )
    LOCALIZER = "LOCALIZER", "A localizer, scout or topogram.", "Nothing to do."
    TOO_FEW_SLICES = (
        "TOO_FEW_SLICES",
        "Fewer slices than --min-slices at one orientation.",
        "Lower --min-slices if such scans are wanted.",
    )
    MISSING_SLICES = (
        "MISSING_SLICES",
        "Slices are missing and no gap-free run is long enough, or these lie outside the longest run.",
        "Export the series again; slices are never invented.",
    )
    UNEVEN_SPACING = (
        "UNEVEN_SPACING",
        "Slices are unevenly spaced and no even run is long enough.",
        "Nothing to do; resampling across uneven gaps would invent voxels.",
    )
    SLICE_SHIFT = (
        "SLICE_SHIFT",
        "Slices are shifted sideways against each other in a way no gantry tilt explains.",
        "Look at the series; it may mix two acquisitions.",
    )
    TILT_TOO_LARGE = "TILT_TOO_LARGE", "The slices are sheared by more than 35 degrees.", "Look at the series."
    DUPLICATE_POSITION = (
        "DUPLICATE_POSITION",
        "Slices share a position, differ in content, and nothing in the header tells them apart.",
        "Export the acquisitions as separate series.",
    )
    INCOMPLETE_4D = (
        "INCOMPLETE_4D",
        "A time series of which no volume is complete, or the incomplete rest of one.",
        "Export the series again if the complete volumes are wanted.",
    )
    VOLUME_LIMIT = (
        "VOLUME_LIMIT",
        "A further volume of a time series beyond --volumes-per-series.",
        "Raise --volumes-per-series if every time point is wanted.",
    )
    DERIVED = (
        "DERIVED",
        "Derived: projection, subtraction, parameter map, phase, real or imaginary image.",
        "Add --include-derived if such images are wanted.",
    )
    # Content
    NOT_3D = (
        "NOT_3D",
        "A NIfTI file with one slice or with more than three dimensions.",
        "Save one 3D volume per file.",
    )
    NOT_SCALAR = ("NOT_SCALAR", "A NIfTI file with RGB or complex voxels.", "Save it with one number per voxel.")
    MULTI_CHANNEL = (
        "MULTI_CHANNEL",
        "The case has several channels (nnU-Net _0000, _0001, ...); only single-channel scans are read.",
        "Ingest one channel by itself.",
    )
    NAN_VOXELS = (
        "NAN_VOXELS",
        "Voxels are NaN, infinite, or beyond the range of 32-bit floats.",
        "Replace them with a number that means background, and ingest again.",
    )
    EMPTY_VOLUME = (
        "EMPTY_VOLUME",
        "All voxels, or nearly all, hold one value.",
        "Nothing to do; there is nothing to learn from it.",
    )
    DUPLICATE_CONTENT = (
        "DUPLICATE_CONTENT",
        "Voxel for voxel the same as another scan of the cohort.",
        "Nothing to do; the other one is used. Across two patients, name them as one with --patients.",
    )
    # Labels
    LABEL_WITHOUT_IMAGE = (
        "LABEL_WITHOUT_IMAGE",
        "A label of which no image is in the cohort: by name (NIfTI), or by reference (DICOM).",
        "Rename it like its image, or name the image's folder as a source; a rejected image has a row of its own.",
    )
    LABEL_GRID = (
        "LABEL_GRID",
        "The label lies on another grid than its image.",
        "Resample the label onto the image's grid; or ingest the image without its label.",
    )
    LABEL_UNREADABLE = "LABEL_UNREADABLE", "The scan's label file cannot be read.", "Write the label file again."
    LABEL_NOT_INTEGER = (
        "LABEL_NOT_INTEGER",
        "The label holds values that are no whole numbers from 0 to 255.",
        "Save class numbers, not probabilities.",
    )
    LABEL_NAMES = (
        "LABEL_NAMES",
        "No structure of the DICOM label object has a name or code that stands for a label.",
        "List the names with `medssl archive label-names COHORT`, and give theirs with --label-names.",
    )
    LABEL_CONTOURS = (
        "LABEL_CONTOURS",
        "A structure without a closed contour of three points, or with coordinates that are no finite numbers.",
        "Draw it again, or leave it out with --label-names.",
    )
    LABEL_OFF_SLICE = (
        "LABEL_OFF_SLICE",
        "Contours lie between or across the slices of the scan, or on every second slice only.",
        "Let the contouring software write them on the slices of this series; nothing is drawn between slices.",
    )
    LABEL_SUPERSEDED = (
        "LABEL_SUPERSEDED",
        "Newer label objects of the same scan hold all labels of this one.",
        "Nothing to do; take the newer ones away if this one is right.",
    )


class Flag(StrEnum):
    """What was noticed, repaired or split on a scan that is stored.

    Attributes:
        meaning: one sentence on what it means.
    """

    meaning: str

    def __new__(cls, code: str, meaning: str = "") -> "Flag":
        """A code with what it means."""
        member = str.__new__(cls, code)
        member._value_ = code
        member.meaning = meaning
        return member

    F_NO_PREAMBLE = "F_NO_PREAMBLE", "Preamble or file meta information was missing; the dataset was read anyway."
    F_TOLERANT_PARSE = "F_TOLERANT_PARSE", "The header breaks the standard; the tolerant parser read it."
    F_DUP_INSTANCE = "F_DUP_INSTANCE", "The same instance lies in several files; one is used."
    F_DUP_POSITION = "F_DUP_POSITION", "Slices with the same content share a position; one is used."
    F_DUPLICATES_DIFFER = "F_DUPLICATES_DIFFER", "Copies of a slice differ in their pixels; none of them is used."
    F_FILE_DAMAGED = (
        "F_FILE_DAMAGED",
        "The pixels of some of its files cannot be decoded; copies take their place, or the slices are left out.",
    )
    F_SPLIT_PATIENT = "F_SPLIT_PATIENT", "The series was split by patient: its slices carry several patient ids."
    F_SPLIT_ORIENT = "F_SPLIT_ORIENT", "The series was split by orientation."
    F_SPLIT_DIM = "F_SPLIT_DIM", "The series was split by matrix or pixel size."
    F_SPLIT_TYPE = "F_SPLIT_TYPE", "The series was split by image type (magnitude, phase, original, derived)."
    F_SPLIT_ECHO = "F_SPLIT_ECHO", "The series was split by echo."
    F_SPLIT_ACQ = "F_SPLIT_ACQ", "The series was split by repetition, inversion, flip angle, coil or kernel."
    F_SPLIT_SPACING = "F_SPLIT_SPACING", "The series was split into runs of even spacing."
    F_4D = "F_4D", "One of several volumes at the same place (time, b-value, phase)."
    F_RAGGED_4D = "F_RAGGED_4D", "Slices of incomplete volumes lie beside the complete ones, and are left out."
    F_TRIMMED = "F_TRIMMED", "Slices are missing; the longest gap-free run is used."
    F_JITTER = "F_JITTER", "Slice positions are rounded; the mean spacing is used."
    F_TILT = "F_TILT", "The gantry was tilted; the affine is sheared and exact."
    F_SINGLE_SLICE = "F_SINGLE_SLICE", "One slice; its thickness is the header's word, not proven by positions."
    F_MOSAIC = "F_MOSAIC", "Cut out of a Siemens mosaic."
    F_UIH_GRID = "F_UIH_GRID", "Cut out of a UIH grid."
    F_PER_SLICE_SCALE = "F_PER_SLICE_SCALE", "Slope or intercept differ from slice to slice."
    F_MODALITY_LUT = "F_MODALITY_LUT", "Intensities come through a modality lookup table."
    F_PADDING = "F_PADDING", "Padding outside the field of view was set to the modality's floor."
    F_MONOCHROME1 = "F_MONOCHROME1", "Stored for inverted display; stored values were kept."
    F_SIGNFIX = "F_SIGNFIX", "Bits above the stored ones were masked, or the sign was extended."
    F_LOSSY = "F_LOSSY", "The pixels went through lossy compression."
    F_RECON_SIBLING = "F_RECON_SIBLING", "Another reconstruction of the same acquisition is in the cohort."
    F_QFORM_SFORM_DIFF = "F_QFORM_SFORM_DIFF", "qform and sform disagree; the sform is used."
    F_DEFACED = "F_DEFACED", "The header says that facial features were removed."
    F_LABEL_LEFT_OUT = "F_LABEL_LEFT_OUT", "Its label cannot be used; the scan is kept without one."
    F_LABEL_PART = (
        "F_LABEL_PART",
        "Some structures of its label objects are left out: an unknown name, or a structure that cannot be drawn.",
    )
    F_LABEL_OVERLAP = "F_LABEL_OVERLAP", "Structures of its label overlap; the later one is on top."
    F_LABEL_FRACTIONAL = "F_LABEL_FRACTIONAL", "Its label was fractional; voxels count from one half on."
    F_LABELS_MERGED = (
        "F_LABELS_MERGED",
        "Several label objects refer to it; each label comes from the newest that holds it.",
    )
    F_CT_NOT_HU = "F_CT_NOT_HU", "A CT without negative values and without intercept; it is likely not in HU."
    F_PATIENT_ID_SUSPECT = (
        "F_PATIENT_ID_SUSPECT",
        "The patient id is blank or a placeholder; the split goes by study instead. Check that no patient is in two.",
    )
