"""The command line: typed options, one clear line on bad input, exit status 0, 2 (bad input) or 1 (our own fault)."""

from __future__ import annotations

from graphcl.cli.app import app, main

__all__ = ["app", "main"]
