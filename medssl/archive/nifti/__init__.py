"""NIfTI files and the data sets they come in.

`read` and `write` are for one file, `gunzip` bounds what a compressed one may inflate to, `dataset_json` reads the
description of a data set, `pairing` finds the label of an image. Imports `sources` and the archive's `checks`,
`limits`, `rejection`.
"""
