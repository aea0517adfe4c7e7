"""What the daemon answers: the API's `Service` over the intent database and the reconcile loop."""

from vswitchctl.service.acl_log import AclLog
from vswitchctl.service.host import HostService

__all__ = ["AclLog", "HostService"]
