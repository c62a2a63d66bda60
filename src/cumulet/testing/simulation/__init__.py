"""Deterministic simulation: the whole control plane and its hosts in one process, on a virtual clock, from one seed.

The code under it is the product's: API, sagas, runners, reconcilers, agents, database. Only the clock, the way between
control plane and hosts, and the hypervisor are simulated. The same seed gives the same log, byte for byte.
``python -m cumulet.testing.simulation --help``.
"""
