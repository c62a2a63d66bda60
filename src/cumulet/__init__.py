"""Cumulet: a small, honest, secure cloud whose servers move safely."""
