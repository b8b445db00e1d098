"""A request to forget one person: from folders of photographs to benchmark, run and record."""
