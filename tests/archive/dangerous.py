"""Work that workers should survive. Imports next to nothing, because workers import it."""

import os
import time

GIGABYTE = 2**30


def behave(number: int) -> int:
    if number == 2:
        os.abort()
    if number == 4:
        time.sleep(60)
    if number == 5:
        return len(bytearray(8 * GIGABYTE))
    return number * number


def fail(number: int) -> int:
    raise ZeroDivisionError(number)
