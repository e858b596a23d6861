from .normalisation import Normalisation as Normalisation
from .policy import StorePolicy as StorePolicy
from .volumes import StoredVolume as StoredVolume
from .volumes import open_volume as open_volume
from .volumes import verify_volume as verify_volume
from .volumes import write_volume as write_volume
