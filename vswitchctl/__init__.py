"""vswitchctl: declare a virtual network as a graph; see DESIGN.md for the layers."""

__version__ = "0.1.0"
