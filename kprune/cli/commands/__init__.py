"""A module for each command, or for those that are alike: options in, a call of kprune's function, its result shown."""
