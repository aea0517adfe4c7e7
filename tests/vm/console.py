"""A guest's serial console: text in, text out."""

from __future__ import annotations

import secrets
import socket
import time
from pathlib import Path

PATIENCE = 90.0
"""Seconds that a guest may take for anything on a busy machine: it is emulated."""


class Console:
    """Connected to the Unix socket that QEMU serves the first serial port on."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.connect(str(path))
        self._text = ""

    def wait_for(self, text: str) -> str:
        """What came up to and with this text."""
        end = time.monotonic() + PATIENCE
        while text not in self._text:
            left = end - time.monotonic()
            assert left > 0, f"the guest did not say {text!r}, but:\n{self._text}"
            self._socket.settimeout(left)
            try:
                data = self._socket.recv(65536)
            except TimeoutError:
                continue
            assert data, f"the console ended before the guest said {text!r}:\n{self._text}"
            self._text += data.decode(errors="replace")
        before, _, self._text = self._text.partition(text)
        return before + text

    def run(self, command: str) -> tuple[int, str]:
        """(exit code, output) of a shell command in the guest."""
        tag = secrets.token_hex(4)
        # The terminal echoes the command, so what we wait for must not stand in it as such.
        self._socket.sendall(f"echo {tag}-be''gin; {command}; echo {tag}-en''d $?-\n".encode())
        self.wait_for(f"{tag}-begin")
        output = self.wait_for(f"{tag}-end").removesuffix(f"{tag}-end")
        code = self.wait_for("-").strip(" -")
        return int(code), output.replace("\r", "").strip("\n")

    def succeeds(self, command: str) -> bool:
        return self.run(command)[0] == 0

    def close(self) -> None:
        self._socket.close()
