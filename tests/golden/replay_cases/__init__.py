"""One module a family of oracle cases. Importing the package imports them all, which registers their runners."""

from importlib import import_module
from pkgutil import iter_modules

from replay_cases.registry import Case, Document, NotCovered, Partial, read_document, runner_of

__all__ = ["Case", "Document", "NotCovered", "Partial", "read_document", "runner_of"]

for _module in sorted(module.name for module in iter_modules(__path__)):
    import_module(f"{__name__}.{_module}")
