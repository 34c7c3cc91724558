"""From a table of runs to results: fit the laws, load laws that were registered, record what was found."""
