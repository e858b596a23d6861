"""Limits for untrusted files, checked before anything is allocated or decoded."""

from pydantic import BaseModel, ConfigDict, Field


class Limits(BaseModel):
    """Limits for hostile or broken files, and the range of plausible geometries."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    voxels: int = Field(default=2**31, gt=0, description="voxels of one scan")
    scan_bytes: int = Field(default=2 * 2**30, gt=0, description="bytes of one scan before rescaling")
    header_bytes: int = Field(default=2**20, gt=0, description="bytes read for the header of a single-frame file")
    frames_header_bytes: int = Field(default=2**26, gt=0, description="bytes read for the header of a multi-frame file")
    scan_seconds: float = Field(default=300.0, gt=0, description="seconds for loading and storing one scan")
    header_seconds: float = Field(default=60.0, gt=0, description="seconds for reading 64 headers")
    container_seconds: float = Field(
        default=1800.0,
        gt=0,
        description="seconds for listing a zip or tar file, or for the headers of 4096 of its members",
    )
    container_members: int = Field(default=200_000, gt=0, description="most members of a zip or tar file")
    container_ratio: int = Field(default=200, gt=0, description="most bytes that a container unpacks to, over its size")
    copied_bytes: int = Field(
        default=16 * 2**30, gt=0, description="bytes copied for one scan out of a container or from a server"
    )
    worker_bytes: int = Field(default=16 * 2**30, gt=0, description="address space of one worker process")
    spacing_mm: tuple[float, float] = Field(default=(0.05, 20.0), description="smallest and largest voxel edge")
    field_of_view_mm: float = Field(default=30.0, ge=0, description="smallest length of the longest edge of a scan")
