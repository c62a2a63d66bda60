"""What images call the hypervisors that run their guests here (`img_hv_type`)."""

from __future__ import annotations

TYPES = ("qemu", "kvm")
