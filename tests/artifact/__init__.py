"""The artifact: its files, and finding the rows of items."""
