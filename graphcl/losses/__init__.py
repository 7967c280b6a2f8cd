"""Modules that own what an objective must remember: temperature, queue, per-sample state, prototypes."""
