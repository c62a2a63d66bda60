"""The request corpus: a file is an area of the Compute API."""
