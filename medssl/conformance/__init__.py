"""Checks that every pretext task and every encoder must pass, in seconds on a CPU.

Plugin authors reach them through `medssl.testing` and `medssl plugins check`. Imports everything up to `pretext`.
"""
