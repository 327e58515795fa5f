"""`otway run`: agents in a process, and what that process tells of itself."""
