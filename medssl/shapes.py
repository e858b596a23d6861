"""Types of three numbers, one per axis.

Tensors and stored volumes count axes as (D, H, W), arrays on disk and affines as (X, Y, Z); each use says which.
"""

# Voxels along each axis: the shape of a volume, patch, block or kernel, and strides.
Shape3D = tuple[int, int, int]
# Position of a voxel.
Index3D = tuple[int, int, int]
# Edge lengths of a voxel in mm.
Spacing3D = tuple[float, float, float]
