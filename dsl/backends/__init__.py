"""What runs a graph.  `numpy` interprets it op by op and is the reference the others are tested against."""
