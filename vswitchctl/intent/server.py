"""Where the schema of the intent database is. Whoever starts an ovsdb-server for it asks here.

The schema's version follows ovsdb(7): MAJOR changes where a table or column goes away or changes its meaning,
MINOR where one is added (an older daemon goes on working beside it), PATCH where only a constraint changes.
A file of an older version is converted with `ovsdb-tool convert` (one machine) or `ovsdb-client convert`
(a running server, clustered or not).
"""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

DATABASE = "vswitchctl"
"""The database's name, as the schema gives it and as RFC 7047's methods want it."""


def schema_path() -> Path:
    """The file `vswitchctl.ovsschema` of the installed package."""
    return Path(str(files("vswitchctl.intent") / "vswitchctl.ovsschema"))
