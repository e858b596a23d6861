"""From files to the index: `collect` lists the sources and reads headers, `containers` does so for zip and tar files,
and `recognise` makes a record of a file's first bytes. Imports every room of the archive below `plan`, but no voxels.
"""
