"""Which units are chosen: statistics, criteria, budgets."""
