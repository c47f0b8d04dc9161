"""The project itself: its rules, documentation, packages and image."""
