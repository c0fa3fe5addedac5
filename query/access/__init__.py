"""Access: who asks (`authentication/`), and what of which cluster they may see and do (`authorization/`)."""
