"""Names under which bodies, logs and answers hold a secret: one list for everything that leaves secrets out."""

from __future__ import annotations

SECRET_NAMES = (
    "admin_pass",
    "adminpass",
    "blob",
    "credential",
    "original_password",
    "passcode",
    "password",
    "private_key",
    "secret",
    "token",
    "user_data",
    "x-auth-token",
)
"""In small letters; they are compared without regard to case."""
