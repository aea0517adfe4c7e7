"""One driver per outside system; nothing else does I/O on the host."""

import warnings

# `ovs.poller` imports eventlet where os-ken brought it along, only to ask whether it is in use. It is not.
warnings.filterwarnings("ignore", message=r"\s*Eventlet is deprecated")
