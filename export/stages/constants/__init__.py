"""Nodes that depend on weights alone become weights."""
