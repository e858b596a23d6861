"""Everything that can go wrong for a user, as one tree.

* MedsslError          what every command turns into one line, without a traceback
  + ConfigError        a setting is unknown, misspelt or out of range (exit code 2)
  + UsageError         the command cannot start as asked: missing path, folder not empty (exit code 2)
  + DataError          a file, scan, label or cohort cannot be used
  + PluginError        a pretext task cannot be found, loaded or distinguished from another
    + UnknownNameError no plugin has the name that was asked for (also a UsageError: exit code 2)
  + TrackingError      the tracking store cannot be written or read
  + CheckpointError    weights or training state do not fit, or cannot be read
  + TrainingError      training cannot go on: the loss is not finite

A message says what is wrong, with the value and the place; then what to do. Bugs are not MedsslErrors: they
keep their traceback.
"""


class MedsslError(Exception):
    """Base of every error that a user can act on."""


class ConfigError(MedsslError):
    """A setting is unknown, misspelt or out of range."""


class UsageError(MedsslError):
    """The command cannot start as asked."""


class DataError(MedsslError):
    """A file, scan, label or cohort cannot be used."""


class PluginError(MedsslError):
    """A pretext task cannot be found, loaded or distinguished from another."""


class UnknownNameError(PluginError, UsageError):
    """No plugin has the name that was asked for."""


class TrackingError(MedsslError):
    """The tracking store cannot be written or read."""


class CheckpointError(MedsslError):
    """Weights or training state do not fit, or cannot be read."""


class TrainingError(MedsslError):
    """Training cannot go on: the loss is not finite."""
