"""Runs a command and reaps all that descends from it, as an init does, until nothing of it is left.

libvirt waits for a machine's process to vanish; where nobody reaps it, it waits in vain.
"""

from __future__ import annotations

import ctypes
import os
import sys

PR_SET_CHILD_SUBREAPER = 36  # prctl(2)

ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
os.posix_spawnp(sys.argv[1], sys.argv[1:], os.environ)
while True:
    try:
        os.wait()
    except ChildProcessError:
        break
