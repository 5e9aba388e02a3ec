"""The statistics of batch norms: estimated anew, watched, compared and explained."""
