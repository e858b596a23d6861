"""The private index of a cohort: one SQLite file with every file that was met and every scan that was planned.

`database` opens and queries it, `schema` has its tables, `entries`, `load_plan` and `planned_scan` are what it holds,
`missing` marks files that are gone. Imports sources, dicom and the cohort's codes.
"""
