from .ending import Terminated as Terminated
from .paths import RunPaths as RunPaths
from .picture_files import Picture as Picture
from .run import Run as Run
from .run_record import RunRecord as RunRecord
