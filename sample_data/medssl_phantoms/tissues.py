"""Intensities of each tissue: mean, and standard deviation between patients."""

# Mean HU and spread between patients, portal venous phase; liver, spleen, kidney, bowel and vessels overlap on purpose.
CT_HU = {
    "skin": (30.0, 10.0), "fat": (-100.0, 8.0), "muscle": (58.0, 6.0), "bone": (520.0, 90.0),
    "marrow": (220.0, 40.0), "disc": (85.0, 8.0), "spinal fluid": (15.0, 5.0), "lung": (-820.0, 35.0),
    "heart": (125.0, 20.0), "liver": (100.0, 14.0), "spleen": (112.0, 14.0), "kidney cortex": (150.0, 22.0),
    "kidney medulla": (112.0, 18.0), "vein": (140.0, 20.0), "artery": (155.0, 25.0), "bowel": (65.0, 25.0),
    "stomach": (35.0, 15.0), "gas": (-900.0, 40.0), "bile": (12.0, 6.0), "cyst": (8.0, 6.0),
}  # fmt: skip

# Relative signal and spread between patients; air and cortical bone give none.
MR_SIGNAL = {
    "T1": {
        "skin": (0.55, 0.05), "fat": (1.0, 0.06), "muscle": (0.42, 0.03), "bone": (0.12, 0.03),
        "marrow": (0.6, 0.06), "disc": (0.38, 0.03), "spinal fluid": (0.2, 0.03), "lung": (0.06, 0.02),
        "heart": (0.4, 0.06), "liver": (0.56, 0.05), "spleen": (0.43, 0.05), "kidney cortex": (0.5, 0.05),
        "kidney medulla": (0.4, 0.04), "vein": (0.3, 0.08), "artery": (0.15, 0.05), "bowel": (0.42, 0.08),
        "stomach": (0.3, 0.08), "gas": (0.02, 0.01), "bile": (0.3, 0.1), "cyst": (0.22, 0.03),
    },
    "T2": {
        "skin": (0.4, 0.05), "fat": (0.85, 0.06), "muscle": (0.24, 0.03), "bone": (0.1, 0.02),
        "marrow": (0.5, 0.06), "disc": (0.5, 0.1), "spinal fluid": (1.1, 0.06), "lung": (0.05, 0.02),
        "heart": (0.3, 0.05), "liver": (0.36, 0.04), "spleen": (0.58, 0.06), "kidney cortex": (0.6, 0.06),
        "kidney medulla": (0.72, 0.06), "vein": (0.16, 0.05), "artery": (0.1, 0.03), "bowel": (0.55, 0.12),
        "stomach": (0.7, 0.12), "gas": (0.02, 0.01), "bile": (1.1, 0.1), "cyst": (1.1, 0.06),
    },
}  # fmt: skip
