"""What `inspect` and `recalibrate` do."""
