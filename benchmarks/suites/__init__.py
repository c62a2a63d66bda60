"""Suites that others wrote, run against Cumulet unchanged; what they said is docs/tempest.md."""
