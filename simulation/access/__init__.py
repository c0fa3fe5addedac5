"""Access: who asks a simulated cluster, in whose name, and whether its RBAC allows it."""
