"""The command line: typed options, one clear line on bad input, exit status 0, 2 or 1."""
