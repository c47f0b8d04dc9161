"""The command line: one module for each verb, which imports its room when the verb runs."""
