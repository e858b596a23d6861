from .build import (
    build_encoder as build_encoder,
)
from .build import (
    describe as describe,
)
from .build import (
    encoder_names as encoder_names,
)
from .encoder import (
    Decoder as Decoder,
)
from .encoder import (
    Encoder as Encoder,
)
from .encoder import (
    EncoderDescription as EncoderDescription,
)
from .encoder import (
    MonaiTarget as MonaiTarget,
)
from .segmentation_network import SegmentationNetwork as SegmentationNetwork
from .shipped import shipped_encoders as shipped_encoders
from .weights import (
    load_encoder as load_encoder,
)
from .weights import (
    load_network as load_network,
)
from .weights import (
    save_encoder as save_encoder,
)
from .weights import (
    save_network as save_network,
)
