"""The commands of `regulars` beside those of the stack itself."""
