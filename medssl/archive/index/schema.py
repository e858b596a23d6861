"""Tables of the private index, and the questions to it that SQLite answers on disk."""

SCHEMA = (
    "CREATE TABLE IF NOT EXISTS metadata (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID",
    "CREATE TABLE IF NOT EXISTS folders (id INTEGER PRIMARY KEY, path TEXT NOT NULL UNIQUE, root TEXT NOT NULL)",
    """
    CREATE TABLE IF NOT EXISTS files (
        id INTEGER PRIMARY KEY, folder INTEGER NOT NULL REFERENCES folders, name TEXT NOT NULL, size INTEGER NOT NULL,
        mtime_ns INTEGER NOT NULL,
        kind TEXT NOT NULL, reason TEXT, detail TEXT, series TEXT, record TEXT, vanished INTEGER NOT NULL DEFAULT 0,
        UNIQUE (folder, name))
    """,
    "CREATE INDEX IF NOT EXISTS files_of_series ON files (series) WHERE series IS NOT NULL",
    "CREATE INDEX IF NOT EXISTS files_rejected ON files (reason) WHERE reason IS NOT NULL",
    "CREATE TABLE IF NOT EXISTS dirty (series TEXT PRIMARY KEY) WITHOUT ROWID",
    """
    CREATE TABLE IF NOT EXISTS scans (
        scan_id TEXT PRIMARY KEY, series TEXT NOT NULL, load_plan TEXT, planned TEXT NOT NULL, detail TEXT NOT NULL,
        outcome TEXT, previous TEXT) WITHOUT ROWID
    """,
    "CREATE INDEX IF NOT EXISTS scans_of_series ON scans (series)",
    "CREATE INDEX IF NOT EXISTS scans_to_load ON scans (scan_id) WHERE outcome IS NULL AND load_plan IS NOT NULL",
)

# All but one of the scans that are voxel for voxel the same: one with a label stays before one without, then the
# smallest id. SQLite sorts on disk, so that memory does not grow with the archive.
DUPLICATES = """
SELECT scan_id FROM (
    SELECT scan_id, ROW_NUMBER() OVER (
        PARTITION BY json_extract(outcome, '$.content_hash')
        ORDER BY json_array_length(outcome, '$.labels') = 0, scan_id) AS place
    FROM scans
    WHERE json_extract(outcome, '$.content_hash') IS NOT NULL AND json_extract(outcome, '$.reason') IS NULL)
WHERE place > 1
"""
BY_STUDY = """
SELECT json_extract(planned, '$.study_id') AS study, planned FROM scans
WHERE json_extract(planned, '$.modality') = ? AND json_extract(planned, '$.reason') IS NULL
ORDER BY study, scan_id
"""
