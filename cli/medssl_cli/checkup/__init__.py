"""The checks of `medssl doctor`, a module per subject: each takes `Targets` and returns `Result`s."""
