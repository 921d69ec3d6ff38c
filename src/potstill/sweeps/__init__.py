"""What a sweep left on disk, read back: its jobs and how they ended."""
