"""The command line `medssl`.

Commands live in `commands`, the checks of `medssl doctor` in `checkup`. Beside them is what several commands use:
options, progress, tables, error messages and the templates of `medssl plugins new`. Everything may import all of
`medssl`, inside functions where it is heavy.
"""
