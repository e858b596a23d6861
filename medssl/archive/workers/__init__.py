"""Worker processes that may die: `task` says what they promise, `local` runs them on this machine, `dask` on a cluster,
and `process` is the process itself. Imports no other room of the archive.
"""
