"""KV blocks that keep what they hold when nobody uses them any more: prefix caching."""
