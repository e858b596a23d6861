"""The records of one DICOM series to scans, without opening a file.

`assemble` is the entry; `partition` separates what cannot be one scan, `grid` proves positions and spacing, `volumes`
separates time points, `image_type` reads ImageType. Imports `dicom` and the archive's `checks`, `limits`, `rejection`.
"""
