"""One DICOM file: bytes to header records, and pixel data to stored values.

`dataset` reads the selected elements with the parser in `elements`, `header` makes a `record.Record` of them,
`label_record` does so for segmentations and structure sets, `pixels` and `codecs` read frames, `vocabulary` holds the
words that may leave the archive. Imports only the archive's `limits` and `rejection`.
"""
