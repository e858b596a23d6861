"""What every pretext task must keep, as checks that run in seconds on a CPU; `medssl.testing` is the way in."""
