"""``lrpfast doctor``: what runs here, and why."""
from __future__ import annotations
