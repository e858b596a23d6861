"""From files as the hospital has them to scans with a proven geometry.

Ten rooms: `dicom` parses files, `sources` finds and opens them, `series` assembles DICOM scans, `nifti` reads NIfTI,
`index` is the private database, `scan` fills it, `privacy` and `labels` decide what may leave it, `plan` plans scans,
`voxels` loads them; `workers` runs it all. Each imports only rooms below it: plan > voxels > labels > scan, privacy >
index, nifti > sources, series > dicom, workers > checks, limits, rejection. The package imports the cohort's codes and
what is below, never torch. Names are imported from their files.
"""
