"""Brands and shops of a tenant, and the attributes that they declare."""
