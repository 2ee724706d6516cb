"""The log-structured store: SQLite log, committed state in memory, watches."""
