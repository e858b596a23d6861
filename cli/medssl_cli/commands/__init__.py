"""One file per command of `medssl`, named like it; `medssl_cli.main` has the list.

A file holds the command's options and prints its result. At its top it imports nothing heavy, and no other command.
"""
