"""How long tests wait for what should happen."""

from __future__ import annotations

# No test waits longer than this, in seconds. Much longer than anything takes on a quiet machine: on one whose
# processors are all busy with something else, much takes ten times as long.
PATIENCE = 60.0
