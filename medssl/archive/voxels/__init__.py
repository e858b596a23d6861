"""Planned scans to voxels in physical units, with their labels.

`scan.load_planned_scan` is the entry; `dicom` reads slices, `labels` draws label objects, `sound_run` leaves out
damaged slices, `local_copies` brings files from containers and servers to this machine. Imports the rooms below `plan`.
"""
