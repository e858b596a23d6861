"""Where files lie, and how to read them there: folders, zip and tar files, object stores, DICOMweb servers.

`open.open_source` opens any of them as a `source.FileSource`; `walk` lists folders on disk; only `location` knows how
addresses on servers are written. Imports `dicom` and the archive's `limits` and `rejection`.
"""
