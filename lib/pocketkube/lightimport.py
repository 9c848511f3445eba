"""Import parts of a package without the rest of it.

``import aiohttp.web`` also runs ``aiohttp/__init__``, which imports the whole HTTP client and reads the machine's trusted
certificates; ``pyroute2/__init__`` imports a network database and wireless tools. Together 0.4 s and 25 MB that a cluster
which must be up in a second can't spare, for things it never uses.

:func:`make_light` puts a package in place whose ``__init__`` runs only when someone asks for a name of it, so nothing
breaks for those who do.
"""

from __future__ import annotations

import importlib
import importlib.util
import re
import sys
import types
from pathlib import Path


class _LightPackage(types.ModuleType):
    """A package that knows its submodules, and becomes the whole package when asked for more."""

    def __getattr__(self, name: str):
        if name.startswith("__"):
            raise AttributeError(name)
        if importlib.util.find_spec(f"{self.__name__}.{name}") is not None:
            return importlib.import_module(f"{self.__name__}.{name}")
        self.__class__ = types.ModuleType
        self.__spec__.loader.exec_module(self)
        return getattr(self, name)


def make_light(name: str) -> None:
    """Have later imports of package ``name`` and of its parts load no more than those parts.

    Raises:
        ImportError: the package isn't installed.
    """
    if name in sys.modules:
        return
    spec = importlib.util.find_spec(name)
    if spec is None:
        raise ImportError(f"the package {name} is not installed: see requirements.txt")
    package = _LightPackage(name)
    package.__spec__, package.__file__, package.__path__ = spec, spec.origin, list(spec.submodule_search_locations)
    package.__loader__, package.__package__ = spec.loader, name
    version = re.search(r"^__version__ = \"([^\"]+)\"", Path(spec.origin).read_text(encoding="utf-8"), re.MULTILINE)
    if version:
        package.__version__ = version[1]  # parts of a package import it from the package
    sys.modules[name] = package
