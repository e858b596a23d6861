"""medssl's own command line, as a user types it."""

import os
import shlex
import subprocess
import sys
import time
from pathlib import Path


def medssl(*words: object, threads: int = 0, reads: bool = False) -> str:
    """Run one medssl command, shown with the time it took. threads: 0 for all that there are. reads: return what it
    prints instead of showing it. Ends this program where the command fails; calling it again goes on from there.
    """
    command = ["medssl", *map(str, words)]
    print("$", shlex.join(command), flush=True)
    started, path = time.monotonic(), f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    limited = {"OMP_NUM_THREADS": str(threads)} if threads else {}
    done = subprocess.run(
        command,
        env={**os.environ, "PATH": path, **limited},
        stdout=subprocess.PIPE if reads else None,
        text=True,
        check=False,
    )
    if done.returncode:
        sys.exit(f"{done.stdout or ''}\nThe command above failed. Run this again to go on.")
    print(f"  took {time.monotonic() - started:.0f} s", flush=True)
    return done.stdout or ""
