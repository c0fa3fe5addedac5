"""When rows of these tests are shown, and when their objects were made."""

NOW = 1767607872.0
AGO = "2026-01-05T09:11:12Z"
AGE = "60m"
