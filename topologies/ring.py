"""Five bridges in a ring, in Python: where a topology has a pattern, a loop says it best.

vswitchctl runs this file on the command line, as the user who calls it, and takes its `topology`: a
TopologyBuilder as here, a Topology, or a networkx graph. The daemon never runs it.
"""

from vswitchctl.topology.builder import TopologyBuilder

BRIDGES = 5

topology = (
    TopologyBuilder("ring", description="five bridges in a ring, an endpoint of each tenant on every one")
    .tenant("east")
    .tenant("west")
    .network("east-lan", tenant="east", subnets=["10.40.0.0/24", "2001:db8:40::/64"])
    .network("west-lan", tenant="west", subnets=["10.40.0.0/24"])
)

for number in range(1, BRIDGES + 1):
    topology.bridge(f"ring{number}")

for number in range(1, BRIDGES + 1):
    successor = number % BRIDGES + 1
    topology.link(f"ring{number}", f"ring{successor}", kind="veth" if number % 2 else "patch")

for tenant in ("east", "west"):
    for number in range(1, BRIDGES + 1):
        name = f"{tenant}{number}"
        addresses = [f"10.40.0.{number}/24"]
        if tenant == "east":
            addresses.append(f"2001:db8:40::{number}/64")
        topology.namespace(name, tenant=tenant)
        topology.interface(name, "eth0", network=f"{tenant}-lan", ip=addresses)
        topology.link(f"{name}:eth0", f"ring{number}")

topology.expect(
    [f"east{number}:eth0" for number in range(1, BRIDGES + 1)],
    [f"west{number}:eth0" for number in range(1, BRIDGES + 1)],
)
