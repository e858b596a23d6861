from .candidates import EncoderCandidates as EncoderCandidates
from .loop import train as train
from .trainee import Trainee as Trainee
from .trainee import Training as Training
from .trial import benchmark as benchmark
from .trial import dry_run as dry_run
from .watch import CollapseWatch as CollapseWatch
