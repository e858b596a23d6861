"""The encoders that ship: one file each, which is all that an encoder needs.

A file `some_name.py` holds one subclass of `Encoder` whose `name` is 'some-name'. `medssl.encoders.shipped` lists them
by their files; a class is imported when an encoder is built. These files may import MONAI and `medssl.encoders`.
"""
