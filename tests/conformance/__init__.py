"""The same requests to real Nova (recorded in tests/golden/nova) and to Cumulet must get the same answers."""
