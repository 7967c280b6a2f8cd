"""Other libraries' worlds; each module needs an extra, and nothing of this package imports them."""
