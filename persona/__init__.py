"""The command line: one verb a module, each importing the room it needs when it runs."""
