"""Pure statistics: correlations, bootstrap intervals, comparisons of methods, effects of modules."""
