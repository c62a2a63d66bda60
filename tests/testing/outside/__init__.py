"""A project of somebody else, who tests tools with `cumulet.testing`. `long_run` copies it away and runs it there."""
