"""The demonstration: a real purchase history with people who do not exist, from its files to a profile."""
