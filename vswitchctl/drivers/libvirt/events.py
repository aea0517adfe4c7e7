"""libvirt's event loop: one thread of the process, for all connections."""

from __future__ import annotations

import logging
import threading

import libvirt

LOG = logging.getLogger(__name__)

_lock = threading.Lock()
_thread: threading.Thread | None = None


def ensure_running() -> None:
    """Start the loop where it does not run. It must be there before the first connection is opened.

    It never ends: libvirt has no way to take an implementation back, and it waits without work.
    """
    global _thread  # noqa: PLW0603 - libvirt's registration is the process's, too
    with _lock:
        if _thread is None:
            libvirt.registerErrorHandler(_said, None)
            libvirt.virEventRegisterDefaultImpl()
            _thread = threading.Thread(target=_run, name="libvirt-events", daemon=True)
            _thread.start()


def _said(_context: object, error: tuple[object, ...]) -> None:
    """Errors come as exceptions, too; libvirt would print them to the terminal."""
    LOG.debug("libvirt: %s", error[2] if len(error) > 2 else error)


def _run() -> None:
    while True:
        try:
            libvirt.virEventRunDefaultImpl()
        except libvirt.libvirtError as error:
            LOG.warning("libvirt's event loop: %s", error)
