"""The pretext tasks that ship with medssl, one file each.

They come through the same entry points, hook and conformance kit as anybody else's plugin, and may import what a plugin
may: `medssl` and the public names of `medssl.pretext`, `medssl.views`, `medssl.encoders` and `medssl.plugins`. medssl
never imports this package. A new task is a file here, an entry point in pyproject.toml and a page in docs/tasks.
"""
