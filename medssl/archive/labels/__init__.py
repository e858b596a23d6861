"""Label objects of DICOM: segmentations and structure sets, drawn onto the grid of a scan.

`segmentation` and `structure_set` draw into a `label_map.LabelMap`; `names` and `terms` decide which label a structure
becomes. Imports `dicom`, `index` and `privacy`.
"""
