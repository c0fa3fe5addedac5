"""What is compared with real clusters alone is collected where there are some: `make test-clusters`."""

from __future__ import annotations

import os

collect_ignore = [] if os.environ.get("KUBEBRAID_TEST_KUBECONFIG") else ["test_rbac.py"]
