"""Reports: what a program gave, what it cost, what it owes, and who stands where."""
