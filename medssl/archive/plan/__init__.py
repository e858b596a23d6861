"""From header records in the index to planned scans, and from those to rows of the manifest.

`dicom` and `nifti` plan the scans, `labels` finds the label objects of a DICOM scan, `rows` makes the rows. Imports the
other rooms of the archive but voxels and workers.
"""
