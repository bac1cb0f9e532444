"""Bases for environments that others have built: a user's own few lines subclass one of them."""
