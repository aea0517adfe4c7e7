"""What the daemon answers: the API's `Service` over the intent database and the reconcile loop."""

from vswitchctl.service.host import HostService

__all__ = ["HostService"]
