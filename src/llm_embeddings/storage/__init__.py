"""What must be on disk after a crash: files, SQLite, journals; and progress shown meanwhile."""
