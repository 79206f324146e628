"""REST over the services' RPCs: it authenticates, limits, translates and forwards, and knows no rule."""
