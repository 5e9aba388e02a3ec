"""The command line: a file for each verb, and the work of those that have some."""
