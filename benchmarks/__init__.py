"""Speed, as ratios against a peer in the same process. Run with `make bench`."""
