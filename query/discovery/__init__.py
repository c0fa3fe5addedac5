"""Discovery: which APIs there are, in which scope, and whether they are ready."""
