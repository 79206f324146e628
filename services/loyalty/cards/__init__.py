"""Stamp cards: purchases that fill a card."""
